//! `sync`: compare once, then copy and delete until both sides agree.
//!
//! Promise: when it reports success, every key that the comparison found different was made to agree by
//! the same workers as in `run`, read from the source after the comparison began. Deletes wait until
//! the whole bucket is compared, and are held if the source looks wiped, or if a restore into it is not
//! finished.
//!
//! Killed at any moment, the next `sync` first finishes what the journal holds and then compares again.
//! A signal ends it as a crash would, but in good order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context as _;
use indicatif::HumanCount;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::backlog::Backlog;
use super::progress::{Progress, Sample};
use super::report::{FailedKey, HeldBucket, SyncReport, answer, say};
use super::{Ended, Scope, compare};
use crate::clock;
use crate::config::settings::{BucketSettings, DeletePolicy};
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::metrics::Metrics;
use crate::object::{ETag, ObjectKey};
use crate::pipeline;
use crate::reconcile::extras::Extras;
use crate::reconcile::list::{Listing, Side};
use crate::reconcile::merge::{Finding, NoPairs, Why};
use crate::reconcile::pass::{self, PassEvent, PassOptions, PassReport};
use crate::reconcile::ranges::KeyRange;
use crate::reconcile::rate::Rate;
use crate::reconcile::verdict::{Case, Verdict, judge};
use crate::replicate::Stores;
use crate::restore::unfinished;
use crate::words::told;

/// Appended to the journal at once.
const BATCH: usize = 256;
/// Differences on their way from the comparison.
const AHEAD: usize = 1_024;
/// So many failed keys are named in the report.
const NAMED: usize = 100;

/// Source buckets whose deletes are held whatever the comparison finds, each with the reason.
type Braked = BTreeMap<Arc<str>, Arc<str>>;

/// What `sync` may do.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own")]
pub struct SyncOptions {
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Delete nothing at the target.
    pub no_delete: bool,
    /// A person approved whatever deletes are found: nothing is held.
    pub approve_deletes: bool,
    /// Compare headers, user metadata and tags of every object, which no listing shows.
    pub metadata: bool,
}

/// Runs it, and prints its report however it ends. Dropping the future is like a crash.
pub async fn run(mut scope: Scope, options: SyncOptions, stop: impl Future<Output = ()>) -> Ended {
    for bucket in &mut scope.settings.buckets {
        // What `delay` keeps for a day is for `run` to count down.
        if options.no_delete || bucket.deletes == DeletePolicy::Delay {
            bucket.deletes = DeletePolicy::Archive;
        }
    }
    let braked = if options.approve_deletes { Braked::new() } else { unfinished(&scope.settings) };
    scope.settings.data_dir = scope.settings.data_dir.join("sync");
    let (begin, json) = (Instant::now(), scope.json);
    let mut report = SyncReport { dry_run: options.dry_run, ..SyncReport::default() };
    tokio::pin!(stop);
    let result = if options.dry_run {
        tokio::select! {
            told = dry_run(&scope, &braked, &mut report) => told.map(|()| true),
            () = stop => Ok(false),
        }
    } else {
        Box::pin(work(scope, options, braked, stop, &mut report)).await
    };
    match result {
        Ok(to_the_end) => report.interrupted = !to_the_end,
        Err(error) => report.errors.push(told(&error)),
    }
    report.elapsed_s = begin.elapsed().as_secs_f64();
    report.print(json);
    report.ended()
}

/// Returns whether it came to its end; if not, it was stopped.
async fn work(
    scope: Scope,
    options: SyncOptions,
    braked: Braked,
    mut stop: impl Future<Output = ()> + Unpin,
    report: &mut SyncReport,
) -> anyhow::Result<bool> {
    let stores = pipeline::connect(&scope.settings).await?;
    let begun = async {
        let scope = usable(scope, &stores, report).await?;
        let backlog =
            Backlog::start(scope.settings.clone(), stores.clone(), braked.clone()).await?;
        anyhow::Ok((scope, backlog))
    };
    let (scope, backlog) = tokio::select! {
        begun = begun => begun?,
        () = &mut stop => return Ok(false),
    };
    let run = Run { scope, options, braked, stores, backlog, counters: Arc::default() };
    let result = tokio::select! {
        result = run.to_the_end(report) => result.map(|()| true),
        () = stop => Ok(false),
    };
    run.sum_up(report);
    run.backlog.stop().await;
    result
}

