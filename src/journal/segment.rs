//! Segment files: their names, how one is prepared, how one is read.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::disk::Disk;
use super::entry::{Body, Epoch, HEADER, Header, SECTOR};
use super::{JournalError, Lsn};

/// Read and written at once.
const CHUNK: usize = 256 << 10;
/// Zeros written before they are synced: small enough that a commit beside it hardly waits.
const ZERO_CHUNK: usize = 1 << 20;
const ZEROS: [u8; SECTOR] = [0; SECTOR];

/// A segment file that holds, or will hold, records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its place among the others.
    pub(super) sequence: u64,
    /// In all of its frames.
    pub(super) epoch: Epoch,
    /// Where it is.
    pub(super) path: PathBuf,
    /// The first record it may hold.
    pub(super) first_lsn: Lsn,
    /// Bytes that hold durable frames.
    pub(super) end: u64,
    /// Bytes of the file.
    pub(super) size: u64,
    /// It is not written to any more.
    pub(super) sealed: bool,
}

/// A file of the journal's directory, by its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) sequence: u64,
    pub(super) epoch: Epoch,
    pub(super) role: Role,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Holds records.
    Live,
    /// Being zero-filled; holds nothing.
    Preparing,
    /// Zero-filled, kept for a full disk; holds nothing.
    Reserve,
    /// A second name of a damaged segment.
    Quarantined,
}

impl Role {
    const ALL: [Self; 4] = [Self::Live, Self::Preparing, Self::Reserve, Self::Quarantined];

    fn suffix(self) -> &'static str {
        match self {
            Self::Live => "segment",
            Self::Preparing => "preparing",
            Self::Reserve => "reserve",
            Self::Quarantined => "damaged",
        }
    }
}

impl Name {
    /// The file's name.
    pub(super) fn file_name(&self) -> String {
        format!("{:012}-{:016x}.{}", self.sequence, self.epoch, self.role.suffix())
    }

    fn parse(name: &str) -> Option<Self> {
        let (stem, suffix) = name.split_once('.')?;
        let (sequence, epoch) = stem.split_once('-')?;
        let role = Role::ALL.into_iter().find(|role| role.suffix() == suffix)?;
        let epoch = Epoch::from_str_radix(epoch, 16).ok()?;
        Some(Self { sequence: sequence.parse().ok()?, epoch, role })
    }
}

/// The journal's files in `dir`, by sequence; other files are left alone.
pub(super) fn list(dir: &Path) -> Result<Vec<(Name, PathBuf)>, JournalError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(JournalError::io("list", dir))? {
        let path = entry.map_err(JournalError::io("list", dir))?.path();
        if let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(Name::parse) {
            found.push((name, path));
        }
    }
    found.sort_by_key(|(name, _)| name.sequence);
    Ok(found)
}

/// A zero-filled file, not yet a segment.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) file: File,
    pub(super) epoch: Epoch,
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

impl Prepared {
    /// Makes a zero-filled file of `size` bytes in `dir`: a write into space that was written before
    /// syncs several times faster than one that makes the file system allocate. Whatever fails, no
    /// file is left behind. Stops early, with an error, when `stop` is set.
    pub(super) fn make(
        disk: &dyn Disk,
        dir: &Path,
        size: u64,
        stop: &AtomicBool,
    ) -> io::Result<Self> {
        let epoch = rand::random_range(1..=Epoch::MAX);
        let path = dir.join(unused(epoch, Role::Preparing));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        match zero_fill(disk, &file, size, stop) {
            Ok(()) => Ok(Self { file, epoch, path, size }),
            Err(error) => {
                fs::remove_file(&path)?;
                Err(error)
            }
        }
    }

    /// Gives the file the name under which the next start finds it.
    pub(super) fn keep(&mut self, dir: &Path) -> io::Result<()> {
        let kept = dir.join(unused(self.epoch, Role::Reserve));
        fs::rename(&self.path, &kept)?;
        self.path = kept;
        Ok(())
    }

    /// A file that an earlier process kept, and never wrote anything else to.
    pub(super) fn kept(name: &Name, path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file, epoch: name.epoch, path: path.to_owned(), size })
    }

    /// Gives the file its live name, durably: its place among the others.
    pub(super) fn activate(
        self,
        disk: &dyn Disk,
        dir: &Path,
        sequence: u64,
        first_lsn: Lsn,
    ) -> io::Result<(File, Segment)> {
        let Self { file, epoch, path, size } = self;
        let live = dir.join(Name { sequence, epoch, role: Role::Live }.file_name());
        fs::rename(&path, &live)?;
        disk.sync_directory(dir)?;
        let segment =
            Segment { sequence, epoch, path: live, first_lsn, end: 0, size, sealed: false };
        Ok((file, segment))
    }
}

/// The name of a file that has no place among the segments yet.
fn unused(epoch: Epoch, role: Role) -> String {
    Name { sequence: 0, epoch, role }.file_name()
}

