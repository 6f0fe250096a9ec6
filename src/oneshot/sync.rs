//! `sync`: compare once, then copy and delete until both sides agree.
//!
//! Promise: when it reports success, every key that the comparison found different was made to agree by
//! the same workers as in `run`, read from the source after the comparison began. Deletes wait until
//! the whole bucket is compared, and are held if the source looks wiped.
//!
//! Killed at any moment, the next `sync` first finishes what the journal holds and then compares again.
//! A signal ends it as a crash would, but in good order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::engine::Engine;
use super::progress::{Progress, Sample};
use super::report::{FailedKey, HeldBucket, SyncReport, say};
use super::{Scope, compare};
use crate::clock;
use crate::config::settings::{BucketSettings, DeletePolicy};
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::metrics::Metrics;
use crate::object::{ETag, ObjectKey};
use crate::pipeline;
use crate::reconcile::extras::Extras;
use crate::reconcile::merge::{Finding, NoPairs, Why};
use crate::reconcile::pass::{self, PassEvent, PassReport};
use crate::reconcile::verdict::{Case, Verdict, judge};
use crate::replicate::Stores;

/// Appended to the journal at once.
const BATCH: usize = 256;
/// Differences on their way from the comparison.
const AHEAD: usize = 1_024;
/// So many failed keys are named in the report.
const NAMED: usize = 100;

/// What `sync` may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct SyncOptions {
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Delete nothing at the target.
    pub no_delete: bool,
    /// A person approved whatever deletes are found: nothing is held.
    pub approve_deletes: bool,
}

