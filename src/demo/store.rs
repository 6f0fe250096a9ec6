//! The embedded S3 stores of the demo: `s3s` speaks the protocol, `s3s-fs` keeps bytes and headers.
//!
//! `s3s-fs` 0.14.1 alone is too poor to be either side of a faithful replication, so `service` wraps
//! it. Keys become opaque blob names and `index` keeps what belongs to a key. This supplies what is
//! missing: tags; the `ETag` in listings; `encoding-type=url`; `GET ?partNumber`; `If-Match` on GET
//! and HEAD; keys with `//`, `..`, a leading or trailing `/`, more than about 150 bytes, or that are
//! also the prefix of another key; a body whose Content-MD5 is wrong is refused before it is visible;
//! an overwrite is atomic, so that no reader sees new bytes under an old `ETag`.
//!
//! Still missing: versions, ACLs, policies, encryption, object lock, listing or expiring unfinished
//! uploads, and deleting buckets. A copied multipart object keeps its `ETag` and its parts (S3 would give
//! it a new one). Nothing is synced to disk, and `s3s-fs` leaves two small files behind for each blob
//! that is deleted: this is a store for trying evermirror, not one for keeping data.
//!
//! A store lives until its [`EmbeddedStore`] is dropped, which cuts its connections.

mod index;
mod rules;
mod service;
mod whole;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::ledger::{Ledger, Side};
use super::notify::Change;

/// The region of both stores.
pub(super) const REGION: &str = "us-east-1";

/// Who is told of changes.
#[derive(Clone)]
pub(super) struct Watcher {
    pub side: Side,
    pub ledger: Arc<Ledger>,
    /// Takes the notifications; only the source has one. A full queue slows writers down.
    pub notifier: Option<mpsc::Sender<Change>>,
}

/// A running store.
#[derive(Debug)]
pub(super) struct EmbeddedStore {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    server: JoinHandle<()>,
}

impl EmbeddedStore {
    /// Starts a store on a free port of this machine, its files under `dir`.
    pub(super) async fn start(
        dir: &Path,
        access_key: &str,
        watcher: Watcher,
    ) -> anyhow::Result<Self> {
        let service = whole::WholeS3::open(dir, watcher)
            .with_context(|| format!("failed to open the embedded store in {}", dir.display()))?;
        let secret_key = format!("{:032x}", rand::random::<u128>());
        let mut builder = S3ServiceBuilder::new(service);
        builder.set_auth(SimpleAuth::from_single(access_key, secret_key.as_str()));
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .context("failed to listen on 127.0.0.1 for the embedded store")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let server = tokio::spawn(serve(listener, builder.build()));
        Ok(Self { endpoint, access_key: access_key.to_owned(), secret_key, server })
    }

    /// A client of this store, as any program would make one.
    pub(super) fn client(&self) -> Client {
        let keys = Credentials::new(&self.access_key, &self.secret_key, None, None, "demo");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(&self.endpoint)
            .region(Region::new(REGION))
            .credentials_provider(keys)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .force_path_style(true);
        Client::from_conf(config.build())
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(%error, "The embedded store could not set TCP_NODELAY.");
                    }
                    let mut http = http1::Builder::new();
                    http.timer(TokioTimer::new());
                    connections.spawn(http.serve_connection(TokioIo::new(socket), service.clone()));
                }
                Err(error) => tracing::warn!(%error, "The embedded store refused a connection."),
            },
            Some(ended) = connections.join_next() => {
                if let Ok(Err(error)) = ended {
                    tracing::debug!(%error, "A connection to the embedded store broke.");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
