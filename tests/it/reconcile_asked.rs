//! What makes a reconcile begin, besides a start and the clock: a gap, and a person.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::events;
use crate::support::eventually::{LATER, eventually};
use crate::support::http;
use crate::support::site::{Servers, Setup, Site};

const PERSON: &str = "a-person's-token";

/// No pass begins by itself but the one at the start, which is over when this returns.
async fn quiet(bucket: &str) -> Site {
    let settings =
        vec![("RECONCILE__INTERVAL", "0s".to_owned()), ("WEB__AUTH_TOKEN", PERSON.to_owned())];
    let site = Servers::shared().await.site(bucket, Setup { settings, ..Setup::default() }).await;
    for key in ["in/1", "in/2", "out/1"] {
        site.put(key, key).await;
    }
    site.converges(LATER).await;
    eventually("the pass at the start is over", LATER, async || {
        let walk = walk(&site).await?;
        let over = walk["last_complete_ms"].is_i64() && walk["running"] == false;
        over.then_some(()).ok_or(walk.to_string())
    })
    .await;
    site
}

async fn walk(site: &Site) -> Result<Value, String> {
    Ok(site.evermirror.status().await?["reconcile"][0].clone())
}

async fn keys(site: &Site) -> Vec<String> {
    site.target.list(&site.target_bucket).await.unwrap().into_keys().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_gap_leads_to_a_reconcile_of_its_bucket_without_waiting_for_the_interval() {
    let site = quiet("asked-gap").await;
    // Nobody tells of this.
    site.target.delete(&site.target_bucket, "in/1").await;
    // An event that names no usable key: something in this bucket has changed.
    let mut record = events::record("ObjectCreated:Put", &site.bucket, "");
    record["s3"]["object"] = json!({});
    assert_eq!(site.evermirror.post(events::body(&[record])).await.status, StatusCode::OK);
    let status = site.evermirror.status().await.unwrap();
    let gap = &status["gaps"][0];
    assert_eq!((&gap["bucket"], &gap["reason"]), (&json!("asked-gap"), &json!("unusable_event")));
    eventually("the gap is closed", LATER, async || {
        let status = site.evermirror.status().await?;
        (status["gaps"] == json!([])).then_some(()).ok_or(status.to_string())
    })
    .await;
    let walk = walk(&site).await.unwrap();
    assert_eq!((&walk["trigger"], &walk["drift"]["missing"]), (&json!("gap"), &json!(1)));
    site.converges(LATER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconcile_is_asked_for_over_the_api_with_the_token_alone_and_keeps_to_its_prefix() {
    let site = quiet("asked-api").await;
    for key in ["in/1", "in/2", "out/1"] {
        site.target.delete(&site.target_bucket, key).await;
    }
    let url = site.evermirror.web("/api/v1/reconcile");
    let ask = async |token: Option<&str>, body: Value| {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> =
            bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        let answer = http::request(Method::POST, &url, &headers, body.to_string()).await.unwrap();
        (answer.status, serde_json::from_slice::<Value>(&answer.body).unwrap())
    };
    let wanted = json!({"bucket": site.bucket, "prefix": "in/"});
    for token in [None, Some("another")] {
        assert_eq!(ask(token, wanted.clone()).await.0, StatusCode::UNAUTHORIZED);
    }
    let unknown = ask(Some(PERSON), json!({"bucket": "another"})).await;
    assert_eq!(unknown.0, StatusCode::NOT_FOUND, "{}", unknown.1);
    assert_eq!(ask(Some(PERSON), json!({"buckets": []})).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(walk(&site).await.unwrap()["trigger"], "start", "none of these has begun a pass");

    assert_eq!(ask(Some(PERSON), wanted).await, (StatusCode::OK, json!({"buckets": 1})));
    eventually("the prefix is mended", LATER, async || {
        site.evermirror.idle().await?;
        let walk = walk(&site).await?;
        let over = walk["trigger"] == "request" && walk["running"] == false;
        over.then_some(()).ok_or(walk.to_string())
    })
    .await;
    eventually("its keys are there", LATER, async || {
        let keys = keys(&site).await;
        (keys == ["in/1", "in/2"]).then_some(()).ok_or(format!("{keys:?}"))
    })
    .await;
    assert_eq!(walk(&site).await.unwrap()["prefix"], "in/");
    // Without a body it is everything.
    assert_eq!(ask(Some(PERSON), json!({})).await, (StatusCode::OK, json!({"buckets": 1})));
    site.converges(LATER).await;
}
