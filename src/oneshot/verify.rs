//! `verify`: whether both sides agree. Writes nothing at either.
//!
//! Promise: every difference that both listings show is reported once, with what it is, and only when both
//! sides were asked twice and stood still: a key that changes meanwhile, or is on its way, is not blamed. Listings tell of existence,
//! size and `ETag`; where two tags cannot agree, the target's own metadata is asked; with `metadata` and
//! `deep` every pair of objects is looked at, since a listing shows neither headers, tags nor bytes. An object
//! that only the target has is no difference where it is to stay: by its bucket's policy, or by a person's will.
//!
//! On an error of one key that key is `unverifiable`; when a listing fails, the report says that it is
//! not complete, and the command has failed. A signal ends it with what was found so far. In both cases the
//! report names the place of each bucket, up to which every key was looked at, and from which another one goes on.

mod check;
mod recorder;
mod resume_point;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, stream};
use indicatif::HumanCount;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::progress::{Progress, Sample};
use super::{Ended, Scope, compare};
use crate::config::settings::BucketSettings;
use crate::data_dir::DataDir;
use crate::reconcile::list::{Listing, Side};
use crate::reconcile::merge::{Finding, NoPairs};
use crate::reconcile::pass::{self, PassEvent, PassOptions, PassReport};
use crate::reconcile::ranges::KeyRange;
use crate::reconcile::rate::Rate;
use crate::remembered::Kept;
use crate::stores;
use crate::stores::Stores;
use check::{Checker, Depth};
use recorder::{Recorder, Unfinished};
use resume_point::ResumePoint;

/// Keys on their way to a check.
const AHEAD: usize = 1_024;
/// Pairs of objects that are read at once with `deep`.
const DEEP_PARALLEL: usize = 16;

/// How closely is looked.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Compare headers, user metadata and tags of every object.
    pub metadata: bool,
    /// Read and hash the bytes of every object, on both sides.
    pub deep: bool,
    /// Where to write one JSON object per difference.
    pub report: Option<PathBuf>,
    /// Leave out all keys up to this one, and it: where an earlier one came to. For a single bucket.
    pub start_after: Option<String>,
}

impl VerifyOptions {
    /// Whether every pair of objects is looked at, not only those that listings show to differ.
    const fn every(&self) -> bool {
        self.metadata || self.deep
    }
}

/// Compares all buckets of `scope`, and prints the result however it ends.
pub async fn run(scope: Scope, options: VerifyOptions, stop: impl Future<Output = ()>) -> Ended {
    let (begin, json, counters) = (Instant::now(), scope.json, Arc::<Counters>::default());
    let mut recorder = Recorder::new(options.start_after.clone());
    let places = Arc::new(ResumePoints::new(&scope, &options));
    let compare = async {
        if let Some(path) = &options.report {
            recorder.create_file(path)?;
        }
        let stores = stores::connect(&scope.settings).await?;
        let (counters, places) = (Arc::clone(&counters), Arc::clone(&places));
        Verify { scope, options, stores, counters, places }.buckets(&mut recorder).await;
        anyhow::Ok(())
    };
    let compared = tokio::select! {
        compared = compare => Some(compared),
        () = stop => None,
    };
    match compared {
        Some(Ok(())) => {}
        Some(Err(error)) => recorder.incomplete(&error),
        None => recorder.interrupted(),
    }
    recorder.unfinished(places.unfinished());
    recorder.finish(counters.compared.load(Ordering::Relaxed), begin.elapsed(), json)
}

/// What is counted while it runs, for the progress.
#[derive(Debug, Default)]
struct Counters {
    compared: Arc<AtomicU64>,
    to_check: AtomicU64,
    checked: AtomicU64,
    /// What there will be to check, once a comparison has told.
    expected: AtomicU64,
    bytes: Arc<AtomicU64>,
    all_listed: AtomicBool,
}

/// How far each bucket is, in the order in which they are compared.
#[derive(Debug)]
struct ResumePoints(Vec<(String, Mutex<ResumePoint>)>);

