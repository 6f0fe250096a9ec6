//! What the stages share, built once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{SetOnce, watch};
use tokio::time::Instant;

use crate::capture;
use crate::clock;
use crate::config::Settings;
use crate::deletes::{Aside, Delays, Hold};
use crate::gaps::{GapBook, GapReason};
use crate::intake::kafka::ConsumerLag;
use crate::intake::{Inlet, IntakeHealth};
use crate::journal::Journal;
use crate::lease::LeaseStatus;
use crate::metrics::Metrics;
use crate::oneshot::restore::unfinished;
use crate::reconcile::{Parts, Reconciler};
use crate::replicate::Replicator;
use crate::shelf::Shelf;
use crate::snapshot;
use crate::state::State;
use crate::workqueue::WorkQueue;

/// The state of a running pipeline: what more than one stage, or the status, needs.
#[derive(Debug)]
pub(super) struct Stages {
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
    /// Set once the stores were prepared and replication has begun.
    pub(super) replicator: SetOnce<Replicator>,
    /// There if `[capture]` is configured.
    pub(super) capture: Option<capture::Schedule>,
    /// There if `[snapshot]` has an interval.
    pub(super) snapshots: Option<snapshot::Schedule>,
    /// Whether this process reconciles; of several that share a bucket, only one does.
    pub(super) leads: watch::Sender<bool>,
    /// How far this process is behind in Kafka.
    pub(super) kafka: Arc<ConsumerLag>,
    /// The intakes that run.
    pub(super) intakes: Vec<Arc<IntakeHealth>>,
    /// Damaged segments kept aside at the start.
    pub(super) quarantined: usize,
    /// The lease that this process holds, if there is one.
    pub(super) lease: Option<LeaseStatus>,
    pub(super) started: Instant,
    /// Somebody was told that this process is not ready because the journal is full.
    pub(super) unready: AtomicBool,
    pub(super) stopping: AtomicBool,
}

impl Stages {
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
        let delays = Arc::new(state.delays);
        let hold = Hold::new(
            &settings.deletes,
            state.held,
            state.discards,
            Arc::clone(&remembered),
            Aside { deferred: Arc::clone(&state.deferred), delays: Arc::clone(&delays) },
            Some(state.brakes),
            half_restored,
        );
        let hold = if settings.intake.shares_buckets() { hold.unnumbered() } else { hold };
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
            replicator: SetOnce::new(),
            capture: capture::Schedule::new(&settings),
            snapshots: snapshot::Schedule::new(settings.snapshot.as_ref()),
            leads: watch::Sender::new(!settings.intake.shares_buckets()),
            kafka: Arc::default(),
            intakes: Vec::new(),
            quarantined: state.quarantined,
            lease,
            started: Instant::now(),
            unready: AtomicBool::new(false),
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

    /// This bucket must be reconciled; whether that is durable now. One that is configured no more never is.
    pub(super) fn doubt_bucket(&self, bucket: &str, reason: GapReason) -> bool {
        if !self.settings.buckets.iter().any(|known| known.source == bucket) {
            return true;
        }
        self.metrics.gap(reason);
        let marked = self.gaps.mark(bucket, reason, clock::now_ms());
        if let Err(error) = &marked {
            tracing::error!(bucket, %error, "A gap could not be recorded; reconcile this bucket.");
        }
        marked.is_ok()
    }

    /// Whether notifications are taken; else why not.
    pub(super) fn readiness(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("evermirror is stopping".to_owned());
        }
        if let Some(error) = self.journal.failure() {
            return Err(format!("the journal failed, so nothing is acknowledged: {error}"));
        }
        if self.journal.stats().full {
            let dir = self.settings.data_dir.display();
            return Err(format!(
                "the journal has reached journal.max_size, or the disk of data_dir {dir} is full, so notifications \
                 are refused with 503 and recorded as a gap; it resumes by itself when the backlog shrinks or space \
                 is freed"
            ));
        }
        Ok(())
    }

    fn doubt(&self, reason: GapReason, at_ms: i64) {
        for bucket in &self.settings.buckets {
            self.metrics.gap(reason);
            if let Err(error) = self.gaps.mark(&bucket.source, reason, at_ms) {
                tracing::error!(bucket = bucket.source, %error, "A gap could not be recorded; reconcile this bucket.");
            }
        }
    }

    /// How many keys are not on the target as they are at the source.
    pub(super) fn pending(&self) -> u64 {
        // In this order a record is counted twice at worst, as unread and in the queue; never not at all.
        let unread = self.unread();
        let set_aside: u64 = self.deferred.counts().values().sum();
        unread + set_aside + self.queue.counts().pending as u64
    }

    /// How many of them are in the journal, or in Kafka where that is the journal, and in no queue yet.
    pub(super) fn unread(&self) -> u64 {
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
}
