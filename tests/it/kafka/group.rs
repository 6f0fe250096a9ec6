//! `ack = "replicated"`: Kafka is the journal, and several processes share a bucket.

use std::collections::BTreeSet;

use hyper::Method;
use tokio_util::sync::CancellationToken;

use super::{NO_RECONCILE, PARTITIONS, REPLICATED, Servers};
use crate::support::events;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::evermirror::Evermirror;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::hostile;
use crate::support::http;

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_is_never_committed_beyond_a_key_that_is_not_replicated() {
    let stream = Servers::shared().await.stream("kafka-parked").await;
    let faulty = FaultProxy::in_front_of(&stream.servers.target.authority()).await;
    faulty.misbehave(|method, uri| {
        let parked = method == Method::PUT && uri.path().ends_with("/parked");
        parked.then_some(Fault::Answer(403, "AccessDenied"))
    });
    let settings = [NO_RECONCILE, REPLICATED];
    let mut evermirror = stream.process(&faulty.endpoint(), &settings);
    evermirror.start().await;
    stream.converges(&[&evermirror]).await;
    for number in 0..60 {
        stream.put(&format!("before-{number}"), "x").await;
    }
    stream.put("parked", "x").await;
    for number in 0..60 {
        stream.put(&format!("after-{number}"), "x").await;
    }
    let kafka = &stream.servers.kafka;
    let records = kafka.records(&stream.topic);
    let (home, _) = records.iter().find(|(_, key)| key == "kafka-parked/parked").unwrap();
    let of_home: Vec<_> = records.iter().filter(|(partition, _)| partition == home).collect();
    let at = of_home.iter().position(|(_, key)| key.ends_with("/parked")).unwrap();
    assert!(at + 1 < of_home.len(), "others come behind it");
    let (at, home) = (i64::try_from(at).unwrap(), usize::try_from(*home).unwrap());
    let mut expected = kafka.ends(&stream.topic);
    expected[home] = at;
    let committed = async || {
        let committed = kafka.committed(&stream.topic, &stream.topic);
        if committed == expected { Ok(()) } else { Err(format!("{committed:?}, not {expected:?}")) }
    };
    eventually("all is committed but what comes behind the parked key", LATER, committed).await;
    eventually("all but the parked key is there", LATER, async || {
        match stream.target.list(&stream.copy()).await?.len() {
            120 => Ok(()),
            count => Err(format!("{count} objects")),
        }
    })
    .await;
    eventually("the lag is not hidden", SOON, async || {
        let lag = evermirror.metric("evermirror_kafka_lag_records").await.unwrap_or(0.0);
        if lag >= 2.0 { Ok(()) } else { Err(lag.to_string()) }
    })
    .await;
    evermirror.terminate().await;
    committed().await.unwrap();
    faulty.behave();
    evermirror.start().await;
    stream.converges(&[&evermirror]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_come_and_go_share_a_bucket_and_no_key_has_two_workers() {
    let stream = Servers::shared().await.stream("kafka-shared").await;
    let proxy = FaultProxy::in_front_of(&stream.servers.target.authority()).await;
    // So slow that two PUTs of one key would meet, if two processes had it.
    proxy.misbehave(|method, _| {
        let slow = Fault::Wait(std::time::Duration::from_millis(30));
        (method == Method::PUT).then_some(slow)
    });
    let settings = [NO_RECONCILE, REPLICATED];
    let process = || stream.process(&proxy.endpoint(), &settings);
    let (mut one, mut two, mut three) = (process(), process(), process());
    one.start().await;
    let stop = CancellationToken::new();
    let writing = stream.write(&stop);
    let copies = async |evermirror: &Evermirror, count: f64| {
        eventually("it takes part", LATER, async || {
            let copied = evermirror.metric("evermirror_replicated_total{action=\"copied\"}").await;
            if copied >= Some(count) { Ok(()) } else { Err(format!("{copied:?}")) }
        })
        .await;
    };
    copies(&one, 30.0).await;
    two.start().await;
    copies(&two, 30.0).await;
    assert!(two.terminate().await.success());
    three.start().await;
    copies(&three, 30.0).await;
    assert_eq!(proxy.most_parallel_puts(), 1, "rebalances drain, so one key has one worker");
    // Without a word: what it had in flight is another's after the session's timeout.
    one.kill();
    two.start().await;
    copies(&two, 30.0).await;
    stop.cancel();
    println!("{} changes", writing.await.unwrap());
    stream.converges(&[&two, &three]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_flight_for_longer_than_drain_timeout_keeps_no_partition_and_is_read_again_there()
{
    let stream = Servers::shared().await.stream("kafka-in-flight").await;
    let proxy = FaultProxy::in_front_of(&stream.servers.target.authority()).await;
    let settings = [
        NO_RECONCILE,
        REPLICATED,
        ("INTAKE__KAFKA__DRAIN_TIMEOUT", "1s"),
        // Beyond the test's end, so that nothing that hangs is given up.
        ("REPLICATE__REQUEST_TIMEOUT", "1h"),
    ];
    let process = || stream.process(&proxy.endpoint(), &settings);
    let (mut one, mut two) = (process(), process());
    one.start().await;
    stream.converges(&[&one]).await;
    proxy.misbehave(|method, _| (method == Method::PUT).then_some(Fault::Hold));
    // Some in each partition.
    for number in 0..24 {
        stream.put(&format!("held-{number}"), "x").await;
    }
    one.counts("in_flight", 24, SOON).await;
    two.start().await;
    eventually("the partitions that go were given up", LATER, async || {
        let (log, read) = (one.log(), two.log());
        let given = log.contains("still in flight after intake.kafka.drain_timeout");
        let taken = read.contains("Partitions are read from now on");
        if given && taken { Ok(()) } else { Err(format!("given: {given}, taken: {taken}")) }
    })
    .await;
    eventually("their keys are in flight there, too", SOON, async || {
        let in_flight = two.count("in_flight").await?;
        if in_flight > 0 { Ok(()) } else { Err("none is".to_owned()) }
    })
    .await;
    proxy.behave();
    stream.converges(&[&one, &two]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_of_several_reconciles_and_its_repairs_go_through_the_topic() {
    let servers = Servers::shared().await;
    let mut stream = servers.stream("kafka-repairs").await;
    // Nobody sends to this topic but evermirror.
    stream.topic = "repairs".to_owned();
    servers.kafka.create_topic(&stream.topic, PARTITIONS).await;
    for number in 0..200 {
        stream.put(&format!("k {number}"), "x").await;
    }
    let settings = [("RECONCILE__INTERVAL", "2s"), REPLICATED, ("WEB__AUTH_TOKEN", "t0ken")];
    let mut one = stream.started(&settings).await;
    let two = stream.started(&settings).await;
    stream.converges(&[&one, &two]).await;
    let passes = async |evermirror: &Evermirror| {
        evermirror.metric("evermirror_reconcile_passes_total{outcome=\"complete\"}").await.unwrap()
    };
    // Deletes that nobody announced, while one process takes over from the other.
    let (leader, other) =
        if passes(&one).await > 0.0 { (&mut one, &two) } else { panic!("{}", one.log()) };
    leader.kill();
    for number in 0..20 {
        stream.source.delete(&stream.bucket, &format!("k {number}")).await;
    }
    stream.put("new", "x").await;
    stream.converges(&[other]).await;
    assert!(passes(other).await > 0.0);
    // A repair lands where the source's own notifications of that key would.
    let records = servers.kafka.records(&stream.topic);
    let homes: BTreeSet<_> = records.iter().map(|(home, _)| *home).collect();
    assert_eq!(homes.len(), 6, "{homes:?}");
    assert!(records.len() >= 221, "{}", records.len());
}

/// The record's key and its partition are MinIO's; a repair of the same key must go to the same partition.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_goes_to_the_partition_to_which_minio_sends_its_key() {
    let servers = Servers::shared().await;
    let stream = servers.stream("kafka-partitions").await;
    let mut keys = Vec::new();
    for key in hostile::keys() {
        if stream.source.try_put(&stream.bucket, &key, "x").await.is_ok() {
            keys.push(key);
        }
    }
    let from_minio: BTreeSet<_> = servers.kafka.records(&stream.topic).into_iter().collect();
    assert!(from_minio.len() > 150, "{}", from_minio.len());
    // The same topic, read by a group that has not seen it, in a process that finds everything missing
    // before it reads: its repairs are appended behind MinIO's records.
    let evermirror = stream.started(&[REPLICATED]).await;
    stream.converges(&[&evermirror]).await;
    let evermirror_too: BTreeSet<_> = servers.kafka.records(&stream.topic).into_iter().collect();
    assert_eq!(from_minio, evermirror_too, "no key in two partitions");
}

/// A store that spreads keys over the partitions in a way of its own, as RustFS does.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_in_another_partition_is_sent_on_to_that_of_its_key() {
    let servers = Servers::shared().await;
    let mut stream = servers.stream("kafka-elsewhere").await;
    stream.topic = "elsewhere".to_owned();
    servers.kafka.create_topic(&stream.topic, PARTITIONS).await;
    let settings = [NO_RECONCILE, REPLICATED];
    let (one, two) = (stream.started(&settings).await, stream.started(&settings).await);
    let keys: Vec<_> = (0..12).map(|number| format!("k{number}")).collect();
    for (key, partition) in keys.iter().zip((0..PARTITIONS).cycle()) {
        stream.put(key, key.as_str()).await;
        let event = events::event("ObjectCreated:Put", &stream.bucket, key);
        servers.kafka.produce(&stream.topic, Some(partition), "theirs", Some(&event)).await;
    }
    stream.converges(&[&one, &two]).await;
    let records = servers.kafka.records(&stream.topic);
    let sent_on: Vec<_> = records.iter().filter(|(_, key)| key != "theirs").collect();
    assert!((6..=12).contains(&sent_on.len()), "only those that were not at home: {sent_on:?}");
    let homes: BTreeSet<_> = sent_on.iter().map(|(home, _)| home).collect();
    assert!(homes.len() > 1, "{sent_on:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_deletes_are_decided_where_they_are_held_and_go_through_the_topic() {
    let servers = Servers::shared().await;
    let stream = servers.stream("kafka-held").await;
    let settings =
        [NO_RECONCILE, REPLICATED, ("WEB__AUTH_TOKEN", "t0ken"), ("DELETES__MAX_DELETES", "3")];
    let evermirror = stream.started(&settings).await;
    let keys: Vec<_> = (0..10).map(|number| format!("k{number}")).collect();
    for key in &keys {
        stream.put(key, "x").await;
    }
    stream.converges(&[&evermirror]).await;
    stream.source.delete_all(&stream.bucket, &keys[..8]).await;
    let held = async |wanted: u64| {
        eventually("the held deletes are counted", LATER, async || {
            let counted = evermirror.count("held").await?;
            if counted == wanted { Ok(()) } else { Err(format!("{counted} of {wanted}")) }
        })
        .await;
    };
    held(5).await;
    let url = evermirror.web("/api/v1/deletes/kafka-held/approve");
    let answer =
        http::request(Method::POST, &url, &[("authorization", "Bearer t0ken")], "").await.unwrap();
    assert_eq!(answer.text(), r#"{"approved":5}"#);
    held(0).await;
    stream.converges(&[&evermirror]).await;
    assert_eq!(stream.target.list(&stream.copy()).await.unwrap().len(), 2);
}
