//! `setup`: the source's notifications and the target's buckets, as evermirror needs them.
//!
//! **Promise.** Rules that do not go to one of our ARNs are written back as they were; a configuration
//! that holds what this version does not understand is not written at all. What was written is read
//! back and compared, because RustFS takes what it cannot use. Done twice, the second time changes
//! nothing. A dry run sends no request that changes anything.
//!
//! **On an error** in one bucket the others go on, and the report says so. **On cancellation or a
//! crash** each bucket has its old or its new configuration; the next run does the rest.

mod arns;
pub mod dialect;
mod merge;
mod target;

use serde::Serialize;

use crate::config::Settings;
use crate::config::settings::BucketSettings;
use crate::store::{NotificationConfig, NotificationRule, Store, StoreError, StoreKind};
use crate::stores;
use crate::stores::Unusable;
pub use arns::{ArnList, known_arns};
use arns::{Candidates, Refusal};
use dialect::needs_no_rules;
pub use merge::means_the_same;
use merge::{Change, merge};

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub struct SetupOptions {
    /// Only say what would change.
    pub dry_run: bool,
    /// Take our rules out instead, and leave the target alone.
    pub remove: bool,
    /// Turn versioning on in the target's buckets.
    pub target_versioning: bool,
    /// Where the source's events go; looked for at the source if none is given.
    pub arns: Vec<String>,
    /// Whose software the source runs, where it does not say so.
    pub kind: Option<StoreKind>,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SetupReport {
    /// The source's endpoint.
    pub source: String,
    /// Whose software it runs.
    pub kind: &'static str,
    /// Nothing was changed, whatever the buckets say.
    pub dry_run: bool,
    /// Bucket by bucket.
    pub buckets: Vec<BucketReport>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

impl SetupReport {
    /// The number of changes.
    pub fn changes(&self) -> usize {
        self.buckets.iter().map(|b| b.added.len() + b.removed.len() + b.target_changes.len()).sum()
    }

    /// Whether every bucket is as it should be, or would be.
    pub fn succeeded(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.problems.is_empty())
    }
}

/// What was done in one bucket, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BucketReport {
    /// Its name at the source.
    pub bucket: String,
    /// Its name at the target.
    pub target: String,
    /// Rules that came.
    pub added: Vec<RuleReport>,
    /// Rules of ours that went.
    pub removed: Vec<RuleReport>,
    /// Rules that stayed.
    pub kept: Vec<RuleReport>,
    /// What was done at the target, in words.
    pub target_changes: Vec<String>,
    /// Why it is not as it should be.
    pub problems: Vec<String>,
}

/// A rule, to be shown.
#[derive(Debug, Clone, Serialize)]
pub struct RuleReport {
    /// Where the events go.
    pub arn: String,
    /// The rule's name.
    pub id: Option<String>,
    /// Which events.
    pub events: Vec<String>,
    /// `prefix=…`, `suffix=…`.
    pub filters: Vec<String>,
}

impl From<&NotificationRule> for RuleReport {
    fn from(rule: &NotificationRule) -> Self {
        Self {
            arn: rule.arn.clone(),
            id: rule.id.clone(),
            events: rule.events.clone(),
            filters: rule.filters.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        }
    }
}

/// Sets up the buckets of `settings`. An error here means that nothing was changed.
pub async fn run(settings: &Settings, options: &SetupOptions) -> anyhow::Result<SetupReport> {
    let stores = stores::connect(settings).await?;
    let first = settings.buckets.first().map_or("", |bucket| &*bucket.source);
    let answered = stores.source.head_bucket(first).await;
    let kind = match options.kind {
        Some(kind) => kind,
        None => stores.source.kind().await,
    };
    if let Err(error) = answered
        && error.status.is_none()
    {
        return Err(Unusable::of("source")(error).into());
    }
    let mut report = SetupReport {
        source: stores.source.endpoint().to_owned(),
        kind: kind.name(),
        dry_run: options.dry_run,
        ..SetupReport::default()
    };
    let mut candidates = if options.arns.is_empty() && needs_no_rules(&settings.intake) {
        report.notes.push("[intake.listen] needs nothing at the source".to_owned());
        None
    } else {
        let notes = &mut report.notes;
        Some(arns::candidates(settings, options, kind, &stores.source, notes).await?)
    };
    for bucket in &settings.buckets {
        let mut told = BucketReport {
            bucket: bucket.source.clone(),
            target: bucket.target_name().to_owned(),
            ..BucketReport::default()
        };
        let source = Source { store: &stores.source, kind, options, settings };
        if let Some(candidates) = &mut candidates
            && let Err(why) = source.bucket(bucket, candidates, &mut told, &mut report.notes).await
        {
            told.problems.push(why);
        }
        if !options.remove {
            target::prepare(settings, options, &stores.target, bucket, &mut told).await;
        }
        report.buckets.push(told);
    }
    Ok(report)
}

