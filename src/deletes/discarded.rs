//! What a person has discarded, remembered for as long as the journal may tell of it again.
//!
//! This is about records, not keys: the decision covers deletes that nobody has looked at yet. Which keys
//! those are is known only when their records are read; then [`crate::remembered::Remembered`] keeps them.
//!
//! **Promise.** After [`Discards::record`] answered `Ok`, no delete that the journal told of before the
//! decision is carried out in that bucket, although its records may be read again after a restart, or be
//! appended again under another number ([`crate::dirty::Aspects::DISCARDED`]).
//! **On error** the decision is not recorded and must not be confirmed. **On crash** in the middle of
//! a write, what was recorded before it stands.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::Lsn;
use crate::journal::disk::RealDisk;
use crate::journal::slots::Slots;

/// Room for the JSON of thousands of buckets.
const SLOT: usize = 256 << 10;

/// By bucket, the first record that came after the decision.
type Until = BTreeMap<String, Lsn>;

/// The record of decisions.
#[derive(Debug)]
pub struct Discards {
    /// What is on disk.
    until: Mutex<Until>,
    /// Never waited for by [`Discards::covers`], which every delete asks.
    slots: Mutex<Slots>,
}

impl Discards {
    /// Opens or creates the file. `next` is the journal's next record: if it is the first, the decisions were
    /// about a journal that is gone.
    pub fn open(path: &Path, next: Lsn) -> io::Result<Self> {
        let (mut slots, held) = Slots::open(Arc::new(RealDisk), path, SLOT)?;
        let read = held.value.as_deref().and_then(|json| serde_json::from_slice(json).ok());
        if !held.created && (!held.newest || read.is_none()) {
            tracing::error!(path = %path.display(), "The record of discarded deletes was damaged; deletes that a person discarded lately may be carried out.");
        }
        let mut until: Until = read.unwrap_or_default();
        // Where a power cut took the journal's end, the decision covers all that is left.
        until.retain(|_, lsn| {
            *lsn = next.min(*lsn);
            next > 1
        });
        // Twice: then both slots are known to be good.
        for _ in 0..2 {
            store(&mut slots, &until)?;
        }
        Ok(Self { until: Mutex::new(until), slots: Mutex::new(slots) })
    }

    /// What another process has recorded in the file, whether or not those records are finished; nothing is
    /// written.
    pub(crate) fn peek(path: &Path) -> io::Result<Until> {
        let json = Slots::peek(path, SLOT)?;
        Ok(json.map(|json| serde_json::from_slice(&json)).transpose()?.unwrap_or_default())
    }

    /// Discards all deletes in `bucket` that records below `until` tell of. Blocking.
    pub(crate) fn record(&self, bucket: &str, until: Lsn) -> io::Result<()> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut decided = self.until().clone();
        decided.insert(bucket.to_owned(), until);
        store(&mut slots, &decided)?;
        *self.until() = decided;
        Ok(())
    }

    /// Whether a delete was discarded, of which the record `lsn` or an older one told.
    pub(crate) fn covers(&self, bucket: &str, lsn: Lsn) -> bool {
        self.until().get(bucket).is_some_and(|until| lsn < *until)
    }

    fn until(&self) -> MutexGuard<'_, Until> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn store(slots: &mut Slots, until: &Until) -> io::Result<()> {
    let json = serde_json::to_vec(until)?;
    if !slots.fits(json.len()) {
        return Err(io::Error::other("there is no room for so many buckets"));
    }
    slots.store(&json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_covers_what_came_before_it_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("discards");
        Discards::open(&path, 1).unwrap().record("b", 7).unwrap();
        let discards = Discards::open(&path, 9).unwrap();
        assert!(discards.covers("b", 6) && !discards.covers("b", 7));
        assert!(!discards.covers("c", 6));
    }

    #[test]
    fn a_decision_covers_what_a_power_cut_has_left_of_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("discards");
        Discards::open(&path, 1).unwrap().record("b", 70).unwrap();
        let discards = Discards::open(&path, 9).unwrap();
        assert!(discards.covers("b", 8) && !discards.covers("b", 9));
    }

    #[test]
    fn a_decision_about_a_journal_that_is_gone_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("discards");
        Discards::open(&path, 1).unwrap().record("b", 7).unwrap();
        assert!(!Discards::open(&path, 1).unwrap().covers("b", 1));
        assert!(!Discards::open(&path, 9).unwrap().covers("b", 1), "it came back");
    }
}
