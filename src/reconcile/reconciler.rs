//! The reconciler inside `run`: starts the passes that are due and tells what came of them.
//!
//! **Promise.** What no event announced is found by a pass at the start, by the interval, after a gap
//! or on demand, and marked in the journal. What the journal held at the start goes first, for a while: a
//! pass would find it all again, and take the stores' time from it. **On error** a pass is tried again, ever
//! later. **On cancellation**, as on a crash, passes end where they are; the next start walks every bucket again,
//! beginning with what was left.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::checkpoint::Checkpoint;
use super::progress::{BucketProgress, Progress};
use super::repairs::backlog;
use super::schedule::{Ended, Job, Schedule, Trigger};
use super::walk::Walk;
use crate::clock;
use crate::config::Settings;
use crate::config::settings::BucketSettings;
use crate::data_dir::DataDir;
use crate::deletes::{Delays, Hold};
use crate::gaps::GapBook;
use crate::journal::Journal;
use crate::metrics::{Metrics, PassOutcome, Stage};
use crate::remembered::Remembered;
use crate::stores::Stores;
use crate::workqueue::WorkQueue;

/// How often the clock and the gap book are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// After the start, passes wait at most this long for the backlog to drain.
const START_WAITS: Duration = Duration::from_mins(1);
/// Poll interval while they wait.
const START_LOOK: Duration = Duration::from_millis(100);
/// So few pending keys are no backlog.
const FEW: u64 = 1_000;

/// What the reconciler shares with the other stages.
#[derive(Debug)]
pub struct Parts {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Where repairs go.
    pub journal: Journal,
    /// What is pending: repairs wait while it is much.
    pub queue: Arc<WorkQueue>,
    /// The first durable record that the feeder has not read yet.
    pub position: Arc<AtomicU64>,
    /// Which buckets must be walked.
    pub gaps: Arc<GapBook>,
    /// The brake.
    pub hold: Hold,
    /// Deletes that wait for their time.
    pub delays: Arc<Delays>,
    /// What is known of single objects.
    pub remembered: Arc<Remembered>,
    /// What is counted.
    pub metrics: Metrics,
}

/// Nothing of this name is replicated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bucket {} is not in the configuration", .0.escape_debug())]
pub struct UnknownBucket(pub String);

/// Walks the buckets.
#[derive(Debug)]
pub struct Reconciler {
    parts: Parts,
    dir: PathBuf,
    buckets: BTreeMap<Arc<str>, (BucketSettings, Arc<Progress>)>,
    schedule: Mutex<Schedule>,
    asked: Notify,
}

impl Reconciler {
    /// A reconciler to which every bucket is due; it begins with [`Reconciler::run`].
    pub fn new(parts: Parts) -> Self {
        // What an earlier process left.
        parts.hold.approved_before(parts.journal.stats().next_lsn);
        let entry = |bucket: &BucketSettings| {
            let progress = Arc::new(Progress::new(&bucket.source));
            (Arc::from(&*bucket.source), (bucket.clone(), progress))
        };
        let buckets: BTreeMap<Arc<str>, _> = parts.settings.buckets.iter().map(entry).collect();
        let interval = parts.settings.reconcile.interval;
        let schedule = Schedule::new(interval, buckets.keys().cloned(), Instant::now());
        let dir = DataDir::at(&parts.settings.data_dir).reconcile();
        Self { parts, dir, buckets, schedule: Mutex::new(schedule), asked: Notify::new() }
    }

    /// Asks for a pass as soon as possible: of one bucket, or of all; whole, or of the keys that begin
    /// with `prefix`. Returns how many buckets that is.
    pub fn request(
        &self,
        bucket: Option<&str>,
        prefix: Option<&str>,
    ) -> Result<u64, UnknownBucket> {
        let now = Instant::now();
        let mut schedule = self.schedule();
        let mut asked = 0;
        for name in
            self.buckets.keys().filter(|name| bucket.is_none_or(|bucket| bucket == &***name))
        {
            asked += u64::from(schedule.request(name, prefix, now));
        }
        drop(schedule);
        self.asked.notify_one();
        match bucket {
            Some(bucket) if asked == 0 => Err(UnknownBucket(bucket.to_owned())),
            _ => Ok(asked),
        }
    }

    /// All buckets, by name.
    pub fn status(&self) -> Vec<BucketProgress> {
        self.buckets.values().map(|(_, progress)| progress.show()).collect()
    }

