//! The client of one store, and its calls on single objects.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, ETAG, IF_MATCH, RANGE};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::BodyExt as _;

use super::body::RequestBody;
use super::credentials::Credentials;
use super::encode::Query;
use super::failure::CallSite;
use super::http::{Transport, tls_config};
use super::request::Call;
use super::view::View;
use super::{
    ErrorKind, GetOptions, ObjectBody, ObjectHead, PutBody, PutOutcome, Side, StoreError, Tags,
    admin, xml,
};
use crate::config::settings::StoreSettings;
use crate::fence::Fence;
use crate::object::ETag;

/// The largest document that a call on one object answers.
pub(super) const MAX_DOCUMENT: u64 = 1 << 20;

/// Why a store's client could not be built; nothing was sent to the store yet.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint is not one.
    #[error("endpoint {endpoint:?}: {reason}")]
    Endpoint {
        /// As configured.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `ca_file`, or the system's certificates, cannot be read.
    #[error("failed to load the trusted certificates: {0}")]
    Certificates(String),
    /// There are no credentials.
    #[error("failed to load the credentials: {0}")]
    Credentials(String),
}

/// The client of one store; cheap to clone, and all clones share one connection pool.
#[derive(Clone)]
pub struct Store(Arc<Inner>, Option<Arc<View>>);

/// What the clones share.
pub(super) struct Inner {
    pub(super) transport: Transport,
    pub(super) credentials: Credentials,
    pub(super) side: Side,
    pub(super) endpoint: Arc<str>,
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) host: HeaderValue,
    pub(super) path_style: bool,
    region: String,
    admin: admin::Client,
    /// The store's clock less ours.
    pub(super) skew_ms: AtomicI64,
    /// The store's clock less ours, by its last listing.
    pub(super) clock_ahead_ms: AtomicI64,
    /// The last `Server` header.
    pub(super) server: RwLock<Option<HeaderValue>>,
    /// The store calls itself Amazon S3.
    pub(super) is_aws: AtomicBool,
    /// The store does not honour `start-after`.
    pub(super) ignores_start: AtomicBool,
    /// The store has no `DeleteObjects`.
    pub(super) deletes_singly: AtomicBool,
    /// Nothing is written once it has fallen.
    pub(super) fence: OnceLock<Arc<Fence>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.0.endpoint).finish()
    }
}

