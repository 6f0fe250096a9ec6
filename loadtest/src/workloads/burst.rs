//! Changes as fast as the source takes them: 20,000 objects of 4 KiB are put, or deleted one by one, or
//! deleted by 20 requests of 1,000. The time runs from the first request until the target has followed.

use std::time::Instant;

use anyhow::bail;
use tokio::sync::mpsc;

use crate::bare::{self, Route};
use crate::bench::{Bench, RATE};
use crate::data::{self, Numbers, OBJECT_SIZE};
use crate::live::{self, Live, PATIENCE};
use crate::report::{Bound, progress};
use crate::stats::float;
use crate::subject::Subject as _;

const OBJECTS: usize = 20_000;
const CONNECTIONS: usize = 32;

const SOURCE_RATE: &str = "changes/s at the source";
const BEHIND: &str = "behind after the last change, s";
const NEVER_SEEN: &str = "never seen, objects";

/// What is done to every object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Put,
    Delete,
    /// A thousand with each request.
    DeleteMany,
}

impl Change {
    const fn name(self) -> &'static str {
        match self {
            Self::Put => "burst",
            Self::Delete => "deletes",
            Self::DeleteMany => "bulk-delete",
        }
    }

    /// How many objects one request changes.
    const fn step(self) -> usize {
        match self {
            Self::Put | Self::Delete => 1,
            Self::DeleteMany => 1_000,
        }
    }

    /// Does this request at the source.
    async fn make(self, route: &Route, request: usize) -> anyhow::Result<()> {
        let (store, bucket) = (&route.source, &route.source_bucket);
        match self {
            Self::Put => data::put(store, bucket, request).await,
            Self::Delete | Self::DeleteMany => {
                data::delete(store, bucket, self.keys(request)).await
            }
        }
    }

    /// Does at the target what this request did at the source.
    async fn repeat(self, route: &Route, request: usize) -> anyhow::Result<()> {
        match self {
            Self::Put => route.copy(&data::key(request)).await,
            Self::Delete | Self::DeleteMany => {
                data::delete(&route.target, &route.target_bucket, self.keys(request)).await
            }
        }
    }

    fn keys(self, request: usize) -> Vec<String> {
        (request * self.step()..(request + 1) * self.step()).map(data::key).collect()
    }
}

pub(crate) async fn run(bench: &mut Bench, change: Change) -> anyhow::Result<()> {
    for round in 0..bench.rounds {
        for subject in bench.order(round, &live::ALL) {
            measure(bench, change, subject, round).await?;
        }
    }
    let (workload, ours) = (change.name(), "evermirror");
    if change == Change::Put {
        let (claim, bound) = ("rate of a burst, over the bare loop's", Bound::AtLeast(0.95));
        bench.report.judge_ratio(claim, bound, workload, (ours, RATE), ("bare", RATE));
        let peers = [Live::McWatch, Live::Minio].map(Live::name);
        bench.judge_ahead("rate of a burst, over the fastest peer's", workload, RATE, &peers);
    }
    for other in live::ALL.into_iter().filter(|live| *live != Live::Evermirror) {
        bench.report.relate(workload, RATE, [ours, other.name()]);
    }
    for (one, other) in [(Live::Listen, Live::Bare), (Live::Told, Live::Bare)] {
        bench.report.relate(workload, RATE, [one.name(), other.name()]);
    }
    Ok(())
}

async fn measure(
    bench: &mut Bench,
    change: Change,
    subject: Live,
    round: u32,
) -> anyhow::Result<()> {
    let (workload, name) = (change.name(), subject.name());
    progress(&format!("{workload}, round {}: {name}.", round + 1));
    let bucket = format!("{workload}-{round}-{subject:?}").to_lowercase();
    let count = bench.scaled(OBJECTS);
    subject.buckets(bench, &bucket).await?;
    if change != Change::Put {
        data::seed(&bench.source_store, &bucket, count, OBJECT_SIZE).await?;
        bench.copy_disk(&bucket).await?;
    }
    let running = subject.start(bench, &bucket).await?;
    bench.settle().await?;
    let before = running.usage()?;
    let (begun, route) = (Instant::now(), bench.route(&bucket, &bucket));
    let answered = flat_out(&route, change, count, subject == Live::Bare).await?;
    let seen = bench.receiver.wait(count, PATIENCE).await;
    running.note_usage(bench, (workload, subject), before, count)?;
    running.stop().await?;

    let never = count.saturating_sub(seen.at.len());
    if never > 0 && !subject.is_peer() {
        bail!("{never} of {count} changes of {bucket} never reached the target");
    }
    let last = seen.at.values().max().copied().unwrap_or(begun);
    // The rate of one that does not reach the end is none.
    let rate = if never > 0 { 0.0 } else { float(count) / (last - begun).as_secs_f64() };
    if never == 0 {
        let (source, target) = ((&bench.source_store, &*bucket), (&bench.target_store, &*bucket));
        data::equal(source, target).await?;
        let behind = last.saturating_duration_since(answered).as_secs_f64();
        bench.report.note(workload, name, BEHIND, behind);
    }
    let source_rate = float(count) / (answered - begun).as_secs_f64();
    bench.report.note(workload, name, SOURCE_RATE, source_rate);
    bench.report.note(workload, name, RATE, rate);
    bench.report.note(workload, name, NEVER_SEEN, float(never));
    Ok(())
}

/// Makes the changes, and repeats them at the target where the bare loop is asked for. Tells when the
/// source had answered the last.
async fn flat_out(
    route: &Route,
    change: Change,
    count: usize,
    bare: bool,
) -> anyhow::Result<Instant> {
    let (tell, told) = mpsc::channel(count);
    let repeated = bare::follow(told, bare::workers(), |request| {
        let route = route.clone();
        async move { change.repeat(&route, request).await }
    });
    let numbers = Numbers::below(count / change.step());
    let made = async move {
        data::crew(CONNECTIONS, || {
            let (route, numbers) = (route.clone(), numbers.clone());
            let tell = bare.then(|| tell.clone());
            async move {
                for request in numbers {
                    change.make(&route, request).await?;
                    if let Some(tell) = &tell {
                        tell.send(request).await?;
                    }
                }
                Ok(())
            }
        })
        .await?;
        // The loop ends when nobody can tell it more.
        drop(tell);
        anyhow::Ok(Instant::now())
    };
    let (answered, ()) = tokio::try_join!(made, repeated)?;
    Ok(answered)
}
