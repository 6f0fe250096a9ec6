//! What passes remember of single objects: which `ETag`s belong together, and what a person keeps.
//!
//! Fingerprints of eight bytes in two sparse files of fixed size, read in place, so that they cost no
//! memory. **Pairs** are a cache: an entry that is lost, or that another displaces, costs a HEAD. That file
//! may be deleted.
//! **Kept** objects are those at the target whose deletes a person discarded. No entry is displaced: where a
//! set is full the next one is used, and where so many follow that are full, [`Remembered::keep`] fails
//! and the delete stays held. So a key is kept exactly if it was put there (two keys share a fingerprint
//! and a set once in about 2^64). **Promise.** What was kept is there after a power cut once
//! [`Remembered::make_durable`] has answered `Ok`. **On error** a pair is unknown, and a key is kept. Other
//! processes may read what is kept (`Kept`); an entry is written at once, so that they find it or do not.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::journal::disk::{Disk, RealDisk};
use crate::object::ETag;

const PAIRS: &str = "pairs";
const KEPT: &str = "kept";

const SLOT: usize = 8;
const SLOTS: usize = 4;
const SET: usize = SLOT * SLOTS;
/// 4 million entries, 32 MiB if they are all there.
const SETS: u64 = 1 << 20;
/// A kept key is in its own set or in one of the next of these; so 3 million fit.
const NEAR: u64 = 64;
/// An entry that was removed from a full set: whoever looks for another goes on to the next set.
const REMOVED: [u8; SLOT] = [0xff; SLOT];
const EMPTY: [u8; SLOT] = [0; SLOT];

/// Both memories.
#[derive(Debug)]
pub struct Remembered {
    pairs: Table,
    kept: Table,
    heeded: Kept,
    /// Grows with each key that is kept.
    kept_so_far: AtomicU64,
    /// Grows with each key that is kept, or is no more.
    changes: AtomicU64,
    /// How many of those are durable.
    durable: Mutex<u64>,
}

