//! The status page, health, metrics and status over HTTP, and what a person can have done: approve or
//! discard held deletes, and reconcile.
//!
//! Reading needs no token unless `web.read_without_token` is false: the listener is on loopback unless
//! the operator moves it, and nothing shown is a secret. Acting needs one, and is refused altogether while
//! none is configured. The token is only ever read from a header that no other site can make a browser
//! send, so a forged request cannot act. Nothing here waits for a store; an answer is a snapshot.

pub mod client;
mod history;
mod live;
pub(crate) mod page;
mod standby;
mod status;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::deletes::Decision;
use crate::intake::dead_letters::DeadLetters;
use crate::metrics::{self, Metrics};
use crate::serve::BearerToken;
pub use history::History;
pub use live::Latest;
pub use standby::Standby;
pub use status::{
    AtRisk, BucketPending, Concurrency, DelayedDeletes, HeldKey, IntakeStatus, JournalStatus,
    KafkaStatus, KeyCounts, ParkedKey, Status, StoreStatus,
};

/// The answer to an act: how many deletes it concerned, or why it could not be done.
pub type Acted<'a> = Pin<Box<dyn Future<Output = Result<u64, String>> + Send + 'a>>;

/// Some keys of held deletes, or why they cannot be read.
pub type HeldKeys<'a> = Pin<Box<dyn Future<Output = Result<Vec<HeldKey>, String>> + Send + 'a>>;

/// So many keys of held deletes are shown where nobody says how many.
const SHOWN_KEYS: usize = 100;
/// And never more than these.
const MOST_KEYS: usize = 10_000;
/// The most bytes of what is asked for: a key has at most 1,024, which JSON makes six times as long.
const MOST_ASKED: usize = 16 << 10;
/// How long they may take to arrive.
const ASKING: Duration = Duration::from_secs(10);

/// What the pages ask of the running pipeline.
pub trait Operations: Send + Sync {
    /// Everything `/api/v1/status` shows. Cheap: it is called at each scrape.
    fn status(&self) -> Status;

    /// Whether notifications are taken and replicated; else why not, in a sentence.
    fn ready(&self) -> Result<(), String>;

    /// Asks for a pass over one bucket or all, whole or below a prefix, as soon as possible. Answers how
    /// many buckets that is, or why it cannot be.
    fn reconcile(&self, bucket: Option<&str>, prefix: Option<&str>) -> Result<u64, String>;

    /// The held deletes of `bucket`, at most so many, those held longest first.
    fn held_keys<'a>(&'a self, bucket: &'a str, most: usize) -> HeldKeys<'a>;

    /// Carries out a person's decision on the held deletes of `bucket`.
    fn decide<'a>(&'a self, bucket: &'a str, decision: Decision) -> Acted<'a>;
}

/// What the web listener needs.
#[derive(Clone)]
pub struct Web {
    /// The pipeline.
    pub operations: Arc<dyn Operations>,
    /// What was counted.
    pub metrics: Metrics,
    /// What could not be used.
    pub dead_letters: Arc<DeadLetters>,
    /// The token that acting needs (`web.auth_token`).
    pub token: Option<BearerToken>,
    /// Only acting needs it.
    pub read_without_token: bool,
    /// The last hour.
    pub history: History,
    /// The status that open pages share.
    pub latest: Latest,
    /// Ends the streams.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web").finish_non_exhaustive()
    }
}

/// The HTTP interface, for [`crate::serve::run`].
pub fn router(web: Web) -> Router {
    let reading = Router::new()
        .route("/metrics", get(scrape))
        .route("/api/v1/status", get(status))
        .route("/api/v1/stream", get(live::stream))
        .route("/api/v1/history", get(history))
        .route("/api/v1/dead-letters", get(dead_letters))
        .route("/api/v1/deletes", get(deletes))
        .route("/api/v1/deletes/{bucket}", get(held_keys))
        .route_layer(middleware::from_fn_with_state(web.clone(), may_read));
    page::routes()
        .merge(reading)
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/api/v1/deletes/{bucket}/{decision}", post(decide))
        .route("/api/v1/reconcile", post(reconcile))
        .layer(middleware::from_fn(harden))
        .with_state(web)
}

