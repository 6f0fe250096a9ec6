//! `growth`: cost against number of objects, pending keys and object size, as SVG and JSON.
//!
//! Each axis is measured once at each of its points: on log axes, what grows and what does not is seen
//! without rounds.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::bench::Bench;
use crate::data::{self, Numbers, OBJECT_SIZE, PART_SIZE};
use crate::facts::Facts;
use crate::plot::{self, Chart, Unit};
use crate::process::Usage;
use crate::report::progress;
use crate::stats::float;
use crate::workloads::backlog;
use crate::workloads::journal::Filled;

/// What the JSON calls itself.
const FORMAT: &str = "evermirror-loadtest/growth";
const VERSION: u32 = 1;

const OBJECTS: [usize; 4] = [1_000, 10_000, 30_000, 100_000];
const PENDING: [usize; 4] = [10_000, 100_000, 1_000_000, 5_000_000];
/// Bytes of an object, and how many of them: enough for seconds, few enough for the disk.
const SIZES: [(usize, usize); 6] = [
    (1 << 10, 2_000),
    (16 << 10, 2_000),
    (256 << 10, 1_000),
    (4 << 20, 128),
    (64 << 20, 8),
    (256 << 20, 4),
];
const WRITERS: usize = 16;

const SECONDS: &str = "time, s";
const CPU: &str = "CPU, s";
const PEAK: &str = "peak memory, MiB";
const RESTART: &str = "restart, s";
const RATE: &str = "rate, MiB/s";
const CPU_PER_MIB: &str = "CPU per MiB, ms";

/// Arguments of `growth`.
#[derive(Debug, clap::Args)]
pub(crate) struct GrowthArgs {
    /// Only this axis; may be given several times
    #[arg(long, value_enum, value_name = "AXIS")]
    axis: Vec<Axis>,
    /// The directory for AXIS.svg and AXIS.json
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/growth"))]
    out: PathBuf,
    /// A tenth of the work: to try the harness, not to quote
    #[arg(long)]
    quick: bool,
}

/// What the cost depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Axis {
    /// A pass that finds nothing to do, and a backlog, of so many objects.
    Objects,
    /// A journal of so many pending keys.
    Pending,
    /// A first sync of objects of this size.
    Size,
}

/// What is written beside each image.
#[derive(Debug, Serialize)]
struct Json<'a> {
    format: &'static str,
    version: u32,
    facts: &'a Facts,
    #[serde(flatten)]
    chart: &'a Chart,
}

/// Measures the axes that were asked for, all if none was.
pub(crate) async fn run(args: &GrowthArgs) -> anyhow::Result<()> {
    let mut bench = Bench::start(1, args.quick, &[]).await?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    for axis in if args.axis.is_empty() { Axis::value_variants() } else { &args.axis } {
        let chart = match axis {
            Axis::Objects => objects(&mut bench).await?,
            Axis::Pending => pending(&bench).await?,
            Axis::Size => sizes(&bench).await?,
        };
        let name = axis.to_possible_value().context("an axis has a name")?;
        write(&args.out.join(name.get_name()), &chart, &bench.report.facts)?;
    }
    Ok(())
}

/// Writes PATH.svg and PATH.json.
fn write(path: &Path, chart: &Chart, facts: &Facts) -> anyhow::Result<()> {
    let quick = if facts.quick { "a tenth of the work, " } else { "" };
    let (cores, date) = (facts.machine.cores, facts.date.split('T').next().unwrap_or_default());
    let commit = facts.commit.as_deref().unwrap_or("unknown");
    let note = format!("{quick}{cores} cores shared with both stores, {date}, commit {commit}");
    let json = Json { format: FORMAT, version: VERSION, facts, chart };
    for (kind, text) in
        [("svg", plot::svg(chart, &note)), ("json", serde_json::to_string_pretty(&json)? + "\n")]
    {
        let path = path.with_extension(kind);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        progress(&format!("growth: {} is written.", path.display()));
    }
    Ok(())
}