/// The source, and what is to be done there.
struct Source<'a> {
    store: &'a Store,
    kind: StoreKind,
    options: &'a SetupOptions,
    settings: &'a Settings,
}

impl Source<'_> {
    /// One bucket's notifications; the error is a sentence.
    async fn bucket(
        &self,
        bucket: &BucketSettings,
        candidates: &mut Candidates,
        told: &mut BucketReport,
        notes: &mut Vec<String>,
    ) -> Result<(), String> {
        let current = self.store.notification(&bucket.source).await;
        let current = current.map_err(|error| Unusable::of("source")(error).to_string())?;
        candidates.narrow(&current);
        for arns in candidates.sets() {
            let wanted = if self.options.remove {
                Vec::new()
            } else {
                dialect::wanted(self.kind, bucket, &arns)
            };
            let mut change = merge(&current, &arns, &wanted);
            if !self.options.dry_run && !change.is_empty() {
                refuse_the_unknown(&current)?;
                match self.write(bucket, &mut change, notes).await {
                    Ok(()) => {}
                    Err(error) => match Refusal::of(&error) {
                        Refusal::UnknownArn if candidates.more() => continue,
                        Refusal::UnknownArn => {
                            return Err(arns::unknown(self.settings, self.kind, &arns, &error));
                        }
                        Refusal::Overlap => return Err(overlap(&error)),
                        Refusal::UnknownEvent | Refusal::Other => return Err(error.to_string()),
                    },
                }
                self.read_back(bucket, &change).await?;
            }
            candidates.settle(&arns);
            describe(&change, told);
            return Ok(());
        }
        Ok(())
    }

    /// Writes; once more with the events that every store knows, if this one is too old for the rest.
    async fn write(
        &self,
        bucket: &BucketSettings,
        change: &mut Change,
        notes: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let written = self.store.put_notification(&bucket.source, &change.after).await;
        let Err(error) = written else { return Ok(()) };
        if Refusal::of(&error) != Refusal::UnknownEvent {
            return Err(error);
        }
        let more = dialect::more_events(self.kind);
        let known = |event: &String| !more.contains(&event.as_str());
        let names: Vec<_> = change.added.iter().map(|rule| rule.id.clone()).collect();
        let ours = change.after.rules.iter_mut().filter(|rule| names.contains(&rule.id));
        for rule in ours.chain(&mut change.added) {
            rule.events.retain(known);
        }
        self.store.put_notification(&bucket.source, &change.after).await?;
        notes.push(format!(
            "{}: this source does not know all of {}; what they would tell is found by the reconciler",
            bucket.source,
            more.join(", ")
        ));
        Ok(())
    }

    /// RustFS answers 200 to what it cannot use.
    async fn read_back(&self, bucket: &BucketSettings, change: &Change) -> Result<(), String> {
        let there = self.store.notification(&bucket.source).await.map_err(|e| e.to_string())?;
        let lost =
            |rule: &&NotificationRule| !there.rules.iter().any(|there| means_the_same(there, rule));
        match change.after.rules.iter().find(lost) {
            None => Ok(()),
            Some(rule) => Err(format!(
                "the source took the configuration and reads back without its rule for {}; \
                 was somebody else changing it? Run setup again",
                rule.arn
            )),
        }
    }
}

fn describe(change: &Change, told: &mut BucketReport) {
    let reports = |rules: &[NotificationRule]| rules.iter().map(RuleReport::from).collect();
    told.added = reports(&change.added);
    told.removed = reports(&change.removed);
    let came = |rule: &&NotificationRule| !change.added.contains(rule);
    told.kept = change.after.rules.iter().filter(came).map(RuleReport::from).collect();
}

fn refuse_the_unknown(current: &NotificationConfig) -> Result<(), String> {
    if current.unknown.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the bucket's notification configuration holds what this version does not understand ({}), \
         and writing it would lose that; nothing was changed. Add the rule by hand",
        current.unknown.join(", ")
    ))
}

fn overlap(error: &StoreError) -> String {
    format!(
        "{error}: another rule already sends some of these events elsewhere, and this store allows \
         one destination for each. Send that one's events to an SNS topic that feeds both queues, or \
         take it out"
    )
}
