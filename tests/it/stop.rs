//! A graceful stop finishes what is in flight, within a limit, and loses nothing either way.

use hyper::Method;

use crate::support::eventually::{SOON, eventually};
use crate::support::evermirror::STOPPING;
use crate::support::fault_proxy::FaultProxy;
use crate::support::site::{Servers, Setup, Site};

/// A site with one object on its way, whose target does not answer until the proxy lets it.
async fn with_a_held_copy(bucket: &str, drain: &str) -> (Site, FaultProxy) {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.hold_after(0, |method, uri| method == Method::PUT && uri.path().ends_with("/object"));
    let setup = Setup {
        target_endpoint: Some(proxy.endpoint()),
        settings: vec![("REPLICATE__DRAIN_TIMEOUT", drain.to_owned())],
        ..Setup::default()
    };
    let site = servers.site(bucket, setup).await;
    site.put("object", "value").await;
    proxy.holds_one().await;
    (site, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_finishes_what_is_in_flight() {
    let (mut site, proxy) = with_a_held_copy("graceful", "1h").await;
    site.evermirror.signal("TERM");
    eventually("it has noticed the signal", SOON, async || {
        let log = site.evermirror.log();
        if log.contains(STOPPING) { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 0);
    proxy.behave();
    let status = site.evermirror.ended().await;
    assert!(status.success(), "{status}");
    assert!(site.target.list(&site.target_bucket).await.unwrap().contains_key("object"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_does_not_wait_for_ever() {
    let (mut site, proxy) = with_a_held_copy("limited", "1s").await;
    let status = site.evermirror.terminate().await;
    assert!(status.success(), "{status}");
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 0);
    proxy.behave();
    site.evermirror.start().await;
    site.converges(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_ends_its_request_does_not_hold_up_a_stop() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut site = Servers::shared().await.site("slow-client", Setup::default()).await;
    let webhook: hyper::Uri = site.evermirror.webhook("/").parse().unwrap();
    let mut client =
        tokio::net::TcpStream::connect(webhook.authority().unwrap().as_str()).await.unwrap();
    client.write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert!(client.read(&mut [0; 1_024]).await.unwrap() > 0);
    // The connection is known, and its next request never ends.
    client.write_all(b"POST /events HTTP/1.1\r\nhost: h\r\nx-").await.unwrap();
    let status = site.evermirror.terminate().await;
    assert!(status.success(), "{status}");
}
