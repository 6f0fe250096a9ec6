//! Reads the journal in order: from memory while it keeps up, from the segment files when not.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use super::entry::Body;
use super::segment::{Reader, Segment};
use super::shared::{Progress, Shared};
use super::{JournalError, Lsn, Record};

/// Records read from disk at once: bounded by count and by bytes.
const READ_RECORDS: usize = 4096;
const READ_BYTES: usize = 512 << 10;

/// The durable queue's reading side; there is one.
#[derive(Debug)]
pub struct Cursor {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    position: Lsn,
    /// Read from disk, not yet given out; begins at or behind `position`.
    buffer: VecDeque<Record>,
    /// A read under way; it survives a dropped `next`.
    reading: Option<JoinHandle<Result<Found, JournalError>>>,
    place: Option<Place>,
}

/// Where in the files the cursor reads.
#[derive(Debug)]
struct Place {
    reader: Reader,
    segment: Segment,
}

/// What a read came to.
#[derive(Debug)]
struct Found {
    place: Place,
    records: VecDeque<Record>,
}

impl Cursor {
    pub(super) fn new(shared: Arc<Shared>, position: Lsn) -> Self {
        let progress = shared.watch();
        let buffer = VecDeque::new();
        Self { shared, progress, position, buffer, reading: None, place: None }
    }

    /// Up to `max` records (at least one) from [`Cursor::position`] on, in order; waits until there
    /// is one. May be dropped at any point without losing a record. A record may come before it is
    /// durable. After [`super::Journal::close`] it gives what is left, then [`JournalError::Closed`].
    pub async fn next(&mut self, max: usize) -> Result<Vec<Record>, JournalError> {
        let max = max.max(1);
        loop {
            if !self.buffer.is_empty() {
                let count = max.min(self.buffer.len());
                let records = self.buffer.drain(..count).collect();
                return Ok(self.give(records));
            }
            if let Some(reading) = self.reading.as_mut() {
                let found = reading.await;
                self.reading = None;
                let found = found.map_err(|error| {
                    JournalError::io("read", self.shared.dir())(std::io::Error::other(error))
                })??;
                self.place = Some(found.place);
                self.buffer = found.records;
                continue;
            }
            self.position = self.shared.skip(self.position);
            let Progress { written, ended, .. } = self.progress.borrow_and_update().clone();
            if self.position <= written {
                if let Some(records) = self.shared.take(self.position, max) {
                    self.place = None;
                    return Ok(self.give(records));
                }
                let (shared, place) = (Arc::clone(&self.shared), self.place.take());
                let position = self.position;
                self.reading = Some(spawn_blocking(move || read(&shared, place, position)));
            } else if let Some(error) = ended {
                return Err(error);
            } else if self.progress.changed().await.is_err() {
                return Err(JournalError::Closed);
            }
        }
    }

    /// Goes back to the lowest unfinished record.
    pub fn rewind(&mut self) {
        self.buffer.clear();
        (self.reading, self.place) = (None, None);
        self.position = self.shared.trimmed();
    }

    /// The number of the next record to be read; of those that are lost none is.
    pub fn position(&self) -> Lsn {
        self.shared.skip(self.position)
    }

    fn give(&mut self, records: Vec<Record>) -> Vec<Record> {
        self.position = records.last().map_or(self.position, |last| last.lsn.saturating_add(1));
        records
    }
}

/// Reads some of the records from `position` on, of which at least one is written.
fn read(shared: &Shared, place: Option<Place>, position: Lsn) -> Result<Found, JournalError> {
    let segments: Vec<Segment> = shared.segments().iter().cloned().collect();
    let holder = segments.iter().rfind(|segment| segment.first_lsn <= position);
    let Some(first) = holder.or(segments.first()) else {
        let missing = position..=shared.progress().written;
        return Err(JournalError::Damaged { segment: shared.dir().clone(), missing });
    };
    let mut place = match place {
        Some(place) => place,
        None => open(first)?,
    };
    let (mut records, mut bytes, mut expected) = (VecDeque::new(), 0_usize, position);
    while records.len() < READ_RECORDS && bytes < READ_BYTES {
        if let Some(now) = segments.iter().find(|s| s.sequence == place.segment.sequence) {
            place.reader.end = now.end;
        }
        let frame = place.reader.next_frame();
        let Some(frame) = frame.map_err(JournalError::io("read", &place.segment.path))? else {
            let next = segments.iter().find(|s| s.sequence > place.segment.sequence);
            let Some(next) = next else { break };
            place = open(next)?;
            continue;
        };
        let Body::Record(payload) = frame.body else { continue };
        if frame.lsn < expected {
            continue;
        }
        if shared.skip(expected) < frame.lsn {
            return Err(damaged(&place, expected, frame.lsn.saturating_sub(1)));
        }
        expected = frame.lsn.saturating_add(1);
        bytes = bytes.saturating_add(payload.len());
        records.push_back(Record { lsn: frame.lsn, payload });
    }
    if records.is_empty() {
        return Err(damaged(&place, position, shared.progress().written));
    }
    Ok(Found { place, records })
}

fn open(segment: &Segment) -> Result<Place, JournalError> {
    let reader = Reader::open(&segment.path, segment.epoch, segment.end)
        .map_err(JournalError::io("open", &segment.path))?;
    Ok(Place { reader, segment: segment.clone() })
}

fn damaged(place: &Place, first: Lsn, last: Lsn) -> JournalError {
    JournalError::Damaged { segment: place.segment.path.clone(), missing: first..=last }
}
