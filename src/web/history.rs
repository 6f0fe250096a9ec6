//! The last hour in samples, so that the page has something to draw when it is opened.
//!
//! In memory only: a restart begins anew, and whoever wants more has Prometheus.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Operations, Status};
use crate::clock;

/// The time between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// One hour of them.
const KEPT: usize = 720;

/// The state at one moment. Counts of what was done are since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Sample {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Keys whose last change was not on the target.
    pub pending: u64,
    /// The bytes of their objects, as far as they were known.
    pub pending_bytes: u64,
    /// Keys that had failed and waited.
    pub parked: u64,
    /// The age of the oldest change not on the target; 0 if there was none.
    pub oldest_pending_age_ms: u64,
    /// Objects copied, deleted and tagged.
    pub done: u64,
    /// Bytes of the objects copied.
    pub bytes: u64,
    /// Median lag of the last 4,096 events.
    pub lag_p50_ms: u64,
    /// 99 of 100 of them had at most this lag.
    pub lag_p99_ms: u64,
}

impl Sample {
    fn of(status: &Status, at_ms: i64) -> Self {
        let totals = &status.replicated;
        Self {
            at_ms,
            pending: status.keys.pending,
            pending_bytes: status.at_risk.bytes,
            parked: status.keys.parked,
            oldest_pending_age_ms: status.at_risk.oldest_pending_age_ms.unwrap_or(0),
            done: totals.copied + totals.deleted + totals.tagged,
            bytes: totals.bytes,
            lag_p50_ms: status.lag.p50_ms,
            lag_p99_ms: status.lag.p99_ms,
        }
    }
}

/// The samples; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<VecDeque<Sample>>>);

impl History {
    /// Takes a sample every five seconds until stopped.
    pub async fn record(self, operations: Arc<dyn Operations>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            self.push(Sample::of(&operations.status(), clock::now_ms()));
        }
    }

    /// All samples, the oldest first.
    pub(super) fn list(&self) -> Vec<Sample> {
        self.samples().iter().copied().collect()
    }

    fn push(&self, sample: Sample) {
        let mut samples = self.samples();
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hour_is_kept_and_no_more() {
        let history = History::default();
        for at_ms in 0..=KEPT {
            history.push(Sample { at_ms: i64::try_from(at_ms).unwrap(), ..Sample::default() });
        }
        let samples = history.list();
        assert_eq!((samples.len(), samples[0].at_ms), (KEPT, 1));
    }
}