impl Store {
    /// Builds the client of the store in `settings`, whose errors say that they are of this `side`. No request may go without progress for longer
    /// than `request_timeout`. Reads credentials and `ca_file`, but sends nothing to the store.
    pub async fn connect(
        side: Side,
        settings: &StoreSettings,
        request_timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let (scheme, authority) = parse_endpoint(&settings.endpoint).map_err(|reason| {
            ConnectError::Endpoint { endpoint: settings.endpoint.clone(), reason }
        })?;
        let tls = tls_config(settings.ca_file.as_deref(), scheme == Scheme::HTTPS)
            .map_err(|error| ConnectError::Certificates(error.to_string()))?;
        let credentials = Credentials::load(settings).await.map_err(ConnectError::Credentials)?;
        let now_ms = crate::clock::now_ms();
        credentials
            .ready(super::sign::AmzDate::at(now_ms), now_ms)
            .await
            .map_err(ConnectError::Credentials)?;
        let admin =
            admin::client(settings, credentials.provider()).map_err(ConnectError::Certificates)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| {
            let reason = "the host has characters that cannot be sent";
            ConnectError::Endpoint { endpoint: settings.endpoint.clone(), reason }
        })?;
        let inner = Inner {
            transport: Transport::new(tls, request_timeout),
            credentials,
            side,
            endpoint: format!("{scheme}://{authority}").into(),
            scheme,
            authority,
            host,
            path_style: settings.path_style,
            region: settings.region.clone(),
            admin,
            skew_ms: AtomicI64::new(0),
            clock_ahead_ms: AtomicI64::new(0),
            server: RwLock::new(None),
            is_aws: AtomicBool::new(false),
            ignores_start: AtomicBool::new(false),
            deletes_singly: AtomicBool::new(false),
            fence: OnceLock::new(),
        };
        Ok(Self(Arc::new(inner), None))
    }

    /// From now on no clone of this store sends a request that writes once `fence` has fallen.
    pub(crate) fn fence(&self, fence: &Arc<Fence>) {
        // The first one counts; a process has only one.
        drop(self.0.fence.set(Arc::clone(fence)));
    }

    /// Names a call that did not fail on the wire, so that what is wrong with its answer becomes an error
    /// of this store. `key` is empty for calls on a bucket.
    pub fn failure(&self, operation: &'static str, bucket: &str, key: &str) -> CallSite {
        self.0.origin(operation, bucket, key)
    }

    /// Scheme, host and port.
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// The store's clock less ours, in milliseconds, by the `Date` of its last listing or of [`Store::clock`];
    /// right to about half a second. 0 before there was one.
    pub fn clock_ahead_ms(&self) -> i64 {
        self.0.clock_ahead_ms.load(Ordering::Relaxed)
    }

    /// Whether a listing has shown that the store does not honour `start-after`.
    pub fn ignores_start_after(&self) -> bool {
        self.0.ignores_start.load(Ordering::Relaxed)
    }

    /// Notes it.
    pub(crate) fn note_start_ignored(&self) {
        self.0.ignores_start.store(true, Ordering::Relaxed);
    }

    /// The last `Server` header seen (`MinIO`, `AmazonS3`); RustFS 1.0.1 sends none.
    pub fn server(&self) -> Option<String> {
        let server = self.0.server.read().unwrap_or_else(PoisonError::into_inner);
        server.as_ref().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    /// The same store, read through `view`.
    pub(super) fn with_view(&self, view: Arc<View>) -> Self {
        Self(Arc::clone(&self.0), Some(view))
    }

    pub(super) fn view(&self) -> Option<&View> {
        self.1.as_deref()
    }

    /// `GetObject`: the object, one part of it, or a range of its bytes.
    pub async fn get(
        &self,
        bucket: &str,
        key: &str,
        options: GetOptions<'_>,
    ) -> Result<ObjectBody, StoreError> {
        let mut query = Query::default();
        if let Some(part) = options.part {
            query = query.with("partNumber", &part.to_string());
        }
        let version = self.version("GetObject", bucket, key).await?;
        let query = of_version(query, version.as_deref());
        let range = options.range.map(|(first, last)| (RANGE, format!("bytes={first}-{last}")));
        let condition = options.if_match.map(|etag| (IF_MATCH, format!("\"{etag}\"")));
        let mut headers = HeaderMap::new();
        for (name, text) in range.into_iter().chain(condition) {
            let value = HeaderValue::try_from(text).map_err(|error| {
                self.0.origin("GetObject", bucket, key).error(ErrorKind::Invalid, error.to_string())
            })?;
            headers.insert(name, value);
        }
        let call = || {
            let call = Call::new("GetObject", Method::GET, bucket, key);
            call.query(query.clone()).headers(&headers)
        };
        let answer = self.0.read(call).await?;
        let head = object_head(answer.status, answer.headers, &answer.origin)?;
        Ok(ObjectBody { head, body: answer.body })
    }

    /// `HeadObject`. [`ErrorKind::NotFound`] means that the bucket is there and the object is not:
    /// AWS and RustFS answer a bare 404 for either, as does a proxy that has lost its way, so a 404
    /// without a code is followed by `HeadBucket`, and what that says comes first.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<ObjectHead, StoreError> {
        let version = self.version("HeadObject", bucket, key).await?;
        let query = of_version(Query::default(), version.as_deref());
        let call = || Call::new("HeadObject", Method::HEAD, bucket, key).query(query.clone());
        let answer = match self.0.read(call).await {
            Err(error) if error.kind == ErrorKind::NotFound && error.code.is_none() => {
                self.head_bucket(bucket).await?;
                return Err(error);
            }
            answer => answer?,
        };
        object_head(answer.status, answer.headers, &answer.origin)
    }

    /// `PutObject`. `headers` are sent as they are, byte for byte: `content-type`, `x-amz-meta-…`,
    /// `x-amz-tagging` and so on. With `content_md5` the store refuses a body that differs
    /// ([`ErrorKind::Corrupt`]).
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        headers: &HeaderMap,
        content_md5: Option<[u8; 16]>,
        body: PutBody,
    ) -> Result<PutOutcome, StoreError> {
        let call = Call::new("PutObject", Method::PUT, bucket, key).headers(headers);
        self.0.put_data(call.content_md5(content_md5), body).await
    }

    /// `GetObjectTagging`. Some stores answer an error to an object that has no tags.
    pub async fn get_tags(&self, bucket: &str, key: &str) -> Result<Tags, StoreError> {
        let version = self.version("GetObjectTagging", bucket, key).await?;
        let call = Call::new("GetObjectTagging", Method::GET, bucket, key)
            .query(of_version(Query::flag("tagging"), version.as_deref()));
        let answer = match self.0.send(call).await {
            Err(error)
                if matches!(error.code.as_deref(), Some("NoSuchTagSet" | "NoSuchTagSetError")) =>
            {
                return Ok(Tags::new());
            }
            answer => answer?,
        };
        let origin = answer.origin.clone();
        let document = answer.document(MAX_DOCUMENT).await?;
        xml::tags(&document).map_err(|error| unreadable(&origin, &error))
    }

    /// `PutObjectTagging`: replaces all tags.
    pub async fn put_tags(&self, bucket: &str, key: &str, tags: &Tags) -> Result<(), StoreError> {
        let document = xml::tagging(tags);
        let call = Call::new("PutObjectTagging", Method::PUT, bucket, key)
            .query(Query::flag("tagging"))
            .content_md5(Some(md5(document.as_bytes())))
            .document(document);
        self.0.send(call).await?.finish().await.map(drop)
    }

    /// `DeleteObjectTagging`: removes all tags.
    pub async fn delete_tags(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let call = Call::new("DeleteObjectTagging", Method::DELETE, bucket, key);
        self.0.send(call.query(Query::flag("tagging"))).await?.finish().await.map(drop)
    }

    /// `DeleteObject`; that there is none is success. In a versioned bucket this adds a delete marker.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let call = Call::new("DeleteObject", Method::DELETE, bucket, key);
        match self.0.send(call).await {
            Ok(answer) => answer.finish().await.map(drop),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `HeadBucket`; a missing one is [`ErrorKind::NoSuchBucket`].
    pub async fn head_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        match self.0.send(Call::new("HeadBucket", Method::HEAD, bucket, "")).await {
            Ok(answer) => answer.finish().await.map(drop),
            Err(error) if error.kind == ErrorKind::NotFound => {
                Err(StoreError { kind: ErrorKind::NoSuchBucket, ..error })
            }
            Err(error) => Err(error),
        }
    }

    /// `CreateBucket`, in the configured region; that we own it already is success.
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let origin = self.0.origin("CreateBucket", bucket, "");
        admin::create_bucket(&self.0.admin, &self.0.region, false, &origin).await
    }

    /// As [`Self::create_bucket`], for objects that can be locked.
    pub async fn create_locked_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let origin = self.0.origin("CreateBucket", bucket, "");
        admin::create_bucket(&self.0.admin, &self.0.region, true, &origin).await
    }
}

