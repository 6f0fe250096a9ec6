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
use crate::dirty::{BucketNames, DirtyKey};
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
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                records = read(&self.queue, &mut self.cursor) => {
                    self.mark(records?, &mut names, &mut undecodable);
                }
                _ = trim.tick() => self.trim(),
                _ = tidy.tick() => self.tidy().await,
                _ = retry.tick() => self.retry_deferred().await,
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

    /// Takes the oldest set-aside keys back, however many are parked: those may fail for ever, and others
    /// are set aside in exchange, so every key has its turn.
    async fn retry_deferred(&self) {
        if self.deferred.counts().is_empty() {
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::settings::Durability;
    use crate::dirty::{Aspects, Origin};
    use crate::journal::JournalOptions;
    use crate::object::ObjectKey;
    use crate::shelf::open_journal;
    use crate::workqueue::Outcome;

    const KEYS: usize = 40;
    const ROOM: usize = 8;

    async fn journal(dir: std::path::PathBuf) -> (Journal, Cursor) {
        let (segment_size, max_size) = (1 << 20, 8 << 20);
        let options = JournalOptions { dir, segment_size, max_size, durability: Durability::Write };
        let (journal, cursor, _) = open_journal(options).await.unwrap();
        (journal, cursor)
    }

    /// Feeds a queue of eight keys from a journal of forty, and works until only
    /// the keys that fail for ever are left. Every other key fails once.
    async fn work_off(fail_for_ever: usize) {
        let dir = tempfile::tempdir().unwrap();
        let (journal, cursor) = journal(dir.path().join("journal")).await;
        let (deferred, _) = Shelf::open(dir.path().join("deferred"), 64 << 20).await.unwrap();
        let (deferred, queue) =
            (Arc::new(deferred), Arc::new(WorkQueue::new(ROOM, Duration::ZERO)));
        let key = |n: usize| ObjectKey::new("b", format!("k{n}"));
        let record = |n: usize| {
            let (aspects, origin) = (Aspects::CONTENT, Origin::Live);
            DirtyKey { key: key(n), aspects, origin, since_ms: 5, size: None }.encode()
        };
        journal.append((0..KEYS).map(record).collect()).await.unwrap();
        let position = Arc::new(AtomicU64::new(1));
        let feeder = Feeder {
            journal: journal.clone(),
            cursor,
            queue: Arc::clone(&queue),
            deferred: Arc::clone(&deferred),
            position: Arc::clone(&position),
            retry_deferred: Duration::from_mins(1),
        };
        let stop = CancellationToken::new();
        let feeding = tokio::spawn(feeder.run(stop.clone(), |lsn| panic!("record {lsn}")));

        let hopeless: HashSet<_> = (0..fail_for_ever).map(key).collect();
        let (mut failed, mut settled) = (HashSet::new(), HashSet::new());
        let unfinished = || {
            let unread = position.load(Ordering::Acquire) < journal.stats().next_lsn;
            unread || queue.counts().pending > 0 || !deferred.counts().is_empty()
        };
        for _ in 0..100_000 {
            if settled.len() + hopeless.len() == KEYS && (!hopeless.is_empty() || !unfinished()) {
                break;
            }
            // A key may come back from the shelf that was settled meanwhile, so the end is when nothing
            // is left, and the waiting must not be for a further key.
            let next = tokio::time::timeout(Duration::from_secs(1), queue.next_small());
            let Ok(work) = next.await else { continue };
            assert!(queue.counts().pending <= ROOM, "{:?}", queue.counts());
            let outcome = if failed.insert(work.key.clone()) || hopeless.contains(&work.key) {
                let after = Duration::from_secs(30);
                Outcome::Retry { after, class: "transient", reason: "down".into() }
            } else {
                settled.insert(work.key.clone());
                Outcome::Settled
            };
            queue.complete(&work, outcome);
        }
        stop.cancel();
        feeding.await.unwrap().unwrap();
        assert_eq!(settled.len() + hopeless.len(), KEYS, "{settled:?}");
        if hopeless.is_empty() {
            let stats = journal.stats();
            assert_eq!(stats.trimmed_lsn, stats.next_lsn, "nothing holds the log");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_backlog_larger_than_the_queue_that_fails_and_recovers_settles_to_the_last_key() {
        work_off(0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_were_set_aside_are_tried_again_although_others_fail_for_ever() {
        work_off(ROOM - 1).await;
    }
}
