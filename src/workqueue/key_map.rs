//! The concurrent map from key to state; the only file that names dashmap.
//!
//! Every method is synchronous and returns owned values: no guard leaves this file, so none can be
//! held over an `.await`. The closure given to [`KeyMap::update`] runs under a shard's lock; it may
//! take the schedule's lock and nothing else. Every change of a state passes through it, so the tally is
//! kept there; its lock is taken after the closure has returned, and none is taken under it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::key_state::KeyState;
use super::tally::{Share, Tally};
use crate::object::ObjectKey;

/// What to leave in the map after an update.
pub(super) enum Keep {
    /// Put this state there.
    State(KeyState),
    /// Nothing.
    Absent,
}

#[derive(Debug, Default)]
pub(super) struct KeyMap {
    states: DashMap<ObjectKey, KeyState>,
    tally: Mutex<Tally>,
}

impl KeyMap {
    /// Replaces a key's state by what `change` makes of it, atomically.
    pub(super) fn update<R>(
        &self,
        key: &ObjectKey,
        change: impl FnOnce(Option<KeyState>) -> (Keep, R),
    ) -> R {
        match self.states.entry(key.clone()) {
            Entry::Occupied(mut entry) => {
                let old = Share::of(entry.get());
                let (keep, result) = change(Some(entry.get().clone()));
                match keep {
                    Keep::State(state) => {
                        self.count(key, old, Share::of(&state));
                        entry.insert(state);
                    }
                    Keep::Absent => {
                        self.count(key, old, None);
                        entry.remove();
                    }
                }
                result
            }
            Entry::Vacant(entry) => {
                let (keep, result) = change(None);
                if let Keep::State(state) = keep {
                    self.count(key, None, Share::of(&state));
                    entry.insert(state);
                }
                result
            }
        }
    }

    /// What is here, counted as it came and went.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of one key.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<KeyState> {
        self.states.get(key).map(|state| state.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// Folds over all states, shard by shard; not a snapshot of one instant.
    pub(super) fn fold<A>(
        &self,
        start: A,
        mut step: impl FnMut(A, &ObjectKey, &KeyState) -> A,
    ) -> A {
        self.states.iter().fold(start, |sum, entry| step(sum, entry.key(), entry.value()))
    }

    fn count(&self, key: &ObjectKey, old: Option<Share>, new: Option<Share>) {
        if old != new {
            self.tally().replace(key, old, new);
        }
    }
}
