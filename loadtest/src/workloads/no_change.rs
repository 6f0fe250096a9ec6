//! A pass that finds nothing to do: 200,000 objects that both sides have, in one flat bucket and in 620
//! folders.
//!
//! Each subject compares the same two buckets again and again. The floor is the listing of both sides,
//! by the code that evermirror lists with, over as many ranges at once, told where to cut, and
//! with nothing done about what it gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use evermirror::config::settings::ReconcileSettings;
use evermirror::reconcile::list::{Listing, Side};
use evermirror::reconcile::ranges::tile;
use evermirror::reconcile::rate::Rate;

use crate::bench::Bench;
use crate::data;
use crate::process::{Usage, own_usage};
use crate::report::{Bound, progress};
use crate::subject::Subject;

const OBJECTS: usize = 200_000;
/// Of each object: a listing does not care.
const SIZE: usize = 32;

const SECONDS: &str = "a pass, s";
const CPU: &str = "CPU of a pass, s";
const PEAK: &str = "peak memory, MiB";

/// How the keys of a bucket are laid out.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Of the workload in the report.
    name: &'static str,
    bucket: &'static str,
    /// What is claimed: over listing, over mc, over rclone, over the best peer or listing, memory.
    claims: [&'static str; 5],
    key: fn(usize) -> String,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        name: "no-change, flat",
        bucket: "no-change-flat",
        claims: [
            "time of a no-change pass, flat, over listing both sides",
            "speed of a no-change pass, flat, over mc's",
            "speed of a no-change pass, flat, over rclone's",
            "speed of a no-change pass, flat, over 3 times the best peer's or 0.9 times listing's",
            "resident memory in a no-change pass, flat, MiB",
        ],
        key: |number| format!("part-{number:08}-b9c1.parquet"),
    },
    Layout {
        name: "no-change, folders",
        bucket: "no-change-folders",
        claims: [
            "time of a no-change pass, folders, over listing both sides",
            "speed of a no-change pass, folders, over mc's",
            "speed of a no-change pass, folders, over rclone's",
            "speed of a no-change pass, folders, over 3 times the best peer's or 0.9 times listing's",
            "resident memory in a no-change pass, folders, MiB",
        ],
        key: |number| {
            let (table, day) = (number % 20, number / 20 % 31);
            format!("warehouse/table-{table:02}/day={day:02}/part-{number:08}-b9c1.parquet")
        },
    },
];

#[derive(Debug, Clone, Copy)]
enum Lister {
    Evermirror,
    /// This process, which does nothing with what it lists.
    Listing,
    Rclone,
    Mc,
}

impl Subject for Lister {
    fn name(self) -> &'static str {
        match self {
            Self::Evermirror => "evermirror",
            Self::Listing => "listing",
            Self::Rclone => "rclone",
            Self::Mc => "mc",
        }
    }
}

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.scaled(OBJECTS);
    for layout in LAYOUTS {
        let bucket = layout.bucket;
        progress(&format!("{}: giving both sides {count} objects.", layout.name));
        bench.source_bucket(bucket).await?;
        bench.target_bucket(bucket).await?;
        let content = data::content(0, SIZE);
        data::put_at(&bench.source_store, bucket, &(layout.key)(0), content).await?;
        bench.multiply(bucket, count, layout.key).await?;
        let points = data::equal((&bench.source_store, bucket), (&bench.target_store, bucket));
        let points = cuts(points.await?);
        // Whoever lists first after so many writes would pay for everybody.
        list_both(bench, bucket, count, &points).await?;
        let subjects = [Lister::Evermirror, Lister::Listing, Lister::Rclone, Lister::Mc];
        for round in 0..bench.rounds {
            for subject in bench.order(round, &subjects) {
                measure(bench, subject, layout, round, &points).await?;
            }
        }
        data::equal((&bench.source_store, bucket), (&bench.target_store, bucket)).await?;
        judge(bench, layout);
    }
    Ok(())
}

/// As many ranges at once as evermirror lists by default.
fn parallel() -> usize {
    ReconcileSettings::default().parallel
}

