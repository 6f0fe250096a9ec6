//! A backlog: objects that the target does not have, many of 4 KiB or fewer of 1 MiB.
//!
//! evermirror has it in its journal and is started; the peers are started to find it by listing. The
//! time of each runs from the start of its process until everything is copied.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::bare;
use crate::bench::{Bench, CPU, PEAK, RATE};
use crate::data::{self, Notifier, OBJECT_SIZE};
use crate::existing;
use crate::process::Usage;
use crate::report::{Bound, progress};
use crate::stats::float;
use crate::subject::{Copier, Cost, Subject as _};

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
/// Between looks at the status when the end is near: often enough to hide little of a short run.
const LOOK: Duration = Duration::from_millis(20);
/// The most between two of them. Each costs what is measured half a millisecond of CPU.
const LONGEST_LOOK: Duration = Duration::from_secs(2);

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
    bench.judge_ahead("backlog rate, over the fastest peer's", name, RATE, &Copier::PEERS);
    relate(bench, SMALL);
    Ok(())
}

/// Fewer of 1 MiB.
pub(crate) async fn mebibytes(bench: &mut Bench) -> anyhow::Result<()> {
    compare(bench, MEBIBYTES, &Copier::ALL).await?;
    let claim = "rate of 1 MiB objects, over the fastest peer's";
    bench.judge_ahead(claim, MEBIBYTES.name, RATE, &Copier::PEERS);
    relate(bench, MEBIBYTES);
    Ok(())
}

fn relate(bench: &mut Bench, work: Work) {
    for other in ["bare", "rclone", "mc", "MinIO"] {
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
    let bucket = format!("{workload}-{round}-{name}").to_lowercase();
    bench.target_bucket(&bucket).await?;
    // evermirror's needs the target down before it; the others then find it as freshly started.
    bench.target.stop();
    let cost: Cost = match subject {
        Copier::Evermirror => {
            evermirror(bench, workload, &bucket, round, (count, work.size)).await?.into()
        }
        Copier::Rclone => {
            restart(bench).await?;
            bench.peers().rclone(&["copy", "--transfers", "32"], workload, &bucket).await?.into()
        }
        Copier::Mc => {
            restart(bench).await?;
            bench.peers().mc(workload, &bucket).await?.into()
        }
        Copier::Minio => {
            restart(bench).await?;
            let put = data::seed(&bench.source_store, &bucket, count, work.size);
            existing::replicate(bench, &bucket, count, put).await?.into()
        }
        Copier::Bare => {
            restart(bench).await?;
            bench.route(workload, &bucket).copy_all(count, bare::workers()).await?.into()
        }
    };
    data::equal((&bench.source_store, workload), (&bench.target_store, &bucket)).await?;
    if subject == Copier::Minio {
        existing::remove(bench, &bucket).await?;
    } else {
        data::clear(&bench.target_store, &bucket).await?;
    }
    bench.note_cost(workload, name, cost, count);
    Ok(())
}

/// Starts the target again, with nothing left to be written to its disk.
async fn restart(bench: &mut Bench) -> anyhow::Result<()> {
    bench.settle().await?;
    bench.target.start_again().await
}

/// When to look again after so much of the work is done: half of the time that the rest will take at this
/// rate.
fn next_look(elapsed: Duration, done: f64) -> Duration {
    let rest = elapsed.as_secs_f64() * (1.0 - done) / done;
    // Nothing is known of the rest while nothing is done.
    let half = if rest.is_finite() { rest / 2.0 } else { 0.0 };
    Duration::from_secs_f64(half.clamp(LOOK.as_secs_f64(), LONGEST_LOOK.as_secs_f64()))
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
    loop {
        // Refused while it starts.
        let copied = draining.number("/replicated/copied").await.unwrap_or(0.0) / float(count);
        if copied >= 1.0 {
            break;
        }
        if begun.elapsed() > PATIENCE {
            bail!("the backlog is not drained: {}", draining.status().await?);
        }
        tokio::time::sleep(next_look(begun.elapsed(), copied)).await;
    }
    let (took, usage) = (begun.elapsed(), draining.usage()?);
    draining.terminate().await?;
    Ok((took, usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_looked_at_seldom_and_close_to_its_end_often() {
        let at = |seconds, done| next_look(Duration::from_secs(seconds), done);
        assert_eq!(at(3, 0.0), LOOK, "it may begin any moment");
        assert_eq!(at(10, 0.5), LONGEST_LOOK);
        assert_eq!(at(9, 0.9), Duration::from_millis(500));
        assert_eq!(at(10, 0.999), LOOK);
    }
}
