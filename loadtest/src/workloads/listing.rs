//! Memory of a comparison of 10,000,000 keys, and of a tenth of that, against a double of both stores that
//! computes its listings: no disk here would hold so many objects.

use std::collections::BTreeSet;

use anyhow::bail;

use crate::bench::Bench;
use crate::double::{Bucket, Double, Role};
use crate::report::{Bound, progress};
use crate::stats::float;

const KEYS: usize = 10_000_000;
const BUCKET: &str = "double";
const PEAK: [&str; 2] = ["peak memory, a tenth, MiB", "peak memory, MiB"];
const RATE: [&str; 2] = ["keys/s, a tenth", "keys/s"];

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    // One round: what it needs to hold does not vary from one to the next.
    let most = bench.scaled(KEYS);
    for ((count, peak), rate) in [most / 10, most].into_iter().zip(PEAK).zip(RATE) {
        progress(&format!("listing: comparing {count} computed keys."));
        let [took, mib] = compare(bench, count).await?;
        bench.report.note("listing", "evermirror", peak, mib);
        bench.report.note("listing", "evermirror", rate, float(count) / took);
    }
    let peak = bench.report.rounds("listing", "evermirror", PEAK[1]).to_vec();
    let claim = "resident memory comparing 10,000,000 keys, MiB";
    bench.report.judge(claim, Bound::AtMost(100.0), &peak);
    Ok(())
}

/// Seconds and MiB.
async fn compare(bench: &Bench, count: usize) -> anyhow::Result<[f64; 2]> {
    let keys = u64::try_from(count)?;
    let source = Double::start(Bucket { role: Role::Source, count: keys }).await?;
    let target = Double::start(Bucket { role: Role::Target, count: keys }).await?;
    let (from, to) = (source.endpoint(), target.endpoint());
    let site = bench.site_at(&format!("listing-{count}"), (&from, BUCKET), (&to, BUCKET))?;
    // The double has no objects: nothing could be copied.
    let sync = site.sync(&["--dry-run"]).await?;
    let told: BTreeSet<_> = sync.lines.iter().filter(|line| line.contains(".parquet")).collect();
    let expected = Bucket::differences(keys).map(|(number, what)| {
        let verb = if what == "extra" { "delete" } else { "copy" };
        format!("{verb} {BUCKET}/{} ({what})", Bucket::key(number))
    });
    if !told.iter().copied().eq(&BTreeSet::from(expected)) {
        bail!("the comparison of {count} keys found {told:#?}");
    }
    Ok([sync.took.as_secs_f64(), sync.usage.peak_mib])
}
