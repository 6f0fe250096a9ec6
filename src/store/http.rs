//! HTTP/1.1 to one endpoint: the connection pool, TLS and time limits.
//!
//! Promise: every wait ends. Connecting has 5 s; after that either bytes of the request are being
//! taken or the answer's head has arrived within the request timeout; while a streamed body has
//! nothing to give, the stream's own limit applies (`stream`). On cancellation (the future is
//! dropped) the connection is closed, so a request whose body was not sent whole is never carried out.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::body::{BodyError, RequestBody, SentBytes};
use super::failure::{causes, describe};

/// How long TCP may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than what servers keep idle connections for (MinIO 30 s, AWS 20 s or so), because a
/// request on a connection that the server is just closing fails.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// 2 KiB of metadata, the most that MinIO takes, can be 157 headers; hyper's own limit is 100.
const MANY_HEADERS: usize = 256;

/// Why an exchange gave no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request's body failed; the store has seen an incomplete request.
    Body(BodyError),
    /// The connection failed, or time ran out.
    Connection {
        /// For people.
        message: String,
        /// The whole request had been handed to the connection.
        sent: bool,
    },
}

/// A client and its connection pool.
type Http = Client<HttpsConnector<HttpConnector>, RequestBody>;

/// The client of one endpoint.
#[derive(Debug)]
pub(super) struct Transport {
    client: Http,
    connector: HttpsConnector<HttpConnector>,
    /// The client whose answers have room for [`MANY_HEADERS`], once it is needed. It costs memory and CPU on
    /// every one of them, and hardly a store needs it.
    roomy: OnceLock<Http>,
    timeout: Duration,
}

impl Transport {
    /// Builds the client; `tls` trusts the system's roots and those in `ca_file`.
    pub(super) fn new(tls: ClientConfig, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = pool().build(connector.clone());
        Self { client, connector, roomy: OnceLock::new(), timeout }
    }

    fn client(&self) -> &Http {
        self.roomy.get().unwrap_or(&self.client)
    }

    /// Whether an answer had more headers than there was room for, so that there is room for more now.
    pub(super) fn has_room(&self) -> bool {
        self.roomy.get().is_some()
    }

    /// From the next request on, answers have room for more headers.
    fn make_room(&self) {
        let roomy = || pool().http1_max_headers(MANY_HEADERS).build(self.connector.clone());
        self.roomy.get_or_init(roomy);
    }

    /// How long a request may make no progress.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends `request` and waits for the head of the answer, while there is progress within `timeout`.
    pub(super) async fn exchange(
        &self,
        request: Request<RequestBody>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let progress = request.body().progress();
        let left = || progress.as_deref().map_or(0, SentBytes::left);
        let mut answer = pin!(self.client().request(request));
        loop {
            let before = left();
            match tokio::time::timeout(timeout, &mut answer).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => {
                    if is_too_large(&error) {
                        self.make_room();
                    }
                    return Err(failure(&error, left()));
                }
                Err(_) if left() != before => {}
                // A source that stalls must be blamed itself; it has the same time and then fails.
                Err(_) if progress.as_deref().is_some_and(SentBytes::is_starved) => {}
                Err(_) => {
                    let message = format!("no answer for {timeout:?}");
                    return Err(Failure::Connection { message, sent: before == 0 });
                }
            }
        }
    }
}

/// What all clients have in common.
fn pool() -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT);
    builder
}

/// Whether the answer had more headers than there is room for.
fn is_too_large(error: &hyper_util::client::legacy::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_parse_too_large)
}

fn failure(error: &hyper_util::client::legacy::Error, left: u64) -> Failure {
    let mut canceled = false;
    for cause in causes(error) {
        if let Some(hyper) = cause.downcast_ref::<hyper::Error>() {
            canceled |= hyper.is_canceled();
        }
        match cause.downcast_ref::<BodyError>() {
            Some(BodyError::Stream(error)) => {
                return Failure::Body(BodyError::Stream(error.clone()));
            }
            Some(BodyError::Length(how)) => return Failure::Body(BodyError::Length(how)),
            None => {}
        }
    }
    let sent = left == 0 && !error.is_connect() && !canceled;
    Failure::Connection { message: describe(error), sent }
}

/// Trusts the system's roots and the PEM certificates in `ca_file`.
pub(crate) fn tls_config(ca_file: Option<&Path>, https: bool) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if https {
        // Certificates that cannot be parsed are common in system stores and of no interest here.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if let Some(path) = ca_file {
        let named = |why: String| io::Error::other(format!("{}: {why}", path.display()));
        let file = CertificateDer::pem_file_iter(path).map_err(|e| named(e.to_string()))?;
        for certificate in file {
            let certificate = certificate.map_err(|e| named(e.to_string()))?;
            roots.add(certificate).map_err(|e| named(e.to_string()))?;
        }
    }
    if https && roots.is_empty() {
        return Err(io::Error::other("there is no certificate to trust"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
