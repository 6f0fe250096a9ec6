//! The Kafka intake, fed by MinIO's own Kafka target.

mod broker;
mod group;
mod pressure;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::support::compare::compare;
use crate::support::events;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::evermirror::{Config, Evermirror};
use crate::support::hostile;
use crate::support::http;
use crate::support::kafka::Kafka;
use crate::support::minio::{Minio, Special};
use crate::support::ports::free_port;
use crate::support::s3::S3;
use crate::support::writer::{Writer, seed};

/// Topics of the shared broker; each has a target of its own at the shared source.
const STREAMS: usize = 20;
const PARTITIONS: i32 = 6;

/// A broker, a source that sends to its topics, and a target.
struct Servers {
    kafka: Kafka,
    source: Minio,
    target: Minio,
    taken: AtomicUsize,
}

/// One bucket whose notifications go to one topic.
struct Stream<'a> {
    servers: &'a Servers,
    topic: String,
    bucket: String,
    source: S3,
    target: S3,
}

impl Servers {
    async fn shared() -> &'static Self {
        static SHARED: OnceCell<Servers> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(STREAMS)).await
    }

    async fn start(streams: usize) -> Self {
        let kafka = Kafka::start().await;
        let mut environment = Vec::new();
        for stream in 0..streams {
            kafka.create_topic(&topic(stream), PARTITIONS).await;
            let mut set = |name: &str, value: String| {
                environment.push((format!("MINIO_NOTIFY_KAFKA_{name}_K{stream}"), value));
            };
            set("ENABLE", "on".to_owned());
            set("BROKERS", kafka.brokers());
            set("TOPIC", topic(stream));
        }
        let special = Special { environment, ..Special::default() };
        let (source, target) = tokio::join!(Minio::start(&[], &special), Minio::target());
        Self { kafka, source, target, taken: AtomicUsize::new(0) }
    }

    async fn stream(&self, bucket: &str) -> Stream<'_> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let source = self.source.client();
        source.create_bucket(bucket).await;
        source.notify(bucket, &[format!("arn:minio:sqs::K{number}:kafka")]).await;
        Stream { topic: topic(number), ..self.again(bucket) }
    }

    /// The first stream, which is there already.
    fn again(&self, bucket: &str) -> Stream<'_> {
        let (topic, bucket) = (topic(0), bucket.to_owned());
        let (source, target) = (self.source.client(), self.target.client());
        Stream { servers: self, topic, bucket, source, target }
    }
}

fn topic(stream: usize) -> String {
    format!("events-{stream}")
}

impl Stream<'_> {
    /// Another bucket, whose notifications go to the same topic, with its copy.
    async fn beside(&self, bucket: &str) -> Self {
        let number = self.topic.strip_prefix("events-").expect("a topic of ours");
        self.source.create_bucket(bucket).await;
        self.source.notify(bucket, &[format!("arn:minio:sqs::K{number}:kafka")]).await;
        Self { topic: self.topic.clone(), ..self.servers.again(bucket) }
    }

    /// A process of the stream's group, not yet started.
    fn process(&self, target_endpoint: &str, settings: &[(&str, &str)]) -> Evermirror {
        let brokers = self.servers.kafka.brokers();
        let mut all = vec![
            ("INTAKE__KAFKA__BROKERS", brokers.as_str()),
            ("INTAKE__KAFKA__TOPICS", &self.topic),
            ("INTAKE__KAFKA__GROUP", &self.topic),
        ];
        all.extend(settings);
        Evermirror::configure(Config {
            source_endpoint: self.servers.source.endpoint(),
            target_endpoint: target_endpoint.to_owned(),
            bucket: (self.bucket.clone(), self.copy()),
            webhook_port: free_port(),
            settings: all.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        })
    }

    async fn started(&self, settings: &[(&str, &str)]) -> Evermirror {
        let mut evermirror = self.process(&self.servers.target.endpoint(), settings);
        evermirror.start().await;
        evermirror
    }

    fn copy(&self) -> String {
        format!("{}-copy", self.bucket)
    }

    async fn put(&self, key: &str, body: impl Into<Vec<u8>>) {
        self.source.put(&self.bucket, key, body).await;
    }

    /// Waits until both sides are the same and everything in the topic is committed.
    async fn converges(&self, processes: &[&Evermirror]) {
        eventually("both sides are the same and all is committed", LATER, async || {
            let found = compare((&self.source, &self.bucket), (&self.target, &self.copy())).await?;
            if !found.is_empty() {
                return Err(format!("{} differences: {:?}", found.len(), found.first()));
            }
            for process in processes {
                process.idle().await?;
            }
            let kafka = &self.servers.kafka;
            let (committed, ends) =
                (kafka.committed(&self.topic, &self.topic), kafka.ends(&self.topic));
            if committed == ends { Ok(()) } else { Err(format!("{committed:?} of {ends:?}")) }
        })
        .await;
    }

    /// Changes objects until told to stop; how many times.
    fn write(&self, stop: &CancellationToken) -> tokio::task::JoinHandle<usize> {
        Writer::new(seed(), &self.source, &self.bucket).write_until(stop)
    }
}

