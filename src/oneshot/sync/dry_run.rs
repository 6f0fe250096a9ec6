//! `sync --dry-run`: compares, and says what would be done. Writes nothing, not even state of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::HumanCount;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{AHEAD, Plan};
use crate::config::settings::{BucketSettings, DeletePolicy};
use crate::deletes::extras::Keys;
use crate::deletes::verdict::Verdict;
use crate::errors::told;
use crate::object::ObjectKey;
use crate::oneshot::progress::{Progress, Sample};
use crate::oneshot::report::{HeldBucket, SyncReport, answer, say};
use crate::oneshot::{Scope, compare};
use crate::reconcile::list::{Listing, Side};
use crate::reconcile::merge::{Finding, NoPairs};
use crate::reconcile::pass::{self, PassEvent};
use crate::reconcile::ranges::KeyRange;
use crate::reconcile::rate::Rate;
use crate::stores;
use crate::stores::Stores;

/// So many keys are remembered that only the target has, to ask the source whether they came just now.
const MOST_EXTRAS: usize = 10_000;

/// Tells of every bucket; one that cannot be compared is an error of the report.
pub(super) async fn run(plan: &Plan, report: &mut SyncReport) -> anyhow::Result<()> {
    let stores = stores::connect(&plan.scope.settings).await?;
    let counters = Arc::<Counters>::default();
    let _progress = progress(Arc::clone(&counters));
    for bucket in &plan.scope.settings.buckets {
        if let Err(error) = compared(plan, &stores, bucket, &counters, report).await {
            report.errors.push(format!("bucket {}: {}", bucket.source, told(&error)));
        }
    }
    Ok(())
}

/// What is counted while it runs, for the progress.
#[derive(Debug, Default)]
struct Counters {
    compared: Arc<AtomicU64>,
    /// Differences that were told.
    found: AtomicU64,
}

fn progress(counters: Arc<Counters>) -> Progress {
    Progress::show(move || {
        let found = counters.found.load(Ordering::Relaxed);
        let compared = HumanCount(counters.compared.load(Ordering::Relaxed));
        let step = format!("{compared} compared, nothing is written");
        Sample { step, done: found, total: found, searching: true, ..Sample::default() }
    })
}

async fn compared(
    plan: &Plan,
    stores: &Stores,
    bucket: &BucketSettings,
    counters: &Counters,
    report: &mut SyncReport,
) -> anyhow::Result<()> {
    let scope = &plan.scope;
    let options =
        compare::options(scope, stores, bucket, &counters.compared, Arc::new(NoPairs)).await;
    let options = match options {
        Err(error) if error.is_missing_target() && scope.settings.target.create_buckets => {
            return new_bucket(scope, stores, bucket, counters, report).await;
        }
        options => options?,
    };
    let (sink, mut events) = mpsc::channel(AHEAD);
    let archive = bucket.deletes == DeletePolicy::Archive;
    let began = Instant::now();
    let mut extra_keys = Vec::new();
    let tell = async {
        let (mut copied, mut bytes, mut discarded) = (0, 0, 0);
        while let Some(event) = events.recv().await {
            let PassEvent::Difference(found) = event else { continue };
            let size = found.source.as_ref().map_or(0, |object| object.size);
            let discard =
                found.finding == Finding::Extra && plan.deletes.keeps(&bucket.source, &found.key);
            discarded += u64::from(discard);
            if found.finding == Finding::Extra && !discard && extra_keys.len() < MOST_EXTRAS {
                extra_keys.push(found.key.clone());
            }
            counters.found.fetch_add(1, Ordering::Relaxed);
            let verb = verb(found.finding, archive || discard);
            if verb == "copy" {
                (copied, bytes) = (copied + 1, bytes + size);
            }
            tell(scope, verb, bucket, &found.key, found.finding);
        }
        (copied, bytes, discarded)
    };
    let (pass, (copied, bytes, discarded)) = tokio::join!(pass::run(options, sink), tell);
    let pass = pass?;
    report.compared(&pass);
    (report.copied, report.bytes) = (report.copied + copied, report.bytes + bytes);
    report.checked += pass.newer + pass.unverifiable;
    let extras = pass.extra - discarded;
    let brake = plan.deletes.brakes.get(bucket.source.as_str()).cloned();
    let mut kept = 0;
    let of = (bucket, &pass, extras);
    let keys = async || Ok(Keys::of(extra_keys));
    match plan.verdict(&stores.source, of, keys, brake, began.elapsed()).await? {
        Verdict::Keep => kept = extras,
        Verdict::Hold(reason) => report.held.push(HeldBucket::new(bucket, extras, &reason)),
        Verdict::Mark => report.deleted += extras,
    }
    plan.stay(bucket, kept, discarded, report);
    Ok(())
}

/// The target's bucket is not there yet, and would be made: everything is missing.
async fn new_bucket(
    scope: &Scope,
    stores: &Stores,
    bucket: &BucketSettings,
    counters: &Counters,
    report: &mut SyncReport,
) -> anyhow::Result<()> {
    let rate = Rate::new(scope.settings.reconcile.rate());
    let (store, name) = (stores.source.clone(), bucket.source.as_str().into());
    let side = Side { store, bucket: name, prefix: Arc::clone(&scope.prefix), rate };
    let mut listing = Listing::new(side, KeyRange::ALL);
    report.new_buckets.push(bucket.target_name().to_owned());
    while let Some(object) = listing.next().await? {
        if bucket.wants(&object.key) {
            (report.source_objects, report.copied) = (report.source_objects + 1, report.copied + 1);
            report.source_bytes += object.size;
            report.bytes += object.size;
            counters.compared.fetch_add(1, Ordering::Relaxed);
            counters.found.fetch_add(1, Ordering::Relaxed);
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

const fn verb(finding: Finding, stays: bool) -> &'static str {
    match finding {
        Finding::Missing | Finding::Different(_) => "copy",
        Finding::Extra if stays => "keep",
        Finding::Extra => "delete",
        Finding::Newer | Finding::Unverifiable | Finding::Same => "check",
    }
}
