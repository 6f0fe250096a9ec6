//! Which keys are on a shelf, by their hashes, so that none is put there twice.
//!
//! Bounded: beyond [`MOST`] keys it does not know the others, and its owner must do without.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::object::ObjectKey;

/// About 4 MiB of hashes.
const MOST: usize = 1 << 18;

/// A bounded set of keys.
#[derive(Debug, Default)]
pub(super) struct Known {
    hasher: RandomState,
    hashes: Mutex<HashSet<u64>>,
}

impl Known {
    /// Adds a key, if there is room. Returns whether it was not known before.
    pub(super) fn add(&self, key: &ObjectKey) -> bool {
        let (mut hashes, hash) = (self.hashes(), self.hasher.hash_one(key));
        if hashes.len() < MOST { hashes.insert(hash) } else { !hashes.contains(&hash) }
    }

    /// Forgets a key.
    pub(super) fn remove(&self, key: &ObjectKey) {
        self.hashes().remove(&self.hasher.hash_one(key));
    }

    /// Whether the key was added.
    pub(super) fn has(&self, key: &ObjectKey) -> bool {
        self.hashes().contains(&self.hasher.hash_one(key))
    }

    /// Whether there may be keys that it does not know.
    pub(super) fn is_full(&self) -> bool {
        self.hashes().len() >= MOST
    }

    fn hashes(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_what_was_added_and_not_removed_and_no_more_than_it_may() {
        let known = Known::default();
        let key = |n: usize| ObjectKey::new("b", n.to_string());
        assert!((0..MOST + 2).all(|n| known.add(&key(n))) && !known.add(&key(0)));
        assert!(known.has(&key(0)) && !known.has(&key(MOST + 1)) && known.is_full());
        known.remove(&key(0));
        assert!(!known.has(&key(0)) && !known.is_full());
    }
}
