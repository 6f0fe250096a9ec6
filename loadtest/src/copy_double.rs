//! A double, not a store: every object that is asked for is there, and what is put is only counted.
//!
//! It stands where no real store could: millions of objects would take hours to be put at a source and a
//! target of this machine. As a source it gives each key the same few bytes; as a target it notes which
//! keys were put with exactly those. It lists nothing, so that a reconcile finds nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::data;
use crate::serve::serve;

const CONTENT: &[u8] = b"hello";
/// The MD5 of it.
const ETAG: HeaderValue = HeaderValue::from_static("\"5d41402abc4b2a76b9719d911017c592\"");
const EMPTY_LISTING: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>double</Name>\
    <KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>";

/// The double, listening. Dropping it ends it, with all its connections.
#[derive(Debug)]
pub(crate) struct CopyDouble {
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

/// Which numbered objects were put.
#[derive(Debug)]
struct Seen {
    /// One bit for each number.
    bits: Vec<AtomicU64>,
    distinct: AtomicUsize,
    puts: AtomicUsize,
}

impl CopyDouble {
    /// Listens on this port for objects whose numbers are below `count`.
    pub(crate) async fn start(port: u16, count: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let seen = Arc::new(Seen::below(count));
        let noted = Arc::clone(&seen);
        let answers = serve(listener, move |request| answer(Arc::clone(&noted), request));
        Ok(Self { accepting: tokio::spawn(answers), seen })
    }

    /// How many different objects were put.
    pub(crate) fn distinct(&self) -> usize {
        self.seen.distinct.load(Ordering::Relaxed)
    }

    /// How many PUTs were answered.
    pub(crate) fn puts(&self) -> usize {
        self.seen.puts.load(Ordering::Relaxed)
    }
}

impl Drop for CopyDouble {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(seen: Arc<Seen>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_start_matches('/');
    let key = path.split_once('/').map_or("", |(_, key)| key);
    let bucket_alone = key.is_empty();
    let (status, body) = match (&head.method, bucket_alone) {
        (&Method::HEAD, true) => (StatusCode::OK, Bytes::new()),
        (&Method::GET, true) => (StatusCode::OK, Bytes::from_static(EMPTY_LISTING.as_bytes())),
        // To a HEAD, only the length of it is sent.
        (&Method::GET | &Method::HEAD, false) => (StatusCode::OK, Bytes::from_static(CONTENT)),
        (&Method::PUT, false) => match body.collect().await {
            Ok(body) => (seen.put(key, &body.to_bytes()), Bytes::new()),
            Err(_) => (StatusCode::BAD_REQUEST, Bytes::new()),
        },
        _ => (StatusCode::NOT_IMPLEMENTED, Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // By this name it is known that a GET tells everything.
    headers.insert(header::SERVER, HeaderValue::from_static("MinIO"));
    if !bucket_alone {
        headers.insert(header::ETAG, ETAG);
        let then = HeaderValue::from_static("Mon, 23 Nov 2026 14:26:59 GMT");
        headers.insert(header::LAST_MODIFIED, then);
    }
    response
}

impl Seen {
    fn below(count: usize) -> Self {
        let bits = std::iter::repeat_with(AtomicU64::default).take(count.div_ceil(64)).collect();
        Self { bits, distinct: AtomicUsize::default(), puts: AtomicUsize::default() }
    }

    /// Notes a PUT, which must be of a numbered key with the right content.
    fn put(&self, key: &str, content: &[u8]) -> StatusCode {
        let Some(number) = number(key).filter(|_| content == CONTENT) else {
            return StatusCode::BAD_REQUEST;
        };
        let Some(word) = self.bits.get(number / 64) else { return StatusCode::BAD_REQUEST };
        let bit = 1 << (number % 64);
        let former = word.fetch_or(bit, Ordering::Relaxed);
        self.distinct.fetch_add(usize::from(former & bit == 0), Ordering::Relaxed);
        self.puts.fetch_add(1, Ordering::Relaxed);
        StatusCode::OK
    }
}

/// The number of an object's key as it stands in a path.
fn number(key: &str) -> Option<usize> {
    // No other character of these keys is escaped.
    let key = key.replace("%3D", "=");
    let (_, behind) = key.split_once("/part-")?;
    let number = behind.split('-').next()?.parse().ok()?;
    (data::key(number) == key).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_counts_once_and_only_if_it_is_whole() {
        let seen = Seen::below(100);
        let key = data::key(99).replace('=', "%3D");
        assert_eq!(seen.put(&key, b"hell"), StatusCode::BAD_REQUEST);
        assert_eq!(seen.put("another", CONTENT), StatusCode::BAD_REQUEST);
        assert_eq!(seen.put(&data::key(1 << 20), CONTENT), StatusCode::BAD_REQUEST);
        assert_eq!(seen.distinct.load(Ordering::Relaxed), 0);
        assert_eq!(seen.put(&key, CONTENT), StatusCode::OK);
        assert_eq!(seen.put(&data::key(99), CONTENT), StatusCode::OK);
        assert_eq!(seen.put(&data::key(0), CONTENT), StatusCode::OK);
        assert_eq!(seen.distinct.load(Ordering::Relaxed), 2);
        assert_eq!(seen.puts.load(Ordering::Relaxed), 3);
    }
}
