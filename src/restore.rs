//! The way back: from the live copy into a store that is to be filled again.
//!
//! **Promises.** The same workers copy as in `run`, with the two stores swapped, so an object comes back
//! as exactly as it went. Nothing is ever deleted at the destination, and nothing is written into a
//! bucket that holds objects already unless that was asked for. The files of a table are there before
//! the commit that names them ([`order`]). With a time, each key comes back as of the newest version
//! written at or before it.
//!
//! Memory does not grow with the buckets: the listing is the queue, and goes no further ahead of the
//! workers than their queue has room for. How far everything is settled is kept in `data_dir/restore`
//! (`state`): after a stop or a crash the same command goes on from there, comparing first what may be
//! there already. A key that fails again and again ends the restore before the next class of objects,
//! unless it was told to keep going.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::config::settings::{BucketSettings, StoreSettings};
use crate::dirty::Aspects;
use crate::journal::JournalError;
use crate::metrics::Metrics;
use crate::oneshot::patience::Unusable;
use crate::reconcile::Remembered;
use crate::reconcile::list::{ListingError, Side};
use crate::reconcile::pass::PassError;
use crate::reconcile::rate::Rate;
use crate::replicate::{Delays, Discards, Hold, Replicator, Stores};
use crate::shelf::Shelf;
use crate::store::{ConnectError, Store};
use crate::workqueue::WorkQueue;

mod conflict;
mod feed;
pub mod order;
mod prepare;
mod report;
mod state;
mod verify;
mod way;
pub mod when;

pub use report::{BucketReport, Failed, Outcome, Progress, Report};

use feed::{End, Feed};
use state::{Request, State, StateFile};

/// The shelf of held deletes, which a restore never fills.
const SHELF_SIZE: u64 = 16 << 20;

/// What to restore, and where to.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct RestoreOptions {
    /// Only keys that start with this.
    pub prefix: String,
    /// Other names for buckets at the destination, by their names at the source.
    pub map: BTreeMap<String, String>,
    /// Another destination than the configured source.
    pub to: Option<StoreSettings>,
    /// The time to go back to: as it was typed, and in milliseconds since the Unix epoch.
    pub at: Option<(String, i64)>,
    /// Write into buckets that hold objects already.
    pub into_non_empty: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Restore although `run` is at work on the destination.
    pub force: bool,
    /// Restore table commits although keys before them failed.
    pub keep_going: bool,
}

/// Why a restore could not be done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It was not begun.
    #[error("{0}")]
    Refused(String),
    /// The client of a store could not be built.
    #[error("the client of the {side} cannot be built: {error}")]
    Connect {
        /// `target` or `destination`.
        side: &'static str,
        /// Why.
        error: ConnectError,
    },
    /// A store refused what a restore cannot do without.
    #[error(transparent)]
    Store(#[from] Unusable),
    /// A listing failed.
    #[error(transparent)]
    Listing(Box<ListingError>),
    /// Our own state cannot be kept.
    #[error("failed to {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// Our own state is in use, or damaged.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The comparison at the end could not be made.
    #[error(transparent)]
    Compare(Box<PassError>),
}

impl RestoreError {
    fn io(action: &'static str, path: &Path, error: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), error }
    }
}

impl From<ListingError> for RestoreError {
    fn from(error: ListingError) -> Self {
        Self::Listing(Box::new(error))
    }
}

impl From<PassError> for RestoreError {
    fn from(error: PassError) -> Self {
        Self::Compare(Box::new(error))
    }
}

/// Everything a restore needs, joined.
#[derive(Debug)]
struct Way {
    /// Source and target swapped.
    settings: Settings,
    from: Store,
    to: Store,
    prefix: Arc<str>,
}

impl Way {
    /// The listing of one bucket as it is to be restored.
    fn side(&self, bucket: &BucketSettings) -> Side {
        Side {
            store: self.from.clone(),
            bucket: bucket.source.as_str().into(),
            prefix: Arc::clone(&self.prefix),
            rate: Rate::new(None),
        }
    }
}

/// Restores the buckets of `settings`, and compares both sides at the end. `tell` is told about once a second how far it is.
/// When `stop` is cancelled, copies in flight are finished and the same request goes on from there.
pub async fn restore(
    settings: &Settings,
    options: &RestoreOptions,
    tell: &mut (dyn FnMut(&Progress) + Send),
    stop: &CancellationToken,
) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    let result = Box::pin(run(settings, options, tell, stop, &mut report)).await;
    let outcome = result.unwrap_or_else(|error| {
        report.errors.push(error.to_string());
        Outcome::Failed
    });
    report.finish(outcome, began.elapsed());
    report
}

