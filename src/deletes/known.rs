//! Which keys are on a shelf, by their hashes, so that none is put there twice, and since when.
//!
//! Bounded: beyond [`MOST`] keys it does not know the others, and its owner must do without.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::object::ObjectKey;

/// About 8 MiB of hashes and times.
const MOST: usize = 1 << 18;

/// A bounded set of keys.
#[derive(Debug, Default)]
pub(super) struct Known {
    hasher: RandomState,
    sets: Mutex<Sets>,
}

#[derive(Debug, Default)]
struct Sets {
    /// With the time in the key's newest record.
    hashes: HashMap<u64, i64>,
    /// Those of them that need not stay on the shelf.
    released: HashSet<u64>,
}

impl Known {
    /// Adds a key of which a record of this time is put on the shelf, if there is room; it stays even if
    /// it was released. Returns whether it was not known before.
    pub(super) fn add(&self, key: &ObjectKey, since_ms: i64) -> bool {
        self.note(key, since_ms).is_none()
    }

    /// The same, for a record that is put on the shelf only if none of the key is there.
    pub(super) fn add_first(&self, key: &ObjectKey, since_ms: i64) -> bool {
        let (mut sets, hash) = (self.sets(), self.hash(key));
        let returned = sets.released.remove(&hash);
        let room = sets.hashes.len() < MOST;
        match sets.hashes.entry(hash) {
            // It came back since its record was written: that one may be forgotten at any moment.
            Entry::Occupied(mut known) if returned => {
                known.insert(since_ms);
                true
            }
            // Its record's time stays: one that was never written must not count as the newest.
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                if room {
                    free.insert(since_ms);
                }
                true
            }
        }
    }

    /// The same, for a record that may take the place of an older one. Returns whether there is none as
    /// new as this.
    pub(super) fn renew(&self, key: &ObjectKey, since_ms: i64) -> bool {
        self.note(key, since_ms).is_none_or(|newest| newest < since_ms)
    }

    /// Adds a key; the time of the newest record that was known of it before.
    fn note(&self, key: &ObjectKey, since_ms: i64) -> Option<i64> {
        let (mut sets, hash) = (self.sets(), self.hash(key));
        sets.released.remove(&hash);
        let room = sets.hashes.len() < MOST;
        match sets.hashes.entry(hash) {
            Entry::Occupied(mut known) => {
                let newest = *known.get();
                known.insert(newest.max(since_ms));
                Some(newest)
            }
            Entry::Vacant(free) => {
                if room {
                    free.insert(since_ms);
                }
                None
            }
        }
    }

    /// Forgets a key.
    pub(super) fn remove(&self, key: &ObjectKey) {
        let (mut sets, hash) = (self.sets(), self.hash(key));
        sets.hashes.remove(&hash);
        sets.released.remove(&hash);
    }

    /// Forgets a key whose record of this time has left the shelf, unless there is a newer one.
    pub(super) fn left(&self, key: &ObjectKey, since_ms: i64) {
        let (mut sets, hash) = (self.sets(), self.hash(key));
        if sets.hashes.get(&hash).is_some_and(|newest| *newest <= since_ms) {
            sets.hashes.remove(&hash);
            sets.released.remove(&hash);
        }
    }

    /// Notes that a key, if it is known, need not stay on the shelf.
    pub(super) fn release(&self, key: &ObjectKey) {
        let (mut sets, hash) = (self.sets(), self.hash(key));
        if sets.hashes.contains_key(&hash) {
            sets.released.insert(hash);
        }
    }

    /// Whether the key need not stay on the shelf.
    pub(super) fn is_released(&self, key: &ObjectKey) -> bool {
        self.sets().released.contains(&self.hash(key))
    }

    /// Forgets a key if it was released, and returns whether it was.
    pub(super) fn take_released(&self, key: &ObjectKey) -> bool {
        let (mut sets, hash) = (self.sets(), self.hash(key));
        sets.released.remove(&hash) && sets.hashes.remove(&hash).is_some()
    }

    /// Whether any key was released that is still known.
    pub(super) fn has_released(&self) -> bool {
        !self.sets().released.is_empty()
    }

    /// The time in the key's newest record, if the key is known.
    pub(super) fn newest(&self, key: &ObjectKey) -> Option<i64> {
        self.sets().hashes.get(&self.hash(key)).copied()
    }

    /// Whether the key was added, and not released since.
    pub(super) fn has(&self, key: &ObjectKey) -> bool {
        let (sets, hash) = (self.sets(), self.hash(key));
        sets.hashes.contains_key(&hash) && !sets.released.contains(&hash)
    }

    /// How many keys were added and not released since; `None` if there may be keys that it does not know.
    pub(super) fn waiting(&self) -> Option<u64> {
        let sets = self.sets();
        let waiting = sets.hashes.len().saturating_sub(sets.released.len());
        (sets.hashes.len() < MOST).then_some(waiting as u64)
    }

    /// Whether there may be keys that it does not know.
    pub(super) fn is_full(&self) -> bool {
        self.sets().hashes.len() >= MOST
    }

    fn hash(&self, key: &ObjectKey) -> u64 {
        self.hasher.hash_one(key)
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_what_was_added_and_not_removed_and_no_more_than_it_may() {
        let known = Known::default();
        let key = |n: usize| ObjectKey::new("b", n.to_string());
        assert!((0..MOST + 2).all(|n| known.add(&key(n), 5)) && !known.add(&key(0), 5));
        assert!(known.has(&key(0)) && !known.has(&key(MOST + 1)) && known.is_full());
        known.remove(&key(0));
        assert!(!known.has(&key(0)) && !known.is_full());
    }

    #[test]
    fn a_released_key_is_taken_once_unless_it_is_added_again() {
        let (known, key) = (Known::default(), ObjectKey::new("b", "k"));
        known.release(&key);
        assert!(!known.has_released() && !known.take_released(&key), "it was never known");
        known.add(&key, 5);
        known.release(&key);
        assert!(known.has_released() && !known.add(&key, 5) && !known.has_released());
        assert!(!known.take_released(&key) && known.has(&key));
        known.release(&key);
        assert!(known.take_released(&key) && !known.take_released(&key) && !known.has(&key));
    }

    #[test]
    fn a_record_that_is_not_written_never_counts_as_the_newest() {
        let (known, key) = (Known::default(), ObjectKey::new("b", "k"));
        assert!(known.add_first(&key, 1) && !known.add_first(&key, 9));
        assert!(known.renew(&key, 5), "the one on the shelf is older");
        known.release(&key);
        assert!(known.add_first(&key, 7), "one that came back is put there anew");
        known.left(&key, 5);
        assert!(known.has(&key));
    }

    #[test]
    fn a_newer_record_takes_the_place_of_an_older_one() {
        let (known, key) = (Known::default(), ObjectKey::new("b", "k"));
        assert!(known.add(&key, 1) && !known.add(&key, 1));
        assert!(known.renew(&key, 5) && !known.renew(&key, 5) && !known.renew(&key, 4));
        known.left(&key, 1);
        assert!(known.has(&key), "the newer one is still there");
        known.left(&key, 5);
        assert!(!known.has(&key) && known.renew(&key, 5));
    }
}
