//! Large objects: 8 of 512 MiB, uploaded in 32 parts each, that the target does not have.

use crate::bench::{Bench, PEAK};
use crate::data;
use crate::existing;
use crate::report::{Bound, progress};
use crate::stats::float;
use crate::subject::{Copier, Cost, Subject as _};

const OBJECTS: usize = 8;
const PARTS: usize = 32;
const SOURCE: &str = "large";

const RATE: &str = "MiB/s";
const CPU: &str = "CPU per GiB, s";

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    // A tenth of it is an object in a part or two: no large one.
    let parts = bench.scaled(PARTS).max(2);
    progress(&format!("large: putting {OBJECTS} objects of {parts} parts at the source."));
    bench.source_bucket(SOURCE).await?;
    put(bench, SOURCE, parts).await?;
    for round in 0..bench.rounds {
        for subject in bench.order(round, &Copier::ALL) {
            measure(bench, subject, round, parts).await?;
        }
    }
    let claim = "rate of 8 x 512 MiB, over the fastest peer's";
    bench.judge_ahead(claim, SOURCE, RATE, &Copier::PEERS);
    let report = &mut bench.report;
    let peaks = report.rounds(SOURCE, "evermirror", PEAK).to_vec();
    report.judge("resident memory copying large objects, MiB", Bound::AtMost(100.0), &peaks);
    for other in ["bare", "rclone", "mc", "MinIO"] {
        report.relate(SOURCE, RATE, ["evermirror", other]);
    }
    Ok(())
}

/// Puts the objects, and reads them once.
async fn put(bench: &Bench, bucket: &str, parts: usize) -> anyhow::Result<()> {
    for number in 0..OBJECTS {
        data::put_large(&bench.source_store, bucket, number, parts).await?;
    }
    data::warm(&bench.source_store, bucket, OBJECTS, parts).await
}

async fn measure(
    bench: &mut Bench,
    subject: Copier,
    round: u32,
    parts: usize,
) -> anyhow::Result<()> {
    let name = subject.name();
    progress(&format!("large, round {}: {name}.", round + 1));
    let bucket = format!("{SOURCE}-{round}-{name}").to_lowercase();
    bench.target_bucket(&bucket).await?;
    bench.settle().await?;
    let cost: Cost = match subject {
        Copier::Evermirror => {
            let sync = bench.site(&bucket, SOURCE, &bucket)?.sync(&[]).await?;
            (sync.took, sync.usage).into()
        }
        Copier::Rclone => {
            let options = ["sync", "--transfers", "32"];
            bench.peers().rclone(&options, SOURCE, &bucket).await?.into()
        }
        Copier::Mc => bench.peers().mc(SOURCE, &bucket).await?.into(),
        Copier::Minio => {
            let put = put(bench, &bucket, parts);
            existing::replicate(bench, &bucket, OBJECTS, put).await?.into()
        }
        Copier::Bare => bench.route(SOURCE, &bucket).copy_all(OBJECTS, OBJECTS).await?.into(),
    };
    let (source, target) = ((&bench.source_store, SOURCE), (&bench.target_store, &*bucket));
    if matches!(subject, Copier::Evermirror) {
        data::equal(source, target).await?;
    } else {
        // They cut the objects in parts of their own or not at all, which gives other ETags.
        data::same_sizes(source, target).await?;
    }
    if subject == Copier::Minio {
        existing::remove(bench, &bucket).await?;
    } else {
        data::clear(&bench.target_store, &bucket).await?;
    }
    let mib = float(OBJECTS * parts * data::PART_SIZE) / f64::from(1 << 20);
    bench.report.note(SOURCE, name, RATE, mib / cost.time.as_secs_f64());
    if let Some(usage) = cost.usage {
        bench.report.note(SOURCE, name, CPU, usage.cpu_s * 1024.0 / mib);
        if subject != Copier::Bare {
            bench.report.note(SOURCE, name, PEAK, usage.peak_mib);
        }
    }
    Ok(())
}
