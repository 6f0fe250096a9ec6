use axum::Extension;
use axum::routing::get;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

async fn start(
    router: Router,
    limits: Limits,
) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "web.listen").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(run(listener, None, router, limits, stop.clone()));
    (address, stop, server)
}

#[tokio::test]
async fn a_request_that_has_begun_is_answered_after_stop() {
    let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (signal, wait) = (Arc::clone(&begun), Arc::clone(&finish));
    let router = Router::new().route(
        "/",
        get(async move || {
            signal.notify_one();
            wait.notified().await;
            "done"
        }),
    );
    let (address, stop, server) = start(router, Limits::connections(8)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    let idle = TcpStream::connect(address).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    begun.notified().await;
    stop.cancel();
    finish.notify_one();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
    server.await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_kept_alive_connection_is_closed_on_stop() {
    let router = Router::new().route("/", get(async || "x"));
    let (address, stop, server) = start(router, Limits::connections(8)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        client.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nx") {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "closed too early");
        }
    }
    stop.cancel();
    server.await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_while_all_others_are_trusted() {
    let (address, stop, server) = start(admitting(), Limits::connections(1)).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(REQUEST).await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(REQUEST).await.unwrap();
    assert_eq!(second.try_read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(first);
    second.read_exact(&mut byte).await.unwrap();
    drop(second);
    stop.cancel();
    server.await.unwrap();
}

/// Admits whoever asks for `/`.
fn admitting() -> Router {
    Router::new().route(
        "/",
        get(async |guest: Option<Extension<Guest>>| {
            if let Some(Extension(guest)) = guest {
                guest.admit();
            }
            "x"
        }),
    )
}

#[tokio::test]
async fn connections_that_send_nothing_keep_no_sender_out_and_the_oldest_goes_first() {
    let (address, stop, server) = start(admitting(), Limits::connections(3)).await;
    let mut silent = Vec::new();
    for sends in [&b""[..], b"GET / HTTP/1.1\r\nhost", b""] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sends).await.unwrap();
        silent.push(stream);
    }
    let mut sender = TcpStream::connect(address).await.unwrap();
    // Its first request takes the place of the oldest, its second one needs none.
    for _ in 0..2 {
        sender.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nx") {
            assert_ne!(sender.read_buf(&mut answer).await.unwrap(), 0, "closed too early");
        }
        assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0);
        assert_eq!(silent[2].try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    // Strangers who come and go now displace each other, and not the sender.
    let more: Vec<_> = join_all((0..8).map(|_| TcpStream::connect(address))).await;
    assert_eq!(silent[2].read(&mut [0]).await.unwrap(), 0);
    sender.write_all(REQUEST).await.unwrap();
    assert_ne!(sender.read(&mut [0]).await.unwrap(), 0);
    drop((more, sender));
    stop.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_sends_no_request_is_closed() {
    let limits = Limits { connections: 8, first_request: Duration::from_millis(20) };
    let (address, stop, server) = start(Router::new(), limits).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.unwrap_or_default();
    assert_eq!(rest, b"", "closed without an answer");
    stop.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn an_address_in_use_names_the_setting_to_change() {
    let taken = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "web.listen").await.unwrap();
    let error = bind(taken.local_addr().unwrap(), "web.listen").await.unwrap_err().to_string();
    assert!(error.contains("another process") && error.contains("web.listen"), "{error}");
}
