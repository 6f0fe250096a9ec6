//! The listen stream: one long request per bucket, and nothing to configure at the store.
//!
//! **Promise.** Every event that arrives goes through the same door as all others. The stream has no
//! memory, so each time that one begins, a gap of its bucket is recorded before anything is read from
//! it, and the reconciler finds what happened while nobody listened. **On error** the trouble is shown
//! and another stream is begun, ever later while streams do not last, so that a connection that comes
//! and goes does not make the reconciler run without end. **On cancellation** and **on crash** events
//! that were read and are not yet durable are lost; the reconcile at the next start finds them.

mod lines;
mod rhythm;
mod troubles;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Inlet, Intake, IntakeHealth};
use crate::clock;
use crate::gaps::GapReason;
use crate::metrics::{Metrics, Stage};
use crate::store::{ErrorKind, Listening, Store, StoreError};
use lines::Lines;
use rhythm::Rhythm;
use troubles::Troubles;

/// How often a silent store is to say that it is there: as often as can be asked for, because MinIO
/// since 2025-10-24 sends only when it has 4 KiB, and these are what fills them up on a quiet bucket.
const PING: Duration = Duration::from_secs(1);
/// An event that took longer than this to become durable may have cost others.
const SLOW_ACCEPT: Duration = Duration::from_secs(1);
/// After this without an answer, the wait for it is shown as trouble.
const SLOW_ANSWER: Duration = Duration::from_secs(30);

/// What RustFS tells of in families of their own. MinIO tells of the same within the first two of
/// [`BASIC_EVENTS`], and refuses a request that names an event it does not know.
const ALL_EVENTS: [&str; 5] = [
    "s3:LifecycleExpiration:*",
    "s3:ObjectCreated:*",
    "s3:ObjectRemoved:*",
    "s3:ObjectRemoved:DeleteAllVersions",
    "s3:ObjectTagging:*",
];
const BASIC_EVENTS: [&str; 3] =
    ["s3:LifecycleDelMarkerExpiration:Delete", "s3:ObjectCreated:*", "s3:ObjectRemoved:*"];

/// The listen streams of all buckets.
#[derive(Debug)]
pub struct ListenIntake {
    source: Store,
    buckets: Vec<String>,
    max_silence: Duration,
    inlet: Arc<Inlet>,
    metrics: Metrics,
    health: Arc<IntakeHealth>,
}

impl ListenIntake {
    /// Listens to `buckets` of `source`. A stream that is silent for `max_silence` is given up.
    pub fn new(
        source: Store,
        buckets: Vec<String>,
        max_silence: Duration,
        inlet: Arc<Inlet>,
        metrics: Metrics,
    ) -> Self {
        let health = Arc::new(IntakeHealth::new("listen", source.endpoint().to_owned()));
        Self { source, buckets, max_silence, inlet, metrics, health }
    }

    /// Listens to one bucket for ever.
    async fn listen(&self, bucket: &str, troubles: &Troubles<'_>) {
        let mut events = &ALL_EVENTS[..];
        let mut rhythm = Rhythm::default();
        loop {
            let ended = match self.open(bucket, events, troubles).await {
                Ok(stream) => {
                    let began = Instant::now();
                    let ended = self.read(bucket, stream, troubles).await;
                    rhythm.lasted(began.elapsed());
                    ended
                }
                Err(error) if is_unknown_event(&error) && events.len() == ALL_EVENTS.len() => {
                    events = &BASIC_EVENTS;
                    continue;
                }
                Err(error) => {
                    rhythm.refused(error.kind == ErrorKind::Invalid);
                    error.to_string()
                }
            };
            self.metrics.error(Stage::Intake, "listen");
            let wait = rhythm.wait();
            if troubles.set(bucket, &ended) {
                tracing::warn!(
                    bucket,
                    error = %ended,
                    try_again_in_ms = clock::millis(wait),
                    "No notification arrives by the listen stream; what is missed is found by reconciling."
                );
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Begins a stream. Its answer may be long in coming, and events may be in it already, so it is
    /// waited for; that is shown.
    async fn open(
        &self,
        bucket: &str,
        events: &[&str],
        troubles: &Troubles<'_>,
    ) -> Result<Listening, StoreError> {
        let mut opening = Box::pin(self.source.listen(bucket, events, PING, self.max_silence));
        if let Ok(opened) = tokio::time::timeout(SLOW_ANSWER, &mut opening).await {
            return opened;
        }
        troubles.set(bucket, SLOW_REASON);
        opening.await
    }

    /// Takes what the stream tells until it ends, and says why it ended.
    async fn read(&self, bucket: &str, mut stream: Listening, troubles: &Troubles<'_>) -> String {
        let doubt = self.inlet.doubt(bucket, GapReason::StreamBegan, clock::now_ms());
        if let Err(error) = doubt.await {
            return format!("the stream was not read: {error}");
        }
        if troubles.clear(bucket) {
            tracing::info!(bucket, "Notifications arrive by the listen stream.");
        }
        let mut lines = Lines::default();
        loop {
            let limit = lines.silence(PING, self.max_silence);
            let bytes = match tokio::time::timeout(limit, stream.next()).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None)) => return "the store ended the stream".to_owned(),
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("the store was silent for {limit:?}"),
            };
            let Ok(parsed) = lines.read(&bytes) else {
                return format!("a line is longer than {} bytes", lines::MAX_LINE);
            };
            if parsed.is_some() {
                self.health.heard(clock::now_ms());
            }
            let Some(parsed) = parsed else {
                troubles.clear(bucket);
                continue;
            };
            let offered = Instant::now();
            if self.inlet.accept(parsed, clock::now_ms()).await.is_err() {
                // The inlet has logged it and recorded the gap; later events may fare better.
                troubles.set(
                    bucket,
                    "an event could not be made durable; the bucket will be reconciled",
                );
                continue;
            }
            troubles.clear(bucket);
            // Nothing was read meanwhile, and MinIO drops events for whoever reads slowly without a word
            // (`select { case ch <- item: default: }` in its internal/pubsub).
            if offered.elapsed() > SLOW_ACCEPT {
                let doubt = self.inlet.doubt(bucket, GapReason::NotTaken, clock::now_ms());
                if let Err(error) = doubt.await {
                    return format!("the stream was read too slowly: {error}");
                }
            }
        }
    }
}

const SLOW_REASON: &str = "the store has not answered yet; MinIO of 2025-10-24 and later answers \
                           only when it has 4 KiB to send, some minutes on a quiet bucket: use \
                           [intake.webhook] with it";

#[async_trait::async_trait]
impl Intake for ListenIntake {
    fn health(&self) -> Arc<IntakeHealth> {
        Arc::clone(&self.health)
    }

    async fn run(self: Box<Self>, stop: CancellationToken) {
        let troubles = Troubles::new(&self.health);
        for bucket in &self.buckets {
            troubles.set(bucket, "the stream has not begun yet");
        }
        let streams = self.buckets.iter().map(|bucket| self.listen(bucket, &troubles));
        stop.run_until_cancelled(join_all(streams)).await;
    }
}

/// MinIO names the whole request wrong when it does not know one of the events.
fn is_unknown_event(error: &StoreError) -> bool {
    error.code.as_deref() == Some("InvalidArgument")
}
