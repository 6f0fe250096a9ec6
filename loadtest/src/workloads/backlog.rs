//! A backlog: 10,000 objects of 4 KiB that the target does not have.
//!
//! evermirror has it in its journal and is started; the peers are started to find it by listing. The
//! time of each runs from the start of its process until everything is copied.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::bench::Bench;
use crate::data::{self, Notifier, OBJECT_SIZE};
use crate::process::Usage;
use crate::report::{Bound, progress};
use crate::stats::float;

const OBJECTS: usize = 10_000;
const SOURCE: &str = "backlog";
const CONNECTIONS: usize = 64;
/// As many as rclone transfers at once.
const BARE_WORKERS: usize = 32;
const PATIENCE: Duration = Duration::from_mins(5);
/// Rarely, because a status walks over all keys in memory: the look must not become the load.
const LOOK: Duration = Duration::from_millis(100);

const RATE: &str = "objects/s";
const CPU: &str = "CPU per 10,000 objects, s";
const PEAK: &str = "peak memory, MiB";

#[derive(Debug, Clone, Copy)]
enum Subject {
    Evermirror,
    Rclone,
    Mc,
    Bare,
}

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.scaled(OBJECTS);
    progress(&format!("backlog: putting {count} objects at the source."));
    bench.source_bucket(SOURCE).await?;
    data::seed(&bench.source_store, SOURCE, count, OBJECT_SIZE).await?;
    let subjects = [Subject::Evermirror, Subject::Rclone, Subject::Mc, Subject::Bare];
    for round in 0..bench.rounds {
        for subject in Bench::order(round, subjects) {
            measure(bench, subject, round, count).await?;
        }
    }
    let report = &mut bench.report;
    report.judge_ratio(
        "backlog rate, over rclone's",
        Bound::AtLeast(1.0),
        "backlog",
        ("evermirror", RATE),
        ("rclone", RATE),
    );
    report.judge_ratio(
        "CPU per object of a backlog, over mc's",
        Bound::AtMost(0.5),
        "backlog",
        ("evermirror", CPU),
        ("mc", CPU),
    );
    report.relate("backlog", RATE, ["evermirror", "bare"]);
    report.relate("backlog", RATE, ["evermirror", "mc"]);
    report.relate("backlog", CPU, ["evermirror", "bare"]);
    Ok(())
}

async fn measure(
    bench: &mut Bench,
    subject: Subject,
    round: u32,
    count: usize,
) -> anyhow::Result<()> {
    let name = match subject {
        Subject::Evermirror => "evermirror",
        Subject::Rclone => "rclone",
        Subject::Mc => "mc",
        Subject::Bare => "bare",
    };
    progress(&format!("backlog, round {}: {name}.", round + 1));
    let bucket = format!("{SOURCE}-{round}-{name}");
    bench.target_bucket(&bucket).await?;
    // evermirror's needs the target down before it; the others then find it as freshly started.
    bench.target.stop();
    let (took, usage) = match subject {
        Subject::Evermirror => evermirror(bench, SOURCE, &bucket, round, count).await?,
        Subject::Rclone => {
            bench.target.start_again().await?;
            bench.peers().rclone(&["copy", "--transfers", "32"], SOURCE, &bucket).await?
        }
        Subject::Mc => {
            bench.target.start_again().await?;
            bench.peers().mc(SOURCE, &bucket).await?
        }
        Subject::Bare => {
            bench.target.start_again().await?;
            bench.route(SOURCE, &bucket).copy_all(count, BARE_WORKERS).await?
        }
    };
    data::equal((&bench.source_store, SOURCE), (&bench.target_store, &bucket)).await?;
    let objects = float(count);
    bench.report.note("backlog", name, RATE, objects / took.as_secs_f64());
    bench.report.note("backlog", name, CPU, usage.cpu_s * 1e4 / objects);
    if !matches!(subject, Subject::Bare) {
        bench.report.note("backlog", name, PEAK, usage.peak_mib);
    }
    Ok(())
}

/// Fills the journal while the target is down, then starts the program anew with the target up.
pub(crate) async fn evermirror(
    bench: &mut Bench,
    source: &str,
    bucket: &str,
    round: u32,
    count: usize,
) -> anyhow::Result<(Duration, Usage)> {
    let site = bench.site(bucket, source, bucket)?;
    let filling = site.start_ready().await?;
    Notifier::new(source, round).post(site.webhook_port, count, CONNECTIONS).await?;
    filling.terminate().await?;
    bench.target.start_again().await?;

    let begun = Instant::now();
    let draining = site.start()?;
    // Refused while it starts.
    while draining.number("/replicated/copied").await.unwrap_or(0.0) < float(count) {
        if begun.elapsed() > PATIENCE {
            bail!("the backlog is not drained: {}", draining.status().await?);
        }
        tokio::time::sleep(LOOK).await;
    }
    let (took, usage) = (begun.elapsed(), draining.usage()?);
    draining.terminate().await?;
    Ok((took, usage))
}
