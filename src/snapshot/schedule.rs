//! Volume snapshots on their schedule, while this process is the one that reconciles.
//!
//! **Promise.** One snapshot each `interval`, counted from the last usable one in the cluster, so that
//! restarts and takeovers take none too many. **On error** it is logged once, counted, and tried again.
//! **On cancellation** replication goes on, and what was asked of the cluster is done all the same.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Plan, Snapshot, SnapshotError, SnapshotState, Snapshots};
use crate::clock;
use crate::config::settings::SnapshotSettings;
use crate::metrics::Metrics;

/// The longest wait after a failure.
const RETRY: Duration = Duration::from_mins(5);

/// How taking snapshots goes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SnapshotStatus {
    /// From one to the next, in milliseconds.
    pub interval_ms: u64,
    /// When the last usable one was asked for, in milliseconds since the Unix epoch; absent while there is
    /// none, or the cluster was not asked yet.
    pub last_ms: Option<i64>,
    /// Tries since the start that failed.
    pub failures: u64,
    /// Why the last one did; absent if it did not.
    pub last_error: Option<String>,
}

/// The schedule, if `[snapshot]` has an interval.
#[derive(Debug)]
pub struct Schedule {
    settings: SnapshotSettings,
    status: Mutex<SnapshotStatus>,
}

impl Schedule {
    /// Nothing is asked yet; `None` where snapshots are taken by hand only.
    pub fn new(settings: Option<&SnapshotSettings>) -> Option<Self> {
        let settings = settings.filter(|settings| !settings.interval.is_zero())?.clone();
        let interval_ms = clock::millis(settings.interval);
        let status = SnapshotStatus { interval_ms, ..SnapshotStatus::default() };
        Some(Self { settings, status: Mutex::new(status) })
    }

    /// How it goes.
    pub fn status(&self) -> SnapshotStatus {
        self.note(|status| status.clone())
    }

    /// Takes snapshots until stopped, while this process `leads`. `quiet` waits at most that long until
    /// nothing is pending, and holds replication until what it gives is dropped.
    pub async fn run<P, F: Future<Output = Option<P>>>(
        &self,
        metrics: &Metrics,
        leads: &watch::Receiver<bool>,
        quiet: impl Fn(Duration) -> F,
        stop: &CancellationToken,
    ) {
        let taking = async {
            loop {
                let wait = match self.step(leads, &quiet).await {
                    Ok(wait) => {
                        self.note(|status| status.last_error = None);
                        wait
                    }
                    Err(error) => {
                        metrics.snapshot_failed();
                        self.failed(&error.to_string());
                        self.settings.interval.min(RETRY)
                    }
                };
                tokio::time::sleep(wait).await;
            }
        };
        stop.run_until_cancelled(taking).await;
    }

    /// Counts a failure, and logs it if it is news.
    fn failed(&self, error: &str) {
        let known = self.note(|status| {
            status.failures += 1;
            status.last_error.replace(error.to_owned())
        });
        if known.as_deref() != Some(error) {
            tracing::error!(error, "No snapshot could be taken; trying again.");
        }
    }

    fn note<T>(&self, change: impl FnOnce(&mut SnapshotStatus) -> T) -> T {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a snapshot if one is due; returns how long to wait before the next step.
    async fn step<P, F: Future<Output = Option<P>>>(
        &self,
        leads: &watch::Receiver<bool>,
        quiet: impl Fn(Duration) -> F,
    ) -> Result<Duration, SnapshotError> {
        let interval = self.settings.interval;
        if !*leads.borrow() {
            return Ok(interval.min(RETRY));
        }
        let snapshots = Snapshots::connect(&self.settings).await?;
        let plan = snapshots.plan().await?;
        let all = snapshots.list().await?;
        let mut of_ours =
            all.iter().filter(|s| s.ours && s.claim.as_ref() == Some(&plan.claim.name));
        let last = of_ours.clone().find(|s| s.usable()).and_then(Snapshot::asked_ms);
        self.note(|status| status.last_ms = last);
        if let Some(wait) = due_in(last, clock::now_ms(), interval) {
            return Ok(wait);
        }
        // One that is still being made is waited for: where nobody makes them, they must not pile up.
        let pending = of_ours.find(|s| s.state == SnapshotState::Pending && !s.failed());
        let name = match pending {
            Some(pending) => pending.name.clone(),
            None => self.take(&snapshots, &plan, quiet).await?,
        };
        let ready = snapshots.wait_ready(&name).await;
        let deleted = snapshots.expire(&plan.claim.name, false).await?;
        if !deleted.is_empty() {
            tracing::info!(?deleted, "Snapshots beyond `retain`, or that failed, were deleted.");
        }
        let ready = ready?;
        self.note(|status| status.last_ms = ready.asked_ms());
        tracing::info!(
            snapshot = ready.name,
            claim = plan.claim.name,
            quiesced = ready.quiesced,
            "A snapshot was taken."
        );
        Ok(due_in(ready.asked_ms(), clock::now_ms(), interval).unwrap_or_default())
    }

    /// Asks for a snapshot while nothing is pending, if it is to be so; returns its name.
    async fn take<P, F: Future<Output = Option<P>>>(
        &self,
        snapshots: &Snapshots,
        plan: &Plan,
        quiet: impl Fn(Duration) -> F,
    ) -> Result<String, SnapshotError> {
        let limit = self.settings.quiesce;
        let quiet = quiet(limit).await;
        let asked = snapshots.create(plan, quiet.is_some(), false).await?;
        if quiet.is_some() {
            // From the cut on it does not matter what is written.
            let cut = |s: &Snapshot| s.cut_at.is_some() || s.usable();
            if let Err(error) = snapshots.wait(&asked.name, limit, cut).await {
                tracing::warn!(%error, "The snapshot is not cut yet; replication goes on.");
            }
        }
        Ok(asked.name)
    }
}

/// How long until the next one is due; `None` if it is.
fn due_in(last_ms: Option<i64>, now_ms: i64, interval: Duration) -> Option<Duration> {
    let since = u64::try_from(now_ms.saturating_sub(last_ms?)).unwrap_or(0);
    let left = interval.saturating_sub(Duration::from_millis(since));
    (!left.is_zero()).then_some(left)
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
