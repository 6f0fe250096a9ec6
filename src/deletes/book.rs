//! The brakes on disk: whether they are on, and what they have counted.
//!
//! **Promise.** A brake that was on is on after a restart, with its reason, and what was counted counts on for
//! the rest of its window. Written about once a second while it changes, so that a crash loses the counts
//! of a second. **On error** the state before it stands, and the next change tries again. A book
//! that was damaged begins afresh and says so: a held delete puts its bucket's brake on by itself.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::brake::Saved;
use crate::clock::{self, SinceBoot};
use crate::journal::disk::RealDisk;
use crate::journal::slots::Slots;

/// Room for the JSON of a thousand buckets and more.
const SLOT: usize = 512 << 10;

/// The file.
#[derive(Debug)]
pub struct BrakeBook {
    slots: Mutex<Slots>,
    /// What it held when it was opened.
    page: Page,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Page {
    /// By the wall clock, milliseconds since the Unix epoch.
    at_ms: i64,
    /// The same by the clock that nobody sets, while the machine is not started anew.
    #[serde(default)]
    since_boot: Option<SinceBoot>,
    brakes: Saved,
}

impl Page {
    fn of(brakes: Saved) -> Self {
        Self { at_ms: clock::now_ms(), since_boot: SinceBoot::now(), brakes }
    }

    /// How many milliseconds ago it was written. A clock that is ahead does not make it older, unless the machine was
    /// started meanwhile; one that was set back makes it no older than it was.
    fn ago_ms(&self) -> u64 {
        let by_boot = || self.since_boot.as_ref()?.ms_before(&SinceBoot::now()?);
        let by_wall = || u64::try_from(clock::now_ms().saturating_sub(self.at_ms)).unwrap_or(0);
        by_boot().unwrap_or_else(by_wall)
    }
}

impl BrakeBook {
    /// Opens or creates the file. Blocking.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (mut slots, held) = Slots::open(Arc::new(RealDisk), path, SLOT)?;
        let read = held.value.as_deref().and_then(|json| serde_json::from_slice(json).ok());
        if !held.created && read.is_none() {
            tracing::error!(path = %path.display(), "The record of the brakes on deletes was damaged; they count afresh. Buckets with held deletes keep their brake on.");
        }
        let page: Page = read.unwrap_or_default();
        if held.created {
            slots.store(&serde_json::to_vec(&page)?)?;
        }
        Ok(Self { slots: Mutex::new(slots), page })
    }

    /// What another process has written in the file; nothing is written.
    pub(super) fn peek(path: &Path) -> io::Result<Saved> {
        let json = Slots::peek(path, SLOT)?;
        let page: Option<Page> = json.map(|json| serde_json::from_slice(&json)).transpose()?;
        Ok(page.unwrap_or_default().brakes)
    }

    /// What an earlier process has written, and how many milliseconds ago.
    pub(super) fn saved(&self) -> (&Saved, u64) {
        (&self.page.brakes, self.page.ago_ms())
    }

    /// Replaces it; durable on return. Blocking.
    pub(super) fn save(&self, brakes: Saved) -> io::Result<()> {
        let json = serde_json::to_vec(&Page::of(brakes))?;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if !slots.fits(json.len()) {
            return Err(io::Error::other("there is no room for so many buckets"));
        }
        slots.store(&json)
    }
}

#[cfg(test)]
mod tests {
    use super::super::brake::{On, SavedBrake};
    use super::*;

    #[test]
    fn what_was_counted_grows_no_older_when_the_clock_is_set() {
        let mut page = Page::of(Saved::new());
        page.at_ms -= 3_600_000;
        assert!(page.ago_ms() < 60_000);
        page.since_boot = page.since_boot.map(|moment| moment.of_an_earlier_boot());
        assert!(page.ago_ms() >= 3_600_000);
        page.at_ms = i64::MAX;
        assert_eq!(page.ago_ms(), 0);
    }

    #[test]
    fn what_was_saved_last_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("brakes");
        let book = BrakeBook::open(&path).unwrap();
        assert!(book.saved().0.is_empty());
        let on = Some(On { reason: "wiped".into(), since_ms: 5, found_at_start: false });
        let brake = SavedBrake { recent: vec![(0, 7)], objects: Some(9), on };
        let saved: Saved = [("b".into(), brake)].into();
        book.save(saved.clone()).unwrap();
        drop(book);
        let book = BrakeBook::open(&path).unwrap();
        assert_eq!(book.saved().0, &saved);
    }
}
