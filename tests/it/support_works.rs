//! The ground the other tests stand on, checked against the real servers: a comparison that cannot
//! fail, or a fault that never happens, would prove nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::json;

use crate::support::compare::compare;
use crate::support::eventually::{SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::minio::{Minio, TOKEN, Webhook};
use crate::support::ports::free_port;
use crate::support::s3::S3;
use crate::support::site::Servers;
use crate::support::toxiproxy::Toxiproxy;

#[tokio::test(flavor = "multi_thread")]
async fn the_comparison_sees_every_kind_of_difference() {
    let servers = Servers::shared().await;
    let (source, target) = (servers.source.client(), servers.target.client());
    let sides = ((&source, "compared"), (&target, "compared"));
    source.create_bucket("compared").await;
    target.create_bucket("compared").await;
    let both = async |key: &str| {
        source.put("compared", key, "content").await;
        target.put("compared", key, "content").await;
    };
    let expect = async |part: &str| {
        let found = compare(sides.0, sides.1).await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(part), "{found:?}");
    };

    both("equal").await;
    assert_eq!(compare(sides.0, sides.1).await.unwrap(), Vec::<String>::new());
    source.put("compared", "a key\u{1}", "only here").await;
    expect("\"a key\\u{1}\": missing").await;
    target.put("compared", "a key\u{1}", "only herf").await;
    expect("\"a key\\u{1}\": Listed").await;
    target.put("compared", "a key\u{1}", "only here").await;
    target.put("compared", "extra", "").await;
    expect("\"extra\": only at the target").await;
    target.delete("compared", "extra").await;
    source.tag("compared", "equal", &[("colour", "red")]).await;
    expect("\"equal\": tag colour is Some(\"red\") at the source and None").await;
    target.tag("compared", "equal", &[("colour", "red")]).await;
    let put = || {
        let body = ByteStream::from_static(b"content");
        source.client.put_object().bucket("compared").key("headers").body(body)
    };
    both("headers").await;
    for (call, field) in [
        (put().content_type("text/x-test"), "content-type"),
        (put().content_encoding("zstd"), "content-encoding"),
        (put().content_language("rm"), "content-language"),
        (put().content_disposition("attachment"), "content-disposition"),
        (put().cache_control("no-store"), "cache-control"),
        (put().metadata("origin", "here"), "x-amz-meta-origin"),
    ] {
        call.send().await.unwrap();
        expect(field).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_store_comes_back_with_its_data() {
    let mut store = Minio::target().await;
    let client = store.client();
    client.create_bucket("kept").await;
    client.put("kept", "key", "value").await;
    store.stop();
    assert!(client.list("kept").await.is_err(), "a stopped store answers");
    store.start_again().await;
    assert_eq!(client.list("kept").await.unwrap()["key"].size, 5);
}

/// What arrived at a webhook: token and body; and what it answers.
type Hook = Arc<Mutex<(StatusCode, Vec<(String, String)>)>>;

async fn listen(port: u16, hook: Hook) {
    let take = async |State(hook): State<Hook>, headers: HeaderMap, body: String| {
        let token = headers["authorization"].to_str().unwrap().to_owned();
        let mut hook = hook.lock().unwrap();
        hook.1.push((token, body));
        hook.0
    };
    let router = Router::new().route("/events", post(take)).with_state(hook);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let service = hyper_util::service::TowerToHyperService::new(router);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = hyper_util::rt::TokioIo::new(stream);
            let builder = hyper::server::conn::http1::Builder::new();
            tokio::spawn(builder.serve_connection(stream, service.clone()));
        }
    });
}