async fn objects(bench: &mut Bench) -> anyhow::Result<Chart> {
    let title = "Cost of objects of 4 KiB";
    let mut chart = Chart::new(title, "objects", Unit::Count);
    for count in OBJECTS.map(|count| bench.scaled(count)) {
        progress(&format!("growth: {count} objects."));
        let bucket = format!("objects-{count}");
        let copy = format!("{bucket}-copy");
        bench.source_bucket(&bucket).await?;
        bench.target_bucket(&bucket).await?;
        bench.target_bucket(&copy).await?;
        data::seed(&bench.source_store, &bucket, count, OBJECT_SIZE).await?;
        bench.copy_disk(&bucket).await?;
        data::equal((&bench.source_store, &bucket), (&bench.target_store, &bucket)).await?;
        bench.settle().await?;
        let pass = bench.site(&bucket, &bucket, &bucket)?.sync(&[]).await?;
        ensure!(pass.count("unchanged")? == count, "it found {}", pass.report);
        note(&mut chart, "no-change pass", count, pass.took.as_secs_f64(), pass.usage);
        bench.target.stop();
        let (took, usage) =
            backlog::evermirror(bench, &bucket, &copy, 0, (count, OBJECT_SIZE)).await?;
        data::equal((&bench.source_store, &bucket), (&bench.target_store, &copy)).await?;
        note(&mut chart, "backlog drained", count, took.as_secs_f64(), usage);
    }
    Ok(chart)
}

fn note(chart: &mut Chart, name: &'static str, count: usize, seconds: f64, usage: Usage) {
    let x = float(count);
    for (y, value) in [(SECONDS, seconds), (CPU, usage.cpu_s), (PEAK, usage.peak_mib)] {
        chart.note(y, name, (x, value));
    }
}

async fn pending(bench: &Bench) -> anyhow::Result<Chart> {
    let title = "Cost of keys that wait in the journal";
    let mut chart = Chart::new(title, "pending keys", Unit::Count);
    for count in PENDING.map(|count| bench.scaled(count)) {
        let filled = Filled::new(bench, count).await?;
        let reopened = filled.reopen().await?;
        let x = float(count);
        chart.note(PEAK, "while they came", (x, filled.peak_mib));
        chart.note(PEAK, "after a restart", (x, reopened.peak_mib));
        chart.note(RESTART, "until all are known", (x, reopened.seconds));
    }
    Ok(chart)
}

async fn sizes(bench: &Bench) -> anyhow::Result<Chart> {
    let title = "Cost of a first sync by object size";
    let mut chart = Chart::new(title, "object size", Unit::Bytes);
    for (size, count) in SIZES {
        let count = bench.scaled(count).max(2);
        progress(&format!("growth: {count} objects of {size} bytes."));
        let bucket = format!("size-{size}");
        bench.source_bucket(&bucket).await?;
        bench.target_bucket(&bucket).await?;
        seed(bench, &bucket, size, count).await?;
        bench.settle().await?;
        let sync = bench.site(&bucket, &bucket, &bucket)?.sync(&[]).await?;
        data::equal((&bench.source_store, &bucket), (&bench.target_store, &bucket)).await?;
        for store in [&bench.source_store, &bench.target_store] {
            data::clear(store, &bucket).await?;
        }
        let (x, mib) = (float(size), float(size) * float(count) / f64::from(1 << 20));
        chart.note(RATE, "first sync", (x, mib / sync.took.as_secs_f64()));
        chart.note(CPU_PER_MIB, "first sync", (x, sync.usage.cpu_s * 1e3 / mib));
        chart.note(PEAK, "first sync", (x, sync.usage.peak_mib));
    }
    Ok(chart)
}

/// Puts objects of this size, the large ones in parts as clients upload them.
async fn seed(bench: &Bench, bucket: &str, size: usize, count: usize) -> anyhow::Result<()> {
    let numbers = Numbers::below(count);
    let writers = if size > PART_SIZE { 1 } else { WRITERS };
    data::crew(writers, || {
        let (store, bucket) = (bench.source_store.clone(), bucket.to_owned());
        let numbers = numbers.clone();
        async move {
            for number in numbers {
                if size > PART_SIZE {
                    data::put_large(&store, &bucket, number, size / PART_SIZE).await?;
                } else {
                    let content = data::content(number, size);
                    data::put_at(&store, &bucket, &data::key(number), content).await?;
                }
            }
            Ok(())
        }
    })
    .await
}
