//! What the threads and the handles of one journal share.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tracing::error;

use super::entry::{OVERHEAD, record_size};
use super::recovery::Recovered;
use super::ring::Ring;
use super::segment::Segment;
use super::{
    AppendError, Claim, JournalError, JournalOptions, JournalStats, Lsn, MAX_PAYLOAD, Record,
};

/// How far the committer is.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// The last record that was written; not yet durable if it is behind the next one.
    pub(super) written: Lsn,
    /// The last durable record.
    pub(super) durable: Lsn,
    /// Set once, when nothing more will become durable.
    pub(super) ended: Option<JournalError>,
}

/// The shared state.
#[derive(Debug)]
pub(super) struct Shared {
    /// What was asked for.
    pub(super) options: JournalOptions,
    /// Records that recovery found to be lost; the cursor steps over them.
    holes: Vec<RangeInclusive<Lsn>>,
    progress: watch::Sender<Progress>,
    /// Set once, to the reason for which the journal failed for good. Apart from the progress, so that
    /// its watchers are not woken by every batch.
    failure: watch::Sender<Option<JournalError>>,
    stopped: watch::Sender<bool>,
    /// The trim point that is durable.
    stored_trim: watch::Sender<Lsn>,
    /// In order; the committer writes to the last one.
    segments: Mutex<VecDeque<Segment>>,
    ring: Mutex<Ring>,
    trim: AtomicU64,
    prepared_bytes: AtomicU64,
    reserve_bytes: AtomicU64,
    full: AtomicBool,
    syncs: AtomicU64,
    last_sync_ns: AtomicU64,
    /// The journal is closing: background work may be left.
    pub(super) closing: AtomicBool,
}

impl Shared {
    pub(super) fn new(recovered: &Recovered, options: JournalOptions) -> Self {
        let report = &recovered.report;
        let durable = report.next_lsn.saturating_sub(1);
        Self {
            options,
            holes: report.damage.iter().map(|damage| damage.missing.clone()).collect(),
            progress: watch::Sender::new(Progress { written: durable, durable, ended: None }),
            failure: watch::Sender::new(None),
            stopped: watch::Sender::new(false),
            stored_trim: watch::Sender::new(report.first_lsn),
            segments: Mutex::new(recovered.segments.iter().cloned().collect()),
            ring: Mutex::default(),
            trim: AtomicU64::new(report.first_lsn),
            prepared_bytes: AtomicU64::new(0),
            reserve_bytes: AtomicU64::new(0),
            full: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            last_sync_ns: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        }
    }

    /// The bytes on disk of an append that can be tried.
    pub(super) fn admit(&self, payloads: &[Vec<u8>]) -> Result<u64, AppendError> {
        let too_large = |bytes: u64, limit: u64| Err(AppendError::TooLarge { bytes, limit });
        if let Some(payload) = payloads.iter().find(|payload| payload.len() > MAX_PAYLOAD) {
            return too_large(payload.len() as u64, MAX_PAYLOAD as u64);
        }
        let size = payloads.iter().map(|payload| record_size(payload)).sum();
        let limit = self.append_limit();
        if size > limit { too_large(size, limit) } else { Ok(size) }
    }

    /// The most bytes of records that fit into one segment.
    pub(super) fn append_limit(&self) -> u64 {
        self.options.segment_size.saturating_sub(OVERHEAD)
    }

    /// How far the committer is now.
    pub(super) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// To wait for progress.
    pub(super) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Gives the cursor a batch that is written up to `end` bytes of the last segment.
    pub(super) fn show(&self, records: Vec<Record>, last: Lsn, end: u64) {
        if let Some(segment) = self.segments().back_mut() {
            segment.end = end;
        }
        {
            let mut ring = lock(&self.ring);
            for record in records {
                ring.push(record);
            }
        }
        self.progress.send_modify(|progress| progress.written = last);
    }

    /// Everything up to `last` is durable. Nobody waits for that but the callers, who are answered.
    pub(super) fn set_durable(&self, last: Lsn) {
        self.progress.send_if_modified(|progress| {
            progress.durable = last;
            false
        });
    }

