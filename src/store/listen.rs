//! `ListenBucketNotification`: a store tells of changes in an answer that does not end.
//!
//! An extension of MinIO, which RustFS has too. Promise: what does not answer with such a stream is
//! an error that says so, never a stream without events. The stream has no memory: what happens
//! while nobody listens is not told later.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

use super::encode::Query;
use super::request::Call;
use super::stream::ObjectStream;
use super::{ErrorKind, Store, StoreError};

/// A stream of notifications, one JSON document a line.
#[derive(Debug)]
pub struct Listening {
    body: ObjectStream,
}

impl Listening {
    /// The next bytes, as they arrive; `None` when the store has ended the stream. Fails when none
    /// arrived for the silence that was allowed. On cancellation nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.body.next_bytes().await
    }
}

impl Store {
    /// Listens to `events` (in byte order, such as `s3:ObjectCreated:*`) of `bucket`. The store is
    /// asked to send an empty document whenever it has been silent for `ping` (whole seconds); it is
    /// given up on when nothing arrives for `silence`. The answer's head may take as long as any other
    /// byte: MinIO since 2025-10-24 sends nothing until it has 4 KiB to send.
    ///
    /// [`ErrorKind::Invalid`]: the store has no such call, or does not know one of the events.
    pub async fn listen(
        &self,
        bucket: &str,
        events: &[&str],
        ping: Duration,
        silence: Duration,
    ) -> Result<Listening, StoreError> {
        let mut query = Query::default();
        for event in events {
            query = query.with("events", event);
        }
        query = query.with("ping", &ping.as_secs().to_string());
        let call = Call::new("ListenBucketNotification", Method::GET, bucket, "").query(query);
        let answer = self.inner().send(call.silence(silence)).await?;
        if is_stream(&answer.headers) {
            return Ok(Listening { body: answer.body });
        }
        // AWS takes the call for a listing, because it ignores what it does not know.
        let why = "the store answered with something else than a stream of notifications, so it \
                   has no such call";
        Err(answer.origin.error(ErrorKind::Invalid, why))
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_no_stream() {
        let headers = |kind: &'static str| {
            HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(kind))])
        };
        assert!(is_stream(&headers("text/event-stream")));
        assert!(!is_stream(&headers("application/xml")));
        assert!(!is_stream(&HeaderMap::new()));
    }
}
