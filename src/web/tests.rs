use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use secrecy::SecretString;
use tower::ServiceExt as _;

use super::*;
use crate::deletes::HeldDeletes;
use crate::event::{Unusable, UnusableReason};
use crate::metrics::METRICS;
use crate::snapshot::SnapshotStatus;

/// A pipeline with the state the test gives it.
#[derive(Default)]
struct Fixed {
    status: Status,
    unready: Option<String>,
}

impl Operations for Fixed {
    fn status(&self) -> Status {
        self.status.clone()
    }

    fn ready(&self) -> Result<(), String> {
        self.unready.clone().map_or(Ok(()), Err)
    }

    fn reconcile(&self, bucket: Option<&str>, _: Option<&str>) -> Result<u64, String> {
        match bucket {
            None => Ok(9),
            Some("photos") => Ok(1),
            Some(_) => Err("no such bucket".to_owned()),
        }
    }

    fn held_keys<'a>(&'a self, bucket: &'a str, most: usize) -> HeldKeys<'a> {
        let key = move |number| HeldKey { key: format!("{bucket}/{number}"), since_ms: 1 };
        Box::pin(async move { Ok((0..most.min(3)).map(key).collect()) })
    }

    fn decide<'a>(&'a self, bucket: &'a str, decision: Decision) -> Acted<'a> {
        let known = bucket == "photos";
        Box::pin(async move {
            match decision {
                Decision::Approve if known => Ok(7),
                Decision::Approve => Err("nothing is held".to_owned()),
                Decision::Discard => Ok(3),
            }
        })
    }
}

fn web(fixed: Fixed, token: Option<&str>) -> Web {
    Web {
        operations: Arc::new(fixed),
        metrics: Metrics::new(),
        dead_letters: Arc::default(),
        token: token.map(|t| BearerToken::new(&SecretString::from(t))),
        read_without_token: true,
        history: History::default(),
        latest: Latest::default(),
        stop: CancellationToken::new(),
    }
}

async fn ask(web: &Web, method: &str, path: &str, token: &str) -> (StatusCode, HeaderMap, String) {
    ask_with(web, method, path, token, "").await
}

