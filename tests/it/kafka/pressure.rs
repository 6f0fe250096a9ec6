//! No room here: the consumer pauses, stays in its group, and nothing is lost.

use hyper::{Method, StatusCode};

use super::{NO_RECONCILE, REPLICATED, Servers, Stream, trouble, well};
use crate::support::events;
use crate::support::eventually::{LATER, eventually};
use crate::support::evermirror::Evermirror;
use crate::support::fault_proxy::{Fault, FaultProxy};

/// More records than are taken at once, and more keys than the smallest work queue holds.
const OBJECTS: u32 = 3_000;

async fn put_many(stream: &Stream<'_>) {
    let puts: Vec<String> = (0..OBJECTS).map(|number| format!("{number}")).collect();
    for some in puts.chunks(48) {
        futures_util::future::join_all(some.iter().map(|key| stream.put(key, "x"))).await;
    }
}

/// Puts them all, and waits until the topic has their events.
async fn tell_of_many(stream: &Stream<'_>) {
    put_many(stream).await;
    eventually("all events are in the topic", LATER, async || {
        let sent: i64 = stream.servers.kafka.ends(&stream.topic).iter().sum();
        if sent >= i64::from(OBJECTS) { Ok(()) } else { Err(format!("{sent}")) }
    })
    .await;
}

/// Nothing that is not done is committed, and the process stays in its group.
fn waits_in_good_order(stream: &Stream<'_>, evermirror: &Evermirror) {
    let kafka = &stream.servers.kafka;
    let committed: i64 = kafka.committed(&stream.topic, &stream.topic).iter().sum();
    assert_eq!(committed, 0);
    let log = evermirror.log();
    assert_eq!(log.matches("Partitions are read from now on").count(), 1, "{log}");
    assert!(!log.contains("Partitions go to another process"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_pauses_the_consumer_and_loses_nothing() {
    let stream = Servers::shared().await.stream("kafka-full").await;
    let down = FaultProxy::in_front_of(&stream.servers.target.authority()).await;
    down.misbehave(|_, _| Some(Fault::Answer(503, "ServiceUnavailable")));
    let settings = [
        NO_RECONCILE,
        ("JOURNAL__SEGMENT_SIZE", "1MiB"),
        ("JOURNAL__MAX_SIZE", "2MiB"),
        ("INTAKE__WEBHOOK__MAX_WAIT", "1s"),
    ];
    let mut evermirror = stream.process(&down.endpoint(), &settings);
    evermirror.start().await;
    let record = events::record("ObjectCreated:Put", &stream.bucket, "0");
    let body = events::body(&vec![record; 500]);
    eventually("the journal is full", LATER, async || {
        let status = evermirror.post(body.clone()).await.status;
        let full = evermirror.status().await?["journal"]["full"] == true;
        let refused = status == StatusCode::SERVICE_UNAVAILABLE;
        (refused && full).then_some(()).ok_or(format!("{status}, full: {full}"))
    })
    .await;
    let gaps = evermirror.status().await.unwrap()["gaps"].clone();
    tell_of_many(&stream).await;
    trouble(&evermirror, "journal").await;
    waits_in_good_order(&stream, &evermirror);
    let told = evermirror.log().matches("Records of Kafka cannot be kept now").count();
    assert_eq!(told, 1, "once, not once for each record");
    assert_eq!(evermirror.status().await.unwrap()["gaps"], gaps, "nothing more is in doubt");

    down.behave();
    stream.converges(&[&evermirror]).await;
    well(&evermirror).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_work_queue_pauses_the_consumer_and_loses_nothing() {
    let stream = Servers::shared().await.stream("kafka-full-queue").await;
    let down = FaultProxy::in_front_of(&stream.servers.target.authority()).await;
    down.misbehave(|_, _| Some(Fault::Answer(503, "ServiceUnavailable")));
    let settings = [NO_RECONCILE, REPLICATED, ("REPLICATE__MAX_PENDING_KEYS", "1000")];
    let mut evermirror = stream.process(&down.endpoint(), &settings);
    evermirror.start().await;
    tell_of_many(&stream).await;
    eventually("it reads no more than it has room for", LATER, async || {
        let unread = evermirror.metric("evermirror_kafka_unread_records").await;
        if unread == Some(f64::from(OBJECTS - 1_000)) { Ok(()) } else { Err(format!("{unread:?}")) }
    })
    .await;
    waits_in_good_order(&stream, &evermirror);

    down.behave();
    stream.converges(&[&evermirror]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_keys_all_fail_becomes_a_gap_and_the_others_are_read() {
    let stream = Servers::shared().await.stream("kafka-failing").await;
    let other = stream.beside("kafka-failing-not").await;
    stream.target.create_bucket(&stream.copy()).await;
    let faulty = FaultProxy::in_front_of(&stream.servers.target.authority()).await;
    faulty.misbehave(|method, uri| {
        let denied = method == Method::PUT && uri.path().starts_with("/kafka-failing-copy/");
        denied.then_some(Fault::Answer(403, "AccessDenied"))
    });
    let settings = [
        NO_RECONCILE,
        REPLICATED,
        ("REPLICATE__MAX_PENDING_KEYS", "1000"),
        ("BUCKETS__1__SOURCE", &other.bucket),
        ("BUCKETS__1__TARGET", &other.copy()),
    ];
    let mut evermirror = stream.process(&faulty.endpoint(), &settings);
    evermirror.start().await;
    tell_of_many(&stream).await;
    other.put("key", "x").await;
    eventually("the other bucket's object arrives", LATER, async || {
        let listed = other.target.list(&other.copy()).await?;
        listed.contains_key("key").then_some(()).ok_or(format!("{listed:?}"))
    })
    .await;
    eventually("the failing bucket is a gap", LATER, async || {
        let status = evermirror.status().await?;
        let gaps = status["gaps"].as_array().cloned().unwrap_or_default();
        let is = gaps.iter().any(|gap| gap["bucket"] == *stream.bucket);
        is.then_some(()).ok_or(status["gaps"].to_string())
    })
    .await;
    assert!(evermirror.log().contains("would take the room of all others"));
    faulty.behave();
    stream.converges(&[&evermirror]).await;
}
