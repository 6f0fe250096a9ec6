//! Upkeep: one thread that keeps the slow work away from the committer.
//!
//! It prepares the next segment, persists the trim point (about once a second, when it moved) and
//! removes finished segments, always after the trim point that finishes them is durable.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::checkpoint::{Checkpoint, CheckpointFile};
use super::disk::{Disk, Failure};
use super::segment::Prepared;
use super::shared::Shared;
use super::{FullReason, JournalError};

/// How often the trim point is persisted, if it moved.
const TICK: Duration = Duration::from_secs(1);

/// Make one segment.
#[derive(Debug)]
struct Order;

/// A prepared segment, or when and why there is none.
type Delivery = (Instant, Result<Prepared, Failure>);

/// Makes the next segment's file, if there is room.
pub(super) fn prepare(
    shared: &Shared,
    disk: &dyn Disk,
    sequence: u64,
    size: u64,
) -> Result<Prepared, Failure> {
    if shared.bytes_on_disk().saturating_add(size) > shared.options.max_size {
        return Err(Failure::Full(FullReason::MaxSize));
    }
    let prepared = Prepared::make(disk, shared.dir(), sequence, size, &shared.closing)
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
    pub(super) fn order(&self) {
        // It fails only when the thread is gone, which `wait` says.
        drop(self.orders.try_send(Order));
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
}

impl Upkeep {
    pub(super) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        checkpoint: CheckpointFile,
        lock: File,
    ) -> Self {
        let stored = shared.trimmed();
        Self { shared, disk, checkpoint, stored, lock }
    }

    /// Starts the thread; `sequence` is the number of the next segment.
    pub(super) fn start(self, sequence: u64) -> Result<UpkeepHandle, JournalError> {
        let (orders, ordered) = sync_channel(1);
        let (deliver, deliveries) = sync_channel(1);
        let dir = self.shared.dir().clone();
        let thread = thread::Builder::new().name("journal-upkeep".to_owned());
        thread
            .spawn(move || self.run(&ordered, &deliver, sequence))
            .map_err(JournalError::io("start a thread for", dir))?;
        Ok(UpkeepHandle { orders, deliveries })
    }

    fn run(mut self, ordered: &Receiver<Order>, deliver: &SyncSender<Delivery>, mut sequence: u64) {
        loop {
            match ordered.recv_timeout(TICK) {
                Ok(Order) => {
                    // First: it may make the room that the segment needs.
                    self.tidy();
                    let size = self.shared.options.segment_size;
                    let prepared = prepare(&self.shared, self.disk.as_ref(), sequence, size);
                    sequence = sequence.saturating_add(1);
                    // One segment is on order at a time, so there is room for it.
                    drop(deliver.try_send((Instant::now(), prepared)));
                }
                Err(RecvTimeoutError::Timeout) => self.tidy(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.tidy();
        drop(self.lock);
        self.shared.set_stopped();
    }

    /// Persists the trim point and removes what it finishes, in this order.
    fn tidy(&mut self) {
        if self.shared.poisoned() {
            return;
        }
        let (durable, trim) = (self.shared.progress().durable, self.shared.trimmed());
        if trim > self.stored {
            match self.checkpoint.store(Checkpoint { trim, durable }) {
                Ok(()) => self.stored = trim,
                Err(Failure::Full(reason)) => {
                    warn!(%reason, "Could not persist the trim point; it is tried again.");
                }
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
