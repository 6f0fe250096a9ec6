//! Memory with 1,000,000 events of different keys in the journal, while they arrive and after a
//! restart that finds them there. The target is down, so nothing leaves.

use std::time::Duration;

use crate::bench::Bench;
use crate::data::Notifier;
use crate::report::{Bound, progress};
use crate::servers::until;
use crate::site::Evermirror;
use crate::stats::float;

const EVENTS: usize = 1_000_000;
const CONNECTIONS: usize = 64;
const SETTLE: Duration = Duration::from_secs(5);
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
    let idle = evermirror.usage()?.peak_mib;
    bench.report.note("memory", "evermirror", "idle, MiB", idle);
    bench.report.judge("resident memory when idle, MiB", Bound::AtMost(64.0), &[idle]);
    bench.target.stop();
    Notifier::new(bucket, 0).post(site.webhook_port, count, CONNECTIONS).await?;
    pending(&evermirror, count).await?;
    let filled = evermirror.usage()?.peak_mib;
    bench.report.note("memory", "evermirror", FILLING, filled);
    evermirror.terminate().await?;

    let evermirror = site.start_ready().await?;
    pending(&evermirror, count).await?;
    // The window of keys in memory fills up behind the readiness.
    tokio::time::sleep(SETTLE).await;
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

/// Waits until so many keys are pending: it proves that the events are there.
async fn pending(evermirror: &Evermirror, count: usize) -> anyhow::Result<()> {
    until("all events are pending", || async {
        let pending = evermirror.number("/keys/pending").await?;
        Ok(pending.total_cmp(&float(count)).is_eq())
    })
    .await
}
