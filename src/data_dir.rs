//! What lies where below `data_dir`: each path once, so that no two stages share a file by chance.
//!
//! A value without I/O. What a directory holds inside, only its owner knows; `state.rs` opens them.

use std::path::{Path, PathBuf};

/// The paths below a `data_dir`. `sync` and `restore` have one of their own below it, so that they and `run` do
/// not share state. Nothing is created or asked here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataDir<'a>(&'a Path);

impl<'a> DataDir<'a> {
    /// What is configured as `data_dir`, or a command's own one.
    pub(crate) fn at(dir: &'a Path) -> Self {
        Self(dir)
    }

    /// The journal: what was acknowledged and is not done yet.
    pub(crate) fn journal(self) -> PathBuf {
        self.0.join("journal")
    }

    /// Locked by the process that has the journal open.
    pub(crate) fn journal_lock(self) -> PathBuf {
        self.journal().join("lock")
    }

    /// The gap book.
    pub(crate) fn gaps(self) -> PathBuf {
        self.0.join("gaps")
    }

    /// The shelf of held deletes.
    pub(crate) fn held(self) -> PathBuf {
        self.0.join("held")
    }

    /// The shelves of delayed deletes, one per bucket.
    pub(crate) fn delayed(self) -> PathBuf {
        self.0.join("delayed")
    }

    /// The shelf of keys that fail, beyond those that memory has room for.
    pub(crate) fn deferred(self) -> PathBuf {
        self.0.join("deferred")
    }

    /// The brakes on deletes, and what they have counted.
    pub(crate) fn brakes(self) -> PathBuf {
        self.0.join("brakes")
    }

    /// The clock of what is held and delayed, carried on from process to process.
    pub(crate) fn clock(self) -> PathBuf {
        self.0.join("clock")
    }

    /// Which deletes a person discarded.
    pub(crate) fn discards(self) -> PathBuf {
        self.0.join("discards")
    }

    /// What the reconciler remembers: checkpoints, `ETag` pairs, objects that a person keeps.
    pub(crate) fn reconcile(self) -> PathBuf {
        self.0.join("reconcile")
    }

    /// Notes of the multipart uploads that have begun.
    pub(crate) fn uploads(self) -> PathBuf {
        self.0.join("uploads")
    }

    /// The `data_dir` of `sync`.
    pub(crate) fn sync(self) -> PathBuf {
        self.0.join("sync")
    }

    /// Locked by the `sync` that works in this directory.
    pub(crate) fn sync_lock(self) -> PathBuf {
        self.0.join("lock")
    }

    /// What a `sync` found at the target only, until its comparison is complete.
    pub(crate) fn extras(self) -> PathBuf {
        self.0.join("extras")
    }

    /// The `data_dir` of `restore`.
    pub(crate) fn restore(self) -> PathBuf {
        self.0.join("restore")
    }
}