/// Runs it to the end, and prints its report. Returns whether both sides agree now, as far as was
/// asked for. Dropping the future is like a crash.
pub async fn run(
    mut scope: Scope,
    options: SyncOptions,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<bool> {
    for bucket in &mut scope.settings.buckets {
        // What `delay` keeps for a day is for `run` to count down.
        if options.no_delete || bucket.deletes == DeletePolicy::Delay {
            bucket.deletes = DeletePolicy::Archive;
        }
    }
    scope.settings.data_dir = scope.settings.data_dir.join("sync");
    let stores = pipeline::connect(&scope.settings).await?;
    if options.dry_run {
        let report = tokio::select! {
            report = dry_run(&scope, &stores) => report?,
            () = stop => return Ok(false),
        };
        report.print(scope.json);
        return Ok(true);
    }
    let clients = Stores { source: stores.source.clone(), target: stores.target.clone() };
    let (settings, begin) = (scope.settings.clone(), Instant::now());
    tokio::pin!(stop);
    let engine = tokio::select! {
        engine = Engine::start(settings, clients) => engine?,
        () = &mut stop => return Ok(false),
    };
    let run = Run { scope, options, stores, engine, counters: Arc::default() };
    let report = tokio::select! {
        report = run.to_the_end() => Some(report),
        () = stop => None,
    };
    let Run { engine, scope, .. } = run;
    engine.stop().await;
    let Some(report) = report else {
        say("Interrupted. The next sync goes on with what the journal holds.");
        return Ok(false);
    };
    let report = SyncReport { elapsed_s: begin.elapsed().as_secs_f64(), ..report? };
    report.print(scope.json);
    Ok(report.agrees())
}

/// What is counted while it runs, for the progress.
#[derive(Debug, Default)]
struct Counters {
    compared: Arc<AtomicU64>,
    found: AtomicU64,
    compared_all: AtomicBool,
}

#[derive(Debug)]
struct Run {
    scope: Scope,
    options: SyncOptions,
    stores: Stores,
    engine: Engine,
    counters: Arc<Counters>,
}

impl Run {
    async fn to_the_end(&self) -> anyhow::Result<SyncReport> {
        let _progress = self.progress();
        self.engine.finish().await?;
        let mut report = SyncReport::default();
        for bucket in &self.scope.settings.buckets {
            if let Err(error) = self.bucket(bucket, &mut report).await {
                report.errors.push(format!("bucket {}: {error:#}", bucket.source));
            }
        }
        self.counters.compared_all.store(true, Ordering::Relaxed);
        let failed = self.engine.finish().await?;
        let totals = self.engine.metrics.totals();
        report.copied = totals.copied;
        report.deleted = totals.deleted;
        report.tagged = totals.tagged;
        report.unchanged += totals.unchanged;
        report.bytes = totals.bytes;
        report.failed = failed.len() as u64 + self.engine.set_aside();
        report.failures = failed.iter().take(NAMED).map(FailedKey::from).collect();
        report.held.extend(self.engine.held().into_iter().map(HeldBucket::from));
        Ok(report)
    }

    /// Compares one bucket and has the differences worked on. Half a comparison deletes nothing.
    async fn bucket(&self, bucket: &BucketSettings, report: &mut SyncReport) -> anyhow::Result<()> {
        let (remembered, name) = (Arc::clone(&self.engine.remembered), bucket.source.clone());
        let pairs = move |key: &str, source: &ETag, target: &ETag| {
            remembered.is_pair(&name, key, source, target)
        };
        let compared = &self.counters.compared;
        let options =
            compare::options(&self.scope, &self.stores, bucket, compared, Arc::new(pairs)).await?;
        let mut extras = Extras::new(self.scope.settings.data_dir.join("extras"));
        let (sink, events) = mpsc::channel(AHEAD);
        let (pass, taken) =
            tokio::join!(pass::run(options, sink), self.take(bucket, &mut extras, events));
        // The pass knows only that nobody listens any more; the reason is here.
        taken?;
        let pass = pass?;
        report.compared(&pass);
        match verdict(&self.scope, bucket, &pass) {
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
                    Some(aspects) => copies.push(dirty(&name, &found.key, aspects)),
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
            let page: Vec<_> = page.iter().map(|key| dirty(&name, key, aspects)).collect();
            self.work(&page).await?;
        }
    }

    async fn work(&self, keys: &[DirtyKey]) -> anyhow::Result<()> {
        self.counters.found.fetch_add(keys.len() as u64, Ordering::Relaxed);
        self.engine.append(keys).await
    }

    fn progress(&self) -> Progress {
        let (counters, metrics): (_, Metrics) =
            (Arc::clone(&self.counters), self.engine.metrics.clone());
        Progress::show(move || {
            let totals = metrics.totals();
            let done = totals.copied + totals.deleted + totals.tagged + totals.unchanged;
            Sample {
                compared: counters.compared.load(Ordering::Relaxed),
                done,
                // What an earlier run had left in the journal was not found by this one.
                total: counters.found.load(Ordering::Relaxed).max(done),
                bytes: totals.bytes,
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
fn verdict(scope: &Scope, bucket: &BucketSettings, pass: &PassReport) -> Verdict {
    judge(Case {
        policy: bucket.deletes,
        report: pass,
        extras: pass.extra,
        prefix: !scope.prefix.is_empty(),
        max_percent: scope.settings.deletes.max_delete_percent,
        brake: None,
    })
}

fn dirty(bucket: &Arc<str>, key: &str, aspects: Aspects) -> DirtyKey {
    DirtyKey {
        key: ObjectKey::new(Arc::clone(bucket), key),
        aspects,
        origin: Origin::Repair,
        since_ms: clock::now_ms(),
    }
}

/// Compares, and says what would be done. Writes nothing, not even state of its own.
async fn dry_run(scope: &Scope, stores: &Stores) -> anyhow::Result<SyncReport> {
    let begin = Instant::now();
    let mut report = SyncReport { dry_run: true, ..SyncReport::default() };
    for bucket in &scope.settings.buckets {
        let options =
            compare::options(scope, stores, bucket, &Arc::default(), Arc::new(NoPairs)).await?;
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
                let key = ObjectKey::new(bucket.source.as_str(), found.key.as_str());
                report_line(scope.json, &format!("{verb} {key} ({})", found.finding.name()));
            }
            (copied, bytes)
        };
        let (pass, (copied, bytes)) = tokio::join!(pass::run(options, sink), tell);
        let pass = pass.with_context(|| format!("bucket {}", bucket.source))?;
        report.compared(&pass);
        (report.copied, report.bytes) = (report.copied + copied, report.bytes + bytes);
        report.checked += pass.newer + pass.unverifiable;
        match verdict(scope, bucket, &pass) {
            Verdict::Keep => report.kept += pass.extra,
            Verdict::Hold(reason) => {
                report.held.push(HeldBucket::new(bucket, pass.extra, &reason));
            }
            Verdict::Mark => report.deleted += pass.extra,
        }
    }
    report.elapsed_s = Duration::as_secs_f64(&begin.elapsed());
    Ok(report)
}

const fn verb(finding: Finding, archive: bool) -> &'static str {
    match finding {
        Finding::Missing | Finding::Different(_) => "copy",
        Finding::Extra if archive => "keep",
        Finding::Extra => "delete",
        Finding::Newer | Finding::Unverifiable | Finding::Same => "check",
    }
}

/// A line of the dry run: part of the answer, unless that is one JSON object.
fn report_line(json: bool, line: &str) {
    if json { say(line) } else { super::report::answer(line) }
}