impl Inner {
    /// Sends object data and reads what the store says of it.
    pub(super) async fn put_data(
        &self,
        call: Call<'_>,
        body: PutBody,
    ) -> Result<PutOutcome, StoreError> {
        let body = match body {
            // Nothing of it would be sent, so nobody would see whether it ends.
            PutBody::Stream { mut body, length: 0 } => match body.frame().await {
                None => RequestBody::empty(),
                Some(Err(error)) => return Err(error),
                Some(Ok(_)) => RequestBody::of(PutBody::Stream { body, length: 0 }),
            },
            body @ (PutBody::Bytes(_) | PutBody::Stream { .. }) => RequestBody::of(body),
        };
        let headers = self.send(call.data(body)).await?.finish().await?;
        Ok(PutOutcome { etag: etag(&headers), encryption: encryption(&headers) })
    }
}

/// Asks for one version, if there is one to ask for.
fn of_version(query: Query, version: Option<&str>) -> Query {
    match version {
        Some(version) => query.with("versionId", version),
        None => query,
    }
}

/// The store itself says that there is nothing to delete; a bare 404 may be a proxy's.
pub(super) fn is_gone(error: &StoreError) -> bool {
    error.kind == ErrorKind::NotFound && error.code.is_some()
}

/// The answer held a document that cannot be read.
pub(super) fn unreadable(origin: &CallSite, error: &xml::XmlError) -> StoreError {
    origin.error(ErrorKind::Transient, format!("the answer is not readable: {error}"))
}

