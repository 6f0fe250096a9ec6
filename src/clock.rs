//! Time, read in one place.
//!
//! Wall-clock time is needed for one thing: the lag, measured from the source's event time. All
//! waiting is done with Tokio's timers, which tests pause.

use std::time::{SystemTime, UNIX_EPOCH};

/// This machine's clock, for what wants more than milliseconds.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since the Unix epoch, by this machine's clock.
pub fn now_ms() -> i64 {
    let now = now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
