//! The seam between the journal and the file system: everything that must survive goes through here,
//! so that the tests can refuse it, tear it and take it back.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{FullReason, JournalError};

/// Writes and syncs.
pub(crate) trait Disk: std::fmt::Debug + Send + Sync {
    /// Reserves the file's first `size` bytes, so that a full disk shows before anything is written.
    fn reserve(&self, file: &File, size: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when the file's data is on the medium.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Returns when the names in `directory` are on the medium.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// The operating system's file system.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn reserve(&self, file: &File, size: u64) -> io::Result<()> {
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            // Not every file system can; writing the zeros then finds out.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// Why something could not be written.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// For want of room, which passes.
    Full(FullReason),
    /// For good: the disk's state is unknown.
    Broken(JournalError),
}

impl Failure {
    /// What the operating system's refusal means.
    pub(super) fn new(error: io::Error, action: &'static str, path: &Path) -> Self {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::Full(FullReason::DiskFull)
        } else {
            Self::Broken(JournalError::io(action, path)(error))
        }
    }
}
