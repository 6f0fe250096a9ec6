//! How many keys are in which state, counted as they come and go: reading it costs the same at any number
//! of keys.
//!
//! Pure values. The key map tells of every change of a state and holds the lock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::key_state::{KeyState, Wait};
use crate::object::ObjectKey;

/// How many keys are where, how large their objects are, and since when they wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All keys in memory: ready, in flight, hot or parked.
    pub pending: usize,
    /// With a worker.
    pub in_flight: usize,
    /// Failed, waiting for the next try.
    pub parked: usize,
    /// The bytes of those whose size is known, as an event or a listing told it.
    pub bytes: u64,
    /// Those whose size is not known.
    pub unsized_keys: usize,
    /// The oldest change not yet at the target, milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            pending: self.pending + other.pending,
            in_flight: self.in_flight + other.in_flight,
            parked: self.parked + other.parked,
            bytes: self.bytes.saturating_add(other.bytes),
            unsized_keys: self.unsized_keys + other.unsized_keys,
            oldest_ms: [self.oldest_ms, other.oldest_ms].into_iter().flatten().min(),
        }
    }
}

/// What one key adds to the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    place: Place,
    /// It waits in the lane for large objects.
    large: bool,
    size: Option<u64>,
    since_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    InFlight,
    Parked,
}

impl Share {
    /// What a key in this state adds; `None` if nothing is left to do for it.
    pub(super) fn of(state: &KeyState) -> Option<Self> {
        let place = match state {
            KeyState::Ready(_) | KeyState::Waiting { wait: Wait::Hot, .. } => Place::Waiting,
            KeyState::InFlight { .. } => Place::InFlight,
            KeyState::Waiting { wait: Wait::Failed(_), .. } => Place::Parked,
            KeyState::Cooling { .. } => return None,
        };
        let (large, since_ms) = (state.waits_as_large(), state.work()?.since_ms);
        Some(Self { place, large, size: state.size(), since_ms })
    }
}

/// The counts of all keys.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Only configured buckets have keys, so what was once here may stay.
    buckets: BTreeMap<Arc<str>, Bucket>,
    large: usize,
    parked: BTreeSet<ObjectKey>,
}

#[derive(Debug, Default)]
struct Bucket {
    pending: usize,
    in_flight: usize,
    parked: usize,
    bytes: u128,
    unsized_keys: usize,
    /// By time, how many keys wait since then.
    since: BTreeMap<i64, usize>,
}

impl Tally {
    /// A key that added `old` adds `new` from now on.
    pub(super) fn replace(&mut self, key: &ObjectKey, old: Option<Share>, new: Option<Share>) {
        let was_parked = old.is_some_and(|share| share.place == Place::Parked);
        let is_parked = new.is_some_and(|share| share.place == Place::Parked);
        if is_parked && !was_parked {
            self.parked.insert(key.clone());
        } else if was_parked && !is_parked {
            self.parked.remove(key);
        }
        self.large += usize::from(new.is_some_and(|share| share.large));
        self.large -= usize::from(old.is_some_and(|share| share.large));
        if !self.buckets.contains_key(&key.bucket) {
            self.buckets.insert(Arc::clone(&key.bucket), Bucket::default());
        }
        let Some(bucket) = self.buckets.get_mut(&key.bucket) else { return };
        if let Some(share) = new {
            bucket.add(share);
        }
        if let Some(share) = old {
            bucket.remove(share);
        }
    }

    /// All buckets together.
    pub(super) fn counts(&self) -> Counts {
        self.buckets.values().map(Bucket::counts).fold(Counts::default(), Counts::plus)
    }

    /// Those that wait in the lane for large objects.
    pub(super) const fn large(&self) -> usize {
        self.large
    }

    /// Each bucket that has keys.
    pub(super) fn by_bucket(&self) -> Vec<(Arc<str>, Counts)> {
        let here = self.buckets.iter().filter(|(_, bucket)| bucket.pending > 0);
        here.map(|(name, bucket)| (Arc::clone(name), bucket.counts())).collect()
    }

    /// The first parked keys by name.
    pub(super) fn parked(&self, limit: usize) -> Vec<ObjectKey> {
        self.parked.iter().take(limit).cloned().collect()
    }

    /// All parked keys of one bucket.
    pub(super) fn parked_in(&self, bucket: &Arc<str>) -> Vec<ObjectKey> {
        let from = self.parked.range(ObjectKey::new(Arc::clone(bucket), "")..);
        from.take_while(|key| key.bucket == *bucket).cloned().collect()
    }
}

impl Bucket {
    fn add(&mut self, share: Share) {
        self.pending += 1;
        match share.place {
            Place::Waiting => {}
            Place::InFlight => self.in_flight += 1,
            Place::Parked => self.parked += 1,
        }
        match share.size {
            Some(size) => self.bytes += u128::from(size),
            None => self.unsized_keys += 1,
        }
        *self.since.entry(share.since_ms).or_default() += 1;
    }

    /// Takes back what was added before.
    fn remove(&mut self, share: Share) {
        self.pending -= 1;
        match share.place {
            Place::Waiting => {}
            Place::InFlight => self.in_flight -= 1,
            Place::Parked => self.parked -= 1,
        }
        match share.size {
            Some(size) => self.bytes -= u128::from(size),
            None => self.unsized_keys -= 1,
        }
        if let Entry::Occupied(mut keys) = self.since.entry(share.since_ms) {
            *keys.get_mut() -= 1;
            if *keys.get() == 0 {
                keys.remove();
            }
        }
    }

    fn counts(&self) -> Counts {
        Counts {
            pending: self.pending,
            in_flight: self.in_flight,
            parked: self.parked,
            bytes: u64::try_from(self.bytes).unwrap_or(u64::MAX),
            unsized_keys: self.unsized_keys,
            oldest_ms: self.since.first_key_value().map(|(since, _)| *since),
        }
    }
}
