//! From the journal to the work queue, and back: reads what is durable, tells what is finished.
//!
//! Memory stays bounded however long the backlog: no more is read than the queue has room for, and
//! parked keys beyond half of that room are set aside on a shelf. The log is trimmed below the oldest
//! record that any key still needs; a key that waits long is appended again, so that it does not
//! hold the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::WorkQueue;
use crate::dirty::DirtyKey;
use crate::journal::{AppendError, Cursor, Journal, JournalError, Lsn, Record};
use crate::shelf::{Shelf, ShelfError, Taken};

const READ: usize = 1_024;
/// Appended again at once; keys of any length fit into the smallest segment.
const AGAIN: usize = 256;
const TRIM_EVERY: Duration = Duration::from_millis(200);
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// A waiting key whose record lies this far behind the cursor, and as far as twice what the queue
/// holds, is appended again. Less would have a full queue append itself again for ever.
const HOLDS_THE_LOG: Lsn = 50_000;

/// Why feeding ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Feeds one work queue from one journal.
#[derive(Debug)]
pub struct Feeder {
    /// Where finished work is told and waiting keys are appended again.
    pub journal: Journal,
    /// Where records come from.
    pub cursor: Cursor,
    /// Where they go.
    pub queue: Arc<WorkQueue>,
    /// Where parked keys beyond half of the queue's room are set aside.
    pub deferred: Arc<Shelf>,
    /// Told the number of the next record to be read: all before it are in the queue.
    pub position: Arc<AtomicU64>,
    /// How often set-aside keys are tried again.
    pub retry_deferred: Duration,
}

impl Feeder {
    /// Feeds until cancelled. A record that cannot be decoded is reported to `undecodable` and passed.
    pub async fn run(
        mut self,
        stop: CancellationToken,
        mut undecodable: impl FnMut(Lsn),
    ) -> Result<(), FeedError> {
        let mut trim = tokio::time::interval(TRIM_EVERY);
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        let mut retry = tokio::time::interval(self.retry_deferred);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                records = read(&self.queue, &mut self.cursor) => self.mark(records?, &mut undecodable),
                _ = trim.tick() => self.trim(),
                _ = tidy.tick() => self.tidy().await,
                _ = retry.tick() => self.retry_deferred().await,
            }
        }
        self.trim();
        Ok(())
    }

    fn mark(&self, records: Vec<Record>, undecodable: &mut impl FnMut(Lsn)) {
        for record in records {
            match DirtyKey::decode(&record.payload) {
                Ok(dirty) => self.queue.mark(&dirty, record.lsn),
                Err(error) => {
                    tracing::error!(lsn = record.lsn, %error, "A journal record cannot be understood; all buckets must be reconciled.");
                    undecodable(record.lsn);
                }
            }
        }
        self.position.store(self.cursor.position(), Ordering::Release);
    }

    /// Only this task reads and trims, so no record is between the cursor and the queue here.
    fn trim(&self) {
        let below = self.queue.lowest_unfinished().unwrap_or(self.cursor.position());
        self.journal.trim(below.min(self.cursor.position()));
    }

    /// Keeps waiting keys from holding the log, and from filling the queue. What fails here is tried
    /// again a second later.
    async fn tidy(&self) {
        if let Err(error) = self.append_again().await {
            tracing::debug!(%error, "Waiting keys could not be appended again now.");
        }
        if let Err(error) = self.set_aside().await {
            tracing::debug!(%error, "Parked keys could not be set aside now.");
        }
    }

    async fn append_again(&self) -> Result<(), AppendError> {
        let far = HOLDS_THE_LOG.max(2 * self.queue.max_keys() as Lsn);
        let holding = self.queue.holding_below(self.cursor.position().saturating_sub(far), AGAIN);
        if holding.is_empty() {
            return Ok(());
        }
        let last = self.journal.append(holding.iter().map(DirtyKey::encode).collect()).await?;
        let first = last + 1 - holding.len() as Lsn;
        for (dirty, lsn) in holding.iter().zip(first..) {
            self.queue.rebase(&dirty.key, lsn);
        }
        Ok(())
    }

    async fn set_aside(&self) -> Result<(), AppendError> {
        let parked = self.queue.counts().parked;
        let excess = parked.saturating_sub(self.queue.max_keys() / 2);
        if excess == 0 {
            return Ok(());
        }
        let keys = self.queue.parked_work(excess.min(10 * READ));
        self.deferred.put(&keys).await?;
        tracing::warn!(
            keys = keys.len(),
            parked,
            "Many keys are parked; some were set aside on disk and will be tried again later."
        );
        for dirty in &keys {
            self.queue.forget_parked(&dirty.key);
        }
        Ok(())
    }

    async fn retry_deferred(&self) {
        if self.deferred.counts().is_empty()
            || self.queue.counts().parked > self.queue.max_keys() / 4
        {
            return;
        }
        let room = self.queue.max_keys() as u64 / 4;
        match self.deferred.drain(&self.journal, room, Taken::Back).await {
            Ok(keys) => tracing::info!(keys, "Keys that were set aside are tried again."),
            Err(ShelfError::Read(error)) => {
                tracing::error!(%error, "Keys that were set aside cannot be read; reconcile all buckets.");
            }
            Err(error @ ShelfError::Append(_)) => {
                tracing::warn!(%error, "Keys that were set aside could not be taken back now.");
            }
        }
    }
}

/// Reads as much as there is room for. Cancel-safe, as the cursor is.
async fn read(queue: &WorkQueue, cursor: &mut Cursor) -> Result<Vec<Record>, JournalError> {
    let room = queue.room().await;
    cursor.next(room.min(READ)).await
}