/// Leaves out the buckets that cannot be used, and says why; makes the target's where `run` would.
async fn usable(
    mut scope: Scope,
    stores: &Stores,
    report: &mut SyncReport,
) -> anyhow::Result<Scope> {
    let mut usable = Vec::new();
    for bucket in &scope.settings.buckets {
        match compare::create_target(&scope, stores, bucket).await {
            Ok(()) => usable.push(bucket.clone()),
            Err(error) => report.errors.push(format!("bucket {}: {error}", bucket.source)),
        }
    }
    scope.settings.buckets = usable;
    Ok(scope)
}

/// What is counted while it runs, for the progress.
#[derive(Debug, Default)]
struct Counters {
    compared: Arc<AtomicU64>,
    found: AtomicU64,
    comparing: AtomicBool,
    compared_all: AtomicBool,
}

#[derive(Debug)]
struct Run {
    scope: Scope,
    options: SyncOptions,
    braked: Braked,
    stores: Stores,
    backlog: Backlog,
    counters: Arc<Counters>,
}

impl Run {
    async fn to_the_end(&self, report: &mut SyncReport) -> anyhow::Result<()> {
        let _progress = self.progress();
        self.backlog.finish().await?;
        self.counters.comparing.store(true, Ordering::Relaxed);
        for bucket in &self.scope.settings.buckets {
            if let Err(error) = self.bucket(bucket, report).await {
                report.errors.push(format!("bucket {}: {}", bucket.source, told(&error)));
            }
        }
        self.counters.compared_all.store(true, Ordering::Relaxed);
        self.backlog.finish().await
    }

    /// What has been done by now.
    fn sum_up(&self, report: &mut SyncReport) {
        let totals = self.backlog.engine.totals();
        report.copied = totals.copied;
        report.deleted = totals.deleted;
        report.tagged = totals.tagged;
        report.unchanged += totals.unchanged + totals.ghosts;
        report.bytes = totals.bytes;
        let failed = self.backlog.engine.failing();
        report.failed = failed.len() as u64 + self.backlog.set_aside();
        report.failures = failed.iter().take(NAMED).map(FailedKey::from).collect();
        report.held.extend(self.backlog.held().into_iter().map(HeldBucket::from));
    }

    /// Compares one bucket and has the differences worked on. Half a comparison deletes nothing.
    async fn bucket(&self, bucket: &BucketSettings, report: &mut SyncReport) -> anyhow::Result<()> {
        let (remembered, name) = (Arc::clone(&self.backlog.remembered), bucket.source.clone());
        let pairs = move |key: &str, source: &ETag, target: &ETag| {
            remembered.is_pair(&name, key, source, target)
        };
        let compared = &self.counters.compared;
        let options =
            compare::options(&self.scope, &self.stores, bucket, compared, Arc::new(pairs)).await?;
        let options = PassOptions { closer: self.options.metadata, ..options };
        let mut extras = Extras::new(self.scope.settings.data_dir.join("extras"));
        let (sink, events) = mpsc::channel(AHEAD);
        let (pass, taken) =
            tokio::join!(pass::run(options, sink), self.take(bucket, &mut extras, events));
        // The pass knows only that nobody listens any more; the reason is here.
        taken?;
        let pass = pass?;
        report.compared(&pass);
        match verdict(&self.scope, bucket, &self.braked, &pass) {
            Verdict::Keep => report.kept += pass.extra,
            Verdict::Hold(reason) if !self.options.approve_deletes => {
                report.held.push(HeldBucket::new(bucket, pass.extra, &reason));
            }
            Verdict::Hold(_) | Verdict::Mark => self.delete(bucket, &mut extras).await?,
        }
        Ok(())
    }

