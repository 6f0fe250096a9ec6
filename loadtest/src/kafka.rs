//! A real Kafka broker on one node in the run's directory, and a bare client of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::util::Timeout;

use crate::data::{self, Notifier};
use crate::process::Process;
use crate::servers::{free_port, peer, until};

/// Enough for the broker's start, which takes ten seconds on busy cores.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running broker.
#[derive(Debug)]
pub(crate) struct Kafka {
    port: u16,
    _process: Process,
}

impl Kafka {
    /// Starts a broker in `dir`, which must be fresh.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (port, controller) = (free_port()?, free_port()?);
        let file = dir.join("server.properties");
        std::fs::write(&file, properties(dir, port, controller))?;
        let kafka: PathBuf = peer("kafka")?;
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&kafka);
            command.args(arguments).arg(&file).env("JAVA_OPTS", "-Xmx512m");
            command
        };
        let format = run(&["kafka.tools.StorageTool", "format", "-t", ID, "-c"]).output()?;
        if !format.status.success() {
            bail!("Kafka's storage: {}", String::from_utf8_lossy(&format.stderr));
        }
        let process = Process::start(&mut run(&["kafka.Kafka"]), &dir.join("log"))?;
        let kafka = Self { port, _process: process };
        let consumer: BaseConsumer = kafka.config().create()?;
        until("Kafka serves", || async {
            let answer = tokio::task::block_in_place(|| consumer.fetch_metadata(None, PATIENCE));
            Ok(answer.is_ok_and(|metadata| !metadata.brokers().is_empty()))
        })
        .await?;
        Ok(kafka)
    }

    pub(crate) fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A topic that holds the notifications of the objects below `count`.
    pub(crate) async fn fill(
        &self,
        topic: &str,
        partitions: i32,
        bucket: &str,
        count: usize,
    ) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for made in admin.create_topics([&new], &AdminOptions::new()).await? {
            made.map_err(|(topic, error)| anyhow::anyhow!("{topic}: {error}"))?;
        }
        // As MinIO does it: the key is hashed by FNV-1a.
        let producer: FutureProducer =
            self.config().set("partitioner", "fnv1a_random").set("linger.ms", "5").create()?;
        let notifier = Notifier::new(bucket, 0);
        let numbers: Vec<usize> = (0..count).collect();
        for page in numbers.chunks(5_000) {
            let sent = page.iter().map(|number| {
                let (key, body) =
                    (format!("{bucket}/{}", data::key(*number)), notifier.body(*number));
                let producer = &producer;
                async move {
                    let record = FutureRecord::to(topic).key(&key).payload(&*body);
                    producer.send(record, Timeout::Never).await.map_err(|(error, _)| error)
                }
            });
            try_join_all(sent).await?;
        }
        Ok(())
    }

    /// Reads the whole topic and does nothing with it: from the first record to the last.
    pub(crate) fn read(
        &self,
        topic: &str,
        partitions: i32,
        count: usize,
    ) -> anyhow::Result<Duration> {
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        let consumer: BaseConsumer = self.config().set("group.id", "bare").create()?;
        consumer.assign(&list)?;
        let mut begun = None;
        for _ in 0..count {
            consumer.poll(Timeout::After(PATIENCE)).context("a record is missing")??;
            begun.get_or_insert_with(Instant::now);
        }
        Ok(begun.context("there are records")?.elapsed())
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config
    }
}

/// Of the cluster; any would do.
const ID: &str = "4L6g3nShT-eMCtK--X86sw";

fn properties(dir: &Path, port: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         controller.listener.names=CONTROLLER\nlog.dirs={}\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
         group.initial.rebalance.delay.ms=0\n",
        dir.join("data").display(),
    )
}
