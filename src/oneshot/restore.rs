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
//! there already; and until it is finished, `run` and `sync` hold the deletes of its buckets
//! (`unfinished`). One restore at a time works there. A key that fails again and again ends the restore
//! before the next class of objects, unless it was told to keep going.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::config::settings::{BucketSettings, StoreSettings};
use crate::data_dir::DataDir;
use crate::dirty::Aspects;
use crate::oneshot::engine::{Engine, EngineError};
use crate::reconcile::list::{ListingError, Side};
use crate::reconcile::pass::PassError;
use crate::reconcile::rate::Rate;
use crate::replicate::Direction;
use crate::store::{self, ConnectError, Store};
use crate::stores::Stores;
use crate::stores::Unusable;

mod conflict;
mod feed;
pub mod order;
mod prepare;
mod progress;
mod report;
mod state;
mod unfinished;
mod verify;
mod way;
pub mod when;

pub use report::{BucketReport, Failed, Outcome, Report};
pub(crate) use unfinished::unfinished;

use feed::{End, Feed};
use progress::ProgressBar;
use state::{Request, State, StateFile};

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
    /// It is no use to go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
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
    /// Of listing the store that is read, over all its buckets.
    rate: Rate,
}

impl Way {
    /// What is to be restored, to be counted: with a view of its own, lest it displace the versions that
    /// the other one remembers for its GETs.
    fn to_count(&self, at_ms: Option<i64>) -> Vec<(Side, BucketSettings)> {
        let store = at_ms.map_or_else(|| self.from.clone(), |at_ms| self.from.as_of(at_ms));
        let side = |bucket| Side { store: store.clone(), ..self.side(bucket) };
        self.settings.buckets.iter().map(|bucket| (side(bucket), bucket.clone())).collect()
    }

    /// The listing of one bucket as it is to be restored.
    fn side(&self, bucket: &BucketSettings) -> Side {
        Side {
            store: self.from.clone(),
            bucket: bucket.source.as_str().into(),
            prefix: Arc::clone(&self.prefix),
            rate: self.rate.clone(),
        }
    }
}

/// Restores the buckets of `settings`, and compares both sides at the end. How far it is, it shows
/// on stderr.
/// When `stop` is cancelled, copies in flight are finished and the same request goes on from there.
pub async fn restore(
    settings: &Settings,
    options: &RestoreOptions,
    stop: &CancellationToken,
) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    let result = Box::pin(run(settings, options, stop, &mut report)).await;
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
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<Outcome, RestoreError> {
    let back = way::back(settings, options)?;
    *report = Report::new(&back);
    let file = if options.dry_run {
        StateFile::at(&back.data_dir)
    } else {
        StateFile::take(&back.data_dir)?
    };
    let _kept_away = keep_run_away(settings, options, &back, report).await?;
    let request = request(&back, options);
    let (earlier, others) = file.load(&request)?;
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
    let fresh = State::new(request, at_ms, others.clone());
    let aspects = if empty { Aspects::CONTENT } else { Aspects::CONTENT.with(Aspects::CHECK) };
    let state = earlier.map_or_else(|| fresh.clone(), |state| State { others, ..state });
    let bar = ProgressBar::new(state.settled);
    let _shown = bar.show(way.to_count(at_ms));
    let end = copy(&way, options, aspects, (state, &file), &bar, stop, report).await?;
    let outcome = match end {
        End::Done => {
            bar.step("comparing both sides".to_owned());
            verify::verify(&way, stop, report).await?
        }
        End::Stuck => Outcome::Incomplete,
        End::Stopped => Outcome::Interrupted,
    };
    match outcome {
        Outcome::Restored => file.finish(fresh)?,
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
    let from = Store::connect(store::Side::Source, &settings.source, timeout)
        .await
        .map_err(refused("target"))?;
    let to = Store::connect(store::Side::Target, &settings.target.store(), timeout)
        .await
        .map_err(refused("destination"))?;
    let rate = Rate::new(settings.reconcile.rate());
    Ok(Way { settings, from, to, prefix: options.prefix.as_str().into(), rate })
}

/// Runs the engine on the way back and feeds it, until everything is settled or it was stopped.
async fn copy(
    way: &Way,
    options: &RestoreOptions,
    aspects: Aspects,
    (state, file): (State, &StateFile),
    bar: &ProgressBar,
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<End, RestoreError> {
    let stores = Stores { source: way.from.clone(), target: way.to.clone() };
    let metrics = bar.metrics();
    let uploads = DataDir::at(&way.settings.data_dir).uploads();
    let engine = Engine::start(way.settings.clone(), stores, Direction::Back, metrics)
        .await
        .map_err(|error| RestoreError::io("use", &uploads, error))?;
    // Before the first object: from here on until the end, `run` knows that the buckets are half restored.
    file.save(&state)?;
    let mut feed = Feed::new(way, &engine, aspects, state, file, bar, stop);
    feed.keep_going = options.keep_going;
    let end = feed.run().await;
    // What is in flight ends, so that what is saved is as far as can be.
    engine.drain().await;
    let saved = feed.save();
    report.failed = feed.into_failed();
    let totals = engine.totals();
    (report.copied, report.bytes) = (totals.copied, totals.bytes);
    report.unchanged = totals.unchanged + totals.tagged;
    let end = end?;
    saved?;
    Ok(end)
}
