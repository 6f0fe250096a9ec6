//! What the stages share, and what the web pages see of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::capture::Schedule;
use crate::clock;
use crate::config::Settings;
use crate::deletes::{Decision, Delays, Hold};
use crate::gaps::{GapBook, GapReason};
use crate::intake::kafka::Backlog;
use crate::intake::{Health, Inlet};
use crate::journal::Journal;
use crate::lease::LeaseStatus;
use crate::metrics::Metrics;
use crate::oneshot::restore::unfinished;
use crate::reconcile::{Parts, Reconciler};
use crate::replicate::{Replicator, StoreState};
use crate::shelf::Shelf;
use crate::web::{
    Acted, AtRisk, BucketPending, Concurrency, DelayedDeletes, HeldDeletes, HeldKey, HeldKeys,
    JournalStatus, KafkaStatus, KeyCounts, Operations, ParkedKey, SnapshotStatus, Status,
    StoreStatus,
};
use crate::workqueue::{Counts, WorkQueue};

use crate::state::State;

/// How many parked keys the status shows.
const SHOWN_PARKED: usize = 100;

/// The state of a running pipeline.
#[derive(Debug)]
pub(super) struct Overview {
    pub(super) settings: Arc<Settings>,
    pub(super) metrics: Metrics,
    pub(super) journal: Journal,
    pub(super) gaps: Arc<GapBook>,
    pub(super) queue: Arc<WorkQueue>,
    pub(super) hold: Hold,
    pub(super) delays: Arc<Delays>,
    pub(super) deferred: Arc<Shelf>,
    /// The first durable record that the feeder has not read yet.
    pub(super) position: Arc<AtomicU64>,
    /// Runs once the stores were prepared.
    pub(super) reconciler: Arc<Reconciler>,
    /// There once the stores were prepared.
    pub(super) replicator: OnceLock<Replicator>,
    /// Cancelled once the stores were prepared and replication has begun.
    pub(super) prepared: CancellationToken,
    /// There if `[capture]` is configured.
    pub(super) capture: Option<Schedule>,
    /// Whether this process reconciles; of several that share a bucket, only one does.
    pub(super) leads: watch::Sender<bool>,
    /// How far this process is behind in Kafka.
    pub(super) kafka: Arc<Backlog>,
    /// The intakes that run.
    pub(super) intakes: OnceLock<Vec<Arc<Health>>>,
    /// Damaged segments kept aside at the start.
    quarantined: usize,
    /// What became of the volume snapshots.
    snapshots: Mutex<SnapshotStatus>,
    /// The lease that this process holds, if there is one.
    lease: Option<LeaseStatus>,
    started: Instant,
    stopping: AtomicBool,
}

impl Overview {
    pub(super) fn new(
        settings: Arc<Settings>,
        metrics: Metrics,
        state: State,
        lease: Option<LeaseStatus>,
    ) -> Self {
        let replicate = &settings.replicate;
        let position = Arc::new(AtomicU64::new(state.journal.stats().trimmed_lsn));
        let queue = Arc::new(WorkQueue::new(replicate.max_pending_keys, replicate.min_interval));
        let remembered = Arc::new(state.remembered);
        let half_restored = unfinished(&settings);
        let hold = Hold::new(
            &settings.deletes,
            state.held,
            state.discards,
            Arc::clone(&remembered),
            half_restored,
        );
        let delays = Arc::new(state.delays);
        let reconciler = Reconciler::new(Parts {
            settings: Arc::clone(&settings),
            journal: state.journal.clone(),
            queue: Arc::clone(&queue),
            position: Arc::clone(&position),
            gaps: Arc::clone(&state.gaps),
            hold: hold.clone(),
            delays: Arc::clone(&delays),
            remembered,
            metrics: metrics.clone(),
        });
        Self {
            reconciler: Arc::new(reconciler),
            position,
            metrics,
            journal: state.journal,
            gaps: state.gaps,
            queue,
            hold,
            delays,
            deferred: state.deferred,
            replicator: OnceLock::new(),
            prepared: CancellationToken::new(),
            capture: Schedule::new(&settings),
            leads: watch::Sender::new(!settings.intake.shares_buckets()),
            kafka: Arc::default(),
            intakes: OnceLock::new(),
            quarantined: state.quarantined,
            snapshots: Mutex::default(),
            lease,
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            settings,
        }
    }

    /// The door for notifications.
    pub(super) fn inlet(&self) -> Inlet {
        let webhook = self.settings.intake.webhook.clone().unwrap_or_default();
        Inlet::new(
            &self.settings.buckets,
            self.journal.clone(),
            Arc::clone(&self.gaps),
            self.metrics.clone(),
            webhook.max_wait,
        )
    }

