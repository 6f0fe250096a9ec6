//! Gaps: times in which events of a bucket may have been missed; the bucket must be reconciled.
//!
//! **Promise.** A gap that [`GapBook::mark`] answered `Ok` for is in [`GapBook::list`] of this process
//! and any later one until it is cleared. It can be recorded on a full disk: the file has its full
//! size from the start. A pass clears only what was marked before it began, whatever the clock does: each
//! mark has a number ([`GapBook::generation`]), and times are only shown. **On error** the gap is kept in
//! memory and the next mark tries again. **On crash** in the middle of a write, the state before it stands;
//! a gap's last time and count may be up to a second old. A book that lost something on disk says so
//! ([`GapBook::damaged`]).
//!
//! Generations are not on disk: a pass ends with its process, so none is compared across a restart, and one
//! that goes on from the checkpoint of an earlier process clears nothing. Only writes wait for the disk:
//! [`GapBook::note`] and [`GapBook::list`] never do.

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
    /// A sender hung up before its notification was durable, or its body was late or broke off, or a listen stream
    /// was read so slowly that the store may have dropped some.
    NotTaken,
    /// Too many keys of the bucket failed to be remembered one by one.
    BucketFailing,
}

impl GapReason {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::JournalFull,
        Self::JournalDamaged,
        Self::UnusableEvent,
        Self::DeadLetter,
        Self::PrefixRemoved,
        Self::BucketEvent,
        Self::StreamBegan,
        Self::RecordsExpired,
        Self::TakenOver,
        Self::NotTaken,
        Self::BucketFailing,
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
            Self::NotTaken => "not_taken",
            Self::BucketFailing => "bucket_failing",
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

/// A moment between two marks: all gaps marked before it have this number or a lower one. Counted, because a
/// clock may be set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

/// The durable list of gaps; share it by `Arc`.
#[derive(Debug)]
pub struct GapBook {
    path: PathBuf,
    damaged: bool,
    /// Locked for moments only.
    marks: Mutex<Marks>,
    /// Locked while it is written; before `marks` where both are.
    file: Mutex<BookFile>,
}

#[derive(Debug, Default)]
struct Marks {
    /// By bucket, with the number of its last mark.
    gaps: BTreeMap<String, (Gap, Generation)>,
    /// The number of the last mark of all.
    last: u64,
}

#[derive(Debug)]
struct BookFile {
    slots: Slots,
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
        let read: Vec<Gap> = read.unwrap_or_default();
        let gaps: BTreeMap<_, _> = read.into_iter().map(|gap| (gap.bucket.clone(), gap)).collect();
        let mut file = BookFile { slots, written: gaps.clone() };
        if damaged {
            warn!(path = %path.display(), "The gap book is damaged; reconcile all buckets.");
        }
        if !held.newest {
            // Twice: then both slots are known to be good, and no later loss of one goes unnoticed.
            let json = json(&gaps);
            for _ in 0..2 {
                file.slots.store(&json).map_err(failed("write", &path))?;
            }
        }
        let gaps = gaps.into_iter().map(|(bucket, gap)| (bucket, (gap, Generation(0)))).collect();
        let marks = Marks { gaps, last: 0 };
        Ok(Self { path, damaged, marks: Mutex::new(marks), file: Mutex::new(file) })
    }

    /// Whether gaps may have been lost on disk before this open, or a crash interrupted a write: all
    /// buckets must be reconciled.
    pub fn damaged(&self) -> bool {
        self.damaged
    }

    /// Records that events of `bucket` may have been missed at `at_ms`; merged into its gap if it has
    /// one. Blocking: one small write and sync, none if only count and time moved within a second.
    pub fn mark(&self, bucket: &str, reason: GapReason, at_ms: i64) -> Result<(), GapError> {
        self.note(bucket, reason, at_ms);
        self.save(bucket)
    }

    /// The half of [`GapBook::mark`] that does not wait for the disk: from now on no pass that has begun
    /// clears this gap, and the next [`GapBook::save_all`] makes it durable.
    pub fn note(&self, bucket: &str, reason: GapReason, at_ms: i64) {
        let mut marks = self.marks();
        marks.last = marks.last.saturating_add(1);
        let generation = Generation(marks.last);
        let new = || {
            let bucket = bucket.to_owned();
            (Gap { bucket, since_ms: at_ms, last_ms: at_ms, count: 0, reason }, generation)
        };
        let (gap, marked) = marks.gaps.entry(bucket.to_owned()).or_insert_with(new);
        *marked = generation;
        gap.since_ms = gap.since_ms.min(at_ms);
        gap.last_ms = gap.last_ms.max(at_ms);
        gap.count = gap.count.saturating_add(1);
        gap.reason = reason;
    }

    /// Makes all that was noted durable. Blocking, like [`GapBook::mark`].
    pub fn save_all(&self) -> Result<(), GapError> {
        let mut file = self.file();
        let unsaved = {
            let marks = self.marks();
            let mut gaps = marks.gaps.values().map(|(gap, _)| gap);
            gaps.find(|gap| !file.has(gap)).map(|gap| gap.bucket.clone())
        };
        unsaved.map_or(Ok(()), |bucket| self.write(&mut file, &bucket))
    }

    fn save(&self, bucket: &str) -> Result<(), GapError> {
        let mut file = self.file();
        let saved = self.marks().gaps.get(bucket).is_none_or(|(gap, _)| file.has(gap));
        if saved { Ok(()) } else { self.write(&mut file, bucket) }
    }

    /// All gaps, by bucket name.
    pub fn list(&self) -> Vec<Gap> {
        self.marks().gaps.values().map(|(gap, _)| gap.clone()).collect()
    }

