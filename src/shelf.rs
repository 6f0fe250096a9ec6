//! Keys set aside on disk: held and delayed deletes, and parked keys beyond what memory should hold.
//!
//! A shelf is a second, small journal, so that what is set aside survives a crash and costs no
//! memory. **Promise.** A key is on the shelf, or back in the main journal, at every instant; after a
//! crash it may be in both, which is harmless because a key is only a hint. What stays while others leave is
//! written anew, with room that [`Shelf::put`] does not use ([`Claim::Rewrite`]): a full shelf can
//! always be emptied.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::settings::Durability;
use crate::dirty::DirtyKey;
use crate::journal::{
    AppendError, Claim, Cursor, Journal, JournalError, JournalOptions, Lsn, Recovery, peek,
};
use crate::object::ObjectKey;

const SEGMENT_SIZE: u64 = 4 << 20;
/// So few that keys of any length fit into the smallest segment a journal can be given.
const PAGE: usize = 256;

/// Why keys could not be moved off or onto a shelf.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The shelf cannot be read.
    #[error(transparent)]
    Read(#[from] JournalError),
    /// The keys could not be made durable on the shelf; they stay where they were.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The main journal did not take those that go back; they stay where they were.
    #[error(transparent)]
    Main(AppendError),
}

/// A durable list of keys that are set aside.
#[derive(Debug)]
pub struct Shelf {
    dir: PathBuf,
    journal: Journal,
    cursor: tokio::sync::Mutex<Cursor>,
    tally: Mutex<Tally>,
}

/// What is on a shelf, in numbers.
#[derive(Debug, Default)]
struct Tally {
    counts: BTreeMap<String, u64>,
    /// The bytes of those whose size is known.
    bytes: u128,
    /// How many are of unknown size.
    unsized_keys: u64,
    oldest_ms: Option<i64>,
    /// Records that cannot be understood, and are passed over when they are come to.
    undecodable: u64,
}

impl Shelf {
    /// Opens or creates the shelf in `dir`, and counts what is on it. Records that this build cannot
    /// understand are counted in [`Recovery::undecodable`]: every bucket must be reconciled then.
    pub async fn open(dir: PathBuf, max_size: u64) -> Result<(Self, Recovery), JournalError> {
        Self::open_seeing(dir, max_size, |_| {}).await
    }

    /// The same, and shows each key that is on it to `seen`.
    pub async fn open_seeing(
        dir: PathBuf,
        max_size: u64,
        seen: impl FnMut(&DirtyKey),
    ) -> Result<(Self, Recovery), JournalError> {
        let options = JournalOptions {
            dir,
            segment_size: SEGMENT_SIZE,
            max_size,
            durability: Durability::Fsync,
        };
        let dir = options.dir.clone();
        let (journal, cursor, mut recovery) = open_journal(options).await?;
        journal.keep_none_in_memory();
        let cursor = tokio::sync::Mutex::new(cursor);
        let shelf = Self { dir, journal, cursor, tally: Mutex::default() };
        recovery.undecodable = shelf.count(seen).await?;
        Ok((shelf, recovery))
    }

    /// Shows each key on the shelf in `dir` to `see`, while another process may be using it: as
    /// [`peek::peek`] does, whose promise this is.
    pub(crate) fn peek(dir: &Path, mut see: impl FnMut(DirtyKey)) -> Result<(), JournalError> {
        peek::peek(dir, |payload| {
            if let Ok(dirty) = DirtyKey::decode(&payload) {
                see(dirty);
            }
        })
    }

    /// Sets keys aside; durable when this returns. After an error some of them may be on the shelf.
    pub async fn put(&self, keys: &[DirtyKey]) -> Result<(), AppendError> {
        self.put_as(Claim::New, keys).await
    }

    async fn put_as(&self, claim: Claim, keys: &[DirtyKey]) -> Result<(), AppendError> {
        // Many long keys are more than the journal takes at once.
        for page in keys.chunks(PAGE) {
            let payloads = page.iter().map(DirtyKey::encode).collect();
            self.journal.append_as(claim, payloads).await?;
            self.add(page);
        }
        Ok(())
    }

