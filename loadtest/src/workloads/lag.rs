//! Live lag: 4 KiB objects are put at a steady pace, and the target's own notifications say when each
//! one has appeared there.
//!
//! The same stop-watch is used for evermirror and for a bare GET+PUT that begins the moment the put
//! at the source was answered, knows which key to copy, and keeps no record of anything.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::bare::Route;
use crate::bench::Bench;
use crate::data;
use crate::report::{Bound, progress};
use crate::stats::{float, ms, percentile};

/// A pace, and the names under which its figures are reported.
#[derive(Debug, Clone, Copy)]
struct Pace {
    name: &'static str,
    puts_per_s: u32,
    seconds: usize,
}

const PACES: [Pace; 2] = [
    Pace { name: "lag 50/s", puts_per_s: 50, seconds: 20 },
    Pace { name: "lag 200/s", puts_per_s: 200, seconds: 20 },
];
/// Puts before the measured ones, for connections and caches.
const WARM_UP: usize = 30;

const PUT_TO_SEEN: [&str; 2] = ["put answered to seen p50, ms", "put answered to seen p99, ms"];
const PUT_TO_PUT: [&str; 2] = ["GET+PUT answered p50, ms", "GET+PUT answered p99, ms"];

/// Who replicates.
#[derive(Debug, Clone, Copy)]
enum Subject {
    Evermirror,
    Bare,
}

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for pace in PACES {
        for round in 0..bench.rounds {
            for subject in Bench::order(round, [Subject::Evermirror, Subject::Bare]) {
                progress(&format!("{}, round {}: {subject:?}.", pace.name, round + 1));
                match subject {
                    Subject::Evermirror => evermirror(bench, pace, round).await?,
                    Subject::Bare => bare(bench, pace, round).await?,
                }
            }
        }
    }
    let [p50, p99] = PUT_TO_SEEN;
    let [bare_p50, _] = PUT_TO_PUT;
    bench.report.judge_ratio(
        "live lag p50 at 50 puts/s, over a bare GET+PUT",
        Bound::AtMost(2.0),
        "lag 50/s",
        ("evermirror", p50),
        ("bare", bare_p50),
    );
    for pace in PACES {
        bench.report.relate(pace.name, p50, ["evermirror", "bare"]);
        bench.report.relate(pace.name, p99, ["evermirror", "bare"]);
    }
    Ok(())
}

async fn evermirror(bench: &mut Bench, pace: Pace, round: u32) -> anyhow::Result<()> {
    let bucket = format!("lag-{}-{round}-evermirror", pace.puts_per_s);
    prepare(bench, &bucket).await?;
    bench.peers().notify("source", &bucket).await?;
    let evermirror = bench.site(&bucket, &bucket, &bucket)?.start_ready().await?;
    let route = bench.route(&bucket, &bucket);
    let count = bench.scaled(pace.seconds * pace.puts_per_s as usize);

    paced(&route, pace, count..count + WARM_UP, false).await?;
    bench.receiver.all(WARM_UP).await?;
    bench.receiver.clear();
    let before = evermirror.usage()?;
    let puts = paced(&route, pace, 0..count, false).await?;
    let seen = bench.receiver.all(count).await?;
    let after = evermirror.usage()?;

    note_seen(bench, pace, "evermirror", &bucket, &puts, &seen)?;
    for (quantity, field) in
        [("own lag p50, ms", "/lag/p50_ms"), ("own lag p99, ms", "/lag/p99_ms")]
    {
        bench.report.note(pace.name, "evermirror", quantity, evermirror.number(field).await?);
    }
    let cpu_ms = (after.cpu_s - before.cpu_s) * 1e3 / float(count);
    bench.report.note(pace.name, "evermirror", "CPU per object, ms", cpu_ms);
    evermirror.terminate().await?;
    Ok(())
}

async fn bare(bench: &mut Bench, pace: Pace, round: u32) -> anyhow::Result<()> {
    let bucket = format!("lag-{}-{round}-bare", pace.puts_per_s);
    prepare(bench, &bucket).await?;
    let route = bench.route(&bucket, &bucket);
    let count = bench.scaled(pace.seconds * pace.puts_per_s as usize);

    paced(&route, pace, count..count + WARM_UP, true).await?;
    bench.receiver.all(WARM_UP).await?;
    bench.receiver.clear();
    let puts = paced(&route, pace, 0..count, true).await?;
    let seen = bench.receiver.all(count).await?;

    note_seen(bench, pace, "bare", &bucket, &puts, &seen)?;
    let took: Vec<f64> = puts.values().filter_map(|put| Some(ms(put.copied?))).collect();
    for (quantity, percent) in PUT_TO_PUT.into_iter().zip([50, 99]) {
        bench.report.note(pace.name, "bare", quantity, percentile(&took, percent));
    }
    Ok(())
}

/// Fresh buckets on both sides, and a stop-watch at the target's.
async fn prepare(bench: &Bench, bucket: &str) -> anyhow::Result<()> {
    bench.source_bucket(bucket).await?;
    bench.target_bucket(bucket).await?;
    bench.receiver.clear();
    bench.peers().notify("target", bucket).await
}

/// One put at the source.
#[derive(Debug, Clone, Copy)]
struct Put {
    answered: Instant,
    /// How long the bare GET+PUT took that followed at once.
    copied: Option<Duration>,
}

/// Puts the objects of these numbers, each at its own time whatever became of the others.
async fn paced(
    route: &Route,
    pace: Pace,
    numbers: std::ops::Range<usize>,
    copy: bool,
) -> anyhow::Result<HashMap<usize, Put>> {
    let mut ticks = interval(Duration::from_secs(1) / pace.puts_per_s);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = JoinSet::new();
    for number in numbers {
        ticks.tick().await;
        let route = route.clone();
        tasks.spawn(async move {
            data::put(&route.source, &route.source_bucket, number).await?;
            let answered = Instant::now();
            let mut copied = None;
            if copy {
                route.copy(number).await?;
                copied = Some(answered.elapsed());
            }
            anyhow::Ok((number, Put { answered, copied }))
        });
    }
    let mut puts = HashMap::new();
    while let Some(done) = tasks.join_next().await {
        let (number, put) = done??;
        puts.insert(number, put);
    }
    Ok(puts)
}

fn note_seen(
    bench: &mut Bench,
    pace: Pace,
    subject: &'static str,
    bucket: &str,
    puts: &HashMap<usize, Put>,
    seen: &HashMap<String, Instant>,
) -> anyhow::Result<()> {
    let mut lags = Vec::with_capacity(puts.len());
    for (number, put) in puts {
        let path = format!("{bucket}/{}", data::key(*number));
        let at = seen.get(&path).with_context(|| format!("{path} was not seen"))?;
        // It can be there before the answer to the put is here: no lag is measured as none.
        lags.push(ms(at.saturating_duration_since(put.answered)));
    }
    for (quantity, percent) in PUT_TO_SEEN.into_iter().zip([50, 99]) {
        bench.report.note(pace.name, subject, quantity, percentile(&lags, percent));
    }
    Ok(())
}