/// Without it the reconciler would hide that an event was lost.
const NO_RECONCILE: (&str, &str) = ("RECONCILE__INTERVAL", "0s");
const REPLICATED: (&str, &str) = ("INTAKE__KAFKA__ACK", "replicated");

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_at_the_source_arrives_through_kafka_and_is_committed() {
    let stream = Servers::shared().await.stream("kafka-end-to-end").await;
    let evermirror = stream.started(&[NO_RECONCILE]).await;
    stream.converges(&[&evermirror]).await;
    let mut accepted = 0;
    for key in hostile::keys() {
        // Some names no MinIO takes.
        accepted += usize::from(stream.source.try_put(&stream.bucket, &key, "x").await.is_ok());
    }
    assert!(accepted > 150, "{accepted}");
    stream.put("gone", "soon").await;
    stream.source.delete(&stream.bucket, "gone").await;
    stream.source.tag(&stream.bucket, &hostile::keys()[0], &[("a", "b")]).await;
    stream.converges(&[&evermirror]).await;
    let status = evermirror.status().await.unwrap();
    let kafka = &status["intakes"][1];
    assert_eq!((&kafka["name"], &kafka["trouble"]), (&"kafka".into(), &().into()), "{kafka}");
    assert_eq!(evermirror.metric("evermirror_drift_total").await, Some(0.0), "events, not repairs");
    eventually("the lag is shown", SOON, async || {
        let lag = evermirror.metric("evermirror_kafka_lag_records").await;
        if lag == Some(0.0) { Ok(()) } else { Err(format!("{lag:?}")) }
    })
    .await;
}

/// Waits until the intake's trouble says this.
async fn trouble(evermirror: &Evermirror, advice: &str) {
    eventually("the trouble is told", LATER, async || {
        let status = evermirror.status().await?;
        let told = status["intakes"][1]["trouble"].as_str().unwrap_or_default().to_owned();
        if told.contains(advice) { Ok(()) } else { Err(told) }
    })
    .await;
    assert!(evermirror.log().contains(advice), "and it is in the log");
}

