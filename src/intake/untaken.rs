//! What was not taken leaves a gap, also when nobody waits for the answer any more.
//!
//! A sender that hangs up ends the future that answers it, at any `.await`. So what becomes of its event is
//! decided by a guard: unless it was settled, dropping it records a gap. That does not wait for the disk: the
//! gap is known to every later pass at once and is durable soon after. If the process ends before that, the
//! next start walks every bucket anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Inlet;
use super::sort::{Doubts, Sorted};
use crate::gaps::{GapBook, GapError, GapReason};
use crate::metrics::Stage;

/// A notification that was offered and is not settled yet.
#[derive(Debug)]
#[must_use = "dropping it records a gap"]
pub(crate) struct Untaken<'a> {
    inlet: &'a Inlet,
    /// What is in it, if that is known.
    pub(super) sorted: Sorted,
    /// Nobody has read it yet, so that it may concern any bucket.
    unread: bool,
    settled: bool,
    received_ms: i64,
}

impl<'a> Untaken<'a> {
    pub(super) const fn new(inlet: &'a Inlet, sorted: Sorted, received_ms: i64) -> Self {
        Self { inlet, sorted, unread: false, settled: false, received_ms }
    }

    /// It is durable, or its gap is recorded, or another guard stands for it.
    pub(crate) fn settled(mut self) {
        self.settled = true;
    }
}

impl Drop for Untaken<'_> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let doubts = if self.unread {
            self.inlet.all_buckets(GapReason::NotTaken)
        } else {
            self.sorted.concerned(GapReason::NotTaken)
        };
        self.inlet.not_taken(&doubts, self.received_ms);
    }
}

/// Saves the gap book in the background; at most one save waits.
#[derive(Debug, Default)]
pub(super) struct Saver {
    waits: Arc<AtomicBool>,
}

impl Saver {
    /// What was noted until now is durable soon; at once (blocking) where no runtime is left.
    fn soon(&self, gaps: &Arc<GapBook>) {
        if self.waits.swap(true, Ordering::AcqRel) {
            return;
        }
        let (waits, gaps) = (Arc::clone(&self.waits), Arc::clone(gaps));
        let save = move || {
            // Before the save: what is noted while it runs needs another one.
            waits.store(false, Ordering::Release);
            match gaps.save_all() {
                Ok(()) => {}
                Err(error @ GapError::NoRoom { .. }) => {
                    tracing::error!(%error, "The gap is kept in memory only.");
                }
                Err(error) => {
                    tracing::error!(%error, "The gap is kept in memory; the next one tries to write both.");
                }
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(save)),
            Err(_) => save(),
        }
    }
}

impl Inlet {
    /// Stands for a notification of an authenticated sender, of which nothing is known yet: unless it is
    /// settled, every bucket has a gap.
    pub(crate) fn offered(&self, received_ms: i64) -> Untaken<'_> {
        let mut offered = Untaken::new(self, Sorted::default(), received_ms);
        offered.unread = true;
        offered
    }

    /// Records that a notification was not read, whatever it said: every bucket is in doubt. `why` is for
    /// the log.
    pub(crate) async fn unread(&self, why: &'static str, received_ms: i64) -> Result<(), GapError> {
        let recorded = self.mark(&self.all_buckets(GapReason::NotTaken), received_ms).await;
        if self.may_log() {
            tracing::warn!(
                why,
                gap_recorded = recorded.is_ok(),
                "The body of a notification was not read; every bucket will be reconciled."
            );
        }
        recorded
    }

    fn all_buckets(&self, reason: GapReason) -> Doubts {
        self.buckets.keys().map(|bucket| (bucket.clone(), reason)).collect()
    }

    fn not_taken(&self, doubts: &Doubts, received_ms: i64) {
        self.metrics.error(Stage::Intake, "not_taken");
        if doubts.is_empty() {
            return;
        }
        for (bucket, reason) in doubts {
            self.metrics.gap(*reason);
            self.gaps.note(bucket, *reason, received_ms);
        }
        self.saver.soon(&self.gaps);
        if self.may_log() {
            let buckets: Vec<_> = doubts.iter().map(|(bucket, _)| bucket).collect();
            tracing::warn!(
                ?buckets,
                "A notification was not durable before its sender hung up, or evermirror stopped; \
                 the buckets will be reconciled."
            );
        }
    }
}