async fn source_with_a_hook(queue: bool) -> (Minio, S3, Hook) {
    let hook = Webhook { id: "HOOK".to_owned(), port: free_port(), queue, tls: false };
    let heard = Hook::default();
    listen(hook.port, Arc::clone(&heard)).await;
    let source = Minio::source(std::slice::from_ref(&hook)).await;
    let client = source.client();
    client.create_bucket("noted").await;
    client.notify("noted", &[hook.arn()]).await;
    (source, client, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_returns_after_its_notification_was_delivered() {
    let (_source, client, heard) = source_with_a_hook(false).await;
    client.put("noted", "a key", "value").await;
    let heard = heard.lock().unwrap();
    let [(token, body)] = heard.1.as_slice() else { panic!("not one notification: {heard:?}") };
    assert_eq!(*token, format!("Bearer {TOKEN}"));
    assert!(body.contains("\"key\":\"a+key\""), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_notification_is_delivered_until_it_is_accepted() {
    let (_source, client, heard) = source_with_a_hook(true).await;
    heard.lock().unwrap().0 = StatusCode::SERVICE_UNAVAILABLE;
    client.put("noted", "key", "value").await;
    eventually("the notification is refused", SOON, async || {
        (!heard.lock().unwrap().1.is_empty()).then_some(()).ok_or("nothing came".to_owned())
    })
    .await;
    let refused = {
        let mut heard = heard.lock().unwrap();
        heard.0 = StatusCode::OK;
        heard.1.len()
    };
    eventually("it comes again", SOON, async || {
        let come = heard.lock().unwrap().1.len();
        (come > refused).then_some(()).ok_or(format!("{come} in all, {refused} refused"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn toxiproxy_cuts_a_body_in_the_middle() {
    let servers = Servers::shared().await;
    let proxy = Toxiproxy::in_front_of(&servers.target.authority()).await;
    let client = S3::new(&proxy.endpoint());
    client.create_bucket("cut").await;
    client.put("cut", "whole", vec![7; 1 << 20]).await;
    proxy.add("limit_data", "upstream", json!({"bytes": 500_000})).await;
    assert!(client.try_put("cut", "half", vec![7; 1 << 20]).await.is_err());
    proxy.heal().await;
    let keys: Vec<_> = client.list("cut").await.unwrap().into_keys().collect();
    assert_eq!(keys, ["whole"]);
    proxy.cut().await;
    assert!(client.list("cut").await.is_err(), "a cut proxy lets a listing through");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fault_proxy_misbehaves_only_when_told() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let client = S3::new(&proxy.endpoint());
    client.create_bucket("faulty").await;
    client.put("faulty", "a +%/\u{e9}", "value").await;
    assert_eq!(proxy.faults(), 0);
    assert!(proxy.seen().iter().any(|line| line.starts_with("PUT /faulty/a%20%2B%25/%C3%A9")));
    assert_eq!(proxy.most_parallel_puts(), 1);

    let times = Mutex::new(2);
    proxy.misbehave(move |_, _| {
        let mut left = times.lock().unwrap();
        *left -= i32::from(*left > 0);
        (*left > 0).then_some(Fault::Answer(503, "SlowDown"))
    });
    client.put("faulty", "tried again by the SDK", "value").await;
    assert_eq!(proxy.faults(), 1);

    proxy.misbehave(|_, uri| uri.path().ends_with("bad").then_some(Fault::SpoilRequest));
    let md5 = "IGPBYI1uC6+AJJxC4r5YBA=="; // Of "value"; any spoilt body contradicts it.
    let put = client.client.put_object().bucket("faulty").key("bad").content_md5(md5);
    let refused = put.body(ByteStream::from_static(b"value")).send().await.unwrap_err();
    assert!(format!("{refused:?}").contains("BadDigest"), "{refused:?}");

    proxy.misbehave(|_, _| Some(Fault::SpoilAnswer));
    let got = client.client.get_object().bucket("faulty").key("a +%/\u{e9}").send().await;
    assert_eq!(got.unwrap().body.collect().await.unwrap().to_vec(), b"valud");

    proxy.misbehave(|_, _| Some(Fault::Wait(Duration::from_millis(1))));
    let (left, right) =
        tokio::join!(client.try_put("faulty", "k", "1"), client.try_put("faulty", "k", "2"));
    left.and(right).unwrap();
    proxy.behave();
    assert_eq!(client.list("faulty").await.unwrap().len(), 3);
}