fn zero_fill(disk: &dyn Disk, file: &File, size: u64, stop: &AtomicBool) -> io::Result<()> {
    disk.reserve(file, size)?;
    let zeros = vec![0; ZERO_CHUNK];
    let mut at = 0;
    while at < size {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the journal is closing"));
        }
        let length = usize::try_from(size.saturating_sub(at)).unwrap_or(ZERO_CHUNK).min(ZERO_CHUNK);
        disk.write_at(file, zeros.get(..length).unwrap_or(&zeros), at)?;
        disk.sync(file)?;
        at = at.saturating_add(length as u64);
    }
    Ok(())
}

/// A valid frame and where it is.
#[derive(Debug)]
pub(super) struct Frame {
    /// The offset behind it.
    pub(super) end: u64,
    pub(super) lsn: Lsn,
    pub(super) body: Body,
}

/// Reads a segment's frames in order through a small window; what is not a valid frame is skipped,
/// byte by byte, up to the next valid one.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    epoch: Epoch,
    at: u64,
    /// Where reading ends; may be raised as the segment grows.
    pub(super) end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Reader {
    /// Reads from the segment's start up to `end`.
    pub(super) fn open(path: &Path, epoch: Epoch, end: u64) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, epoch, at: 0, end, window: Vec::new(), window_at: 0 })
    }

    /// The next valid frame; `None` at the end.
    pub(super) fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let mut frame = self.frame_at(self.at)?;
        while frame.is_none() {
            let Some(candidate) = self.next_candidate(self.at.saturating_add(1))? else {
                self.at = self.end;
                return Ok(None);
            };
            self.at = candidate;
            frame = self.frame_at(candidate)?;
        }
        if let Some(frame) = &frame {
            self.at = frame.end;
        }
        Ok(frame)
    }

    fn frame_at(&mut self, at: u64) -> io::Result<Option<Frame>> {
        let epoch = self.epoch;
        let Some(header) = self.bytes(at, HEADER)?.and_then(|b| Header::parse(b, epoch)) else {
            return Ok(None);
        };
        let size = header.frame_size();
        let body = self.bytes(at, size)?.and_then(|bytes| header.check(bytes));
        let end = at.saturating_add(size as u64);
        Ok(body.map(|body| Frame { end, lsn: header.lsn, body }))
    }

    /// The next offset from `at` on at which this segment's epoch stands where a frame has it.
    fn next_candidate(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        let epoch = self.epoch;
        while at.saturating_add(HEADER as u64) <= self.end {
            let length = self.end.saturating_sub(at).min(CHUNK as u64);
            let Some(bytes) = self.bytes(at, usize::try_from(length).unwrap_or(CHUNK))? else {
                return Ok(None);
            };
            let mut skip = 0_usize;
            while let Some(rest) = bytes.get(skip..).filter(|rest| rest.len() >= HEADER) {
                if rest.starts_with(&ZEROS) {
                    // No frame starts here whose epoch, never 0, would lie within these zeros.
                    skip = skip.saturating_add(SECTOR - HEADER);
                } else if Header::parse(rest, epoch).is_some() {
                    return Ok(Some(at.saturating_add(skip as u64)));
                } else {
                    skip = skip.saturating_add(1);
                }
            }
            at = at.saturating_add(skip.max(1) as u64);
        }
        Ok(None)
    }

    /// `length` bytes at `at`, from the window if it has them; `None` beyond the end.
    fn bytes(&mut self, at: u64, length: usize) -> io::Result<Option<&[u8]>> {
        if at.saturating_add(length as u64) > self.end {
            return Ok(None);
        }
        let covered = at.checked_sub(self.window_at).and_then(|o| usize::try_from(o).ok());
        let covered = covered.filter(|o| o.saturating_add(length) <= self.window.len());
        let offset = if let Some(offset) = covered {
            offset
        } else {
            let most = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
            self.window.resize(length.max(CHUNK).min(most), 0);
            self.file.read_exact_at(&mut self.window, at)?;
            self.window_at = at;
            0
        };
        Ok(self.window.get(offset..offset.saturating_add(length)))
    }
}

/// The offset behind the last byte of `file` that is not zero, in `from..size`; `from` if all are.
pub(super) fn used_until(file: &File, from: u64, size: u64) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let (mut at, mut used) = (from, from);
    while at < size {
        let length = usize::try_from(size.saturating_sub(at)).unwrap_or(CHUNK).min(CHUNK);
        chunk.truncate(length);
        file.read_exact_at(&mut chunk, at)?;
        for (index, sector) in chunk.chunks(SECTOR).enumerate() {
            if !ZEROS.starts_with(sector) {
                let end = index.saturating_mul(SECTOR).saturating_add(sector.len());
                used = at.saturating_add(end as u64);
            }
        }
        at = at.saturating_add(length as u64);
    }
    Ok(used)
}
