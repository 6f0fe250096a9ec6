//! Gaps: times in which events of a bucket may have been missed; the bucket must be reconciled.
//!
//! **Promise.** A gap that [`GapBook::mark`] answered `Ok` for is in [`GapBook::list`] of this process
//! and any later one until it is cleared. It can be recorded on a full disk: the file has its full
//! size from the start. **On error** the gap is kept in memory and the next mark tries again.
//! **On crash** in the middle of a write, the state before it stands; a gap's last time and count may
//! be up to a second old. A book that lost something on disk says so ([`GapBook::damaged`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::journal::disk::RealDisk;
use crate::journal::slots::Slots;

/// Room for the JSON of all gaps: more than a thousand buckets. The file is twice as large.
const SLOT: usize = 256 << 10;
/// A gap that goes on is not written again within this time, in milliseconds.
const QUIET_MS: i64 = 1000;

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
    /// A listen stream began; a store does not tell in it what happened before.
    StreamBegan,
    /// Kafka deleted records before they were read.
    RecordsExpired,
    /// Another process was the active one before, and what it was told is in its journal.
    TakenOver,
}

impl GapReason {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::JournalFull,
        Self::JournalDamaged,
        Self::UnusableEvent,
        Self::DeadLetter,
        Self::PrefixRemoved,
        Self::BucketEvent,
        Self::StreamBegan,
        Self::RecordsExpired,
        Self::TakenOver,
    ];

    /// The name used in metrics and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::JournalFull => "journal_full",
            Self::JournalDamaged => "journal_damaged",
            Self::UnusableEvent => "unusable_event",
            Self::DeadLetter => "dead_letter",
            Self::PrefixRemoved => "prefix_removed",
            Self::BucketEvent => "bucket_event",
            Self::StreamBegan => "stream_began",
            Self::RecordsExpired => "records_expired",
            Self::TakenOver => "taken_over",
        }
    }
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
pub struct GapBook {
    path: PathBuf,
    damaged: bool,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    slots: Slots,
    gaps: BTreeMap<String, Gap>,
    /// The gaps as the file has them.
    written: BTreeMap<String, Gap>,
}

