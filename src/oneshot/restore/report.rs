//! What a restore tells: while it runs, and at its end.

use std::time::Duration;

use serde::Serialize;

use crate::clock;
use crate::config::Settings;
use crate::oneshot::Ended;

/// How a restore ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Everything is at the destination, by the listings of both sides.
    Restored,
    /// Nothing was done: a dry run.
    Planned,
    /// All was tried, and the listings of both sides do not agree.
    Differs,
    /// Keys failed again and again; what must come after them was left out.
    Incomplete,
    /// It was stopped; the same command goes on from there.
    Interrupted,
    /// It could not run, or not to its end: [`Report::errors`] says why.
    #[default]
    Failed,
}

/// A key that could not be restored.
#[derive(Debug, Clone, Serialize)]
pub struct Failed {
    /// Bucket and key at the store that was read, control characters escaped.
    pub key: String,
    /// The last error.
    pub reason: String,
}

/// What a restore did to one bucket.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BucketReport {
    /// The bucket that was read.
    pub from: String,
    /// The bucket at the destination.
    pub to: String,
    /// The destination did not have it.
    pub created: bool,
    /// Objects to restore.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them, objects that must come after others ([`super::order`]): the metadata of tables.
    pub table_files: u64,
    /// Not at the destination, at the end.
    pub missing: u64,
    /// Of another content there.
    pub different: u64,
    /// Of the same size, and not comparable by listing (encrypted with KMS, other part sizes).
    pub unverifiable: u64,
    /// At the destination only: they are left alone.
    pub extra: u64,
    /// The first of those that are missing or different.
    pub examples: Vec<String>,
}

/// What a restore did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// It went on from where an earlier one stopped.
    pub resumed: bool,
    /// The time that was restored, if not now.
    pub at: Option<String>,
    /// Endpoint of the store that was read.
    pub from: String,
    /// Endpoint of the destination.
    pub to: String,
    /// By bucket.
    pub buckets: Vec<BucketReport>,
    /// Objects copied.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were there already.
    pub unchanged: u64,
    /// Keys that could not be restored; the first hundred.
    pub failed: Vec<Failed>,
    /// It was stopped.
    pub interrupted: bool,
    /// What kept it from its end, or from beginning.
    pub errors: Vec<String>,
    /// What would stand in the way of what was only planned.
    pub conflicts: Vec<String>,
    /// In milliseconds.
    pub elapsed_ms: u64,
}

impl Report {
    pub(super) fn new(back: &Settings) -> Self {
        let buckets = back.buckets.iter().map(|bucket| BucketReport {
            from: bucket.source.clone(),
            to: bucket.target_name().to_owned(),
            ..BucketReport::default()
        });
        Self {
            from: back.source.endpoint.clone(),
            to: back.target.endpoint.clone(),
            buckets: buckets.collect(),
            ..Self::default()
        }
    }

    /// As an exit status.
    pub fn ended(&self) -> Ended {
        let agrees = matches!(self.outcome, Outcome::Restored | Outcome::Planned);
        Ended::of(&self.errors, agrees)
    }

    pub(super) fn finish(&mut self, outcome: Outcome, elapsed: Duration) {
        self.outcome = outcome;
        self.interrupted = outcome == Outcome::Interrupted;
        self.elapsed_ms = clock::millis(elapsed);
    }
}
