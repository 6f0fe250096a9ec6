//! Brokers that go away, topics that are missing, logins, and records that are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rdkafka::producer::FutureRecord;
use rdkafka::util::Timeout;
use tokio_util::sync::CancellationToken;

use super::{NO_RECONCILE, REPLICATED, Servers, topic, trouble, well};
use crate::support::events;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::kafka::{PASSWORD, USER};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_restarted_under_load_loses_nothing() {
    let mut servers = Servers::start(1).await;
    let (bucket, count) = ("kafka-restarted", Arc::new(AtomicUsize::new(0)));
    servers.source.client().create_bucket(bucket).await;
    let stop = CancellationToken::new();
    let writing = tokio::spawn({
        // MinIO's own target gives up after a few tries; here only the broker and evermirror are tested.
        let (source, producer) = (servers.source.client(), servers.kafka.producer());
        let (stop, count) = (stop.clone(), Arc::clone(&count));
        async move {
            while !stop.is_cancelled() {
                let key = format!("k{}", count.fetch_add(1, Ordering::Relaxed));
                source.put(bucket, &key, key.as_str()).await;
                let event = events::event("ObjectCreated:Put", bucket, &key);
                let topic = topic(0);
                let record = FutureRecord::to(&topic).key(&key).payload(&event);
                producer.send(record, Timeout::Never).await.unwrap();
            }
        }
    });
    let evermirror = servers.again(bucket).started(&[NO_RECONCILE]).await;
    for _ in 0..2 {
        let copied = evermirror.metric("evermirror_replicated_total").await.unwrap();
        eventually("work goes on", LATER, async || {
            let now = evermirror.metric("evermirror_replicated_total").await.unwrap();
            if now > copied + 20.0 { Ok(()) } else { Err(format!("{copied}, {now}")) }
        })
        .await;
        servers.kafka.stop();
        trouble(&evermirror, "check that the brokers run").await;
        servers.kafka.start_again().await;
        well(&evermirror).await;
    }
    stop.cancel();
    writing.await.unwrap();
    println!("{count:?} objects");
    servers.again(bucket).converges(&[&evermirror]).await;
    // Once for each outage, not for each of the many tries; a broker that starts may fail once more.
    let told = evermirror.log().matches("No notifications can be read from Kafka").count();
    assert!((2..=4).contains(&told), "told {told} times of two outages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_told_and_read_once_it_is_there() {
    let servers = Servers::shared().await;
    let mut stream = servers.stream("kafka-missing").await;
    stream.topic = "appears-later".to_owned();
    let evermirror = stream.started(&[NO_RECONCILE]).await;
    trouble(&evermirror, "create the topic").await;
    servers.kafka.create_topic(&stream.topic, 1).await;
    stream.source.put(&stream.bucket, "k", "v").await;
    let event = events::event("ObjectCreated:Put", &stream.bucket, "k");
    servers.kafka.produce(&stream.topic, None, "k", Some(&event)).await;
    stream.converges(&[&evermirror]).await;
    well(&evermirror).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_told_and_the_right_one_lets_in() {
    let servers = Servers::shared().await;
    let stream = servers.stream("kafka-login").await;
    let (brokers, user) = (servers.kafka.sasl_brokers(), format!("sasl.username={USER}"));
    let properties = format!("security.protocol=SASL_PLAINTEXT,sasl.mechanism=PLAIN,{user}");
    let settings = |password| {
        [
            NO_RECONCILE,
            ("INTAKE__KAFKA__BROKERS", brokers.as_str()),
            ("INTAKE__KAFKA__PROPERTIES", properties.as_str()),
            ("INTAKE__KAFKA__SASL_PASSWORD", password),
        ]
    };
    let refused = stream.started(&settings("not-the-password")).await;
    trouble(&refused, "sasl_password").await;
    assert!(!refused.log().contains("not-the-password"));
    drop(refused);
    let evermirror = stream.started(&settings(PASSWORD)).await;
    stream.put("k", "v").await;
    stream.converges(&[&evermirror]).await;
    well(&evermirror).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_with_tls_and_a_login_are_read_and_a_stranger_is_not_trusted() {
    let servers = Servers::shared().await;
    let stream = servers.stream("kafka-tls").await;
    let (brokers, fixtures) = (servers.kafka.tls_brokers(), "tests/fixtures/tls");
    let properties = |authority: &str| {
        let authority = format!("{}/{fixtures}/{authority}", env!("CARGO_MANIFEST_DIR"));
        format!(
            "security.protocol=SASL_SSL,sasl.mechanism=PLAIN,sasl.username={USER},ssl.ca.location={authority}"
        )
    };
    let (ours, strangers) = (properties("authority.pem"), properties("stranger-authority.pem"));
    let settings = |properties| {
        [
            NO_RECONCILE,
            REPLICATED,
            ("INTAKE__KAFKA__BROKERS", brokers.as_str()),
            ("INTAKE__KAFKA__PROPERTIES", properties),
            ("INTAKE__KAFKA__SASL_PASSWORD", PASSWORD),
        ]
    };
    let refused = stream.started(&settings(&strangers)).await;
    trouble(&refused, "the ssl.* properties").await;
    drop(refused);
    let evermirror = stream.started(&settings(&ours)).await;
    stream.put("k", "v").await;
    stream.converges(&[&evermirror]).await;
    well(&evermirror).await;
}

/// Records that nobody read, and of which some are still there: reading goes on behind them at once.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_expired_unread_are_a_gap_of_every_bucket() {
    let servers = Servers::shared().await;
    for (bucket, settings) in
        [("kafka-expired", &[NO_RECONCILE][..]), ("kafka-expired-r", &[NO_RECONCILE, REPLICATED])]
    {
        let stream = servers.stream(bucket).await;
        let mut evermirror = stream.started(settings).await;
        for number in 0..60 {
            stream.put(&format!("read {number}"), "x").await;
        }
        stream.converges(&[&evermirror]).await;
        assert!(evermirror.terminate().await.success());
        let read = servers.kafka.ends(&stream.topic);
        for number in 0..60 {
            stream.put(&format!("expired {number}"), "x").await;
        }
        let expired = servers.kafka.ends(&stream.topic);
        assert!(
            read.iter().zip(&expired).all(|(read, expired)| read < expired),
            "in each partition"
        );
        servers.kafka.expire(&stream.topic, &expired).await;
        for number in 0..60 {
            stream.put(&format!("there {number}"), "x").await;
        }
        evermirror.start().await;
        eventually("the gap is recorded", SOON, async || {
            let metrics = evermirror.metrics().await;
            // Among several processes it goes to the one that reconciles, through the topic.
            let marked = metrics.lines().any(|line| line.starts_with("evermirror_gaps_total{"));
            marked.then_some(()).ok_or_else(|| evermirror.log())
        })
        .await;
        stream.converges(&[&evermirror]).await;
        assert!(evermirror.log().contains("deleted records that were never read"));
    }
}
