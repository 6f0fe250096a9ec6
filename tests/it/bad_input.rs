//! Whatever is posted to the webhook: the right answer, a count, and no harm.

use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::events;
use crate::support::eventually::SOON;
use crate::support::http;
use crate::support::minio::TOKEN;
use crate::support::site::{Servers, Setup, Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_post_without_the_right_token_is_refused_and_counted() {
    let site = Site::shared("token").await;
    site.put("key", "value").await;
    site.converges(SOON).await;
    // At the target only; a believed event would remove it.
    site.target.put(&site.target_bucket, "stray", "value").await;
    let body = events::event("ObjectRemoved:Delete", &site.bucket, "stray");
    let longer = format!("Bearer {TOKEN}x");
    let shorter = format!("Bearer {}", TOKEN.split_at(1).1);
    let basic = format!("Basic {TOKEN}");
    let wrong: [&[(&str, &str)]; 6] = [
        &[],
        &[("authorization", "")],
        &[("authorization", "Bearer")],
        &[("authorization", &longer)],
        &[("authorization", &shorter)],
        &[("authorization", &basic)],
    ];
    for headers in wrong {
        let answer = site.evermirror.post_with(headers, body.clone()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{headers:?}");
        assert!(!answer.text().contains(TOKEN));
    }
    site.evermirror.idle().await.unwrap();
    assert!(site.target.list(&site.target_bucket).await.unwrap().contains_key("stray"));
    let refused = "evermirror_intake_requests_total{outcome=\"unauthorized\"}";
    assert_eq!(site.evermirror.metric(refused).await, Some(6.0));
    assert!(!site.evermirror.log().contains(TOKEN), "the log shows the token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused() {
    let site = Site::shared("body").await;
    let big = format!("{{\"padding\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(site.evermirror.post(big).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let refused = "evermirror_intake_requests_total{outcome=\"too_large\"}";
    assert_eq!(site.evermirror.metric(refused).await, Some(1.0));
    site.put("key", "value").await;
    site.converges(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_makes_no_sense_is_accepted_kept_and_harmless() {
    let site = Site::shared("garbage").await;
    let bucket = site.bucket.as_str();
    let record = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut record = events::record("ObjectCreated:Put", bucket, "key");
        change(&mut record);
        events::body(&[record])
    };
    let deep = "[".repeat(100_000);
    let bodies: Vec<Vec<u8>> = vec![
        b"".into(),
        b"not json".into(),
        b"{".into(),
        b"null".into(),
        b"[]".into(),
        b"{}".into(),
        b"42".into(),
        b"\xff\xfe\x00".into(),
        deep.into(),
        json!({"Records": null}).to_string().into(),
        json!({"Records": []}).to_string().into(),
        json!({"Records": [null, 7, "text", {}]}).to_string().into(),
        json!({"Records": {"0": "an object"}}).to_string().into(),
        record(&|r| r["s3"] = json!(null)).into(),
        record(&|r| r["s3"]["object"]["key"] = json!("")).into(),
        record(&|r| r["s3"]["object"]["key"] = json!(null)).into(),
        record(&|r| r["s3"]["object"]["key"] = json!(["a", "list"])).into(),
        record(&|r| r["s3"]["object"]["key"] = json!("%FF%FE")).into(),
        record(&|r| r["s3"]["object"]["key"] = json!("x".repeat(5000))).into(),
        record(&|r| r["s3"]["bucket"]["name"] = json!(null)).into(),
        record(&|r| r["eventName"] = json!("s3:ObjectEaten:ByMoths")).into(),
        record(&|r| r["eventName"] = json!(null)).into(),
        record(&|r| r["eventTime"] = json!("the day before yesterday")).into(),
        record(&|r| r["eventSource"] = json!("a store of the future")).into(),
    ];
    for body in bodies {
        let start = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let answer = site.evermirror.post(body).await;
        assert!(answer.status.is_success(), "{} to {start}", answer.status);
    }
    let alive = http::get(&site.evermirror.web("/healthz")).await.unwrap();
    assert_eq!(alive.status, StatusCode::OK);
    site.put("key", "value").await;
    site.converges(SOON).await;
    let letters = site.evermirror.metric("evermirror_dead_letters").await;
    assert!(letters.is_some_and(|count| count >= 10.0), "dead letters are counted: {letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_of_the_webhook_needs_no_token() {
    let site = Site::shared("probe").await;
    for path in ["/", "/healthz", "/events"] {
        for method in [Method::GET, Method::HEAD] {
            let url = site.evermirror.webhook(path);
            let answer = http::request(method.clone(), &url, &[], "").await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_send_nothing_keep_no_store_out() {
    let settings = vec![("INTAKE__WEBHOOK__MAX_CONNECTIONS", "4".to_owned())];
    let setup = Setup { settings, ..Setup::default() };
    let site = Servers::shared().await.site("silent-connections", setup).await;
    let webhook: hyper::Uri = site.evermirror.webhook("/").parse().unwrap();
    let address = webhook.authority().unwrap().as_str();
    let mut silent = Vec::new();
    for round in 0..2 {
        for _ in 0..32 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        site.put("key", format!("value {round}")).await;
        site.converges(SOON).await;
    }
}
