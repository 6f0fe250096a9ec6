//! What the commands answer: text for people, one JSON object for programs.
//!
//! Answers go to standard output, everything else to standard error. A reader that goes away
//! (`| head`) is no reason to fail.

use std::io::{self, Write as _};

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::Ended;
use super::progress::{self, Stderr};
use crate::config::settings::BucketSettings;
use crate::deletes::HeldDeletes;
use crate::reconcile::pass::PassReport;
use crate::workqueue::ParkedKey;

/// One line of the answer.
pub(super) fn answer(line: &str) {
    progress::above_the_bar(|| drop(writeln!(io::stdout(), "{line}")));
}

/// One line for people, beside the answer.
pub(crate) fn say(line: &str) {
    drop(writeln!(Stderr, "{line}"));
}

/// Prints the answer as one JSON object, or as text; what went wrong is told beside it, too.
pub(crate) fn print(json: bool, report: &impl Serialize, text: &str, errors: &[String]) {
    match serde_json::to_string(report) {
        Ok(object) if json => answer(&object),
        _ if text.is_empty() => {}
        _ => answer(text.trim_end()),
    }
    for error in errors {
        say(&format!("error: {error}"));
    }
}

/// The outcome of `sync`.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct SyncReport {
    /// What is told would be done, and nothing was.
    pub dry_run: bool,
    /// In a dry run: the target's buckets that are not there yet.
    pub new_buckets: Vec<String>,
    /// Objects that the source listed.
    pub source_objects: u64,
    /// Their bytes.
    pub source_bytes: u64,
    /// Objects copied.
    pub copied: u64,
    /// Objects deleted at the target.
    pub deleted: u64,
    /// Objects whose tags alone were written.
    pub tagged: u64,
    /// Objects that agreed already.
    pub unchanged: u64,
    /// In a dry run: objects of which a HEAD would have to tell.
    pub checked: u64,
    /// Objects only at the target that stay: `--no-delete`, the bucket's delete policy, or a person.
    pub kept: u64,
    /// Those of them whose deletes a person discarded.
    pub discarded: u64,
    /// Those of them whose deletes are delayed, and left to `run`.
    pub delayed: u64,
    /// Bytes of the objects copied.
    pub bytes: u64,
    /// Deletes that wait for a person.
    pub held: Vec<HeldBucket>,
    /// Keys that could not be made to agree.
    pub failed: u64,
    /// The first of them, with the reason.
    pub failures: Vec<FailedKey>,
    /// It was stopped; the next one goes on with what the journal holds.
    pub interrupted: bool,
    /// What kept it from its end: buckets that could not be compared, or a store that went away.
    pub errors: Vec<String>,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
}

/// Deletes of one bucket that wait for a person.
#[derive(Debug, Clone, Serialize)]
pub(super) struct HeldBucket {
    /// The source bucket.
    pub bucket: String,
    /// How many.
    pub count: u64,
    /// Why.
    pub reason: String,
}

impl HeldBucket {
    pub(super) fn new(bucket: &BucketSettings, count: u64, reason: &str) -> Self {
        Self { bucket: bucket.source.clone(), count, reason: reason.to_owned() }
    }
}

impl From<HeldDeletes> for HeldBucket {
    fn from(held: HeldDeletes) -> Self {
        Self { bucket: held.bucket, count: held.count, reason: held.reason.to_string() }
    }
}

/// A key that could not be made to agree.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FailedKey {
    /// The source bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The last error's class and text.
    pub reason: String,
    /// Failed tries.
    pub attempts: u32,
}

impl From<&ParkedKey> for FailedKey {
    fn from(parked: &ParkedKey) -> Self {
        Self {
            bucket: parked.key.bucket.to_string(),
            key: parked.key.key.to_string(),
            reason: format!("{}: {}", parked.class, parked.reason),
            attempts: parked.attempts,
        }
    }
}

impl SyncReport {
    /// Adds what a comparison found.
    pub(super) fn compared(&mut self, pass: &PassReport) {
        self.source_objects += pass.source_objects;
        self.source_bytes += pass.source_bytes;
        self.unchanged += pass.same;
    }

    /// A dry run has done what was asked for when it has told of everything.
    pub(super) fn ended(&self) -> Ended {
        let done = self.dry_run || (self.failed == 0 && self.held.is_empty());
        Ended::of(&self.errors, done && !self.interrupted)
    }

