//! What the journal keeps: a key that may differ from the source, and since when.
//!
//! A [`DirtyKey`] is a hint, never a command. It carries no content and no verb that is obeyed: a
//! worker re-reads the source before it acts, so merging, duplicating and reordering are all safe.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::object::ObjectKey;

/// Which sides of an object may have changed; merged by OR.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Aspects(u8);

impl Aspects {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The bytes, the headers or the existence of the object.
    pub const CONTENT: Self = Self(1);
    /// The tag set only.
    pub const TAGS: Self = Self(1 << 1);
    /// Retention or legal hold only (not replicated; kept so that the event is not mistaken for content).
    pub const RETENTION: Self = Self(1 << 2);
    /// The store says that the object went away: read with HEAD first, since there is probably no body.
    pub const REMOVED: Self = Self(1 << 3);
    /// A person approved a held delete of this key: the brake lets it pass.
    pub const APPROVED: Self = Self(1 << 4);
    /// Compare both sides by HEAD before copying: probably equal already.
    pub const CHECK: Self = Self(1 << 5);

    /// The delay of this key's delete is over.
    pub const DUE: Self = Self(1 << 6);
    /// A person discarded the deletes of this bucket after this key became dirty: what its record's number
    /// says no more once it was appended again.
    pub const DISCARDED: Self = Self(1 << 7);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Where a dirty key came from: live events go before repairs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub enum Origin {
    /// A notification of the source.
    #[default]
    Live,
    /// The same, appended again by this process or back from a shelf: reading it back does not wake the key
    /// before its time.
    LiveAgain,
    /// The reconciler, or a retry after a restart.
    Repair,
}

impl Origin {
    /// Whether a notification told of it, so that it has a lag.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Live | Self::LiveAgain)
    }

    /// What a key has that is appended again, or set aside, before it is settled.
    #[must_use]
    pub const fn again(self) -> Self {
        match self {
            Self::Live | Self::LiveAgain => Self::LiveAgain,
            Self::Repair => Self::Repair,
        }
    }

    /// How a record says it; earlier builds knew 0, and took everything else for a repair.
    const fn byte(self) -> u8 {
        match self {
            Self::Live => 0,
            Self::Repair => 1,
            Self::LiveAgain => 2,
        }
    }

    const fn of_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Live,
            2 => Self::LiveAgain,
            _ => Self::Repair,
        }
    }
}

/// A key that may differ from the source, as the journal stores it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirtyKey {
    /// Which object, by the source's names.
    pub key: ObjectKey,
    /// What may have changed.
    pub aspects: Aspects,
    /// Who told of it.
    pub origin: Origin,
    /// When it changed, by the source's own event time where it gave one, else by our clock at
    /// intake; milliseconds since the Unix epoch. The lag is measured from here.
    pub since_ms: i64,
    /// The bytes that the target lacks, as an event or a listing told them: the object's size, and 0 if
    /// it was removed. For people; nothing is decided by it.
    pub size: Option<u64>,
}

/// The names of buckets, each in memory once however many keys bear it.
#[derive(Debug, Default)]
pub struct BucketNames(BTreeSet<Arc<str>>);

