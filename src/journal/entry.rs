//! The frames on disk, as pure functions on bytes.
//!
//! A segment is a sequence of frames:
//!
//! ```text
//! frame    length u32 | crc32c u32 | lsn u64 | epoch u64 | kind u8 | payload     (little-endian)
//! segment  Segment(first lsn) Pad  batch*          the first batch begins in the second sector
//! batch    Batch(first lsn, durable lsn) Record(lsn)+ Pad  Seal(last lsn)
//! ```
//!
//! The checksum covers everything but the length and itself; a wrong length reads wrong bytes. The
//! epoch is random for each segment: neither bytes of an older file nor a record whose payload looks
//! like a frame can pass for one.
//!
//! A batch leaves its mark in two sectors: its records begin in one, and the seal starts a later
//! one. So whichever single sector is lost, the other still says that the batch was there, and
//! recovery can report what it cannot read.

use bytes::Bytes;

use super::{Lsn, MAX_PAYLOAD};

/// Bytes before a frame's payload.
pub(super) const HEADER: usize = 25;
/// The unit in which a disk loses or keeps data.
pub(super) const SECTOR: usize = 512;
/// The most bytes a batch needs beside its records' frames: header, padding, seal; and those of the
/// segment's header if it comes first.
pub(super) const OVERHEAD: u64 = 4 * SECTOR as u64;

/// Identifies a segment; random, never 0.
pub(super) type Epoch = u64;

const SEGMENT: u8 = 1;
const BATCH: u8 = 2;
const RECORD: u8 = 3;
const PAD: u8 = 4;
const SEAL: u8 = 5;

const FORMAT: &[u8] = b"evermirror journal 1";
const ZEROS: [u8; 2 * SECTOR] = [0; 2 * SECTOR];

/// A frame's meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// A segment begins; the frame's lsn is that of its first record.
    Segment,
    /// A batch begins; the frame's lsn is that of its first record.
    Batch {
        /// The last record that was durable when this was written.
        durable: Lsn,
    },
    /// One record.
    Record(Bytes),
    /// Fills up a sector.
    Pad,
    /// The batch ends; the frame's lsn is that of its last record.
    Seal,
}

/// What the bytes before a payload say, unchecked except for plausibility.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    length: usize,
    crc: u32,
    pub(super) lsn: Lsn,
    kind: u8,
}

impl Header {
    /// Reads a header of a segment's epoch; `None` if it cannot be one.
    pub(super) fn parse(bytes: &[u8], epoch: Epoch) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (crc, rest) = rest.split_first_chunk()?;
        let (lsn, rest) = rest.split_first_chunk()?;
        let (found, rest) = rest.split_first_chunk()?;
        let kind = *rest.first()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let plausible = u64::from_le_bytes(*found) == epoch
            && (SEGMENT..=SEAL).contains(&kind)
            && length <= MAX_PAYLOAD;
        plausible.then(|| Self {
            length,
            crc: u32::from_le_bytes(*crc),
            lsn: u64::from_le_bytes(*lsn),
            kind,
        })
    }

    /// The whole frame's size in bytes.
    pub(super) fn frame_size(&self) -> usize {
        HEADER.saturating_add(self.length)
    }

    /// Checks the whole frame and gives its meaning; `None` if a bit is wrong.
    pub(super) fn check(&self, frame: &[u8]) -> Option<Body> {
        let payload = frame.get(HEADER..self.frame_size())?;
        if crc32c::crc32c(frame.get(8..self.frame_size())?) != self.crc {
            return None;
        }
        match self.kind {
            SEGMENT => (payload == FORMAT).then_some(Body::Segment),
            BATCH => {
                let durable = u64::from_le_bytes(payload.try_into().ok()?);
                Some(Body::Batch { durable })
            }
            RECORD => Some(Body::Record(Bytes::copy_from_slice(payload))),
            PAD => Some(Body::Pad),
            _ => Some(Body::Seal),
        }
    }
}

/// The bytes that one record takes on disk.
pub(super) fn record_size(payload: &[u8]) -> u64 {
    payload.len().saturating_add(HEADER) as u64
}

/// Appends a segment's first sector to `out`, which must be empty.
pub(super) fn put_segment(out: &mut Vec<u8>, epoch: Epoch, first_lsn: Lsn) {
    put(out, epoch, SEGMENT, first_lsn, FORMAT);
    put_pad(out, epoch, first_lsn, 0);
}