async fn ask_with(
    web: &Web,
    method: &str,
    path: &str,
    token: &str,
    body: &'static str,
) -> (StatusCode, HeaderMap, String) {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("authorization", token).body(Body::from(body)).unwrap();
    let answer = router(web.clone()).oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn health_fails_only_with_the_journal_and_readiness_says_why_not() {
    let well = web(Fixed::default(), None);
    assert_eq!(ask(&well, "GET", "/healthz", "").await.0, StatusCode::OK);
    assert_eq!(ask(&well, "GET", "/readyz", "").await.0, StatusCode::OK);
    let mut fixed = Fixed { unready: Some("the target is down".to_owned()), ..Fixed::default() };
    assert_eq!(
        ask(
            &web(Fixed { unready: fixed.unready.clone(), ..Fixed::default() }, None),
            "GET",
            "/healthz",
            ""
        )
        .await
        .0,
        StatusCode::OK,
        "a target that is down is no reason to restart"
    );
    fixed.status.journal.failed = Some("the disk failed".to_owned());
    let ill = web(fixed, None);
    let (status, _, body) = ask(&ill, "GET", "/healthz", "").await;
    assert_eq!((status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "the disk failed\n"));
    let (status, _, body) = ask(&ill, "GET", "/readyz", "").await;
    assert_eq!((status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "the target is down\n"));
}

#[tokio::test]
async fn a_scrape_shows_every_metric_that_needs_no_event_and_the_state_of_now() {
    let mut fixed = Fixed::default();
    fixed.status.keys.parked = 4;
    fixed.status.at_risk.oldest_pending_age_ms = Some(1500);
    (fixed.status.at_risk.bytes, fixed.status.at_risk.unsized_keys) = (4096, 2);
    fixed.status.reconcile_interval_ms = 3_600_000;
    fixed.status.journal.max_bytes = 8 << 30;
    let (interval_ms, last_ms) = (3_600_000, Some(1_500));
    let snapshots = SnapshotStatus { interval_ms, last_ms, failures: 2, last_error: None };
    fixed.status.snapshots = Some(snapshots);
    let trouble = Some("no such queue".to_owned());
    let (backlog, backlog_age_ms) = (Some(8), Some(2500));
    let sqs = IntakeStatus { name: "sqs", trouble, backlog, backlog_age_ms, ..Default::default() };
    fixed.status.intakes = vec![IntakeStatus { name: "webhook", ..Default::default() }, sqs];
    let web = web(fixed, None);
    let unusable =
        Unusable { reason: UnusableReason::NotJson, bucket: None, key: None, event: None };
    web.dead_letters.push(&unusable, 3, 0);
    let (status, headers, body) = ask(&web, "GET", "/metrics", "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], metrics::CONTENT_TYPE);
    for line in [
        "evermirror_parked_keys 4.0",
        "evermirror_oldest_pending_age_seconds 1.5",
        "evermirror_pending_bytes 4096.0",
        "evermirror_pending_unsized_keys 2.0",
        "evermirror_reconcile_interval_seconds 3600.0",
        "evermirror_journal_max_bytes 8589934592.0",
        "evermirror_snapshot_interval_seconds 3600.0",
        "evermirror_snapshot_last_success_timestamp_seconds 1.5",
        "evermirror_capture_interval_seconds 0.0",
        "evermirror_intake_last_event_timestamp_seconds{intake=\"webhook\"} 0.0",
        "evermirror_gaps_open{reason=\"journal_full\"} 0.0",
        "evermirror_dead_letters 1.0",
        "evermirror_intake_up{intake=\"webhook\"} 1.0",
        "evermirror_intake_up{intake=\"sqs\"} 0.0",
        "evermirror_intake_backlog{intake=\"sqs\"} 8.0",
        "evermirror_intake_backlog_age_seconds{intake=\"sqs\"} 2.5",
    ] {
        assert!(body.lines().any(|l| l == line), "{line} in\n{body}");
    }
    for info in
        METRICS.iter().filter(|info| !info.kind.contains("class") && !info.kind.contains("reason"))
    {
        assert!(body.contains(info.name), "{}", info.name);
    }
    assert!(body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_status_answers_what_would_be_lost() {
    let mut fixed = Fixed::default();
    fixed.status.at_risk = AtRisk {
        oldest_pending_age_ms: Some(12),
        keys: 3,
        bytes: 4096,
        unsized_keys: 1,
        buckets_in_doubt: 1,
    };
    let web = web(fixed, None);
    let (status, headers, body) = ask(&web, "GET", "/api/v1/status", "").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body["at_risk"],
        json!({
            "oldest_pending_age_ms": 12, "keys": 3, "bytes": 4096, "unsized_keys": 1,
            "buckets_in_doubt": 1,
        })
    );
    for field in
        ["lag", "replicated", "journal", "gaps", "parked", "held", "delayed", "source", "target"]
    {
        assert!(body.get(field).is_some(), "{field}");
    }
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn dead_letters_are_shown_newest_first_and_escaped() {
    let web = web(Fixed::default(), None);
    for key in ["old", "<b>\u{7}"] {
        let reason = UnusableReason::BadKey;
        let unusable = Unusable { reason, bucket: None, key: Some(key.to_owned()), event: None };
        web.dead_letters.push(&unusable, 3, 0);
    }
    let body: serde_json::Value =
        serde_json::from_str(&ask(&web, "GET", "/api/v1/dead-letters", "").await.2).unwrap();
    assert_eq!(body["dead_letters"][0]["key"], "<b>\\u{7}");
    assert_eq!(body["dead_letters"][1]["reason"], "bad_key");
}

#[tokio::test]
async fn what_waits_to_be_deleted_is_listed() {
    let mut fixed = Fixed::default();
    let bucket = "photos".to_owned();
    let reason = "a burst".to_owned();
    fixed.status.held = vec![HeldDeletes {
        bucket: bucket.clone(),
        count: 7,
        reason: reason.into(),
        since_ms: Some(1),
        deciding: None,
    }];
    let delayed = DelayedDeletes { bucket, count: 2, next_due_in_ms: Some(5) };
    fixed.status.delayed = vec![delayed];
    let web = web(fixed, None);
    let (status, _, keys) = ask(&web, "GET", "/api/v1/deletes/photos?limit=1", "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&keys).unwrap(),
        json!({"bucket": "photos", "keys": [{"key": "photos/0", "since_ms": 1}]})
    );
    let (status, ..) = ask(&web, "GET", "/api/v1/deletes/photos?limit=all", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _, body) = ask(&web, "GET", "/api/v1/deletes", "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&body).unwrap(),
        json!({
            "held": [{"bucket": "photos", "count": 7, "reason": "a burst", "since_ms": 1}],
            "delayed": [{"bucket": "photos", "count": 2, "next_due_in_ms": 5}],
        })
    );
}

#[tokio::test]
async fn acting_needs_the_token() {
    let path = "/api/v1/deletes/photos/approve";
    let off = web(Fixed::default(), None);
    let (status, _, body) = ask(&off, "POST", path, "Bearer t").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("web.auth_token"), "{body}");
    let on = web(Fixed::default(), Some("t"));
    for wrong in ["", "t", "Bearer u"] {
        let (status, headers, body) = ask(&on, "POST", path, wrong).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(headers.contains_key("www-authenticate") && body.contains("Bearer"), "{body}");
    }
    assert_eq!(ask(&on, "GET", path, "Bearer t").await.0, StatusCode::METHOD_NOT_ALLOWED);
    let (status, _, body) = ask(&on, "POST", path, "Bearer t").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "{\"approved\":7}"));
    let (status, _, body) = ask(&on, "POST", "/api/v1/deletes/photos/discard", "Bearer t").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "{\"discarded\":3}"));
    let (status, ..) = ask(&on, "POST", "/api/v1/deletes/photos/burn", "Bearer t").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "no such decision");
    let (status, _, body) = ask(&on, "POST", "/api/v1/deletes/none/approve", "Bearer t").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(body.contains("nothing is held"));
}

