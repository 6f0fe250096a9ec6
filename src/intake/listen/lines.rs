//! The lines of a stream, put together from pieces and read; pure.

use std::time::Duration;

use crate::event::{self, Channel, Parsed};

/// The longest line, in bytes. An event is a few KiB.
pub(super) const MAX_LINE: usize = 4 << 20;
/// A store that is known to send its pings at once is given up on after so many missing ones.
const MISSING_PINGS: u32 = 15;

/// The stream is no longer understood, and must be given up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What has arrived of the line that is not yet complete.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    /// A ping arrived alone: this store holds nothing back.
    prompt: bool,
}

impl Lines {
    /// Takes the next bytes. Gives all that the lines that they complete say; `None` if that is
    /// nothing: pings, or the spaces that MinIO sends where none were asked for.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Option<Parsed>, TooLong> {
        let alone = self.begun.is_empty();
        let mut all: Option<Parsed> = None;
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let only = lines.size_hint().1 == Some(0);
        for piece in std::iter::once(first).chain(lines) {
            if self.begun.len().saturating_add(piece.len()) > MAX_LINE {
                return Err(TooLong);
            }
            self.begun.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                continue;
            }
            let line = std::mem::take(&mut self.begun);
            if line.trim_ascii().is_empty() {
                continue;
            }
            let parsed = event::parse(line.trim_ascii(), Channel::Listen);
            if says_nothing(&parsed) {
                self.prompt |= alone && only;
                continue;
            }
            match &mut all {
                Some(all) => all.absorb(parsed),
                None => all = Some(parsed),
            }
        }
        Ok(all)
    }

    /// How long the store may be silent, given that it is asked for a ping so often.
    pub(super) fn silence(&self, ping: Duration, most: Duration) -> Duration {
        if self.prompt { most.min(ping * MISSING_PINGS) } else { most }
    }
}

fn says_nothing(parsed: &Parsed) -> bool {
    parsed.events.is_empty()
        && parsed.dirty_buckets.is_empty()
        && parsed.unusable.is_empty()
        && parsed.ignored == 0
        && !parsed.all_buckets_dirty
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: &[u8] = b"{\"Records\":null}\n";

    fn event(key: &str) -> Vec<u8> {
        format!(
            "{{\"Records\":[{{\"eventSource\":\"minio:s3\",\"eventName\":\"s3:ObjectCreated:Put\",\
             \"s3\":{{\"bucket\":{{\"name\":\"b\"}},\"object\":{{\"key\":\"{key}\"}}}}}}]}}\n"
        )
        .into_bytes()
    }

    fn keys(parsed: Option<Parsed>) -> Vec<String> {
        let events = parsed.map(|parsed| parsed.events).unwrap_or_default();
        events.into_iter().map(|event| event.key.key.to_string()).collect()
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_every_event_is_read_once(
            cuts in proptest::collection::vec(1_usize..200, 0..40),
        ) {
            let stream: Vec<u8> = (0..6)
                .flat_map(|n| [event(&format!("a+b {n}")), PING.to_vec(), b"   \n".to_vec()].concat())
                .collect();
            let (mut lines, mut rest, mut found) = (Lines::default(), &stream[..], Vec::new());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                found.extend(keys(lines.read(now).unwrap()));
                rest = later;
            }
            prop_assert_eq!(found, (0..6).map(|n| format!("a+b {n}")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error_and_takes_no_more_memory() {
        let mut lines = Lines::default();
        assert_eq!(lines.read(&vec![b' '; MAX_LINE]), Ok(None));
        assert_eq!(lines.read(b"x"), Err(TooLong));
        assert!(lines.begun.len() <= MAX_LINE);
    }

    #[test]
    fn a_line_that_is_no_event_is_told_of() {
        let parsed = Lines::default().read(b"<html>\n").unwrap().unwrap();
        assert!(parsed.all_buckets_dirty);
    }

    #[test]
    fn only_a_store_whose_pings_come_alone_must_send_them_in_time() {
        let (ping, most) = (Duration::from_secs(1), Duration::from_mins(10));
        let mut held_back = Lines::default();
        held_back.read(&PING.repeat(240)).unwrap();
        held_back.read(&[&event("k"), PING].concat()).unwrap();
        assert_eq!(held_back.silence(ping, most), most);
        let mut prompt = Lines::default();
        prompt.read(PING).unwrap();
        assert_eq!(prompt.silence(ping, most), Duration::from_secs(15));
    }
}