/// Appends one batch to `out`, whose first byte is `start` bytes into the segment. Returns the last
/// record's number.
pub(super) fn put_batch<'a>(
    out: &mut Vec<u8>,
    epoch: Epoch,
    start: u64,
    first_lsn: Lsn,
    payloads: impl Iterator<Item = &'a [u8]>,
) -> Lsn {
    let durable = first_lsn.saturating_sub(1);
    put(out, epoch, BATCH, first_lsn, &durable.to_le_bytes());
    let mut next = first_lsn;
    for payload in payloads {
        put(out, epoch, RECORD, next, payload);
        next = next.saturating_add(1);
    }
    let last = next.saturating_sub(1);
    put_pad(out, epoch, last, start);
    put(out, epoch, SEAL, last, &[]);
    last
}

fn put(out: &mut Vec<u8>, epoch: Epoch, kind: u8, lsn: Lsn, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut covered = [0; HEADER - 8];
    let fields = lsn.to_le_bytes().into_iter().chain(epoch.to_le_bytes()).chain([kind]);
    covered.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&covered), payload);
    out.extend(length.to_le_bytes());
    out.extend(crc.to_le_bytes());
    out.extend(covered);
    out.extend(payload);
}

/// Fills up to the next sector boundary, by one frame if there is anything to fill.
fn put_pad(out: &mut Vec<u8>, epoch: Epoch, lsn: Lsn, start: u64) {
    let sector = SECTOR as u64;
    let used = usize::try_from(start.wrapping_add(out.len() as u64) % sector).unwrap_or(0);
    let room = if used == 0 { 0 } else { SECTOR.saturating_sub(used) };
    if room == 0 {
        return;
    }
    let frame = if room < HEADER { room.saturating_add(SECTOR) } else { room };
    put(out, epoch, PAD, lsn, ZEROS.get(..frame.saturating_sub(HEADER)).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(mut bytes: &[u8], epoch: Epoch) -> Vec<(Lsn, Body)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let header = Header::parse(bytes, epoch).unwrap();
            found.push((header.lsn, header.check(bytes).unwrap()));
            bytes = &bytes[header.frame_size()..];
        }
        found
    }

    proptest! {
        #[test]
        fn a_batch_reads_back_and_its_seal_starts_a_later_sector(
            start in 512_u64..5000, lsn in 1..u64::MAX / 2, epoch in 1..u64::MAX,
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..9),
        ) {
            let mut out = Vec::new();
            let last = put_batch(&mut out, epoch, start, lsn, payloads.iter().map(Vec::as_slice));
            prop_assert_eq!(last, lsn + payloads.len() as u64 - 1);
            let seal = start + (out.len() - HEADER) as u64;
            prop_assert_eq!(seal % SECTOR as u64, 0);
            prop_assert!(seal / SECTOR as u64 > start / SECTOR as u64);
            let frames = frames(&out, epoch);
            prop_assert_eq!(&frames[0], &(lsn, Body::Batch { durable: lsn - 1 }));
            prop_assert_eq!(frames.last().unwrap(), &(last, Body::Seal));
            let records: Vec<_> = frames.iter().filter_map(|(lsn, body)| match body {
                Body::Record(payload) => Some((*lsn, payload.to_vec())),
                Body::Segment | Body::Batch { .. } | Body::Pad | Body::Seal => None,
            }).collect();
            prop_assert_eq!(records, (lsn..).zip(payloads.clone()).collect::<Vec<_>>());
            let framed: u64 = payloads.iter().map(|p| record_size(p)).sum();
            prop_assert!(out.len() as u64 <= framed + OVERHEAD - SECTOR as u64);
        }

        #[test]
        fn no_changed_bit_passes(payload in proptest::collection::vec(any::<u8>(), 0..80), bit in any::<usize>()) {
            let mut out = Vec::new();
            put(&mut out, 7, RECORD, 3, &payload);
            let bit = bit % (out.len() * 8);
            out[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::parse(&out, 7).and_then(|h| h.check(&out)).is_none());
        }
    }

    #[test]
    fn a_frame_of_another_epoch_is_none() {
        let mut out = Vec::new();
        put_segment(&mut out, 7, 1);
        assert_eq!(out.len(), SECTOR);
        assert!(Header::parse(&out, 7).is_some());
        assert!(Header::parse(&out, 8).is_none());
    }
}