    /// Puts the differences into the journal, and what may have to be deleted aside.
    async fn take(
        &self,
        bucket: &BucketSettings,
        extras: &mut Extras,
        mut events: mpsc::Receiver<PassEvent>,
    ) -> anyhow::Result<()> {
        let name: Arc<str> = bucket.source.as_str().into();
        let mut batch = Vec::new();
        while events.recv_many(&mut batch, BATCH).await > 0 {
            let mut copies = Vec::new();
            for event in batch.drain(..) {
                let PassEvent::Difference(found) = event else { continue };
                match aspects(found.finding) {
                    Some(Aspects::REMOVED) => {
                        let pushed = extras.push(&found.key).await;
                        pushed.context("failed to set deletes aside in data_dir/sync")?;
                    }
                    Some(aspects) => copies.push(dirty(
                        &name,
                        &found.key,
                        aspects,
                        found.source.map(|object| object.size),
                    )),
                    None => {}
                }
            }
            self.work(&copies).await?;
        }
        Ok(())
    }

    /// The bucket is compared, and its deletes may go ahead; each is still confirmed by the source.
    async fn delete(&self, bucket: &BucketSettings, extras: &mut Extras) -> anyhow::Result<()> {
        let name: Arc<str> = bucket.source.as_str().into();
        let approved = if self.options.approve_deletes { Aspects::APPROVED } else { Aspects::NONE };
        let aspects = Aspects::REMOVED.with(approved);
        let mut keys = extras.read().await?;
        loop {
            let page = keys.page(BATCH).await?;
            if page.is_empty() {
                return Ok(());
            }
            let page: Vec<_> = page.iter().map(|key| dirty(&name, key, aspects, Some(0))).collect();
            self.work(&page).await?;
        }
    }

    async fn work(&self, keys: &[DirtyKey]) -> anyhow::Result<()> {
        self.counters.found.fetch_add(keys.len() as u64, Ordering::Relaxed);
        self.backlog.append(keys).await
    }

    fn progress(&self) -> Progress {
        let (counters, metrics): (_, Metrics) =
            (Arc::clone(&self.counters), self.backlog.engine.metrics.clone());
        let queue = Arc::clone(&self.backlog.engine.queue);
        Progress::show(move || {
            let totals = metrics.totals();
            let nothing = totals.unchanged + totals.ghosts;
            let done = totals.copied + totals.deleted + totals.tagged + nothing;
            let compared = HumanCount(counters.compared.load(Ordering::Relaxed));
            let comparing = counters.comparing.load(Ordering::Relaxed);
            Sample {
                step: if comparing {
                    format!("{compared} compared")
                } else {
                    "finishing what an earlier run left".to_owned()
                },
                done,
                // What an earlier run had left in the journal was not found by this one.
                total: counters.found.load(Ordering::Relaxed).max(done),
                bytes: totals.bytes,
                failing: queue.counts().parked as u64,
                searching: !counters.compared_all.load(Ordering::Relaxed),
            }
        })
    }
}

/// What a worker is asked to look at; `None` if nothing has to be done.
const fn aspects(finding: Finding) -> Option<Aspects> {
    match finding {
        Finding::Same => None,
        Finding::Missing | Finding::Different(Why::Size) => Some(Aspects::CONTENT),
        Finding::Extra => Some(Aspects::REMOVED),
        // The target's metadata may remember the source's tag: a target that encrypts by itself.
        Finding::Different(Why::ETag) | Finding::Newer | Finding::Unverifiable => {
            Some(Aspects::CHECK)
        }
    }
}

/// What becomes of the objects that only the target has.
fn verdict(scope: &Scope, bucket: &BucketSettings, braked: &Braked, pass: &PassReport) -> Verdict {
    judge(Case {
        policy: bucket.deletes,
        report: pass,
        extras: pass.extra,
        prefix: !scope.prefix.is_empty(),
        max_percent: scope.settings.deletes.max_delete_percent,
        brake: braked.get(bucket.source.as_str()).cloned(),
    })
}

