//! Intake: how many notifications become durable in a second, and what one of them takes beside a
//! plain write and sync on the same disk. The target is down, so nothing else is done meanwhile.

mod plain;

use std::path::Path;
use std::time::Instant;

use self::plain::PlainFile;
use crate::bench::Bench;
use crate::data::{self, Notifier};
use crate::http::Connection;
use crate::report::{Bound, progress};
use crate::stats::{Summary, float, ms};

const EVENTS: usize = 100_000;
const CONNECTIONS: usize = 64;
/// Events of one connection in a round, in slices that alternate with as many plain syncs.
const SLICES: usize = 20;
const SLICE: usize = 100;
const BUCKET: &str = "intake";

const RATE: &str = "durable events/s, 64 connections";
const ONE: &str = "one event median, ms";

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    bench.source_bucket(BUCKET).await?;
    let count = bench.scaled(EVENTS);
    for round in 0..bench.rounds {
        progress(&format!("intake, round {}.", round + 1));
        let site = bench.site(&format!("{BUCKET}-{round}"), BUCKET, BUCKET)?;
        let evermirror = site.start_ready().await?;
        bench.target.stop();

        let before = evermirror.usage()?;
        let begun = Instant::now();
        Notifier::new(BUCKET, 0).post(site.webhook_port, count, CONNECTIONS).await?;
        let took = begun.elapsed();
        let cpu_s = evermirror.usage()?.cpu_s - before.cpu_s;
        let rate = float(count) / took.as_secs_f64();
        bench.report.note("intake", "evermirror", RATE, rate);
        bench.report.note("intake", "evermirror", "CPU per event, ms", cpu_s * 1e3 / float(count));

        let one = one_by_one(site.webhook_port, bench.dir()).await?;
        bench.report.note("intake", "evermirror", ONE, one.evermirror);
        bench.report.note("intake", "plain sync", ONE, one.sync);
        bench.report.note("intake", "bare webhook", ONE, one.webhook);
        bench.note_peak("intake", evermirror.usage()?.peak_mib);
        drop(evermirror);
        bench.target.start_again().await?;
    }
    let rates = bench.report.rounds("intake", "evermirror", RATE).to_vec();
    let claim = "durable events/s from 64 connections";
    bench.report.judge(claim, Bound::AtLeast(20_000.0), &rates);
    bench.report.judge_ratio(
        "time of one event on one connection, over a bare webhook with one sync per event",
        Bound::AtMost(1.5),
        "intake",
        ("evermirror", ONE),
        ("bare webhook", ONE),
    );
    bench.report.relate("intake", ONE, ["evermirror", "plain sync"]);
    Ok(())
}

/// Medians in milliseconds.
#[derive(Debug)]
struct OneByOne {
    evermirror: f64,
    /// A write and a sync.
    sync: f64,
    /// A POST that is answered after a write and a sync.
    webhook: f64,
}

async fn one_by_one(port: u16, dir: &Path) -> anyhow::Result<OneByOne> {
    let (notifier, token) = (Notifier::new(BUCKET, 1), data::authorization()?);
    let mut evermirror = Connection::open(port).await?;
    let mut file = PlainFile::create(&dir.join("plain"), BUCKET, SLICES * SLICE)?;
    let behind_http = PlainFile::create(&dir.join("plain-http"), BUCKET, SLICES * SLICE)?;
    let mut webhook = Connection::open(plain::serve(behind_http).await?).await?;
    let [mut events, mut syncs, mut posts] = [const { Vec::new() }; 3];
    for slice in 0..SLICES {
        for number in slice * SLICE..(slice + 1) * SLICE {
            let body = notifier.body(number);
            let begun = Instant::now();
            evermirror.post("/events", &token, body).await?;
            events.push(ms(begun.elapsed()));
        }
        (file, syncs) = tokio::task::spawn_blocking(move || {
            for _ in 0..SLICE {
                let begun = Instant::now();
                file.append()?;
                syncs.push(ms(begun.elapsed()));
            }
            anyhow::Ok((file, syncs))
        })
        .await??;
        for number in slice * SLICE..(slice + 1) * SLICE {
            let body = notifier.body(number);
            let begun = Instant::now();
            webhook.post("/events", &token, body).await?;
            posts.push(ms(begun.elapsed()));
        }
    }
    let [evermirror, sync, webhook] = [&events, &syncs, &posts].map(|v| Summary::of(v).median);
    Ok(OneByOne { evermirror, sync, webhook })
}