async fn run(
    settings: &Settings,
    options: &RestoreOptions,
    tell: &mut (dyn FnMut(&Progress) + Send),
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<Outcome, RestoreError> {
    let back = way::back(settings, options)?;
    *report = Report::new(&back);
    let _kept_away = keep_run_away(settings, options, &back, report).await?;
    let request = request(&back, options);
    let earlier = StateFile::at(&back.data_dir).load(&request)?;
    let mut way = connect(back, options).await?;
    let empty = prepare::buckets(&way, options, earlier.is_some(), report).await?;
    // Where nothing is left of what an earlier restore did, this is a new one.
    let earlier = earlier.filter(|_| !empty);
    report.resumed = earlier.is_some();
    let at_ms = match &earlier {
        Some(state) => state.at_ms,
        None => options.at.as_ref().map(|(_, at_ms)| *at_ms),
    };
    report.at = at_ms.map(when::show);
    if let Some(at_ms) = at_ms {
        way.from = way.from.as_of(at_ms);
    }
    if options.dry_run {
        prepare::count(&way, report).await?;
        return Ok(Outcome::Planned);
    }
    let fresh = State { request, at_ms, class: 0, bucket: 0, after: None, seen: 1 };
    let aspects = if empty { Aspects::CONTENT } else { Aspects::CONTENT.with(Aspects::CHECK) };
    let file = StateFile::create(&way.settings.data_dir)?;
    let state = earlier.unwrap_or_else(|| fresh.clone());
    file.save(&state)?;
    let end = copy(&way, options, aspects, (state, &file), tell, stop, report).await?;
    let outcome = match end {
        End::Done => verify::verify(&way, stop, report).await?,
        End::Stuck => Outcome::Incomplete,
        End::Stopped => Outcome::Interrupted,
    };
    match outcome {
        Outcome::Restored => file.remove()?,
        // The next try looks at everything again.
        Outcome::Differs => file.save(&fresh)?,
        Outcome::Incomplete | Outcome::Interrupted | Outcome::Planned | Outcome::Failed => {}
    }
    Ok(outcome)
}

async fn keep_run_away(
    settings: &Settings,
    options: &RestoreOptions,
    back: &Settings,
    report: &mut Report,
) -> Result<Option<conflict::KeepsRunAway>, RestoreError> {
    if options.force || !way::same_store(&back.target.endpoint, &settings.source.endpoint) {
        return Ok(None);
    }
    match conflict::keep_run_away(settings).await {
        Err(RestoreError::Refused(conflict)) if options.dry_run => {
            report.conflicts.push(conflict);
            Ok(None)
        }
        kept => kept.map(Some),
    }
}

fn request(back: &Settings, options: &RestoreOptions) -> Request {
    let names = |b: &BucketSettings| (b.source.clone(), b.target_name().to_owned());
    Request {
        from: back.source.endpoint.clone(),
        to: back.target.endpoint.clone(),
        buckets: back.buckets.iter().map(names).collect(),
        prefix: options.prefix.clone(),
        at: options.at.as_ref().map(|(text, _)| text.clone()),
    }
}

async fn connect(settings: Settings, options: &RestoreOptions) -> Result<Way, RestoreError> {
    let timeout = settings.replicate.request_timeout;
    let refused = |side| move |error| RestoreError::Connect { side, error };
    let from = Store::connect(&settings.source, timeout).await.map_err(refused("target"))?;
    let to =
        Store::connect(&settings.target.store(), timeout).await.map_err(refused("destination"))?;
    Ok(Way { settings, from, to, prefix: options.prefix.as_str().into() })
}

/// What a replicator sets deletes aside on; a restore deletes nothing, so all of it stays empty.
async fn brakes(settings: &Settings) -> Result<(Hold, Arc<Delays>), RestoreError> {
    let dir = &settings.data_dir;
    let (shelf, _) = Shelf::open(dir.join("held"), SHELF_SIZE).await?;
    let (delays, _) = Delays::open(&dir.join("delayed"), &settings.buckets, SHELF_SIZE).await?;
    let path = dir.join("discards");
    let discards =
        Discards::open(&path, &(1..=1)).map_err(|error| RestoreError::io("open", &path, error))?;
    let path = dir.join("reconcile");
    let remembered =
        Remembered::open(&path).map_err(|error| RestoreError::io("open", &path, error))?;
    let hold = Hold::new(&settings.deletes, shelf, discards, Arc::new(remembered));
    Ok((hold, Arc::new(delays)))
}

/// Runs a replicator on the way back and feeds it, until everything is settled or it was stopped.
async fn copy(
    way: &Way,
    options: &RestoreOptions,
    aspects: Aspects,
    (state, file): (State, &StateFile),
    tell: &mut (dyn FnMut(&Progress) + Send),
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<End, RestoreError> {
    let settings = &way.settings;
    let metrics = Metrics::new();
    let brakes = brakes(settings).await?;
    let replicate = &settings.replicate;
    let queue = Arc::new(WorkQueue::new(replicate.max_pending_keys, replicate.min_interval));
    let stores = Stores { source: way.from.clone(), target: way.to.clone() };
    let replicator = Replicator::start_back(
        settings,
        stores,
        Arc::clone(&queue),
        brakes.clone(),
        metrics.clone(),
    )
    .await
    .map_err(|error| RestoreError::io("use", &settings.data_dir.join("uploads"), error))?;
    let mut feed = Feed::new(way, &queue, &metrics, aspects, state, file, tell, stop);
    feed.keep_going = options.keep_going;
    let end = feed.run().await;
    // What is in flight ends, so that what is saved is as far as can be.
    let drained = tokio::time::timeout(replicate.drain_timeout, replicator.drain()).await;
    let saved = feed.save();
    report.failed = feed.into_failed();
    let totals = metrics.totals();
    (report.copied, report.bytes) = (totals.copied, totals.bytes);
    report.unchanged = totals.unchanged + totals.tagged;
    brakes.0.close().await;
    brakes.1.close().await;
    if drained.is_err() {
        tracing::warn!(
            "Copies in flight were cut off; they are made again when the restore goes on."
        );
    }
    let end = end?;
    saved?;
    Ok(end)
}
