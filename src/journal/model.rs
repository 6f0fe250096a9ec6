//! The journal against a reference model, with crashes and lost sectors.
//!
//! Invariant: what was acknowledged and not trimmed is delivered in order after every open, or its
//! loss is reported; nothing is invented; no number is given to two acknowledged records.

use std::collections::{BTreeMap, HashSet};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::prelude::*;

use super::testing::{TestDisk, directory, files, open, options};
use super::{Cursor, Journal, Lsn, Recovery};

const SEGMENT: u64 = 8 << 10;

#[derive(Debug, Clone)]
enum Op {
    /// Append one call of records of these sizes.
    Append(Vec<usize>),
    /// Append several calls at once.
    Burst(Vec<Vec<usize>>),
    /// Read and compare.
    Read,
    /// Finish this share (in 256ths) of what was acknowledged.
    Trim(u8),
    /// Close and open.
    Reopen,
    /// The power fails some operations into a burst; unsynced sectors survive or not.
    Crash { burst: Vec<Vec<usize>>, after: usize, lost: Vec<bool>, sector: Option<Sector> },
    /// One durable sector is lost while the journal is closed.
    LostSector(Sector),
}

#[derive(Debug, Clone)]
struct Sector {
    file: prop::sample::Index,
    place: prop::sample::Index,
    zero: bool,
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![3 => 0..120_usize, 1 => 120..1200_usize], 1..6)
}

fn sector() -> impl Strategy<Value = Sector> {
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>())
        .prop_map(|(file, place, zero)| Sector { file, place, zero })
}

fn op() -> impl Strategy<Value = Op> {
    let burst = || prop::collection::vec(sizes(), 1..6);
    let lost = prop_oneof![
        Just(vec![true]),
        Just(vec![false]),
        prop::collection::vec(any::<bool>(), 1..40),
    ];
    prop_oneof![
        6 => sizes().prop_map(Op::Append),
        2 => burst().prop_map(Op::Burst),
        2 => Just(Op::Read),
        2 => any::<u8>().prop_map(Op::Trim),
        1 => Just(Op::Reopen),
        3 => (burst(), 0..14_usize, lost, prop::option::weighted(0.3, sector())).prop_map(
            |(burst, after, lost, sector)| Op::Crash { burst, after, lost, sector }
        ),
        3 => sector().prop_map(Op::LostSector),
    ]
}

/// The system under test beside what it must remember.
struct Model {
    dir: tempfile::TempDir,
    disk: Arc<TestDisk>,
    open: Option<(Journal, Cursor)>,
    /// Acknowledged, or delivered by a recovery: must be delivered by the next one.
    kept: BTreeMap<Lsn, Vec<u8>>,
    /// Everything ever given to append.
    attempted: HashSet<Vec<u8>>,
    /// Reported as lost.
    lost: HashSet<Lsn>,
    /// Everything below is finished.
    trimmed: Lsn,
    highest: Lsn,
}

impl Model {
    async fn new() -> Self {
        let mut model = Self {
            dir: directory(),
            disk: Arc::default(),
            open: None,
            kept: BTreeMap::new(),
            attempted: HashSet::new(),
            lost: HashSet::new(),
            trimmed: 1,
            highest: 0,
        };
        model.reopen(false).await;
        model
    }

    fn journal(&self) -> &Journal {
        &self.open.as_ref().unwrap().0
    }

    /// Payloads that were never used before.
    fn payloads(&mut self, sizes: &[usize]) -> Vec<Vec<u8>> {
        let fill =
            |n: usize, size| format!("{n:08}").into_bytes().into_iter().cycle().take(size + 8);
        let payloads = sizes.iter().map(|size| {
            let payload: Vec<u8> = fill(self.attempted.len(), *size).collect();
            self.attempted.insert(payload.clone());
            payload
        });
        payloads.collect()
    }

    async fn burst(&mut self, burst: &[Vec<usize>], must_succeed: bool) {
        let calls: Vec<_> = burst.iter().map(|sizes| self.payloads(sizes)).collect();
        let appends = calls.iter().map(|call| {
            let (journal, call) = (self.journal().clone(), call.clone());
            tokio::spawn(async move { journal.append(call).await })
        });
        let appends: Vec<_> = appends.collect();
        for (call, append) in calls.into_iter().zip(appends) {
            match append.await.unwrap() {
                Ok(last) => {
                    let first = last + 1 - call.len() as u64;
                    for (lsn, payload) in (first..).zip(call) {
                        assert!(self.kept.insert(lsn, payload).is_none(), "{lsn} was given twice");
                        self.highest = self.highest.max(lsn);
                    }
                }
                Err(error) => assert!(!must_succeed, "{error}"),
            }
        }
    }

    async fn read(&mut self) {
        let (_, cursor) = self.open.as_mut().unwrap();
        let mut expected = self.kept.range(cursor.position()..).peekable();
        while expected.peek().is_some() {
            for record in cursor.next(7).await.unwrap() {
                let (lsn, payload) = expected.next().unwrap();
                assert_eq!((record.lsn, &record.payload[..]), (*lsn, &payload[..]));
            }
        }
    }

