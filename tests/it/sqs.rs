//! Notifications from a queue: ElasticMQ for what a queue does, moto for an S3 that sends its own.
//!
//! Where a test must not be helped by the reconciler, the source refuses to list its buckets: what
//! arrives at the target then arrived by the queue.

mod moto;
mod poison;
mod trouble;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::elasticmq::ElasticMq;
use crate::support::events;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::evermirror::{Config, Evermirror};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::ports::free_port;
use crate::support::site::{Servers, Setup, Site};

/// A source that does not list: no reconcile can find what the queue did not tell.
async fn unlistable_source(servers: &Servers) -> FaultProxy {
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    proxy.misbehave(|_, uri| {
        let listing = uri.query().unwrap_or_default().contains("list-type=2");
        listing.then_some(Fault::Answer(500, "InternalError"))
    });
    proxy
}

/// A bucket between MinIO servers whose notifications come by this queue alone, if at all.
async fn silent_site(bucket: &str, settings: Vec<(&'static str, String)>) -> (Site, FaultProxy) {
    let servers = Servers::shared().await;
    let proxy = unlistable_source(servers).await;
    let setup = Setup { source_endpoint: Some(proxy.endpoint()), settings, ..Setup::default() };
    (servers.silent(bucket, setup).await, proxy)
}

/// Puts objects at the source and gives the notifications that AWS would send for them.
async fn put_some(site: &Site, keys: std::ops::Range<usize>) -> Vec<String> {
    let mut notifications = Vec::new();
    for number in keys {
        let key = format!("a key/{number:05}");
        site.put(&key, format!("value {number}")).await;
        notifications.push(of_aws("ObjectCreated:Put", &site.bucket, &key).to_string());
    }
    notifications
}

/// The document that AWS documents.
fn of_aws(name: &str, bucket: &str, key: &str) -> Value {
    let key: String = form_urlencoded::byte_serialize(key.as_bytes()).collect();
    json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1",
        "eventTime": "2026-11-23T11:51:35.290Z", "eventName": name,
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
        "s3": {"s3SchemaVersion": "1.0", "configurationId": "all",
               "bucket": {"name": bucket, "arn": format!("arn:aws:s3:::{bucket}")},
               "object": {"key": key, "size": 7, "sequencer": "0055AED6DCD90281E5"}}}]})
}

