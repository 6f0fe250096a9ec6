//! Whether a store answers: one that is down is probed, not hammered.
//!
//! [`Health`] is the pure rule; [`StoreHealth`] shares it between the workers, who report, the
//! dispatcher, who waits, and the prober, who asks. Failures alone do not take a store down, since they
//! may all be of one bucket: the prober asks it for several buckets first.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::store::{ErrorKind, StoreError};

/// So many failures in a row, without one success, make the prober ask whether the store is down.
const FAILURES_TO_ASK: u32 = 8;
/// How long a store that answered that it is up is not asked again.
const ASK_EVERY: Duration = Duration::from_secs(1);
const FIRST_PROBE: Duration = Duration::from_millis(250);
const LAST_PROBE: Duration = Duration::from_secs(15);

/// What is known of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Health {
    failures: u32,
    probes: u32,
    up: bool,
    /// The prober is asking the store, or has asked it a moment ago.
    asked: Option<Instant>,
    since: Instant,
    last_error: Option<String>,
}

impl Health {
    const fn new(now: Instant) -> Self {
        Self { failures: 0, probes: 0, up: true, asked: None, since: now, last_error: None }
    }

    /// Work on this store succeeded.
    fn succeeded(&mut self) {
        self.failures = 0;
        self.probes = 0;
    }

    /// Work failed because the store did not answer, or refused to work now. Returns whether the store
    /// must be asked if it is down.
    fn failed(&mut self, now: Instant, error: &str) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error.to_owned());
        let asks = self.up
            && self.failures >= FAILURES_TO_ASK
            && self.asked.is_none_or(|at| now.saturating_duration_since(at) >= ASK_EVERY);
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// Whether some work succeeded since the store must be asked.
    const fn worked_since_asked(&self) -> bool {
        self.failures < FAILURES_TO_ASK
    }

    /// The store was asked for several buckets and answered for none.
    fn down(&mut self, now: Instant, error: &str) {
        (self.up, self.since) = (false, now);
        self.last_error = Some(error.to_owned());
    }

    /// A probe was answered. The waits between probes start afresh only after real work succeeded.
    fn answered(&mut self, now: Instant) {
        self.failures = 0;
        (self.up, self.since) = (true, now);
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
    /// How long that has been so, whatever the wall clock did.
    pub lasting: Duration,
    /// The last failure to reach it, or to be let in.
    pub last_error: Option<String>,
}

/// The health of one store, shared.
#[derive(Debug)]
pub(super) struct StoreHealth {
    name: &'static str,
    health: Mutex<Health>,
    up: watch::Sender<bool>,
    doubted: Notify,
}

/// What the prober has to find out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Question {
    /// Much fails: is it the store, or some of its buckets?
    IsItDown,
    /// The store is down: does it answer again?
    IsItBack,
}

impl StoreHealth {
    /// A store that is up as far as we know; `name` is "source" or "target".
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            health: Mutex::new(Health::new(Instant::now())),
            up: watch::Sender::new(true),
            doubted: Notify::new(),
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
        if health.failed(Instant::now(), &error.to_string()) {
            self.doubted.notify_one();
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

    /// Waits until the store is down.
    #[cfg(test)]
    pub(super) async fn wait_down(&self) {
        let mut up = self.up.subscribe();
        drop(up.wait_for(|up| !*up).await);
    }

    /// Waits until the store must be asked. One that is down is asked ever more rarely.
    pub(super) async fn question(&self) -> Question {
        if self.is_up() {
            self.doubted.notified().await;
            return Question::IsItDown;
        }
        let wait = self.health().next_probe();
        tokio::time::sleep(wait).await;
        Question::IsItBack
    }

    /// What the store answered for several buckets, of which one is enough to be up: then the others fail
    /// by themselves. So is work that succeeded since the question, of a bucket that may not be among them.
    pub(super) fn asked(&self, result: Result<(), StoreError>) {
        let mut health = self.health();
        match result {
            Ok(()) => health.failures = 0,
            Err(_) if health.worked_since_asked() => {}
            Err(error) => {
                health.down(Instant::now(), &error.to_string());
                tracing::warn!(store = self.name, %error, "The store is down. Work waits and the store is probed.");
                self.up.send_replace(false);
            }
        }
    }

    /// A probe of a store that was down came back. Returns whether it is up.
    pub(super) fn probed(&self, result: Result<(), StoreError>) -> bool {
        if let Err(error) = result {
            self.health().last_error = Some(error.to_string());
            return false;
        }
        // Held until everybody is told, so that a failure in between is not overwritten by this.
        let mut health = self.health();
        health.answered(Instant::now());
        tracing::info!(store = self.name, "The store answers again.");
        self.up.send_replace(true);
        true
    }

    pub(super) fn state(&self) -> StoreState {
        let health = self.health();
        StoreState {
            up: health.up,
            lasting: health.since.elapsed(),
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
    fn a_store_is_asked_after_failures_in_a_row_before_it_counts_as_down() {
        let now = Instant::now();
        let mut health = Health::new(now);
        let mut asked = |times| (0..times).filter(|_| health.failed(now, "refused")).count();
        assert_eq!(asked(FAILURES_TO_ASK - 1), 0);
        assert_eq!(asked(20), 1, "not again while it is asked");
        assert!(health.failed(now + ASK_EVERY, "refused"));
        assert!(health.up);
        health.down(now + ASK_EVERY, "refused");
        assert_eq!((health.up, health.since), (false, now + ASK_EVERY));
        assert!(!health.failed(now + 2 * ASK_EVERY, "refused"));
    }

    #[test]
    fn a_store_that_works_for_some_bucket_is_not_down_though_those_asked_do_not_answer() {
        let now = Instant::now();
        let mut health = Health::new(now);
        assert_eq!((0..20).filter(|_| health.failed(now, "refused")).count(), 1);
        assert!(!health.worked_since_asked());
        health.succeeded();
        health.failed(now, "refused");
        assert!(health.worked_since_asked());
    }

    #[test]
    fn one_success_between_failures_keeps_a_store_from_being_asked() {
        let now = Instant::now();
        let mut health = Health::new(now);
        for _ in 1..FAILURES_TO_ASK {
            assert!(!health.failed(now, "refused"));
        }
        health.succeeded();
        assert!(!health.failed(now, "refused"));
    }

    #[test]
    fn probes_space_out_until_real_work_succeeds() {
        let mut health = Health::new(Instant::now());
        assert_eq!(health.next_probe(), FIRST_PROBE);
        assert_eq!(health.next_probe(), FIRST_PROBE * 2);
        health.answered(Instant::now());
        assert_eq!(health.next_probe(), FIRST_PROBE * 4);
        for _ in 0..20 {
            health.next_probe();
        }
        assert_eq!(health.next_probe(), LAST_PROBE);
        health.succeeded();
        assert_eq!(health.next_probe(), FIRST_PROBE);
    }
}
