//! What passes remember of single objects: which `ETag`s belong together, and what a person keeps.
//!
//! Fingerprints of eight bytes in two sparse files of fixed size, read in place, so that they cost no
//! memory. **Pairs** are a cache: an entry that is lost, or that another displaces, costs a HEAD.
//! **Kept** objects are those at the target whose deletes a person discarded; no entry is displaced,
//! and where no room is left, keys count as kept. Either file may be deleted. **On error** a pair is
//! unknown, and a key is kept. **On crash** what was not yet on disk is forgotten. Other processes may read
//! what is kept ([`Kept`]); an entry is written at once, so that they find it or do not.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::object::ETag;

const PAIRS: &str = "pairs";
const KEPT: &str = "kept";

const SLOT: usize = 8;
const SLOTS: usize = 4;
const SET: usize = SLOT * SLOTS;
/// 4 million entries, 32 MiB if they are all there.
const SETS: u64 = 1 << 20;

/// Both memories.
#[derive(Debug)]
pub struct Remembered {
    pairs: Table,
    kept: Table,
    heeded: Kept,
}

impl Remembered {
    /// Opens or creates the files in `dir`. Blocking.
    pub fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (pairs, kept) = (Table::open(&dir.join(PAIRS))?, Table::open(&dir.join(KEPT))?);
        Ok(Self { pairs, kept, heeded: Kept::default() })
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
        if let Err(error) = self.pairs.insert(print, true) {
            tracing::debug!(%error, "A pair of ETags is not remembered; it will be checked again.");
        }
    }

    /// Whether that was seen.
    pub fn is_pair(&self, bucket: &str, key: &str, source: &ETag, target: &ETag) -> bool {
        let print = Print::of(&[bucket, key, source.as_str(), target.as_str()]);
        self.pairs.find(print).is_ok_and(|found| found == Found::Here)
    }

    /// A person wants the object to stay at the target although the source has it no more.
    pub fn keep(&self, bucket: &str, key: &str) -> io::Result<()> {
        self.kept.insert(Print::of(&[bucket, key]), false)
    }

    /// Whether a person wants that.
    pub fn is_kept(&self, bucket: &str, key: &str) -> bool {
        let kept = |table: &Table| table.keeps(bucket, key).unwrap_or(true);
        kept(&self.kept) || self.heeded.has(bucket, key).unwrap_or(true)
    }

    /// The source has the object again, so that it is one like any other.
    pub fn replaced(&self, bucket: &str, key: &str) {
        // Every copy passes here, and hardly anyone ever keeps an object.
        if !self.kept.holds_something() {
            return;
        }
        if let Err(error) = self.kept.remove(Print::of(&[bucket, key])) {
            tracing::debug!(%error, "A kept object is remembered for longer than it need be.");
        }
    }
}

/// The kept objects of a process that may be at work: only read. A copy reads the same file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept(Option<Arc<Table>>);

impl Kept {
    /// Those of the process whose files are in `dir`; none if there are no such files.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        match File::open(dir.join(KEPT)) {
            Ok(file) => Ok(Self(Some(Arc::new(Table::of(file)?)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }

    /// Whether a person wants the object to stay at the target.
    pub(crate) fn has(&self, bucket: &str, key: &str) -> io::Result<bool> {
        self.0.as_ref().map_or(Ok(false), |table| table.keeps(bucket, key))
    }
}

/// Where a fingerprint belongs, and what it is; never zero, which is an empty slot.
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
        let bytes = rest.first_chunk().copied().filter(|bytes| *bytes != [0; SLOT]);
        let offset = (u64::from_le_bytes(*place) % SETS) * SET as u64;
        Self { offset, bytes: bytes.unwrap_or([1; SLOT]) }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Here,
    Absent,
    /// Absent, and its set is full.
    NoRoom,
}

#[derive(Debug)]
struct Table {
    file: File,
    /// Whether anything was ever written to it, as far as its blocks tell.
    written: AtomicBool,
    /// Held by who writes.
    writing: Mutex<()>,
}

impl Table {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(SETS * SET as u64)?;
        Self::of(file)
    }

