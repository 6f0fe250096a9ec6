//! Making the target agree with the source, one key at a time.
//!
//! "Replicated" means: the source was read after the key was marked dirty, and the target has
//! acknowledged what was read, with the same `ETag` (or a proven pair). Events only say which keys to
//! look at; `plan` decides on what the stores answer; `worker`, `multipart`, `remove` and `delete` carry it out;
//! `dispatcher` decides when.

mod delay;
mod delete;
mod discards;
mod dispatcher;
mod guard;
mod health;
mod hold;
mod limit;
mod multipart;
mod pace;
mod plan;
mod remove;
pub(crate) mod retry;
mod uploads;
mod whole;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Settings;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::workqueue::WorkQueue;

pub use delay::{DelayedDeletes, Delays};
use delete::Deleter;
pub use discards::Discards;
use dispatcher::{Dispatcher, Probed, Size};
use health::StoreHealth;
pub use health::StoreState;
pub use hold::{Decision, DecisionError, HeldDeletes, Hold};
use limit::Limit;
use pace::Pace;
pub(crate) use plan::{carried_headers, remembers, tag_count, tells_all};
use retry::RetryPolicy;
use uploads::Uploads;
use worker::{Mapping, Worker};

/// The replication stage, running.
#[derive(Debug)]
pub struct Replicator {
    dispatcher: Arc<Dispatcher>,
    stop: CancellationToken,
}

/// The stores a replicator works between.
#[derive(Debug, Clone)]
pub struct Stores {
    /// The store that is protected.
    pub source: Store,
    /// The store that holds the live copy.
    pub target: Store,
}

/// Which way objects travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// From the protected store to its live copy.
    Forth,
    /// From the live copy to a store that is to be filled again: nothing is deleted there, and nothing
    /// of evermirror's own is written to the objects.
    Back,
}

impl Replicator {
    /// Begins to work on what `queue` holds, and to abort uploads that an earlier process left. Waits
    /// for no store.
    pub async fn start(
        settings: &Settings,
        stores: Stores,
        queue: Arc<WorkQueue>,
        brakes: (Hold, Arc<Delays>),
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        Self::begin(settings, stores, queue, brakes, metrics, Direction::Forth).await
    }

    /// As [`Replicator::start`], for the way back: a key that is not at the source is left as it is at
    /// the target, and the objects carry no mark of evermirror.
    pub async fn start_back(
        settings: &Settings,
        stores: Stores,
        queue: Arc<WorkQueue>,
        brakes: (Hold, Arc<Delays>),
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        Self::begin(settings, stores, queue, brakes, metrics, Direction::Back).await
    }

    async fn begin(
        settings: &Settings,
        stores: Stores,
        queue: Arc<WorkQueue>,
        (hold, delays): (Hold, Arc<Delays>),
        metrics: Metrics,
        direction: Direction,
    ) -> std::io::Result<Self> {
        let Stores { source, target } = stores;
        let (uploads, left) = Uploads::open(&settings.data_dir.join("uploads")).await?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let aborting = uploads::abort_left_overs(left, target.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(aborting));
        let (deleter, deleting) = Deleter::new(source.clone(), target.clone());
        tasks.spawn(deleting);
        let replicate = &settings.replicate;
        let worker = Worker {
            direction,
            source,
            target,
            target_settings: settings.target.clone(),
            buckets: mappings(settings),
            settings: replicate.clone(),
            retry: RetryPolicy { initial: replicate.retry_initial, max: replicate.retry_max },
            deleter,
            hold,
            delays,
            uploads,
            pace: Pace::new(replicate.bandwidth.map(|rate| rate.0)),
            target_kms: AtomicBool::new(settings.target.encrypts_with_kms()),
            source_partless: AtomicBool::new(false),
            source_head_counts: AtomicBool::new(false),
            source_untagged: AtomicBool::new(false),
        };
        let dispatcher = Arc::new(Dispatcher {
            worker,
            queue,
            metrics,
            source: StoreHealth::new("source"),
            target: StoreHealth::new("target"),
            small: Limit::new(replicate.concurrency),
            large: Limit::new(replicate.large_concurrency),
            workers: TaskTracker::new(),
            lines: dispatcher::Lines::default(),
        });
        for size in [Size::Small, Size::Large] {
            tasks.spawn(Arc::clone(&dispatcher).run_lane(size, stop.clone()));
        }
        for which in [Probed::Source, Probed::Target] {
            tasks.spawn(Arc::clone(&dispatcher).run_probe(which, stop.clone()));
        }
        Ok(Self { dispatcher, stop })
    }

    /// Takes no further key, and waits for those in flight.
    pub async fn drain(&self) {
        self.stop.cancel();
        self.dispatcher.workers.close();
        self.dispatcher.workers.wait().await;
    }

    /// What is known of the source and of the target.
    pub fn stores(&self) -> (StoreState, StoreState) {
        self.dispatcher.stores()
    }

    /// How many keys may be in flight now, large ones included.
    pub fn concurrency(&self) -> u64 {
        self.dispatcher.small.size() + self.dispatcher.large.size()
    }
}

fn mappings(settings: &Settings) -> std::collections::HashMap<Arc<str>, Mapping> {
    let entry = |bucket: &crate::config::settings::BucketSettings| {
        let mapping = Mapping { target: bucket.target_name().into(), settings: bucket.clone() };
        (bucket.source.as_str().into(), mapping)
    };
    settings.buckets.iter().map(entry).collect()
}