impl ResumePoints {
    fn new(scope: &Scope, options: &VerifyOptions) -> Self {
        let place =
            || Mutex::new(ResumePoint::new(options.start_after.as_deref(), options.every()));
        let buckets = scope.settings.buckets.iter();
        Self(buckets.map(|bucket| (bucket.source.clone(), place())).collect())
    }

    fn unfinished(&self) -> Vec<Unfinished> {
        let unfinished = |(bucket, place): &(String, Mutex<ResumePoint>)| {
            let place = locked(place);
            let start_after = place.last().map(str::to_owned);
            (!place.is_finished()).then(|| Unfinished { bucket: bucket.clone(), start_after })
        };
        self.0.iter().filter_map(unfinished).collect()
    }
}

fn locked(place: &Mutex<ResumePoint>) -> MutexGuard<'_, ResumePoint> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One key to look at.
#[derive(Debug)]
struct Job {
    key: String,
    depth: Depth,
    /// It was found different already, so one look confirms it.
    suspect: bool,
}

#[derive(Debug)]
struct Verify {
    scope: Scope,
    options: VerifyOptions,
    stores: Stores,
    counters: Arc<Counters>,
    places: Arc<ResumePoints>,
}

/// What a person wants to stay at the target. Where that cannot be read, it counts as a difference.
fn kept(data_dir: &Path) -> Kept {
    let dir = DataDir::at(data_dir).reconcile();
    Kept::read(&dir).unwrap_or_else(|error| {
        tracing::warn!(dir = %dir.display(), %error, "It cannot be read which deletes a person discarded; the objects that stay because of that are told as extra. Make the directory readable for this command.");
        Kept::default()
    })
}

impl Verify {
    async fn buckets(&self, recorder: &mut Recorder) {
        let _progress = self.progress();
        let buckets = &self.scope.settings.buckets;
        let kept = kept(&self.scope.settings.data_dir);
        for ((left, bucket), (_, place)) in
            (0..buckets.len()).rev().zip(buckets).zip(&self.places.0)
        {
            let checker = Checker::new(
                &self.scope.settings,
                &self.stores,
                bucket,
                kept.clone(),
                Arc::clone(&self.counters.bytes),
            );
            let (jobs, received) = mpsc::channel(AHEAD);
            let (listed, ()) = tokio::join!(
                self.list(bucket, place, left == 0, jobs),
                self.check(&checker, received, place, recorder),
            );
            match listed {
                Ok(pass) => {
                    locked(place).finish();
                    recorder.compared(&pass);
                }
                Err(error) => {
                    recorder.incomplete(&error.context(format!("bucket {}", bucket.source)));
                }
            }
        }
    }

    /// Finds the keys of one bucket that have to be looked at. Both listings are through long before every
    /// pair is; after those of the last bucket it is known how many there are.
    async fn list(
        &self,
        bucket: &BucketSettings,
        place: &Mutex<ResumePoint>,
        last: bool,
        jobs: mpsc::Sender<Job>,
    ) -> anyhow::Result<PassReport> {
        let options = compare::options(
            &self.scope,
            &self.stores,
            bucket,
            &self.counters.compared,
            Arc::new(NoPairs),
        )
        .await?;
        let left_out = self.options.start_after.clone();
        let left_out = left_out.map(|end| KeyRange { start: None, end: Some(end) });
        let options = PassOptions { done: left_out.into_iter().collect(), ..options };
        let compare = async |options, jobs| {
            let report = self.compare(options, place, jobs).await?;
            let alone = report.missing + report.extra;
            self.counters.expected.fetch_add(report.source_objects + alone, Ordering::Relaxed);
            self.counters.all_listed.store(last, Ordering::Relaxed);
            anyhow::Ok(report)
        };
        if !self.options.every() {
            return compare(options, jobs).await;
        }
        let (report, ()) = tokio::try_join!(compare(options.clone(), jobs.clone()), async {
            self.every_pair(bucket, &options, place, jobs).await
        })?;
        Ok(report)
    }

