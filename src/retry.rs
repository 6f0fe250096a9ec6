//! How long what failed waits until it is tried again; the only file that names the `backoff` crate.
//!
//! The crate is unmaintained (RUSTSEC-2025-0012) and fixed by the product's owner; only its
//! interval arithmetic is used, so replacing it is a change to this file.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;

/// Doubling waits with jitter, from `initial` up to `max`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// The first wait, before jitter.
    pub(crate) initial: Duration,
    /// The longest wait, before jitter.
    pub(crate) max: Duration,
}

/// After this many doublings every sensible maximum is reached.
const DOUBLINGS: u32 = 20;

impl RetryPolicy {
    /// The wait before try number `attempts + 1`, given that `attempts` have failed before this
    /// failure: half to one and a half times the doubled initial wait, so that keys that failed together
    /// do not come back together.
    pub(crate) fn delay(&self, attempts: u32) -> Duration {
        let mut backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(self.initial)
            .with_multiplier(2.0)
            .with_randomization_factor(0.5)
            .with_max_interval(self.max)
            .with_max_elapsed_time(None)
            .build();
        let mut delay = self.initial;
        for _ in 0..=attempts.min(DOUBLINGS) {
            delay = backoff.next_backoff().unwrap_or(self.max);
        }
        delay
    }
}

/// The waits of one thing that is tried again and again, by its policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    policy: RetryPolicy,
    /// In a row.
    failures: u32,
}

impl Waits {
    /// Nothing has failed yet.
    pub(crate) const fn new(policy: RetryPolicy) -> Self {
        Self { policy, failures: 0 }
    }

    /// It failed again: how long to wait before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        let delay = self.policy.delay(self.failures);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// It succeeded: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_within_their_jitter() {
        let policy =
            RetryPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(5) };
        for (attempts, middle_ms) in [(0, 100), (1, 200), (3, 800), (10, 5_000), (1_000_000, 5_000)]
        {
            let delay = policy.delay(attempts).as_millis();
            let range = middle_ms / 2..=middle_ms * 3 / 2;
            assert!(range.contains(&delay), "{attempts}: {delay} not in {range:?}");
        }
    }
    #[test]
    fn waits_grow_with_each_failure_and_begin_again_after_a_success() {
        let max = Duration::from_secs(5);
        let mut waits = Waits::new(RetryPolicy { initial: Duration::from_millis(100), max });
        let first = waits.next();
        assert!(first <= Duration::from_millis(150), "{first:?}");
        let grown = (0..20).map(|_| waits.next()).last().unwrap();
        assert!(grown >= max / 2, "{grown:?}");
        waits.reset();
        assert!(waits.next() <= Duration::from_millis(150));
    }
}
