//! The Kafka intake, fed by MinIO's own Kafka target.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rdkafka::producer::FutureRecord;
use rdkafka::util::Timeout;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::support::compare::compare;
use crate::support::events;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::evermirror::{Config, Evermirror};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::hostile;
use crate::support::http;
use crate::support::kafka::{Kafka, PASSWORD, USER};
use crate::support::minio::{Minio, Special};
use crate::support::ports::free_port;
use crate::support::s3::S3;
use crate::support::writer::{Writer, seed};

/// Topics of the shared broker; each has a target of its own at the shared source.
const STREAMS: usize = 12;
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
        let mut writer = Writer::new(seed(), &self.source, &self.bucket);
        let stop = stop.clone();
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                writer.change().await;
            }
            writer.changes
        })
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
    assert_eq!(evermirror.log().matches("No notifications can be read from Kafka").count(), 2);
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

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_is_never_committed_beyond_a_key_that_is_not_replicated() {
    let stream = Servers::shared().await.stream("kafka-parked").await;
    let faulty = FaultProxy::in_front_of(&stream.servers.target.authority()).await;
    faulty.misbehave(|method, uri| {
        let parked = method == hyper::Method::PUT && uri.path().ends_with("/parked");
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
        (method == hyper::Method::PUT).then_some(slow)
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
