//! From the local journal to the topic: in place of the feeder when Kafka is the journal.
//!
//! Repairs, delayed deletes that are due and approved deletes are appended to the local journal as
//! ever. From there they go to the topic, so that the process that has their partition works on them, and
//! leave the journal when the brokers have them. **On crash** what was not sent is sent at the next start,
//! some of it twice. **If the disk is lost** with them, the next reconcile finds them again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::monitor::ConsumerLag;
use super::router::Router;
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::journal::{Cursor, Journal, JournalError, Lsn};

/// Records sent together.
const SEND: usize = 256;
/// How long until a large backlog is looked at again.
const POLL: Duration = Duration::from_millis(200);

/// What sends them.
#[derive(Debug)]
pub struct Outbox {
    pub(super) router: Arc<Router>,
    pub(super) lag: Arc<ConsumerLag>,
    /// More unread records than this in our partitions, and repairs wait: events go first. Keys are
    /// spread evenly, so our partitions tell of all.
    pub(super) most_unread: u64,
}

impl Outbox {
    /// Sends until cancelled; `position` is told the first record that was not sent. Records that cannot be
    /// decoded are passed and reported to `undecodable`.
    pub async fn run(
        self,
        journal: Journal,
        mut cursor: Cursor,
        position: Arc<AtomicU64>,
        stop: CancellationToken,
        mut undecodable: impl FnMut(Lsn),
    ) -> Result<(), JournalError> {
        let sending = async {
            loop {
                let records = cursor.next(SEND).await?;
                while self.lag.unread() > self.most_unread {
                    tokio::time::sleep(POLL).await;
                }
                let mut keys = Vec::new();
                for record in records {
                    match DirtyKey::decode(&record.payload) {
                        Ok(dirty) => keys.push(looked_at_first(dirty)),
                        Err(_) => undecodable(record.lsn),
                    }
                }
                join_all(keys.iter().map(|dirty| self.router.send(dirty))).await;
                journal.trim(cursor.position());
                position.store(cursor.position(), Ordering::Release);
            }
        };
        stop.run_until_cancelled(sending).await.unwrap_or(Ok(()))
    }
}

/// A repair waits in the topic behind events, which may have been of the same key: by its turn the two
/// sides probably agree.
fn looked_at_first(dirty: DirtyKey) -> DirtyKey {
    match dirty.origin {
        Origin::Repair => DirtyKey { aspects: dirty.aspects.with(Aspects::CHECK), ..dirty },
        Origin::Live | Origin::LiveAgain => dirty,
    }
}
