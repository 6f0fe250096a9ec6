//! `sync`: compare once, then copy and delete until both sides agree.
//!
//! Promise: when it reports success, every key that the comparison found different was made to agree by
//! the same workers as in `run`, read from the source after the comparison began. Deletes wait until
//! the whole bucket is compared, and are held if the source looks wiped ([`deletes`]).
//!
//! Killed at any moment, the next `sync` first finishes what the journal holds and then compares again.
//! A signal ends it as a crash would, but in good order.

mod deletes;

use std::path::Path;
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
use crate::object::ObjectKey;
use crate::pipeline;
use crate::reconcile::merge::Finding;
use crate::reconcile::pass::{self, Difference, PassEvent, PassReport};
use crate::replicate::Stores;
use crate::shelf::{Shelf, Taken};

/// Appended to the journal at once.
const BATCH: usize = 256;
/// Differences on their way from the comparison.
const AHEAD: usize = 1_024;
/// As much disk as keys that may have to be deleted can take while a bucket is compared.
const SHELF_SIZE: u64 = 4 << 30;
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
        let extra = spool(&self.scope.settings.data_dir).await?;
        for bucket in &self.scope.settings.buckets {
            self.bucket(bucket, &extra, &mut report).await?;
        }
        extra.close().await;
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

    /// Compares one bucket and has the differences worked on.
    async fn bucket(
        &self,
        bucket: &BucketSettings,
        extra: &Shelf,
        report: &mut SyncReport,
    ) -> anyhow::Result<()> {
        let options = compare::options(&self.scope, &self.stores, bucket, &self.counters.compared);
        let (sink, events) = mpsc::channel(AHEAD);
        let (pass, taken) =
            tokio::join!(pass::run(options, sink), self.take(bucket, extra, events));
        // The pass knows only that nobody listens any more; the reason is here.
        taken?;
        let pass = pass.with_context(|| format!("bucket {}", bucket.source))?;
        report.compared(&pass);
        if bucket.deletes == DeletePolicy::Archive {
            report.kept += pass.extra;
            return Ok(());
        }
        self.delete(bucket, extra, &pass, report).await
    }

    /// Puts the differences into the journal, and what may have to be deleted aside.
    async fn take(
        &self,
        bucket: &BucketSettings,
        extra: &Shelf,
        mut events: mpsc::Receiver<PassEvent>,
    ) -> anyhow::Result<()> {
        let name: Arc<str> = bucket.source.as_str().into();
        let mut batch = Vec::new();
        while events.recv_many(&mut batch, BATCH).await > 0 {
            let (mut copies, mut deletes) = (Vec::new(), Vec::new());
            for event in batch.drain(..) {
                let PassEvent::Difference(found) = event else { continue };
                let Some(aspects) = aspects(found.finding) else { continue };
                let dirty = dirty(&name, &found, aspects);
                if found.finding == Finding::Extra { &mut deletes } else { &mut copies }
                    .push(dirty);
            }
            self.counters.found.fetch_add(copies.len() as u64, Ordering::Relaxed);
            if !copies.is_empty() {
                self.engine.append(&copies).await?;
            }
            if bucket.deletes != DeletePolicy::Archive {
                extra.put(&deletes).await.context("failed to set deletes aside")?;
            }
        }
        Ok(())
    }

    /// The bucket is compared: lets its deletes go ahead, or holds them all.
    async fn delete(
        &self,
        bucket: &BucketSettings,
        extra: &Shelf,
        pass: &PassReport,
        report: &mut SyncReport,
    ) -> anyhow::Result<()> {
        let approved = self.options.approve_deletes;
        let reason = deletes::hold(pass, self.scope.settings.deletes.max_delete_percent);
        if let Some(reason) = reason.filter(|_| !approved) {
            let count = extra.drain(&self.engine.journal, u64::MAX, |_| Taken::Dropped).await?;
            report.held.push(HeldBucket { bucket: bucket.source.clone(), count, reason });
            return Ok(());
        }
        let count = extra
            .drain(&self.engine.journal, u64::MAX, |dirty| {
                let approval = if approved { Aspects::APPROVED } else { Aspects::NONE };
                Taken::Back(DirtyKey { aspects: dirty.aspects.with(approval), ..dirty })
            })
            .await?;
        self.counters.found.fetch_add(count, Ordering::Relaxed);
        Ok(())
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

/// A shelf for the keys that may have to be deleted; what an earlier run left on it is found again.
async fn spool(dir: &Path) -> anyhow::Result<Shelf> {
    let dir = dir.join("extra");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)
            .with_context(|| format!("failed to empty {}", dir.display()))?;
    }
    Ok(Shelf::open(dir, SHELF_SIZE).await?.0)
}

/// What a worker is asked to look at; `None` if nothing has to be done.
const fn aspects(finding: Finding) -> Option<Aspects> {
    match finding {
        Finding::Same => None,
        Finding::Missing | Finding::Different(_) => Some(Aspects::CONTENT),
        Finding::Extra => Some(Aspects::REMOVED),
        Finding::Newer | Finding::Unverifiable => Some(Aspects::CHECK),
    }
}

fn dirty(bucket: &Arc<str>, found: &Difference, aspects: Aspects) -> DirtyKey {
    DirtyKey {
        key: ObjectKey::new(Arc::clone(bucket), found.key.as_str()),
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
        let options = compare::options(scope, stores, bucket, &Arc::default());
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
        match deletes::hold(&pass, scope.settings.deletes.max_delete_percent) {
            _ if archive => report.kept += pass.extra,
            Some(reason) => {
                let held = HeldBucket { bucket: bucket.source.clone(), count: pass.extra, reason };
                report.held.push(held);
            }
            None => report.deleted += pass.extra,
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