    /// Nothing new is taken from now on.
    pub(super) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Another process was the active one, and was last known to be so then: what it was told since, and
    /// what it had not copied yet, is in its own journal.
    pub(super) fn doubt_since(&self, at_ms: Option<i64>) {
        if let Some(at_ms) = at_ms {
            // By its clock; a pass that begins now is late enough.
            self.doubt(GapReason::TakenOver, at_ms.min(clock::now_ms()));
        }
    }

    /// Events of every bucket may have been lost.
    pub(super) fn doubt_all_buckets(&self, reason: GapReason) {
        self.doubt(reason, clock::now_ms());
    }

    fn doubt(&self, reason: GapReason, at_ms: i64) {
        for bucket in &self.settings.buckets {
            self.metrics.gap(reason);
            if let Err(error) = self.gaps.mark(&bucket.source, reason, at_ms) {
                tracing::error!(bucket = bucket.source, %error, "A gap could not be recorded; reconcile this bucket.");
            }
        }
    }

    /// Changes what is shown of the snapshots.
    pub(super) fn snapshot_taken<T>(&self, change: impl FnOnce(&mut SnapshotStatus) -> T) -> T {
        change(&mut self.snapshots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many keys are not on the target as they are at the source.
    pub(super) fn pending(&self) -> u64 {
        // In this order a record is counted twice at worst, as unread and in the queue; never not at all.
        let unread = self.unread();
        let set_aside: u64 = self.deferred.counts().values().sum();
        unread + set_aside + self.queue.counts().pending as u64
    }

    /// How many of them are in the journal, or in Kafka where that is the journal, and in no queue yet.
    fn unread(&self) -> u64 {
        let position = self.position.load(Ordering::Acquire);
        let in_kafka = if self.settings.intake.shares_buckets() { self.kafka.unread() } else { 0 };
        self.journal.stats().next_lsn.saturating_sub(position) + in_kafka
    }

    /// Persists and closes all state on disk.
    pub(super) async fn close(&self) {
        self.hold.close().await;
        self.delays.close().await;
        self.deferred.close().await;
        self.journal.close().await;
    }

    fn store_status(&self, endpoint: &str, state: Option<StoreState>) -> StoreStatus {
        let state = state.unwrap_or_else(|| StoreState {
            up: false,
            since_ms: clock::now_ms() - clock::signed_millis(self.started.elapsed()),
            last_error: Some("not reached since the start".to_owned()),
        });
        let for_ms = u64::try_from(clock::now_ms() - state.since_ms).unwrap_or_default();
        StoreStatus {
            endpoint: endpoint.to_owned(),
            up: state.up,
            for_ms,
            last_error: state.last_error,
        }
    }
}

impl Operations for Overview {
    fn status(&self) -> Status {
        let unread = self.unread();
        let journal = self.journal.stats();
        let counts = self.queue.counts();
        let gaps = self.gaps.list();
        let held: Vec<HeldDeletes> = self.hold.list().into_iter().map(held).collect();
        let delayed: Vec<DelayedDeletes> = self.delays.list().into_iter().map(delayed).collect();
        let oldest_ms = [counts.oldest_ms, self.deferred.oldest_ms()].into_iter().flatten().min();
        let set_aside: u64 = self.deferred.counts().values().sum();
        let (bytes_aside, unsized_aside) = self.deferred.bytes();
        let pending = counts.pending as u64 + set_aside + unread;
        let (source, target) = self.replicator.get().map(Replicator::stores).unzip();
        let limit = self.replicator.get().map_or(0, Replicator::concurrency);
        let leads = *self.leads.borrow();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.started.elapsed().as_secs(),
            ready: self.ready().is_ok(),
            stopping: self.stopping.load(Ordering::Relaxed),
            at_risk: AtRisk {
                oldest_pending_age_ms: oldest_ms.map(age),
                keys: pending,
                bytes: counts.bytes.saturating_add(bytes_aside),
                unsized_keys: counts.unsized_keys as u64 + unsized_aside + unread,
                buckets_in_doubt: gaps.len() as u64,
            },
            keys: KeyCounts {
                pending,
                in_flight: counts.in_flight as u64,
                parked: counts.parked as u64 + set_aside,
                held: held.iter().map(|bucket| bucket.count).sum(),
                delayed: delayed.iter().map(|bucket| bucket.count).sum(),
            },
            lag: self.metrics.lag_summary(),
            replicated: self.metrics.totals(),
            buckets: self.queue.by_bucket().into_iter().map(waiting).collect(),
            journal: JournalStatus {
                next_lsn: journal.next_lsn,
                trimmed_lsn: journal.trimmed_lsn,
                bytes: journal.bytes_on_disk,
                max_bytes: self.settings.journal.max_size.0,
                segments: journal.segments as u64,
                damaged_segments: self.quarantined as u64,
                full: journal.full,
                failed: self.journal.failure().map(|error| error.to_string()),
            },
            intakes: self
                .intakes
                .get()
                .into_iter()
                .flatten()
                .map(|health| (&**health).into())
                .collect(),
            kafka: KafkaStatus { lag: self.kafka.lag(), unread: self.kafka.unread() },
            gaps,
            parked: self.queue.parked(SHOWN_PARKED).iter().map(parked).collect(),
            held,
            reconcile_interval_ms: clock::millis(self.settings.reconcile.interval),
            reconcile: self.reconciler.status(),
            capture: self.capture.as_ref().filter(|_| leads).map(Schedule::status),
            delayed,
            source: self.store_status(&self.settings.source.endpoint, source),
            target: self.store_status(&self.settings.target.endpoint, target),
            lease: self.lease.clone(),
            snapshots: Some(self.snapshot_taken(|taken| taken.clone()))
                .filter(|taken| leads && taken.interval_ms > 0),
            concurrency: Concurrency { limit, in_use: counts.in_flight as u64 },
        }
    }

    fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("evermirror is stopping".to_owned());
        }
        if let Some(error) = self.journal.failure() {
            return Err(format!("the journal failed, so nothing is acknowledged: {error}"));
        }
        Ok(())
    }

    fn reconcile(&self, bucket: Option<&str>, prefix: Option<&str>) -> Result<u64, String> {
        if !*self.leads.borrow() {
            return Err("another process of this Kafka group reconciles: ask the one that has partition 0, whose log says so".to_owned());
        }
        self.reconciler.request(bucket, prefix).map_err(|error| error.to_string())
    }

    fn held_keys<'a>(&'a self, bucket: &'a str, most: usize) -> HeldKeys<'a> {
        Box::pin(async move {
            let keys = self.hold.keys(bucket, most).await.map_err(|error| error.to_string())?;
            let held =
                |(key, since_ms): (Arc<str>, i64)| HeldKey { key: key.to_string(), since_ms };
            Ok(keys.into_iter().map(held).collect())
        })
    }

    fn decide<'a>(&'a self, bucket: &'a str, decision: Decision) -> Acted<'a> {
        Box::pin(async move {
            let configured = self.settings.buckets.iter().any(|known| known.source == bucket);
            // What was held of a bucket that is configured no more can still be decided on.
            if !configured && !self.hold.holds(bucket) {
                let bucket = bucket.escape_debug();
                return Err(format!(
                    "bucket {bucket} is not in the configuration, and no delete of it is held"
                ));
            }
            self.hold.decide(&self.journal, bucket, decision).await.map_err(|error| {
                let bucket = bucket.escape_debug();
                format!("failed to move the held deletes of {bucket}: {error}")
            })
        })
    }
}