/// Waits until the intake is well.
async fn well(evermirror: &Evermirror) {
    eventually("the intake is well", LATER, async || {
        let status = evermirror.status().await?;
        let trouble = &status["intakes"][1]["trouble"];
        if trouble.is_null() { Ok(()) } else { Err(trouble.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_junk_and_duplicates_are_passed_and_the_bucket_is_reconciled() {
    let servers = Servers::shared().await;
    let stream = servers.stream("kafka-junk").await;
    let evermirror = stream.started(&[]).await;
    stream.converges(&[&evermirror]).await;
    let kafka = &servers.kafka;
    stream.put("k", "v").await;
    let (put, key) = (events::event("ObjectCreated:Put", &stream.bucket, "k"), "kafka-junk/k");
    for _ in 0..3 {
        kafka.produce(&stream.topic, None, key, Some(&put)).await;
    }
    kafka.produce(&stream.topic, None, key, None::<&str>).await;
    for junk in [&b""[..], b"\xff\xfe", b"{", b"[1,2", b"null"] {
        kafka.produce(&stream.topic, None, key, Some(junk)).await;
    }
    stream.converges(&[&evermirror]).await;
    let letters =
        evermirror.metric("evermirror_intake_events_total{outcome=\"dead_letter\"}").await;
    assert_eq!(letters, Some(5.0));
    let ignored = evermirror.metric("evermirror_intake_events_total{outcome=\"ignored\"}").await;
    assert_eq!(ignored, Some(1.0), "the tombstone");
    eventually("the bucket was reconciled because of them", LATER, async || {
        let status = evermirror.status().await?;
        if status["gaps"] == serde_json::json!([]) {
            Ok(())
        } else {
            Err(status["gaps"].to_string())
        }
    })
    .await;
}

/// Everything that tells how a document was understood.
async fn understood(evermirror: &Evermirror) -> (BTreeSet<String>, Vec<serde_json::Value>) {
    let metrics = evermirror.metrics().await;
    let counts = metrics.lines().filter(|l| l.starts_with("evermirror_intake_events_total{"));
    let answer = http::get(&evermirror.web("/api/v1/dead-letters")).await.unwrap();
    let letters: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let letters =
        letters["dead_letters"].as_array().cloned().unwrap_or_else(|| panic!("{letters}"));
    let shown = |mut letter: serde_json::Value| {
        letter.as_object_mut().unwrap().remove("at_ms");
        letter
    };
    let mut letters: Vec<_> = letters.into_iter().map(shown).collect();
    letters.sort_by_key(ToString::to_string);
    (counts.map(str::to_owned).collect(), letters)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fixture_means_the_same_through_kafka_as_through_the_webhook() {
    let servers = Servers::shared().await;
    let mut stream = servers.stream("kafka-fixtures").await;
    stream.topic = "fixtures".to_owned();
    servers.kafka.create_topic(&stream.topic, 1).await;
    let by_kafka = stream.started(&[NO_RECONCILE, ("BUCKETS__0__SOURCE", "plain")]).await;
    stream.topic = "no-fixtures".to_owned();
    servers.kafka.create_topic(&stream.topic, 1).await;
    let by_webhook = stream.started(&[NO_RECONCILE, ("BUCKETS__0__SOURCE", "plain")]).await;
    let mut count = 0;
    for folder in ["captured", "documented"] {
        for file in fixtures(&Path::new("tests/fixtures/notifications").join(folder)) {
            let body = std::fs::read(&file).unwrap();
            assert!(by_webhook.post(body.clone()).await.status.is_success());
            servers.kafka.produce("fixtures", None, &file.display().to_string(), Some(&body)).await;
            count += 1;
        }
    }
    assert!(count > 80, "{count}");
    eventually("both have understood the same", SOON, async || {
        let (one, other) = (understood(&by_kafka).await, understood(&by_webhook).await);
        if one == other { Ok(()) } else { Err(format!("{one:#?}\n{other:#?}")) }
    })
    .await;
    let (counts, letters) = understood(&by_kafka).await;
    assert!(!letters.is_empty(), "{counts:?}");
}

fn fixtures(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files.extend(fixtures(&path));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Kills at random moments: before the journal, between the journal and the commit, before replication.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_goes_on_where_it_was() {
    let stream = Servers::shared().await.stream("kafka-killed").await;
    let stop = CancellationToken::new();
    let writing = stream.write(&stop);
    let mut evermirror = stream.process(&stream.servers.target.endpoint(), &[NO_RECONCILE]);
    for moment in [300, 1_500, 700, 3_000, 1_000] {
        evermirror.start().await;
        // Not a wait for anything: the moment itself is what varies.
        tokio::time::sleep(std::time::Duration::from_millis(moment)).await;
        evermirror.kill();
    }
    stop.cancel();
    println!("{} changes", writing.await.unwrap());
    evermirror.start().await;
    stream.converges(&[&evermirror]).await;
}