    /// Counts a commit.
    pub(super) fn measure(&self, took: Duration) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.last_sync_ns.store(nanos, Ordering::Relaxed);
    }

    /// The cursor reads from disk only.
    pub(super) fn keep_none(&self) {
        lock(&self.ring).keep_none();
    }

    /// Takes records from memory; `None` if they are on disk only.
    pub(super) fn take(&self, position: Lsn, max: usize) -> Option<Vec<Record>> {
        lock(&self.ring).take(position, max)
    }

    /// The next record from `position` on that is neither finished nor known to be lost.
    pub(super) fn skip(&self, position: Lsn) -> Lsn {
        let mut position = position.max(self.trimmed());
        // Two may follow each other.
        while let Some(hole) = self.holes.iter().find(|hole| hole.contains(&position)) {
            position = hole.end().saturating_add(1);
        }
        position
    }

    /// The segments, locked.
    pub(super) fn segments(&self) -> MutexGuard<'_, VecDeque<Segment>> {
        lock(&self.segments)
    }

    /// The lowest unfinished record.
    pub(super) fn trimmed(&self) -> Lsn {
        self.trim.load(Ordering::Acquire)
    }

    /// Raises the trim point, to at most the next record.
    pub(super) fn trim(&self, below: Lsn) {
        let next = self.progress.borrow().durable.saturating_add(1);
        self.trim.fetch_max(below.min(next), Ordering::AcqRel);
    }

    /// This trim point is durable.
    pub(super) fn set_stored_trim(&self, trim: Lsn) {
        self.stored_trim.send_replace(trim);
    }

    /// Waits until the trim point of now is durable.
    pub(super) async fn trim_stored(&self) {
        let trim = self.trimmed();
        let mut stored = self.stored_trim.subscribe();
        // The sender lives as long as `self`.
        drop(stored.wait_for(|stored| *stored >= trim).await);
    }

    /// Says whether appends are being refused; returns whether they were before.
    pub(super) fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::Relaxed)
    }

    /// Whether appends are being refused.
    pub(super) fn full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// The most bytes on disk with which an append of this claim may begin another segment.
    pub(super) fn limit(&self, claim: Claim) -> u64 {
        let more = match claim {
            Claim::New => 0,
            Claim::Return => 1,
            Claim::Rewrite => 3,
        };
        self.options.max_size.saturating_add(self.options.segment_size.saturating_mul(more))
    }

    /// See [`super::Journal::oldest_segment_ends`].
    pub(super) fn oldest_segment_ends(&self) -> Option<Lsn> {
        let segments = self.segments();
        match (segments.get(1), segments.front()) {
            (Some(second), _) => Some(second.first_lsn),
            (None, Some(only)) if only.sealed => {
                Some(self.progress.borrow().durable.saturating_add(1))
            }
            _ => None,
        }
    }

    /// A new segment to write to; it was the prepared one.
    pub(super) fn push(&self, segment: Segment) {
        self.segments().push_back(segment);
        self.set_prepared(0);
    }

    /// The last segment is not written to any more.
    pub(super) fn seal(&self) {
        if let Some(segment) = self.segments().back_mut() {
            segment.sealed = true;
        }
    }

    /// Takes the segments out that hold finished records only.
    pub(super) fn take_finished(&self, trim: Lsn) -> Vec<Segment> {
        let next_lsn = self.progress.borrow().durable.saturating_add(1);
        let mut segments = self.segments();
        let behind = segments.iter().skip(1).map(|segment| (true, segment.first_lsn));
        let behind = behind.chain(segments.back().map(|last| (last.sealed, next_lsn)));
        let finished = behind.take_while(|(sealed, next)| *sealed && *next <= trim).count();
        segments.drain(..finished).collect()
    }

    /// The size of the segment that is prepared, 0 if none is.
    pub(super) fn set_prepared(&self, bytes: u64) {
        self.prepared_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether a segment is prepared.
    pub(super) fn has_prepared(&self) -> bool {
        self.prepared_bytes.load(Ordering::Relaxed) > 0
    }

    /// The size of the segment that is kept for a full disk, 0 if none is.
    pub(super) fn set_reserve(&self, bytes: u64) {
        self.reserve_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes in segments and in the prepared one: what counts against `max_size`.
    pub(super) fn bytes_in_use(&self) -> u64 {
        let prepared = self.prepared_bytes.load(Ordering::Relaxed);
        self.segments().iter().map(|segment| segment.size).sum::<u64>().saturating_add(prepared)
    }

    /// Bytes in all files.
    fn bytes_on_disk(&self) -> u64 {
        self.bytes_in_use().saturating_add(self.reserve_bytes.load(Ordering::Relaxed))
    }

    /// See [`super::Journal::stats`].
    pub(super) fn stats(&self) -> JournalStats {
        let durable_lsn = self.progress.borrow().durable;
        JournalStats {
            next_lsn: durable_lsn.saturating_add(1),
            durable_lsn,
            trimmed_lsn: self.trimmed(),
            bytes_on_disk: self.bytes_on_disk(),
            segments: self.segments().len(),
            syncs: self.syncs.load(Ordering::Relaxed),
            last_sync: Duration::from_nanos(self.last_sync_ns.load(Ordering::Relaxed)),
            full: self.full.load(Ordering::Relaxed),
        }
    }

    /// Nothing more will become durable; the first reason stands.
    pub(super) fn end(&self, reason: JournalError) {
        let failed = !matches!(reason, JournalError::Closed);
        let first = self.progress.send_if_modified(|progress| {
            let first = progress.ended.is_none();
            if first {
                progress.ended = Some(reason.clone());
            }
            first
        });
        if first && failed {
            error!(error = %reason, "The journal failed; nothing more is acknowledged.");
            self.failure.send_replace(Some(reason));
        }
    }

    /// Whether the journal failed for good.
    pub(super) fn poisoned(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// See [`super::Journal::failure`].
    pub(super) fn failure(&self) -> Option<JournalError> {
        self.failure.borrow().clone()
    }

    /// Why an append gets no answer any more.
    pub(super) fn ended(&self) -> AppendError {
        match self.progress().ended {
            None | Some(JournalError::Closed) => AppendError::Closed,
            Some(error) => AppendError::Poisoned(error),
        }
    }

    /// See [`super::Journal::failed`].
    pub(super) async fn failed(&self) -> JournalError {
        let mut watch = self.failure.subscribe();
        let failure = watch.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match failure {
            Some(error) => error,
            // The sender lives in `self`, so this is not reached; there is nothing to report.
            None => std::future::pending().await,
        }
    }

    /// The threads have ended and the directory is free.
    pub(super) fn set_stopped(&self) {
        self.stopped.send_replace(true);
    }

    /// Waits for [`Shared::set_stopped`].
    pub(super) async fn stopped(&self) {
        let mut watch = self.stopped.subscribe();
        drop(watch.wait_for(|stopped| *stopped).await);
    }

    /// The journal's directory.
    pub(super) fn dir(&self) -> &PathBuf {
        &self.options.dir
    }
}

/// A panicking thread leaves these values whole: every change to them is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
