//! The status of a running process, from what the stages know.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::stages::Stages;
use crate::capture;
use crate::clock;
use crate::replicate::{Replicator, StoreState};
use crate::snapshot;
use crate::web::{
    AtRisk, BucketPending, Concurrency, DelayedDeletes, JournalStatus, KafkaStatus, KeyCounts,
    ParkedKey, Status, StoreStatus,
};
use crate::workqueue::Counts;

/// How many parked keys the status shows.
const SHOWN_PARKED: usize = 100;

/// The state of all stages, as the status page and the metrics show it. It costs the same at any number
/// of keys.
pub(super) fn status(stages: &Stages) -> Status {
    let unread = stages.unread();
    let journal = stages.journal.stats();
    let counts = stages.queue.counts();
    let gaps = stages.gaps.list();
    let held = stages.hold.list();
    let delayed: Vec<DelayedDeletes> = stages.delays.list().into_iter().map(delayed).collect();
    let oldest_ms = [counts.oldest_ms, stages.deferred.oldest_ms()].into_iter().flatten().min();
    let set_aside: u64 = stages.deferred.counts().values().sum();
    let (bytes_aside, unsized_aside) = stages.deferred.bytes();
    let pending = counts.pending as u64 + set_aside + unread;
    let (source, target) = stages.replicator.get().map(Replicator::stores).unzip();
    let limit = stages.replicator.get().map_or(0, Replicator::concurrency);
    let leads = *stages.leads.borrow();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: stages.started.elapsed().as_secs(),
        ready: stages.readiness().is_ok(),
        stopping: stages.stopping.load(Ordering::Relaxed),
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
        lag: stages.metrics.lag_summary(),
        replicated: stages.metrics.totals(),
        buckets: stages.queue.by_bucket().into_iter().map(|of| waiting(stages, of)).collect(),
        journal: JournalStatus {
            next_lsn: journal.next_lsn,
            trimmed_lsn: journal.trimmed_lsn,
            bytes: journal.bytes_on_disk,
            max_bytes: stages.settings.journal.max_size.0,
            segments: journal.segments as u64,
            damaged_segments: stages.quarantined as u64,
            full: journal.full,
            failed: stages.journal.failure().map(|error| error.to_string()),
        },
        intakes: stages.intakes.iter().map(|health| (&**health).into()).collect(),
        kafka: KafkaStatus { lag: stages.kafka.lag(), unread: stages.kafka.unread() },
        gaps,
        parked: stages.queue.parked(SHOWN_PARKED).iter().map(parked).collect(),
        held,
        reconcile_interval_ms: clock::millis(stages.settings.reconcile.interval),
        reconcile: stages.reconciler.status(),
        capture: stages.capture.as_ref().filter(|_| leads).map(capture::Schedule::status),
        delayed,
        source: store_status(stages, &stages.settings.source.endpoint, source),
        target: store_status(stages, &stages.settings.target.endpoint, target),
        lease: stages.lease.clone(),
        snapshots: stages.snapshots.as_ref().filter(|_| leads).map(snapshot::Schedule::status),
        concurrency: Concurrency { limit, in_use: counts.in_flight as u64 },
    }
}

fn store_status(stages: &Stages, endpoint: &str, state: Option<StoreState>) -> StoreStatus {
    let state = state.unwrap_or_else(|| StoreState {
        up: false,
        lasting: stages.started.elapsed(),
        last_error: Some("not reached since the start".to_owned()),
    });
    StoreStatus {
        endpoint: endpoint.to_owned(),
        up: state.up,
        for_ms: clock::millis(state.lasting),
        last_error: state.last_error,
    }
}

fn age(since_ms: i64) -> u64 {
    u64::try_from(clock::now_ms() - since_ms).unwrap_or_default()
}

fn waiting(stages: &Stages, (bucket, counts): (Arc<str>, Counts)) -> BucketPending {
    let unhealthy = stages.replicator.get().and_then(|replicator| replicator.unhealthy(&bucket));
    BucketPending {
        bucket: bucket.to_string(),
        pending: counts.pending as u64,
        in_flight: counts.in_flight as u64,
        parked: counts.parked as u64,
        bytes: counts.bytes,
        unsized_keys: counts.unsized_keys as u64,
        oldest_pending_age_ms: counts.oldest_ms.map(age),
        unhealthy: unhealthy.map(|unhealthy| unhealthy.reason.to_string()),
    }
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
