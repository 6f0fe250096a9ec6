//! Intake: how many notifications become durable in a second, and what one of them takes beside a
//! plain write and sync on the same disk. The target is down, so nothing else is done meanwhile.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use evermirror::dirty::{Aspects, DirtyKey, Origin};
use evermirror::object::ObjectKey;

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
/// What the journal adds to a record: length, checksum, number, epoch, kind.
const FRAME: usize = 25;
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

        let (events, syncs) = one_by_one(site.webhook_port, bench.dir()).await?;
        bench.report.note("intake", "evermirror", ONE, events);
        bench.report.note("intake", "plain sync", ONE, syncs);
        drop(evermirror);
        bench.target.start_again().await?;
    }
    let rates = bench.report.rounds("intake", "evermirror", RATE).to_vec();
    let claim = "durable events/s from 64 connections";
    bench.report.judge(claim, Bound::AtLeast(5000.0), &rates);
    bench.report.judge_ratio(
        "time of one event on one connection, over a plain write and sync",
        Bound::AtMost(1.5),
        "intake",
        ("evermirror", ONE),
        ("plain sync", ONE),
    );
    Ok(())
}

/// The medians of one event and of one plain write and sync, in milliseconds.
async fn one_by_one(port: u16, dir: &Path) -> anyhow::Result<(f64, f64)> {
    let (notifier, token) = (Notifier::new(BUCKET, 1), data::authorization()?);
    let mut connection = Connection::open(port).await?;
    let mut plain = PlainFile::create(&dir.join("plain"))?;
    let (mut events, mut syncs) = (Vec::new(), Vec::new());
    for slice in 0..SLICES {
        for number in slice * SLICE..(slice + 1) * SLICE {
            let body = notifier.body(number);
            let begun = Instant::now();
            connection.post("/events", &token, body).await?;
            events.push(ms(begun.elapsed()));
        }
        (plain, syncs) = tokio::task::spawn_blocking(move || {
            for _ in 0..SLICE {
                let begun = Instant::now();
                plain.append()?;
                syncs.push(ms(begun.elapsed()));
            }
            anyhow::Ok((plain, syncs))
        })
        .await??;
    }
    Ok((Summary::of(&events).median, Summary::of(&syncs).median))
}

/// Records of the journal's size, one after the other into a file of zeros: the least that durable
/// can mean.
#[derive(Debug)]
struct PlainFile {
    file: File,
    record: Vec<u8>,
    end: u64,
}

impl PlainFile {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let dirty = DirtyKey {
            key: ObjectKey::new(BUCKET, data::key(0)),
            aspects: Aspects::CONTENT,
            origin: Origin::Live,
            since_ms: 0,
        };
        let record = vec![0xa5; dirty.encode().len() + FRAME];
        let file = File::create(path)?;
        file.write_all_at(&vec![0; SLICES * SLICE * record.len()], 0)?;
        file.sync_all()?;
        Ok(Self { file, record, end: 0 })
    }

    fn append(&mut self) -> anyhow::Result<()> {
        self.file.write_all_at(&self.record, self.end)?;
        self.end += self.record.len() as u64;
        Ok(self.file.sync_data()?)
    }
}
