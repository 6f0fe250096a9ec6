//! SQS: how many notifications a second come from a full queue into the journal, beside a loop that
//! receives and deletes and does nothing else. The target is down, so nothing is copied meanwhile.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::bench::Bench;
use crate::data::Notifier;
use crate::process::own_usage;
use crate::queue::ElasticMq;
use crate::report::{Bound, progress};
use crate::servers::until;
use crate::site::Evermirror;
use crate::stats::float;
use crate::subject::Subject;

const EVENTS: usize = 50_000;
const CONNECTIONS: usize = 64;
const BUCKET: &str = "sqs";
/// How often the status is asked: it costs evermirror time.
const LOOK: Duration = Duration::from_millis(50);

const RATE: &str = "durable events/s, 64 receivers";
const CPU: &str = "CPU per event, ms";

#[derive(Debug, Clone, Copy)]
enum Receiver {
    Evermirror,
    /// This process, which keeps nothing.
    Bare,
}

impl Subject for Receiver {
    fn name(self) -> &'static str {
        match self {
            Self::Evermirror => "evermirror",
            Self::Bare => "bare",
        }
    }
}

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    bench.source_bucket(BUCKET).await?;
    let dir = bench.dir().join("queue");
    std::fs::create_dir_all(&dir)?;
    let server = ElasticMq::start(&dir).await?;
    bench.target.stop();
    // A virtual machine that has just been started is slow.
    let warm = server.queue("warm").await?;
    warm.fill(&Notifier::new(BUCKET, u32::MAX), EVENTS).await?;
    warm.drain(EVENTS, CONNECTIONS).await?;
    for round in 0..bench.rounds {
        progress(&format!("sqs, round {}.", round + 1));
        for subject in bench.order(round, &[Receiver::Evermirror, Receiver::Bare]) {
            measure(bench, &server, round, subject).await?;
        }
    }
    bench.target.start_again().await?;
    let rates = bench.report.rounds("sqs", "evermirror", RATE).to_vec();
    let claim = "durable events/s from an SQS queue, 64 receivers";
    bench.report.judge(claim, Bound::AtLeast(5000.0), &rates);
    bench.report.relate("sqs", RATE, ["evermirror", "bare"]);
    Ok(())
}

async fn measure(
    bench: &mut Bench,
    server: &ElasticMq,
    round: u32,
    subject: Receiver,
) -> anyhow::Result<()> {
    let count = bench.scaled(EVENTS);
    // A queue for each: what asked before and went away may still be given messages.
    let queue = server.queue(&format!("{subject:?}-{round}")).await?;
    queue.fill(&Notifier::new(BUCKET, round), count).await?;
    let before = server.usage()?.cpu_s;
    let (took, cpu_s) = match subject {
        Receiver::Evermirror => {
            let site = bench.site(&format!("{BUCKET}-{round}"), BUCKET, BUCKET)?;
            site.add_settings(&format!(
                "[intake.sqs]\nqueue_url = \"{}\"\naccess_key = \"any\"\nsecret_key = \"any\"\n\
                 receivers = {CONNECTIONS}\n",
                queue.url()
            ))?;
            let begun = Instant::now();
            let evermirror = site.start()?;
            let took = durable(&evermirror, count, begun).await?;
            until("the queue is empty", || async { Ok(queue.holds().await? == 0) }).await?;
            let usage = evermirror.usage()?;
            bench.note_peak("sqs", usage.peak_mib);
            (took, usage.cpu_s)
        }
        Receiver::Bare => {
            let (begun, own) = (Instant::now(), own_usage()?.cpu_s);
            queue.drain(count, CONNECTIONS).await?;
            (begun.elapsed(), own_usage()?.cpu_s - own)
        }
    };
    ensure!(queue.holds().await? == 0, "messages are left in the queue");
    let cost = server.usage()?.cpu_s - before;
    bench.report.note("sqs", subject.name(), RATE, float(count) / took.as_secs_f64());
    bench.report.note("sqs", subject.name(), CPU, cpu_s * 1e3 / float(count));
    let theirs = "ElasticMQ's CPU per event, ms";
    bench.report.note("sqs", subject.name(), theirs, cost * 1e3 / float(count));
    Ok(())
}

/// Waits until the journal holds so many records.
async fn durable(
    evermirror: &Evermirror,
    count: usize,
    begun: Instant,
) -> anyhow::Result<Duration> {
    let mut took = Duration::ZERO;
    while took < Duration::from_mins(2) {
        tokio::time::sleep(LOOK).await;
        // The first record has number 1. It does not answer in its first moments.
        let next = evermirror.number("/journal/next_lsn").await.unwrap_or(0.0);
        took = begun.elapsed();
        if next > float(count) {
            return Ok(took);
        }
    }
    anyhow::bail!("not durable after {took:?}: {}", evermirror.status().await?)
}
