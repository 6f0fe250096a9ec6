//! A journal of 5,000,000 pending keys: opened, and drained to a double that only counts what it gets.
//!
//! The double is both stores. As a target it is not there while the journal is filled, so that nothing
//! leaves; then it is started, and so is evermirror.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::bench::Bench;
use crate::copy_double::CopyDouble;
use crate::data::Notifier;
use crate::report::{Bound, progress};
use crate::servers::{free_port, until};
use crate::site::{Evermirror, Site};
use crate::stats::float;

const KEYS: usize = 5_000_000;
const BUCKET: &str = "journal";
const CONNECTIONS: usize = 64;
/// How long nothing may arrive at the target before the drain counts as stuck.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(5);
/// How long the window of keys in memory may take to fill up behind the readiness.
const SETTLE: Duration = Duration::from_secs(5);

/// A stopped evermirror with so many keys in its journal, and its stores.
#[derive(Debug)]
pub(crate) struct Filled {
    site: Site,
    count: usize,
    target_port: u16,
    source: CopyDouble,
    /// The most memory it had while they came.
    pub(crate) peak_mib: f64,
}

/// What a restart with the target still away took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reopened {
    /// From the start of the process until it is ready and its status counts every key.
    pub(crate) seconds: f64,
    /// The most memory it had, with as many of the keys in memory as it takes.
    pub(crate) peak_mib: f64,
}

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    // One round: it takes minutes, and what it must prove does not vary.
    let filled = Filled::new(bench, bench.scaled(KEYS)).await?;
    let mut note = |what, value| bench.report.note(BUCKET, "evermirror", what, value);
    note("peak while filling, MiB", filled.peak_mib);
    let reopened = filled.reopen().await?;
    note("opened, target away, s", reopened.seconds);
    note("peak once opened, MiB", reopened.peak_mib);
    progress("journal: draining it.");
    let (target, begun) =
        (CopyDouble::start(filled.target_port, filled.count).await?, Instant::now());
    let evermirror = filled.site.start_ready().await?;
    note("ready, s", begun.elapsed().as_secs_f64());
    drained(&target, &evermirror, filled.count).await?;
    let took = begun.elapsed().as_secs_f64();
    pending(&evermirror, 0).await?;
    let usage = evermirror.usage()?;
    note("drained, keys/s", float(filled.count) / took);
    note("CPU per 10,000 keys, s", usage.cpu_s * 1e4 / float(filled.count));
    note("peak while draining, MiB", usage.peak_mib);
    note("PUTs per key", float(target.puts()) / float(filled.count));
    evermirror.terminate().await?;
    // What was drained stays drained.
    let again = filled.site.start_ready().await?;
    pending(&again, 0).await?;
    drop((again, filled.source));
    let peak = filled.peak_mib.max(reopened.peak_mib).max(usage.peak_mib);
    bench.report.judge(
        "resident memory with a journal of 5,000,000 keys, MiB",
        Bound::AtMost(150.0),
        &[peak],
    );
    Ok(())
}

impl Filled {
    /// Fills a fresh journal by notifications.
    pub(crate) async fn new(bench: &Bench, count: usize) -> anyhow::Result<Self> {
        progress(&format!("journal: posting {count} notifications."));
        let [source_port, target_port] = [free_port()?, free_port()?];
        let [from, to] = [source_port, target_port].map(|port| format!("http://127.0.0.1:{port}"));
        let source = CopyDouble::start(source_port, 0).await?;
        let site = bench.site_at(&format!("journal-{count}"), (&from, BUCKET), (&to, BUCKET))?;
        let evermirror = site.start_ready().await?;
        Notifier::new(BUCKET, 0).post(site.webhook_port, count, CONNECTIONS).await?;
        pending(&evermirror, count).await?;
        let peak_mib = evermirror.usage()?.peak_mib;
        evermirror.terminate().await?;
        Ok(Self { site, count, target_port, source, peak_mib })
    }

    /// Starts it and stops it again.
    pub(crate) async fn reopen(&self) -> anyhow::Result<Reopened> {
        progress(&format!("journal: opening it with {} keys.", self.count));
        let begun = Instant::now();
        let evermirror = self.site.start_ready().await?;
        pending(&evermirror, self.count).await?;
        let seconds = begun.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLE).await;
        let peak_mib = evermirror.usage()?.peak_mib;
        evermirror.terminate().await?;
        Ok(Reopened { seconds, peak_mib })
    }
}

/// Waits until so many keys are pending.
async fn pending(evermirror: &Evermirror, count: usize) -> anyhow::Result<()> {
    until("the status counts the keys that are pending", || async {
        let pending = evermirror.number("/keys/pending").await?;
        Ok(pending.total_cmp(&float(count)).is_eq())
    })
    .await
}

/// Waits until every key has arrived: the proof that nothing was lost.
async fn drained(target: &CopyDouble, evermirror: &Evermirror, count: usize) -> anyhow::Result<()> {
    let (mut last, mut since) = (0, Instant::now());
    while last < count {
        tokio::time::sleep(LOOK).await;
        let now = target.distinct();
        if now > last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > PATIENCE {
            bail!("{last} of {count} keys have arrived: {}", evermirror.status().await?);
        }
    }
    ensure!(last == count, "{last} keys have arrived where {count} were expected");
    Ok(())
}
