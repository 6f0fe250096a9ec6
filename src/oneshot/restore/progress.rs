//! How far a restore is, for the people who wait for it.
//!
//! Its listing goes no further ahead than the workers need, so that its end is not known from it: what
//! there is to restore is counted by a listing of its own, beside the work. When that fails, no end is
//! foretold, and nothing else is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::task::AbortOnDropHandle;

use crate::config::settings::BucketSettings;
use crate::metrics::Metrics;
use crate::oneshot::progress::{Progress, Sample};
use crate::reconcile::list::{Listing, ListingError, Side};
use crate::reconcile::ranges::KeyRange;

/// What is shown; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ProgressBar(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    metrics: Metrics,
    /// Objects that an earlier process had settled.
    before: u64,
    step: Mutex<String>,
    total: AtomicU64,
    all_counted: AtomicBool,
    failing: AtomicU64,
}

/// The bar and the count, until they are dropped.
#[derive(Debug)]
pub(super) struct Shown {
    _progress: Progress,
    _count: AbortOnDropHandle<()>,
}

impl ProgressBar {
    /// For a restore that goes on behind `before` objects.
    pub(super) fn new(before: u64) -> Self {
        Self(Arc::new(Counts {
            metrics: Metrics::new(),
            before,
            step: Mutex::new("looking at what is to be restored".to_owned()),
            total: AtomicU64::new(0),
            all_counted: AtomicBool::new(false),
            failing: AtomicU64::new(0),
        }))
    }

    /// Where the engine counts what it has done.
    pub(super) fn metrics(&self) -> Metrics {
        self.0.metrics.clone()
    }

    /// What is being done now.
    pub(super) fn step(&self, step: String) {
        *self.0.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    /// Keys that failed when they were last tried.
    pub(super) fn failing(&self, keys: usize) {
        self.0.failing.store(keys as u64, Ordering::Relaxed);
    }

    /// Shows it, and counts beside that what there is to restore.
    pub(super) fn show(&self, sides: Vec<(Side, BucketSettings)>) -> Shown {
        let (shown, bar) = (self.clone(), self.clone());
        let count = tokio::spawn(async move {
            if let Err(error) = bar.count(sides).await {
                tracing::debug!(%error, "What is to be restored could not be counted.");
            }
        });
        let progress = Progress::show(move || shown.sample());
        Shown { _progress: progress, _count: AbortOnDropHandle::new(count) }
    }

    async fn count(&self, sides: Vec<(Side, BucketSettings)>) -> Result<(), ListingError> {
        for (side, bucket) in sides {
            let mut listing = Listing::new(side, KeyRange::ALL);
            while let Some(object) = listing.next().await? {
                self.0.total.fetch_add(u64::from(bucket.wants(&object.key)), Ordering::Relaxed);
            }
        }
        self.0.all_counted.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn sample(&self) -> Sample {
        let counts = &self.0;
        let totals = counts.metrics.totals();
        let done = counts.before + totals.copied + totals.tagged + totals.unchanged;
        Sample {
            step: counts.step.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            done,
            total: counts.total.load(Ordering::Relaxed).max(done),
            bytes: totals.bytes,
            failing: counts.failing.load(Ordering::Relaxed),
            searching: !counts.all_counted.load(Ordering::Relaxed),
        }
    }
}
