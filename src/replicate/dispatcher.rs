//! Ready key + permit → worker; and what the outcome means for the key, the limits and the stores' health.
//!
//! Two lanes run side by side, small and large, each with its own limit. On a stop no further key is
//! taken; workers in flight are waited for, within a limit, and what is cut off then is still in the
//! journal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::attempt::AttemptError;
use super::buckets::Buckets;
use super::health::{StoreHealth, StoreState};
use super::limit::{Limit, Permit};
use super::remove::unseen_for;
use super::worker::{Done, Worker};
use crate::clock;
use crate::metrics::{Action, Metrics, Stage};
use crate::store::{ErrorKind, Side, StoreError};
use crate::traces;
use crate::workqueue::{Outcome, Size, Work, WorkQueue};

/// A failure of these kinds will not pass by itself, so it waits longest from the start.
const PERMANENT_FIRST_WAIT: Duration = Duration::from_secs(15);

/// The lanes, their limits and the workers; shared by their tasks.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) worker: Worker,
    pub(super) queue: Arc<WorkQueue>,
    pub(super) metrics: Metrics,
    pub(super) source: StoreHealth,
    pub(super) target: StoreHealth,
    pub(super) buckets: Buckets,
    pub(super) small: Limit,
    pub(super) large: Limit,
    pub(super) workers: TaskTracker,
    /// How many hold replication: no key is taken meanwhile.
    pub(super) pauses: watch::Sender<usize>,
    /// Bounds the log lines about failed keys.
    pub(super) lines: Lines,
    /// And those about buckets that back off, lest the others crowd them out.
    pub(super) bucket_lines: Lines,
}

/// So many failed keys are told of in one second; the status page and the metrics have them all.
const LINES_A_SECOND: u32 = 20;

/// A limit on log lines.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<(i64, u32)>);

impl Lines {
    /// Whether one more line may be written at this time.
    fn admit(&self, now_ms: i64) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (second, lines) = &mut *state;
        if *second != now_ms / 1_000 {
            (*second, *lines) = (now_ms / 1_000, 0);
        }
        *lines = lines.saturating_add(1);
        *lines <= LINES_A_SECOND
    }
}

