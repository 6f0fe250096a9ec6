//! One pass over both sides of a bucket: every difference once, and how far it came.

mod cuts;
mod pair;
mod report;

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::cuts::can_begin;
use self::pair::Pair;
pub use self::report::PassReport;
use super::board::{Board, WorkId};
use super::list::{ListingError, Side};
use super::merge::{Finding, Pairs, Rules, compare};
use super::ranges::{KeyRange, Samples, folder, thin, tile, without};
use super::rate::Rate;
use super::split::{Search, end_of};
use crate::store::{ListedObject, Store, StoreError};

/// Which keys are compared; the others are as if they were on neither side.
pub type Filter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What is compared, and how.
#[derive(Clone)]
pub struct PassOptions {
    /// The source's store and bucket.
    pub source: (Store, Arc<str>),
    /// The target's store and bucket.
    pub target: (Store, Arc<str>),
    /// Only keys that start with this; empty for all.
    pub prefix: Arc<str>,
    /// Only keys for which this holds.
    pub filter: Filter,
    /// The source's clock less the target's, in milliseconds: [`Rules::skew_ms`].
    pub skew_ms: i64,
    /// [`Rules::opaque`].
    pub opaque: bool,
    /// [`Rules::closer`].
    pub closer: bool,
    /// [`Rules::looked_until_ms`].
    pub looked_until_ms: Option<i64>,
    /// [`Rules::pairs`].
    pub pairs: Arc<dyn Pairs>,
    /// How many ranges are listed at once; each holds two pages of either side.
    pub parallel: NonZeroUsize,
    /// Where the key space is cut, from the [`PassReport`] of an earlier pass; only a hint.
    pub split_points: Vec<String>,
    /// Ranges that an earlier, interrupted pass has finished: they are left out.
    pub done: Vec<KeyRange>,
    /// At most so many listing requests a second to each store.
    pub requests_per_second: Option<NonZeroU32>,
}

impl fmt::Debug for PassOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassOptions")
            .field("source", &self.source)
            .field("target", &self.target)
            .field("prefix", &self.prefix)
            .field("parallel", &self.parallel)
            .finish_non_exhaustive()
    }
}

/// A key on which the two sides do not agree; never [`Finding::Same`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The object's key.
    pub key: String,
    /// What is wrong with it.
    pub finding: Finding,
    /// As the source lists it.
    pub source: Option<ListedObject>,
    /// As the target lists it.
    pub target: Option<ListedObject>,
}

/// What a pass tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassEvent {
    /// A difference. Within a range they come in key order; ranges are interleaved.
    Difference(Difference),
    /// Every difference of this range has been sent before this. For [`PassOptions::done`].
    RangeDone(KeyRange),
}

/// Why a pass ended before its end. The ranges that were reported as done are done.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// A listing failed.
    #[error("failed to compare the {side}: {error}")]
    Listing {
        /// `source` or `target`.
        side: &'static str,
        /// Why.
        error: ListingError,
    },
    /// Nobody takes the differences any more.
    #[error("the comparison was given up")]
    Cancelled,
}

/// Compares both sides and sends every difference to `sink`, which slows the pass down when it is
/// full. Dropping the future, or the receiver, ends the pass.
pub async fn run(
    options: PassOptions,
    sink: mpsc::Sender<PassEvent>,
) -> Result<PassReport, PassError> {
    let begin = Instant::now();
    let side = |(store, bucket): &(Store, Arc<str>)| Side {
        store: store.clone(),
        bucket: Arc::clone(bucket),
        prefix: Arc::clone(&options.prefix),
        rate: Rate::new(options.requests_per_second),
    };
    let (source, target) = (side(&options.source), side(&options.target));
    let one_piece = source.store.ignores_start_after() || target.store.ignores_start_after();
    let parallel = if one_piece { 1 } else { options.parallel.get() };
    let reads_ahead = source.reads_ahead() || target.reads_ahead();
    let cuts = if parallel == 1 { Vec::new() } else { cuts::remembered(&options, reads_ahead) };
    let board = Mutex::new(Board::new(without(tile(cuts), &options.done)));
    let (one_piece, changed) = (AtomicBool::new(one_piece), Notify::new());
    let pass = Arc::new(Pass { options, source, target, sink, board, changed, one_piece });
    let mut workers: JoinSet<_> =
        (1..parallel).map(|_| Arc::clone(&pass).work(PassReport::default())).collect();
    workers.spawn(Arc::clone(&pass).begin());
    let mut report = PassReport::default();
    let mut samples = Samples::new();
    loop {
        let worker = tokio::select! {
            () = pass.sink.closed() => return Err(PassError::Cancelled),
            worker = workers.join_next() => worker,
        };
        let Some(worker) = worker else { break };
        let (part, seen) = worker.map_err(|_| PassError::Cancelled)??;
        report.add(&part);
        samples = samples.join(seen);
    }
    report.split_points = samples.into_points();
    report.elapsed = begin.elapsed();
    Ok(report)
}

/// What the workers of one pass share.
struct Pass {
    options: PassOptions,
    source: Side,
    target: Side,
    sink: mpsc::Sender<PassEvent>,
    board: Mutex<Board>,
    /// The board may have work for one who waits.
    changed: Notify,
    /// A store does not honour `start-after`: no range is cut any more.
    one_piece: AtomicBool,
}

/// What a worker does next.
enum Task {
    Compare(WorkId, KeyRange),
    Search { id: WorkId, from: String, end: Option<String> },
    Wait,
    End,
}

