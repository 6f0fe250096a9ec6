//! What is known of the partitions that this process has: how far their records were taken, and what
//! may be committed. Pure: no client, no clock.
//!
//! **Promise.** An offset is committed only when every record before it is done: taken, in order, and
//! needed by no key any more. Offsets that were never given to us are noticed, also those between the
//! committed offset and the first record.

use std::collections::BTreeMap;
use std::ops::Range;

use tokio_util::sync::CancellationToken;

use super::lsn::TopicPartition;

/// A record that is being taken.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    pub(super) place: TopicPartition,
    pub(super) offset: i64,
    /// The length of its document.
    pub(super) bytes: usize,
    lease: CancellationToken,
}

impl Ticket {
    /// Whether its partition is still this process's own, as it was when the record arrived. If not, the
    /// record is another process's business.
    pub(super) fn is_ours(&self) -> bool {
        !self.lease.is_cancelled()
    }
}

/// All partitions of this process.
#[derive(Debug, Default)]
pub(super) struct Partitions(BTreeMap<TopicPartition, Partition>);

#[derive(Debug, Default)]
struct Partition {
    /// Cancelled when the partition goes.
    lease: CancellationToken,
    /// The offset behind the last record that was taken, and all before it; `None` before the first.
    next: Option<i64>,
    /// How many records are being taken.
    taking: usize,
    committed: Option<i64>,
    /// Whether the group's committed offset is known. Until then none is committed: it would hide where
    /// reading should have begun.
    began: bool,
    /// The offset that must come next; `None` while nothing is known of it.
    expected: Option<i64>,
    /// The first offset that came.
    first: Option<i64>,
    /// From the first to the last offset that did not come, since it was last asked.
    skipped: Option<Range<i64>>,
    /// The oldest record that is left to the partition's next owner.
    left: Option<i64>,
    leaving: bool,
}

impl Partitions {
    /// These are this process's own from now on.
    pub(super) fn assign(&mut self, places: &[TopicPartition]) {
        self.0.extend(places.iter().map(|place| (*place, Partition::default())));
    }

    /// No further record of these is taken.
    pub(super) fn leave(&mut self, places: &[TopicPartition]) {
        for place in places {
            if let Some(partition) = self.0.get_mut(place) {
                partition.leaving = true;
            }
        }
    }

    /// These are gone.
    pub(super) fn remove(&mut self, places: &[TopicPartition]) {
        for place in places {
            if let Some(partition) = self.0.remove(place) {
                partition.lease.cancel();
            }
        }
    }

    /// A record arrived; `None` if it is not to be taken here.
    pub(super) fn begin(
        &mut self,
        place: TopicPartition,
        offset: i64,
        bytes: usize,
    ) -> Option<Ticket> {
        let partition = self.0.get_mut(&place).filter(|partition| !partition.leaving)?;
        partition.taking += 1;
        if let Some(expected) = partition.expected.replace(offset + 1) {
            partition.skip(expected..offset);
        }
        partition.first.get_or_insert(offset);
        Some(Ticket { place, offset, bytes, lease: partition.lease.clone() })
    }

    /// The partitions of which the group's committed offset is not known yet.
    pub(super) fn to_begin(&self) -> Vec<TopicPartition> {
        self.0.iter().filter(|(_, partition)| !partition.began).map(|(place, _)| *place).collect()
    }

    /// What the group had committed when these were assigned; `None` if nothing.
    pub(super) fn begun(&mut self, offsets: &[(TopicPartition, Option<i64>)]) {
        for (place, committed) in offsets {
            let Some(partition) = self.0.get_mut(place).filter(|partition| !partition.began) else {
                continue;
            };
            partition.began = true;
            match (partition.first, committed) {
                (Some(first), Some(committed)) => partition.skip(*committed..first),
                (None, committed) => partition.expected = *committed,
                (Some(_), None) => {}
            }
        }
    }

    /// Where offsets did not come although others behind them did, since this was last asked. They may
    /// have expired; compaction and transactions leave such holes, too.
    pub(super) fn take_skipped(&mut self) -> Vec<(TopicPartition, Range<i64>)> {
        let skipped = |(place, partition): (&TopicPartition, &mut Partition)| {
            partition.skipped.take().map(|range| (*place, range))
        };
        self.0.iter_mut().filter_map(skipped).collect()
    }

    /// A record was taken, and all of its partition before it.
    pub(super) fn taken(&mut self, ticket: &Ticket) {
        if ticket.is_ours()
            && let Some(partition) = self.0.get_mut(&ticket.place)
        {
            partition.taking = partition.taking.saturating_sub(1);
            partition.next = Some(ticket.offset + 1);
        }
    }

    /// Whether no record of the partition is being taken.
    pub(super) fn is_idle(&self, place: TopicPartition) -> bool {
        self.0.get(&place).is_none_or(|partition| partition.taking == 0)
    }

    /// The record at `offset` will not be done here.
    pub(super) fn leave_record(&mut self, place: TopicPartition, offset: i64) {
        if let Some(partition) = self.0.get_mut(&place) {
            partition.left = Some(partition.left.map_or(offset, |left| left.min(offset)));
        }
    }

    /// The offsets that may be committed now and were not: behind the last record taken, but not beyond the
    /// oldest that a key still needs (`needed`), nor one that is left to another process.
    pub(super) fn to_commit(
        &self,
        needed: impl Fn(TopicPartition) -> Option<i64>,
    ) -> Vec<(TopicPartition, i64)> {
        let begun = self.0.iter().filter(|(_, partition)| partition.began);
        let offset = |(place, partition): (&TopicPartition, &Partition)| {
            let limits = [Some(partition.next?), partition.left, needed(*place)];
            let offset = limits.into_iter().flatten().min()?;
            partition.committed.is_none_or(|old| offset > old).then_some((*place, offset))
        };
        begun.filter_map(offset).collect()
    }

