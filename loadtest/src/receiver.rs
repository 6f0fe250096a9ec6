//! A stop-watch at the target: takes the target's own notifications and notes when each key appeared.
//!
//! Nothing is polled, so nothing competes with what is measured.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Where the target's notifications arrive.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) port: u16,
    seen: Arc<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// First arrivals, by bucket/key.
    at: Mutex<HashMap<String, Instant>>,
    count: watch::Sender<usize>,
}

/// The one field of MinIO's body that is needed.
#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "Key")]
    key: String,
}

impl Receiver {
    /// Listens on a free port.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Seen { at: Mutex::default(), count: watch::Sender::new(0) });
        tokio::spawn(accept(listener, Arc::clone(&seen)));
        Ok(Self { port, seen })
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.seen.at.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.seen.count.send_replace(0);
    }

    /// Waits until `count` keys have appeared, and tells when each did.
    pub(crate) async fn all(&self, count: usize) -> anyhow::Result<HashMap<String, Instant>> {
        let mut watch = self.seen.count.subscribe();
        let waited =
            tokio::time::timeout(Duration::from_mins(1), watch.wait_for(|seen| *seen >= count));
        let waited = waited.await.is_ok();
        let seen = self.seen.at.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !waited {
            bail!("only {} of {count} objects have appeared at the target", seen.len());
        }
        Ok(seen)
    }
}

async fn accept(listener: TcpListener, seen: Arc<Seen>) {
    while let Ok((stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        let service = service_fn(move |request| take(Arc::clone(&seen), request));
        // MinIO closes its idle connections, which is no error of ours.
        tokio::spawn(async move {
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn take(
    seen: Arc<Seen>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let now = Instant::now();
    if let Ok(body) = request.into_body().collect().await
        && let Ok(Notification { key }) = serde_json::from_slice(&body.to_bytes())
    {
        let mut at = seen.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.entry(key).or_insert(now);
        seen.count.send_replace(at.len());
    }
    Ok(Response::new(Full::default()))
}