#[tokio::test]
async fn a_reconcile_needs_the_token_and_a_bucket_that_is_known() {
    let path = "/api/v1/reconcile";
    let off = web(Fixed::default(), None);
    assert_eq!(ask(&off, "POST", path, "Bearer t").await.0, StatusCode::FORBIDDEN);
    let on = web(Fixed::default(), Some("t"));
    assert_eq!(ask(&on, "POST", path, "Bearer u").await.0, StatusCode::UNAUTHORIZED);
    for (body, status, answer) in [
        ("", StatusCode::OK, "{\"buckets\":9}"),
        ("{}", StatusCode::OK, "{\"buckets\":9}"),
        ("{\"bucket\":null,\"prefix\":\"a/\"}", StatusCode::OK, "{\"buckets\":9}"),
        ("{\"bucket\":\"photos\"}", StatusCode::OK, "{\"buckets\":1}"),
        ("{\"bucket\":\"none\"}", StatusCode::NOT_FOUND, "no such bucket"),
        ("{\"buckets\":\"photos\"}", StatusCode::BAD_REQUEST, "unknown field"),
        ("photos", StatusCode::BAD_REQUEST, "the body must be"),
    ] {
        let (got, _, said) = ask_with(&on, "POST", path, "Bearer t", body).await;
        assert_eq!(got, status, "{body}: {said}");
        assert!(said.contains(answer), "{body}: {said}");
    }
}

#[tokio::test]
async fn reading_needs_the_token_when_configured_and_probes_never_do() {
    let web = Web { read_without_token: false, ..web(Fixed::default(), Some("t")) };
    for path in ["/api/v1/status", "/api/v1/stream", "/api/v1/history", "/metrics"] {
        let (status, headers, _) = ask(&web, "GET", path, "Bearer u").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(headers.contains_key("www-authenticate"), "{path}");
    }
    for path in ["/api/v1/status", "/api/v1/history", "/metrics"] {
        assert_eq!(ask(&web, "GET", path, "Bearer t").await.0, StatusCode::OK, "{path}");
    }
    for path in ["/healthz", "/readyz", "/", "/page/main.js"] {
        assert_eq!(ask(&web, "GET", path, "").await.0, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn the_page_allows_nothing_inline_and_nothing_from_elsewhere() {
    let web = web(Fixed::default(), None);
    let (status, headers, page) = ask(&web, "GET", "/", "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"));
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert!(!page.contains("style=") && !page.contains("://"), "inline or from elsewhere");
    let linked = page.split(['"']).filter(|part| part.starts_with("/page/"));
    let linked: Vec<_> = linked.collect();
    assert_eq!(linked.len(), 3);
    for path in linked {
        assert_eq!(ask(&web, "GET", path, "").await.0, StatusCode::OK, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_stream_tells_the_status_and_ends_at_a_stop() {
    let web = web(Fixed::default(), None);
    let request = Request::get("/api/v1/stream").body(Body::empty()).unwrap();
    let answer = router(web.clone()).oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    for _ in 0..3 {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let text = String::from_utf8(frame.to_vec()).unwrap();
        let status = text.strip_prefix("event: status\ndata: ").unwrap();
        let status: serde_json::Value = serde_json::from_str(status.trim_end()).unwrap();
        assert!(status.get("at_risk").is_some());
    }
    web.stop.cancel();
    assert!(body.frame().await.is_none(), "the stream goes on after the stop");
}
