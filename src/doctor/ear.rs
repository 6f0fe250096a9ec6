//! The webhook's port while no evermirror runs: listens for the canary's event, and takes nothing else.
//!
//! **Promise.** Only events of the canary are acknowledged. Every other one is answered 503, so that a
//! source with a queue keeps it for the evermirror that comes; a source without one would have lost
//! it anyway.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use http::{Method, StatusCode};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::settings::WebhookSettings;
use crate::event::{self, Channel};
use crate::intake::tls;
use crate::object::ObjectKey;
use crate::serve::{self, BearerToken, Limits};

/// What has arrived.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// Events of this key are the canary's.
    canary: Option<ObjectKey>,
    /// So many deliveries are still to be refused.
    refuse: usize,
    /// Deliveries of the canary's events, refused ones included.
    pub(super) deliveries: usize,
    /// Requests with a wrong token, or none.
    pub(super) unauthorized: u64,
    /// Other events; they were not taken.
    pub(super) others: u64,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Ear {
    heard: watch::Sender<Heard>,
    task: JoinHandle<()>,
}

struct Hook {
    path: String,
    token: Option<BearerToken>,
    max_body: usize,
    heard: watch::Sender<Heard>,
}

impl Ear {
    /// Opens the webhook's port.
    pub(super) async fn open(settings: &WebhookSettings) -> anyhow::Result<Self> {
        let listener = serve::bind(settings.listen, "intake.webhook.listen").await?;
        let acceptor = settings.tls.as_ref().map(tls::acceptor).transpose()?;
        let (heard, _) = watch::channel(Heard::default());
        let hook = Hook {
            path: settings.path.clone(),
            token: settings.auth_token.as_ref().map(BearerToken::new),
            max_body: usize::try_from(settings.max_body.0).unwrap_or(usize::MAX),
            heard: heard.clone(),
        };
        let router = Router::new().fallback(answer).with_state(Arc::new(hook));
        let limits = Limits::connections(settings.max_connections);
        let run = serve::run(listener, acceptor, router, limits, CancellationToken::new());
        Ok(Self { heard, task: tokio::spawn(run) })
    }

    /// From now on `canary` is what is waited for, and its first `refuse` deliveries are refused.
    pub(super) fn expect(&self, canary: ObjectKey, refuse: usize) {
        let heard = Heard { canary: Some(canary), refuse, ..Heard::default() };
        self.heard.send_replace(heard);
    }

    /// Waits until the canary's events were delivered so often; gives what was heard, in any case.
    pub(super) async fn deliveries(&self, at_least: usize, within: Duration) -> Heard {
        let mut heard = self.heard.subscribe();
        let enough = heard.wait_for(|heard| heard.deliveries >= at_least);
        drop(tokio::time::timeout(within, enough).await);
        self.heard.borrow().clone()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(hook): State<Arc<Hook>>, request: Request) -> StatusCode {
    if request.method() != Method::POST || request.uri().path() != hook.path {
        return StatusCode::OK;
    }
    if !hook.token.as_ref().is_none_or(|token| token.admits(request.headers())) {
        hook.heard.send_modify(|heard| heard.unauthorized += 1);
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(body) = axum::body::to_bytes(request.into_body(), hook.max_body).await else {
        return StatusCode::SERVICE_UNAVAILABLE;
    };
    let events = event::parse(&body, Channel::Push).events;
    let mut status = StatusCode::SERVICE_UNAVAILABLE;
    hook.heard.send_modify(|heard| {
        let canary = heard.canary.as_ref();
        if events.is_empty() || !events.iter().all(|event| Some(&event.key) == canary) {
            heard.others += 1;
            return;
        }
        heard.deliveries += 1;
        if heard.refuse == 0 {
            status = StatusCode::OK;
        } else {
            heard.refuse -= 1;
        }
    });
    status
}
