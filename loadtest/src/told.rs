//! The bare loop as a replicator that learns of the changes as evermirror does: from the source's webhook. It
//! answers each notification at once, keeps nothing of it, and repeats the change at the target.
//!
//! What it is slower than the loop that knows the keys is what a source's notifications cost.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::bare::{self, Route};
use crate::receiver::Notification;
use crate::serve::serve;

/// More than any workload changes, so that no notification waits for an answer.
const MOST: usize = 100_000;

/// It at work. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Told {
    serving: JoinHandle<()>,
    repeating: JoinHandle<anyhow::Result<()>>,
}

impl Told {
    /// Listens on this port.
    pub(crate) async fn start(port: u16, route: Route) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let (tell, told) = mpsc::channel(MOST);
        let repeating = tokio::spawn(bare::follow(told, bare::workers(), move |event| {
            let route = route.clone();
            async move { repeat(&route, event).await }
        }));
        let serving = tokio::spawn(serve(listener, move |request| take(tell.clone(), request)));
        Ok(Self { serving, repeating })
    }

    /// Ends it, and tells what failed.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        // Then nobody tells it more, and it ends by itself.
        self.serving.abort();
        (&mut self.repeating).await?
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.serving.abort();
        self.repeating.abort();
    }
}

async fn take(
    tell: mpsc::Sender<Notification>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if let Ok(body) = request.into_body().collect().await
        && let Ok(notification) = serde_json::from_slice(&body.to_bytes())
    {
        // What is left out is missed at the target, and the workload fails.
        drop(tell.try_send(notification));
    }
    Response::new(Full::default())
}

async fn repeat(route: &Route, event: Notification) -> anyhow::Result<()> {
    let Some((_, key)) = event.key.split_once('/') else { return Ok(()) };
    if event.event_name.starts_with("s3:ObjectRemoved:") {
        let keys = vec![key.to_owned()];
        crate::data::delete(&route.target, &route.target_bucket, keys).await
    } else {
        route.copy(key).await
    }
}
