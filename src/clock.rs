//! Time, read in one place.
//!
//! Wall-clock time is needed for one thing: the lag, measured from the source's event time. All
//! waiting is done with Tokio's timers, which tests pause; only a lease counts by the clock that also
//! runs while the machine sleeps.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// This machine's clock, for what wants more than milliseconds.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since the Unix epoch, by this machine's clock.
pub fn now_ms() -> i64 {
    let now = now().duration_since(UNIX_EPOCH);
    now.map_or(0, signed_millis)
}

/// A span in whole milliseconds; what is longer than they can tell is the longest that they can.
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The same, to be added to a time or taken from it.
pub fn signed_millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The time since the machine was started, that during which it slept included: for deadlines that
/// others rely on, who did not sleep meanwhile.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // The kernel keeps both parts from being negative.
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// A moment by the clock that nobody sets, for another process to read: it tells how long ago that was while the machine
/// is not started anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinceBoot {
    /// proc(5), `/proc/sys/kernel/random/boot_id`: another text each time the machine is started.
    boot: String,
    ms: u64,
}

impl SinceBoot {
    /// `None` where the system does not tell.
    pub fn now() -> Option<Self> {
        let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let boot = Some(read.trim().to_owned()).filter(|id| !id.is_empty())?;
        Some(Self { boot, ms: millis(since_boot()) })
    }

    /// How many milliseconds it was before `now`, unless the machine was started in between.
    pub fn ms_before(&self, now: &Self) -> Option<u64> {
        // Less than then: another time namespace (time_namespaces(7)).
        now.ms.checked_sub(self.ms).filter(|_| self.boot == now.boot)
    }

    /// The same moment of an earlier start of the machine.
    #[cfg(test)]
    pub(crate) fn of_an_earlier_boot(&self) -> Self {
        Self { boot: format!("{} before", self.boot), ms: self.ms }
    }

    /// So much earlier.
    #[cfg(test)]
    pub(crate) fn earlier(&self, ms: u64) -> Self {
        Self { ms: self.ms - ms, ..self.clone() }
    }
}
