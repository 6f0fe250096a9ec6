//! Which keys need not stay: those that hold the log, those that are stuck, and large ones; and what becomes of their
//! records.
//!
//! A key leaves memory only when its record is durable elsewhere; who moves records is who marks keys, so that
//! nothing is marked in between. **On crash** the old record stands.

use std::collections::HashSet;
use std::sync::Arc;

use super::key_map::Keep;
use super::key_state::{KeyState, Pending, Wait};
use super::{Counts, WorkQueue};
use crate::dirty::{Aspects, DirtyKey};
use crate::journal::Lsn;
use crate::object::ObjectKey;

/// Whether a person discarded the deletes of a source bucket of which this record or an older one told.
pub struct Discarded(Box<Covers>);

type Covers = dyn Fn(&str, Lsn) -> bool + Send + Sync;

impl Discarded {
    /// Asks `covers` with the bucket and the record's number.
    pub fn new(covers: impl Fn(&str, Lsn) -> bool + Send + Sync + 'static) -> Self {
        Self(Box::new(covers))
    }
}

impl std::fmt::Debug for Discarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discarded").finish_non_exhaustive()
    }
}

impl WorkQueue {
    /// From now on a key that leaves its record for another one takes a person's decision along
    /// ([`Aspects::DISCARDED`]).
    pub fn set_discarded(&self, discarded: Discarded) {
        // The first one counts; there is only one.
        drop(self.discarded.set(discarded));
    }

    /// Up to `limit` keys whose oldest record is below `lsn`: those that hold the log and should be appended again. A
    /// large object may be in flight for hours.
    pub fn holding_below(&self, lsn: Lsn, limit: usize) -> Vec<DirtyKey> {
        // As a rule none does, and then the keys need not be walked.
        if self.lowest_unfinished().is_none_or(|lowest| lowest >= lsn) {
            return Vec::new();
        }
        self.keys.fold(Vec::new(), |mut found, key, state| {
            if state.first_lsn().is_some_and(|first| first < lsn)
                && found.len() < limit
                && let Some(work) = state.unfinished()
            {
                found.push(self.dirty_again(key, &work));
            }
            found
        })
    }

    /// Whether nothing but keys in flight holds the log below `lsn`: nothing else can be set aside.
    pub fn only_in_flight_below(&self, lsn: Lsn) -> bool {
        let holds = |state: &KeyState| state.first_lsn().is_some_and(|first| first < lsn);
        let in_flight = |state: &KeyState| matches!(state, KeyState::InFlight { .. });
        self.keys.fold(true, |only, _, state| only && (in_flight(state) || !holds(state)))
    }

    /// What [`WorkQueue::holding_below`] or [`WorkQueue::stuck_below`] said of the key was appended again as `lsn`, and
    /// nothing was marked since.
    pub fn rebase(&self, key: &ObjectKey, lsn: Lsn) {
        self.keys.update(key, |state| {
            let Some(mut state) = state else { return (Keep::Absent, ()) };
            let old = state.first_lsn();
            state.rebase(lsn);
            self.schedule().replace(old, state.first_lsn());
            (Keep::State(state), ())
        });
    }

    /// How many keys of each bucket are *stuck*: parked, or waiting although no worker has them in a bucket that fails
    /// as a whole, which has one key in flight at a time.
    pub fn stuck(&self) -> Vec<(Arc<str>, usize)> {
        let failing = self.failing();
        let count = |(bucket, counts): (Arc<str>, Counts)| {
            let waiting = counts.pending.saturating_sub(counts.in_flight);
            let stuck = if failing.contains(&bucket) { waiting } else { counts.parked };
            (bucket, stuck)
        };
        self.by_bucket().into_iter().map(count).filter(|(_, stuck)| *stuck > 0).collect()
    }

    /// How many keys are about to be worked on. Stuck ones are not, except that those of `own` count in any case.
    pub fn waiting(&self, own: Option<&str>) -> usize {
        let failing = self.failing();
        let count = |(bucket, counts): (Arc<str>, Counts)| {
            if !failing.contains(&bucket) {
                counts.pending.saturating_sub(counts.parked)
            } else if own == Some(&*bucket) {
                counts.pending
            } else {
                counts.in_flight
            }
        };
        self.by_bucket().into_iter().map(count).sum()
    }