/// The keys that cut the bucket into ranges of equal length.
fn cuts(objects: std::collections::BTreeMap<String, String>) -> Vec<String> {
    let every = objects.len().div_ceil(parallel()).max(1);
    objects.into_keys().step_by(every).skip(1).collect()
}

async fn measure(
    bench: &mut Bench,
    subject: Lister,
    layout: Layout,
    round: u32,
    points: &[String],
) -> anyhow::Result<()> {
    let name = subject.name();
    progress(&format!("{}, round {}: {name}.", layout.name, round + 1));
    let (bucket, count) = (layout.bucket, bench.scaled(OBJECTS));
    bench.settle().await?;
    let (took, usage) = match subject {
        Lister::Evermirror => {
            let site = bench.site(&format!("{bucket}-{round}"), bucket, bucket)?;
            let sync = site.sync(&[]).await?;
            let [unchanged, copied] = [sync.count("unchanged")?, sync.count("copied")?];
            ensure!((unchanged, copied) == (count, 0), "it found {}", sync.report);
            (sync.took, sync.usage)
        }
        Lister::Listing => list_both(bench, bucket, count, points).await?,
        Lister::Rclone => bench.peers().rclone(&["sync", "--size-only"], bucket, bucket).await?,
        Lister::Mc => bench.peers().mc(bucket, bucket).await?,
    };
    bench.report.note(layout.name, name, SECONDS, took.as_secs_f64());
    bench.report.note(layout.name, name, CPU, usage.cpu_s);
    if !matches!(subject, Lister::Listing) {
        bench.report.note(layout.name, name, PEAK, usage.peak_mib);
    }
    Ok(())
}

/// Lists the bucket on both sides, all ranges at once, in this process.
async fn list_both(
    bench: &Bench,
    bucket: &str,
    count: usize,
    points: &[String],
) -> anyhow::Result<(Duration, Usage)> {
    let (begun, before) = (Instant::now(), own_usage()?);
    let listed = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for store in [&bench.source_store, &bench.target_store] {
        for range in tile(points.to_vec()) {
            let (bucket, prefix) = (bucket.into(), "".into());
            let side = Side { store: store.clone(), bucket, prefix, rate: Rate::default() };
            let listed = Arc::clone(&listed);
            tasks.spawn(async move {
                let mut listing = Listing::new(side, range);
                while listing.next().await?.is_some() {
                    listed.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let (took, after) = (begun.elapsed(), own_usage()?);
    let listed = listed.load(Ordering::Relaxed);
    ensure!(listed == 2 * count, "the listing of both sides gave {listed} objects");
    Ok((took, Usage { cpu_s: after.cpu_s - before.cpu_s, peak_mib: after.peak_mib }))
}

fn judge(bench: &mut Bench, layout: Layout) {
    let report = &mut bench.report;
    let [over_listing, over_mc, over_rclone, over_either, memory] = layout.claims;
    let ours = ("evermirror", SECONDS);
    report.judge_ratio(over_listing, Bound::AtMost(1.2), layout.name, ours, ("listing", SECONDS));
    // The peers' time over ours is our speed over theirs.
    report.judge_ratio(over_mc, Bound::AtLeast(3.0), layout.name, ("mc", SECONDS), ours);
    report.judge_ratio(over_rclone, Bound::AtLeast(1.5), layout.name, ("rclone", SECONDS), ours);
    let [ours, listing, mc, rclone] = ["evermirror", "listing", "mc", "rclone"]
        .map(|subject| report.rounds(layout.name, subject, SECONDS));
    let rounds = ours.iter().zip(listing).zip(mc.iter().zip(rclone));
    let either = rounds
        .map(|((ours, listing), (mc, rclone))| {
            (mc.min(*rclone) / (3.0 * ours)).max(listing / (0.9 * ours))
        })
        .collect();
    report.judge_ratios(over_either, Bound::AtLeast(1.0), either);
    let peaks = report.rounds(layout.name, "evermirror", PEAK).to_vec();
    report.judge(memory, Bound::AtMost(100.0), &peaks);
}