impl Dispatcher {
    /// Hands out keys of one lane until cancelled.
    pub(super) async fn run_lane(self: Arc<Self>, size: Size, stop: CancellationToken) {
        loop {
            let taken = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                work = self.take(size) => work,
            };
            let (this, stop) = (Arc::clone(&self), stop.clone());
            self.workers.spawn(async move { this.work(taken, size, &stop).await });
        }
    }

    /// What is known of both stores: source, target.
    pub(super) fn stores(&self) -> (StoreState, StoreState) {
        (self.source.state(), self.target.state())
    }

    /// The next key of the lane, once both stores are up and the limit admits it. The permit is taken
    /// first, so that the key taken is the most urgent one at the moment it can be worked on.
    async fn take(&self, size: Size) -> Work {
        let limit = self.limit(size);
        let permit = limit.acquire().await;
        self.source.wait_up().await;
        self.target.wait_up().await;
        let mut pauses = self.pauses.subscribe();
        let work = loop {
            // The sender is ours, so these never fail.
            drop(pauses.wait_for(|pauses| *pauses == 0).await);
            tokio::select! {
                biased;
                _ = pauses.changed() => {}
                work = self.queue.next(size, || limit.share()) => break work,
            }
        };
        // The worker gives it back; see `work`.
        permit.keep();
        work
    }

    /// Works on a key, and then on the next one that is ready: in a backlog a worker need not wait for
    /// the lane to hand it out.
    async fn work(&self, first: Work, size: Size, stop: &CancellationToken) {
        // Dropped last: when the permit is free, the lane looks for who may have it.
        let _nudge = Nudge { queue: &self.queue, size };
        let _permit = Permit::kept(self.limit(size));
        let mut next = Some(first);
        while let Some(work) = next {
            self.try_once(&work, size).await;
            // Keys that need no request must not keep the thread from everybody else.
            tokio::task::coop::consume_budget().await;
            next = self.take_now(size, stop);
        }
    }

    /// The next key of the lane, if one is ready and all that [`Self::take`] would wait for is given.
    pub(super) fn take_now(&self, size: Size, stop: &CancellationToken) -> Option<Work> {
        let up = self.source.is_up() && self.target.is_up();
        let held = stop.is_cancelled() || *self.pauses.borrow() > 0;
        if held || !up {
            return None;
        }
        self.queue.next_now(size, self.limit(size).room()?)
    }

    /// One try of one key, to the end.
    pub(super) async fn try_once(&self, work: &Work, size: Size) {
        let mut handback = Handback { queue: &self.queue, work, done: false };
        let attempt = traces::attempt(work);
        let result = traces::within(attempt, self.worker.converge(work)).await;
        let outcome = match result {
            Ok(done) => self.succeeded(work, size, done),
            Err(error) => self.failed(work, size, &error),
        };
        if let Some(attempt) = attempt {
            attempt.end(work, &outcome);
        }
        handback.done = true;
        self.queue.complete(work, outcome);
    }

    fn succeeded(&self, work: &Work, size: Size, done: Done) -> Outcome {
        self.source.succeeded();
        if done.wrote() {
            self.target.succeeded();
        }
        let bucket = &work.key.bucket;
        self.buckets.succeeded(bucket, done, || self.recovers(bucket));
        if done == Done::Large {
            return Outcome::Large;
        }
        if done == Done::Unseen
            && let Some(wait) = unseen_for(&work.pending)
        {
            tracing::debug!(key = %work.key, ?wait, "The source does not show an object that was reported to be there; it is asked again.");
            return Outcome::Unseen(wait);
        }
        if self.limit(size).succeeded() {
            self.queue.nudge(size);
        }
        let lag_ms = clock::now_ms() - work.pending.since_ms;
        match done {
            Done::Copied(bytes) => self.metrics.copied(bytes),
            Done::Deleted => self.metrics.replicated(Action::Deleted),
            Done::Tagged => self.metrics.replicated(Action::Tagged),
            Done::Unchanged => self.metrics.replicated(Action::Unchanged),
            Done::Kept => self.metrics.replicated(Action::Kept),
            Done::Ghost => self.metrics.replicated(Action::Ghost),
            Done::Held | Done::Delayed | Done::Unseen | Done::Large => {}
        }
        // No event announced what the reconciler found, so it has no lag.
        let live = work.pending.origin.is_live();
        if live && done.wrote() {
            self.metrics.lag(lag_ms);
        }
        tracing::debug!(key = %work.key, ?done, lag_ms, "A key is settled.");
        Outcome::Settled
    }

    fn failed(&self, work: &Work, size: Size, error: &AttemptError) -> Outcome {
        if let Some(stage) = blamed(error) {
            self.metrics.error(stage, error.class());
        }
        let bucket = &work.key.bucket;
        self.buckets.failed(bucket, error, || self.backs_off(bucket, error));
        // After it is counted: whoever takes the store down forgives what was counted before.
        if let AttemptError::Store(error) = error
            && !self.health(error.side).is_up()
        {
            self.forgive(bucket, error.side);
        }
        let wait = match error {
            AttemptError::Store(error) => self.store_failed(work, size, error),
            AttemptError::Disk { .. } | AttemptError::Stopping => {
                self.worker.retry.delay(work.pending.attempts)
            }
        };
        self.log_failure(work, error, wait);
        Outcome::Retry { after: wait, class: error.class(), reason: error.to_string().into() }
    }

    /// Books a store's error on that store. Returns how long the key waits for its next try.
    fn store_failed(&self, work: &Work, size: Size, error: &StoreError) -> Duration {
        self.health(error.side).failed(error);
        match error.kind {
            ErrorKind::Transient | ErrorKind::Throttled => {
                // One bucket's failures must not slow the others down.
                if self.buckets.unhealthy(&work.key.bucket).is_none() {
                    self.limit(size).pushed_back();
                }
                self.worker.retry.delay(work.pending.attempts)
            }
            // The object moved under us: its new state is read at once.
            ErrorKind::Changed if work.pending.attempts == 0 => Duration::ZERO,
            ErrorKind::Changed | ErrorKind::NotFound => {
                self.worker.retry.delay(work.pending.attempts)
            }
            ErrorKind::Corrupt if work.pending.attempts < 3 => {
                self.worker.retry.delay(work.pending.attempts)
            }
            ErrorKind::NoSuchBucket
            | ErrorKind::Denied
            | ErrorKind::Invalid
            | ErrorKind::Corrupt => {
                let first = PERMANENT_FIRST_WAIT.min(self.worker.retry.max);
                self.worker.retry.delay(work.pending.attempts).max(first)
            }
        }
    }

    /// The first failure of a key and every power of two after it are worth a line, but not of every key
    /// of a bucket that nobody may write: that must not fill the disk with logs.
    fn log_failure(&self, work: &Work, error: &AttemptError, wait: Duration) {
        let attempt = work.pending.attempts.saturating_add(1);
        let class = error.class();
        let try_again_in_ms = clock::millis(wait);
        if attempt.is_power_of_two() && self.lines.admit(clock::now_ms()) {
            tracing::warn!(key = %work.key, attempt, class, %error, try_again_in_ms, "A key could not be replicated; it is parked and will be tried again.");
        } else {
            tracing::debug!(key = %work.key, attempt, class, %error, try_again_in_ms, "A key could not be replicated; it is parked and will be tried again.");
        }
    }

    fn backs_off(&self, bucket: &Arc<str>, error: &AttemptError) {
        self.queue.set_failing(bucket, true);
        if self.bucket_lines.admit(clock::now_ms()) {
            tracing::warn!(%bucket, %error, "A bucket is unhealthy and backs off: until one of its keys succeeds, they are tried one at a time. Other buckets are not affected.");
        }
    }

    fn recovers(&self, bucket: &Arc<str>) {
        self.queue.set_failing(bucket, false);
        if self.bucket_lines.admit(clock::now_ms()) {
            tracing::info!(%bucket, "A bucket is healthy again.");
        }
    }

    /// While a store is down none of its buckets fails by itself: their keys wait for the store, so they need not be
    /// set aside, and no bucket becomes a gap.
    pub(super) fn forgive_all(&self, side: Side) {
        for bucket in self.worker.buckets.keys() {
            self.forgive(bucket, side);
        }
    }

    fn forgive(&self, bucket: &Arc<str>, side: Side) {
        self.buckets.forgive(bucket, side, || self.queue.set_failing(bucket, false));
    }

    pub(super) const fn health(&self, side: Side) -> &StoreHealth {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    const fn limit(&self, size: Size) -> &Limit {
        match size {
            Size::Small => &self.small,
            Size::Large => &self.large,
        }
    }
}

