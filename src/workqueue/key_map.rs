//! The concurrent map from key to state; the only file that names dashmap.
//!
//! Every method is synchronous and returns owned values: no guard leaves this file, so none can be
//! held over an `.await`. The closure given to [`KeyMap::update`] runs under a shard's lock; it may
//! take the schedule's lock and nothing else.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::key_state::KeyState;
use crate::object::ObjectKey;

/// What to leave in the map after an update.
pub(super) enum Keep {
    /// Put this state there.
    State(KeyState),
    /// Nothing.
    Absent,
}

#[derive(Debug, Default)]
pub(super) struct KeyMap(DashMap<ObjectKey, KeyState>);

impl KeyMap {
    /// Replaces a key's state by what `change` makes of it, atomically.
    pub(super) fn update<R>(
        &self,
        key: &ObjectKey,
        change: impl FnOnce(Option<KeyState>) -> (Keep, R),
    ) -> R {
        match self.0.entry(key.clone()) {
            Entry::Occupied(mut entry) => {
                let (keep, result) = change(Some(entry.get().clone()));
                match keep {
                    Keep::State(state) => drop(entry.insert(state)),
                    Keep::Absent => drop(entry.remove()),
                }
                result
            }
            Entry::Vacant(entry) => {
                let (keep, result) = change(None);
                if let Keep::State(state) = keep {
                    entry.insert(state);
                }
                result
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Folds over all states, shard by shard; not a snapshot of one instant.
    pub(super) fn fold<A>(
        &self,
        start: A,
        mut step: impl FnMut(A, &ObjectKey, &KeyState) -> A,
    ) -> A {
        self.0.iter().fold(start, |sum, entry| step(sum, entry.key(), entry.value()))
    }
}