impl GapBook {
    /// Opens or creates the book. Blocking.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, GapError> {
        let path = path.into();
        let (slots, held) =
            Slots::open(Arc::new(RealDisk), &path, SLOT).map_err(failed("open", &path))?;
        let read = held.value.as_deref().and_then(|json| serde_json::from_slice(json).ok());
        let damaged = !held.created && (!held.newest || read.is_none());
        let gaps: Vec<Gap> = read.unwrap_or_default();
        let gaps: BTreeMap<_, _> = gaps.into_iter().map(|gap| (gap.bucket.clone(), gap)).collect();
        let mut book = Book { slots, written: gaps.clone(), gaps };
        if damaged {
            warn!(path = %path.display(), "The gap book is damaged; reconcile all buckets.");
        }
        if !held.newest {
            // Twice: then both slots are known to be good, and no later loss of one goes unnoticed.
            let json = book.json();
            for _ in 0..2 {
                book.slots.store(&json).map_err(failed("write", &path))?;
            }
        }
        Ok(Self { path, damaged, book: Mutex::new(book) })
    }

    /// Whether gaps may have been lost on disk before this open, or a crash interrupted a write: all
    /// buckets must be reconciled.
    pub fn damaged(&self) -> bool {
        self.damaged
    }

    /// Records that events of `bucket` may have been missed at `at_ms`; merged into its gap if it has
    /// one. Blocking: one small write and sync, none if only count and time moved within a second.
    pub fn mark(&self, bucket: &str, reason: GapReason, at_ms: i64) -> Result<(), GapError> {
        let mut book = self.book();
        let new =
            || Gap { bucket: bucket.to_owned(), since_ms: at_ms, last_ms: at_ms, count: 0, reason };
        let gap = book.gaps.entry(bucket.to_owned()).or_insert_with(new);
        gap.since_ms = gap.since_ms.min(at_ms);
        gap.last_ms = gap.last_ms.max(at_ms);
        gap.count = gap.count.saturating_add(1);
        gap.reason = reason;
        let gap = gap.clone();
        let recent = book.written.get(bucket).is_some_and(|written| {
            written.since_ms == gap.since_ms
                && written.reason == gap.reason
                && gap.last_ms.saturating_sub(written.last_ms) < QUIET_MS
        });
        if recent { Ok(()) } else { self.write(&mut book, bucket) }
    }

    /// All gaps, by bucket name.
    pub fn list(&self) -> Vec<Gap> {
        self.book().gaps.values().cloned().collect()
    }

    /// The bucket was reconciled by a pass that began at `up_to_ms`: its gap goes, or shrinks to what
    /// was marked since. Blocking: one small write and sync.
    pub fn clear(&self, bucket: &str, up_to_ms: i64) -> Result<(), GapError> {
        let mut book = self.book();
        let Some(gap) = book.gaps.get_mut(bucket) else {
            return Ok(());
        };
        if gap.last_ms > up_to_ms {
            gap.since_ms = gap.since_ms.max(up_to_ms);
        } else {
            book.gaps.remove(bucket);
        }
        self.write(&mut book, bucket)
    }

    fn write(&self, book: &mut Book, bucket: &str) -> Result<(), GapError> {
        let json = book.json();
        if !book.slots.fits(json.len()) {
            return Err(GapError::NoRoom { bucket: bucket.to_owned() });
        }
        book.slots.store(&json).map_err(failed("write", &self.path))?;
        book.written = book.gaps.clone();
        Ok(())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic leaves the book whole: every change to it is complete in itself.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn json(&self) -> Vec<u8> {
        let gaps: Vec<&Gap> = self.gaps.values().collect();
        serde_json::to_vec(&gaps).unwrap_or_default()
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> GapError {
    let path = path.to_owned();
    move |source| GapError::Io { action, path, source: Arc::new(source) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn book() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gaps");
        (dir, path)
    }

    fn gap(bucket: &str, since_ms: i64, last_ms: i64, count: u64, reason: GapReason) -> Gap {
        Gap { bucket: bucket.to_owned(), since_ms, last_ms, count, reason }
    }

    #[test]
    fn a_gap_survives_a_restart_and_grows_by_merging() {
        let (_dir, path) = book();
        let gaps = GapBook::open(&path).unwrap();
        gaps.mark("b", GapReason::JournalFull, 1000).unwrap();
        gaps.mark("a", GapReason::DeadLetter, 1500).unwrap();
        gaps.mark("b", GapReason::JournalDamaged, 5000).unwrap();
        drop(gaps);
        let gaps = GapBook::open(&path).unwrap();
        assert!(!gaps.damaged());
        assert_eq!(
            gaps.list(),
            [
                gap("a", 1500, 1500, 1, GapReason::DeadLetter),
                gap("b", 1000, 5000, 2, GapReason::JournalDamaged),
            ]
        );
    }

    #[test]
    fn a_reason_has_the_same_name_on_disk_in_the_api_and_in_metrics() {
        for reason in GapReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        }
    }

    #[test]
    fn clearing_keeps_what_was_marked_after_the_pass_began() {
        let (_dir, path) = book();
        let gaps = GapBook::open(&path).unwrap();
        gaps.mark("b", GapReason::JournalFull, 1000).unwrap();
        gaps.mark("b", GapReason::JournalFull, 9000).unwrap();
        gaps.clear("b", 5000).unwrap();
        assert_eq!(gaps.list(), [gap("b", 5000, 9000, 2, GapReason::JournalFull)]);
        gaps.clear("b", 9000).unwrap();
        assert_eq!(GapBook::open(&path).unwrap().list(), []);
    }

    #[test]
    fn a_gap_that_goes_on_is_written_at_most_once_a_second() {
        let (_dir, path) = book();
        let gaps = GapBook::open(&path).unwrap();
        for at in 1000..2000 {
            gaps.mark("b", GapReason::JournalFull, at).unwrap();
        }
        assert_eq!(gaps.book().written["b"], gap("b", 1000, 1000, 1, GapReason::JournalFull));
        gaps.mark("b", GapReason::JournalFull, 2000).unwrap();
        assert_eq!(gaps.book().written["b"].count, 1001);
    }

    #[test]
    fn one_lost_sector_of_the_book_is_never_silent() {
        for slot in [0, SLOT as u64] {
            let (_dir, path) = book();
            let gaps = GapBook::open(&path).unwrap();
            gaps.mark("b", GapReason::JournalFull, 1000).unwrap();
            drop(gaps);
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[0; 512], slot).unwrap();
            let gaps = GapBook::open(&path).unwrap();
            assert!(gaps.damaged());
            drop(gaps);
            assert!(!GapBook::open(&path).unwrap().damaged(), "said once");
        }
    }

    #[test]
    fn marking_needs_no_more_disk_space() {
        let (_dir, path) = book();
        let gaps = GapBook::open(&path).unwrap();
        let blocks = || std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap());
        let before = blocks();
        for bucket in 0..500 {
            gaps.mark(&format!("bucket-{bucket}"), GapReason::JournalFull, 1000).unwrap();
        }
        assert_eq!(blocks(), before);
        assert_eq!(GapBook::open(&path).unwrap().list().len(), 500);
    }

    #[test]
    fn a_book_without_room_says_so_and_keeps_the_gap_in_memory() {
        let (_dir, path) = book();
        let gaps = GapBook::open(&path).unwrap();
        let bucket = "b".repeat(SLOT);
        let refused = gaps.mark(&bucket, GapReason::BucketEvent, 1);
        assert!(matches!(refused, Err(GapError::NoRoom { .. })));
        assert_eq!(gaps.list().len(), 1);
    }
}
