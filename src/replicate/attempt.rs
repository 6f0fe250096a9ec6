//! Why one try of one key failed: a store, our own disk, or the end of this process.
//!
//! Plain values. Only a store's error says anything of a store's health, and it names its side.

use std::fmt;

use crate::object::ObjectKey;
use crate::store::StoreError;

/// A try that failed; the key is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    /// A call to a store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file below `data_dir` could not be written or read. No store is to blame.
    #[error(
        "failed to {operation} {key} in data_dir, so its delete is not carried out and is tried again: {error}"
    )]
    Disk {
        /// What was to be done (`hold`, `delay`, `keep`).
        operation: &'static str,
        /// Of which key.
        key: ObjectKey,
        /// What the disk said.
        error: String,
    },
    /// The process is about to end, so a delete was not sent.
    #[error("evermirror is stopping; the delete is carried out after the restart")]
    Stopping,
}

impl AttemptError {
    /// Our own disk failed.
    pub(super) fn disk(key: &ObjectKey, operation: &'static str, error: impl fmt::Display) -> Self {
        Self::Disk { operation, key: key.clone(), error: error.to_string() }
    }

    /// The error's class, as in metrics and logs.
    pub(super) const fn class(&self) -> &'static str {
        match self {
            Self::Store(error) => error.kind.name(),
            Self::Disk { .. } => "disk",
            Self::Stopping => "stopping",
        }
    }
}
