//! The last lags, for the status page: exact percentiles where a histogram has only buckets.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::clock;

/// How many lags are remembered.
const KEPT: usize = 4096;

/// The lag of the last 4,096 replicated events, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LagSummary {
    /// How many there were, at most 4,096.
    pub count: usize,
    /// Half of them were at most this.
    pub p50_ms: u64,
    /// 99 of 100 were at most this.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

/// A ring of lags in milliseconds; recording is one short lock and one store.
#[derive(Debug, Default)]
pub(super) struct RecentLags(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    lags: Vec<u64>,
    next: usize,
}

impl RecentLags {
    pub(super) fn record(&self, lag: Duration) {
        let lag = clock::millis(lag);
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = ring.next;
        match ring.lags.get_mut(next) {
            Some(oldest) => *oldest = lag,
            None => ring.lags.push(lag),
        }
        ring.next = (next + 1) % KEPT;
    }

    pub(super) fn summary(&self) -> LagSummary {
        let mut lags = self.0.lock().unwrap_or_else(PoisonError::into_inner).lags.clone();
        lags.sort_unstable();
        // Nearest rank: the smallest lag that at least this share of all lags does not exceed.
        let rank = |percent: usize| {
            let at = (lags.len() * percent).div_ceil(100).saturating_sub(1);
            lags.get(at).copied().unwrap_or(0)
        };
        LagSummary { count: lags.len(), p50_ms: rank(50), p99_ms: rank(99), max_ms: rank(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_of_the_last_lags_only() {
        let lags = RecentLags::default();
        assert_eq!(lags.summary(), LagSummary::default());
        lags.record(Duration::from_hours(1));
        for ms in (1..=100).cycle().take(KEPT) {
            lags.record(Duration::from_millis(ms));
        }
        let summary = lags.summary();
        assert_eq!((summary.count, summary.max_ms), (KEPT, 100));
        assert_eq!((summary.p50_ms, summary.p99_ms), (50, 99));
    }

    #[test]
    fn one_lag_is_every_percentile() {
        let lags = RecentLags::default();
        lags.record(Duration::from_millis(7));
        assert_eq!(lags.summary(), LagSummary { count: 1, p50_ms: 7, p99_ms: 7, max_ms: 7 });
    }
}
