//! The pipeline of `run` behind its journal, for work that ends: no intake, no pages.
//!
//! Promise: what [`Engine::append`] has taken is done, or counted as failed, when [`Engine::finish`]
//! returns; killed before that, the next engine on the same directory goes on with it. A key that fails
//! is tried again [`TRIES`] times, and one that only a person can mend is given up at once; both stay in
//! the journal. A store that is away for [`PATIENCE`] ends the work with an error.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::Settings;
use crate::config::settings::Durability;
use crate::config::units::ByteSize;
use crate::dirty::DirtyKey;
use crate::journal::{AppendError, Journal};
use crate::metrics::Metrics;
use crate::pipeline::recover;
use crate::reconcile::Remembered;
use crate::replicate::{HeldDeletes, Hold, Replicator, StoreState, Stores};
use crate::shelf::Shelf;
use crate::workqueue::feeder::{FeedError, Feeder};
use crate::workqueue::{ParkedKey, WorkQueue};

/// Failed tries of one key before it is given up: with the waits between them about half a minute.
const TRIES: u32 = 6;
/// The longest wait between two of them.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// How long a store may be away.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// How long to wait for room in the journal, which is being worked off.
const ROOM: Duration = Duration::from_millis(200);
/// Nothing but backlog is in this journal, and the comparison finds it again.
const SEGMENT: u64 = 8 << 20;

/// Journal, queue and replicator, at work.
#[derive(Debug)]
pub(super) struct Engine {
    settings: Settings,
    pub(super) journal: Journal,
    pub(super) metrics: Metrics,
    pub(super) remembered: Arc<Remembered>,
    queue: Arc<WorkQueue>,
    hold: Hold,
    deferred: Arc<Shelf>,
    position: Arc<AtomicU64>,
    replicator: Replicator,
    stop: CancellationToken,
    feeding: JoinHandle<Result<(), FeedError>>,
    _lock: File,
}

impl Engine {
    /// Opens the state in `settings.data_dir` and begins to work on what it holds.
    pub(super) async fn start(mut settings: Settings, stores: Stores) -> anyhow::Result<Self> {
        settings.replicate.retry_max = settings.replicate.retry_max.min(LONGEST_WAIT);
        settings.replicate.retry_initial =
            settings.replicate.retry_initial.min(settings.replicate.retry_max);
        settings.journal.durability = Durability::Write;
        settings.journal.segment_size = ByteSize(settings.journal.segment_size.0.min(SEGMENT));
        let metrics = Metrics::new();
        let lock = begin_afresh(&settings.data_dir)?;
        let (state, cursor) = recover::open(&settings, &metrics).await?;
        let recover::State { journal, held, discards, delays, deferred, remembered, .. } = state;
        let stop = CancellationToken::new();
        let hold = Hold::new(&settings.deletes, held, discards, Arc::clone(&remembered));
        let replicate = &settings.replicate;
        let queue = Arc::new(WorkQueue::new(replicate.max_pending_keys, replicate.min_interval));
        let position = Arc::new(AtomicU64::new(journal.stats().trimmed_lsn));
        let feeder = Feeder {
            journal: journal.clone(),
            cursor,
            queue: Arc::clone(&queue),
            deferred: Arc::clone(&deferred),
            position: Arc::clone(&position),
            retry_deferred: replicate.retry_max,
        };
        // What cannot be decoded here the comparison finds again.
        let feeding = tokio::spawn(feeder.run(stop.clone(), |_| {}));
        let brakes = (hold.clone(), Arc::new(delays));
        let replicator =
            Replicator::start(&settings, stores, Arc::clone(&queue), brakes, metrics.clone())
                .await
                .with_context(|| {
                    format!("failed to use {}/uploads", settings.data_dir.display())
                })?;
        Ok(Self {
            settings,
            journal,
            metrics,
            remembered,
            queue,
            hold,
            deferred,
            position,
            replicator,
            stop,
            feeding,
            _lock: lock,
        })
    }

