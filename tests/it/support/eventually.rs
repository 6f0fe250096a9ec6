//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Generous, because the tests share two slow cores with each other and with the servers.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// For what a whole backlog, or the source's redelivery, must settle first.
pub(crate) const LATER: Duration = Duration::from_mins(4);

/// Asks `probe` until it answers `Ok`, and panics with its last reason when `within` has passed.
pub(crate) async fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let began = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(reason) if began.elapsed() > within => {
                panic!("{what}: not within {within:?}. At the end: {reason}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