    /// Up to `limit` stuck keys of one bucket as records, to be set aside elsewhere.
    pub fn stuck_in(&self, bucket: &str, limit: usize) -> Vec<DirtyKey> {
        self.some_stuck(limit, |key, _| *key.bucket == *bucket)
    }

    /// Forgets the stuck keys of one bucket; gives their oldest records.
    pub fn forget_stuck(&self, bucket: &str) -> Vec<Lsn> {
        let stuck = self.stuck_in(bucket, usize::MAX);
        stuck.iter().filter_map(|dirty| self.forget_set_aside(&dirty.key)).collect()
    }

    /// Up to `limit` stuck keys whose oldest record is below `lsn`: those that hold the log, although nothing
    /// is done for them now.
    pub fn stuck_below(&self, lsn: Lsn, limit: usize) -> Vec<DirtyKey> {
        if self.lowest_unfinished().is_none_or(|lowest| lowest >= lsn) {
            return Vec::new();
        }
        self.some_stuck(limit, |_, work| work.first_lsn < lsn)
    }

    fn some_stuck(
        &self,
        limit: usize,
        wanted: impl Fn(&ObjectKey, &Pending) -> bool,
    ) -> Vec<DirtyKey> {
        let failing = self.failing();
        self.keys.fold(Vec::new(), |mut found, key, state| {
            let work = match state {
                KeyState::Waiting { work, wait: Wait::Failed(_), .. } => Some(work),
                KeyState::Ready(work) | KeyState::Waiting { work, wait: Wait::Hot, .. } => {
                    failing.contains(&key.bucket).then_some(work)
                }
                KeyState::InFlight { .. } | KeyState::Cooling { .. } => None,
            };
            if let Some(work) = work
                && found.len() < limit
                && wanted(key, work)
            {
                found.push(self.dirty_again(key, work));
            }
            found
        })
    }

    fn failing(&self) -> HashSet<Arc<str>> {
        self.schedule().turns.failing()
    }

    /// How many keys wait in the lane for large objects.
    pub fn large_waiting(&self) -> usize {
        self.keys.tally().large()
    }

    /// Up to `limit` of them as records, to be set aside elsewhere.
    pub fn large_work(&self, limit: usize) -> Vec<DirtyKey> {
        self.keys.fold(Vec::new(), |mut found, key, state| {
            if let KeyState::Ready(work) = state
                && work.large
                && found.len() < limit
            {
                found.push(self.dirty_again(key, work));
            }
            found
        })
    }

    /// Forgets a key, if it is still parked.
    pub fn forget_parked(&self, key: &ObjectKey) {
        self.forget_if(key, KeyState::is_parked);
    }

    /// Forgets a key that was set aside, if no worker has it; gives its oldest record. Nothing was marked meanwhile: who
    /// sets keys aside is who marks them.
    pub fn forget_set_aside(&self, key: &ObjectKey) -> Option<Lsn> {
        self.forget_if(key, |state| matches!(state, KeyState::Ready(_) | KeyState::Waiting { .. }))
    }

    fn forget_if(&self, key: &ObjectKey, wanted: impl Fn(&KeyState) -> bool) -> Option<Lsn> {
        let forgotten = self.keys.update(key, |state| {
            let Some(state) = state else { return (Keep::Absent, None) };
            if !wanted(&state) {
                return (Keep::State(state), None);
            }
            let lsn = state.first_lsn();
            self.schedule().replace(lsn, None);
            (Keep::Absent, lsn)
        });
        self.settled.notify_one();
        forgotten
    }

    /// The record to append again for a key that would otherwise hold the log; marked as such, so that reading
    /// it back does not wake the key before its time.
    fn dirty_again(&self, key: &ObjectKey, work: &Pending) -> DirtyKey {
        let discarded =
            self.discarded.get().is_some_and(|discarded| discarded.0(&key.bucket, work.removal()));
        let decided = if discarded { Aspects::DISCARDED } else { Aspects::NONE };
        DirtyKey {
            key: key.clone(),
            aspects: work.aspects.with(decided),
            origin: work.origin.again(),
            since_ms: work.since_ms,
            size: work.size(),
        }
    }
}
