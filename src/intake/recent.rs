//! A bounded memory of events that are durable, so that a second delivery of one is dropped.
//!
//! Two generations of 65,536: when the young one is full it becomes the old one, and the old one is
//! forgotten. So at least the last 65,536 are known, in about 4 MiB. Forgetting, or a restart, costs one
//! look at a key that agrees already.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, PoisonError};

const GENERATION: usize = 65_536;

/// Identities of events ([`crate::event::ObjectEvent::identity`]).
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<u128>,
    old: HashSet<u128>,
}

impl Recent {
    pub(super) fn knows(&self, identity: u128) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.young.contains(&identity) || known.old.contains(&identity)
    }

    /// Only once the event is durable: an event that was refused will be sent again.
    pub(super) fn remember(&self, identities: impl IntoIterator<Item = u128>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for identity in identities {
            if known.young.len() == GENERATION {
                known.old = mem::take(&mut known.young);
            }
            known.young.insert(identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_known_and_old_ones_forgotten() {
        let recent = Recent::default();
        let count = 3 * GENERATION as u128;
        recent.remember(0..count);
        assert!((count - GENERATION as u128..count).all(|identity| recent.knows(identity)));
        assert!((0..GENERATION as u128).all(|identity| !recent.knows(identity)));
        let known = recent.0.lock().unwrap();
        assert!(known.young.len() + known.old.len() <= 2 * GENERATION);
    }
}
