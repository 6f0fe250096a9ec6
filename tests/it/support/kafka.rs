//! A real Apache Kafka broker (one node) in a temporary directory, and a client of it that is not
//! evermirror's.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::ToBytes;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use rdkafka::util::Timeout;
use tempfile::TempDir;

use super::eventually::{LATER, eventually};
use super::ports::free_port;
use super::process::{Process, peer};

/// The user whom the SASL listener lets in, and its password.
pub(crate) const USER: &str = "evermirror";
pub(crate) const PASSWORD: &str = "a-password-of-the-tests";
/// How long one answer of the broker may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker that can be stopped and started again with its port and its data.
#[derive(Debug)]
pub(crate) struct Kafka {
    port: u16,
    sasl_port: u16,
    tls_port: u16,
    process: Option<Process>,
    directory: TempDir,
}

impl Kafka {
    /// A broker without topics.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (port, sasl_port, tls_port, controller) =
            (free_port(), free_port(), free_port(), free_port());
        let mut kafka = Self { port, sasl_port, tls_port, process: None, directory };
        fs::write(kafka.file("server.pem"), identity()).expect("a file");
        fs::write(kafka.file("server.properties"), kafka.properties(controller)).expect("a file");
        let formatted = Command::new(peer("kafka"))
            .args(["kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"])
            .arg(kafka.file("server.properties"))
            .env("JAVA_OPTS", "-Xmx256m")
            .stdin(Stdio::null())
            .output()
            .expect("tests/run has installed kafka");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        kafka.start_again().await;
        kafka
    }

    fn properties(&self, controller: u16) -> String {
        let (port, sasl, tls) = (self.port, self.sasl_port, self.tls_port);
        format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl},SASL_SSL://127.0.0.1:{tls},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl},SASL_SSL://localhost:{tls}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\n\
             sasl.enabled.mechanisms=PLAIN\n\
             listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
             listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
             ssl.keystore.type=PEM\n\
             ssl.keystore.location={}\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             group.min.session.timeout.ms=1000\n\
             num.network.threads=2\n\
             num.io.threads=2\n\
             log.cleaner.dedupe.buffer.size=2097152\n",
            self.file("server.pem").display(),
            self.file("data").display(),
        )
    }

    /// `127.0.0.1:PORT`, without a login.
    pub(crate) fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `127.0.0.1:PORT`, which asks for [`USER`] and [`PASSWORD`].
    pub(crate) fn sasl_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.sasl_port)
    }

    /// `localhost:PORT`, by TLS, which asks for [`USER`] and [`PASSWORD`], too.
    pub(crate) fn tls_brokers(&self) -> String {
        format!("localhost:{}", self.tls_port)
    }

    /// Kills it.
    pub(crate) fn stop(&mut self) {
        self.process.take().expect("it runs").end();
    }

    /// Starts it and waits until it serves.
    pub(crate) async fn start_again(&mut self) {
        let arguments =
            ["kafka.Kafka".to_owned(), self.file("server.properties").display().to_string()];
        let environment = [("JAVA_OPTS".to_owned(), "-Xmx256m -Xshare:auto".to_owned())];
        let room = self.directory.path();
        let process = Process::start(&peer("kafka"), &arguments, &environment, room);
        let consumer = self.consumer("nobody");
        eventually("Kafka serves", LATER, async || {
            assert!(process.is_running(), "Kafka ended. Its log: {}", self.log());
            let answer = blocking(|| consumer.fetch_metadata(None, Duration::from_secs(2)));
            match answer {
                Ok(metadata) if !metadata.brokers().is_empty() => Ok(()),
                Ok(_) => Err("no broker is known".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        self.process = Some(process);
    }

    /// Makes a topic.
    pub(crate) async fn create_topic(&self, name: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("a client");
        eventually("the topic is made", LATER, async || {
            let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
            let made = admin.create_topics([&topic], &AdminOptions::new()).await;
            match made.map_err(|error| error.to_string())?.pop().expect("one answer") {
                Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => Ok(()),
                Err((_, error)) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// A producer to it.
    pub(crate) fn producer(&self) -> FutureProducer {
        self.config().set("acks", "all").set("linger.ms", "5").create().expect("a producer")
    }

    /// Sends one record, whose payload may be missing, and waits until it is there.
    pub(crate) async fn produce(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: &str,
        payload: Option<&(impl ToBytes + ?Sized)>,
    ) {
        let mut record = FutureRecord::to(topic).key(key);
        record.partition = partition;
        record.payload = payload;
        let sent = self.producer().send(record, Timeout::Never).await;
        sent.map_err(|(error, _)| error).expect("it is sent");
    }

    /// The offset behind the last record of each partition.
    pub(crate) fn ends(&self, topic: &str) -> Vec<i64> {
        let consumer = self.consumer("nobody");
        let count = blocking(|| consumer.fetch_metadata(Some(topic), PATIENCE)).expect("metadata");
        let count = count.topics()[0].partitions().len();
        let end = |partition| {
            blocking(|| consumer.fetch_watermarks(topic, partition, PATIENCE)).expect("an end").1
        };
        (0..i32::try_from(count).unwrap()).map(end).collect()
    }

    /// Deletes the records before these offsets, as retention does.
    pub(crate) async fn expire(&self, topic: &str, offsets: &[i64]) {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(offsets) {
            let offset = Offset::Offset(*offset);
            list.add_partition_offset(topic, partition, offset).expect("an offset");
        }
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("a client");
        let done = admin.delete_records(&list, &AdminOptions::new()).await.expect("an answer");
        for place in done.elements() {
            place.error().expect("the records are gone");
        }
    }

    /// The committed offset of each partition; 0 where there is none.
    pub(crate) fn committed(&self, group: &str, topic: &str) -> Vec<i64> {
        let mut list = TopicPartitionList::new();
        let count = i32::try_from(self.ends(topic).len()).unwrap();
        for partition in 0..count {
            list.add_partition(topic, partition);
        }
        let consumer = self.consumer(group);
        let answer = blocking(|| consumer.committed_offsets(list, PATIENCE)).expect("offsets");
        let offset = |place: &TopicPartitionListElem<'_>| {
            if let Offset::Offset(offset) = place.offset() { offset } else { 0 }
        };
        answer.elements().iter().map(offset).collect()
    }

    /// The keys of all records, each with its partition.
    pub(crate) fn records(&self, topic: &str) -> Vec<(i32, String)> {
        let ends = self.ends(topic);
        let mut list = TopicPartitionList::new();
        for partition in 0..i32::try_from(ends.len()).unwrap() {
            list.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        }
        let consumer = self.consumer("nobody");
        consumer.assign(&list).expect("an assignment");
        let count: i64 = ends.iter().sum();
        let read = |_| {
            let record = blocking(|| consumer.poll(PATIENCE)).expect("a record").expect("a record");
            let key = rdkafka::Message::key(&record).expect("a key");
            let partition = rdkafka::Message::partition(&record);
            (partition, String::from_utf8(key.to_vec()).expect("UTF-8"))
        };
        (0..count).map(read).collect()
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        self.config().set("group.id", group).create().expect("a consumer")
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }
}

/// The server's key and certificate, as Kafka wants them.
fn identity() -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    let part = |name| fs::read_to_string(folder.join(name)).expect("a fixture");
    format!("{}{}", part("server.key"), part("server.pem"))
}

fn blocking<T>(ask: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(ask)
}
