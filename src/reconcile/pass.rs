//! One pass over both sides of a bucket: every difference once, and how far it came.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::list::{Listing, ListingError, Side};
use super::merge::{Finding, Pairs, Rules, compare};
use super::ranges::KeyRange;
use super::rate::Rate;
use crate::store::{ListedObject, Store};

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

/// What a pass found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassReport {
    /// Objects that the source listed.
    pub source_objects: u64,
    /// Their bytes.
    pub source_bytes: u64,
    /// Objects that the target listed.
    pub target_objects: u64,
    /// Keys by finding.
    pub same: u64,
    /// Only at the source.
    pub missing: u64,
    /// Only at the target.
    pub extra: u64,
    /// Content that differs.
    pub different: u64,
    /// Metadata that may differ.
    pub newer: u64,
    /// What a listing cannot tell.
    pub unverifiable: u64,
    /// Where the next pass may cut the key space; a bounded number, evenly spaced.
    pub split_points: Vec<String>,
    /// How many ranges it took.
    pub ranges: u64,
    /// How long it took.
    pub elapsed: Duration,
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
    let mut report = PassReport::default();
    compare_range(&options, source, target, KeyRange::ALL, &sink, &mut report).await?;
    report.ranges = 1;
    report.elapsed = begin.elapsed();
    Ok(report)
}

async fn compare_range(
    options: &PassOptions,
    source: Side,
    target: Side,
    range: KeyRange,
    sink: &mpsc::Sender<PassEvent>,
    report: &mut PassReport,
) -> Result<(), PassError> {
    let rules = Rules { skew_ms: options.skew_ms, opaque: options.opaque, pairs: &*options.pairs };
    let mut source = Listing::new(source, range.clone());
    let mut target = Listing::new(target, range.clone());
    loop {
        source.fill().await.map_err(|error| PassError::Listing { side: "source", error })?;
        target.fill().await.map_err(|error| PassError::Listing { side: "target", error })?;
        let (ours, theirs) = match (source.front(), target.front()) {
            (None, None) => break,
            (Some(ours), Some(theirs)) => (ours.key <= theirs.key, theirs.key <= ours.key),
            (ours, theirs) => (ours.is_some(), theirs.is_some()),
        };
        let ours = if ours { source.pop() } else { None };
        let theirs = if theirs { target.pop() } else { None };
        let Some(key) = ours.as_ref().or(theirs.as_ref()).map(|object| &object.key) else { break };
        if !(options.filter)(key) {
            continue;
        }
        let finding = compare(ours.as_ref(), theirs.as_ref(), rules);
        report.count(finding, ours.as_ref(), theirs.as_ref());
        if finding != Finding::Same {
            let key = key.clone();
            let found = Difference { key, finding, source: ours, target: theirs };
            sink.send(PassEvent::Difference(found)).await.map_err(|_| PassError::Cancelled)?;
        }
    }
    sink.send(PassEvent::RangeDone(range)).await.map_err(|_| PassError::Cancelled)
}

impl PassReport {
    /// Counts one key.
    fn count(
        &mut self,
        finding: Finding,
        source: Option<&ListedObject>,
        target: Option<&ListedObject>,
    ) {
        self.source_objects += u64::from(source.is_some());
        self.source_bytes += source.map_or(0, |object| object.size);
        self.target_objects += u64::from(target.is_some());
        *match finding {
            Finding::Same => &mut self.same,
            Finding::Missing => &mut self.missing,
            Finding::Extra => &mut self.extra,
            Finding::Different(_) => &mut self.different,
            Finding::Newer => &mut self.newer,
            Finding::Unverifiable => &mut self.unverifiable,
        } += 1;
    }
}
