//! The clock of what waits on disk: it goes on evenly, whatever is done to the machine's clock.
//!
//! It begins with the machine's clock and goes on by the monotonic one; a note on disk carries it on to the next process,
//! until the machine is started anew. So a clock that is set, before or after a restart, neither hastens nor blocks what
//! waits. Where the two differ people are shown the machine's time.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, SinceBoot};
use crate::journal::disk::RealDisk;
use crate::journal::slots::Slots;

const SLOT: usize = 512;
/// A difference to the machine's clock that people need not be told of, in milliseconds.
const SMALL: i64 = 1_000;

/// Milliseconds since the Unix epoch as it counts them.
#[derive(Debug, Clone, Copy)]
pub struct SteadyClock {
    /// What it showed at `boot`.
    pub(super) start_ms: i64,
    boot: Duration,
}

/// What it showed at a moment.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    shown_ms: i64,
    at: SinceBoot,
}

impl Default for SteadyClock {
    fn default() -> Self {
        Self { start_ms: clock::now_ms(), boot: clock::since_boot() }
    }
}

impl SteadyClock {
    /// Carries on the clock of the process that left the note in this file, or begins with the machine's. Blocking.
    pub fn open(path: &Path) -> Self {
        Self::noted(path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "The clock of delayed deletes cannot be carried on from the process before; if this machine's clock was set since then, their delay is off by as much. Make the file writable.");
            Self::default()
        })
    }

    fn noted(path: &Path) -> io::Result<Self> {
        let (mut slots, held) = Slots::open(Arc::new(RealDisk), path, SLOT)?;
        let Some(at) = SinceBoot::now() else { return Ok(Self::default()) };
        let read = held.value.as_deref().and_then(|json| serde_json::from_slice(json).ok());
        let before = read.and_then(|note: Note| {
            let since = i64::try_from(note.at.ms_before(&at)?).ok()?;
            Some(note.shown_ms.saturating_add(since))
        });
        let now = Self::default();
        if let Some(start_ms) = before {
            return Ok(Self { start_ms, ..now });
        }
        slots.store(&serde_json::to_vec(&Note { shown_ms: now.start_ms, at })?)?;
        Ok(now)
    }

    /// The same clock, set ahead if it shows less than this.
    pub(super) fn not_before(self, ms: i64) -> Self {
        Self { start_ms: self.start_ms.max(ms), ..self }
    }

    /// What it shows.
    pub(super) fn now_ms(self) -> i64 {
        let since = clock::since_boot().saturating_sub(self.boot);
        self.start_ms.saturating_add(clock::signed_millis(since))
    }

    /// A time that an earlier process noted: one that is still to come at the start is wrong.
    pub(super) fn noted_ms(self, ms: i64) -> i64 {
        ms.min(self.start_ms)
    }

    /// The machine's time for one of this clock's, for people.
    pub(super) fn shown_ms(self, ms: i64) -> i64 {
        let ahead = clock::now_ms().saturating_sub(self.now_ms());
        if ahead.abs() < SMALL { ms } else { ms.saturating_add(ahead) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_evenly_across_restarts_whatever_is_done_to_the_machines_clock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let begin = SteadyClock::open(&path);
        assert!((begin.start_ms - clock::now_ms()).abs() < SMALL);
        let note = |shown_ms, at| {
            let (mut slots, _) = Slots::open(Arc::new(RealDisk), &path, SLOT).unwrap();
            slots.store(&serde_json::to_vec(&Note { shown_ms, at }).unwrap()).unwrap();
        };
        let now = SinceBoot::now().unwrap();
        for set in [-3_600_000, 3_600_000] {
            // As if the machine's clock had been set since.
            let shown_ms = clock::now_ms() + set;
            note(shown_ms, now.earlier(5_000));
            let next = SteadyClock::open(&path);
            assert!((5_000..65_000).contains(&(next.start_ms - shown_ms)), "{next:?}");
            let shown = next.shown_ms(next.start_ms);
            assert!((shown - clock::now_ms()).abs() < 60_000, "people see the machine's time");
            note(shown_ms, now.of_an_earlier_boot());
            let booted = SteadyClock::open(&path);
            assert!((booted.start_ms - clock::now_ms()).abs() < 60_000);
        }
        std::fs::write(&path, [7; 2 * SLOT]).unwrap();
        assert!((SteadyClock::open(&path).start_ms - clock::now_ms()).abs() < 60_000);
    }
}
