//! A small durable value: two slots, written in turn, so that the last good one survives a torn
//! write. The file has its full size from the start and needs no space on a full disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::disk::Disk;

/// Bytes before a slot's content: crc32c, length, sequence.
const HEADER: usize = 16;

/// The file of two slots.
#[derive(Debug)]
pub(crate) struct Slots {
    disk: Arc<dyn Disk>,
    file: File,
    size: usize,
    sequence: u64,
}

/// What the slots held at open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The newest readable value.
    pub(crate) value: Option<Vec<u8>>,
    /// Both slots are readable and follow each other, so that the value is the newest ever stored.
    pub(crate) newest: bool,
    /// There was no file.
    pub(crate) created: bool,
}

impl Slots {
    /// Opens or creates the file, with room for values of `size` bytes less a small header.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path, size: usize) -> io::Result<(Self, Held)> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let whole = size.saturating_mul(2) as u64;
        let length = file.metadata()?.len();
        if length < whole {
            let missing = usize::try_from(whole.saturating_sub(length)).unwrap_or(0);
            disk.write_at(&file, &vec![0; missing], length)?;
            disk.sync(&file)?;
            if let Some(directory) = path.parent() {
                disk.sync_directory(directory)?;
            }
        }
        let mut bytes = vec![0; size];
        let mut read = |slot: u64| {
            file.read_exact_at(&mut bytes, slot.saturating_mul(size as u64))?;
            Ok::<_, io::Error>(decode(&bytes))
        };
        let (even, odd) = (read(0)?, read(1)?);
        let newest = matches!((&even, &odd), (Some(a), Some(b)) if a.0.abs_diff(b.0) == 1);
        let (sequence, value) = match even.max(odd) {
            Some((sequence, value)) => (sequence, Some(value)),
            None => (0, None),
        };
        Ok((Self { disk, file, size, sequence }, Held { value, newest, created: length == 0 }))
    }

    /// The newest readable value of a file of such slots that another process may be writing; nothing is
    /// written. `None` if there is none.
    pub(crate) fn peek(path: &Path, size: usize) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(bytes.chunks(size).filter_map(decode).max().map(|(_, value)| value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a value of `length` bytes fits.
    pub(crate) fn fits(&self, length: usize) -> bool {
        length.saturating_add(HEADER) <= self.size
    }

    /// Replaces the value; on return it is durable. On an error the one before it stands. The value
    /// must fit.
    pub(crate) fn store(&mut self, value: &[u8]) -> io::Result<()> {
        let sequence = self.sequence.saturating_add(1);
        let slot = sequence % 2;
        let bytes = encode(sequence, value);
        self.disk.write_at(&self.file, &bytes, slot.saturating_mul(self.size as u64))?;
        self.disk.sync(&self.file)?;
        self.sequence = sequence;
        Ok(())
    }
}

fn encode(sequence: u64, value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut covered = Vec::with_capacity(HEADER.saturating_add(value.len()));
    covered.extend(length);
    covered.extend(sequence.to_le_bytes());
    covered.extend(value);
    let mut out = crc32c::crc32c(&covered).to_le_bytes().to_vec();
    out.append(&mut covered);
    out
}

fn decode(bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (crc, covered) = bytes.split_first_chunk()?;
    let (length, rest) = covered.split_first_chunk()?;
    let (sequence, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let value = rest.get(..length)?;
    let sequence = u64::from_le_bytes(*sequence);
    let good = sequence > 0
        && crc32c::crc32c(covered.get(..12_usize.checked_add(length)?)?)
            == u32::from_le_bytes(*crc);
    good.then(|| (sequence, value.to_vec()))
}