    /// Both listings: keys that they do not agree on.
    async fn compare(
        &self,
        options: PassOptions,
        place: &Mutex<ResumePoint>,
        jobs: mpsc::Sender<Job>,
    ) -> anyhow::Result<PassReport> {
        let every = self.options.every();
        let (sink, mut events) = mpsc::channel(AHEAD);
        let pass_on = async {
            while let Some(event) = events.recv().await {
                let found = match event {
                    PassEvent::Difference(found) => found,
                    PassEvent::RangeDone(range) => {
                        locked(place).compared(range);
                        continue;
                    }
                };
                let depth = match found.finding {
                    Finding::Missing | Finding::Extra => Depth::Existence,
                    // They are among the pairs that are all looked at.
                    _ if every => continue,
                    Finding::Newer => Depth::Metadata,
                    Finding::Same | Finding::Different(_) | Finding::Unverifiable => Depth::Content,
                };
                self.counters.to_check.fetch_add(1, Ordering::Relaxed);
                locked(place).difference(&found.key);
                // The checks end only after this.
                drop(jobs.send(Job { key: found.key, depth, suspect: true }).await);
            }
        };
        let (report, ()) = tokio::join!(pass::run(options, sink), pass_on);
        Ok(report?)
    }

    /// Every object of the source, to be compared with its copy.
    async fn every_pair(
        &self,
        bucket: &BucketSettings,
        options: &PassOptions,
        place: &Mutex<ResumePoint>,
        jobs: mpsc::Sender<Job>,
    ) -> anyhow::Result<()> {
        let (store, name) = options.source.clone();
        let rate = Rate::new(options.requests_per_second);
        let side = Side { store, bucket: name, prefix: Arc::clone(&self.scope.prefix), rate };
        let depth = if self.options.deep { Depth::Bytes } else { Depth::Metadata };
        let range = KeyRange { start: self.options.start_after.clone(), end: None };
        let mut listing = Listing::new(side, range);
        while let Some(object) = listing.next_despite_start_ignored().await? {
            if bucket.wants(&object.key) {
                self.counters.to_check.fetch_add(1, Ordering::Relaxed);
                locked(place).pair(&object.key);
                drop(jobs.send(Job { key: object.key, depth, suspect: false }).await);
            }
        }
        locked(place).all_pairs();
        Ok(())
    }

    /// Looks at keys side by side, and records what differs.
    async fn check(
        &self,
        checker: &Checker,
        jobs: mpsc::Receiver<Job>,
        place: &Mutex<ResumePoint>,
        recorder: &mut Recorder,
    ) {
        let most = self.scope.settings.replicate.concurrency;
        let parallel = if self.options.deep { most.min(DEEP_PARALLEL) } else { most };
        let metadata = self.options.metadata;
        let mut checks = std::pin::pin!(
            stream::unfold(jobs, |mut jobs| async { jobs.recv().await.map(|job| (job, jobs)) })
                .map(|job| async move {
                    let found = checker.check(&job.key, job.depth, metadata, job.suspect).await;
                    (job, found)
                })
                .buffer_unordered(parallel)
        );
        while let Some((job, differences)) = checks.next().await {
            self.counters.checked.fetch_add(1, Ordering::Relaxed);
            for difference in differences {
                recorder.record(difference);
            }
            locked(place).done(&job.key, job.suspect);
        }
    }

    fn progress(&self) -> Progress {
        let counters = Arc::clone(&self.counters);
        let every = self.options.every();
        Progress::show(move || Sample {
            step: format!("{} compared", HumanCount(counters.compared.load(Ordering::Relaxed))),
            failing: 0,
            done: counters.checked.load(Ordering::Relaxed),
            total: {
                let found = counters.to_check.load(Ordering::Relaxed);
                let expected = counters.expected.load(Ordering::Relaxed);
                if every { found.max(expected) } else { found }
            },
            bytes: counters.bytes.load(Ordering::Relaxed),
            searching: !counters.all_listed.load(Ordering::Relaxed),
        })
    }
}
