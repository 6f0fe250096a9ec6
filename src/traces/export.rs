//! Spans out of the process: a bounded queue, batches, and HTTP to the collector.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::tls_config;

/// Spans that may wait for the collector.
const QUEUE: usize = 8_192;
/// Spans sent at once.
const BATCH: usize = 512;
/// The longest that a span waits for others, so that they are sent together.
const LINGER: Duration = Duration::from_secs(1);
/// The longest that a collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a stop waits for the last spans.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// At most one log line about spans without room in this time.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;

/// Where ended spans are put.
#[derive(Debug)]
pub(super) struct Sender {
    queue: mpsc::Sender<SpanData>,
    no_room: Arc<AtomicU64>,
}

impl Sender {
    /// Never waits: a span for which there is no room is counted and lost.
    pub(super) fn send(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.no_room.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The task that sends spans.
#[derive(Debug)]
pub struct Exporting {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Sends what was recorded, within five seconds.
    pub async fn finish(self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_LIMIT, self.task).await.is_err() {
            tracing::warn!("The collector did not take the last spans in time; they are lost.");
        }
    }
}

/// Builds the exporter for what the environment says, and starts to send.
pub(super) fn start(endpoint: &str) -> anyhow::Result<(Sender, Exporting)> {
    let refused = |error: &dyn std::fmt::Display| {
        anyhow::anyhow!(
            "traces cannot be exported to {endpoint}: {error}; see OTEL_EXPORTER_OTLP_ENDPOINT"
        )
    };
    let client = Http::new(endpoint.starts_with("https:")).map_err(|error| refused(&error))?;
    let builder = SpanExporter::builder().with_http().with_http_client(client);
    let mut exporter = builder.build().map_err(|error| refused(&error))?;
    exporter.set_resource(&resource());
    let (queue, spans) = mpsc::channel(QUEUE);
    let no_room = Arc::new(AtomicU64::new(0));
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(exporter, spans, Arc::clone(&no_room), stop.clone()));
    Ok((Sender { queue, no_room }, Exporting { stop, task }))
}

/// Who we are: `evermirror`, unless the environment says otherwise.
fn resource() -> Resource {
    let named = |name: &str, what: &str| {
        std::env::var(name).is_ok_and(|text| !text.is_empty() && text.contains(what))
    };
    let builder = Resource::builder();
    if named("OTEL_SERVICE_NAME", "") || named("OTEL_RESOURCE_ATTRIBUTES", "service.name=") {
        builder.build()
    } else {
        builder.with_service_name("evermirror").build()
    }
}

async fn run(
    exporter: SpanExporter,
    mut spans: mpsc::Receiver<SpanData>,
    no_room: Arc<AtomicU64>,
    stop: CancellationToken,
) {
    let (mut lost, mut told): (_, Option<Instant>) = (None, None);
    loop {
        let batch = batch(&mut spans, &stop).await;
        if batch.is_empty() {
            return;
        }
        let count = batch.len();
        match exporter.export(batch).await {
            Ok(()) => {
                if let Some(lost) = lost.take() {
                    tracing::info!(lost, "Traces are exported again.");
                }
            }
            Err(error) => {
                if lost.is_none() {
                    tracing::warn!(%error, "Traces cannot be exported, and spans are lost until they can. The endpoint must speak OTLP over HTTP (port 4318 as a rule).");
                }
                *lost.get_or_insert(0) += count;
            }
        }
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            let spans = no_room.swap(0, Ordering::Relaxed);
            if spans > 0 {
                told = Some(Instant::now());
                tracing::warn!(
                    spans,
                    "More spans were recorded than the collector takes; these are lost. OTEL_TRACES_SAMPLER=traceidratio records a share."
                );
            }
        }
    }
}

/// The next spans; none at the end.
async fn batch(spans: &mut mpsc::Receiver<SpanData>, stop: &CancellationToken) -> Vec<SpanData> {
    let mut batch = Vec::new();
    if stop.run_until_cancelled(spans.recv_many(&mut batch, BATCH)).await.is_none() {
        // What is in the queue is still given.
        spans.close();
        spans.recv_many(&mut batch, BATCH).await;
    }
    let linger = Instant::now() + LINGER;
    while (1..BATCH).contains(&batch.len()) {
        let room = BATCH - batch.len();
        let more = spans.recv_many(&mut batch, room);
        match stop.run_until_cancelled(tokio::time::timeout_at(linger, more)).await {
            Some(Ok(more)) if more > 0 => {}
            Some(_) | None => break,
        }
    }
    batch
}

/// The client that the exporter asks.
#[derive(Debug)]
struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    fn new(https: bool) -> io::Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(None, https)?)
            .https_or_http()
            .enable_http1()
            .build();
        let client =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self(client))
    }
}

#[async_trait::async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let (head, body) = self.0.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        tokio::time::timeout(TIMEOUT, exchange).await?
    }
}
