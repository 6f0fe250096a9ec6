//! Live lag: 4 KiB objects are put at a steady pace, and the target's own notifications say when each
//! one has appeared there.
//!
//! The same stop-watch is used for evermirror and for a bare GET+PUT that begins the moment the put
//! at the source was answered, knows which key to copy, and keeps no record of anything.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::bare::Route;
use crate::bench::Bench;
use crate::data;
use crate::live::{self, Live, PATIENCE, Running};
use crate::receiver::Seen;
use crate::report::{Bound, progress};
use crate::stats::{float, ms, percentile};
use crate::subject::Subject as _;

/// A pace, and the names under which its figures are reported.
#[derive(Debug, Clone, Copy)]
struct Pace {
    name: &'static str,
    puts_per_s: u32,
    seconds: usize,
}

const PACES: [Pace; 3] = [
    Pace { name: "lag 50/s", puts_per_s: 50, seconds: 20 },
    Pace { name: "lag 200/s", puts_per_s: 200, seconds: 20 },
    Pace { name: "lag 500/s", puts_per_s: 500, seconds: 20 },
];
/// Puts before the measured ones, for connections and caches.
const WARM_UP: usize = 30;

const PERCENTS: [usize; 2] = [50, 99];
const PUT_TO_SEEN: [&str; 2] = ["put answered to seen p50, ms", "put answered to seen p99, ms"];
const PUT_TO_PUT: [&str; 2] = ["GET+PUT answered p50, ms", "GET+PUT answered p99, ms"];
/// By evermirror's status.
const OWN_LAG: [(&str, &str); 2] =
    [("own lag p50, ms", "/lag/p50_ms"), ("own lag p99, ms", "/lag/p99_ms")];
const NEVER_SEEN: &str = "never seen, objects";

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for pace in PACES {
        for round in 0..bench.rounds {
            for subject in bench.order(round, &live::ALL) {
                measure(bench, pace, subject, round).await?;
            }
        }
    }
    let ([p50, p99], [bare_p50, bare_p99]) = (PUT_TO_SEEN, PUT_TO_PUT);
    for (claim, bound, workload, ours, bare) in [
        ("live lag p50 at 50 puts/s, over a bare GET+PUT", 1.3, "lag 50/s", p50, bare_p50),
        ("live lag p99 at 200 puts/s, over a bare GET+PUT", 4.0, "lag 200/s", p99, bare_p99),
    ] {
        let (ours, bare) = (("evermirror", ours), ("bare", bare));
        bench.report.judge_ratio(claim, Bound::AtMost(bound), workload, ours, bare);
    }
    for pace in PACES {
        for other in live::ALL.into_iter().filter(|live| *live != Live::Evermirror) {
            for quantity in PUT_TO_SEEN {
                bench.report.relate(pace.name, quantity, ["evermirror", other.name()]);
            }
        }
    }
    Ok(())
}

async fn measure(bench: &mut Bench, pace: Pace, subject: Live, round: u32) -> anyhow::Result<()> {
    progress(&format!("{}, round {}: {}.", pace.name, round + 1, subject.name()));
    let bucket = format!("lag-{}-{round}-{subject:?}", pace.puts_per_s).to_lowercase();
    subject.buckets(bench, &bucket).await?;
    let running = subject.start(bench, &bucket).await?;
    let route = bench.route(&bucket, &bucket);
    let count = bench.scaled(pace.seconds * pace.puts_per_s as usize);
    let copy = subject == Live::Bare;

    paced(&route, pace, count..count + WARM_UP, copy).await?;
    bench.receiver.wait(WARM_UP, PATIENCE).await;
    bench.receiver.clear();
    let before = running.usage()?;
    let puts = paced(&route, pace, 0..count, copy).await?;
    let seen = bench.receiver.wait(count, PATIENCE).await;

    running.note_usage(bench, (pace.name, subject), before, count)?;
    note_seen(bench, pace, subject, &bucket, &puts, &seen)?;
    if let Running::Evermirror(evermirror) = &running {
        for (quantity, field) in OWN_LAG {
            bench.report.note(pace.name, subject.name(), quantity, evermirror.number(field).await?);
        }
    }
    let took: Vec<f64> = puts.values().filter_map(|put| Some(ms(put.copied?))).collect();
    for (quantity, percent) in PUT_TO_PUT.into_iter().zip(PERCENTS).filter(|_| copy) {
        bench.report.note(pace.name, subject.name(), quantity, percentile(&took, percent));
    }
    running.stop().await
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
                route.copy(&data::key(number)).await?;
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
    subject: Live,
    bucket: &str,
    puts: &HashMap<usize, Put>,
    seen: &Seen,
) -> anyhow::Result<()> {
    // It can be there before the answer to the put is here: no lag is measured as none.
    let lags = puts.iter().filter_map(|(number, put)| {
        let at = seen.at.get(&format!("{bucket}/{}", data::key(*number)))?;
        Some(ms(at.saturating_duration_since(put.answered)))
    });
    let lags: Vec<f64> = lags.collect();
    let never = puts.len() - lags.len();
    if never > 0 && !subject.is_peer() {
        bail!("{never} of {} objects never appeared in {bucket} at the target", puts.len());
    }
    bench.report.note(pace.name, subject.name(), NEVER_SEEN, float(never));
    for (quantity, percent) in PUT_TO_SEEN.into_iter().zip(PERCENTS) {
        bench.report.note(pace.name, subject.name(), quantity, percentile(&lags, percent));
    }
    Ok(())
}
