//! What evermirror's memory is bounded by: events in the journal, keys that wait for another try, connections, and
//! bodies of notifications.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench::Bench;
use crate::data::{Notifier, authorization};
use crate::report::{Bound, progress};
use crate::servers::until;
use crate::site::Evermirror;
use crate::stats::float;

const EVENTS: usize = 1_000_000;
/// Of so many keys each event is a failure.
const FAILING: usize = 1_000;
const CONNECTIONS: usize = 64;
const SETTLE: Duration = Duration::from_secs(5);
/// More than `intake.webhook.max_connections`, which is 1,024.
const SILENT: usize = 2_000;
/// As many as there may be connections.
const SENDERS: usize = 1_000;
/// The largest body that is accepted (`intake.webhook.max_body`), but for its last byte.
const BODY: usize = (1 << 20) - 1;
/// How long they all may take to send what the budget has room for; that of a body is 10 s.
const SENDING: Duration = Duration::from_secs(8);
const FILLING: &str = "peak while filling, MiB";
const RECOVERED: &str = "peak after a restart, MiB";

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    // One round: the peak of a million events does not vary enough for more to be worth minutes.
    let idle = journal(bench).await?;
    let failing = failing(bench).await?;
    let (silent, bodies) = (silent(bench).await?, bodies(bench).await?);
    for (quantity, peak) in [
        ("peak with 1,000,000 events of 1,000 keys that fail, MiB", failing),
        ("peak with 2,000 silent connections, MiB", silent),
        ("peak with 1,000 unfinished bodies of 1 MiB, MiB", bodies),
        ("idle, MiB", idle),
    ] {
        bench.report.note("memory", "evermirror", quantity, peak);
    }
    bench.report.judge("resident memory when idle, MiB", Bound::AtMost(64.0), &[idle]);
    let most = failing.max(silent).max(bodies);
    let claim = "resident memory with failing keys, silent connections, unfinished bodies, MiB";
    bench.report.judge(claim, Bound::AtMost(150.0), &[most]);
    Ok(())
}

/// With 1,000,000 events of different keys in the journal, while they arrive and after a restart that finds
/// them there. The target is down, so nothing leaves. Returns what it took before they came.
async fn journal(bench: &mut Bench) -> anyhow::Result<f64> {
    let count = bench.scaled(EVENTS);
    progress(&format!("memory: posting {count} events."));
    let bucket = "memory";
    bench.source_bucket(bucket).await?;
    let site = bench.site(bucket, bucket, bucket)?;
    let evermirror = site.start_ready().await?;
    let idle = evermirror.usage()?.peak_mib;
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
    Ok(idle)
}

/// While the same keys are told of again and again as created, and the source has none of them, so that each waits
/// for another look.
async fn failing(bench: &Bench) -> anyhow::Result<f64> {
    let count = bench.scaled(EVENTS);
    progress(&format!("memory: posting {count} events of {FAILING} keys that are not there."));
    let bucket = "memory-failing";
    bench.source_bucket(bucket).await?;
    bench.target_bucket(bucket).await?;
    let site = bench.site(bucket, bucket, bucket)?;
    let evermirror = site.start_ready().await?;
    let events = Notifier::new(bucket, 1).of_keys(FAILING);
    events.post(site.webhook_port, count, CONNECTIONS).await?;
    Ok(evermirror.usage()?.peak_mib)
}

/// While more connections than it accepts send nothing.
async fn silent(bench: &Bench) -> anyhow::Result<f64> {
    progress(&format!("memory: {SILENT} connections that send nothing."));
    let bucket = "memory-silent";
    bench.source_bucket(bucket).await?;
    bench.target_bucket(bucket).await?;
    let site = bench.site(bucket, bucket, bucket)?;
    let evermirror = site.start_ready().await?;
    let mut connections = Vec::new();
    for _ in 0..SILENT {
        connections.push(TcpStream::connect(("127.0.0.1", site.webhook_port)).await?);
    }
    // One that has something to say is heard all the same.
    Notifier::new(bucket, 0).post(site.webhook_port, 1, 1).await?;
    let peak = evermirror.usage()?.peak_mib;
    drop(connections);
    Ok(peak)
}

/// While authenticated senders leave out the last byte of the largest body that is accepted.
async fn bodies(bench: &Bench) -> anyhow::Result<f64> {
    progress(&format!("memory: {SENDERS} bodies that do not end."));
    let bucket = "memory-bodies";
    bench.source_bucket(bucket).await?;
    bench.target_bucket(bucket).await?;
    let site = bench.site(bucket, bucket, bucket)?;
    let evermirror = site.start_ready().await?;
    let token = authorization()?;
    let head = format!(
        "POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n",
        token.to_str()?,
        BODY + 1
    );
    let mut request = head.into_bytes();
    request.resize(request.len() + BODY, b' ');
    let request = Arc::new(request);
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (request, port) = (Arc::clone(&request), site.webhook_port);
            tokio::spawn(async move {
                let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
                connection.write_all(&request).await?;
                // Its answer, or its end.
                connection.read_u8().await
            })
        })
        .collect();
    tokio::time::sleep(SENDING).await;
    let peak = evermirror.usage()?.peak_mib;
    let waiting = senders.iter().filter(|sender| !sender.is_finished()).count();
    (waiting > 0).then_some(()).context("no body was under way when the memory was read")?;
    senders.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(peak)
}

/// Waits until so many keys are pending: it proves that the events are there.
async fn pending(evermirror: &Evermirror, count: usize) -> anyhow::Result<()> {
    until("all events are pending", || async {
        let pending = evermirror.number("/keys/pending").await?;
        Ok(pending.total_cmp(&float(count)).is_eq())
    })
    .await
}
