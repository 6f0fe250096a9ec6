//! Capturing again and again beside replication, and what is known of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{CaptureReport, capture};
use crate::clock;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::retry::{RetryPolicy, Waits};
use crate::stores::Stores;

/// After a failure it is tried again sooner than planned.
const RETRY: RetryPolicy =
    RetryPolicy { initial: Duration::from_secs(10), max: Duration::from_mins(10) };

/// How capturing goes on.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CaptureStatus {
    /// From one check to the next, in milliseconds.
    pub interval_ms: u64,
    /// When the newest document was last found to say all that the source says, since the start;
    /// milliseconds since the Unix epoch.
    pub checked_ms: Option<i64>,
    /// The key of that document.
    pub document: Option<String>,
    /// Documents are encrypted, and hold the users' secret keys.
    pub encrypted: bool,
    /// Checks since the start that failed, or that could not read everything.
    pub failures: u64,
    /// Why the last one did; absent if it did not.
    pub last_error: Option<String>,
}

/// The schedule, if `[capture]` is configured.
#[derive(Debug)]
pub struct Schedule {
    settings: Arc<Settings>,
    status: Mutex<CaptureStatus>,
}

impl Schedule {
    /// Nothing is asked yet; `None` without `[capture]`.
    pub fn new(settings: &Arc<Settings>) -> Option<Self> {
        let of = settings.capture.as_ref()?;
        let status = CaptureStatus {
            interval_ms: clock::millis(of.interval),
            encrypted: of.passphrase.is_some(),
            ..CaptureStatus::default()
        };
        Some(Self { settings: Arc::clone(settings), status: Mutex::new(status) })
    }

    /// How it goes.
    pub fn status(&self) -> CaptureStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Captures now and at every interval, until stopped; after a failure again soon, less and less often.
    pub async fn run(&self, stores: &Stores, metrics: &Metrics, stop: &CancellationToken) {
        let interval = self.settings.capture.as_ref().map_or(Duration::MAX, |of| of.interval);
        let mut waits = Waits::new(RETRY);
        loop {
            let capturing = Box::pin(capture(stores, &self.settings, false));
            let Some(result) = stop.run_until_cancelled(capturing).await else { return };
            let error = match result {
                Ok((report, _)) => self.note(report),
                Err(error) => Some(error.to_string()),
            };
            let wait = if let Some(error) = error {
                tracing::warn!(%error, "The source's settings could not all be captured; it is tried again.");
                metrics.capture_failed();
                let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
                status.failures += 1;
                status.last_error = Some(error);
                waits.next().min(interval)
            } else {
                waits.reset();
                interval
            };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Keeps what a report says; gives the first problem in it.
    fn note(&self, report: CaptureReport) -> Option<String> {
        if let Some(problem) = report.problems.into_iter().next() {
            return Some(problem);
        }
        if !report.unchanged {
            tracing::info!(document = report.document, "The source's settings were captured.");
        }
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.checked_ms = Some(clock::now_ms());
        status.document = report.document;
        status.last_error = None;
        None
    }
}
