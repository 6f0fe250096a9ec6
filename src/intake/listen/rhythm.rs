//! When the next stream is tried; the waits themselves come from `retry`.

use std::time::Duration;

use crate::retry::RetryPolicy;

/// A store that cannot be reached: soon again, because every second is one that is reconciled later.
const UNREACHABLE: RetryPolicy =
    RetryPolicy { initial: Duration::from_millis(500), max: Duration::from_secs(15) };
/// Streams that end soon after they began, each of which costs a reconcile; and a store that does not
/// know the call.
const FLAPPING: RetryPolicy =
    RetryPolicy { initial: Duration::from_millis(500), max: Duration::from_mins(5) };
/// A stream that lasted so long was a good one.
const GOOD: Duration = Duration::from_mins(5);

/// What became of the streams of one bucket so far.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    /// Streams since the last good one that did not last.
    short: u32,
    /// Tries since the last stream.
    refused: u32,
    unsupported: bool,
}

impl Rhythm {
    /// A stream began and ended again.
    pub(super) fn lasted(&mut self, time: Duration) {
        self.short = if time >= GOOD { 0 } else { self.short.saturating_add(1) };
        (self.refused, self.unsupported) = (0, false);
    }

    /// No stream began; `unsupported` if this store will hardly ever give one.
    pub(super) fn refused(&mut self, unsupported: bool) {
        self.refused = self.refused.saturating_add(1);
        self.unsupported = unsupported;
    }

    /// How long to wait before the next try.
    pub(super) fn wait(&self) -> Duration {
        match (self.unsupported, self.refused) {
            (true, refused) => FLAPPING.delay(refused),
            (false, 0) => FLAPPING.delay(self.short.saturating_sub(1)),
            (false, refused) => UNREACHABLE.delay(refused - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_do_not_last_are_begun_ever_later_and_a_good_one_makes_up_for_them() {
        let mut rhythm = Rhythm::default();
        for _ in 0..20 {
            rhythm.lasted(Duration::from_secs(1));
        }
        assert!(rhythm.wait() >= FLAPPING.max / 2);
        rhythm.refused(false);
        assert!(rhythm.wait() <= UNREACHABLE.initial * 2, "a refusal costs no reconcile");
        rhythm.lasted(GOOD);
        assert!(rhythm.wait() <= FLAPPING.initial * 2);
    }

    #[test]
    fn a_store_that_is_away_is_tried_often_and_one_without_the_call_is_not() {
        let (mut away, mut without) = (Rhythm::default(), Rhythm::default());
        for _ in 0..30 {
            away.refused(false);
            without.refused(true);
        }
        assert!(away.wait() <= UNREACHABLE.max * 3 / 2);
        assert!(without.wait() >= FLAPPING.max / 2);
    }
}
