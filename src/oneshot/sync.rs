//! `sync`: compare once, then copy and delete until both sides agree.
//!
//! Promise: when it reports success, every key that the comparison found different was made to agree by
//! the same workers as in `run`, read from the source after the comparison began. Deletes wait until
//! the whole bucket is compared, and are held if the source looks wiped. What a person decided in `run`
//! stands here, too: an object whose delete was discarded stays, and where `run` holds deletes, or a restore is
//! not finished, so does this.
//!
//! Killed at any moment, the next `sync` first finishes what the journal holds and then compares again.
//! A signal ends it as a crash would, but in good order.

mod dry_run;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::HumanCount;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::progress::{Progress, Sample};
use super::report::{FailedKey, HeldBucket, SyncReport};
use super::sync_queue::SyncQueue;
use super::{Ended, Scope, compare};
use crate::clock;
use crate::config::settings::{BucketSettings, DeletePolicy};
use crate::data_dir::DataDir;
use crate::deletes::decided::Deletes;
use crate::deletes::extras::{Extras, Keys, judge_extras};
use crate::deletes::verdict::{Case, Verdict};
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::errors::told;
use crate::metrics::Metrics;
use crate::object::{ETag, ObjectKey};
use crate::oneshot::restore::unfinished;
use crate::reconcile::pass::{self, PassEvent, PassOptions, PassReport};
use crate::store::Store;
use crate::stores;
use crate::stores::Stores;

/// Appended to the journal at once.
const BATCH: usize = 256;
/// Differences on their way from the comparison.
const AHEAD: usize = 1_024;
/// So many failed keys are named in the report.
const NAMED: usize = 100;

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
pub async fn run(scope: Scope, options: SyncOptions, stop: impl Future<Output = ()>) -> Ended {
    let (begin, json) = (Instant::now(), scope.json);
    let mut report = SyncReport { dry_run: options.dry_run, ..SyncReport::default() };
    let result = match Plan::new(scope, options).await {
        Ok(plan) => carry_out(plan, stop, &mut report).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(to_the_end) => report.interrupted = !to_the_end,
        Err(error) => report.errors.push(told(&error)),
    }
    report.elapsed_s = begin.elapsed().as_secs_f64();
    report.print(json);
    report.ended()
}

/// What is to be done, and within which limits.
#[derive(Debug)]
struct Plan {
    /// In its settings, a bucket in which this command deletes nothing is an archive.
    scope: Scope,
    options: SyncOptions,
    deletes: Deletes,
    /// The source buckets whose deletes are delayed: `run` counts that down.
    delayed: BTreeSet<String>,
}

impl Plan {
    async fn new(mut scope: Scope, options: SyncOptions) -> anyhow::Result<Self> {
        let mut deletes = Deletes::read(&scope.settings).await?;
        if options.approve_deletes {
            deletes.approve();
        } else {
            deletes.brakes.extend(unfinished(&scope.settings));
        }
        let mut delayed = BTreeSet::new();
        for bucket in &mut scope.settings.buckets {
            if bucket.deletes == DeletePolicy::Delay {
                delayed.insert(bucket.source.clone());
            }
            if options.no_delete || bucket.deletes == DeletePolicy::Delay {
                bucket.deletes = DeletePolicy::Archive;
            }
        }
        scope.settings.data_dir = DataDir::at(&scope.settings.data_dir).sync();
        Ok(Self { scope, options, deletes, delayed })
    }

    /// What becomes of the objects that only the target has and nobody wants to stay: so many `extras`, whose `keys`
    /// are asked for where it matters. The comparison took `took` and has ended now.
    async fn verdict(
        &self,
        source: &Store,
        (bucket, pass, extras): (&BucketSettings, &PassReport, u64),
        keys: impl AsyncFnOnce() -> io::Result<Keys>,
        brake: Option<Arc<str>>,
        took: Duration,
    ) -> anyhow::Result<Verdict> {
        let case = Case {
            policy: bucket.deletes,
            report: pass,
            extras,
            came: 0,
            prefix: !self.scope.prefix.is_empty(),
            may_be_empty: bucket.may_be_empty,
            max_percent: self.scope.settings.deletes.max_delete_percent,
            brake,
        };
        let (store, bucket) = (source, bucket.source.as_str());
        Ok(match judge_extras(case, (store, bucket), keys, took).await? {
            Verdict::Hold(_) if self.approves(bucket) => Verdict::Mark,
            verdict @ (Verdict::Keep | Verdict::Mark | Verdict::Hold(_)) => verdict,
        })
    }

    /// Whether a person approved whatever deletes are found in this source bucket, and may.
    fn approves(&self, bucket: &str) -> bool {
        self.options.approve_deletes && self.deletes.can_approve(bucket)
    }

