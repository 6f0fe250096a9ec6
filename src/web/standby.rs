//! What a standby answers: that it lives, and that it is not the active one.
//!
//! **Promise.** The webhook's port is closed, so no notification is acknowledged. `/healthz` is 200: a
//! restart would mend nothing. `/readyz` is 503, as is everything else, with the reason; the status page is
//! there, and says who is the active one.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::page;
use crate::metrics::{self, ACTIVE};
use crate::serve::{self, BindError, Limits};

/// Readers have so long for their answers before the port goes to the pipeline.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The web listener of a standby.
#[derive(Debug)]
pub struct Standby {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Standby {
    /// Opens the listener; `state` says what is waited for.
    pub async fn open(
        listen: SocketAddr,
        state: watch::Receiver<String>,
    ) -> Result<Self, BindError> {
        let listener = serve::bind(listen, "web.listen").await?;
        let router = Router::new()
            .route("/healthz", get(healthy))
            .route("/metrics", get(scrape))
            .merge(page::routes())
            .fallback(elsewhere)
            .with_state(state);
        let stop = CancellationToken::new();
        let running = serve::run(listener, None, router, Limits::connections(64), stop.clone());
        Ok(Self { stop, serving: tokio::spawn(running) })
    }

    /// Closes it; the port is free afterwards.
    pub async fn close(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(LAST_ANSWERS, &mut self.serving).await.is_err() {
            self.serving.abort();
            // It was told to end.
            drop(self.serving.await);
        }
    }
}

async fn healthy(State(state): State<watch::Receiver<String>>) -> Response {
    (StatusCode::OK, format!("standby: {}\n", *state.borrow())).into_response()
}

async fn scrape() -> Response {
    let text = format!("# TYPE {ACTIVE} gauge\n{ACTIVE} 0\n# EOF\n");
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn elsewhere(State(state): State<watch::Receiver<String>>) -> Response {
    let reason = state.borrow().clone();
    let error = format!("this process is a standby: {reason}");
    let answer = json!({ "error": error, "standby": reason });
    (StatusCode::SERVICE_UNAVAILABLE, Json(answer)).into_response()
}
