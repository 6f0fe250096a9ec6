//! The replicator of `run`, for work that ends: `sync` feeds it from a journal, `restore` from a listing.
//!
//! **Promise.** A key that fails is tried [`TRIES`] times, and one that only a person can mend is given
//! up at once; the others go on. A store that is away for [`PATIENCE`] ends the work with an error, and so do
//! buckets that fail as a whole for so long, once there is nothing else to do. What becomes of unfinished work on an error, on cancellation and on a crash is for the feed to say.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Settings;
use crate::metrics::{Metrics, Totals};
use crate::replicate::{Direction, Replicator, Unhealthy};
use crate::stores::Stores;
use crate::workqueue::{ParkedKey, WorkQueue};

/// Failed tries of one key before it is given up: with the waits between them about half a minute.
const TRIES: u32 = 6;
/// The longest wait between two of them.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// How long a store may be away, or a bucket fail as a whole.
const PATIENCE: Duration = Duration::from_mins(2);

/// Why it is no use to wait on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A store did not come back.
    #[error(
        "the {store} has not answered for {} s; the rest is left for the next time: {why}",
        PATIENCE.as_secs()
    )]
    Away {
        /// Which of the two.
        store: &'static str,
        /// Its last error.
        why: String,
    },
    /// All that is left belongs to buckets that fail.
    #[error(
        "every request for bucket {bucket:?} has failed for {} s, and nothing else is left to do; its rest is \
         left for the next time: {why}",
        PATIENCE.as_secs()
    )]
    BucketFails {
        /// The first of them, by the name of the bucket that is read.
        bucket: Arc<str>,
        /// Its last error.
        why: Arc<str>,
    },
    /// Something that must not happen.
    #[error("a part of it panicked; please report the panic above")]
    Panicked,
}

/// A queue and the replicator that works it off.
#[derive(Debug)]
pub(crate) struct Engine {
    /// What is to be done.
    pub(crate) queue: Arc<WorkQueue>,
    /// What was done.
    pub(crate) metrics: Metrics,
    replicator: Replicator,
    drain_timeout: Duration,
    /// What the configuration calls the store that is read, and the one that is written.
    names: [&'static str; 2],
}

impl Engine {
    /// Begins to work on what is put into the queue; a person waits, so no key waits long for its next
    /// try. An error is one of `data_dir/uploads`.
    pub(crate) async fn start(
        mut settings: Settings,
        stores: Stores,
        direction: Direction,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let replicate = &mut settings.replicate;
        replicate.retry_max = replicate.retry_max.min(LONGEST_WAIT);
        replicate.retry_initial = replicate.retry_initial.min(replicate.retry_max);
        let drain_timeout = replicate.drain_timeout;
        let names = match direction {
            Direction::Forth(..) => ["source", "target"],
            Direction::Back => ["target", "destination"],
        };
        let queue = Arc::new(WorkQueue::new(replicate.max_pending_keys, replicate.min_interval));
        let counts = metrics.clone();
        let replicator =
            Replicator::start(&settings, stores, Arc::clone(&queue), direction, counts).await?;
        Ok(Self { queue, metrics, replicator, drain_timeout, names })
    }

    /// Whether it is any use to wait on.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.replicator.has_panicked() {
            return Err(EngineError::Panicked);
        }
        let (source, target) = self.replicator.stores();
        for (store, state) in self.names.into_iter().zip([source, target]) {
            if !state.up && state.lasting > PATIENCE {
                return Err(EngineError::Away { store, why: state.last_error.unwrap_or_default() });
            }
        }
        let waiting = self.queue.by_bucket().into_iter().filter(|(_, counts)| counts.pending > 0);
        let waiting = waiting.map(|(bucket, _)| {
            let unhealthy = self.replicator.unhealthy(&bucket);
            (bucket, unhealthy)
        });
        match all_fail(waiting) {
            Some((bucket, why)) => Err(EngineError::BucketFails { bucket, why }),
            None => Ok(()),
        }
    }

    /// The keys that are left, if all of them are given up; else nothing, since some are still worked on.
    pub(crate) fn left(&self) -> Option<Vec<ParkedKey>> {
        let counts = self.queue.counts();
        if counts.pending != counts.parked {
            return None;
        }
        let parked = self.failing();
        (parked.len() == counts.parked && parked.iter().all(given_up)).then_some(parked)
    }

    /// Keys that failed when they were last tried.
    pub(crate) fn failing(&self) -> Vec<ParkedKey> {
        self.queue.parked(usize::MAX)
    }

    /// What was done so far.
    pub(crate) fn totals(&self) -> Totals {
        self.metrics.totals()
    }

    /// Takes no further key, and waits for those in flight as long as `drain_timeout` says.
    pub(crate) async fn drain(&self) {
        if tokio::time::timeout(self.drain_timeout, self.replicator.drain()).await.is_err() {
            tracing::warn!("Work in flight was cut off; it is done when the same command goes on.");
        }
    }
}

/// Whether a parked key is not worth a further wait.
fn given_up(key: &ParkedKey) -> bool {
    matches!(key.class, "denied" | "invalid" | "no_such_bucket") || key.attempts >= TRIES
}

/// The first of the buckets with work left, and its last error, if each has failed for longer than [`PATIENCE`].
fn all_fail(
    waiting: impl Iterator<Item = (Arc<str>, Option<Unhealthy>)>,
) -> Option<(Arc<str>, Arc<str>)> {
    let mut first = None;
    for (bucket, unhealthy) in waiting {
        let failing = unhealthy.filter(|unhealthy| unhealthy.lasting > PATIENCE)?;
        first.get_or_insert((bucket, failing.reason));
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectKey;

    fn parked(class: &'static str, attempts: u32) -> ParkedKey {
        let (reason, next_try) = ("why".into(), Duration::ZERO);
        ParkedKey { key: ObjectKey::new("b", "k"), class, reason, attempts, next_try }
    }

    #[test]
    fn a_key_is_given_up_when_only_a_person_can_help_or_after_enough_tries() {
        assert!(given_up(&parked("denied", 1)));
        assert!(!given_up(&parked("transient", TRIES - 1)));
        assert!(given_up(&parked("transient", TRIES)));
        assert!(!given_up(&parked("corrupt", 1)), "a second copy may be whole");
    }

    #[test]
    fn buckets_that_fail_end_the_work_once_nothing_else_is_left() {
        let bucket = |name: &str, seconds| {
            let lasting = Duration::from_secs(seconds);
            (name.into(), Some(Unhealthy { reason: format!("{name} is full").into(), lasting }))
        };
        assert_eq!(all_fail([].into_iter()), None);
        assert_eq!(all_fail([bucket("a", 121), ("b".into(), None)].into_iter()), None);
        assert_eq!(all_fail([bucket("a", 121), bucket("b", 9)].into_iter()), None);
        let all = all_fail([bucket("a", 121), bucket("b", 130)].into_iter());
        assert_eq!(all, Some(("a".into(), "a is full".into())));
    }
}
