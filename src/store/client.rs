//! The client of one store: what all calls share, and how it is built.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};

use super::credentials::Credentials;
use super::failure::CallSite;
use super::http::{Transport, tls_config};
use super::view::View;
use super::{Side, admin};
use crate::config::settings::StoreSettings;
use crate::fence::Fence;

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
    pub(super) region: String,
    pub(super) admin: admin::Client,
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
    /// Builds the client of the store in `settings`, whose errors say that they are of this `side`. No request
    /// may go without progress for longer than `request_timeout`. Reads credentials and `ca_file`, but sends nothing to the store.
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
