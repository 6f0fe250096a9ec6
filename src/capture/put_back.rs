//! The way back: a captured document against a store, setting by setting.
//!
//! First everything is compared and nothing is changed; a single difference from what is there refuses
//! it all, unless told to overwrite. What the store has besides is left alone. At the end everything is
//! read again, because stores take what they do not keep.

use std::collections::BTreeMap;

use serde_json::Value;

use super::document::{Document, Setting};
use super::people::People;
use super::report::PutBackReport;
use super::vault::Vault;
use super::{CaptureError, moved, read_bucket};
use crate::config::Settings;
use crate::config::settings::StoreSettings;
use crate::store::{BucketSetting, ErrorKind, Side, Store, StoreError};
use crate::stores::patiently;

/// What is to be put back, and where to.
#[derive(Debug, Clone, Default)]
pub struct PutBackOptions {
    /// The key of the document; the newest complete one if absent.
    pub from: Option<String>,
    /// Only these buckets, and no users; all and the users if empty.
    pub buckets: Vec<String>,
    /// Another destination than the configured source.
    pub to: Option<StoreSettings>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Overwrite what is there and otherwise.
    pub force: bool,
}

/// One bucket's settings that are to be written.
struct BucketPlan<'a> {
    bucket: &'a str,
    /// It is to be created; its objects lockable or not.
    create: Option<bool>,
    /// What is wanted, in the order in which it can be written.
    steps: Vec<(BucketSetting, &'a Setting)>,
}

/// Puts the settings of a captured document back.
pub async fn put_back(
    settings: &Settings,
    options: &PutBackOptions,
) -> Result<PutBackReport, CaptureError> {
    let timeout = settings.replicate.request_timeout;
    let connect = async |name: &str, side: Side, of: &StoreSettings| {
        let connected = Store::connect(side, of, timeout).await;
        connected.map_err(|error| {
            CaptureError::Refused(format!("the client of the {name} cannot be built: {error}"))
        })
    };
    let target = connect("target", Side::Source, &settings.target.store()).await?;
    let to = options.to.as_ref().unwrap_or(&settings.source);
    let to = connect("destination", Side::Target, to).await?;
    let mut report = PutBackReport {
        to: to.endpoint().to_owned(),
        dry_run: options.dry_run,
        ..PutBackReport::default()
    };
    let mut document = choose(settings, options, &target, &mut report).await?;
    let kind = to.kind().await;
    report.notes.extend(moved::fit(&mut document, kind.name(), &options.buckets));
    let chosen = chosen(&document, &options.buckets)?;

    let mut plans = Vec::new();
    for (bucket, wanted) in &chosen {
        plans.push(plan_bucket(&to, bucket, wanted, &mut report).await?);
    }
    let people = if options.buckets.is_empty() {
        People::compare(&to, kind, &document, &mut report).await?
    } else {
        None
    };
    if !report.conflicts.is_empty() && !options.force && !options.dry_run {
        report.refused = true;
        report.changes.clear();
    }
    if options.dry_run || report.refused {
        return Ok(report);
    }
    if let Some(people) = &people {
        report.problems.extend(people.put().await?);
    }
    for plan in &plans {
        apply(&to, plan, &mut report).await;
    }
    read_back(&to, &chosen, &mut report).await?;
    if let Some(people) = &people {
        report.not_equal.extend(people.not_equal().await?);
    }
    Ok(report)
}

/// Finds and reads the document.
async fn choose(
    settings: &Settings,
    options: &PutBackOptions,
    target: &Store,
    report: &mut PutBackReport,
) -> Result<Document, CaptureError> {
    let of = settings.capture.clone().unwrap_or_default();
    let vault = Vault::new(target, settings, &of);
    let key = match options.from.as_deref() {
        Some(key) if key != "latest" => key.to_owned(),
        _ => {
            let (complete, newer) = vault.newest().await?;
            if let Some(newer) = newer {
                report
                    .notes
                    .push(format!("there is a newer document that is not complete: {newer}"));
            }
            complete.ok_or_else(|| {
                CaptureError::Refused(format!(
                    "there is no complete captured document in bucket {:?} below {:?} on {}; \
                     --from names one that is not complete",
                    of.target_bucket,
                    of.prefix,
                    target.endpoint()
                ))
            })?
        }
    };
    let document = vault.read(&key).await?;
    (report.document, report.taken) = (key, document.taken.clone());
    report.notes.extend(document.failures().into_iter().map(|why| format!("not captured: {why}")));
    Ok(document)
}

type Chosen<'a> = BTreeMap<&'a str, &'a BTreeMap<String, Setting>>;

fn chosen<'a>(document: &'a Document, buckets: &[String]) -> Result<Chosen<'a>, CaptureError> {
    if let Some(unknown) = buckets.iter().find(|name| !document.buckets.contains_key(*name)) {
        let known: Vec<_> = document.buckets.keys().map(String::as_str).collect();
        return Err(CaptureError::Refused(format!(
            "--bucket {unknown}: the document does not hold it; it holds {}",
            known.join(", ")
        )));
    }
    let all = document.buckets.iter().map(|(name, settings)| (name.as_str(), settings));
    Ok(all.filter(|(name, _)| buckets.is_empty() || buckets.iter().any(|b| b == name)).collect())
}

