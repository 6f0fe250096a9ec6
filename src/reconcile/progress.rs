//! What a bucket's passes are doing and have found, for people.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::merge::Finding;
use super::pass::PassReport;
use super::schedule::{Job, Trigger};
use crate::clock;

/// One bucket, as the status shows it. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BucketProgress {
    /// The source's bucket.
    pub bucket: String,
    /// A pass is under way.
    pub running: bool,
    /// Why the last pass began, the one under way included.
    pub trigger: Option<Trigger>,
    /// The part of the bucket that it walks; absent for all of it.
    pub prefix: Option<String>,
    /// When it began.
    pub began_ms: Option<i64>,
    /// Keys that it has compared so far.
    pub keys_compared: u64,
    /// The drift that it has found so far.
    pub drift: Drift,
    /// Objects of the source, by the last pass that came to its end.
    pub source_objects: u64,
    /// Objects of the target, likewise.
    pub target_objects: u64,
    /// When a pass last compared the whole bucket without an error.
    pub last_complete_ms: Option<i64>,
    /// Why the last pass failed; absent if it did not.
    pub last_error: Option<String>,
}

/// Differences by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Only at the source.
    pub missing: u64,
    /// Only at the target.
    pub extra: u64,
    /// Content that differs.
    pub different: u64,
    /// Metadata that may differ.
    pub newer: u64,
    /// What the listings alone cannot tell.
    pub unverifiable: u64,
}

/// The progress of one bucket; written by its pass, read by the status.
#[derive(Debug)]
pub(super) struct Progress {
    compared: AtomicU64,
    state: Mutex<BucketProgress>,
}

impl Progress {
    pub(super) fn new(bucket: &str) -> Self {
        let state = BucketProgress { bucket: bucket.to_owned(), ..BucketProgress::default() };
        Self { compared: AtomicU64::new(0), state: Mutex::new(state) }
    }

    pub(super) fn show(&self) -> BucketProgress {
        let keys_compared = self.compared();
        BucketProgress { keys_compared, ..self.state().clone() }
    }

    pub(super) fn begin(&self, job: &Job) {
        self.compared.store(0, Ordering::Relaxed);
        let mut state = self.state();
        state.running = true;
        state.trigger = Some(job.trigger);
        state.prefix.clone_from(&job.prefix);
        state.began_ms = Some(clock::now_ms());
        state.drift = Drift::default();
    }

    pub(super) fn key_compared(&self) {
        self.compared.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
    }

    pub(super) fn found(&self, finding: Finding) {
        let drift = &mut self.state().drift;
        let count = match finding {
            Finding::Same => return,
            Finding::Missing => &mut drift.missing,
            Finding::Extra => &mut drift.extra,
            Finding::Different(_) => &mut drift.different,
            Finding::Newer => &mut drift.newer,
            Finding::Unverifiable => &mut drift.unverifiable,
        };
        *count += 1;
    }

    pub(super) fn last_complete(&self, at_ms: Option<i64>) {
        self.state().last_complete_ms = at_ms;
    }

    pub(super) fn counted(&self, report: &PassReport) {
        let mut state = self.state();
        (state.source_objects, state.target_objects) =
            (report.source_objects, report.target_objects);
    }

    pub(super) fn end(&self, error: Option<String>) {
        let mut state = self.state();
        state.running = false;
        state.last_error = error;
    }

    fn state(&self) -> MutexGuard<'_, BucketProgress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