    fn of(file: File) -> io::Result<Self> {
        let written = AtomicBool::new(file.metadata()?.blocks() > 0);
        Ok(Self { file, written, writing: Mutex::default() })
    }

    /// Whether the key was put into this table, or was to be when there was no room.
    fn keeps(&self, bucket: &str, key: &str) -> io::Result<bool> {
        let found = self.find(Print::of(&[bucket, key]))?;
        Ok(matches!(found, Found::Here | Found::NoRoom))
    }

    /// False only spares a look for an entry to be removed: a file system that tells of its blocks late
    /// may make it false for too long, so no entry counts as absent because of it.
    fn holds_something(&self) -> bool {
        self.written.load(Ordering::Relaxed)
    }

    fn set(&self, print: Print) -> io::Result<[[u8; SLOT]; SLOTS]> {
        let mut slots = [[0; SLOT]; SLOTS];
        self.file.read_exact_at(slots.as_flattened_mut(), print.offset)?;
        Ok(slots)
    }

    fn find(&self, print: Print) -> io::Result<Found> {
        let set = self.set(print)?;
        Ok(if set.contains(&print.bytes) {
            Found::Here
        } else if set.contains(&[0; SLOT]) {
            Found::Absent
        } else {
            Found::NoRoom
        })
    }

    /// In a full set, one entry makes room or nothing is done.
    fn insert(&self, print: Print, displace: bool) -> io::Result<()> {
        let _writing = self.writing();
        let set = self.set(print)?;
        if set.contains(&print.bytes) {
            return Ok(());
        }
        let chance = usize::from(print.bytes[0]) % SLOTS;
        let free = set.iter().position(|slot| *slot == [0; SLOT]);
        match free.or(displace.then_some(chance)) {
            Some(slot) => self.write(print, slot, print.bytes),
            None => Ok(()),
        }
    }

    fn remove(&self, print: Print) -> io::Result<()> {
        let here = self.set(print)?.iter().position(|slot| *slot == print.bytes);
        let Some(slot) = here else { return Ok(()) };
        let _writing = self.writing();
        self.write(print, slot, [0; SLOT])
    }

    fn write(&self, print: Print, slot: usize, bytes: [u8; SLOT]) -> io::Result<()> {
        self.written.store(true, Ordering::Relaxed);
        self.file.write_all_at(&bytes, print.offset + (slot * SLOT) as u64)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        remembered.replaced("b", "k");
        remembered.replaced("b", "never kept");
        assert!(!remembered.is_kept("b", "k"));
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
        heeding.replaced("b", "k");
        assert!(remembered.is_kept("b", "k"), "it is not ours to forget");
        remembered.replaced("b", "k");
        assert!(!kept.has("b", "k").unwrap() && !heeding.is_kept("b", "k"));
    }

    #[test]
    fn where_there_is_no_room_keys_are_kept_and_pairs_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let remembered = Remembered::open(dir.path()).unwrap();
        let print = |number: u8| Print { offset: 64, bytes: [number; SLOT] };
        for number in 1..=5 {
            remembered.kept.insert(print(number), false).unwrap();
            remembered.pairs.insert(print(number), true).unwrap();
        }
        assert_eq!(remembered.kept.find(print(4)).unwrap(), Found::Here);
        assert_eq!(remembered.kept.find(print(5)).unwrap(), Found::NoRoom);
        assert_eq!(remembered.pairs.find(print(5)).unwrap(), Found::Here);
    }

    #[test]
    fn the_files_take_no_room_before_they_hold_something() {
        let dir = tempfile::tempdir().unwrap();
        drop(Remembered::open(dir.path()).unwrap());
        assert_eq!(dir.path().join("pairs").metadata().unwrap().blocks(), 0);
    }
}
