//! Records on their way from the committer to the cursor, in memory while the cursor keeps up.

use std::collections::VecDeque;

use super::{Lsn, Record};

/// The most records kept.
const MAX_RECORDS: usize = 65_536;
/// The most bytes kept.
const MAX_BYTES: usize = 16 << 20;
/// What a record costs beside its payload: the entry here and the payload's allocation.
const RECORD_COST: usize = 96;

/// The newest records that the cursor has not read, without holes. Beyond its bounds it forgets
/// the oldest ones; they are on disk.
#[derive(Debug)]
pub(super) struct Ring {
    records: VecDeque<Record>,
    bytes: usize,
    most_records: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self { records: VecDeque::new(), bytes: 0, most_records: MAX_RECORDS }
    }
}

impl Ring {
    /// Keeps no records: the cursor reads all from disk.
    pub(super) fn keep_none(&mut self) {
        *self = Self { most_records: 0, ..Self::default() };
    }

    /// Adds the next record.
    pub(super) fn push(&mut self, record: Record) {
        self.bytes = self.bytes.saturating_add(cost(&record));
        self.records.push_back(record);
        while self.records.len() > self.most_records || self.bytes > MAX_BYTES {
            self.pop();
        }
    }

    /// Takes up to `max` records from `position` on, and forgets those before it; `None` if the one
    /// at `position` is not here.
    pub(super) fn take(&mut self, position: Lsn, max: usize) -> Option<Vec<Record>> {
        while self.records.front().is_some_and(|record| record.lsn < position) {
            self.pop();
        }
        self.records.front().filter(|record| record.lsn == position)?;
        Some((0..max).map_while(|_| self.pop()).collect())
    }

    fn pop(&mut self) -> Option<Record> {
        let record = self.records.pop_front()?;
        self.bytes = self.bytes.saturating_sub(cost(&record));
        Some(record)
    }
}

fn cost(record: &Record) -> usize {
    record.payload.len().saturating_add(RECORD_COST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(lsn: Lsn, bytes: usize) -> Record {
        Record { lsn, payload: vec![0; bytes].into() }
    }

    #[test]
    fn the_ring_is_bounded_by_count_and_by_bytes() {
        let mut ring = Ring::default();
        (1..=100_000).for_each(|lsn| ring.push(record(lsn, 1)));
        assert_eq!(ring.records.len(), MAX_RECORDS);
        (100_001..=101_000).for_each(|lsn| ring.push(record(lsn, 60_000)));
        assert!(ring.bytes <= MAX_BYTES);
        let first = ring.records.front().unwrap().lsn;
        assert_eq!(ring.take(first - 1, 10), None, "the disk has it, the ring does not");
        assert_eq!(ring.take(first, 2).unwrap().len(), 2);
    }

    #[test]
    fn what_was_read_is_forgotten() {
        let mut ring = Ring::default();
        (1..=10).for_each(|lsn| ring.push(record(lsn, 10)));
        let lsns = |records: Vec<Record>| records.iter().map(|r| r.lsn).collect::<Vec<_>>();
        assert_eq!(lsns(ring.take(3, 2).unwrap()), [3, 4]);
        assert_eq!(lsns(ring.take(5, 100).unwrap()), [5, 6, 7, 8, 9, 10]);
        assert_eq!((ring.take(11, 1), ring.bytes), (None, 0));
    }
}