/// The stage that a failed try counts for; none while the process ends.
const fn blamed(error: &AttemptError) -> Option<Stage> {
    match error {
        AttemptError::Store(error) => match error.side {
            Side::Source => Some(Stage::Source),
            Side::Target => Some(Stage::Target),
        },
        AttemptError::Disk { .. } => Some(Stage::Journal),
        AttemptError::Stopping => None,
    }
}

/// Tells the lane that a worker takes no further key, even if it panics.
struct Nudge<'a> {
    queue: &'a WorkQueue,
    size: Size,
}

impl Drop for Nudge<'_> {
    fn drop(&mut self) {
        self.queue.nudge(self.size);
    }
}

/// Gives a key back even if its worker panics: a key must never stay in flight for ever.
struct Handback<'a> {
    queue: &'a WorkQueue,
    work: &'a Work,
    done: bool,
}

impl Drop for Handback<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.queue.complete(
                self.work,
                Outcome::Retry {
                    after: PERMANENT_FIRST_WAIT,
                    class: "internal",
                    reason: "the worker stopped in the middle; please report the panic in the log"
                        .into(),
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_full_of_failing_keys_does_not_flood_the_log() {
        let lines = Lines::default();
        let told = (0..1_000).filter(|_| lines.admit(5_500)).count();
        assert_eq!(told, LINES_A_SECOND as usize);
        assert!(lines.admit(6_000));
    }
}
