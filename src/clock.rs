//! Time, read in one place.
//!
//! Wall-clock time is needed for one thing: the lag, measured from the source's event time. All
//! waiting is done with Tokio's timers, which tests pause.

/// Milliseconds since the Unix epoch, by this machine's clock.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
