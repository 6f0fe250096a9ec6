//! The webhook: `POST` a notification, get 2xx once it is durable.
//!
//! **Answers.** 200: everything in the body is durable, or known to be of no use (then it is in the
//! dead-letter list). 401: no token, or a wrong one. 400, 408, 413: the body broke off, did not arrive in
//! time, or is over the limit; every bucket is reconciled instead. 503: not durable within `max_wait`, or
//! no room in memory for its body; a gap is recorded. `HEAD` and `GET` on `/`, `/healthz` and the hook's path answer 200 without a
//! token, because RustFS probes so.
//!
//! **On cancellation** (the sender hangs up, at whatever moment after its headers) nothing was acknowledged,
//! and a gap is recorded: for the buckets in the body, or for every one while it was not read.

mod body;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::body::{Bodies, Held, Unread};
use super::{Inlet, Intake, IntakeHealth};
use crate::clock;
use crate::event::{self, Channel};
use crate::metrics::{Metrics, RequestOutcome, Stage};
use crate::serve::{self, BearerToken, Guest, Limits};

/// Seconds after which a refused sender should try again.
const RETRY_SECONDS: &str = "5";

/// What the webhook needs.
#[derive(Debug)]
pub struct Webhook {
    /// The path that takes POSTs (`intake.webhook.path`).
    pub path: String,
    /// The token every POST must carry, if any.
    pub token: Option<BearerToken>,
    /// The largest accepted body, in bytes.
    pub max_body: usize,
    /// Where notifications go.
    pub inlet: Arc<Inlet>,
    /// Where requests are counted.
    pub metrics: Metrics,
}

/// The webhook and its port.
pub struct WebhookIntake {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    max_connections: usize,
    health: Arc<IntakeHealth>,
}

impl fmt::Debug for WebhookIntake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookIntake").field("health", &self.health).finish_non_exhaustive()
    }
}

impl WebhookIntake {
    /// Serves `webhook` on `listener`.
    pub fn new(
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        webhook: Webhook,
        max_connections: usize,
    ) -> std::io::Result<Self> {
        let health = Arc::new(IntakeHealth::new("webhook", listener.local_addr()?.to_string()));
        Ok(Self {
            listener,
            tls,
            router: router(webhook, Arc::clone(&health)),
            max_connections,
            health,
        })
    }
}

#[async_trait::async_trait]
impl Intake for WebhookIntake {
    fn health(&self) -> Arc<IntakeHealth> {
        Arc::clone(&self.health)
    }

    async fn run(self: Box<Self>, stop: CancellationToken) {
        let limits = Limits::connections(self.max_connections);
        serve::run(self.listener, self.tls, self.router, limits, stop).await;
    }
}

/// The webhook's HTTP interface, for [`crate::serve::run`].
pub fn router(webhook: Webhook, health: Arc<IntakeHealth>) -> Router {
    let bodies = Bodies::new(webhook.max_body);
    Router::new().fallback(answer).with_state(Arc::new(Hook { webhook, health, bodies }))
}

/// What all requests share.
#[derive(Debug)]
struct Hook {
    webhook: Webhook,
    health: Arc<IntakeHealth>,
    bodies: Bodies,
}

/// Routes by hand: the operator chooses the path, which may be one of the others' or hold
/// characters that mean something to a router.
async fn answer(State(hook): State<Arc<Hook>>, request: Request) -> Response {
    let path = request.uri().path();
    let is_hook = path == hook.webhook.path;
    match *request.method() {
        Method::POST if is_hook => receive(&hook, request).await,
        Method::GET | Method::HEAD if is_hook || path == "/" || path == "/healthz" => {
            StatusCode::OK.into_response()
        }
        _ if is_hook => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn receive(hook: &Hook, request: Request) -> Response {
    let Hook { webhook, health, bodies } = hook;
    let began = Instant::now();
    if !webhook.token.as_ref().is_none_or(|token| token.admits(request.headers())) {
        webhook.metrics.intake_request(RequestOutcome::Unauthorized);
        // Closed, so that strangers hold no connections that the store needs.
        let headers = [(WWW_AUTHENTICATE, "Bearer"), (CONNECTION, "close")];
        return (StatusCode::UNAUTHORIZED, headers).into_response();
    }
    if let Some(guest) = request.extensions().get::<Guest>() {
        guest.admit();
    }
    let received_ms = clock::now_ms();
    health.heard(received_ms);
    let offered = webhook.inlet.offered(received_ms);
    // Its room in memory is kept until the journal has what it says.
    let Held { bytes, room: _room } = match bodies.read(request).await {
        Ok(held) => held,
        Err(unread) => {
            let answer = refuse_body(webhook, unread, received_ms).await;
            offered.settled();
            return answer;
        }
    };
    let parsed = event::parse(&bytes, Channel::Push);
    drop(bytes);
    // From here on `accept` stands for it: nothing can be dropped before it is polled.
    offered.settled();
    if webhook.inlet.accept(parsed, received_ms).await.is_err() {
        // The inlet has logged it and recorded the gap.
        webhook.metrics.intake_request(RequestOutcome::Unavailable);
        return unavailable();
    }
    webhook.metrics.intake_request(RequestOutcome::Ok);
    webhook.metrics.intake_acknowledged(began.elapsed());
    StatusCode::OK.into_response()
}

/// Answers a notification that was not read, once every bucket is recorded as in doubt.
async fn refuse_body(webhook: &Webhook, unread: Unread, received_ms: i64) -> Response {
    let (outcome, class, status) = match unread {
        Unread::TooLarge(_) => {
            (RequestOutcome::TooLarge, "body_too_large", StatusCode::PAYLOAD_TOO_LARGE)
        }
        Unread::Late => (RequestOutcome::Invalid, "body_late", StatusCode::REQUEST_TIMEOUT),
        Unread::Broken => (RequestOutcome::Invalid, "body_broken", StatusCode::BAD_REQUEST),
        Unread::NoRoom => {
            (RequestOutcome::Unavailable, "bodies_full", StatusCode::SERVICE_UNAVAILABLE)
        }
    };
    let recorded = if let Unread::TooLarge(bytes) = unread {
        tracing::warn!(
            bytes,
            limit = webhook.max_body,
            "A notification is too large and was refused; every bucket will be reconciled. \
             Raise intake.webhook.max_body if it was genuine."
        );
        webhook.inlet.too_large(bytes, received_ms).await.is_ok()
    } else {
        webhook.inlet.unread(class, received_ms).await.is_ok()
    };
    let (outcome, class, status) = if recorded {
        (outcome, class, status)
    } else {
        (RequestOutcome::Unavailable, "gap_book", StatusCode::SERVICE_UNAVAILABLE)
    };
    webhook.metrics.intake_request(outcome);
    webhook.metrics.error(Stage::Intake, class);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return unavailable();
    }
    status.into_response()
}

fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_SECONDS)]).into_response()
}