impl Pass {
    /// Looks for folders to cut at, where no earlier pass has told of places, and then works like the others,
    /// who have begun meanwhile.
    async fn begin(self: Arc<Self>) -> Result<(PassReport, Samples), PassError> {
        let unknown = self.options.split_points.is_empty() && self.options.parallel.get() > 1;
        if unknown && !self.in_one_piece() {
            match cuts::folders(&self.options, &self.source).await {
                Ok(points) if !self.in_one_piece() => self.board().cut_all(&points),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "A search for folders to cut at failed."),
            }
            self.changed.notify_waiters();
        }
        self.work(PassReport::default()).await
    }

    /// Compares ranges, and cuts those of others, until there are none.
    async fn work(
        self: Arc<Self>,
        mut report: PassReport,
    ) -> Result<(PassReport, Samples), PassError> {
        let mut samples = Samples::new();
        loop {
            let changed = self.changed.notified();
            match self.task() {
                Task::Compare(id, range) => {
                    self.compare_range(id, range, &mut report, &mut samples).await?;
                }
                Task::Search { id, from, end } => self.search(id, &from, end.as_deref()).await,
                Task::Wait => changed.await,
                Task::End => return Ok((report, samples)),
            }
        }
    }

    fn task(&self) -> Task {
        let mut board = self.board();
        if let Some((id, range)) = board.take() {
            Task::Compare(id, range)
        } else if board.is_finished() {
            Task::End
        } else if self.in_one_piece() {
            Task::Wait
        } else if let Some((id, from, end)) = board.search() {
            Task::Search { id, from, end }
        } else {
            Task::Wait
        }
    }

    fn in_one_piece(&self) -> bool {
        self.one_piece.load(Ordering::Relaxed)
    }

    /// Puts a range back, of which nothing was compared, to be listed from the beginning.
    fn in_one_piece_now(&self, id: WorkId, side: &'static str, error: &ListingError) {
        let store = if side == "source" { &self.source.store } else { &self.target.store };
        store.note_start_ignored();
        if !self.one_piece.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "A bucket is listed from the beginning, not in ranges, and nothing is deleted by this pass.");
        }
        self.board().give_back(id);
        self.changed.notify_waiters();
    }

    async fn compare_range(
        &self,
        id: WorkId,
        range: KeyRange,
        report: &mut PassReport,
        samples: &mut Samples,
    ) -> Result<(), PassError> {
        let options = &self.options;
        let rules = Rules {
            skew_ms: options.skew_ms,
            opaque: options.opaque,
            closer: options.closer,
            looked_until_ms: options.looked_until_ms,
            pairs: &*options.pairs,
        };
        let mut pair = Pair::new(self, id, range);
        loop {
            let (ours, theirs) = match pair.next().await {
                Ok(Some(next)) => next,
                Ok(None) => break,
                // A listing says so before it gives anything out.
                Err(PassError::Listing {
                    side,
                    error: error @ ListingError::StartIgnored { .. },
                }) => {
                    report.start_ignored = true;
                    self.in_one_piece_now(id, side, &error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let Some(object) = ours.as_ref().or(theirs.as_ref()) else { break };
            samples.pass(&object.key);
            if !(options.filter)(&object.key) {
                continue;
            }
            let finding = compare(ours.as_ref(), theirs.as_ref(), rules);
            report.count(finding, ours.as_ref(), theirs.as_ref());
            if finding == Finding::Same {
                rules.pairs.agree(&object.key);
            } else {
                let key = object.key.clone();
                let found = Difference { key, finding, source: ours, target: theirs };
                self.send(PassEvent::Difference(found)).await?;
            }
        }
        report.ranges += 1;
        let range = self.board().finish(id);
        self.changed.notify_waiters();
        match range {
            Some(range) => self.send(PassEvent::RangeDone(range)).await,
            None => Ok(()),
        }
    }

    /// Cuts a range of another worker in pieces. A failed search costs nothing but speed.
    async fn search(&self, id: WorkId, from: &str, end: Option<&str>) {
        let mut points = Vec::new();
        let reads_ahead = self.source.reads_ahead() || self.target.reads_ahead();
        if reads_ahead && !self.leaves_folder(from, end).await.unwrap_or(false) {
            self.board().cut(id, points);
            return;
        }
        for side in [&self.source, &self.target] {
            let mut search = Search::new(from.to_owned(), end.map(str::to_owned));
            while let Some(text) = search.question() {
                match side.first_behind(&text).await {
                    Ok(key) => search.answer(key),
                    Err(error) => {
                        tracing::debug!(%error, "A search for a place to cut failed.");
                        break;
                    }
                }
            }
            points = search.into_points();
            if reads_ahead {
                points.dedup_by(|key, before| folder(key) == folder(before));
                points.retain(|key| folder(key) != folder(from));
            }
            if !points.is_empty() {
                break;
            }
        }
        points.retain(|point| can_begin(point));
        self.board().cut(id, thin(points, self.options.parallel.get()));
        self.changed.notify_waiters();
    }

    /// Whether any key before `end` lies behind the folder of `from`.
    async fn leaves_folder(&self, from: &str, end: Option<&str>) -> Result<bool, StoreError> {
        let Some(text) = end_of(folder(from)) else { return Ok(false) };
        for side in [&self.source, &self.target] {
            let behind = side.first_behind(&text).await?;
            if behind.is_some_and(|key| end.is_none_or(|end| *key < *end)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn send(&self, event: PassEvent) -> Result<(), PassError> {
        self.sink.send(event).await.map_err(|_| PassError::Cancelled)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(side: &'static str, error: ListingError) -> PassError {
    PassError::Listing { side, error }
}
