//! Memory with 1,000,000 events of different keys in the journal, while they arrive and after a
//! restart that finds them there. The target is down, so nothing leaves.

use anyhow::bail;

use crate::bench::Bench;
use crate::data::Notifier;
use crate::report::{Bound, progress};

const EVENTS: usize = 1_000_000;
const CONNECTIONS: usize = 64;
const FILLING: &str = "peak while filling, MiB";
const RECOVERED: &str = "peak after a restart, MiB";

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    // One round: the peak of a million events does not vary enough for more to be worth minutes.
    let count = bench.scaled(EVENTS);
    progress(&format!("memory: posting {count} events."));
    let bucket = "memory";
    bench.source_bucket(bucket).await?;
    let site = bench.site(bucket, bucket, bucket)?;
    let evermirror = site.start_ready().await?;
    bench.report.note("memory", "evermirror", "idle, MiB", evermirror.usage()?.peak_mib);
    bench.target.stop();
    Notifier::new(bucket, 0).post(site.webhook_port, count, CONNECTIONS).await?;
    let filled = evermirror.usage()?.peak_mib;
    let pending = evermirror.pending().await?;
    if pending != u64::try_from(count)? {
        bail!("{pending} keys are pending, not {count}");
    }
    bench.report.note("memory", "evermirror", FILLING, filled);
    evermirror.terminate().await?;

    let evermirror = site.start_ready().await?;
    let pending = evermirror.pending().await?;
    if pending != u64::try_from(count)? {
        bail!("{pending} keys are pending after the restart, not {count}");
    }
    let recovered = evermirror.usage()?.peak_mib;
    bench.report.note("memory", "evermirror", RECOVERED, recovered);
    drop(evermirror);
    bench.target.start_again().await?;
    bench.report.judge(
        "resident memory with 1,000,000 events in the journal, MiB",
        Bound::AtMost(100.0),
        &[filled.max(recovered)],
    );
    Ok(())
}
