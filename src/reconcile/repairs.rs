//! The way of differences into the journal: in batches, and held back while the backlog is large.
//!
//! Repairs take the same door as events, behind them. They may wait; what a listing found yesterday
//! is found again tomorrow. On cancellation a batch is lost, or durable twice, which is harmless.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::journal::{AppendError, Journal};
use crate::object::ObjectKey;
use crate::workqueue::WorkQueue;

/// So few that keys of any length fit into the smallest segment a journal can be given.
pub(super) const PAGE: usize = 256;
/// How long until the backlog, or the room on disk, is looked at again.
const POLL: Duration = Duration::from_millis(100);

/// Marks keys of one bucket dirty.
#[derive(Debug)]
pub(super) struct Repairs<'a> {
    pub(super) journal: &'a Journal,
    pub(super) queue: &'a WorkQueue,
    /// The first durable record that the feeder has not read yet.
    pub(super) position: &'a AtomicU64,
    /// Half of what may be in memory at once: the other half is left to events.
    pub(super) most_pending: u64,
    pub(super) bucket: Arc<str>,
    pub(super) batch: Vec<DirtyKey>,
}

impl Repairs<'_> {
    /// Marks a key that may have changed at `since_ms`, to so many bytes; durable after [`Repairs::flush`].
    pub(super) async fn push(
        &mut self,
        key: &str,
        aspects: Aspects,
        since_ms: i64,
        size: Option<u64>,
    ) -> Result<(), AppendError> {
        self.batch.push(repair(&self.bucket, key, aspects, since_ms, size));
        if self.batch.len() >= PAGE { self.flush().await } else { Ok(()) }
    }

    /// A bucket that fails as a whole keeps no other from being repaired, but waits for itself.
    fn backlog(&self) -> u64 {
        unread(self.journal, self.position) + self.queue.waiting(Some(&self.bucket)) as u64
    }

    /// Makes all that was pushed durable.
    pub(super) async fn flush(&mut self) -> Result<(), AppendError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        while self.backlog() > self.most_pending {
            tokio::time::sleep(POLL).await;
        }
        loop {
            match self.journal.append(self.batch.iter().map(DirtyKey::encode).collect()).await {
                // It shrinks as keys are settled; the bucket has a gap if events were refused.
                Err(AppendError::Full(_)) => tokio::time::sleep(POLL).await,
                done => {
                    self.batch.clear();
                    return done.map(|_| ());
                }
            }
        }
    }
}

/// What waits to be worked on; `position` is the first durable record that is not in the queue yet. Stuck
/// keys do not count ([`WorkQueue::waiting`]): they may be stuck for days.
pub(super) fn backlog(journal: &Journal, queue: &WorkQueue, position: &AtomicU64) -> u64 {
    unread(journal, position) + queue.waiting(None) as u64
}

fn unread(journal: &Journal, position: &AtomicU64) -> u64 {
    journal.stats().next_lsn.saturating_sub(position.load(Ordering::Acquire))
}

/// A key that the reconciler found.
pub(super) fn repair(
    bucket: &Arc<str>,
    key: &str,
    aspects: Aspects,
    since_ms: i64,
    size: Option<u64>,
) -> DirtyKey {
    let key = ObjectKey::new(Arc::clone(bucket), key);
    DirtyKey { key, aspects, origin: Origin::Repair, since_ms, size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Durability;
    use crate::journal::JournalOptions;

    #[tokio::test]
    async fn repairs_wait_while_the_backlog_is_large_and_go_on_when_it_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let options = JournalOptions {
            dir: dir.path().to_owned(),
            segment_size: 1 << 20,
            max_size: 8 << 20,
            durability: Durability::Write,
        };
        let (journal, ..) = Journal::open(options).unwrap();
        let queue = WorkQueue::new(1_000, Duration::ZERO);
        let position = AtomicU64::new(journal.stats().next_lsn);
        let mut repairs = Repairs {
            journal: &journal,
            queue: &queue,
            position: &position,
            most_pending: 2 * PAGE as u64,
            bucket: "b".into(),
            batch: Vec::new(),
        };
        let appended = || journal.stats().durable_lsn;
        for number in 0..3 * PAGE {
            repairs.push(&number.to_string(), Aspects::CONTENT, 7, Some(9)).await.unwrap();
        }
        assert_eq!(appended(), 3 * PAGE as u64);
        repairs.push("one more", Aspects::CONTENT, 7, Some(9)).await.unwrap();
        {
            let flush = repairs.flush();
            tokio::pin!(flush);
            let waiting = tokio::time::timeout(POLL * 2, &mut flush).await;
            assert!(waiting.is_err() && appended() == 3 * PAGE as u64);
            position.store(journal.stats().next_lsn, Ordering::Release);
            flush.await.unwrap();
        }
        assert_eq!(appended(), 3 * PAGE as u64 + 1);
        journal.close().await;
    }

    #[tokio::test]
    async fn a_bucket_that_hangs_keeps_no_other_from_being_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let options = JournalOptions {
            dir: dir.path().to_owned(),
            segment_size: 1 << 20,
            max_size: 8 << 20,
            durability: Durability::Write,
        };
        let (journal, ..) = Journal::open(options).unwrap();
        let queue = WorkQueue::new(1_000, Duration::ZERO);
        let position = AtomicU64::new(u64::MAX);
        let repairs = |bucket: &str| Repairs {
            journal: &journal,
            queue: &queue,
            position: &position,
            most_pending: 500,
            bucket: bucket.into(),
            batch: Vec::new(),
        };
        let hangs: Arc<str> = "hangs".into();
        for number in 0..600 {
            let key = number.to_string();
            queue.mark(&repair(&hangs, &key, Aspects::CONTENT, 7, None), number + 1);
        }
        assert_eq!(repairs("well").backlog(), 600, "they may be worked on in a moment");
        queue.set_failing(&hangs, true);
        assert_eq!((repairs("well").backlog(), repairs("hangs").backlog()), (0, 600));
        journal.close().await;
    }
}
