//! The time until which this process may act; every act asks it first.
//!
//! **Promise.** Once [`Fence::holds`] has answered no, it never answers yes again to anybody who acts:
//! a fence that fell stays down. The clock is the one that also counts while the machine sleeps, so a
//! process that was suspended finds its fence down when it wakes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock;

/// Down for good.
const DOWN: u64 = 0;
/// There is nothing to lose: it stands for ever.
const FOR_EVER: u64 = u64::MAX;

/// Until when this process may write to the target and acknowledge notifications.
#[derive(Debug)]
pub struct Fence(AtomicU64);

impl Fence {
    /// For a process that is the only one: it stands for ever.
    pub const fn alone() -> Self {
        Self(AtomicU64::new(FOR_EVER))
    }

    /// Stands until this moment of [`clock::since_boot`].
    pub fn until(moment: Duration) -> Self {
        Self(AtomicU64::new(millis(moment)))
    }

    /// Whether this process may act now.
    pub fn holds(&self) -> bool {
        let until = self.0.load(Ordering::Acquire);
        until == FOR_EVER || (until != DOWN && millis(clock::since_boot()) < until)
    }

    /// Stands until this moment, if it still stood at `now`; returns whether it did.
    pub fn extend(&self, now: Duration, moment: Duration) -> bool {
        let extended = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |until| {
            (until != DOWN && millis(now) < until).then(|| until.max(millis(moment)))
        });
        extended.is_ok()
    }

    /// Falls now.
    pub fn fall(&self) {
        self.0.store(DOWN, Ordering::Release);
    }
}

fn millis(moment: Duration) -> u64 {
    // Neither of the two values that mean something else.
    clock::millis(moment).clamp(DOWN + 1, FOR_EVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_that_fell_is_never_raised() {
        let now = clock::since_boot();
        let minute = Duration::from_mins(1);
        let fence = Fence::until(now + minute);
        assert!(fence.holds());
        assert!(fence.extend(now, now + 2 * minute));
        assert!(!fence.extend(now + 3 * minute, now + 9 * minute), "its time was over");
        assert!(fence.holds());
        fence.fall();
        assert!(!fence.holds());
        assert!(!fence.extend(now, now + minute));
        assert!(!fence.holds());
    }

    #[test]
    fn an_extension_never_shortens_it() {
        let now = clock::since_boot();
        let fence = Fence::until(now + Duration::from_mins(1));
        assert!(fence.extend(now, now));
        assert!(fence.holds());
    }

    #[test]
    fn who_is_alone_may_always_act() {
        assert!(Fence::alone().holds());
        assert!(!Fence::until(Duration::ZERO).holds());
    }
}
