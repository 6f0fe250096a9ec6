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
use crate::clock;
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
    brakes: Saved,
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

    /// What an earlier process has written, and how many milliseconds ago. A clock that was set back since
    /// then makes it no older than it was.
    pub(super) fn saved(&self) -> (&Saved, u64) {
        let ago = clock::now_ms().saturating_sub(self.page.at_ms);
        (&self.page.brakes, u64::try_from(ago).unwrap_or(0))
    }

    /// Replaces it; durable on return. Blocking.
    pub(super) fn save(&self, brakes: Saved) -> io::Result<()> {
        let json = serde_json::to_vec(&Page { at_ms: clock::now_ms(), brakes })?;
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
