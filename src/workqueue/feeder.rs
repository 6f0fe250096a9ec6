//! From the journal to the work queue, and back: reads what is durable, tells what is finished.
//!
//! Memory stays bounded however long the backlog: no more is read than the queue has room for, and
//! parked keys beyond half of that room are set aside on a shelf. The log is trimmed below the oldest
//! record that any key still needs; a key that waits long is appended again, so that it does not
//! hold the log. `tidy` is all that makes room.

mod tidy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::WorkQueue;
use super::aside::Discarded;
use crate::deletes::Hold;
use crate::dirty::{BucketNames, DirtyKey};
use crate::journal::{Cursor, Journal, JournalError, Lsn, Record};
use crate::shelf::Shelf;
pub use tidy::Failing;
use tidy::Tidy;

const READ: usize = 1_024;
const TRIM_EVERY: Duration = Duration::from_millis(200);
const TIDY_EVERY: Duration = Duration::from_secs(1);

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
    /// What becomes of a bucket with more failing keys than can be set aside; without it they all are kept,
    /// and fill the queue.
    pub failing: Option<Failing>,
    /// What a person decided about deletes: no decision is lost while records move.
    pub hold: Option<Hold>,
}

impl Feeder {
    /// Feeds until cancelled. Records that cannot be decoded are passed; the last one of
    /// those that were read together is reported to `undecodable`.
    pub async fn run(
        mut self,
        stop: CancellationToken,
        mut undecodable: impl FnMut(Lsn),
    ) -> Result<(), FeedError> {
        let mut trim = tokio::time::interval(TRIM_EVERY);
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        let mut retry = tokio::time::interval(self.retry_deferred);
        let mut names = BucketNames::default();
        if let Some(hold) = self.hold.clone() {
            let covers = move |bucket: &str, lsn| hold.covers(bucket, lsn);
            self.queue.set_discarded(Discarded::new(covers));
        }
        // Records that are lost are not read.
        self.position.store(self.cursor.position(), Ordering::Release);
        let mut tidying = Tidy::new(&mut self);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                records = read(&self.queue, &mut self.cursor) => {
                    self.mark(records?, &mut names, &mut undecodable);
                }
                _ = trim.tick() => self.trim(),
                _ = tidy.tick() => tidying.run(self.cursor.position()).await,
                _ = retry.tick() => tidying.retry_deferred().await,
            }
        }
        self.trim();
        Ok(())
    }

    fn mark(
        &self,
        records: Vec<Record>,
        names: &mut BucketNames,
        undecodable: &mut impl FnMut(Lsn),
    ) {
        let (mut failed, mut last) = (0_usize, None);
        for record in records {
            match DirtyKey::decode_sharing(&record.payload, names) {
                Ok(dirty) => self.queue.mark(&dirty, record.lsn),
                Err(error) => {
                    failed += 1;
                    last = Some((record.lsn, error));
                }
            }
        }
        // Once for all that were read together: another version's journal may hold millions.
        if let Some((lsn, error)) = last {
            tracing::error!(records = failed, lsn, %error, "Journal records cannot be understood; all buckets must be reconciled.");
            undecodable(lsn);
        }
        self.position.store(self.cursor.position(), Ordering::Release);
    }

    /// Only this task reads and trims, so no record is between the cursor and the queue here.
    fn trim(&self) {
        let below = self.queue.lowest_unfinished().unwrap_or(self.cursor.position());
        self.journal.trim(below.min(self.cursor.position()));
    }
}

/// Reads as much as there is room for. Cancel-safe, as the cursor is.
async fn read(queue: &WorkQueue, cursor: &mut Cursor) -> Result<Vec<Record>, JournalError> {
    let room = queue.room().await;
    cursor.next(room.min(READ)).await
}

#[cfg(test)]
mod tests;
