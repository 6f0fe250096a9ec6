//! A disk for tests: it forgets what was not synced, fills up, and breaks, on demand.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use super::disk::Disk;
use super::entry::SECTOR;
use super::{Cursor, Journal, JournalOptions, Recovery};
use crate::config::settings::Durability;

/// A directory in memory where there is one: the tests sync in [`TestDisk`], not on the medium.
pub(super) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(super) fn options(dir: &Path, segment_size: u64) -> JournalOptions {
    let durability = Durability::Fsync;
    JournalOptions { dir: dir.to_owned(), segment_size, max_size: 1 << 30, durability }
}

pub(super) fn open(disk: &Arc<TestDisk>, options: JournalOptions) -> (Journal, Cursor, Recovery) {
    Journal::open_on(Arc::clone(disk) as Arc<dyn Disk>, options).unwrap()
}

/// The journal's files that end in `suffix`.
pub(super) fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    files.sort();
    files
}

/// What the disk has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Room {
    #[default]
    Enough,
    /// Only for writes into space that a file has.
    InPlace,
    /// For nothing: such a file system writes every change to a new place.
    None,
}

/// Real files, an imagined medium.
#[derive(Debug, Default)]
pub(crate) struct TestDisk {
    state: Mutex<State>,
    slow_sync: Mutex<bool>,
    sync_goes_on: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What each sector held when it was last synced.
    unsynced: Vec<Unsynced>,
    /// The same of sectors that a failed sync has dropped: no later one brings them to the medium, unless they are
    /// written again.
    dropped: Vec<Unsynced>,
    room: Room,
    broken_sync: bool,
    /// The next sync fails, and the ones after it do not.
    break_next: bool,
    /// Operations until the power fails.
    power: Option<usize>,
}

#[derive(Debug)]
struct Unsynced {
    inode: u64,
    file: File,
    offset: u64,
    before: Vec<u8>,
}

impl TestDisk {
    pub(super) fn fill(&self, room: Room) {
        self.state.lock().unwrap().room = room;
    }

    pub(super) fn break_sync(&self) {
        self.state.lock().unwrap().broken_sync = true;
    }

    /// The next sync fails and drops what it should have written, as Linux does; the one after it says nothing of that.
    pub(crate) fn break_next_sync(&self) {
        self.state.lock().unwrap().break_next = true;
    }

    /// From now on every sync waits until this is taken back.
    pub(super) fn hold_sync(&self, hold: bool) {
        *self.slow_sync.lock().unwrap() = hold;
        self.sync_goes_on.notify_all();
    }

    /// Nothing reaches the disk after this many more writes and syncs.
    pub(crate) fn cut_power_after(&self, operations: usize) {
        self.state.lock().unwrap().power = Some(operations);
    }

    /// The power is back: of the sectors that were not synced, those for which `lost` says so hold
    /// what they held before.
    pub(crate) fn crash(&self, mut lost: impl FnMut() -> bool) {
        let mut state = self.state.lock().unwrap();
        let dropped = std::mem::take(&mut state.dropped);
        for sector in state.unsynced.drain(..).chain(dropped).filter(|_| lost()) {
            sector.file.write_all_at(&sector.before, sector.offset).unwrap();
        }
        state.power = None;
    }
}

impl State {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.power {
            Some(0) => Err(io::Error::other("the power failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn remember(&mut self, file: &File, offset: u64, length: usize) -> io::Result<()> {
        let inode = file.metadata()?.ino();
        let sector = SECTOR as u64;
        for offset in
            (offset / sector..(offset + length as u64).div_ceil(sector)).map(|s| s * sector)
        {
            let here = |u: &Unsynced| u.inode == inode && u.offset == offset;
            if let Some(dropped) = self.dropped.iter().position(here) {
                let again = self.dropped.swap_remove(dropped);
                self.unsynced.push(again);
            } else if !self.unsynced.iter().any(here) {
                let mut before = vec![0; SECTOR];
                let read = file.read_at(&mut before, offset)?;
                assert!(read == SECTOR || before[read..].iter().all(|b| *b == 0));
                self.unsynced.push(Unsynced { inode, file: file.try_clone()?, offset, before });
            }
        }
        Ok(())
    }
}

impl Disk for TestDisk {
    fn reserve(&self, _file: &File, _size: u64) -> io::Result<()> {
        let room = self.state.lock().unwrap().room;
        if room == Room::Enough { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.spend()?;
        if state.room == Room::None {
            // As a real disk may: part of it arrives.
            file.write_all_at(&bytes[..bytes.len() * 2 / 3], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if bytes.iter().all(|b| *b == 0) {
            // Preparation: a file that did not exist before has nothing to fall back to.
            return file.write_all_at(bytes, offset);
        }
        state.remember(file, offset, bytes.len())?;
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let slow = self.slow_sync.lock().unwrap();
        drop(self.sync_goes_on.wait_while(slow, |slow| *slow).unwrap());
        let mut state = self.state.lock().unwrap();
        state.spend()?;
        if state.broken_sync {
            return Err(io::Error::other("the medium failed"));
        }
        let inode = file.metadata()?.ino();
        let synced: Vec<_> =
            state.unsynced.extract_if(.., |sector| sector.inode == inode).collect();
        if std::mem::take(&mut state.break_next) {
            state.dropped.extend(synced);
            return Err(io::Error::other("the medium failed once"));
        }
        Ok(())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        self.state.lock().unwrap().spend()
    }
}
