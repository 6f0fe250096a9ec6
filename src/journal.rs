//! The durable queue: append → durable, read, trim, recover.
//!
//! **Promise.** What [`Journal::append`] answered `Ok` for is delivered by the [`Cursor`] of this
//! process or of any later one, in order, until [`Journal::trim`] says it is finished; or its loss is
//! named in [`Recovery::damage`]. One lost 512-byte sector is never silent. Nothing is delivered
//! that was not appended. A record may be delivered while its append still waits for the disk. After a
//! crash a record may be delivered again, and a record that was never acknowledged may be delivered.
//!
//! **On error.** A full disk refuses appends ([`AppendError::Full`]) until space returns. What makes
//! room again (a key appended again so that its old record can go) has a reserve of its own
//! ([`Claim`]), so a full journal never stays full for want of room. Any other
//! failed write, and any failed sync, poisons the journal for ever: the state of the disk is then
//! unknown, so nothing more is acknowledged and the process must exit ([`Journal::failed`]).
//! **On cancellation.** Every future may be dropped at any point. **On crash.** [`Journal::open`]
//! tells a torn tail (never acknowledged, cut off) from damage (reported, everything valid kept).
//!
//! Two threads do the work: the *committer* writes and syncs batches, *upkeep* prepares segments,
//! persists the trim point and removes finished segments. A checkpoint and the segments live in one
//! directory, locked against a second process.

mod checkpoint;
mod cursor;
pub(crate) mod disk;
mod entry;
#[cfg(test)]
mod model;
pub(crate) mod peek;
mod recovery;
mod ring;
mod segment;
mod shared;
pub(crate) mod slots;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod upkeep;
mod writer;

use std::fs::{File, OpenOptions, TryLockError};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use self::checkpoint::CheckpointFile;
pub use self::cursor::Cursor;
use self::disk::{Disk, Failure, RealDisk};
use self::shared::Shared;
use self::upkeep::Upkeep;
use self::writer::{Append, Request};
use crate::config::settings::Durability;

/// Log sequence number: the first record ever is 1; strictly increasing, never reused for other
/// acknowledged content.
pub type Lsn = u64;

/// The largest payload of one record, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;

/// A segment smaller than this would hold little but its own frames.
const MIN_SEGMENT_SIZE: u64 = 4 << 10;
/// Appends that wait for the committer; further ones wait for room.
const QUEUE: usize = 256;

/// Where and how the journal is kept.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Its directory; created if missing, used by nothing else.
    pub dir: PathBuf,
    /// The size of one segment file, in bytes; at most a quarter of `max_size` is used.
    pub segment_size: u64,
    /// The largest total size on disk, in bytes, beside the reserve; beyond it new records are refused (see
    /// [`Claim`]).
    pub max_size: u64,
    /// What must have happened before an append is answered.
    pub durability: Durability,
}

/// Whose records an append holds, and so how much of the journal's room it may use. Each may use what
/// those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// What comes from outside: up to `max_size`.
    New,
    /// Keys that come back from a shelf, because they are due or a person approved them: one segment
    /// more.
    Return,
    /// Records that take the place of older ones, which are trimmed afterwards: three segments more than
    /// `max_size`, and on a full disk a segment that was zero-filled in advance. That is always enough:
    /// moving what is left of the oldest segment takes no more room than that segment, and then it is
    /// removed.
    Rewrite,
}

/// One record, as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub lsn: Lsn,
    /// Its bytes.
    pub payload: Bytes,
}

/// What [`Journal::open`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The lowest unfinished record: the cursor starts here.
    pub first_lsn: Lsn,
    /// The number the next appended record gets.
    pub next_lsn: Lsn,
    /// An unacknowledged end of the last write before a crash, cut off. Normal after a crash.
    pub torn_tail: Option<TornTail>,
    /// Records that had been durable and are lost: their buckets must be reconciled.
    pub damage: Vec<Damage>,
    /// Records that can be read and not understood, as whoever opened the journal has counted them.
    pub undecodable: u64,
    /// Damaged segments that are kept in the directory for people to examine, from earlier times too.
    pub quarantined: usize,
}