/// Compares one bucket with what is wanted.
async fn plan_bucket<'a>(
    to: &Store,
    bucket: &'a str,
    wanted: &'a BTreeMap<String, Setting>,
    report: &mut PutBackReport,
) -> Result<BucketPlan<'a>, CaptureError> {
    let mut plan = BucketPlan { bucket, create: None, steps: Vec::new() };
    let there = match patiently(|| to.head_bucket(bucket)).await {
        Err(error) if error.kind == ErrorKind::NoSuchBucket => {
            let lock = wanted.get(BucketSetting::ObjectLock.name());
            plan.create = Some(matches!(lock, Some(Setting::Set { .. })));
            report.changes.push(format!("bucket {bucket}"));
            BTreeMap::new()
        }
        Err(error) => return Err(error.into()),
        Ok(()) => read_bucket(to, bucket).await?,
    };
    for setting in BucketSetting::ALL {
        let Some(wanted) = wanted.get(setting.name()) else { continue };
        let found = there.get(setting.name()).unwrap_or(&Setting::None);
        let what = format!("bucket {bucket}: {}", setting.name());
        match verdict(setting, wanted, found) {
            Verdict::Same => report.same += 1,
            Verdict::Nothing => {}
            Verdict::Missing => {
                report.changes.push(what);
                plan.steps.push((setting, wanted));
            }
            Verdict::Differs => {
                report.conflicts.push(what);
                plan.steps.push((setting, wanted));
            }
            Verdict::Impossible(why) => report.problems.push(format!("{what}: {why}")),
        }
    }
    Ok(plan)
}

/// What one setting needs.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is there as captured.
    Same,
    /// It was not captured, or there was none and is none.
    Nothing,
    /// It is not there.
    Missing,
    /// It is there, and otherwise.
    Differs,
    /// It cannot be compared.
    Impossible(String),
}

fn verdict(setting: BucketSetting, wanted: &Setting, found: &Setting) -> Verdict {
    match (wanted, found) {
        (Setting::Failed { .. } | Setting::NotSupported | Setting::NotAsked, _)
        | (Setting::None, Setting::None | Setting::NotSupported | Setting::NotAsked) => {
            Verdict::Nothing
        }
        (_, Setting::Failed { error }) => Verdict::Impossible(error.clone()),
        (Setting::Set { .. }, Setting::None) => Verdict::Missing,
        (Setting::Set { .. }, Setting::NotSupported | Setting::NotAsked) => {
            Verdict::Impossible("the destination has no such thing".to_owned())
        }
        (Setting::Set { .. }, Setting::Set { .. }) if wanted.same_as(found) => Verdict::Same,
        // A bucket that kept versions once can only stop doing so.
        (Setting::None, Setting::Set { document })
            if setting == BucketSetting::Versioning
                && document.as_str().is_some_and(|text| text.contains("<Status>Suspended<")) =>
        {
            Verdict::Same
        }
        (Setting::Set { .. } | Setting::None, Setting::Set { .. }) => Verdict::Differs,
    }
}

/// Writes what one bucket lacks; what fails is told, and the rest goes on.
async fn apply(to: &Store, plan: &BucketPlan<'_>, report: &mut PutBackReport) {
    let bucket = plan.bucket;
    let created = match plan.create {
        None => Ok(()),
        Some(true) => to.create_locked_bucket(bucket).await,
        Some(false) => to.create_bucket(bucket).await,
    };
    if let Err(error) = created {
        report.problems.push(error.to_string());
        return;
    }
    for (setting, wanted) in &plan.steps {
        if let Err(error) = write(to, bucket, *setting, wanted).await {
            report.problems.push(error.to_string());
        }
    }
}

async fn write(
    to: &Store,
    bucket: &str,
    setting: BucketSetting,
    wanted: &Setting,
) -> Result<(), StoreError> {
    match wanted {
        Setting::Set { document: Value::String(text) } => {
            to.put_bucket_setting(bucket, setting, text).await
        }
        Setting::Set { document } => {
            to.put_bucket_setting(bucket, setting, &document.to_string()).await
        }
        Setting::None | Setting::NotSupported | Setting::NotAsked | Setting::Failed { .. } => {
            to.delete_bucket_setting(bucket, setting).await
        }
    }
}

/// Reads everything again, and tells what is not as it was captured.
async fn read_back(
    to: &Store,
    chosen: &Chosen<'_>,
    report: &mut PutBackReport,
) -> Result<(), CaptureError> {
    for (bucket, wanted) in chosen {
        let there = match patiently(|| to.head_bucket(bucket)).await {
            Ok(()) => read_bucket(to, bucket).await?,
            Err(_) => BTreeMap::new(),
        };
        for setting in BucketSetting::ALL {
            let Some(wanted) = wanted.get(setting.name()) else { continue };
            let found = there.get(setting.name()).unwrap_or(&Setting::None);
            if !matches!(verdict(setting, wanted, found), Verdict::Same | Verdict::Nothing) {
                report.not_equal.push(format!("bucket {bucket}: {}", setting.name()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Setting {
        Setting::Set { document: Value::from(text) }
    }

    #[test]
    fn nothing_that_is_there_and_otherwise_is_written_unseen() {
        let failed = Setting::Failed { error: "why".into() };
        let tags =
            |wanted: &Setting, found: &Setting| verdict(BucketSetting::Tagging, wanted, found);
        assert_eq!(tags(&set("<A/>"), &Setting::None), Verdict::Missing);
        assert_eq!(tags(&set("<A/>"), &set("<A></A>")), Verdict::Same);
        assert_eq!(tags(&set("<A/>"), &set("<B/>")), Verdict::Differs);
        assert_eq!(tags(&Setting::None, &set("<B/>")), Verdict::Differs);
        assert_eq!(tags(&failed, &set("<B/>")), Verdict::Nothing);
        assert_eq!(tags(&set("<A/>"), &failed), Verdict::Impossible("why".into()));
        let suspended = set("<V><Status>Suspended</Status></V>");
        assert_eq!(verdict(BucketSetting::Versioning, &Setting::None, &suspended), Verdict::Same);
        assert_eq!(tags(&Setting::None, &suspended), Verdict::Differs);
    }
}
