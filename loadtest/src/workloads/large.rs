//! Large objects: 8 of 256 MiB, uploaded in 16 parts each, that the target does not have.

use crate::bench::Bench;
use crate::data;
use crate::report::{Bound, progress};
use crate::stats::float;

const OBJECTS: usize = 8;
const PARTS: usize = 16;
const SOURCE: &str = "large";

const RATE: &str = "MiB/s";
const CPU: &str = "CPU per GiB, s";
const PEAK: &str = "peak memory, MiB";

#[derive(Debug, Clone, Copy)]
enum Subject {
    Evermirror,
    Rclone,
    Mc,
}

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    // A tenth of it is an object in a part or two: no large one.
    let parts = bench.scaled(PARTS).max(2);
    progress(&format!("large: putting {OBJECTS} objects of {parts} parts at the source."));
    bench.source_bucket(SOURCE).await?;
    for number in 0..OBJECTS {
        data::put_large(&bench.source_store, SOURCE, number, parts).await?;
    }
    for round in 0..bench.rounds {
        for subject in Bench::order(round, [Subject::Evermirror, Subject::Rclone, Subject::Mc]) {
            measure(bench, subject, round, parts).await?;
        }
    }
    let report = &mut bench.report;
    let [ours, rclone, mc] =
        ["evermirror", "rclone", "mc"].map(|subject| report.rounds(SOURCE, subject, RATE));
    let ratios: Vec<_> =
        ours.iter().zip(rclone.iter().zip(mc)).map(|(ours, (a, b))| ours / a.max(*b)).collect();
    let claim = "rate of 8 x 256 MiB, over the better of rclone and mc";
    report.judge_ratios(claim, Bound::AtLeast(0.9), ratios);
    let peaks = report.rounds(SOURCE, "evermirror", PEAK).to_vec();
    report.judge("resident memory copying large objects, MiB", Bound::AtMost(100.0), &peaks);
    for peer in ["rclone", "mc"] {
        report.relate(SOURCE, RATE, ["evermirror", peer]);
    }
    Ok(())
}

async fn measure(
    bench: &mut Bench,
    subject: Subject,
    round: u32,
    parts: usize,
) -> anyhow::Result<()> {
    let name = match subject {
        Subject::Evermirror => "evermirror",
        Subject::Rclone => "rclone",
        Subject::Mc => "mc",
    };
    progress(&format!("large, round {}: {name}.", round + 1));
    let bucket = format!("{SOURCE}-{round}-{name}");
    bench.target_bucket(&bucket).await?;
    bench.settle().await?;
    let (took, usage) = match subject {
        Subject::Evermirror => {
            let sync = bench.site(&bucket, SOURCE, &bucket)?.sync(&[]).await?;
            (sync.took, sync.usage)
        }
        Subject::Rclone => {
            let options = ["sync", "--transfers", "32"];
            bench.peers().rclone(&options, SOURCE, &bucket).await?
        }
        Subject::Mc => bench.peers().mc(SOURCE, &bucket).await?,
    };
    let (source, target) = ((&bench.source_store, SOURCE), (&bench.target_store, &*bucket));
    match subject {
        Subject::Evermirror => data::equal(source, target).await.map(drop)?,
        // They cut the objects in parts of their own, which gives other ETags.
        Subject::Rclone | Subject::Mc => data::same_sizes(source, target).await.map(drop)?,
    }
    data::clear(&bench.target_store, &bucket).await?;
    let mib = float(OBJECTS * parts * data::PART_SIZE) / f64::from(1 << 20);
    bench.report.note(SOURCE, name, RATE, mib / took.as_secs_f64());
    bench.report.note(SOURCE, name, CPU, usage.cpu_s * 1024.0 / mib);
    bench.report.note(SOURCE, name, PEAK, usage.peak_mib);
    Ok(())
}
