//! A stop-watch: takes the target's own notifications and notes when each key was written or deleted there.
//! Where MinIO replicates by itself the target tells nobody, and the source tells when it has been done.
//!
//! Nothing is polled, so nothing competes with what is measured.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::data::PREFIX;
use crate::serve::serve;

/// What has become of the objects, as far as it has been told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// When a change of each key was told first, by bucket/key.
    pub(crate) at: HashMap<String, Instant>,
    /// How many changes were told.
    pub(crate) changes: usize,
}

/// Where the notifications arrive.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    seen: Mutex<Seen>,
    keys: watch::Sender<usize>,
}

/// The fields of MinIO's body that are needed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Notification {
    pub(crate) event_name: String,
    /// bucket/key
    pub(crate) key: String,
}

impl Notification {
    /// Whether it tells that an object of the load is now at the target as it is at the source.
    fn counts(&self) -> bool {
        let object = self.key.split_once('/').is_some_and(|(_, key)| key.starts_with(PREFIX));
        // Of a replication MinIO also tells that it failed, or that it was late.
        let done = !self.event_name.starts_with("s3:Replication:")
            || self.event_name == "s3:Replication:OperationCompletedReplication";
        object && done
    }
}

impl Receiver {
    /// Listens on a free port.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State { seen: Mutex::default(), keys: watch::Sender::new(0) });
        let told = Arc::clone(&state);
        tokio::spawn(serve(listener, move |request| take(Arc::clone(&told), request)));
        Ok(Self { port, state })
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        *self.state.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::default();
        self.state.keys.send_replace(0);
    }

    /// Waits until a change of `count` keys has been told, but no longer than `patience`.
    pub(crate) async fn wait(&self, count: usize, patience: Duration) -> Seen {
        let mut keys = self.state.keys.subscribe();
        // Too few is for the caller to judge.
        drop(tokio::time::timeout(patience, keys.wait_for(|keys| *keys >= count)).await);
        self.seen()
    }

    /// What has been told so far.
    pub(crate) fn seen(&self) -> Seen {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn take(state: Arc<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let now = Instant::now();
    if let Ok(body) = request.into_body().collect().await
        && let Ok(notification) = serde_json::from_slice::<Notification>(&body.to_bytes())
        && notification.counts()
    {
        let mut seen = state.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.at.entry(notification.key).or_insert(now);
        seen.changes += 1;
        state.keys.send_replace(seen.at.len());
    }
    Response::new(Full::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(event: &str, key: &str) -> bool {
        Notification { event_name: event.to_owned(), key: key.to_owned() }.counts()
    }

    #[test]
    fn only_what_has_become_of_an_object_of_the_load_counts() {
        let key = format!("bucket/{}", crate::data::key(1));
        assert!(counts("s3:ObjectCreated:Put", &key));
        assert!(counts("s3:ObjectRemoved:Delete", &key));
        assert!(counts("s3:Replication:OperationCompletedReplication", &key));
        assert!(!counts("s3:Replication:OperationFailedReplication", &key));
        assert!(!counts("s3:ObjectCreated:Put", "bucket/canary/1"));
    }
}
