//! Order: the ready queues, the delay queue, and the oldest record still needed.
//!
//! One lock around three small structures. Entries may be stale (the key has moved on since); the
//! key map is the truth, and a stale entry is dropped when it is taken out.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeInclusive;

use tokio::time::Instant;

use super::turns::Turns;
use crate::journal::Lsn;
use crate::object::ObjectKey;

/// The queues of one work queue.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// The ready queues.
    pub(super) turns: Turns,
    delayed: BTreeMap<(Instant, u64), ObjectKey>,
    sequence: u64,
    /// By record, how many keys still need it: a Kafka record can tell of several.
    unfinished: BTreeMap<Lsn, usize>,
}

impl Schedule {
    pub(super) fn delay(&mut self, until: Instant, key: ObjectKey) {
        self.sequence += 1;
        self.delayed.insert((until, self.sequence), key);
    }

    /// Takes one key whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<ObjectKey> {
        let entry = self.delayed.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// When the next delayed key is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((at, _), _)| *at)
    }

    /// A record is needed from now on, and another no longer.
    pub(super) fn replace(&mut self, old: Option<Lsn>, new: Option<Lsn>) {
        if old == new {
            return;
        }
        if let Some(lsn) = new {
            *self.unfinished.entry(lsn).or_default() += 1;
        }
        if let Some(lsn) = old
            && let Entry::Occupied(mut keys) = self.unfinished.entry(lsn)
        {
            *keys.get_mut() -= 1;
            if *keys.get() == 0 {
                keys.remove();
            }
        }
    }

    /// The oldest record that any key still needs.
    pub(super) fn lowest_unfinished(&self) -> Option<Lsn> {
        self.unfinished.first_key_value().map(|(lsn, _)| *lsn)
    }

    /// The oldest record of these that any key still needs.
    pub(super) fn lowest_in(&self, records: RangeInclusive<Lsn>) -> Option<Lsn> {
        self.unfinished.range(records).next().map(|(lsn, _)| *lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workqueue::key_state::Lane;
    use crate::workqueue::turns::{Share, Size};
    use std::time::Duration;

    #[test]
    fn live_keys_go_before_repairs_and_large_ones_have_their_own_lane() {
        let mut turns = Schedule::default().turns;
        let key = |name: &str| ObjectKey::new("b", name);
        turns.push(Lane::Repair, key("repair"));
        turns.push(Lane::Large, key("large"));
        turns.push(Lane::Live, key("live"));
        assert_eq!(turns.pop(Size::Small, Share::ALL), Some(key("live")));
        assert_eq!(turns.pop(Size::Small, Share::ALL), Some(key("repair")));
        assert_eq!(turns.pop(Size::Small, Share::ALL), None);
        assert_eq!(turns.pop(Size::Large, Share::ALL), Some(key("large")));
    }

    #[test]
    fn a_delayed_key_is_due_at_its_time_and_not_before() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        schedule.delay(later, ObjectKey::new("b", "k"));
        assert_eq!(schedule.next_due(), Some(later));
        assert_eq!(schedule.pop_due(now), None);
        assert_eq!(schedule.pop_due(later), Some(ObjectKey::new("b", "k")));
    }

    #[test]
    fn the_lowest_unfinished_record_follows_what_is_needed() {
        let mut schedule = Schedule::default();
        schedule.replace(None, Some(4));
        schedule.replace(None, Some(9));
        schedule.replace(Some(4), Some(12));
        assert_eq!(schedule.lowest_unfinished(), Some(9));
        schedule.replace(Some(9), None);
        schedule.replace(Some(12), None);
        assert_eq!(schedule.lowest_unfinished(), None);
    }

    #[test]
    fn a_record_that_tells_of_two_keys_is_needed_until_both_are_done() {
        let mut schedule = Schedule::default();
        schedule.replace(None, Some(7));
        schedule.replace(None, Some(7));
        schedule.replace(Some(7), None);
        assert_eq!(schedule.lowest_in(5..=9), Some(7));
        assert_eq!(schedule.lowest_in(8..=9), None);
        schedule.replace(Some(7), Some(8));
        assert_eq!((schedule.lowest_in(5..=7), schedule.lowest_in(5..=9)), (None, Some(8)));
        schedule.replace(Some(8), None);
        assert_eq!(schedule.lowest_unfinished(), None);
    }
}
