//! Whether a store answers: one that is down is probed, not hammered.
//!
//! [`Health`] is the pure rule; [`StoreHealth`] shares it between the workers, who report, the
//! dispatcher, who waits, and the prober, who asks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock;
use crate::store::{ErrorKind, StoreError};

/// So many failures in a row, without one success, mean that the store is down.
const FAILURES_TO_DOWN: u32 = 8;
const FIRST_PROBE: Duration = Duration::from_millis(250);
const LAST_PROBE: Duration = Duration::from_secs(15);

/// What is known of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Health {
    failures: u32,
    probes: u32,
    up: bool,
    since_ms: i64,
    last_error: Option<String>,
}

impl Health {
    const fn new(now_ms: i64) -> Self {
        Self { failures: 0, probes: 0, up: true, since_ms: now_ms, last_error: None }
    }

    /// Work on this store succeeded.
    fn succeeded(&mut self) {
        self.failures = 0;
        self.probes = 0;
    }

    /// Work failed because the store did not answer, or refused to work now.
    fn failed(&mut self, now_ms: i64, error: &str) {
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error.to_owned());
        if self.failures >= FAILURES_TO_DOWN && self.up {
            (self.up, self.since_ms) = (false, now_ms);
        }
    }

    /// A probe was answered. The waits between probes start afresh only after real work succeeded.
    fn answered(&mut self, now_ms: i64) {
        self.failures = 0;
        (self.up, self.since_ms) = (true, now_ms);
    }

    /// How long to wait before the next probe.
    fn next_probe(&mut self) -> Duration {
        let wait = FIRST_PROBE.saturating_mul(1 << self.probes.min(10)).min(LAST_PROBE);
        self.probes = self.probes.saturating_add(1);
        wait
    }
}

/// What the status page shows of a store.
#[derive(Debug, Clone)]
pub struct StoreState {
    /// Whether it answers.
    pub up: bool,
    /// Since when that has been so, milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// The last failure to reach it, or to be let in.
    pub last_error: Option<String>,
}

/// The health of one store, shared.
#[derive(Debug)]
pub(super) struct StoreHealth {
    name: &'static str,
    health: Mutex<Health>,
    up: watch::Sender<bool>,
}

impl StoreHealth {
    /// A store that is up as far as we know; `name` is "source" or "target".
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            health: Mutex::new(Health::new(clock::now_ms())),
            up: watch::Sender::new(true),
        }
    }

    pub(super) fn succeeded(&self) {
        self.health().succeeded();
    }

    /// Takes note of a failure; only those that say "the store is not well" count.
    pub(super) fn failed(&self, error: &StoreError) {
        let mut health = self.health();
        match error.kind {
            ErrorKind::Transient | ErrorKind::Throttled => {}
            // Not an outage, but what an operator looking at the store wants to see.
            ErrorKind::Denied | ErrorKind::NoSuchBucket => {
                health.last_error = Some(error.to_string());
                return;
            }
            ErrorKind::NotFound | ErrorKind::Changed | ErrorKind::Invalid | ErrorKind::Corrupt => {
                return;
            }
        }
        let was_up = health.up;
        health.failed(clock::now_ms(), &error.to_string());
        if was_up && !health.up {
            tracing::warn!(store = self.name, %error, "The store is down. Work waits and the store is probed.");
            self.up.send_replace(false);
        }
    }

    pub(super) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Waits until the store is up.
    pub(super) async fn wait_up(&self) {
        let mut up = self.up.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(up.wait_for(|up| *up).await);
    }

    /// Waits until the store is down, and then for the time to the next probe.
    pub(super) async fn wait_probe(&self) {
        let mut up = self.up.subscribe();
        drop(up.wait_for(|up| !*up).await);
        let wait = self.health().next_probe();
        tokio::time::sleep(wait).await;
    }

    /// A probe came back; any answer but "not well" means that the store is up.
    pub(super) fn probed(&self, result: Result<(), StoreError>) -> bool {
        if let Err(error) = result
            && matches!(error.kind, ErrorKind::Transient | ErrorKind::Throttled)
        {
            self.health().last_error = Some(error.to_string());
            return false;
        }
        // Held until everybody is told, so that a failure in between is not overwritten by this.
        let mut health = self.health();
        health.answered(clock::now_ms());
        tracing::info!(store = self.name, "The store answers again.");
        self.up.send_replace(true);
        true
    }

    pub(super) fn state(&self) -> StoreState {
        let health = self.health();
        StoreState {
            up: health.up,
            since_ms: health.since_ms,
            last_error: health.last_error.clone(),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_down_after_failures_in_a_row_and_one_success_between_counts_as_up() {
        let mut health = Health::new(0);
        for _ in 0..FAILURES_TO_DOWN - 1 {
            health.failed(5, "refused");
        }
        health.succeeded();
        health.failed(6, "refused");
        assert!(health.up);
        for _ in 0..FAILURES_TO_DOWN {
            health.failed(7, "refused");
        }
        assert_eq!((health.up, health.since_ms), (false, 7));
    }

    #[test]
    fn probes_space_out_until_real_work_succeeds() {
        let mut health = Health::new(0);
        assert_eq!(health.next_probe(), FIRST_PROBE);
        assert_eq!(health.next_probe(), FIRST_PROBE * 2);
        health.answered(9);
        assert_eq!(health.next_probe(), FIRST_PROBE * 4);
        for _ in 0..20 {
            health.next_probe();
        }
        assert_eq!(health.next_probe(), LAST_PROBE);
        health.succeeded();
        assert_eq!(health.next_probe(), FIRST_PROBE);
    }
}