    pub(super) fn print(&self, json: bool) {
        print(json, self, &self.text(), &self.errors);
    }

    fn text(&self) -> String {
        if !self.errors.is_empty() && self.source_objects + self.copied + self.failed == 0 {
            return String::new();
        }
        let would = if self.dry_run { "would be " } else { "" };
        let mut text = format!(
            "{} objects at the source ({}): {} {would}copied ({}), {} {would}deleted, {} tagged, {} \
             unchanged, {} failed, in {:.1} s\n",
            HumanCount(self.source_objects),
            HumanBytes(self.source_bytes),
            HumanCount(self.copied),
            HumanBytes(self.bytes),
            HumanCount(self.deleted),
            HumanCount(self.tagged),
            HumanCount(self.unchanged),
            HumanCount(self.failed),
            self.elapsed_s,
        );
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        if self.checked > 0 {
            line(format!("{} would be looked at more closely", HumanCount(self.checked)));
        }
        if self.kept > 0 {
            line(format!("{} objects that are only at the target stay", HumanCount(self.kept)));
        }
        if self.discarded > 0 {
            line(format!(
                "{} of them because a person discarded their deletes (evermirror deletes discard)",
                HumanCount(self.discarded)
            ));
        }
        if self.delayed > 0 {
            line(format!(
                "{} of them because their buckets have deletes = \"delay\": only `evermirror run` deletes \
                 there, when the delay is over",
                HumanCount(self.delayed)
            ));
        }
        for held in &self.held {
            line(format!(
                "{} deletes of bucket {} {would}held: {}. If they are right, run the same command with \
                 --approve-deletes",
                HumanCount(held.count),
                held.bucket,
                held.reason
            ));
        }
        for failed in &self.failures {
            let key = format!("{}/{}", failed.bucket, failed.key);
            let (key, reason) = (key.escape_debug(), &failed.reason);
            line(format!("failed after {} tries: {key}: {reason}", failed.attempts));
        }
        for bucket in &self.new_buckets {
            line(format!("the target's bucket {bucket} is not there yet, and would be created"));
        }
        if self.interrupted {
            line("INTERRUPTED: the same command goes on from here".to_owned());
        }
        if !self.errors.is_empty() {
            line(
                "NOT COMPLETE: mend what the errors name, and run the same command again"
                    .to_owned(),
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_and_failed_keys_are_named_with_what_can_be_done() {
        let held = HeldBucket { bucket: "b".into(), count: 7, reason: "it looks wiped".into() };
        let failure = FailedKey {
            bucket: "b".into(),
            key: "a\nkey".into(),
            reason: "denied: no".into(),
            attempts: 1,
        };
        let report = SyncReport {
            held: vec![held],
            failed: 1,
            failures: vec![failure],
            ..SyncReport::default()
        };
        assert_eq!(report.ended(), Ended::Differs);
        let text = report.text();
        assert!(text.contains("7 deletes of bucket b held: it looks wiped"), "{text}");
        assert!(text.contains("--approve-deletes") && text.contains("b/a\\nkey"), "{text}");
        assert_eq!(SyncReport::default().ended(), Ended::Agrees);
    }

    #[test]
    fn what_stays_is_told_with_the_reason() {
        let report = SyncReport { kept: 9, discarded: 2, delayed: 3, ..SyncReport::default() };
        let text = report.text();
        assert_eq!(report.ended(), Ended::Agrees);
        assert!(text.contains("9 objects that are only at the target stay"), "{text}");
        assert!(
            text.contains("2 of them because a person") && text.contains("3 of them"),
            "{text}"
        );
    }

    #[test]
    fn an_interrupted_sync_is_no_success_and_an_error_is_told_whatever_else_there_is() {
        let interrupted = SyncReport { interrupted: true, ..SyncReport::default() };
        assert_eq!(interrupted.ended(), Ended::Differs);
        assert!(interrupted.text().contains("INTERRUPTED"));
        let report = SyncReport { errors: vec!["gone".into()], failed: 1, ..SyncReport::default() };
        assert_eq!(report.ended(), Ended::Failed);
        assert!(report.text().contains("NOT COMPLETE"));
    }
}
