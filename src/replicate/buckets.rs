//! Which buckets fail as a whole: one over its quota, or whose requests hang, backs off by itself.
//!
//! [`BucketHealth`] is the pure rule; [`Buckets`] shares it between the workers. Whether a whole store is
//! down is for `health` to find out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::AttemptError;
use super::worker::Done;
use crate::store::{ErrorKind, Side};

/// So many failures of one bucket in a row, without one success on that side, make it back off.
const FAILURES_TO_BACK_OFF: u32 = 8;

/// What is known of one bucket: failures in a row at each side.
#[derive(Debug, Default)]
struct BucketHealth {
    source: u32,
    target: u32,
    reason: Option<Arc<str>>,
    /// Tries in a row that ended well and wrote nothing.
    unwritten: u32,
    /// Since when it backs off; `None` while it does not.
    since: Option<Instant>,
}

/// A bucket that backs off.
#[derive(Debug, Clone)]
pub struct Unhealthy {
    /// What failed last.
    pub reason: Arc<str>,
    /// How long it has backed off.
    pub lasting: Duration,
}

impl BucketHealth {
    fn failed(&mut self, side: Side, reason: &str, now: Instant) {
        let failures = match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        };
        *failures = failures.saturating_add(1);
        self.unwritten = 0;
        self.reason = Some(reason.into());
        if self.backs_off() {
            self.since.get_or_insert(now);
        }
    }

    /// The source answered. The target works, too, if it copied something, or if it has not failed for as long as it
    /// takes to back off: there may be nothing to copy. What it was not asked for says nothing of it.
    fn succeeded(&mut self, done: Done) {
        self.source = 0;
        if !done.is_source_alone() {
            self.unwritten = self.unwritten.saturating_add(1);
        }
        if done.shows_room() || self.unwritten >= FAILURES_TO_BACK_OFF {
            (self.target, self.unwritten) = (0, 0);
        }
        if !self.backs_off() {
            self.since = None;
        }
    }

    /// That store as a whole does not answer, which says nothing of its buckets.
    fn forgive(&mut self, side: Side) {
        match side {
            Side::Source => self.source = 0,
            Side::Target => (self.target, self.unwritten) = (0, 0),
        }
        if !self.backs_off() {
            self.since = None;
        }
    }

    fn backs_off(&self) -> bool {
        self.source.max(self.target) >= FAILURES_TO_BACK_OFF
    }
}

/// One bucket, shared.
#[derive(Debug, Default)]
struct Shared {
    health: Mutex<BucketHealth>,
    /// Whether there is any failure in a row: as a rule there is none, and no lock is taken.
    failing: AtomicBool,
}

/// The health of all configured buckets, by the source's name.
#[derive(Debug)]
pub(super) struct Buckets(HashMap<Arc<str>, Shared>);

impl Buckets {
    /// All of them work as far as we know.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Self {
        Self(names.map(|name| (Arc::clone(name), Shared::default())).collect())
    }

    /// Takes note of a failed try, if it says that its bucket may be the reason. `changed` is told when
    /// the bucket begins to back off.
    pub(super) fn failed(&self, bucket: &str, error: &AttemptError, changed: impl FnOnce()) {
        let AttemptError::Store(error) = error else { return };
        if !matches!(error.kind, ErrorKind::Transient | ErrorKind::Throttled) {
            return;
        }
        let Some(shared) = self.0.get(bucket) else { return };
        let mut health = shared.health.lock().unwrap_or_else(PoisonError::into_inner);
        let before = health.backs_off();
        health.failed(error.side, &error.to_string(), Instant::now());
        shared.failing.store(true, Ordering::Relaxed);
        if !before && health.backs_off() {
            // Under the lock, so that a recovery in between is not overwritten by this.
            changed();
        }
    }

    /// Takes note of a try that ended well. `changed` is told when the bucket backs off no longer.
    pub(super) fn succeeded(&self, bucket: &str, done: Done, changed: impl FnOnce()) {
        self.update(bucket, |health| health.succeeded(done), changed);
    }

    /// That side is down as a whole: what failed there says nothing of the bucket. `changed` is told when the bucket
    /// backs off no longer.
    pub(super) fn forgive(&self, bucket: &str, side: Side, changed: impl FnOnce()) {
        self.update(bucket, |health| health.forgive(side), changed);
    }

    fn update(&self, bucket: &str, update: impl FnOnce(&mut BucketHealth), changed: impl FnOnce()) {
        let Some(shared) = self.0.get(bucket) else { return };
        if !shared.failing.load(Ordering::Relaxed) {
            return;
        }
        let mut health = shared.health.lock().unwrap_or_else(PoisonError::into_inner);
        let before = health.backs_off();
        update(&mut health);
        shared.failing.store(health.source.max(health.target) > 0, Ordering::Relaxed);
        if before && !health.backs_off() {
            changed();
        }
    }

    /// Why the bucket backs off, and how long it has, if it does.
    pub(super) fn unhealthy(&self, bucket: &str) -> Option<Unhealthy> {
        let shared = self.0.get(bucket)?;
        if !shared.failing.load(Ordering::Relaxed) {
            return None;
        }
        let health = shared.health.lock().unwrap_or_else(PoisonError::into_inner);
        let (reason, since) = (health.reason.clone()?, health.since?);
        Some(Unhealthy { reason, lasting: since.elapsed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_backs_off_after_failures_in_a_row_until_that_side_works() {
        let (mut health, now) = (BucketHealth::default(), Instant::now());
        for _ in 1..FAILURES_TO_BACK_OFF {
            health.failed(Side::Target, "full", now);
        }
        health.succeeded(Done::Copied(1));
        health.failed(Side::Target, "full", now);
        assert!(!health.backs_off() && health.since.is_none());
        for later in 1..=2 * FAILURES_TO_BACK_OFF {
            health.failed(Side::Target, "full", now + Duration::from_secs(later.into()));
        }
        let began = now + Duration::from_secs(u64::from(FAILURES_TO_BACK_OFF) - 1);
        assert_eq!(health.since, Some(began));
        for _ in 0..2 * FAILURES_TO_BACK_OFF {
            health.succeeded(Done::Large);
        }
        health.succeeded(Done::Deleted);
        assert!(health.backs_off(), "nothing was copied there");
        assert_eq!(health.since, Some(began));
        health.succeeded(Done::Copied(1));
        assert!(!health.backs_off() && health.since.is_none());
    }
}
