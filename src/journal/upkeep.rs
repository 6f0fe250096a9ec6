//! Upkeep: one thread that keeps the slow work away from the committer.
//!
//! It prepares the next segment, persists the trim point (about once a second, when it moved) and
//! removes finished segments, always after the trim point that finishes them is durable. Once there are
//! two segments it keeps a third in reserve, which is written to only on a full disk, by what makes room;
//! and while appends are refused it finds out when they need be no longer.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::checkpoint::{Checkpoint, CheckpointFile};
use super::disk::{Disk, Failure};
use super::segment::Prepared;
use super::shared::Shared;
use super::{Claim, FullReason, JournalError};

/// How often the trim point is persisted, if it moved.
const TICK: Duration = Duration::from_secs(1);

/// The reserve holds what is left of a segment of at most this size.
const RESERVE: u64 = 4 << 20;
/// Room for so many bytes is no full disk any more.
const PROBE: u64 = 64 << 10;

/// Make one segment, for appends of this claim.
#[derive(Debug)]
struct Order(Claim);

/// A prepared segment, or when and why there is none.
type Delivery = (Instant, Result<Prepared, Failure>);

/// Makes the next segment's file, if there is room.
pub(super) fn prepare(
    shared: &Shared,
    disk: &dyn Disk,
    claim: Claim,
    size: u64,
) -> Result<Prepared, Failure> {
    if shared.bytes_in_use().saturating_add(size) > shared.limit(claim) {
        return Err(Failure::Full(FullReason::MaxSize));
    }
    let prepared = Prepared::make(disk, shared.dir(), size, &shared.closing)
        .map_err(|error| Failure::new(error, "prepare a segment in", shared.dir()))?;
    shared.set_prepared(size);
    Ok(prepared)
}

/// The committer's side: orders segments, one at a time. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct UpkeepHandle {
    orders: SyncSender<Order>,
    deliveries: Receiver<Delivery>,
}

impl UpkeepHandle {
    /// Orders the next segment.
    pub(super) fn order(&self, claim: Claim) {
        // It fails only when the thread is gone, which `wait` says.
        drop(self.orders.try_send(Order(claim)));
    }

    /// Waits for what was ordered; `None` when the thread is gone.
    pub(super) fn wait(&self) -> Option<Delivery> {
        self.deliveries.recv().ok()
    }
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Upkeep {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    checkpoint: CheckpointFile,
    /// The trim point that is durable.
    stored: u64,
    /// Held until nothing touches the directory any more.
    lock: File,
    /// Prepared when there was room again, not yet ordered.
    spare: Option<Prepared>,
    /// Kept for [`Claim::Rewrite`] on a full disk.
    reserve: Option<Prepared>,
    /// The trim point could not be persisted, and that was logged.
    told: bool,
}

impl Upkeep {
    pub(super) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        checkpoint: CheckpointFile,
        lock: File,
        reserve: Option<Prepared>,
    ) -> Self {
        let stored = shared.trimmed();
        shared.set_reserve(reserve.as_ref().map_or(0, |reserve| reserve.size));
        Self { shared, disk, checkpoint, stored, lock, spare: None, reserve, told: false }
    }

    /// Starts the thread.
    pub(super) fn start(self) -> Result<UpkeepHandle, JournalError> {
        let (orders, ordered) = sync_channel(1);
        let (deliver, deliveries) = sync_channel(1);
        let dir = self.shared.dir().clone();
        let thread = thread::Builder::new().name("journal-upkeep".to_owned());
        thread
            .spawn(move || self.run(&ordered, &deliver))
            .map_err(JournalError::io("start a thread for", dir))?;
        Ok(UpkeepHandle { orders, deliveries })
    }