async fn target_lists(site: &Site, count: usize) {
    eventually("all objects are at the target", LATER, async || {
        let there = site.target.list(&site.target_bucket).await?.len();
        (there == count).then_some(()).ok_or(format!("{there} of {count} objects"))
    })
    .await;
    assert_eq!(site.differences().await.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_queue_tells_is_done_and_deleted_from_it_whatever_envelope_it_comes_in() {
    let queue = ElasticMq::shared().await.client().queue("envelopes").await;
    let servers = Servers::shared().await;
    let setup = Setup { settings: queue.settings(), ..Setup::default() };
    let mut site = servers.silent("sqs-envelopes", setup).await;
    site.evermirror.start().await;
    let bucket = site.bucket.clone();
    for key in ["plain", "sns", "eventbridge", "minio", "gone"] {
        site.put(key, format!("value of {key}")).await;
    }
    let created = |key: &str| of_aws("ObjectCreated:Put", &bucket, key).to_string();
    let bridge = json!({"version": "0", "detail-type": "Object Created", "source": "aws.s3",
        "time": "2026-11-23T11:51:35Z",
        "detail": {"bucket": {"name": bucket}, "object": {"key": "eventbridge", "size": 1}}});
    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": bucket});
    let in_sns = |body: String| json!({"Type": "Notification", "Message": body}).to_string();
    queue
        .send(&[
            created("plain"),
            in_sns(created("sns")),
            bridge.to_string(),
            events::event("ObjectCreated:Put", &bucket, "minio"),
            created("gone"),
            test.to_string(),
            in_sns(test.to_string()),
        ])
        .await;
    site.converges(SOON).await;
    site.delete("gone").await;
    site.put("plain", "another value").await;
    queue
        .send(&[of_aws("ObjectRemoved:Delete", &bucket, "gone").to_string(), created("plain")])
        .await;
    site.converges(SOON).await;
    eventually("the queue is empty", SOON, async || queue.holds_exactly(0).await).await;
    let status = site.evermirror.status().await.unwrap();
    assert_eq!(status["intakes"][1]["name"], "sqs", "{status}");
    assert_eq!(status["intakes"][1]["trouble"], Value::Null, "{status}");
    let count = |outcome: &str| format!("evermirror_intake_events_total{{outcome=\"{outcome}\"}}");
    assert_eq!(site.evermirror.metric(&count("ignored")).await, Some(2.0));
    assert_eq!(site.evermirror.metric(&count("dead_letter")).await, Some(0.0));
    let up = site.evermirror.metric("evermirror_intake_up{intake=\"sqs\"}").await;
    assert_eq!(up, Some(1.0));
}

/// What arrived, in a form in which two ways in can be compared.
async fn understood(evermirror: &Evermirror) -> (BTreeMap<String, f64>, Vec<String>) {
    let metrics = evermirror.metrics().await;
    let counters = metrics.lines().filter_map(|line| {
        let of_events = line.starts_with("evermirror_intake_events_total")
            || line.starts_with("evermirror_gaps_total");
        let (name, value) = line.rsplit_once(' ').filter(|_| of_events)?;
        // Which of two deliveries of one event is the second may depend on the way.
        let name = name.replace("\"duplicate\"", "\"accepted\"");
        Some((name, value.parse::<f64>().ok()?))
    });
    let mut counts = BTreeMap::new();
    for (name, value) in counters {
        *counts.entry(name).or_default() += value;
    }
    let url = evermirror.web("/api/v1/dead-letters");
    let letters = crate::support::http::get(&url).await.unwrap();
    let letters: Value = serde_json::from_slice(&letters.body).unwrap();
    let mut list: Vec<_> = letters["dead_letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| {
            let mut letter = letter.clone();
            letter.as_object_mut().unwrap().remove("at_ms");
            letter.to_string()
        })
        .collect();
    list.sort();
    (counts, list)
}

fn fixtures() -> Vec<String> {
    let root =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/notifications");
    let (mut bodies, mut folders) = (Vec::new(), vec![root]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                bodies.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fixture_means_by_the_queue_what_it_means_by_the_webhook() {
    let queue = ElasticMq::shared().await.client().queue("fixtures").await;
    let servers = Servers::shared().await;
    let proxy = unlistable_source(servers).await;
    let start = async |target: &str, mut settings: Vec<(&'static str, String)>| {
        // The fixtures' buckets.
        let buckets = format!("plain:{target}-plain,versioned:{target}-versioned");
        settings.push(("BUCKETS", buckets));
        let mut evermirror = Evermirror::configure(Config {
            source_endpoint: proxy.endpoint(),
            target_endpoint: servers.target.endpoint(),
            bucket: ("unused".to_owned(), "unused".to_owned()),
            webhook_port: free_port(),
            settings: settings.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        });
        evermirror.start().await;
        evermirror
    };
    let by_webhook = start("fixtures-webhook", Vec::new()).await;
    let by_queue = start("fixtures-sqs", queue.settings()).await;
    let bodies = fixtures();
    assert!(bodies.len() > 80, "{} fixtures", bodies.len());
    for body in &bodies {
        assert_eq!(by_webhook.post(body.clone()).await.status, StatusCode::OK, "{body}");
    }
    queue.send(&bodies).await;
    eventually("all fixtures were taken", LATER, async || queue.holds_exactly(0).await).await;
    let expected = understood(&by_webhook).await;
    assert!(expected.0.len() > 3 && !expected.1.is_empty(), "{expected:?}");
    assert_eq!(understood(&by_queue).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_killed_under_load_loses_nothing() {
    const EVENTS: usize = 400;
    let mut server = ElasticMq::start().await;
    let queue = server.client().queue("restarted").await;
    let (mut site, _proxy) = silent_site("sqs-restarted", queue.settings()).await;
    queue.send(&put_some(&site, 0..EVENTS).await).await;
    site.evermirror.start().await;
    for _ in 0..3 {
        eventually("messages are being taken", SOON, async || {
            let taken = site.evermirror.metric("evermirror_intake_events_total").await;
            taken.filter(|count| *count >= 10.0).map(drop).ok_or(format!("{taken:?} taken"))
        })
        .await;
        server.stop();
        server.start_again().await;
    }
    target_lists(&site, EVENTS).await;
    eventually("the queue is empty", LATER, async || queue.holds_exactly(0).await).await;
    eventually("the trouble is over", SOON, async || {
        let status = site.evermirror.status().await?;
        let trouble = &status["intakes"][1]["trouble"];
        trouble.is_null().then_some(()).ok_or(trouble.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_receive_and_delete_nothing_is_lost_and_a_second_delivery_does_no_harm() {
    const EVENTS: usize = 60;
    let server = ElasticMq::shared().await;
    let queue = server.client().queue("killed").await;
    let proxy = FaultProxy::in_front_of(&server.authority()).await;
    // What is received is never deleted: each kill finds messages that are durable, and others that are not.
    proxy.misbehave_on(|operation| {
        let delete = operation == "DeleteMessageBatch";
        delete.then_some(Fault::Wait(std::time::Duration::from_hours(1)))
    });
    let settings = queue.settings_by(&proxy.endpoint());
    let (mut site, _source) = silent_site("sqs-killed", settings).await;
    queue.send(&put_some(&site, 0..EVENTS).await).await;
    for _ in 0..3 {
        let before = proxy.faults();
        site.evermirror.start().await;
        eventually("something is to be deleted", SOON, async || {
            (proxy.faults() > before).then_some(()).ok_or("nothing was".to_owned())
        })
        .await;
        site.evermirror.kill();
    }
    assert_eq!(queue.holds().await, EVENTS as u64, "nothing was deleted");
    proxy.behave();
    site.evermirror.start().await;
    target_lists(&site, EVENTS).await;
    eventually("the queue is empty", LATER, async || queue.holds_exactly(0).await).await;
    let gaps = site.evermirror.status().await.unwrap()["gaps"].clone();
    assert_eq!(gaps, json!([]), "nothing was in doubt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_keeps_messages_invisible_and_loses_none() {
    const EVENTS: usize = 40;
    let server = ElasticMq::shared().await;
    let client = server.client();
    // A message that became visible again before it was deleted would be moved here.
    let dead = client.queue("full-dead").await;
    let queue = client.queue_with_redrive("full", 1, &dead).await;
    let proxy = FaultProxy::in_front_of(&server.authority()).await;
    let target = FaultProxy::in_front_of(&Servers::shared().await.target.authority()).await;
    target.misbehave(|_, _| Some(Fault::Answer(503, "ServiceUnavailable")));
    let mut settings = queue.settings_by(&proxy.endpoint());
    settings.push(("TARGET__ENDPOINT", target.endpoint()));
    settings.push(("JOURNAL__SEGMENT_SIZE", "1MiB".to_owned()));
    settings.push(("JOURNAL__MAX_SIZE", "2MiB".to_owned()));
    settings.push(("INTAKE__WEBHOOK__MAX_WAIT", "1s".to_owned()));
    let (mut site, _source) = silent_site("sqs-full", settings).await;
    let notifications = put_some(&site, 0..EVENTS).await;
    site.evermirror.start().await;
    fill_the_journal(&site).await;
    let gaps = site.evermirror.status().await.unwrap()["gaps"].clone();
    queue.send(&notifications).await;
    let extensions = || {
        let seen = proxy.seen();
        seen.iter().filter(|request| request.ends_with("ChangeMessageVisibilityBatch")).count()
    };
    // More of them than one visibility timeout needs, from each of the four receivers.
    eventually("messages are kept invisible", LATER, async || {
        (extensions() >= 20).then_some(()).ok_or(format!("{} extensions", extensions()))
    })
    .await;
    assert_eq!(queue.holds().await, EVENTS as u64, "what is not durable stays in the queue");
    let status = site.evermirror.status().await.unwrap();
    let trouble = status["intakes"][1]["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains("journal"), "{status}");
    assert_eq!(status["gaps"], gaps, "nothing is missed, so nothing more is in doubt");
    target.behave();
    eventually("the queue is empty", LATER, async || queue.holds_exactly(0).await).await;
    target_lists(&site, EVENTS).await;
    assert_eq!(dead.holds().await, 0, "no message was ever visible again");
}

/// Posts events of one object until the journal takes no more.
async fn fill_the_journal(site: &Site) {
    let record = events::record("ObjectCreated:Put", &site.bucket, "a key/00000");
    let body = events::body(&vec![record; 500]);
    eventually("the journal is full", LATER, async || {
        let status = site.evermirror.post(body.clone()).await.status;
        let full = site.evermirror.status().await?["journal"]["full"] == true;
        let refused = status == StatusCode::SERVICE_UNAVAILABLE;
        (refused && full).then_some(()).ok_or(format!("{status}, full: {full}"))
    })
    .await;
}

/// How many answers [`refuse_the_last`] has seen.
static ANSWERS: AtomicUsize = AtomicUsize::new(0);

/// Makes every other answer to a delete say that the last message was not deleted. (It was; a queue that
/// forgets some is not to be had.)
fn refuse_the_last(answer: &str) -> String {
    if !ANSWERS.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
        return answer.to_owned();
    }
    refuse_one(answer, |done| done.pop().unwrap())
}

/// Moves the message that `choose` takes from what succeeded in a batch to what failed.
fn refuse_one(answer: &str, choose: impl Fn(&mut Vec<Value>) -> Value) -> String {
    let mut answer: Value = serde_json::from_str(answer).unwrap();
    let chosen = choose(answer["Successful"].as_array_mut().unwrap());
    answer["Failed"] = json!([{"Id": chosen["Id"], "Code": "InternalError",
                               "Message": "A test's fault.", "SenderFault": false}]);
    answer.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_fails_for_some_messages_is_repeated_for_those() {
    const EVENTS: usize = 30;
    let server = ElasticMq::shared().await;
    let queue = server.client().queue("partial").await;
    let proxy = FaultProxy::in_front_of(&server.authority()).await;
    proxy.misbehave_on(|operation| {
        (operation == "DeleteMessageBatch").then_some(Fault::EditAnswer(refuse_the_last))
    });
    let mut settings = queue.settings_by(&proxy.endpoint());
    settings.push(("INTAKE__SQS__RECEIVERS", "1".to_owned()));
    let (mut site, _source) = silent_site("sqs-partial", settings).await;
    queue.send(&put_some(&site, 0..EVENTS).await).await;
    site.evermirror.start().await;
    target_lists(&site, EVENTS).await;
    eventually("the queue is empty", SOON, async || queue.holds_exactly(0).await).await;
    let class = "evermirror_errors_total{stage=\"intake\",class=\"sqs_delete\"}";
    let refused = site.evermirror.metric(class).await;
    assert!(refused >= Some(3.0), "{refused:?} refusals");
    // Three batches of ten; each had one more delete, and nothing waited for the visibility timeout.
    let seen = proxy.seen();
    let deletes = seen.iter().filter(|request| request.ends_with("DeleteMessageBatch")).count();
    assert_eq!(deletes, 6);
    let taken =
        site.evermirror.metric("evermirror_intake_events_total{outcome=\"accepted\"}").await;
    assert_eq!(taken, Some(30.0), "no message came twice");
}
