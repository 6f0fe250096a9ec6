//! Which ARNs the source's events should go to: given, told by the store, or tried.

use serde_json::Value;

use super::SetupOptions;
use super::dialect::{arn_name, environment, objection, same_arn, usual_arns};
use crate::config::Settings;
use crate::errors::UsageError;
use crate::store::{NotificationConfig, Store, StoreError, StoreKind};

/// What a store tells of the notification targets that it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArnList {
    /// All of them.
    Listed(Vec<String>),
    /// It does not tell us, and why.
    Unseen(String),
}

/// Asks the store's own administration interface.
pub async fn known_arns(kind: StoreKind, source: &Store) -> ArnList {
    let list = match kind {
        StoreKind::Minio => {
            source.minio_info().await.map(|info| info.get("sqsARN").cloned().unwrap_or_default())
        }
        StoreKind::Rustfs => source.rustfs_arns().await,
        StoreKind::Aws | StoreKind::Other => {
            return ArnList::Unseen("this kind of store has no list of them".to_owned());
        }
    };
    match list {
        Ok(Value::Array(arns)) => {
            ArnList::Listed(arns.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        // A MinIO without targets says null.
        Ok(_) => ArnList::Listed(Vec::new()),
        Err(error) => ArnList::Unseen(error.message),
    }
}

/// The sets of ARNs to try, best first; the first that the store takes is the one for all buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidates(Vec<Vec<String>>);

impl Candidates {
    /// All that are left to try.
    pub(super) fn sets(&self) -> Vec<Vec<String>> {
        self.0.clone()
    }

    /// Whether another set may be tried after a refusal.
    pub(super) fn more(&mut self) -> bool {
        if self.0.len() > 1 {
            self.0.remove(0);
            return true;
        }
        false
    }

    /// This set it is.
    pub(super) fn settle(&mut self, arns: &[String]) {
        self.0 = vec![arns.to_vec()];
    }

    /// What an earlier run found out need not be tried again.
    pub(super) fn narrow(&mut self, current: &NotificationConfig) {
        let used = |arn: &String| current.rules.iter().any(|rule| same_arn(&rule.arn, arn));
        if self.0.len() > 1
            && let Some(all) = self.0.first()
        {
            let used: Vec<_> = all.iter().filter(|arn| used(arn)).cloned().collect();
            if !used.is_empty() {
                self.0 = vec![used];
            }
        }
    }
}

/// Decides what to try. What cannot be known is said in `notes`.
pub(super) async fn candidates(
    settings: &Settings,
    options: &SetupOptions,
    kind: StoreKind,
    source: &Store,
    notes: &mut Vec<String>,
) -> anyhow::Result<Candidates> {
    if let Some(wrong) = options.arns.iter().find_map(|arn| objection(kind, arn)) {
        return Err(UsageError(wrong).into());
    }
    let known = known_arns(kind, source).await;
    let usual = usual_arns(&settings.intake, kind);
    if options.remove && options.arns.is_empty() {
        return Ok(Candidates(vec![usual]));
    }
    let (candidates, note) = choose(&options.arns, &usual, &known)
        .map_err(|why| anyhow::anyhow!("{}", with_variables(settings, kind, why)))?;
    notes.extend(note);
    Ok(candidates)
}

/// The pure part: what to try, and a remark; or why there is nothing to try.
fn choose(
    given: &[String],
    defaults: &[String],
    known: &ArnList,
) -> Result<(Candidates, Option<String>), String> {
    let known_to = |arns: &[String], arn: &String| arns.iter().any(|known| same_arn(known, arn));
    match known {
        ArnList::Listed(arns) if !given.is_empty() => {
            match given.iter().find(|arn| !known_to(arns, arn)) {
                None => Ok((Candidates(vec![given.to_vec()]), None)),
                Some(arn) => Err(format!("the source does not know {arn}; {}", knows(arns))),
            }
        }
        ArnList::Unseen(_) if !given.is_empty() => Ok((Candidates(vec![given.to_vec()]), None)),
        ArnList::Listed(arns) => {
            let ours: Vec<_> = defaults.iter().filter(|arn| known_to(arns, arn)).cloned().collect();
            if ours.is_empty() {
                return Err(format!(
                    "the source knows neither of {}; {}. If one of those leads to this evermirror, \
                     give it by --arn",
                    defaults.join(", "),
                    knows(arns)
                ));
            }
            Ok((Candidates(vec![ours]), None))
        }
        ArnList::Unseen(_) if defaults.is_empty() => Err(
            "only you can know where this store's events should go: give the ARN of the queue by \
             --arn, such as arn:aws:sqs:REGION:ACCOUNT:QUEUE"
                .to_owned(),
        ),
        ArnList::Unseen(why) => {
            let mut sets = vec![defaults.to_vec()];
            // The safe one first: without the other it is only slower.
            sets.extend(defaults.iter().rev().map(|arn| vec![arn.clone()]));
            let note = format!(
                "which notification targets the source knows cannot be seen ({why}), so {} are tried",
                defaults.join(" and ")
            );
            Ok((Candidates(sets), Some(note)))
        }
    }
}

fn knows(arns: &[String]) -> String {
    if arns.is_empty() {
        return "it knows no notification target at all".to_owned();
    }
    format!("it knows {}", arns.join(", "))
}

/// The store refused every ARN that was tried.
pub(super) fn unknown(
    settings: &Settings,
    kind: StoreKind,
    arns: &[String],
    error: &StoreError,
) -> String {
    if kind == StoreKind::Aws {
        return format!(
            "{error}. The queue must be in the bucket's region, and its access policy must allow \
             the service s3.amazonaws.com sqs:SendMessage on it"
        );
    }
    let names: Vec<_> = arns.iter().map(|arn| arn_name(arn)).collect();
    let why = format!(
        "{error}. The source does not know the notification target {} (names are case-sensitive)",
        names.join(", ")
    );
    with_variables(settings, kind, why)
}

/// The sentence, and what to start the store with.
fn with_variables(settings: &Settings, kind: StoreKind, why: String) -> String {
    let Some(webhook) = &settings.intake.webhook else { return why };
    let lines = environment(kind, webhook);
    if lines.is_empty() {
        return why;
    }
    format!(
        "{why}.\nStart the source's servers with these variables, then run setup again \
         (EM is safe, EMFAST is fast; together they are both):\n\n  {}\n",
        lines.join("\n  ")
    )
}

/// What a refusal of the configuration means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It names a destination that is not there.
    UnknownArn,
    /// It names an event that the store does not know.
    UnknownEvent,
    /// Two rules want the same events.
    Overlap,
    /// Something else.
    Other,
}

impl Refusal {
    /// By the store's own words: all of these are `InvalidArgument`.
    pub(super) fn of(error: &StoreError) -> Self {
        let text = error.message.to_lowercase();
        if text.contains("no notify targets") {
            // RustFS, as a 500: none of its targets could be started.
            Self::UnknownArn
        } else if error.status != Some(400) {
            Self::Other
        } else if text.contains("arn") || text.contains("destination") {
            Self::UnknownArn
        } else if text.contains("event is not supported") {
            Self::UnknownEvent
        } else if text.contains("overlap") || text.contains("share a common event") {
            Self::Overlap
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::default_arns;
    use super::*;

    fn defaults() -> Vec<String> {
        default_arns(StoreKind::Minio)
    }

    fn told(names: &[&str]) -> ArnList {
        ArnList::Listed(names.iter().map(|id| format!("arn:minio:sqs::{id}:webhook")).collect())
    }

    #[test]
    fn only_targets_that_are_ours_by_name_are_taken_unasked() {
        let (both, _) = choose(&[], &defaults(), &told(&["X", "EM", "EMFAST"])).unwrap();
        assert_eq!(both.sets(), [defaults()]);
        let (one, _) = choose(&[], &defaults(), &told(&["EM"])).unwrap();
        assert_eq!(one.sets(), [["arn:minio:sqs::EM:webhook"]]);
        let refused = choose(&[], &defaults(), &told(&["SOMEBODY"])).unwrap_err();
        assert!(refused.contains("SOMEBODY") && refused.contains("--arn"), "{refused}");
        assert!(choose(&[], &[], &ArnList::Unseen("so".into())).unwrap_err().contains("--arn"));
    }

    #[test]
    fn a_given_arn_that_the_store_does_not_know_is_refused_before_anything_is_written() {
        let given = ["arn:minio:sqs::em:webhook".to_owned()];
        let refused = choose(&given, &defaults(), &told(&["EM"])).unwrap_err();
        assert!(refused.contains("does not know arn:minio:sqs::em:webhook"), "{refused}");
        let (taken, _) = choose(&given, &defaults(), &ArnList::Unseen(String::new())).unwrap();
        assert_eq!(taken.sets(), [given]);
    }

    #[test]
    fn where_the_store_does_not_tell_the_targets_are_tried_and_an_earlier_find_is_kept() {
        let unseen = ArnList::Unseen("403".to_owned());
        let (mut candidates, note) = choose(&[], &defaults(), &unseen).unwrap();
        assert!(note.unwrap().contains("403"));
        assert_eq!(candidates.sets().len(), 3);
        assert!(candidates.more() && candidates.more() && !candidates.more());

        let (mut candidates, _) = choose(&[], &defaults(), &unseen).unwrap();
        let bucket = toml::from_str("source = 'b'").unwrap();
        let safe = ["arn:minio:sqs::EM:webhook".to_owned()];
        let rules = super::super::dialect::wanted(StoreKind::Minio, &bucket, &safe);
        candidates.narrow(&NotificationConfig { rules, ..NotificationConfig::default() });
        assert_eq!(candidates.sets(), [safe]);
    }
}
