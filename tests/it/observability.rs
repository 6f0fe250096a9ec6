//! What an operator sees: health, readiness, numbers that return to rest, logs without secrets.

use hyper::{Method, StatusCode};

use crate::support::eventually::{SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::http;
use crate::support::minio::{SECRET_KEY, TOKEN};
use crate::support::site::{Servers, Setup, Site};

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_answer_without_a_token() {
    let site = Site::shared("seen").await;
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/status"] {
        let answer = http::get(&site.evermirror.web(path)).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
    let missing = http::get(&site.evermirror.web("/no/such/page")).await.unwrap();
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_is_shown_and_returns_to_zero() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|method, uri| {
        let an_object = uri.path().trim_matches('/').contains('/');
        (method == Method::PUT && an_object).then_some(Fault::Answer(503, "ServiceUnavailable"))
    });
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = servers.site("gauges", setup).await;
    for number in 0..25 {
        site.put(&format!("key {number}"), "12345").await;
    }
    eventually("all 25 keys are shown as waiting", SOON, async || {
        let status = site.evermirror.status().await?;
        let waiting = &status["keys"]["pending"];
        if *waiting == 25 { Ok(()) } else { Err(format!("{waiting} are shown: {status}")) }
    })
    .await;
    eventually("the oldest one ages", SOON, async || {
        let age = site.evermirror.metric("evermirror_oldest_pending_age_seconds").await;
        age.filter(|age| *age > 0.0).ok_or(format!("its age is {age:?}"))
    })
    .await;
    proxy.behave();
    site.converges(SOON).await;
    for gauge in [
        "evermirror_pending_keys",
        "evermirror_in_flight_keys",
        "evermirror_parked_keys",
        "evermirror_held_deletes",
        "evermirror_oldest_pending_age_seconds",
    ] {
        assert_eq!(site.evermirror.metric(gauge).await, Some(0.0), "{gauge}");
    }
    let copied = "evermirror_replicated_total{action=\"copied\"}";
    assert_eq!(site.evermirror.metric(copied).await, Some(25.0));
    let bytes = site.evermirror.metric("evermirror_replicated_bytes_total").await;
    assert_eq!(bytes, Some(125.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_json_on_demand_and_never_holds_a_secret() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|_, uri| {
        uri.path().ends_with("/refused").then_some(Fault::Answer(403, "AccessDenied"))
    });
    let setup = Setup {
        target_endpoint: Some(proxy.endpoint()),
        settings: vec![
            ("LOG__FORMAT", "json".to_owned()),
            ("LOG__FILTER", "warn,evermirror=trace".to_owned()),
        ],
        ..Setup::default()
    };
    let mut site = servers.site("logged", setup).await;
    site.put("fine", "the content of an object").await;
    site.put("refused\u{1b}[2J\n", "the content of an object").await;
    site.put("refused", "the content of an object").await;
    site.evermirror.post("{\"not\": \"an event\"").await;
    site.evermirror.post_with(&[("authorization", "Bearer a-wrong-token")], "{}").await;
    eventually("the failure is logged", SOON, async || {
        let log = site.evermirror.log();
        log.contains("AccessDenied").then_some(()).ok_or(log)
    })
    .await;
    assert!(site.evermirror.terminate().await.success());
    let log = site.evermirror.log();
    for line in log.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(record["timestamp"].is_string() && record["level"].is_string(), "{line}");
    }
    let secrets =
        [SECRET_KEY, TOKEN, "a-wrong-token", "the content of an object", "not\\\": \\\"an event"];
    for secret in secrets {
        assert!(!log.contains(secret), "the log holds {secret:?}");
    }
}