    /// Makes keys durable and has them worked on; waits while the journal is full.
    pub(super) async fn append(&self, keys: &[DirtyKey]) -> anyhow::Result<()> {
        loop {
            match self.journal.append(keys.iter().map(DirtyKey::encode).collect()).await {
                Ok(_) => return Ok(()),
                Err(AppendError::Full(_)) => {
                    self.check()?;
                    tokio::time::sleep(ROOM).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until every key is settled or given up.
    pub(super) async fn finish(&self) -> anyhow::Result<()> {
        loop {
            self.check()?;
            // In this order a record may be counted twice, but is never missed.
            let unread = self.position.load(Ordering::Acquire) < self.journal.stats().next_lsn;
            let counts = self.queue.counts();
            let set_aside = !self.deferred.counts().is_empty();
            if !unread && counts.pending == counts.parked {
                let parked = self.queue.parked(usize::MAX);
                let hopeless = parked.iter().all(given_up);
                // What is set aside had failed, too, and waits for its turn behind these.
                if parked.len() == counts.parked && hopeless && !(parked.is_empty() && set_aside) {
                    return Ok(());
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Keys that failed when they were last tried.
    pub(super) fn failing(&self) -> Vec<ParkedKey> {
        self.queue.parked(usize::MAX)
    }

    /// Deletes that the brake has held in this run.
    pub(super) fn held(&self) -> Vec<HeldDeletes> {
        self.hold.list()
    }

    /// Keys that failed and were set aside on disk beside the parked ones.
    pub(super) fn set_aside(&self) -> u64 {
        self.deferred.counts().values().sum()
    }

    /// Ends in good order: work in flight is finished within `drain_timeout`, the rest is in the journal.
    pub(super) async fn stop(self) {
        let limit = self.settings.replicate.drain_timeout;
        if tokio::time::timeout(limit, self.replicator.drain()).await.is_err() {
            tracing::warn!(
                "Work in flight was cut off; it is in the journal and is done next time."
            );
        }
        self.stop.cancel();
        if let Ok(Err(error)) = self.feeding.await {
            tracing::error!(%error, "The journal cannot be read.");
        }
        self.hold.close().await;
        self.deferred.close().await;
        self.journal.close().await;
    }

    /// Whether it is any use to wait on.
    fn check(&self) -> anyhow::Result<()> {
        if let Some(error) = self.journal.failure() {
            return Err(error.into());
        }
        if self.feeding.is_finished() {
            bail!("the journal cannot be read any more; run the command again");
        }
        let (source, target) = self.replicator.stores();
        for (name, state) in [("source", source), ("target", target)] {
            if away_for(&state, clock::now_ms()) > PATIENCE {
                let why = state.last_error.unwrap_or_default();
                bail!(
                    "the {name} has not answered for {} s, so the rest is left in the journal for the \
                     next run: {why}",
                    PATIENCE.as_secs()
                );
            }
        }
        Ok(())
    }
}

/// Takes `dir` for this process, and forgets the deletes that an earlier one had held:
/// the comparison finds again what is still to be deleted.
fn begin_afresh(dir: &Path) -> anyhow::Result<File> {
    let taken = || format!("failed to use {}; make it writable, or set data_dir", dir.display());
    std::fs::create_dir_all(dir).with_context(taken)?;
    let lock = File::create(dir.join("lock")).with_context(taken)?;
    if lock.try_lock().is_err() {
        bail!("another sync works in {}; wait for it, or set another data_dir", dir.display());
    }
    match std::fs::remove_dir_all(dir.join("held")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to empty {}/held", dir.display()))
        }
        _ => Ok(lock),
    }
}

/// Whether a parked key is not worth a further wait.
fn given_up(key: &ParkedKey) -> bool {
    matches!(key.class, "denied" | "invalid" | "no_such_bucket") || key.attempts >= TRIES
}

fn away_for(state: &StoreState, now_ms: i64) -> Duration {
    let since = u64::try_from(now_ms - state.since_ms).unwrap_or_default();
    if state.up { Duration::ZERO } else { Duration::from_millis(since) }
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
    fn a_store_that_answers_is_never_away() {
        let state = |up| StoreState { up, since_ms: 1_000, last_error: None };
        assert_eq!(away_for(&state(true), 900_000), Duration::ZERO);
        assert_eq!(away_for(&state(false), 4_000), Duration::from_secs(3));
    }
}