    /// The broker has confirmed these.
    pub(super) fn committed(&mut self, offsets: &[(TopicPartition, i64)]) {
        for (place, offset) in offsets {
            if let Some(partition) = self.0.get_mut(place) {
                partition.committed = Some(partition.committed.map_or(*offset, |o| o.max(*offset)));
            }
        }
    }

    /// All of them, and the offset behind the last record taken.
    pub(super) fn positions(&self) -> Vec<(TopicPartition, Option<i64>)> {
        self.0.iter().map(|(place, partition)| (*place, partition.next)).collect()
    }
}

/// From the first to the last offset of both.
pub(super) fn hull(one: &Range<i64>, other: &Range<i64>) -> Range<i64> {
    one.start.min(other.start)..one.end.max(other.end)
}

impl Partition {
    fn skip(&mut self, range: Range<i64>) {
        if !range.is_empty() {
            self.skipped = Some(match self.skipped.take() {
                Some(old) => hull(&old, &range),
                None => range,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TopicPartition = TopicPartition { topic: 0, partition: 0 };
    const B: TopicPartition = TopicPartition { topic: 0, partition: 1 };

    /// Partitions that are read from their beginning.
    fn assigned(places: &[TopicPartition]) -> Partitions {
        let mut partitions = Partitions::default();
        partitions.assign(places);
        partitions.begun(&places.iter().map(|place| (*place, None)).collect::<Vec<_>>());
        partitions
    }

    fn take(partitions: &mut Partitions, place: TopicPartition, offset: i64) {
        let ticket = partitions.begin(place, offset, 1).unwrap();
        partitions.taken(&ticket);
    }

    #[test]
    fn no_offset_is_committed_beyond_a_record_that_a_key_still_needs() {
        let mut partitions = assigned(&[A, B]);
        assert_eq!(partitions.to_commit(|_| None), []);
        take(&mut partitions, A, 4);
        take(&mut partitions, A, 7);
        take(&mut partitions, B, 0);
        let needed = |place| (place == A).then_some(4);
        assert_eq!(partitions.to_commit(needed), [(A, 4), (B, 1)]);
        partitions.committed(&[(A, 4), (B, 1)]);
        assert_eq!(partitions.to_commit(needed), []);
        assert_eq!(partitions.to_commit(|_| None), [(A, 8)]);
    }

    #[test]
    fn a_record_that_is_still_being_taken_is_not_committed() {
        let mut partitions = assigned(&[A]);
        take(&mut partitions, A, 0);
        let waiting = partitions.begin(A, 1, 1).unwrap();
        assert!(!partitions.is_idle(A));
        assert_eq!(partitions.to_commit(|_| None), [(A, 1)]);
        partitions.taken(&waiting);
        assert!(partitions.is_idle(A));
        assert_eq!(partitions.to_commit(|_| None), [(A, 2)]);
    }

    #[test]
    fn a_partition_that_leaves_takes_nothing_and_leaves_what_is_not_done() {
        let mut partitions = assigned(&[A]);
        (0..9).for_each(|offset| take(&mut partitions, A, offset));
        partitions.leave(&[A]);
        assert!(partitions.begin(A, 9, 1).is_none());
        partitions.leave_record(A, 5);
        partitions.leave_record(A, 6);
        assert_eq!(partitions.to_commit(|_| None), [(A, 5)]);
        assert_eq!(partitions.to_commit(|_| Some(3)), [(A, 3)]);
    }

    #[test]
    fn what_was_begun_before_a_partition_went_away_does_not_count_when_it_is_back() {
        let mut partitions = assigned(&[A]);
        let old = partitions.begin(A, 70, 1).unwrap();
        partitions.remove(&[A]);
        assert!(!old.is_ours());
        partitions.assign(&[A]);
        partitions.begun(&[(A, Some(60))]);
        partitions.taken(&old);
        assert_eq!(partitions.to_commit(|_| None), []);
        take(&mut partitions, A, 60);
        assert_eq!(partitions.to_commit(|_| None), [(A, 61)]);
    }

    #[test]
    fn offsets_that_never_came_are_noticed_whatever_is_known_first() {
        let mut partitions = Partitions::default();
        partitions.assign(&[A, B]);
        assert_eq!(partitions.to_begin(), [A, B]);
        // The group's offset is known before the first record, and after it.
        partitions.begun(&[(A, Some(5))]);
        take(&mut partitions, A, 8);
        take(&mut partitions, B, 3);
        assert_eq!(partitions.to_commit(|_| None), [(A, 9)], "nothing hides where B should begin");
        partitions.begun(&[(B, Some(1))]);
        assert_eq!(partitions.take_skipped(), [(A, 5..8), (B, 1..3)]);
        assert_eq!(partitions.to_commit(|_| None), [(A, 9), (B, 4)]);
        // In between; and nothing was skipped where they come one by one, or again.
        take(&mut partitions, A, 9);
        take(&mut partitions, B, 2);
        assert_eq!(partitions.take_skipped(), []);
        take(&mut partitions, A, 12);
        take(&mut partitions, A, 20);
        assert_eq!(partitions.take_skipped(), [(A, 10..20)]);
    }
}
