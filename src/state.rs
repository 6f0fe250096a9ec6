//! Opens all state on disk, and says what a crash or a bad disk has done to it.

use std::io;
use std::sync::Arc;

use anyhow::Context as _;

use crate::clock;
use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::deletes::{BrakeBook, Delays, Discards, HeldShelf, SteadyClock};
use crate::gaps::{GapBook, GapReason};
use crate::journal::{Cursor, Journal, JournalOptions, Recovery};
use crate::metrics::Metrics;
use crate::remembered::Remembered;
use crate::shelf::{Shelf, open_journal};

/// A shelf may take as much disk as this; beyond it, keys stay where they are.
const SHELF_SIZE: u64 = 1 << 30;

/// All state on disk, opened.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) journal: Journal,
    pub(crate) gaps: Arc<GapBook>,
    pub(crate) held: HeldShelf,
    pub(crate) discards: Discards,
    pub(crate) brakes: BrakeBook,
    pub(crate) delays: Delays,
    pub(crate) deferred: Arc<Shelf>,
    pub(crate) remembered: Remembered,
    /// Damaged segments kept aside, of the journal and of the shelves.
    pub(crate) quarantined: usize,
}

/// Opens what is in `data_dir`, or begins it. Damage is reported, marks every bucket for reconcile, and
/// does not prevent the start.
pub(crate) async fn open(
    settings: &Settings,
    metrics: &Metrics,
) -> anyhow::Result<(State, Cursor)> {
    let opened = Box::pin(open_all(settings, metrics)).await;
    opened.map_err(|error| {
        if is_full(&error) {
            let dir = settings.data_dir.display();
            error.context(format!("the disk of data_dir {dir} is full: free space there"))
        } else {
            error
        }
    })
}

fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let shared = || cause.downcast_ref::<Arc<io::Error>>().map(|error| error.kind());
        let kind = cause.downcast_ref().map(io::Error::kind).or_else(shared);
        kind == Some(io::ErrorKind::StorageFull)
    })
}

async fn open_all(settings: &Settings, metrics: &Metrics) -> anyhow::Result<(State, Cursor)> {
    let dir = &settings.data_dir;
    let paths = DataDir::at(dir);
    std::fs::create_dir_all(dir).with_context(|| {
        format!("failed to create data_dir {}; make it writable, or set data_dir", dir.display())
    })?;
    let gaps = Arc::new(GapBook::open(paths.gaps())?);
    let options = JournalOptions {
        dir: paths.journal(),
        segment_size: settings.journal.segment_size.0,
        max_size: settings.journal.max_size.0,
        durability: settings.journal.durability,
    };
    let (journal, cursor, recovery) = open_journal(options).await?;
    let (held, held_recovery) = HeldShelf::open(paths.held(), SHELF_SIZE).await?;
    let (deferred, deferred_recovery) = Shelf::open(paths.deferred(), SHELF_SIZE).await?;
    let path = paths.discards();
    let discards = Discards::open(&path, recovery.next_lsn)
        .with_context(|| format!("failed to open {}", path.display()))?;
    let path = paths.brakes();
    let brakes =
        BrakeBook::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
    let path = paths.reconcile();
    let remembered = Remembered::open(&path)
        .with_context(|| format!("failed to open {}; its files may be deleted", path.display()))?;
    let clock = SteadyClock::open(&paths.clock());
    let (delays, delayed_recoveries) =
        Delays::open(&paths.delayed(), &settings.buckets, SHELF_SIZE, clock).await?;
    let waiting = recovery.next_lsn - recovery.first_lsn;
    tracing::info!(dir = %dir.display(), waiting, "The journal is open.");
    let mut recoveries = delayed_recoveries;
    recoveries.extend([recovery, held_recovery, deferred_recovery]);
    recoveries.iter().for_each(report);
    if gaps.damaged() {
        tracing::error!("The gap book was damaged on disk; all buckets must be reconciled.");
    }
    if gaps.damaged() || recoveries.iter().any(lost_records) {
        for bucket in &settings.buckets {
            metrics.gap(GapReason::JournalDamaged);
            gaps.mark(&bucket.source, GapReason::JournalDamaged, clock::now_ms())?;
        }
    }
    let state = State {
        journal,
        gaps,
        held,
        discards,
        brakes,
        delays,
        deferred: Arc::new(deferred),
        remembered,
        quarantined: recoveries.iter().map(|recovery| recovery.quarantined).sum(),
    };
    Ok((state, cursor))
}

/// Whether keys that had been durable are known no more: any bucket may be concerned.
fn lost_records(recovery: &Recovery) -> bool {
    !recovery.damage.is_empty() || recovery.undecodable > 0
}

fn report(recovery: &Recovery) {
    if let Some(tail) = &recovery.torn_tail {
        tracing::info!(segment = %tail.segment.display(), bytes = tail.bytes, "The end of an unfinished write was cut off; none of it had been acknowledged.");
    }
    for damage in &recovery.damage {
        let quarantined = damage.quarantined.as_ref().map(|path| path.display().to_string());
        tracing::error!(
            segment = %damage.segment.display(), missing = ?damage.missing, quarantined,
            "Acknowledged records are damaged on disk and lost; all buckets must be reconciled. Check the disk."
        );
    }
}
