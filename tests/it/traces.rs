//! The way of a key as spans, at a real OpenTelemetry collector.

use hyper::Method;

use crate::support::collector::{Collector, Span};
use crate::support::eventually::{SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::minio::{SECRET_KEY, TOKEN};
use crate::support::ports::free_port;
use crate::support::site::{Servers, Setup};

fn to(endpoint: String) -> Setup {
    let settings = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
    Setup { settings, ..Setup::default() }
}

/// Waits for a span of this name, of this object.
async fn shown(collector: &Collector, key: &str, name: &str) -> Span {
    eventually("the span is there", SOON, async || {
        let spans = collector.spans_of(key);
        let found = spans.iter().find(|span| span.name == name).cloned();
        found.ok_or_else(|| format!("no {name} in {spans:#?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_of_a_key_is_one_trace_and_tells_no_secret() {
    let collector = Collector::start().await;
    let servers = Servers::shared().await;
    let mut site = servers.site("traced", to(collector.endpoint())).await;
    let key = "a folder/ä key";
    site.put(key, "12345").await;
    let change = shown(&collector, key, "change").await;
    assert_eq!(change.parent, "");
    assert_eq!(change.attributes["aws.s3.bucket"], "traced");
    for part in ["receive", "replicate"] {
        let part = shown(&collector, key, part).await;
        assert_eq!((&part.trace, &part.parent), (&change.trace, &change.id), "{part:?}");
    }
    let replicate = shown(&collector, key, "replicate").await;
    for request in ["GetObject", "PutObject"] {
        let request = shown(&collector, key, request).await;
        assert_eq!((&request.trace, &request.parent), (&change.trace, &replicate.id));
        assert_eq!(request.attributes["http.response.status_code"], "200");
    }
    // What is still waiting to be sent is sent before it ends.
    site.put("the last", "12345").await;
    site.converges(SOON).await;
    assert!(site.evermirror.terminate().await.success());
    let text = collector.text();
    assert!(collector.spans_of("the last").iter().any(|span| span.name == "change"), "{text}");
    assert!(text.contains("service.name: Str(evermirror)"), "{text}");
    for secret in [SECRET_KEY, TOKEN, "Signature="] {
        assert!(!text.contains(secret), "{secret} is in a trace");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_tells_why_and_the_change_is_told_when_it_is_settled() {
    let collector = Collector::start().await;
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|method, uri| {
        let an_object = uri.path().trim_matches('/').contains('/');
        (method == Method::PUT && an_object).then_some(Fault::Answer(503, "ServiceUnavailable"))
    });
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..to(collector.endpoint()) };
    let site = servers.site("traced-fails", setup).await;
    site.put("key", "12345").await;
    let failed = shown(&collector, "key", "PutObject").await;
    assert_eq!((failed.status.as_str(), &*failed.attributes["error.type"]), ("Error", "transient"));
    proxy.behave();
    shown(&collector, "key", "change").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_is_told_of_once_and_stops_nothing() {
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let mut site = Servers::shared().await.site("traced-nowhere", to(nowhere)).await;
    for number in 0..20 {
        site.put(&format!("key {number}"), "12345").await;
    }
    site.converges(SOON).await;
    let told = || site.evermirror.log().matches("Traces cannot be exported").count();
    eventually("the log tells", SOON, async || {
        (told() > 0).then_some(()).ok_or(site.evermirror.log())
    })
    .await;
    assert_eq!(told(), 1);
    assert!(site.evermirror.terminate().await.success());
}