/// The `ETag` in `headers`.
pub(super) fn etag(headers: &HeaderMap) -> Option<ETag> {
    headers.get(ETAG).and_then(|value| value.to_str().ok()).map(ETag::new)
}

/// The server-side encryption in `headers`.
pub(super) fn encryption(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-amz-server-side-encryption")?;
    value.to_str().ok().map(str::to_owned)
}

/// The MD5 of a small document.
pub(crate) fn md5(document: &[u8]) -> [u8; 16] {
    use md5::Digest as _;
    md5::Md5::digest(document).into()
}

fn object_head(
    status: StatusCode,
    headers: HeaderMap,
    origin: &CallSite,
) -> Result<ObjectHead, StoreError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(length) = length else {
        let message = format!("{} without a Content-Length", status.as_u16());
        return Err(origin.error(ErrorKind::Invalid, message));
    };
    Ok(ObjectHead { length, etag: etag(&headers), headers })
}

/// `http://host:port` without anything behind it.
fn parse_endpoint(endpoint: &str) -> Result<(Scheme, Authority), &'static str> {
    let uri: Uri = endpoint.parse().map_err(|_| "not a URL")?;
    let parts = uri.into_parts();
    let scheme = parts
        .scheme
        .filter(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
        .ok_or("it must start with http:// or https://")?;
    let authority = parts.authority.filter(|a| !a.host().is_empty()).ok_or("it names no host")?;
    if authority.as_str().contains('@') {
        return Err("credentials do not belong there");
    }
    if parts.path_and_query.is_some_and(|path| path != "/") {
        return Err("it must end after the host and port");
    }
    // A default port is neither sent nor signed.
    let default = if scheme == Scheme::HTTP { Some(80) } else { Some(443) };
    if authority.port_u16() == default {
        let host = authority.host().parse().map_err(|_| "the host is not one")?;
        return Ok((scheme, host));
    }
    Ok((scheme, authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port() {
        for (endpoint, host) in [
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://minio:80/", "minio"),
            ("https://s3.example.com:443", "s3.example.com"),
            ("https://[::1]:9000", "[::1]:9000"),
        ] {
            assert_eq!(parse_endpoint(endpoint).unwrap().1, host, "{endpoint}");
        }
        for endpoint in [
            "minio:9000",
            "/",
            "",
            "ftp://host",
            "http://",
            "http://user:secret@host",
            "http://host/path",
            "http://host?query",
            "http://ho st",
        ] {
            assert!(parse_endpoint(endpoint).is_err(), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn debug_shows_no_secret() {
        let text = "endpoint = 'http://h:1'\naccess_key = 'hidden-access'\nsecret_key = 'hidden-secret'\nsession_token = 'hidden-token'";
        let settings: StoreSettings = toml::from_str(text).unwrap();
        let store = Store::connect(Side::Source, &settings, Duration::from_secs(1)).await.unwrap();
        let shown = format!("{store:?} {:?}", store.0.credentials);
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