/// Bytes of a write that never finished and was never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment that was cut.
    pub segment: PathBuf,
    /// How many bytes that held something were cut off.
    pub bytes: u64,
}

/// Durable records that cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment that should hold them.
    pub segment: PathBuf,
    /// Their numbers.
    pub missing: RangeInclusive<Lsn>,
    /// A second name of the segment that outlives trimming, for people to examine.
    pub quarantined: Option<PathBuf>,
}

/// The journal's state, for metrics and the status page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalStats {
    /// The number the next record gets.
    pub next_lsn: Lsn,
    /// The highest durable record; 0 when there never was one.
    pub durable_lsn: Lsn,
    /// The lowest unfinished record: everything below was trimmed.
    pub trimmed_lsn: Lsn,
    /// Bytes in segment files, with the prepared one and the reserve.
    pub bytes_on_disk: u64,
    /// Segment files that hold records.
    pub segments: usize,
    /// Batches committed since open.
    pub syncs: u64,
    /// How long the last commit took on disk (write and sync).
    pub last_sync: Duration,
    /// Appends are being refused for want of space; it ends by itself when there is space, whether or
    /// not anybody appends.
    pub full: bool,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FullReason {
    /// The file system has no space left.
    #[error("the disk is full")]
    DiskFull,
    /// `journal.max_size` is used up.
    #[error("the journal has reached journal.max_size")]
    MaxSize,
}

/// Why an append was not acknowledged. Its records may nevertheless be delivered, unless it is
/// `Full` or `TooLarge`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// No room; it works again by itself when there is.
    #[error("{0}; nothing is acknowledged until the backlog shrinks or space is freed")]
    Full(FullReason),
    /// The journal failed for good; the process must exit.
    #[error(transparent)]
    Poisoned(JournalError),
    /// [`Journal::close`] was called.
    #[error("the journal is closed")]
    Closed,
    /// A record is over [`MAX_PAYLOAD`] or the call's records do not fit into one segment.
    #[error("{bytes} bytes are more than the journal takes at once ({limit} bytes)")]
    TooLarge {
        /// What was asked for.
        bytes: u64,
        /// What is possible.
        limit: u64,
    },
}

/// The journal cannot be opened, read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error(
        "failed to {action} {}: {source}; data_dir must be a directory of this user on a healthy disk",
        path.display()
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// Another process holds the directory.
    #[error(
        "another process uses the journal in {}; stop it, or give this one its own data_dir",
        dir.display()
    )]
    InUse {
        /// The journal's directory.
        dir: PathBuf,
    },
    /// Records that were readable at open no longer are; a restart finds and reports them.
    #[error(
        "records {} to {} in {} can no longer be read; restart evermirror to recover what is \
         readable and check the disk",
        missing.start(), missing.end(), segment.display()
    )]
    Damaged {
        /// Where.
        segment: PathBuf,
        /// Which.
        missing: RangeInclusive<Lsn>,
    },
    /// [`Journal::close`] was called and everything was read.
    #[error("the journal is closed")]
    Closed,
}

impl JournalError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: Arc::new(source) }
    }
}

/// The durable queue's writing side; cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