    fn run(mut self, ordered: &Receiver<Order>, deliver: &SyncSender<Delivery>) {
        loop {
            match ordered.recv_timeout(TICK) {
                Ok(Order(claim)) => {
                    // First: it may make the room that the segment needs.
                    self.tidy();
                    let prepared = self.supply(claim);
                    // One segment is on order at a time, so there is room for it.
                    drop(deliver.try_send((Instant::now(), prepared)));
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.tidy();
                    self.find_room();
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.keep_reserve();
        }
        self.tidy();
        drop(self.lock);
        self.shared.set_stopped();
    }

    /// The next segment for appends of this claim; the reserve is the last that is given.
    fn supply(&mut self, claim: Claim) -> Result<Prepared, Failure> {
        if let Some(spare) = self.spare.take() {
            return Ok(spare);
        }
        let size = self.shared.options.segment_size;
        match prepare(&self.shared, self.disk.as_ref(), claim, size) {
            Err(Failure::Full(reason)) if claim == Claim::Rewrite => {
                let reserve = self.reserve.take().ok_or(Failure::Full(reason))?;
                self.shared.set_reserve(0);
                self.shared.set_prepared(reserve.size);
                Ok(reserve)
            }
            prepared => prepared,
        }
    }

    /// Prepares the reserve anew, if there is room for it and anything that it could help.
    fn keep_reserve(&mut self) {
        let size = self.shared.options.segment_size.min(RESERVE);
        let size = size.saturating_add(size / 4);
        let used = self.shared.bytes_in_use().saturating_add(size);
        let many = self.shared.segments().len() > 1;
        if self.reserve.is_some() || !many || used > self.shared.limit(Claim::Rewrite) {
            return;
        }
        let dir = self.shared.dir();
        let made = Prepared::make(self.disk.as_ref(), dir, size, &self.shared.closing);
        // Without room it is tried again in a second. Under the name of what is being prepared, the next
        // start removes it.
        if let Ok(mut reserve) = made
            && reserve.keep(dir).is_ok()
        {
            self.shared.set_reserve(size);
            self.reserve = Some(reserve);
        }
    }

    /// Ends the refusing when there is room, also when nobody appends because it was refused.
    fn find_room(&mut self) {
        if !self.shared.full() || self.shared.poisoned() {
            return;
        }
        let room = if self.shared.has_prepared() {
            // A write was refused although its segment was prepared.
            let (disk, dir) = (self.disk.as_ref(), self.shared.dir());
            let probe = Prepared::make(disk, dir, PROBE, &self.shared.closing);
            probe.and_then(|probe| fs::remove_file(&probe.path)).is_ok()
        } else {
            let size = self.shared.options.segment_size;
            self.spare = prepare(&self.shared, self.disk.as_ref(), Claim::New, size).ok();
            self.spare.is_some()
        };
        if room && self.shared.set_full(false) {
            info!(dir = %self.shared.dir().display(), "The journal has room again.");
        }
    }

    /// Persists the trim point and removes what it finishes, in this order.
    fn tidy(&mut self) {
        if self.shared.poisoned() {
            return;
        }
        let (durable, trim) = (self.shared.progress().durable, self.shared.trimmed());
        if trim > self.stored {
            match self.checkpoint.store(Checkpoint { trim, durable }) {
                Ok(()) => {
                    (self.stored, self.told) = (trim, false);
                    self.shared.set_stored_trim(trim);
                }
                Err(Failure::Full(reason)) if !self.told => {
                    self.told = true;
                    let dir = self.shared.dir().display();
                    warn!(%dir, %reason, "The trim point could not be persisted, so no segment is removed; it is tried again every second. Free space on this disk.");
                }
                Err(Failure::Full(_)) => {}
                Err(Failure::Broken(error)) => return self.shared.end(error),
            }
        }
        for segment in self.shared.take_finished(self.stored) {
            if let Err(error) = fs::remove_file(&segment.path) {
                warn!(
                    segment = %segment.path.display(), %error,
                    "Could not remove a finished segment; the next start tries again."
                );
            }
        }
    }
}