    /// Runs passes until cancelled; every bucket is due. It may be run again afterwards.
    pub async fn run(self: Arc<Self>, stores: Stores, stop: CancellationToken) {
        let last_complete_ms = self.last_complete_ms().await;
        let start = Instant::now();
        self.schedule().restarted(|name| last_complete_ms.get(name).copied(), start);
        let mut passes = JoinSet::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(job) = self.next() {
                let (this, stores) = (Arc::clone(&self), stores.clone());
                passes.spawn(async move { this.pass(job, stores, start + START_WAITS).await });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = passes.join_next() => match ended.map_err(tokio::task::JoinError::try_into_panic) {
                    Ok((job, ended)) => self.ended(&job, ended),
                    Err(Ok(panic)) => std::panic::resume_unwind(panic),
                    Err(Err(_)) => {}
                },
                () = self.asked.notified() => {}
                _ = look.tick() => {
                    let gaps = self.parts.gaps.list();
                    let gaps = gaps.iter().map(|gap| gap.bucket.as_str());
                    self.schedule().gaps(gaps, Instant::now());
                }
            }
        }
        passes.shutdown().await;
    }

    fn next(&self) -> Option<Job> {
        self.schedule().next(Instant::now())
    }

    /// When each bucket was last compared as a whole, by an earlier process too.
    async fn last_complete_ms(&self) -> BTreeMap<Arc<str>, i64> {
        let mut all = BTreeMap::new();
        for (name, (_, progress)) in &self.buckets {
            let last = Checkpoint::load(&self.dir, name).await.last_complete_ms;
            progress.last_complete(last);
            all.extend(last.map(|at_ms| (Arc::clone(name), at_ms)));
        }
        all
    }

    /// Runs one pass. Until `waits`, the backlog goes first, unless a person asked.
    async fn pass(&self, job: Job, stores: Stores, waits: Instant) -> (Job, Ended) {
        let Some((settings, progress)) = self.buckets.get(&job.bucket) else {
            return (job, Ended::Failed);
        };
        if job.trigger != Trigger::Request {
            // Its error says that the time is over.
            drop(tokio::time::timeout_at(waits, self.backlog_is_small()).await);
        }
        progress.begin(&job);
        let (parts, dir) = (&self.parts, self.dir.as_path());
        let walk = Walk { parts, stores: &stores, settings, progress, dir, job: &job };
        let (began, trigger) = (Instant::now(), job.trigger.name());
        let (bucket, prefix) = (&*job.bucket, job.prefix.as_ref().map(|p| p.escape_debug()));
        let prefix = prefix.map(|prefix| prefix.to_string());
        let result = walk.run().await;
        let took_ms = clock::millis(began.elapsed());
        let shown = progress.show();
        let (keys, drift) = (shown.keys_compared, shown.drift);
        parts.metrics.keys_compared(keys);
        match result {
            Ok(ended) => {
                let outcome = match ended {
                    Ended::Resumed => PassOutcome::Resumed,
                    Ended::Complete | Ended::Failed => PassOutcome::Complete,
                };
                parts.metrics.reconcile_pass(outcome);
                progress.end(None);
                tracing::info!(
                    bucket,
                    prefix,
                    trigger,
                    keys,
                    missing = drift.missing,
                    extra = drift.extra,
                    different = drift.different,
                    newer = drift.newer,
                    unverifiable = drift.unverifiable,
                    took_ms,
                    "Both sides of a bucket were compared."
                );
                (job, ended)
            }
            Err(error) => {
                parts.metrics.reconcile_pass(PassOutcome::Failed);
                parts.metrics.error(Stage::Reconcile, "pass");
                progress.end(Some(error.to_string()));
                tracing::error!(bucket, prefix, trigger, keys, %error, took_ms, "The two sides of a bucket could not be compared; nothing was deleted by this pass, and there will be another one.");
                (job, Ended::Failed)
            }
        }
    }

    /// Waits until hardly anything is left to be worked on.
    async fn backlog_is_small(&self) {
        let Parts { journal, queue, position, .. } = &self.parts;
        while backlog(journal, queue, position) > FEW {
            tokio::time::sleep(START_LOOK).await;
        }
    }

    fn ended(&self, job: &Job, how: Ended) {
        let gap = self.parts.gaps.list().iter().any(|gap| *gap.bucket == *job.bucket);
        self.schedule().ended(job, how, gap, Instant::now(), rand::random());
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