    fn trim(&mut self, share: u8) {
        let read = self.open.as_ref().unwrap().1.position();
        let span = read.saturating_sub(self.trimmed);
        self.trimmed += span * u64::from(share) / 255;
        self.journal().trim(self.trimmed);
    }

    async fn close(&mut self) {
        if let Some((journal, _cursor)) = self.open.take() {
            journal.close().await;
        }
    }

    fn lose(&self, at: &Sector) {
        let mut all = files(self.dir.path(), ".segment");
        all.extend(files(self.dir.path(), "checkpoint"));
        let file = OpenOptions::new().read(true).write(true).open(at.file.get(&all)).unwrap();
        let sectors = usize::try_from(file.metadata().unwrap().len().div_ceil(512)).unwrap();
        let offset = at.place.index(sectors) as u64 * 512;
        let mut bytes = [0; 512];
        let length = file.read_at(&mut bytes, offset).unwrap();
        for byte in &mut bytes {
            *byte = if at.zero { 0 } else { !*byte };
        }
        file.write_all_at(&bytes[..length], offset).unwrap();
    }

    /// Opens and checks everything that is delivered. `lost`: a durable sector was lost.
    async fn reopen(&mut self, lost: bool) {
        let (journal, mut cursor, report) = open(&self.disk, options(self.dir.path(), SEGMENT));
        let mut delivered = BTreeMap::new();
        let mut before = report.first_lsn - 1;
        while cursor.position() < report.next_lsn && readable(&report, cursor.position()) {
            for record in cursor.next(1000).await.unwrap() {
                assert!(record.lsn > before && record.lsn < report.next_lsn);
                let skipped = before + 1..record.lsn;
                assert!(skipped.into_iter().all(|lsn| reported(&report, lsn)), "{report:?}");
                before = record.lsn;
                assert!(self.attempted.contains(&record.payload[..]), "invented");
                delivered.insert(record.lsn, record.payload.to_vec());
            }
        }
        assert!((before + 1..report.next_lsn).all(|lsn| reported(&report, lsn)), "{report:?}");
        for (lsn, payload) in self.kept.range(self.trimmed..) {
            if let Some(found) = delivered.get(lsn) {
                assert_eq!(found, payload, "{lsn} changed");
            } else {
                assert!(reported(&report, *lsn), "{lsn} was lost silently: {report:?}");
                assert!(lost, "{lsn} was lost without a fault: {report:?}");
            }
        }
        for missing in report.damage.iter().flat_map(|damage| damage.missing.clone()) {
            let new = self.lost.insert(missing) && missing <= self.highest;
            assert!(lost || !new, "{missing} is not lost: {report:?}");
        }
        let mut payloads = HashSet::new();
        assert!(delivered.values().all(|p| payloads.insert(p)), "delivered twice");
        assert!(report.next_lsn > self.highest, "{} would be given again", report.next_lsn);
        self.trimmed = report.first_lsn;
        self.highest = report.next_lsn - 1;
        self.kept = delivered;
        self.open = Some((journal, cursor));
    }

    async fn apply(&mut self, op: Op) {
        match op {
            Op::Append(sizes) => self.burst(&[sizes], true).await,
            Op::Burst(burst) => self.burst(&burst, true).await,
            Op::Read => self.read().await,
            Op::Trim(share) => self.trim(share),
            Op::Reopen => {
                self.close().await;
                self.reopen(false).await;
            }
            Op::Crash { burst, after, lost, sector } => {
                self.disk.cut_power_after(after);
                self.burst(&burst, false).await;
                self.disk.cut_power_after(0);
                self.close().await;
                let mut lost = lost.into_iter().cycle();
                self.disk.crash(|| lost.next().unwrap());
                if let Some(sector) = &sector {
                    self.lose(sector);
                }
                self.reopen(sector.is_some()).await;
            }
            Op::LostSector(sector) => {
                self.close().await;
                self.lose(&sector);
                self.reopen(true).await;
            }
        }
    }
}

fn reported(report: &Recovery, lsn: Lsn) -> bool {
    report.damage.iter().any(|damage| damage.missing.contains(&lsn))
}

/// Whether anything from `lsn` on is not reported as missing.
fn readable(report: &Recovery, lsn: Lsn) -> bool {
    (lsn..report.next_lsn).any(|lsn| !reported(report, lsn))
}

fn run(ops: Vec<Op>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut model = Model::new().await;
        for op in ops {
            model.apply(op).await;
        }
        model.close().await;
        model.reopen(false).await;
        model.close().await;
    });
}

proptest! {
    #[test]
    fn acknowledged_means_recovered_or_the_damage_reported(ops in prop::collection::vec(op(), 1..40)) {
        run(ops);
    }
}
