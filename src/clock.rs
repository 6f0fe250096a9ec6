//! Time, read in one place.
//!
//! Wall-clock time is needed for one thing: the lag, measured from the source's event time. All
//! waiting is done with Tokio's timers, which tests pause; only a lease counts by the clock that also
//! runs while the machine sleeps.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Another text each time the machine is started (proc(5), `/proc/sys/kernel/random/boot_id`); `None` where the system
/// does not tell.
pub fn boot_id() -> Option<String> {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(read.trim().to_owned()).filter(|id| !id.is_empty())
}