    /// Tells of objects that only the target has and that stay: so many `extras` because nothing is deleted
    /// in the bucket, and so many because a person discarded their deletes.
    fn stay(&self, bucket: &BucketSettings, extras: u64, discarded: u64, report: &mut SyncReport) {
        report.kept += extras + discarded;
        report.discarded += discarded;
        if self.delayed.contains(&bucket.source) {
            report.delayed += extras;
        }
    }
}

/// Returns whether it came to its end; if not, it was stopped.
async fn carry_out(
    plan: Plan,
    stop: impl Future<Output = ()>,
    report: &mut SyncReport,
) -> anyhow::Result<bool> {
    tokio::pin!(stop);
    if !plan.options.dry_run {
        return Box::pin(work(plan, stop, report)).await;
    }
    tokio::select! {
        told = dry_run::run(&plan, report) => told.map(|()| true),
        () = stop => Ok(false),
    }
}

async fn work(
    mut plan: Plan,
    mut stop: impl Future<Output = ()> + Unpin,
    report: &mut SyncReport,
) -> anyhow::Result<bool> {
    let stores = stores::connect(&plan.scope.settings).await?;
    let begun = async {
        plan.scope = usable(plan.scope, &stores, report).await?;
        let settings = plan.scope.settings.clone();
        let backlog = SyncQueue::start(settings, stores.clone(), &plan.deletes).await?;
        anyhow::Ok((plan, backlog))
    };
    let (plan, backlog) = tokio::select! {
        begun = begun => begun?,
        () = &mut stop => return Ok(false),
    };
    let run = Run { plan, stores, backlog, counters: Arc::default() };
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
    plan: Plan,
    stores: Stores,
    backlog: SyncQueue,
    counters: Arc<Counters>,
}

impl Run {
    async fn to_the_end(&self, report: &mut SyncReport) -> anyhow::Result<()> {
        let _progress = self.progress();
        self.backlog.finish().await?;
        self.counters.comparing.store(true, Ordering::Relaxed);
        for bucket in &self.plan.scope.settings.buckets {
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
        for held in self.backlog.held().into_iter().map(HeldBucket::from) {
            // What an earlier run had marked to be deleted, the comparison has found again.
            match report.held.iter_mut().find(|told| told.bucket == held.bucket) {
                Some(told) => told.count = told.count.max(held.count),
                None => report.held.push(held),
            }
        }
    }

    /// Compares one bucket and has the differences worked on. Half a comparison deletes nothing.
    async fn bucket(&self, bucket: &BucketSettings, report: &mut SyncReport) -> anyhow::Result<()> {
        let (remembered, name) = (Arc::clone(&self.backlog.remembered), bucket.source.clone());
        let pairs = move |key: &str, source: &ETag, target: &ETag| {
            remembered.is_pair(&name, key, source, target)
        };
        let compared = &self.counters.compared;
        let options =
            compare::options(&self.plan.scope, &self.stores, bucket, compared, Arc::new(pairs))
                .await?;
        let options = PassOptions { closer: self.plan.options.metadata, ..options };
        let mut extras = Extras::new(DataDir::at(&self.plan.scope.settings.data_dir).extras());
        let (sink, events) = mpsc::channel(AHEAD);
        let began = Instant::now();
        let (pass, taken) =
            tokio::join!(pass::run(options, sink), self.take(bucket, &mut extras, events));
        // The pass knows only that nobody listens any more; the reason is here.
        taken?;
        let pass = pass?;
        report.compared(&pass);
        let (count, brake) = (extras.count(), self.backlog.brake(&bucket.source));
        let mut kept = 0;
        let of = (bucket, &pass, count);
        let verdict = self.plan.verdict(
            &self.stores.source,
            of,
            async || extras.read().await,
            brake,
            began.elapsed(),
        );
        match verdict.await? {
            Verdict::Keep => kept = count,
            Verdict::Hold(reason) => report.held.push(HeldBucket::new(bucket, count, &reason)),
            Verdict::Mark => self.delete(bucket, &mut extras).await?,
        }
        self.plan.stay(bucket, kept, pass.extra - count, report);
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
                match found.finding.repair() {
                    Some(Aspects::REMOVED)
                        if self.backlog.remembered.is_kept(&name, &found.key) => {}
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
        let decided = if self.plan.approves(&name) { Aspects::APPROVED } else { Aspects::NONE };
        let aspects = Aspects::REMOVED.with(decided);
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

fn dirty(bucket: &Arc<str>, key: &str, aspects: Aspects, size: Option<u64>) -> DirtyKey {
    DirtyKey {
        key: ObjectKey::new(Arc::clone(bucket), key),
        aspects,
        origin: Origin::Repair,
        since_ms: clock::now_ms(),
        size,
    }
}
