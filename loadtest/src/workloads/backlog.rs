//! A backlog: objects that the target does not have, many of 4 KiB or fewer of 1 MiB.
//!
//! evermirror has it in its journal and is started; the peers are started to find it by listing. The
//! time of each runs from the start of its process until everything is copied.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::bare;
use crate::bench::{Bench, CPU, PEAK, RATE};
use crate::data::{self, Notifier, OBJECT_SIZE};
use crate::process::Usage;
use crate::report::{Bound, progress};
use crate::stats::float;
use crate::subject::{Copier, Subject as _};

/// What is to be copied.
#[derive(Debug, Clone, Copy)]
struct Work {
    /// Of the workload, and of the source's bucket.
    name: &'static str,
    objects: usize,
    size: usize,
}

const SMALL: Work = Work { name: "backlog", objects: 20_000, size: OBJECT_SIZE };
const TENTH: Work = Work { name: "backlog-tenth", objects: SMALL.objects / 10, ..SMALL };
const MEBIBYTES: Work = Work { name: "mebibytes", objects: 2_000, size: 1 << 20 };
const CONNECTIONS: usize = 64;
const PATIENCE: Duration = Duration::from_mins(5);
/// Often enough to hide little of a short run; a status costs the same at any number of keys.
const LOOK: Duration = Duration::from_millis(20);

/// Many small objects; and a tenth of them, to show that memory does not grow with the work.
pub(crate) async fn small(bench: &mut Bench) -> anyhow::Result<()> {
    compare(bench, SMALL, &Copier::ALL).await?;
    compare(bench, TENTH, &[Copier::Evermirror]).await?;
    let (name, ours) = (SMALL.name, "evermirror");
    let tenth = bench.report.rounds(TENTH.name, ours, PEAK);
    let whole = bench.report.rounds(name, ours, PEAK).iter();
    let growth = whole.zip(tenth).map(|(whole, tenth)| whole / tenth).collect();
    let report = &mut bench.report;
    let claim = "memory in a backlog, over that in a tenth of it";
    report.judge_ratios(claim, Bound::AtMost(1.25), growth);
    let (claim, bound) = ("backlog rate, over the bare loop's", Bound::AtLeast(0.95));
    report.judge_ratio(claim, bound, name, (ours, RATE), ("bare", RATE));
    let (claim, bound) = ("CPU per object of a backlog, over mc's", Bound::AtMost(0.2));
    report.judge_ratio(claim, bound, name, (ours, CPU), ("mc", CPU));
    bench.judge_ahead("backlog rate, over the fastest peer's", name, RATE, ["rclone", "mc"]);
    relate(bench, SMALL);
    Ok(())
}

/// Fewer of 1 MiB.
pub(crate) async fn mebibytes(bench: &mut Bench) -> anyhow::Result<()> {
    compare(bench, MEBIBYTES, &Copier::ALL).await?;
    let claim = "rate of 1 MiB objects, over the fastest peer's";
    bench.judge_ahead(claim, MEBIBYTES.name, RATE, ["rclone", "mc"]);
    relate(bench, MEBIBYTES);
    Ok(())
}

fn relate(bench: &mut Bench, work: Work) {
    for other in ["bare", "rclone", "mc"] {
        bench.report.relate(work.name, RATE, ["evermirror", other]);
    }
    bench.report.relate(work.name, CPU, ["evermirror", "bare"]);
}

async fn compare(bench: &mut Bench, work: Work, subjects: &[Copier]) -> anyhow::Result<()> {
    let count = bench.scaled(work.objects);
    progress(&format!("{}: putting {count} objects at the source.", work.name));
    bench.source_bucket(work.name).await?;
    data::seed(&bench.source_store, work.name, count, work.size).await?;
    for round in 0..bench.rounds {
        for subject in bench.order(round, subjects) {
            measure(bench, work, subject, round, count).await?;
        }
    }
    Ok(())
}

async fn measure(
    bench: &mut Bench,
    work: Work,
    subject: Copier,
    round: u32,
    count: usize,
) -> anyhow::Result<()> {
    let (workload, name) = (work.name, subject.name());
    progress(&format!("{workload}, round {}: {name}.", round + 1));
    let bucket = format!("{workload}-{round}-{name}");
    bench.target_bucket(&bucket).await?;
    // evermirror's needs the target down before it; the others then find it as freshly started.
    bench.target.stop();
    let (took, usage) = match subject {
        Copier::Evermirror => {
            evermirror(bench, workload, &bucket, round, (count, work.size)).await?
        }
        Copier::Rclone => {
            restart(bench).await?;
            bench.peers().rclone(&["copy", "--transfers", "32"], workload, &bucket).await?
        }
        Copier::Mc => {
            restart(bench).await?;
            bench.peers().mc(workload, &bucket).await?
        }
        Copier::Bare => {
            restart(bench).await?;
            bench.route(workload, &bucket).copy_all(count, bare::workers()).await?
        }
    };
    data::equal((&bench.source_store, workload), (&bench.target_store, &bucket)).await?;
    data::clear(&bench.target_store, &bucket).await?;
    bench.report.note(workload, name, RATE, float(count) / took.as_secs_f64());
    bench.note_usage(workload, name, usage, count);
    Ok(())
}

/// Starts the target again, with nothing left to be written to its disk.
async fn restart(bench: &mut Bench) -> anyhow::Result<()> {
    bench.settle().await?;
    bench.target.start_again().await
}

/// Fills the journal while the target is down, then starts the program anew with the target up.
pub(crate) async fn evermirror(
    bench: &mut Bench,
    source: &str,
    bucket: &str,
    round: u32,
    (count, bytes_each): (usize, usize),
) -> anyhow::Result<(Duration, Usage)> {
    let site = bench.site(bucket, source, bucket)?;
    let filling = site.start_ready().await?;
    let notifier = Notifier::new(source, round).of_size(bytes_each);
    notifier.post(site.webhook_port, count, CONNECTIONS).await?;
    filling.terminate().await?;
    restart(bench).await?;

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
