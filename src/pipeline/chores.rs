//! What is done beside replication, on a schedule: captures and volume snapshots.
//!
//! Of several processes that share the buckets, the one that reconciles does it. Each schedule says itself
//! what an error, a stop or a crash means; nothing of it concerns the replication.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::stages::Stages;
use crate::replicate::Pause;
use crate::stores::Stores;

/// Poll interval while waiting for the queue to drain.
const POLL: Duration = Duration::from_millis(100);

/// Captures the source's settings, once both stores answer, until stopped.
pub(super) async fn capture(stores: Stores, stages: Arc<Stages>, stop: CancellationToken) {
    let Some(schedule) = &stages.capture else { return };
    let ready = async {
        stages.replicator.wait().await;
        // Its error says that the sender is gone; the stages keep it.
        drop(stages.leads.subscribe().wait_for(|leads| *leads).await);
    };
    if stop.run_until_cancelled(ready).await.is_some() {
        schedule.run(&stores, &stages.metrics, &stop).await;
    }
}

/// Takes volume snapshots until stopped; the stores are not needed for it.
pub(super) async fn snapshots(stages: Arc<Stages>, stop: CancellationToken) {
    let Some(schedule) = &stages.snapshots else { return };
    let leads = stages.leads.subscribe();
    let quiet = |limit| quiesce(limit, &stages);
    schedule.run(&stages.metrics, &leads, quiet, &stop).await;
}

/// Waits until nothing is pending, and holds replication until dropped. `None` if that takes too long.
async fn quiesce(limit: Duration, stages: &Stages) -> Option<Pause<'_>> {
    if limit.is_zero() {
        return None;
    }
    let replicator = stages.replicator.get()?;
    let quiet = async {
        while stages.pending() > 0 {
            tokio::time::sleep(POLL).await;
        }
        let held = replicator.pause();
        while stages.queue.counts().in_flight > 0 {
            tokio::time::sleep(POLL).await;
        }
        held
    };
    let held = tokio::time::timeout(limit, quiet).await;
    if held.is_err() {
        tracing::warn!(
            ?limit,
            pending = stages.pending(),
            "Something is still pending; the snapshot is taken all the same."
        );
    }
    held.ok()
}
