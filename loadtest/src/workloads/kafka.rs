//! Kafka: how many records of a topic become durable in a second, beside a loop that only reads them;
//! and one, two and four processes on the same backlog, with Kafka as their journal.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::bench::Bench;
use crate::data;
use crate::kafka::Kafka;
use crate::report::{Bound, progress};
use crate::site::{Evermirror, Site};
use crate::stats::float;

const EVENTS: usize = 100_000;
const OBJECTS: usize = 10_000;
const PARTITIONS: i32 = 12;
const PATIENCE: Duration = Duration::from_mins(5);
const LOOK: Duration = Duration::from_millis(50);
const BUCKET: &str = "kafka";

const RATE: &str = "durable events/s";
const COPIED: &str = "objects/s";
const CPU: &str = "CPU per 10,000 objects, s";

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let kafka = Kafka::start(&bench.dir().join("kafka")).await?;
    let count = bench.scaled(EVENTS);
    bench.source_bucket(BUCKET).await?;
    bench.target.stop();
    for round in 0..bench.rounds {
        let topic = format!("durable-{round}");
        progress(&format!("kafka, round {}: filling a topic.", round + 1));
        kafka.fill(&topic, PARTITIONS, BUCKET, count).await?;
        let site = site(bench, &kafka, &topic, BUCKET, "durable")?;
        let evermirror = site.start_ready().await?;
        let (mut first, begun) = (None, Instant::now());
        let rate = loop {
            let durable = evermirror.number("/journal/next_lsn").await? - 1.0;
            let (from, at) = *first.get_or_insert((durable, Instant::now()));
            if durable >= float(count) {
                break (durable - from) / at.elapsed().as_secs_f64();
            }
            if durable < 1.0 {
                first = None;
            }
            if begun.elapsed() > PATIENCE {
                bail!("the topic was not read: {}", evermirror.status().await?);
            }
            tokio::time::sleep(LOOK).await;
        };
        bench.report.note("kafka", "evermirror", RATE, rate);
        bench.note_peak("kafka", evermirror.usage()?.peak_mib);
        let read = tokio::task::block_in_place(|| kafka.read(&topic, PARTITIONS, count))?;
        bench.report.note("kafka", "bare consumer", RATE, float(count) / read.as_secs_f64());
    }
    bench.target.start_again().await?;
    let rates = bench.report.rounds("kafka", "evermirror", RATE).to_vec();
    bench.report.judge("durable events/s from Kafka", Bound::AtLeast(5000.0), &rates);
    bench.report.relate("kafka", RATE, ["evermirror", "bare consumer"]);
    Ok(())
}

/// One, two and four processes; then two, of which one is killed and replaced in the middle.
pub(crate) async fn scale(bench: &mut Bench) -> anyhow::Result<()> {
    const SOURCE: &str = "kafka-scale";
    let kafka = Kafka::start(&bench.dir().join("kafka-scale")).await?;
    let count = bench.scaled(OBJECTS);
    progress(&format!("kafka-scale: putting {count} objects at the source."));
    bench.source_bucket(SOURCE).await?;
    data::seed(&bench.source_store, SOURCE, count, data::OBJECT_SIZE).await?;
    for round in 0..bench.rounds {
        for (subject, processes) in [("1 process", 1), ("2 processes", 2), ("4 processes", 4)] {
            progress(&format!("kafka-scale, round {}: {subject}.", round + 1));
            let name = format!("{SOURCE}-{round}-{processes}");
            bench.target_bucket(&name).await?;
            kafka.fill(&name, PARTITIONS, SOURCE, count).await?;
            let running = start(bench, &kafka, &name, SOURCE, processes).await?;
            let begun = Instant::now();
            copied(&running, float(count)).await?;
            let took = begun.elapsed();
            let used: Vec<_> = running.iter().flat_map(Evermirror::usage).collect();
            let cpu_s: f64 = used.iter().map(|usage| usage.cpu_s).sum();
            for usage in used {
                bench.note_peak(SOURCE, usage.peak_mib);
            }
            bench.report.note(SOURCE, subject, COPIED, float(count) / took.as_secs_f64());
            bench.report.note(SOURCE, subject, CPU, cpu_s * 1e4 / float(count));
            equal(bench, SOURCE, &name).await?;
        }
        progress(&format!("kafka-scale, round {}: one is killed, another joins.", round + 1));
        let name = format!("{SOURCE}-{round}-killed");
        bench.target_bucket(&name).await?;
        kafka.fill(&name, PARTITIONS, SOURCE, count).await?;
        let mut running = start(bench, &kafka, &name, SOURCE, 2).await?;
        copied(&running, float(count) / 3.0).await?;
        drop(running.pop());
        running.extend(start(bench, &kafka, &name, SOURCE, 1).await?);
        equal(bench, SOURCE, &name).await?;
    }
    bench.report.relate(SOURCE, COPIED, ["2 processes", "1 process"]);
    bench.report.relate(SOURCE, COPIED, ["4 processes", "1 process"]);
    bench.report.relate(SOURCE, CPU, ["4 processes", "1 process"]);
    Ok(())
}

async fn start(
    bench: &Bench,
    kafka: &Kafka,
    name: &str,
    source: &str,
    processes: usize,
) -> anyhow::Result<Vec<Evermirror>> {
    let mut running = Vec::new();
    for _ in 0..processes {
        running.push(site(bench, kafka, name, source, "replicated")?.start_ready().await?);
    }
    Ok(running)
}

/// A process of the group that has the topic's name, and so has its target bucket.
fn site(
    bench: &Bench,
    kafka: &Kafka,
    topic: &str,
    source: &str,
    ack: &'static str,
) -> anyhow::Result<Site> {
    let mut site = bench.another_site(topic, source, topic)?;
    site.environment = vec![
        ("EVERMIRROR__INTAKE__KAFKA__BROKERS", kafka.brokers()),
        ("EVERMIRROR__INTAKE__KAFKA__TOPICS", topic.to_owned()),
        ("EVERMIRROR__INTAKE__KAFKA__GROUP", topic.to_owned()),
        ("EVERMIRROR__INTAKE__KAFKA__ACK", ack.to_owned()),
        ("EVERMIRROR__RECONCILE__INTERVAL", "0s".to_owned()),
    ];
    Ok(site)
}

/// Waits until all of them together have copied so many objects.
async fn copied(running: &[Evermirror], count: f64) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let mut sum = 0.0;
        for evermirror in running {
            sum += evermirror.number("/replicated/copied").await?;
        }
        if sum >= count {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("{sum} of {count} objects were copied");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until both sides are the same: what a killed process had is another's only after a while.
async fn equal(bench: &Bench, source: &str, target: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    let sides = ((&bench.source_store, source), (&bench.target_store, target));
    while let Err(error) = data::equal(sides.0, sides.1).await {
        if begun.elapsed() > PATIENCE {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
