//! A graceful stop finishes what is in flight, within a limit, and loses nothing either way.

use std::time::Duration;

use hyper::Method;

use crate::support::eventually::{SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::site::{Servers, Setup, Site};

/// A site whose target takes `time` for every object, with one object on its way.
async fn with_a_slow_copy(bucket: &str, time: Duration, drain: &str) -> (Site, FaultProxy) {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let slow = |method: &Method, path: &str| *method == Method::PUT && path.ends_with("/object");
    proxy.misbehave(move |method, uri| slow(method, uri.path()).then_some(Fault::Wait(time)));
    let setup = Setup {
        target_endpoint: Some(proxy.endpoint()),
        settings: vec![("REPLICATE__DRAIN_TIMEOUT", drain.to_owned())],
        ..Setup::default()
    };
    let site = servers.site(bucket, setup).await;
    site.put("object", "value").await;
    eventually("the copy is under way", SOON, async || {
        (proxy.faults() > 0).then_some(()).ok_or("no PUT came".to_owned())
    })
    .await;
    (site, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_finishes_what_is_in_flight() {
    let (mut site, _proxy) = with_a_slow_copy("graceful", Duration::from_secs(2), "30s").await;
    let status = site.evermirror.terminate().await;
    assert!(status.success(), "{status}");
    assert!(site.target.list(&site.target_bucket).await.unwrap().contains_key("object"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_does_not_wait_for_ever() {
    let (mut site, proxy) = with_a_slow_copy("limited", Duration::from_hours(1), "1s").await;
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