/// Answers are about this moment, and are what they say they are.
async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Reading is for everybody who reaches the listener, unless the operator wants it otherwise.
async fn may_read(State(web): State<Web>, request: Request, next: Next) -> Response {
    let refused = (!web.read_without_token).then(|| refusal(&web, request.headers())).flatten();
    match refused {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// 200 while the process can do its work: only a restart mends a failed journal.
async fn healthy(State(web): State<Web>) -> Response {
    match web.operations.status().journal.failed {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn ready(State(web): State<Web>) -> Response {
    match web.operations.ready() {
        Ok(()) => (StatusCode::OK, "ready\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn scrape(State(web): State<Web>) -> Response {
    let dead_letters = u64::try_from(web.dead_letters.len()).unwrap_or(u64::MAX);
    let status = web.operations.status();
    for intake in &status.intakes {
        let age = Duration::from_millis(intake.backlog_age_ms.unwrap_or(0));
        let backlog = intake.backlog.map(|messages| (messages, age));
        web.metrics.intake_state(intake.name, intake.trouble.is_none(), backlog);
        web.metrics.intake_heard(intake.name, intake.last_event_ms.unwrap_or(0));
    }
    web.metrics.gaps_open(status.gaps.iter().map(|gap| gap.reason));
    match web.metrics.encode(&status.snapshot(dead_letters)) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "Failed to write the metrics.");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn status(State(web): State<Web>) -> Response {
    Json(web.operations.status()).into_response()
}

async fn history(State(web): State<Web>) -> Response {
    Json(json!({ "samples": web.history.list() })).into_response()
}

async fn dead_letters(State(web): State<Web>) -> Response {
    Json(json!({ "dead_letters": web.dead_letters.list() })).into_response()
}

/// What waits to be deleted: for a person, and for its time.
async fn deletes(State(web): State<Web>) -> Response {
    let Status { held, delayed, .. } = web.operations.status();
    Json(json!({ "held": held, "delayed": delayed })).into_response()
}

/// How many are to be shown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    limit: Option<usize>,
}

/// Which deletes of a bucket are held.
async fn held_keys(
    State(web): State<Web>,
    Path(bucket): Path<String>,
    Query(Shown { limit }): Query<Shown>,
) -> Response {
    let most = limit.unwrap_or(SHOWN_KEYS).min(MOST_KEYS);
    match web.operations.held_keys(&bucket, most).await {
        Ok(keys) => Json(json!({ "bucket": bucket, "keys": keys })).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": error }))).into_response()
        }
    }
}

async fn decide(
    State(web): State<Web>,
    Path((bucket, decision)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(decision) = Decision::parse(&decision) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if let Some(refusal) = refusal(&web, &headers) {
        return refusal;
    }
    let verb = decision.name();
    tracing::info!(bucket = %bucket.escape_debug(), decision = verb, "A person decided on held deletes.");
    match web.operations.decide(&bucket, decision).await {
        Ok(count) => Json(json!({ verb: count })).into_response(),
        Err(error) => (StatusCode::CONFLICT, Json(json!({ "error": error }))).into_response(),
    }
}

/// What is to be reconciled; everything, if nothing is said.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Walk {
    bucket: Option<String>,
    prefix: Option<String>,
}

async fn reconcile(State(web): State<Web>, request: Request) -> Response {
    // Before its body is read: a stranger takes neither memory nor time.
    if let Some(refusal) = refusal(&web, request.headers()) {
        return refusal;
    }
    let body = axum::body::to_bytes(request.into_body(), MOST_ASKED);
    let Ok(Ok(body)) = tokio::time::timeout(ASKING, body).await else {
        let error = format!(
            "the body must arrive within {} s, and have at most {MOST_ASKED} bytes",
            ASKING.as_secs()
        );
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response();
    };
    let walk = if body.is_empty() { Ok(Walk::default()) } else { serde_json::from_slice(&body) };
    let Walk { bucket, prefix } = match walk {
        Ok(walk) => walk,
        Err(error) => {
            let error = format!("the body must be {{\"bucket\": …, \"prefix\": …}}: {error}");
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response();
        }
    };
    let prefix = prefix.filter(|prefix| !prefix.is_empty());
    let shown =
        (bucket.as_deref().map(str::escape_debug), prefix.as_deref().map(str::escape_debug));
    tracing::info!(
        bucket = shown.0.map(tracing::field::display),
        prefix = shown.1.map(tracing::field::display),
        "A person asked for a reconcile."
    );
    match web.operations.reconcile(bucket.as_deref(), prefix.as_deref()) {
        Ok(buckets) => Json(json!({ "buckets": buckets })).into_response(),
        Err(error) => (StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response(),
    }
}

fn refusal(web: &Web, headers: &HeaderMap) -> Option<Response> {
    match &web.token {
        None => {
            let error = "acting is turned off: set web.auth_token (or web.auth_token_file) and \
                         send it as \"Authorization: Bearer …\"";
            Some((StatusCode::FORBIDDEN, Json(json!({ "error": error }))).into_response())
        }
        Some(token) if !token.admits(headers) => {
            let error = "send the token of web.auth_token as \"Authorization: Bearer …\"";
            let header = [(WWW_AUTHENTICATE, "Bearer")];
            let body = Json(json!({ "error": error }));
            Some((StatusCode::UNAUTHORIZED, header, body).into_response())
        }
        Some(_) => None,
    }
}