impl Remembered {
    /// Opens or creates the files in `dir`. Blocking.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Self::open_on(&(Arc::new(RealDisk) as Arc<dyn Disk>), dir)
    }

    /// The same on this disk.
    pub(crate) fn open_on(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (pairs, kept) =
            (Table::open(disk, &dir.join(PAIRS))?, Table::open(disk, &dir.join(KEPT))?);
        // A file whose name a power cut takes keeps nothing.
        for directory in dir.ancestors().take(2).filter(|dir| !dir.as_os_str().is_empty()) {
            disk.sync_directory(directory)?;
        }
        Ok(Self {
            pairs,
            kept,
            heeded: Kept::default(),
            kept_so_far: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            durable: Mutex::new(0),
        })
    }

    /// Keeps what a person wanted to stay in another process, too.
    pub(crate) fn heeding(self, heeded: Kept) -> Self {
        Self { heeded, ..self }
    }

    /// The target's object of this tag was seen to be a copy of the source's of that tag.
    pub fn pair(&self, bucket: &str, key: &str, source: &ETag, target: &ETag) {
        if source == target {
            return;
        }
        let print = Print::of(&[bucket, key, source.as_str(), target.as_str()]);
        if let Err(error) = self.pairs.remember(print) {
            tracing::debug!(%error, "A pair of ETags is not remembered; it will be checked again.");
        }
    }

    /// Whether that was seen.
    pub fn is_pair(&self, bucket: &str, key: &str, source: &ETag, target: &ETag) -> bool {
        let print = Print::of(&[bucket, key, source.as_str(), target.as_str()]);
        self.pairs.set(print.offset).is_ok_and(|set| set.contains(&print.bytes))
    }

    /// A person wants the object to stay at the target although the source has it no more. Not durable
    /// before [`Remembered::make_durable`].
    pub fn keep(&self, bucket: &str, key: &str) -> io::Result<()> {
        if self.kept.keep(Print::of(&[bucket, key]))? {
            self.kept_so_far.fetch_add(1, Ordering::AcqRel);
        }
        // Also if it was kept: an earlier process may have ended before that was durable.
        self.changes.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Makes durable what is kept. Blocking: one sync, which those share who ask at the same time.
    pub fn make_durable(&self) -> io::Result<()> {
        let wanted = self.changes.load(Ordering::Acquire);
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if *durable >= wanted {
            return Ok(());
        }
        let so_far = self.changes.load(Ordering::Acquire);
        self.kept.make_durable()?;
        *durable = so_far;
        Ok(())
    }

    /// Another number whenever a key was kept: a listing from before then does not know of it.
    pub fn kept_so_far(&self) -> u64 {
        self.kept_so_far.load(Ordering::Acquire)
    }

    /// Whether a person wants that.
    pub fn is_kept(&self, bucket: &str, key: &str) -> bool {
        let kept = |table: &Table| table.keeps(bucket, key).unwrap_or(true);
        kept(&self.kept) || self.heeded.has(bucket, key).unwrap_or(true)
    }

    /// The object is one like any other: the source has it again, or a person approved its delete. Durable with the
    /// next [`Remembered::make_durable`]. On error it is kept.
    pub fn replaced(&self, bucket: &str, key: &str) -> io::Result<()> {
        // Every copy passes here, and hardly anyone ever keeps an object.
        if self.kept.holds_something() && self.kept.release(Print::of(&[bucket, key]))? {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }
}

/// The kept objects of a process that may be at work: only read. A copy reads the same file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept(Option<Arc<Table>>);

impl Kept {
    /// Those of the process whose files are in `dir`; none if there are no such files.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        match File::open(dir.join(KEPT)) {
            Ok(file) => Ok(Self(Some(Arc::new(Table::of(Arc::new(RealDisk), file)?)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }

    /// Whether a person wants the object to stay at the target.
    pub(crate) fn has(&self, bucket: &str, key: &str) -> io::Result<bool> {
        self.0.as_ref().map_or(Ok(false), |table| table.keeps(bucket, key))
    }
}

/// Where a fingerprint belongs, and what it is; neither [`EMPTY`] nor [`REMOVED`].
#[derive(Clone, Copy)]
struct Print {
    offset: u64,
    bytes: [u8; SLOT],
}

impl Print {
    fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let hash: [u8; 32] = hash.finalize().into();
        let (place, rest) = hash.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let bytes = rest.first_chunk().copied().filter(|bytes| ![EMPTY, REMOVED].contains(bytes));
        let offset = (u64::from_le_bytes(*place) % SETS) * SET as u64;
        Self { offset, bytes: bytes.unwrap_or([1; SLOT]) }
    }
}

/// Where a kept key is, or could be put.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The slot that holds it.
    Here(u64),
    /// It is nowhere, and this slot is free.
    Absent(u64),
    /// It is nowhere, and no slot near its own set is free.
    NoRoom,
}

#[derive(Debug)]
struct Table {
    disk: Arc<dyn Disk>,
    file: File,
    /// Whether anything was ever written to it, as far as its blocks tell.
    written: AtomicBool,
    /// Held by who writes.
    writing: Mutex<()>,
    /// A sync failed, of this process or perhaps of an earlier one: the system may have dropped what it could not write,
    /// and say nothing of it the next time (fsync(2); "fsyncgate"). All is written anew before the next one.
    unsure: AtomicBool,
}

impl Table {
    fn open(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(SETS * SET as u64)?;
        Self::of(Arc::clone(disk), file)
    }

    fn of(disk: Arc<dyn Disk>, file: File) -> io::Result<Self> {
        let written = file.metadata()?.blocks() > 0;
        let (written, unsure) = (AtomicBool::new(written), AtomicBool::new(written));
        Ok(Self { disk, file, written, writing: Mutex::default(), unsure })
    }

    /// Whether the key was put into this table.
    fn keeps(&self, bucket: &str, key: &str) -> io::Result<bool> {
        Ok(matches!(self.find(Print::of(&[bucket, key]))?, Found::Here(_)))
    }

    /// False only spares a look for an entry to be removed: a file system that tells of its blocks late
    /// may make it false for too long, so no entry counts as absent because of it.
    fn holds_something(&self) -> bool {
        self.written.load(Ordering::Relaxed)
    }

    fn set(&self, offset: u64) -> io::Result<[[u8; SLOT]; SLOTS]> {
        let mut slots = [EMPTY; SLOTS];
        self.file.read_exact_at(slots.as_flattened_mut(), offset)?;
        Ok(slots)
    }

    /// Looks in its own set and, as long as those are full, in the next ones.
    fn find(&self, print: Print) -> io::Result<Found> {
        let mut free = None;
        for step in 0..NEAR {
            let offset = (print.offset + step * SET as u64) % (SETS * SET as u64);
            let set = self.set(offset)?;
            let at = |slot: usize| offset + (slot * SLOT) as u64;
            if let Some(slot) = set.iter().position(|slot| *slot == print.bytes) {
                return Ok(Found::Here(at(slot)));
            }
            let here = set.iter().position(|slot| [EMPTY, REMOVED].contains(slot)).map(at);
            free = free.or(here);
            if set.contains(&EMPTY) {
                break;
            }
        }
        Ok(free.map_or(Found::NoRoom, Found::Absent))
    }

    /// Adds a key that must not be lost; says whether it is new.
    fn keep(&self, print: Print) -> io::Result<bool> {
        let _writing = self.writing();
        match self.find(print)? {
            Found::Here(_) => Ok(false),
            Found::Absent(slot) => self.write(slot, print.bytes).map(|()| true),
            Found::NoRoom => Err(io::Error::other(
                "there is no room for more kept objects (about 3 million); approve or restore some",
            )),
        }
    }

    /// Takes a kept key out; says whether it was there.
    fn release(&self, print: Print) -> io::Result<bool> {
        let _writing = self.writing();
        let Found::Here(slot) = self.find(print)? else { return Ok(false) };
        let full = !self.set(slot - slot % SET as u64)?.contains(&EMPTY);
        self.write(slot, if full { REMOVED } else { EMPTY })?;
        Ok(true)
    }

    /// Adds a pair; in a full set it takes another's place.
    fn remember(&self, print: Print) -> io::Result<()> {
        let _writing = self.writing();
        let set = self.set(print.offset)?;
        if set.contains(&print.bytes) {
            return Ok(());
        }
        let chance = usize::from(print.bytes[0]) % SLOTS;
        let slot = set.iter().position(|slot| *slot == EMPTY).unwrap_or(chance);
        self.write(print.offset + (slot * SLOT) as u64, print.bytes)
    }

    /// Makes durable what was written.
    fn make_durable(&self) -> io::Result<()> {
        if self.unsure.load(Ordering::Acquire) {
            self.write_anew()?;
        }
        let synced = self.disk.sync(&self.file);
        self.unsure.store(synced.is_err(), Ordering::Release);
        synced
    }

    fn write_anew(&self) -> io::Result<()> {
        const CHUNK: usize = 64 << 10;
        let _writing = self.writing();
        let (mut chunk, mut from) = (vec![0; CHUNK], 0);
        // Where nothing was ever written there is a hole in the file.
        while let Some(data) = self.data_from(from)? {
            let offset = data - data % CHUNK as u64;
            self.file.read_exact_at(&mut chunk, offset)?;
            self.disk.write_at(&self.file, &chunk, offset)?;
            from = offset + CHUNK as u64;
        }
        Ok(())
    }

    /// Where the first data is that is not before `offset`; `None` if there is none. Entries are read and written by
    /// their place, so that the file's own position is nobody's.
    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&self, slot: u64, bytes: [u8; SLOT]) -> io::Result<()> {
        self.written.store(true, Ordering::Relaxed);
        self.disk.write_at(&self.file, &bytes, slot)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::testing::TestDisk;

    #[test]
    fn a_pair_is_known_after_a_restart_for_this_object_and_these_tags_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (ETag::new("one"), ETag::new("two"));
        Remembered::open(dir.path()).unwrap().pair("b", "k", &one, &two);
        let remembered = Remembered::open(dir.path()).unwrap();
        assert!(remembered.is_pair("b", "k", &one, &two));
        assert!(!remembered.is_pair("b", "k", &two, &one));
        assert!(!remembered.is_pair("b", "k2", &one, &two));
        assert!(!remembered.is_pair("bk", "", &one, &two), "names are not run together");
    }

    #[test]
    fn what_a_person_keeps_is_kept_until_the_source_has_it_again() {
        let dir = tempfile::tempdir().unwrap();
        Remembered::open(dir.path()).unwrap().keep("b", "k").unwrap();
        let remembered = Remembered::open(dir.path()).unwrap();
        assert!(remembered.is_kept("b", "k") && !remembered.is_kept("b", "other"));
        remembered.replaced("b", "k").unwrap();
        remembered.replaced("b", "never kept").unwrap();
        assert!(!remembered.is_kept("b", "k"));
    }

    #[test]
    fn what_was_kept_survives_a_power_cut_once_it_was_made_durable() {
        for operations in 0.. {
            let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(TestDisk::default()));
            let on = Arc::clone(&disk) as Arc<dyn Disk>;
            let remembered = Remembered::open_on(&on, dir.path()).unwrap();
            disk.cut_power_after(operations);
            let keys = ["a", "b", "c"];
            let kept: io::Result<()> = keys.iter().try_for_each(|key| remembered.keep("b", key));
            let durable = kept.and_then(|()| remembered.make_durable()).is_ok();
            disk.crash(|| true);
            let remembered = Remembered::open_on(&on, dir.path()).unwrap();
            let kept = keys.iter().filter(|key| remembered.is_kept("b", key)).count();
            assert_eq!(kept, if durable { 3 } else { 0 }, "after {operations} operations");
            if durable {
                return;
            }
        }
    }

    #[test]
    fn a_sync_that_failed_once_is_not_believed_when_it_succeeds_later() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(TestDisk::default()));
        let on = Arc::clone(&disk) as Arc<dyn Disk>;
        let remembered = Remembered::open_on(&on, dir.path()).unwrap();
        remembered.keep("b", "k").unwrap();
        disk.break_next_sync();
        remembered.make_durable().unwrap_err();
        remembered.make_durable().unwrap();
        disk.crash(|| true);
        let remembered = Remembered::open_on(&on, dir.path()).unwrap();
        assert!(remembered.is_kept("b", "k"));

        remembered.replaced("b", "k").unwrap();
        disk.break_next_sync();
        remembered.make_durable().unwrap_err();
        remembered.make_durable().unwrap();
        disk.crash(|| true);
        let remembered = Remembered::open_on(&on, dir.path()).unwrap();
        assert!(!remembered.is_kept("b", "k"), "nothing is left in that part of the file");

        remembered.keep("b", "k").unwrap();
        disk.break_next_sync();
        remembered.make_durable().unwrap_err();
        drop(remembered);
        let remembered = Remembered::open_on(&on, dir.path()).unwrap();
        remembered.keep("b", "k").unwrap();
        remembered.make_durable().unwrap();
        disk.crash(|| true);
        let remembered = Remembered::open_on(&on, dir.path()).unwrap();
        assert!(remembered.is_kept("b", "k"), "the sync of an earlier process had failed");
    }

    #[test]
    fn another_process_reads_what_is_kept_as_it_is_now_and_keeps_it_too() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, its) = (dir.path().join("ours"), dir.path().join("its"));
        assert!(!Kept::read(&its).unwrap().has("b", "k").unwrap() && !its.exists());
        let remembered = Remembered::open(&its).unwrap();
        let kept = Kept::read(&its).unwrap();
        let heeding = Remembered::open(&ours).unwrap().heeding(kept.clone());
        assert!(!kept.has("b", "k").unwrap() && !heeding.is_kept("b", "k"));
        remembered.keep("b", "k").unwrap();
        assert!(kept.has("b", "k").unwrap() && heeding.is_kept("b", "k"));
        heeding.replaced("b", "k").unwrap();
        assert!(remembered.is_kept("b", "k"), "it is not ours to forget");
        remembered.replaced("b", "k").unwrap();
        assert!(!kept.has("b", "k").unwrap() && !heeding.is_kept("b", "k"));
    }

    fn print(number: u64) -> Print {
        Print { offset: 64, bytes: number.to_le_bytes() }
    }

    #[test]
    fn an_object_that_nobody_kept_never_counts_as_kept_however_many_are() {
        let dir = tempfile::tempdir().unwrap();
        let remembered = Remembered::open(dir.path()).unwrap();
        // All belong into one set.
        for number in 1..=NEAR * SLOTS as u64 {
            remembered.kept.keep(print(number)).unwrap();
        }
        let here = |number| matches!(remembered.kept.find(print(number)).unwrap(), Found::Here(_));
        assert!((1..=NEAR * SLOTS as u64).all(here) && !here(0xabcd));
        let refused = remembered.kept.keep(print(0xabcd)).unwrap_err().to_string();
        assert!(refused.contains("no room for more kept objects"), "{refused}");
        // One that leaves a full set hides none of those behind it, and makes room for one.
        remembered.kept.release(print(2)).unwrap();
        assert!(!here(2) && (3..=NEAR * SLOTS as u64).all(here));
        remembered.kept.keep(print(0xabcd)).unwrap();
        assert!(here(0xabcd) && (3..=NEAR * SLOTS as u64).all(here));
    }

    #[test]
    fn a_pair_for_which_there_is_no_room_takes_another_s_place() {
        let dir = tempfile::tempdir().unwrap();
        let pairs = Remembered::open(dir.path()).unwrap().pairs;
        for number in 1..=5 {
            pairs.remember(print(number)).unwrap();
        }
        assert!(pairs.set(64).unwrap().contains(&print(5).bytes));
    }

    #[test]
    fn the_files_take_no_room_before_they_hold_something() {
        let dir = tempfile::tempdir().unwrap();
        drop(Remembered::open(dir.path()).unwrap());
        assert_eq!(dir.path().join("pairs").metadata().unwrap().blocks(), 0);
    }
}
