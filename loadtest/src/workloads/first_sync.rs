//! A first full sync: 20,000 objects of 4 KiB that the target does not have, found by listing.

use crate::bare;
use crate::bench::{Bench, CPU, PEAK, RATE};
use crate::data;
use crate::existing;
use crate::report::{Bound, progress};
use crate::subject::{Copier, Cost, Subject as _};

const OBJECTS: usize = 20_000;
const SOURCE: &str = "first-sync";

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.scaled(OBJECTS);
    progress(&format!("first-sync: putting {count} objects at the source."));
    bench.source_bucket(SOURCE).await?;
    data::seed(&bench.source_store, SOURCE, count, data::OBJECT_SIZE).await?;
    for round in 0..bench.rounds {
        for subject in bench.order(round, &Copier::ALL) {
            measure(bench, subject, round, count).await?;
        }
    }
    let report = &mut bench.report;
    for (claim, bound, peer) in [
        ("rate of a first sync, over rclone's", 1.0, "rclone"),
        ("rate of a first sync, over mc's", 1.3, "mc"),
    ] {
        let (ours, theirs) = (("evermirror", RATE), (peer, RATE));
        report.judge_ratio(claim, Bound::AtLeast(bound), SOURCE, ours, theirs);
    }
    let peaks = report.rounds(SOURCE, "evermirror", PEAK).to_vec();
    report.judge("resident memory in a first sync, MiB", Bound::AtMost(100.0), &peaks);
    for other in ["bare", "MinIO"] {
        report.relate(SOURCE, RATE, ["evermirror", other]);
    }
    report.relate(SOURCE, CPU, ["evermirror", "bare"]);
    Ok(())
}

async fn measure(
    bench: &mut Bench,
    subject: Copier,
    round: u32,
    count: usize,
) -> anyhow::Result<()> {
    let name = subject.name();
    progress(&format!("first-sync, round {}: {name}.", round + 1));
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
            let put = data::seed(&bench.source_store, &bucket, count, data::OBJECT_SIZE);
            existing::replicate(bench, &bucket, count, put).await?.into()
        }
        Copier::Bare => bench.route(SOURCE, &bucket).copy_all(count, bare::workers()).await?.into(),
    };
    data::equal((&bench.source_store, SOURCE), (&bench.target_store, &bucket)).await?;
    if subject == Copier::Minio {
        existing::remove(bench, &bucket).await?;
    }
    bench.note_cost(SOURCE, name, cost, count);
    Ok(())
}