    /// How many keys of each bucket are set aside (a key set aside twice counts twice).
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.tally().counts.clone()
    }

    /// No change that is set aside is older than this (milliseconds since the Unix epoch), and one was as
    /// old since the shelf was empty last; `None` if it is empty.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.tally().oldest_ms
    }

    /// The bytes that are set aside, as far as they are known, and how many keys are of unknown size.
    pub fn bytes(&self) -> (u64, u64) {
        let tally = self.tally();
        (u64::try_from(tally.bytes).unwrap_or(u64::MAX), tally.unsized_keys)
    }

    /// Goes through the oldest `limit` keys that are on the shelf now, a page at a time, and does with
    /// each what `sort` says; keys that go back are appended to `main` first.
    ///
    /// Returns how many keys left the shelf. On an error those of earlier pages have left it, and all others
    /// are still there and counted.
    pub async fn drain(
        &self,
        main: &Journal,
        limit: u64,
        sort: impl FnMut(DirtyKey) -> Taken,
    ) -> Result<u64, ShelfError> {
        let mut taken = 0;
        self.drain_below(self.next_lsn(), main, limit, &mut taken, sort).await?;
        Ok(taken)
    }

    /// The same for those that have numbers below `end`; tells whether there may be more of them. `taken` grows by those
    /// that left the shelf, on an error, too.
    pub async fn drain_below(
        &self,
        end: Lsn,
        main: &Journal,
        limit: u64,
        taken: &mut u64,
        mut sort: impl FnMut(DirtyKey) -> Taken,
    ) -> Result<bool, ShelfError> {
        let mut cursor = self.cursor.lock().await;
        cursor.rewind();
        let all = end.min(self.next_lsn());
        let end = all.min(cursor.position().saturating_add(limit));
        let mut lost = 0_u64;
        while cursor.position() < end {
            let left = usize::try_from(end - cursor.position()).unwrap_or(PAGE);
            let (mut read, mut back, mut keep) = (Vec::new(), Vec::new(), Vec::new());
            for record in cursor.next(left.min(PAGE)).await? {
                let Ok(dirty) = DirtyKey::decode(&record.payload) else {
                    lost += 1;
                    continue;
                };
                read.push((dirty.key.clone(), dirty.size));
                match sort(dirty) {
                    Taken::Back(dirty) => back.push(dirty.encode()),
                    Taken::Dropped => {}
                    Taken::Kept(dirty) => keep.push(dirty),
                }
            }
            main.append_as(Claim::Return, back).await.map_err(ShelfError::Main)?;
            self.put_as(Claim::Rewrite, &keep).await?;
            // Only now have they left: after an error above they are on the shelf, and must be counted,
            // or nobody would ever look for them.
            self.journal.trim(cursor.position());
            *taken += (read.len() - keep.len()) as u64;
            for (key, size) in read {
                self.uncount(&key, size);
            }
        }
        self.passed_over(lost);
        let more = cursor.position() < all;
        // What was read ahead is not kept in memory: there may be a shelf for each bucket.
        cursor.rewind();
        Ok(more)
    }

    /// Goes through the shelf from its oldest key, a page at a time, until `take` says
    /// [`Front::Stays`]; keys that go back are appended to `main` before they leave.
    pub async fn take_front(
        &self,
        main: &Journal,
        mut take: impl FnMut(&DirtyKey, Lsn) -> Front,
    ) -> Result<(), ShelfError> {
        let mut cursor = self.cursor.lock().await;
        cursor.rewind();
        let end = self.journal.stats().next_lsn;
        let (mut more, mut lost) = (true, 0_u64);
        while more && cursor.position() < end {
            let left = usize::try_from(end - cursor.position()).unwrap_or(PAGE);
            let (mut read, mut back, mut taken) = (Vec::new(), Vec::new(), cursor.position());
            for record in cursor.next(left.min(PAGE)).await? {
                if let Ok(dirty) = DirtyKey::decode(&record.payload) {
                    match take(&dirty, record.lsn) {
                        Front::Back(again) => back.push(again.encode()),
                        Front::Dropped => {}
                        Front::Stays => {
                            more = false;
                            break;
                        }
                    }
                    read.push((dirty.key, dirty.size));
                } else {
                    lost += 1;
                }
                taken = record.lsn.saturating_add(1);
            }
            main.append_as(Claim::Return, back).await.map_err(ShelfError::Main)?;
            self.journal.trim(taken);
            for (key, size) in read {
                self.uncount(&key, size);
            }
        }
        self.passed_over(lost);
        cursor.rewind();
        Ok(())
    }

    /// Shows the keys that are on the shelf now to `see`, from the oldest on, until it wants no more.
    pub async fn look(&self, mut see: impl FnMut(DirtyKey) -> bool) -> Result<(), JournalError> {
        let mut cursor = self.cursor.lock().await;
        cursor.rewind();
        let end = self.journal.stats().next_lsn;
        while cursor.position() < end {
            let left = usize::try_from(end - cursor.position()).unwrap_or(PAGE);
            for record in cursor.next(left.min(PAGE)).await? {
                if let Ok(dirty) = DirtyKey::decode(&record.payload)
                    && !see(dirty)
                {
                    cursor.rewind();
                    return Ok(());
                }
            }
        }
        cursor.rewind();
        Ok(())
    }

    /// Waits until the keys that have left do not come back after a crash: about a second at most, on a disk that
    /// works. May be dropped at any point.
    pub async fn left_durably(&self) {
        self.journal.trim_stored().await;
    }

    /// The number that the next key gets.
    pub fn next_lsn(&self) -> Lsn {
        self.journal.stats().next_lsn
    }

    /// Persists and closes.
    pub async fn close(&self) {
        self.journal.close().await;
    }

    /// Counts what is on the shelf; returns how many records of it cannot be understood.
    async fn count(&self, mut seen: impl FnMut(&DirtyKey)) -> Result<u64, JournalError> {
        let mut lost = 0;
        let mut cursor = self.cursor.lock().await;
        let end = self.journal.stats().next_lsn;
        while cursor.position() < end {
            for record in cursor.next(PAGE).await? {
                if let Ok(dirty) = DirtyKey::decode(&record.payload) {
                    seen(&dirty);
                    self.add(&[dirty]);
                } else {
                    lost += 1;
                }
            }
        }
        self.tally().undecodable = lost;
        self.report(lost);
        Ok(lost)
    }

    /// Whether nothing is on the shelf, not even what cannot be understood.
    pub fn is_empty(&self) -> bool {
        let tally = self.tally();
        tally.counts.is_empty() && tally.undecodable == 0
    }

    /// So many records that cannot be understood have left the shelf.
    fn passed_over(&self, lost: u64) {
        let mut tally = self.tally();
        tally.undecodable = tally.undecodable.saturating_sub(lost);
        drop(tally);
        self.report(lost);
    }

    /// Once for all that were read together: another version's shelf may hold millions.
    fn report(&self, lost: u64) {
        if lost > 0 {
            tracing::error!(
                shelf = %self.dir.display(), records = lost,
                "Keys that were set aside cannot be understood and are passed over: they are of another version of \
                 evermirror. Every bucket is reconciled, as at each start until they have left the disk."
            );
        }
    }

    fn add(&self, keys: &[DirtyKey]) {
        let mut tally = self.tally();
        for dirty in keys {
            *tally.counts.entry(dirty.key.bucket.to_string()).or_default() += 1;
            match dirty.size {
                Some(size) => tally.bytes += u128::from(size),
                None => tally.unsized_keys += 1,
            }
            let oldest = tally.oldest_ms.map_or(dirty.since_ms, |ms| ms.min(dirty.since_ms));
            tally.oldest_ms = Some(oldest);
        }
    }

    fn uncount(&self, key: &ObjectKey, size: Option<u64>) {
        let mut tally = self.tally();
        match size {
            Some(size) => tally.bytes = tally.bytes.saturating_sub(u128::from(size)),
            None => tally.unsized_keys = tally.unsized_keys.saturating_sub(1),
        }
        if let Some(count) = tally.counts.get_mut(&*key.bucket) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                tally.counts.remove(&*key.bucket);
            }
        }
        if tally.counts.is_empty() {
            tally.oldest_ms = None;
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a key that is taken from a shelf.
#[derive(Debug)]
pub enum Taken {
    /// It goes back to the main journal, as this.
    Back(DirtyKey),
    /// It is dropped.
    Dropped,
    /// It stays on the shelf.
    Kept(DirtyKey),
}

/// What becomes of the key at the front of a shelf.
#[derive(Debug)]
pub enum Front {
    /// It goes back to the main journal, as this.
    Back(DirtyKey),
    /// It is dropped.
    Dropped,
    /// It stays, and so does all behind it.
    Stays,
}

/// Opens a journal off the async threads: recovery reads the whole backlog.
pub(crate) async fn open_journal(
    options: JournalOptions,
) -> Result<(Journal, Cursor, Recovery), JournalError> {
    let dir = options.dir.clone();
    tokio::task::spawn_blocking(move || Journal::open(options))
        .await
        .unwrap_or_else(|error| Err(JournalError::io("open", dir)(std::io::Error::other(error))))
}

#[cfg(test)]
mod tests;
