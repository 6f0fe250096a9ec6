//! Making the target agree with the source, one key at a time.
//!
//! "Replicated" means: the source was read after the key was marked dirty, and the target has
//! acknowledged what was read, with the same `ETag` (or a proven pair). Events only say which keys to
//! look at; `plan` decides on what the stores answer; `worker`, `multipart`, `remove` and `delete` carry it out;
//! `dispatcher` decides when.

mod attempt;
mod buckets;
mod delete;
mod dispatcher;
mod health;
mod limit;
mod multipart;
mod pace;
mod plan;
mod prober;
mod remove;
#[cfg(test)]
mod tests;
mod uploads;
mod whole;
mod worker;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::deletes::{Delays, Gate, Hold};
use crate::metrics::Metrics;
use crate::retry::RetryPolicy;
use crate::store::Side;
use crate::stores::Stores;
use crate::workqueue::{Size, WorkQueue};

use buckets::Buckets;
pub use buckets::Unhealthy;
use delete::Deleter;
use dispatcher::Dispatcher;
use health::StoreHealth;
pub use health::StoreState;
use limit::Limit;
use pace::Pace;
pub(crate) use plan::{carried_headers, remembers, tag_count, tells_all};
use remove::Forth;
use uploads::Uploads;
use worker::{Mapping, Worker};

/// The replication stage, running.
#[derive(Debug)]
pub struct Replicator {
    dispatcher: Arc<Dispatcher>,
    stop: CancellationToken,
    panicked: CancellationToken,
}

/// Which way objects travel.
#[derive(Debug)]
pub enum Direction {
    /// From the protected store to its live copy. Deletes pass the brake, or wait for their time.
    Forth(Hold, Arc<Delays>),
    /// From the live copy to a store that is to be filled again: a key that is not at the source is
    /// left as it is, and the objects carry no mark of evermirror.
    Back,
}

impl Replicator {
    /// Begins to work on what `queue` holds, and to abort uploads that an earlier process left. Waits
    /// for no store.
    pub async fn start(
        settings: &Settings,
        stores: Stores,
        queue: Arc<WorkQueue>,
        direction: Direction,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let Stores { source, target } = stores;
        let (uploads, left_over) =
            Uploads::open(&DataDir::at(&settings.data_dir).uploads()).await?;
        let (stop, panicked) = (CancellationToken::new(), CancellationToken::new());
        let aborting = left_over.abort(target.clone());
        let aborting = stop.clone().run_until_cancelled_owned(aborting);
        tokio::spawn(guarded(aborting.map(Option::unwrap_or_default), panicked.clone()));
        let forth = match direction {
            Direction::Forth(hold, delays) => {
                let gate = Gate::new(source.clone(), hold.clone(), &settings.buckets);
                let (deleter, deleting) = Deleter::new(gate, target.clone());
                tokio::spawn(guarded(deleting, panicked.clone()));
                Some(Forth { hold, delays, deleter })
            }
            Direction::Back => None,
        };
        let replicate = &settings.replicate;
        let worker = Worker {
            forth,
            source,
            target,
            target_settings: settings.target.clone(),
            buckets: mappings(settings),
            settings: replicate.clone(),
            retry: RetryPolicy { initial: replicate.retry_initial, max: replicate.retry_max },
            uploads,
            pace: Pace::new(replicate.bandwidth.map(|rate| rate.0)),
            target_kms: AtomicBool::new(settings.target.encrypts_with_kms()),
            source_partless: AtomicBool::new(false),
            source_head_counts: AtomicBool::new(false),
            source_untagged: AtomicBool::new(false),
        };
        let several = worker.buckets.len() > 1;
        let dispatcher = Arc::new(Dispatcher {
            buckets: Buckets::new(worker.buckets.keys()),
            worker,
            queue,
            metrics,
            source: StoreHealth::new("source"),
            target: StoreHealth::new("target"),
            small: Limit::new(replicate.concurrency, several),
            large: Limit::new(replicate.large_concurrency, several),
            workers: TaskTracker::new(),
            pauses: watch::Sender::default(),
            lines: dispatcher::Lines::default(),
            bucket_lines: dispatcher::Lines::default(),
        });
        for size in [Size::Small, Size::Large] {
            let lane = Arc::clone(&dispatcher).run_lane(size, stop.clone());
            tokio::spawn(guarded(lane, panicked.clone()));
        }
        for side in [Side::Source, Side::Target] {
            let probe = Arc::clone(&dispatcher).run_probe(side, stop.clone());
            tokio::spawn(guarded(probe, panicked.clone()));
        }
        Ok(Self { dispatcher, stop, panicked })
    }

    /// Takes no further key, and waits for those in flight.
    pub async fn drain(&self) {
        self.stop.cancel();
        self.dispatcher.workers.close();
        self.dispatcher.workers.wait().await;
    }

    /// Takes no further key until the guard is dropped; those in flight go on.
    pub fn pause(&self) -> Pause<'_> {
        self.dispatcher.pauses.send_modify(|pauses| *pauses += 1);
        Pause(&self.dispatcher.pauses)
    }

    /// Resolves when one of its tasks has panicked: nothing more can be relied on.
    pub async fn panicked(&self) {
        self.panicked.cancelled().await;
    }

    /// Whether that has happened.
    pub fn has_panicked(&self) -> bool {
        self.panicked.is_cancelled()
    }

    /// What is known of the source and of the target.
    pub fn stores(&self) -> (StoreState, StoreState) {
        self.dispatcher.stores()
    }

    /// Why a bucket backs off, by the source's name; `None` while it is healthy.
    pub fn unhealthy(&self, bucket: &str) -> Option<Unhealthy> {
        self.dispatcher.buckets.unhealthy(bucket)
    }

    /// How many keys may be in flight now, large ones included.
    pub fn concurrency(&self) -> u64 {
        self.dispatcher.small.size() + self.dispatcher.large.size()
    }
}

/// While it lives, no key is taken.
#[derive(Debug)]
pub struct Pause<'a>(&'a watch::Sender<usize>);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|pauses| *pauses = pauses.saturating_sub(1));
    }
}

/// Runs one of the stage's tasks, and tells of its panic: without it keys would wait for ever. A worker's
/// panic is another matter, and parks its key.
async fn guarded(task: impl Future<Output = ()>, panicked: CancellationToken) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        panicked.cancel();
    }
}

fn mappings(settings: &Settings) -> std::collections::HashMap<Arc<str>, Mapping> {
    let entry = |bucket: &crate::config::settings::BucketSettings| {
        let mapping = Mapping { target: bucket.target_name().into(), settings: bucket.clone() };
        (bucket.source.as_str().into(), mapping)
    };
    settings.buckets.iter().map(entry).collect()
}