impl Journal {
    /// Recovers what is on disk and starts the committer. Blocking: it reads the whole backlog once.
    ///
    /// Damaged content never makes it fail; a directory that another process uses, or that cannot be
    /// read or written, does. On a full disk it opens and refuses appends until space returns, so
    /// that the backlog can be worked off.
    pub fn open(options: JournalOptions) -> Result<(Self, Cursor, Recovery), JournalError> {
        Self::open_on(Arc::new(RealDisk), options)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        mut options: JournalOptions,
    ) -> Result<(Self, Cursor, Recovery), JournalError> {
        options.segment_size = options.segment_size.min(options.max_size / 4).max(MIN_SEGMENT_SIZE);
        let dir = options.dir.clone();
        std::fs::create_dir_all(&dir).map_err(JournalError::io("create", &dir))?;
        let lock = lock(&dir)?;
        let (mut checkpoint, stored) = CheckpointFile::open(Arc::clone(&disk), &dir)?;
        let recovered = recovery::recover(&dir, stored)?;
        // Twice: then both slots are known to be good, and no later loss of one goes unnoticed.
        for _ in 0..2 {
            match checkpoint.store(recovered.checkpoint()) {
                // Without room the older one stands, which is safe: more is replayed.
                Ok(()) | Err(Failure::Full(_)) => {}
                Err(Failure::Broken(error)) => return Err(error),
            }
        }

        let report = recovered.report.clone();
        let shared = Arc::new(Shared::new(&recovered, options));
        let reserve = recovered.reserve;
        let upkeep = Upkeep::new(Arc::clone(&shared), Arc::clone(&disk), checkpoint, lock, reserve);
        let (requests, received) = mpsc::channel(QUEUE);
        writer::start(Arc::clone(&shared), disk, upkeep, received, recovered.next_sequence)?;
        let cursor = Cursor::new(Arc::clone(&shared), report.first_lsn);
        Ok((Self { shared, requests }, cursor, report))
    }

    /// Makes `payloads` durable, as one unit of acknowledgement, and returns the last one's number.
    /// Waits for room in the queue to the committer. May be dropped at any point: the records may
    /// still become durable. No payloads: returns the last durable number at once.
    pub async fn append(&self, payloads: Vec<Vec<u8>>) -> Result<Lsn, AppendError> {
        self.append_as(Claim::New, payloads).await
    }

    /// The same for records that may use more of the journal's room than new ones.
    pub async fn append_as(
        &self,
        claim: Claim,
        payloads: Vec<Vec<u8>>,
    ) -> Result<Lsn, AppendError> {
        if payloads.is_empty() {
            return Ok(self.shared.progress().durable);
        }
        let size = self.shared.admit(&payloads)?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Append(Append { payloads, size, claim, answer });
        if self.requests.send(request).await.is_err() {
            return Err(self.shared.ended());
        }
        answered.await.unwrap_or_else(|_| Err(self.shared.ended()))
    }

    /// Everything below `below` is finished. Never blocks; persisted within about a second, and
    /// always before a segment is removed.
    pub fn trim(&self, below: Lsn) {
        self.shared.trim(below);
    }

    /// From now on no record is kept in memory for the cursor, which reads them from disk: for a journal that is read
    /// seldom, of which there may be many.
    pub fn keep_none_in_memory(&self) {
        self.shared.keep_none();
    }

    /// The first record behind the oldest segment: once all before it are finished, that segment is
    /// removed and gives its room back. `None` while there is no other segment.
    pub fn oldest_segment_ends(&self) -> Option<Lsn> {
        self.shared.oldest_segment_ends()
    }

    /// Waits until everything that was trimmed is so after a crash, too: about a second at most, on a disk that
    /// works. May be dropped at any point.
    pub async fn trim_stored(&self) {
        self.shared.trim_stored().await;
    }

    /// The state now.
    pub fn stats(&self) -> JournalStats {
        self.shared.stats()
    }

    /// Resolves when the journal is poisoned; the process must then exit non-zero.
    pub async fn failed(&self) -> JournalError {
        self.shared.failed().await
    }

    /// Why the journal is poisoned, if it is.
    pub fn failure(&self) -> Option<JournalError> {
        self.shared.failure()
    }

    /// Commits what was appended before, persists the trim point, stops the threads and gives the
    /// directory free; later appends are refused. Dropping every handle does the same, unawaited.
    pub async fn close(&self) {
        // An error means that the committer has already ended.
        drop(self.requests.send(Request::Close).await);
        self.shared.stopped().await;
    }
}

/// Takes the directory for this process; given free when the file is closed, so also by a crash.
fn lock(dir: &Path) -> Result<File, JournalError> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(JournalError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(JournalError::io("lock", &path)(error)),
    }
}