impl BucketNames {
    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// The stored bytes are not a dirty key of a version this build knows.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a journal record is not a dirty key of a known version: {0}")]
pub struct DecodeError(&'static str);

/// A record of an unknown size; those of earlier builds are all like this.
const WITHOUT_SIZE: u8 = 1;
/// The size follows the time.
const WITH_SIZE: u8 = 2;

impl DirtyKey {
    /// Whether a notification said that the object is there, and none since then that it went away.
    pub fn tells_present(&self) -> bool {
        let told = self.aspects.has(Aspects::CONTENT) || self.aspects.has(Aspects::TAGS);
        self.origin.is_live() && told && !self.aspects.has(Aspects::REMOVED)
    }

    /// The record's payload: version, aspects, origin, time, size if it is known, bucket length, bucket,
    /// key.
    pub fn encode(&self) -> Vec<u8> {
        let (bucket, key) = (self.key.bucket.as_bytes(), self.key.key.as_bytes());
        let mut out = Vec::with_capacity(21 + bucket.len() + key.len());
        let version = if self.size.is_some() { WITH_SIZE } else { WITHOUT_SIZE };
        out.extend([version, self.aspects.0, self.origin.byte()]);
        out.extend(self.since_ms.to_le_bytes());
        out.extend(self.size.into_iter().flat_map(u64::to_le_bytes));
        out.extend(u16::try_from(bucket.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(bucket.iter().take(usize::from(u16::MAX)));
        out.extend(key);
        out
    }

    /// Reads what [`DirtyKey::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_sharing(bytes, &mut BucketNames::default())
    }

    /// The same for one of many: they share their buckets' names.
    pub fn decode_sharing(bytes: &[u8], names: &mut BucketNames) -> Result<Self, DecodeError> {
        let (&[version, aspects, origin], rest) =
            bytes.split_first_chunk::<3>().ok_or(DecodeError("too short"))?;
        let (since, rest) = rest.split_first_chunk::<8>().ok_or(DecodeError("too short"))?;
        let (size, rest) = match version {
            WITHOUT_SIZE => (None, rest),
            WITH_SIZE => {
                let (size, rest) = rest.split_first_chunk().ok_or(DecodeError("too short"))?;
                (Some(u64::from_le_bytes(*size)), rest)
            }
            _ => return Err(DecodeError("unknown version")),
        };
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(DecodeError("too short"))?;
        let (bucket, key) = rest
            .split_at_checked(usize::from(u16::from_le_bytes(*length)))
            .ok_or(DecodeError("too short"))?;
        let text = |b| std::str::from_utf8(b).map_err(|_| DecodeError("not UTF-8"));
        Ok(Self {
            key: ObjectKey::new(names.shared(text(bucket)?), text(key)?),
            aspects: Aspects(aspects),
            origin: Origin::of_byte(origin),
            since_ms: i64::from_le_bytes(*since),
            size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(
            bucket in "[a-z0-9.-]{3,63}", key in any::<String>(),
            aspects in any::<u8>(), origin in 0..3_u8, since_ms in any::<i64>(),
            size in any::<Option<u64>>(),
        ) {
            let origin = Origin::of_byte(origin);
            let record = DirtyKey {
                key: ObjectKey::new(bucket, key), aspects: Aspects(aspects), origin, since_ms, size,
            };
            prop_assert_eq!(DirtyKey::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(record) = DirtyKey::decode(&bytes) {
                prop_assert_eq!(record.encode().len(), bytes.len());
            }
        }
    }

    #[test]
    fn a_journal_of_an_earlier_build_is_read_and_its_sizes_are_unknown() {
        // Version, aspects, origin, time, bucket length, bucket, key: as it was before sizes were kept.
        let mut bytes = vec![1, 1, 0];
        bytes.extend(1_800_000_000_123_i64.to_le_bytes());
        bytes.extend([4, 0]);
        bytes.extend(b"lakea/b.parquet");
        let record = DirtyKey::decode(&bytes).unwrap();
        assert_eq!(record.key, ObjectKey::new("lake", "a/b.parquet"));
        assert_eq!((record.since_ms, record.size), (1_800_000_000_123, None));
        assert_eq!(record.encode(), bytes);
    }

    #[test]
    fn keys_that_are_read_together_share_their_bucket_s_name() {
        let mut names = BucketNames::default();
        let mut read = |bucket: &str, key: &str| {
            let (aspects, origin) = (Aspects::CONTENT, Origin::Live);
            let key = ObjectKey::new(bucket, key);
            let record = DirtyKey { key, aspects, origin, since_ms: 5, size: None };
            DirtyKey::decode_sharing(&record.encode(), &mut names).unwrap().key.bucket
        };
        let (first, second) = (read("lake", "a"), read("lake", "b"));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(&*read("another", "a"), "another");
    }

    #[test]
    fn aspects_merge_by_or() {
        let both = Aspects::TAGS.with(Aspects::CONTENT);
        assert!(
            both.has(Aspects::TAGS) && both.has(Aspects::CONTENT) && !both.has(Aspects::REMOVED)
        );
    }
}
