//! A hot key: one object is overwritten 5,000 times, as fast as one connection can. What counts is the last
//! state: how soon the target has it, whether it stays, and how many copies were made for it.

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::sync::mpsc;

use crate::bare::{self, Route};
use crate::bench::Bench;
use crate::data::{self, OBJECT_SIZE};
use crate::live::Live;
use crate::report::progress;
use crate::stats::{float, ms};
use crate::subject::Subject as _;

const OVERWRITES: usize = 5_000;
const NAME: &str = "hot-key";
/// Not MinIO itself: it replicates every version, which takes minutes and not seconds.
const SUBJECTS: [Live; 3] = [Live::Evermirror, Live::Bare, Live::McWatch];
/// How long nothing may arrive before it is believed that nothing more will.
const QUIET: Duration = Duration::from_secs(2);
/// After the last overwrite.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(5);

const COPIES: &str = "copies made";
const CONVERGED: &str = "last state at the target after, ms";
const DIFFERS: &str = "differs in the end";

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for round in 0..bench.rounds {
        for subject in bench.order(round, &SUBJECTS) {
            measure(bench, subject, round).await?;
        }
    }
    for other in [Live::Bare, Live::McWatch] {
        bench.report.relate(NAME, COPIES, ["evermirror", other.name()]);
    }
    Ok(())
}

async fn measure(bench: &mut Bench, subject: Live, round: u32) -> anyhow::Result<()> {
    let name = subject.name();
    progress(&format!("{NAME}, round {}: {name}.", round + 1));
    let bucket = format!("{NAME}-{round}-{subject:?}").to_lowercase();
    subject.buckets(bench, &bucket).await?;
    let running = subject.start(bench, &bucket).await?;
    let (count, route) = (bench.scaled(OVERWRITES), bench.route(&bucket, &bucket));
    let before = running.usage()?;
    let answered = overwrite(&route, count, subject == Live::Bare).await?;

    let mut after = None;
    while after.is_none() && answered.elapsed() < PATIENCE {
        after = agree(&route).await.then(|| answered.elapsed());
        tokio::time::sleep(LOOK).await;
    }
    let copies = quiet(bench).await;
    running.note_usage(bench, (NAME, subject), before, count)?;
    running.stop().await?;
    let agree = agree(&route).await;
    if !agree && !subject.is_peer() {
        bail!("{bucket} at the target has not the last state of its key");
    }
    bench.report.note(NAME, name, COPIES, float(copies));
    bench.report.note(NAME, name, DIFFERS, f64::from(!agree));
    if let Some(after) = after {
        bench.report.note(NAME, name, CONVERGED, ms(after));
    }
    Ok(())
}

/// Overwrites the object; the bare loop repeats each, one after another, since it knows nothing of order.
/// Tells when the source had answered the last.
async fn overwrite(route: &Route, count: usize, bare: bool) -> anyhow::Result<Instant> {
    let (tell, told) = mpsc::channel(count);
    let repeated = bare::follow(told, 1, |()| {
        let route = route.clone();
        async move { route.copy(&data::key(0)).await }
    });
    let made = async move {
        for number in 0..count {
            let content = data::content(number, OBJECT_SIZE);
            data::put_at(&route.source, &route.source_bucket, &data::key(0), content).await?;
            if bare {
                tell.send(()).await?;
            }
        }
        anyhow::Ok(Instant::now())
    };
    let (answered, ()) = tokio::try_join!(made, repeated)?;
    Ok(answered)
}

/// Whether both sides have the object in one state.
async fn agree(route: &Route) -> bool {
    let key = data::key(0);
    let source = route.source.head(&route.source_bucket, &key).await;
    let target = route.target.head(&route.target_bucket, &key).await;
    source.is_ok_and(|source| target.is_ok_and(|target| source.etag == target.etag))
}

/// Waits until no more changes arrive, and tells how many did.
async fn quiet(bench: &Bench) -> usize {
    let begun = Instant::now();
    let mut changes = bench.receiver.seen().changes;
    loop {
        tokio::time::sleep(QUIET).await;
        let now = bench.receiver.seen().changes;
        if now == changes || begun.elapsed() > PATIENCE {
            return now;
        }
        changes = now;
    }
}