    /// Now, for [`GapBook::clear`]: to be noted before a pass asks a store for anything.
    pub fn generation(&self) -> Generation {
        Generation(self.marks().last)
    }

    /// The bucket was reconciled by a pass that began at `seen`, which was `began_ms` by the clock: its gap
    /// goes, unless it was marked again since; then it is shown from that time on. Blocking: one small write
    /// and sync.
    pub fn clear(&self, bucket: &str, seen: Generation, began_ms: i64) -> Result<(), GapError> {
        let mut file = self.file();
        {
            let mut marks = self.marks();
            match marks.gaps.get_mut(bucket) {
                Some((gap, marked)) if *marked > seen => {
                    gap.since_ms = gap.since_ms.max(began_ms).min(gap.last_ms);
                }
                Some(_) => drop(marks.gaps.remove(bucket)),
                None if file.written.contains_key(bucket) => {}
                None => return Ok(()),
            }
        }
        self.write(&mut file, bucket)
    }

    /// Writes all gaps as they are now; the file's lock makes each write newer than the one before.
    fn write(&self, file: &mut BookFile, bucket: &str) -> Result<(), GapError> {
        let gaps: BTreeMap<_, _> =
            self.marks().gaps.iter().map(|(name, (gap, _))| (name.clone(), gap.clone())).collect();
        let json = json(&gaps);
        if !file.slots.fits(json.len()) {
            return Err(GapError::NoRoom { bucket: bucket.to_owned() });
        }
        file.slots.store(&json).map_err(failed("write", &self.path))?;
        file.written = gaps;
        Ok(())
    }

    // A panic leaves both whole: every change to them is complete in itself.

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self) -> MutexGuard<'_, BookFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BookFile {
    /// Whether it says of the gap what matters: only count and time have moved since, within a second.
    fn has(&self, gap: &Gap) -> bool {
        self.written.get(&gap.bucket).is_some_and(|written| {
            written.since_ms == gap.since_ms
                && written.reason == gap.reason
                && gap.last_ms.saturating_sub(written.last_ms) < QUIET_MS
        })
    }
}

fn json(gaps: &BTreeMap<String, Gap>) -> Vec<u8> {
    let gaps: Vec<&Gap> = gaps.values().collect();
    serde_json::to_vec(&gaps).unwrap_or_default()
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
    fn a_pass_never_clears_a_gap_that_was_marked_while_it_ran_whatever_the_clock_does() {
        let (_dir, path) = book();
        let gaps = GapBook::open(&path).unwrap();
        // The clock stands still, steps back an hour, or goes on while the pass runs.
        for marked_ms in [5_000, 5_000 - 3_600_000, 9_000] {
            gaps.mark("b", GapReason::JournalFull, 1000).unwrap();
            let began = gaps.generation();
            gaps.mark("b", GapReason::JournalFull, marked_ms).unwrap();
            gaps.clear("b", began, 5000).unwrap();
            assert_eq!(gaps.list().len(), 1, "marked at {marked_ms}");
            let reopened = GapBook::open(&path).unwrap();
            assert_eq!(reopened.list(), gaps.list(), "durable, too");
            gaps.clear("b", gaps.generation(), i64::MIN).unwrap();
            assert_eq!(GapBook::open(&path).unwrap().list(), []);
        }
    }

    #[test]
    fn a_gap_of_an_earlier_process_is_cleared_by_the_first_pass() {
        let (_dir, path) = book();
        GapBook::open(&path).unwrap().mark("b", GapReason::JournalFull, i64::MAX).unwrap();
        let gaps = GapBook::open(&path).unwrap();
        let began = gaps.generation();
        gaps.mark("other", GapReason::JournalFull, 1).unwrap();
        gaps.clear("b", began, 0).unwrap();
        assert_eq!(gaps.list(), [gap("other", 1, 1, 1, GapReason::JournalFull)]);
    }

    #[test]
    fn a_gap_is_noted_and_listed_while_the_disk_is_stuck_and_is_durable_later() {
        let (_dir, path) = book();
        let gaps = GapBook::open(&path).unwrap();
        let began = gaps.generation();
        {
            // As a write that does not return holds it.
            let _stuck = gaps.file();
            gaps.note("b", GapReason::JournalFull, 7);
            assert_eq!(gaps.list(), [gap("b", 7, 7, 1, GapReason::JournalFull)]);
            assert!(gaps.generation() > began);
        }
        gaps.save_all().unwrap();
        assert_eq!(GapBook::open(&path).unwrap().list(), gaps.list());
    }

    #[test]
    fn what_is_left_of_a_gap_is_shown_from_the_beginning_of_the_pass() {
        let (_dir, path) = book();
        let gaps = GapBook::open(&path).unwrap();
        gaps.mark("b", GapReason::JournalFull, 1000).unwrap();
        let began = gaps.generation();
        gaps.mark("b", GapReason::JournalFull, 9000).unwrap();
        gaps.clear("b", began, 5000).unwrap();
        assert_eq!(gaps.list(), [gap("b", 5000, 9000, 2, GapReason::JournalFull)]);
    }

    #[test]
    fn a_gap_that_goes_on_is_written_at_most_once_a_second() {
        let (_dir, path) = book();
        let gaps = GapBook::open(&path).unwrap();
        for at in 1000..2000 {
            gaps.mark("b", GapReason::JournalFull, at).unwrap();
        }
        assert_eq!(gaps.file().written["b"], gap("b", 1000, 1000, 1, GapReason::JournalFull));
        gaps.mark("b", GapReason::JournalFull, 2000).unwrap();
        assert_eq!(gaps.file().written["b"].count, 1001);
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
