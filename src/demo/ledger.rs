//! What happened on both stores, and when: the demo's own measure of lag, independent of the pipeline.
//!
//! Both embedded stores report every change here at the moment it is made, before the request is
//! answered. A key is *pending* while the two stores' last states differ. The lag of a source event
//! is the time until the target first held that event's state or a later one. Only the `ETag` and the
//! tags are compared here; `compare` reads everything else at the end.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::object::ObjectKey;
use crate::store::Tags;

/// Lags and lines kept: a demo that is left running must not grow.
const KEPT: usize = 100_000;

/// Which of the two stores changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

/// What a store holds under a key, as far as it proves that two stores agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub etag: String,
    pub tags: Tags,
    pub size: u64,
}

/// One source event that has arrived at the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    pub key: ObjectKey,
    /// Bytes now at the target; `None` for a delete.
    pub bytes: Option<u64>,
    /// Milliseconds.
    pub lag_ms: i64,
}

/// Counts for the table and the result.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Totals {
    /// Source events so far.
    pub events: u64,
    /// Of these, the ones that the target has caught up with.
    pub arrived: u64,
    /// Keys whose two sides differ now.
    pub pending: usize,
    /// Requests that changed the target, repeated ones included.
    pub target_changes: u64,
    pub lag_p50_ms: i64,
    pub lag_p99_ms: i64,
    /// Arrived events by the time from the first event to the last arrival.
    pub per_second: f64,
}

#[derive(Default)]
struct Track {
    source: Option<State>,
    target: Option<State>,
    /// Source events that the target has not caught up with, in order.
    open: VecDeque<(i64, Option<State>)>,
}

#[derive(Default)]
struct Inner {
    tracks: HashMap<ObjectKey, Track>,
    pending: usize,
    totals: Totals,
    lags: VecDeque<i64>,
    arrivals: VecDeque<Arrival>,
    first_event: Option<Instant>,
    last_arrival: Option<Instant>,
}

/// Shared by the two stores and the report.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Inner>);

impl Ledger {
    /// Notes that `key` on one side holds `state` (`None`: no object) since `at_ms`.
    pub(super) fn note(&self, side: Side, key: &ObjectKey, state: Option<State>, at_ms: i64) {
        let inner = &mut *self.lock();
        let track = inner.tracks.entry(key.clone()).or_default();
        let differed = track.source != track.target;
        match side {
            Side::Source => {
                inner.first_event.get_or_insert_with(Instant::now);
                inner.totals.events += 1;
                track.open.push_back((at_ms, state.clone()));
                track.source = state;
            }
            Side::Target => {
                let bytes = state.as_ref().map(|s| s.size);
                inner.totals.target_changes += 1;
                let matching = track.open.iter().rposition(|(_, wanted)| *wanted == state);
                for (since, _) in track.open.drain(..matching.map_or(0, |last| last + 1)) {
                    let lag_ms = (at_ms - since).max(0);
                    inner.totals.arrived += 1;
                    inner.last_arrival = Some(Instant::now());
                    keep(&mut inner.lags, lag_ms);
                    keep(&mut inner.arrivals, Arrival { key: key.clone(), bytes, lag_ms });
                }
                track.target = state;
            }
        }
        let differs = track.source != track.target;
        inner.pending = inner.pending + usize::from(differs) - usize::from(differed);
    }

    /// The counts up to now.
    pub(super) fn totals(&self) -> Totals {
        let inner = self.lock();
        let mut sorted: Vec<i64> = inner.lags.iter().copied().collect();
        sorted.sort_unstable();
        let seconds = match (inner.first_event, inner.last_arrival) {
            (Some(first), Some(last)) => last.saturating_duration_since(first).as_secs_f64(),
            _ => 0.0,
        };
        #[expect(clippy::cast_precision_loss, reason = "a count of events is far below 2^52")]
        let arrived = inner.totals.arrived as f64;
        Totals {
            pending: inner.pending,
            lag_p50_ms: percentile(&sorted, 50),
            lag_p99_ms: percentile(&sorted, 99),
            per_second: if seconds > 0.0 { arrived / seconds } else { 0.0 },
            ..inner.totals
        }
    }

    /// The arrivals since the last call, oldest first.
    pub(super) fn take_arrivals(&self) -> Vec<Arrival> {
        self.lock().arrivals.drain(..).collect()
    }

    /// Up to `limit` keys whose two sides differ, in key order.
    pub(super) fn pending_keys(&self, limit: usize) -> Vec<ObjectKey> {
        let inner = self.lock();
        let differing = inner.tracks.iter().filter(|(_, t)| t.source != t.target);
        let mut keys: Vec<_> = differing.map(|(key, _)| key.clone()).collect();
        keys.sort();
        keys.truncate(limit);
        keys
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == KEPT {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// The nearest-rank percentile of sorted values; 0 when there are none.
fn percentile(sorted: &[i64], percent: usize) -> i64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(etag: &str) -> State {
        State { etag: etag.to_owned(), tags: Tags::new(), size: 7 }
    }

    #[test]
    fn the_lag_of_an_overwritten_event_ends_when_a_later_state_arrives() {
        let (ledger, key) = (Ledger::default(), ObjectKey::new("b", "k"));
        ledger.note(Side::Source, &key, Some(state("1")), 1_000);
        ledger.note(Side::Source, &key, Some(state("2")), 1_010);
        assert_eq!(ledger.pending_keys(9), std::slice::from_ref(&key));
        ledger.note(Side::Target, &key, Some(state("2")), 1_015);
        let lags: Vec<_> = ledger.take_arrivals().into_iter().map(|a| a.lag_ms).collect();
        assert_eq!(lags, [15, 5]);
        let totals = ledger.totals();
        assert_eq!((totals.events, totals.arrived, totals.pending), (2, 2, 0));
        assert_eq!((totals.lag_p50_ms, totals.lag_p99_ms), (5, 15));
    }

    #[test]
    fn a_stale_copy_leaves_its_key_pending_and_a_repeated_one_is_not_counted_again() {
        let (ledger, key) = (Ledger::default(), ObjectKey::new("b", "k"));
        ledger.note(Side::Source, &key, Some(state("1")), 0);
        ledger.note(Side::Source, &key, None, 1);
        ledger.note(Side::Target, &key, Some(state("1")), 2);
        assert_eq!(ledger.totals().pending, 1);
        ledger.note(Side::Target, &key, None, 3);
        ledger.note(Side::Target, &key, None, 4);
        let totals = ledger.totals();
        assert_eq!((totals.arrived, totals.target_changes, totals.pending), (2, 3, 0));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<i64> = (1..=200).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (100, 198));
        assert_eq!((percentile(&[4], 99), percentile(&[], 50)), (4, 0));
    }
}
