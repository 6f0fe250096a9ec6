//! A record's place in a topic as a log sequence number of the work queue, and the partition of a key; pure.

use std::ops::RangeInclusive;

use crate::journal::Lsn;
use crate::object::ObjectKey;

/// The bits of a number that hold the offset: enough for 89 years at 100,000 records a second.
const OFFSET_BITS: u32 = 48;

/// One partition of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TopicPartition {
    /// Which of the configured topics, by its position.
    pub(super) topic: usize,
    pub(super) partition: i32,
}

/// Their partitions, for the log.
pub(super) fn shown(places: &[TopicPartition]) -> Vec<i32> {
    places.iter().map(|place| place.partition).collect()
}

/// The record's number; larger for later records of one partition. One more than the offset, because
/// the numbers of a journal begin at 1, too.
pub(super) fn lsn(partition: i32, offset: i64) -> Lsn {
    first(partition) + u64::try_from(offset).unwrap_or(0) + 1
}

/// The offset of a number.
pub(super) fn offset(number: Lsn) -> i64 {
    let low = number & ((1 << OFFSET_BITS) - 1);
    i64::try_from(low.saturating_sub(1)).unwrap_or(i64::MAX)
}

/// The partition of a number.
pub(super) fn partition(number: Lsn) -> i32 {
    i32::try_from(number >> OFFSET_BITS).unwrap_or(i32::MAX)
}

/// All numbers of a partition.
pub(super) fn lsns(partition: i32) -> RangeInclusive<Lsn> {
    first(partition)..=first(partition) + ((1 << OFFSET_BITS) - 1)
}

fn first(partition: i32) -> Lsn {
    u64::from(u16::try_from(partition).unwrap_or(u16::MAX)) << OFFSET_BITS
}

/// The key of a record: MinIO's.
pub(super) fn record_key(key: &ObjectKey) -> String {
    format!("{}/{}", key.bucket, key.key)
}

/// Where MinIO sends notifications of a key, among `partitions`: the FNV-1a hash of the record's key,
/// as a signed number, modulo their number, without its sign (sarama's hash partitioner, and
/// `fnv1a_random` of librdkafka).
pub(super) fn partition_of(key: &ObjectKey, partitions: i32) -> i32 {
    let hash = record_key(key)
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash.cast_signed() % partitions.max(1)).abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsns_are_ordered_by_offset_and_partitions_do_not_overlap() {
        assert_eq!(lsn(0, 0), 1);
        for partition in [0, 1, 7, 65_535] {
            for at in [0, 1, 1 << 40, (1 << 48) - 3] {
                let number = lsn(partition, at);
                assert_eq!((super::partition(number), offset(number)), (partition, at));
                assert!(lsns(partition).contains(&number));
                assert!(number < lsn(partition, at + 1));
            }
        }
        assert!(lsns(0).end() < lsns(1).start());
    }

    /// That MinIO does the same is asked of MinIO itself in tests/it/kafka.rs.
    #[test]
    fn a_key_has_the_partition_that_fnv_1a_gives_it() {
        // http://www.isthe.com/chongo/src/fnv/test_fnv.c: "foobar" is 0xbf9cf968.
        let hash = i64::from(0xbf9c_f968_u32.cast_signed());
        let key = ObjectKey::new("foobar", "");
        let with_slash = i64::from(
            ((0xbf9c_f968_u32 ^ u32::from(b'/')).wrapping_mul(0x0100_0193)).cast_signed(),
        );
        assert!(hash < 0);
        for partitions in [1, 3, 12, 100] {
            let expected = (with_slash % i64::from(partitions)).abs();
            assert_eq!(i64::from(partition_of(&key, partitions)), expected);
        }
        assert_eq!(partition_of(&key, 0), 0);
    }
}
