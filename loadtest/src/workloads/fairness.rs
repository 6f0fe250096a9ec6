//! What a bucket's lag becomes beside another one with 10,000 keys that fail.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::bench::Bench;
use crate::data::{self, OBJECT_SIZE};
use crate::live::PATIENCE;
use crate::report::{Bound, progress};
use crate::servers::{LIVE, SEEN, until};
use crate::stats::{float, ms, percentile};

const FAILING: usize = 10_000;
/// Smaller than any object, so that the target refuses each.
const QUOTA: &str = "1KiB";
/// Objects of the other bucket, one after another.
const LOOKS: usize = 200;
const PACE: Duration = Duration::from_millis(50);

const WORKLOAD: &str = "fairness";
const ALONE: [&str; 2] = ["lag alone p50, ms", "lag alone p99, ms"];
const BESIDE: [&str; 2] = ["lag beside failing keys p50, ms", "lag beside failing keys p99, ms"];
const PERCENTS: [usize; 2] = [50, 99];

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for round in 0..bench.rounds {
        progress(&format!("{WORKLOAD}, round {}.", round + 1));
        measure(bench, round).await?;
    }
    let claim = "lag p50 beside a bucket with 10,000 failing keys, over the same alone";
    let (ours, bare) = (("evermirror", BESIDE[0]), ("evermirror", ALONE[0]));
    bench.report.judge_ratio(claim, Bound::AtMost(2.0), WORKLOAD, ours, bare);
    Ok(())
}

async fn measure(bench: &mut Bench, round: u32) -> anyhow::Result<()> {
    let (well, full) = (format!("fair-{round}"), format!("fair-{round}-full"));
    for bucket in [&well, &full] {
        bench.source_bucket(bucket).await?;
        bench.target_bucket(bucket).await?;
        bench.peers().notify(("source", bucket), LIVE, "put,delete").await?;
    }
    bench.peers().notify(("target", &well), SEEN, "put,delete").await?;
    let site = bench.site(&well, &well, &well)?;
    site.add_settings(&format!("[[buckets]]\nsource = \"{full}\"\n"))?;
    let evermirror = site.start_ready().await?;
    let alone = lags(bench, &well, 0..LOOKS).await?;

    bench.peers().quota("target", &full, QUOTA).await?;
    let failing = bench.scaled(FAILING);
    data::seed(&bench.source_store, &full, failing, OBJECT_SIZE).await?;
    until("the keys of the full bucket fail", || async {
        Ok(evermirror.number("/keys/pending").await? >= float(failing))
    })
    .await?;
    let beside = lags(bench, &well, LOOKS..2 * LOOKS).await?;
    for (lags, quantities) in [(alone, ALONE), (beside, BESIDE)] {
        for (quantity, percent) in quantities.into_iter().zip(PERCENTS) {
            bench.report.note(WORKLOAD, "evermirror", quantity, percentile(&lags, percent));
        }
    }
    let status = evermirror.status().await?;
    anyhow::ensure!(status.pointer("/target/up").is_some_and(|up| *up == true), "{status}");
    evermirror.terminate().await.map(drop)
}

/// From the source's answer to each put until the target told of it, one after another.
async fn lags(bench: &Bench, bucket: &str, numbers: Range<usize>) -> anyhow::Result<Vec<f64>> {
    bench.receiver.clear();
    let mut lags = Vec::new();
    for (number, told) in numbers.zip(1..) {
        data::put(&bench.source_store, bucket, number).await?;
        let answered = Instant::now();
        let seen = bench.receiver.wait(told, PATIENCE).await;
        let at = seen.at.get(&format!("{bucket}/{}", data::key(number)));
        let at = at.with_context(|| format!("object {number} never appeared in {bucket}"))?;
        lags.push(ms(at.saturating_duration_since(answered)));
        tokio::time::sleep(PACE).await;
    }
    Ok(lags)
}
