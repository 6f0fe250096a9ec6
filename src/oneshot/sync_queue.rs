//! What `sync` has yet to do, durable: a journal of its own that feeds the engine.
//!
//! **Promise.** What [`SyncQueue::append`] has taken is done, or counted as failed, when
//! [`SyncQueue::finish`] returns. Failed keys stay in the journal. On an error, on cancellation and after a
//! crash, the next queue on the same directory goes on with what is left.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, LONGEST_WAIT};
use crate::config::Settings;
use crate::config::settings::Durability;
use crate::config::units::ByteSize;
use crate::data_dir::DataDir;
use crate::deletes::decided::Deletes;
use crate::deletes::{Aside, HeldDeletes, Hold};
use crate::dirty::DirtyKey;
use crate::journal::{AppendError, Journal};
use crate::metrics::Metrics;
use crate::remembered::Remembered;
use crate::replicate::Direction;
use crate::shelf::Shelf;
use crate::state::{self, State};
use crate::stores::Stores;
use crate::workqueue::feeder::{FeedError, Feeder};

/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// How long to wait for room in the journal, which is being worked off.
const ROOM: Duration = Duration::from_millis(200);
/// Nothing but backlog is in this journal, and the comparison finds it again.
const SEGMENT: u64 = 8 << 20;

/// The journal, and the engine that works it off.
#[derive(Debug)]
pub(super) struct SyncQueue {
    pub(super) engine: Engine,
    pub(super) remembered: Arc<Remembered>,
    journal: Journal,
    hold: Hold,
    deferred: Arc<Shelf>,
    position: Arc<AtomicU64>,
    stop: CancellationToken,
    feeding: JoinHandle<Result<(), FeedError>>,
    _lock: File,
}

impl SyncQueue {
    /// Opens the state in `settings.data_dir` and begins to work on what it holds, within the limits that
    /// `deletes` sets.
    pub(super) async fn start(
        mut settings: Settings,
        stores: Stores,
        deletes: &Deletes,
    ) -> anyhow::Result<Self> {
        settings.journal.durability = Durability::Write;
        settings.journal.segment_size = ByteSize(settings.journal.segment_size.0.min(SEGMENT));
        let metrics = Metrics::new();
        let lock = begin_afresh(&settings.data_dir)?;
        let (state, cursor) = state::open(&settings, &metrics).await?;
        let State { journal, held, discards, delays, deferred, remembered, .. } = state;
        let remembered = Arc::new(remembered.heeding(deletes.kept.clone()));
        let brakes = deletes.brakes.clone();
        let delays = Arc::new(delays);
        let aside = Aside { deferred: Arc::clone(&deferred), delays: Arc::clone(&delays) };
        let remembering = Arc::clone(&remembered);
        let hold = Hold::new(&settings.deletes, held, discards, remembering, aside, None, brakes)
            .without_approvals(deletes.unseen());
        let direction = Direction::Forth(hold.clone(), delays);
        let uploads = DataDir::at(&settings.data_dir).uploads();
        let retry_deferred = settings.replicate.retry_max.min(LONGEST_WAIT);
        let engine = Engine::start(settings, stores, direction, metrics)
            .await
            .with_context(|| format!("failed to use {}", uploads.display()))?;
        let position = Arc::new(AtomicU64::new(journal.stats().trimmed_lsn));
        let feeder = Feeder {
            // This command ends with what it could not do; nobody would reconcile later.
            failing: None,
            hold: Some(hold.clone()),
            journal: journal.clone(),
            cursor,
            queue: Arc::clone(&engine.queue),
            deferred: Arc::clone(&deferred),
            position: Arc::clone(&position),
            retry_deferred,
        };
        let stop = CancellationToken::new();
        // What cannot be decoded here the comparison finds again.
        let feeding = tokio::spawn(feeder.run(stop.clone(), |_| {}));
        Ok(Self {
            engine,
            remembered,
            journal,
            hold,
            deferred,
            position,
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
            let left = self.engine.left();
            let set_aside = !self.deferred.counts().is_empty();
            // What is set aside had failed, too, and waits for its turn behind those that are left.
            if !unread && left.is_some_and(|left| !left.is_empty() || !set_aside) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Why the bucket's brake is on, if it is.
    pub(super) fn brake(&self, bucket: &str) -> Option<Arc<str>> {
        self.hold.reason(bucket)
    }

    /// Deletes that the brake has held in this run.
    pub(super) fn held(&self) -> Vec<HeldDeletes> {
        self.hold.list().into_iter().filter(|held| held.count > 0).collect()
    }

    /// Keys that failed and were set aside on disk beside the parked ones.
    pub(super) fn set_aside(&self) -> u64 {
        self.deferred.counts().values().sum()
    }

    /// Ends in good order: work in flight is finished within `drain_timeout`, the rest is in the journal.
    pub(super) async fn stop(self) {
        self.engine.drain().await;
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
        Ok(self.engine.check()?)
    }
}

/// Takes `dir` for this process, and forgets the deletes that an earlier one had held:
/// the comparison finds again what is still to be deleted.
fn begin_afresh(dir: &Path) -> anyhow::Result<File> {
    let taken = || format!("failed to use {}; make it writable, or set data_dir", dir.display());
    std::fs::create_dir_all(dir).with_context(taken)?;
    let lock = File::create(DataDir::at(dir).sync_lock()).with_context(taken)?;
    if lock.try_lock().is_err() {
        bail!("another sync works in {}; wait for it, or set another data_dir", dir.display());
    }
    let held = DataDir::at(dir).held();
    match std::fs::remove_dir_all(&held) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to empty {}", held.display()))
        }
        _ => Ok(lock),
    }
}