fn age(since_ms: i64) -> u64 {
    u64::try_from(clock::now_ms() - since_ms).unwrap_or_default()
}

fn waiting((bucket, counts): (Arc<str>, Counts)) -> BucketPending {
    BucketPending {
        bucket: bucket.to_string(),
        pending: counts.pending as u64,
        in_flight: counts.in_flight as u64,
        parked: counts.parked as u64,
        bytes: counts.bytes,
        unsized_keys: counts.unsized_keys as u64,
        oldest_pending_age_ms: counts.oldest_ms.map(age),
    }
}

fn held(held: crate::deletes::HeldDeletes) -> HeldDeletes {
    HeldDeletes { bucket: held.bucket, count: held.count, reason: held.reason.to_string() }
}

fn delayed(delayed: crate::deletes::DelayedDeletes) -> DelayedDeletes {
    let left = |due: i64| u64::try_from(due.saturating_sub(clock::now_ms())).unwrap_or_default();
    let next_due_in_ms = delayed.next_due_ms.map(left);
    DelayedDeletes { bucket: delayed.bucket, count: delayed.count, next_due_in_ms }
}

fn parked(parked: &crate::workqueue::ParkedKey) -> ParkedKey {
    ParkedKey {
        bucket: parked.key.bucket.to_string(),
        key: parked.key.key.to_string(),
        reason: format!("{}: {}", parked.class, parked.reason),
        attempts: parked.attempts,
        next_try_in_ms: clock::millis(parked.next_try),
    }
}
