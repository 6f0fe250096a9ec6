//! What survives beside the segments: the trim point, and how far the journal was durable.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, Failure};
use super::slots::Slots;
use super::{JournalError, Lsn};

/// A slot is a page, so that a torn page leaves the other one whole.
const SLOT: usize = 4096;

/// The value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The lowest unfinished record.
    pub(super) trim: Lsn,
    /// A record that was durable when this was stored; later ones may be too.
    pub(super) durable: Lsn,
}

/// The file that keeps it.
#[derive(Debug)]
pub(super) struct CheckpointFile {
    slots: Slots,
    path: PathBuf,
}

/// What the file held at open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    /// The newest readable value.
    pub(super) checkpoint: Option<Checkpoint>,
    /// It is certainly the newest ever stored: segments below it may be gone, others may not.
    pub(super) newest: bool,
}

impl CheckpointFile {
    /// Opens or creates the file in `dir`.
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Self, Stored), JournalError> {
        let path = dir.join("checkpoint");
        let (slots, held) =
            Slots::open(disk, &path, SLOT).map_err(JournalError::io("open", &path))?;
        let checkpoint = held.value.as_deref().and_then(decode);
        Ok((Self { slots, path }, Stored { checkpoint, newest: held.newest }))
    }

    /// The value in `dir`, whose file another process may be writing; nothing is written.
    pub(super) fn peek(dir: &Path) -> io::Result<Option<Checkpoint>> {
        let value = Slots::peek(&dir.join("checkpoint"), SLOT)?;
        Ok(value.as_deref().and_then(decode))
    }

    /// Makes `checkpoint` durable; after an error the one before it stands.
    pub(super) fn store(&mut self, checkpoint: Checkpoint) -> Result<(), Failure> {
        let mut value = checkpoint.trim.to_le_bytes().to_vec();
        value.extend(checkpoint.durable.to_le_bytes());
        self.slots.store(&value).map_err(|error| Failure::new(error, "write", &self.path))
    }
}

fn decode(value: &[u8]) -> Option<Checkpoint> {
    let (trim, rest) = value.split_first_chunk()?;
    let durable = u64::from_le_bytes(rest.try_into().ok()?);
    Some(Checkpoint { trim: u64::from_le_bytes(*trim), durable })
}