fn dirty(bucket: &Arc<str>, key: &str, aspects: Aspects, size: Option<u64>) -> DirtyKey {
    DirtyKey {
        key: ObjectKey::new(Arc::clone(bucket), key),
        aspects,
        origin: Origin::Repair,
        since_ms: clock::now_ms(),
        size,
    }
}

/// Compares, and says what would be done. Writes nothing, not even state of its own.
async fn dry_run(scope: &Scope, braked: &Braked, report: &mut SyncReport) -> anyhow::Result<()> {
    let stores = pipeline::connect(&scope.settings).await?;
    for bucket in &scope.settings.buckets {
        if let Err(error) = dry_run_bucket(scope, &stores, bucket, braked, report).await {
            report.errors.push(format!("bucket {}: {}", bucket.source, told(&error)));
        }
    }
    Ok(())
}

async fn dry_run_bucket(
    scope: &Scope,
    stores: &Stores,
    bucket: &BucketSettings,
    braked: &Braked,
    report: &mut SyncReport,
) -> anyhow::Result<()> {
    let options =
        match compare::options(scope, stores, bucket, &Arc::default(), Arc::new(NoPairs)).await {
            Err(error) if error.is_missing_target() && scope.settings.target.create_buckets => {
                return dry_run_new(scope, stores, bucket, report).await;
            }
            options => options?,
        };
    let (sink, mut events) = mpsc::channel(AHEAD);
    let archive = bucket.deletes == DeletePolicy::Archive;
    let tell = async {
        let (mut copied, mut bytes) = (0, 0);
        while let Some(event) = events.recv().await {
            let PassEvent::Difference(found) = event else { continue };
            let size = found.source.as_ref().map_or(0, |object| object.size);
            let verb = verb(found.finding, archive);
            if verb == "copy" {
                (copied, bytes) = (copied + 1, bytes + size);
            }
            tell(scope, verb, bucket, &found.key, found.finding);
        }
        (copied, bytes)
    };
    let (pass, (copied, bytes)) = tokio::join!(pass::run(options, sink), tell);
    let pass = pass?;
    report.compared(&pass);
    (report.copied, report.bytes) = (report.copied + copied, report.bytes + bytes);
    report.checked += pass.newer + pass.unverifiable;
    match verdict(scope, bucket, braked, &pass) {
        Verdict::Keep => report.kept += pass.extra,
        Verdict::Hold(reason) => {
            report.held.push(HeldBucket::new(bucket, pass.extra, &reason));
        }
        Verdict::Mark => report.deleted += pass.extra,
    }
    Ok(())
}

/// The target's bucket is not there yet, and would be made: everything is missing.
async fn dry_run_new(
    scope: &Scope,
    stores: &Stores,
    bucket: &BucketSettings,
    report: &mut SyncReport,
) -> anyhow::Result<()> {
    let rate = Rate::new(compare::rate(&scope.settings));
    let (store, name) = (stores.source.clone(), bucket.source.as_str().into());
    let side = Side { store, bucket: name, prefix: Arc::clone(&scope.prefix), rate };
    let mut listing = Listing::new(side, KeyRange::ALL);
    report.new_buckets.push(bucket.target_name().to_owned());
    while let Some(object) = listing.next().await? {
        if bucket.wants(&object.key) {
            (report.source_objects, report.copied) = (report.source_objects + 1, report.copied + 1);
            report.source_bytes += object.size;
            report.bytes += object.size;
            tell(scope, "copy", bucket, &object.key, Finding::Missing);
        }
    }
    Ok(())
}

/// A line of the dry run: part of the answer, unless that is one JSON object.
fn tell(scope: &Scope, verb: &str, bucket: &BucketSettings, key: &str, finding: Finding) {
    let key = ObjectKey::new(bucket.source.as_str(), key);
    let line = format!("{verb} {key} ({})", finding.name());
    if scope.json { say(&line) } else { answer(&line) }
}

const fn verb(finding: Finding, archive: bool) -> &'static str {
    match finding {
        Finding::Missing | Finding::Different(_) => "copy",
        Finding::Extra if archive => "keep",
        Finding::Extra => "delete",
        Finding::Newer | Finding::Unverifiable | Finding::Same => "check",
    }
}
