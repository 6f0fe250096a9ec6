//! Volume snapshots on their schedule, while this process is the one that reconciles.
//!
//! **Promise.** One snapshot each `interval`, counted from the last usable one in the cluster, so that
//! restarts and takeovers take none too many. **On error** it is told once, counted, and tried again.
//! **On cancellation** replication goes on, and what was asked of the cluster is done all the same.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::stages::Stages;
use crate::clock;
use crate::config::settings::SnapshotSettings;
use crate::replicate::Pause;
use crate::snapshot::{Plan, Snapshot, SnapshotError, SnapshotState, Snapshots};

/// The longest wait after a failure.
const RETRY: Duration = Duration::from_mins(5);
/// How often it is looked whether anything is pending.
const LOOK: Duration = Duration::from_millis(100);

/// Takes snapshots until stopped.
pub(super) async fn run(settings: SnapshotSettings, stages: Arc<Stages>, stop: CancellationToken) {
    if settings.interval.is_zero() {
        return;
    }
    let interval_ms = clock::millis(settings.interval);
    stages.snapshot_taken(|taken| taken.interval_ms = interval_ms);
    let taking = async {
        loop {
            let wait = match step(&settings, &stages).await {
                Ok(wait) => {
                    stages.snapshot_taken(|taken| taken.last_error = None);
                    wait
                }
                Err(error) => {
                    let error = error.to_string();
                    stages.metrics.snapshot_failed();
                    let told = stages.snapshot_taken(|taken| {
                        taken.failures += 1;
                        taken.last_error.replace(error.clone())
                    });
                    if told.as_ref() != Some(&error) {
                        tracing::error!(error, "No snapshot could be taken; trying again.");
                    }
                    settings.interval.min(RETRY)
                }
            };
            tokio::time::sleep(wait).await;
        }
    };
    stop.run_until_cancelled(taking).await;
}

/// Takes a snapshot if one is due; returns when to look again.
async fn step(settings: &SnapshotSettings, stages: &Stages) -> Result<Duration, SnapshotError> {
    if !*stages.leads.borrow() {
        return Ok(settings.interval.min(RETRY));
    }
    let snapshots = Snapshots::connect(settings).await?;
    let plan = snapshots.plan().await?;
    let all = snapshots.list().await?;
    let mut of_ours = all.iter().filter(|s| s.ours && s.claim.as_ref() == Some(&plan.claim.name));
    let last = of_ours.clone().find(|s| s.usable()).and_then(Snapshot::asked_ms);
    stages.snapshot_taken(|taken| taken.last_ms = last);
    if let Some(wait) = due_in(last, clock::now_ms(), settings.interval) {
        return Ok(wait);
    }
    // One that is still being made is waited for: where nobody makes them, they must not pile up.
    let pending = of_ours.find(|s| s.state == SnapshotState::Pending && !s.failed());
    let name = match pending {
        Some(pending) => pending.name.clone(),
        None => take(settings, &snapshots, &plan, stages).await?,
    };
    let ready = snapshots.wait_ready(&name).await;
    let deleted = snapshots.expire(&plan.claim.name, false).await?;
    if !deleted.is_empty() {
        tracing::info!(?deleted, "Snapshots beyond `retain`, or that failed, were deleted.");
    }
    let ready = ready?;
    stages.snapshot_taken(|taken| taken.last_ms = ready.asked_ms());
    tracing::info!(
        snapshot = ready.name,
        claim = plan.claim.name,
        quiesced = ready.quiesced,
        "A snapshot was taken."
    );
    Ok(due_in(ready.asked_ms(), clock::now_ms(), settings.interval).unwrap_or_default())
}

/// Asks for a snapshot while nothing is pending, if it is to be so; returns its name.
async fn take(
    settings: &SnapshotSettings,
    snapshots: &Snapshots,
    plan: &Plan,
    stages: &Stages,
) -> Result<String, SnapshotError> {
    let quiet = quiesce(settings.quiesce, stages).await;
    let asked = snapshots.create(plan, quiet.is_some(), false).await?;
    if quiet.is_some() {
        // From the cut on it does not matter what is written.
        let cut = |s: &Snapshot| s.cut_at.is_some() || s.usable();
        if let Err(error) = snapshots.wait(&asked.name, settings.quiesce, cut).await {
            tracing::warn!(%error, "The snapshot is not cut yet; replication goes on.");
        }
    }
    Ok(asked.name)
}

/// How long until the next one is due; `None` if it is.
fn due_in(last_ms: Option<i64>, now_ms: i64, interval: Duration) -> Option<Duration> {
    let since = u64::try_from(now_ms.saturating_sub(last_ms?)).unwrap_or(0);
    let left = interval.saturating_sub(Duration::from_millis(since));
    (!left.is_zero()).then_some(left)
}

/// Waits until nothing is pending, and holds replication until dropped. `None` if that takes too long.
async fn quiesce(limit: Duration, stages: &Stages) -> Option<Pause<'_>> {
    if limit.is_zero() {
        return None;
    }
    let replicator = stages.replicator.get()?;
    let quiet = async {
        while stages.pending() > 0 {
            tokio::time::sleep(LOOK).await;
        }
        let held = replicator.pause();
        while stages.queue.counts().in_flight > 0 {
            tokio::time::sleep(LOOK).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_is_due_an_interval_after_the_last_usable_one() {
        let hour = Duration::from_hours(1);
        assert_eq!(due_in(None, 5, hour), None);
        assert_eq!(due_in(Some(0), 3_600_000, hour), None);
        assert_eq!(due_in(Some(0), 3_599_000, hour), Some(Duration::from_secs(1)));
        // A clock that was set back takes none early.
        assert_eq!(due_in(Some(9_000_000), 0, hour), Some(hour));
    }
}
