//! One HTTP/1.1 server for the webhook and the web pages: deadlines, a connection limit, TLS, drain.
//!
//! **Promise.** A client that sends nothing, or sends slowly, holds a connection for a bounded time
//! and never more than [`Limits::connections`] of them; nor does it keep others out: when all are taken, the
//! oldest idle connection over which no request was [admitted](Guest::admit) makes room. A kept-alive connection lives longer than the
//! stores keep theirs in their pools (RustFS 90 s), because a POST on a connection that is just
//! being closed is an event lost. **On stop** no further connection is accepted, idle ones are
//! closed, and every request that has begun is answered. **On cancellation** of [`run`]'s future all
//! connections are dropped at once; what was acknowledged stays acknowledged.
//!
//! axum's own `serve` installs no timer, so hyper's header deadline would never fire there.

mod guests;
mod token;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub use guests::Guest;
pub use token::BearerToken;

use guests::Guests;

/// How long a connection may idle between requests; hyper's header deadline counts from the end
/// of the request before.
const IDLE: Duration = Duration::from_mins(2);
/// Room for a request's headers, in bytes.
const HEADERS: usize = 64 << 10;
/// The wait after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Poll interval for a connection that makes room, while all are taken.
const ROOM_POLL: Duration = Duration::from_millis(100);

/// How much one listener gives to its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest number of open connections. When they are all trusted or busy, one more is accepted and
    /// waits, and further ones wait in the system's queue.
    pub connections: usize,
    /// How long a new connection may take for its TLS handshake, and again for the headers of its
    /// first request.
    pub first_request: Duration,
}

impl Limits {
    /// So many connections, and ten seconds for a first request.
    pub const fn connections(connections: usize) -> Self {
        Self { connections, first_request: Duration::from_secs(10) }
    }
}

/// A listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address}: {error}; {}", advice(.error, .setting))]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// The setting that names it.
    pub setting: &'static str,
    /// What the operating system said.
    pub error: io::Error,
}

fn advice(error: &io::Error, setting: &str) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        format!("another process uses this port: stop it, or set {setting} to a free one")
    } else if kind == io::ErrorKind::AddrNotAvailable {
        format!("this machine has no such address: set {setting} to one it has, or to 0.0.0.0")
    } else if kind == io::ErrorKind::PermissionDenied {
        format!("ports below 1024 need a privilege: set {setting} to a higher one")
    } else {
        format!("check {setting}")
    }
}

/// Opens the listener that `setting` (`intake.webhook.listen`) names.
pub async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError { address, setting, error })
}

/// Serves `router` until `stop`, then finishes the requests that have begun. A caller that cannot
/// wait for them drops the future.
pub async fn run(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let guests = Guests::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots, &guests) => accepted,
            () = stop.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        let Some((stream, slot)) = accepted else { continue };
        let (tls, router) = (tls.clone(), router.clone());
        let guest = Guest::new(stop.child_token());
        let here = guests.enter(guest.clone());
        connections.spawn(async move {
            connection(stream, tls, router, limits.first_request, guest).await;
            drop((here, slot));
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection, with a slot.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    guests: &Guests,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot(slots, guests).await?)),
        Err(error) => {
            tracing::warn!(%error, "Failed to accept a connection; trying again.");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// A slot for a connection that is here already, at the expense of a stranger if need be.
async fn slot(slots: &Arc<Semaphore>, guests: &Guests) -> Option<OwnedSemaphorePermit> {
    if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
        return Some(slot);
    }
    loop {
        if guests.make_room() {
            tracing::debug!(
                "All connections are taken; the oldest idle one without a token makes room."
            );
        }
        let free = Arc::clone(slots).acquire_owned();
        if let Ok(slot) = tokio::time::timeout(ROOM_POLL, free).await {
            return slot.ok();
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    first_request: Duration,
    guest: Guest,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "Failed to set TCP_NODELAY.");
    }
    let Some(acceptor) = tls else {
        return requests(stream, router, first_request, guest).await;
    };
    let handshake = tokio::time::timeout(first_request, acceptor.accept(stream));
    let shaken = tokio::select! {
        done = handshake => done,
        () = guest.leave().cancelled() => return,
    };
    match shaken {
        Ok(Ok(stream)) => requests(stream, router, first_request, guest).await,
        Ok(Err(error)) => tracing::debug!(%error, "A TLS handshake failed."),
        Err(_) => tracing::debug!("A TLS handshake took too long."),
    }
}

async fn requests<S>(stream: S, router: Router, first_request: Duration, guest: Guest)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let began = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&began);
    let stop = guest.leave().clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        seen.store(true, Ordering::Relaxed);
        let under_way = guest.request();
        // The map of extensions costs an allocation, so only as long as it is needed.
        if !guest.is_trusted() {
            request.extensions_mut().insert(guest.clone());
        }
        let answer = router.clone().oneshot(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await?.map(|body| under_way.body(body))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let first = tokio::time::sleep(first_request);
    tokio::pin!(first);
    let (mut timed, mut stopping) = (false, false);
    loop {
        tokio::select! {
            done = &mut connection => {
                if let Err(error) = done {
                    tracing::debug!(%error, "A connection ended early.");
                }
                return;
            }
            () = &mut first, if !timed => {
                timed = true;
                if !began.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                if !began.load(Ordering::Relaxed) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests;
