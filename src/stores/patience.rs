//! Asking a store while a person waits: for some seconds, not for ever; and what to tell that person then.

use std::time::Duration;

use crate::retry::{RetryPolicy, Waits};
use crate::store::{ErrorKind, StoreError};

/// How often a request that may succeed later is made.
const TRIES: u32 = 5;
const RETRY: RetryPolicy =
    RetryPolicy { initial: Duration::from_millis(200), max: Duration::from_secs(5) };

/// Repeats what may succeed later, a bounded number of times.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
    ask: impl Fn() -> F,
) -> Result<T, StoreError> {
    let (mut tries, mut waits) = (0, Waits::new(RETRY));
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        tries += 1;
        let passes =
            matches!(error.kind, ErrorKind::Transient | ErrorKind::Throttled | ErrorKind::Corrupt);
        if !passes || tries == TRIES {
            return Err(error);
        }
        tokio::time::sleep(waits.next()).await;
    }
}

/// One side of a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the {side} cannot be used: {error}; {}", advice(side, error.kind))]
pub struct Unusable {
    /// `source` or `target`, as the configuration names it; `destination` for another one.
    pub side: &'static str,
    /// What it answered.
    pub error: Box<StoreError>,
}

impl Unusable {
    /// For `map_err`.
    pub(crate) fn of(side: &'static str) -> impl FnOnce(StoreError) -> Self {
        move |error| Self { side, error: Box::new(error) }
    }

    /// The target answers, and has no such bucket.
    pub(crate) fn is_missing_target(&self) -> bool {
        self.side == "target" && self.error.kind == ErrorKind::NoSuchBucket
    }
}

fn advice(side: &str, kind: ErrorKind) -> String {
    if side == "destination" {
        return "check --to-endpoint, --to-region and the keys for it".to_owned();
    }
    super::prepare::advice(side, kind)
}
