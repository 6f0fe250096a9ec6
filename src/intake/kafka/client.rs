//! The clients of the cluster: their properties, their log, and what the consumer group tells them.
//!
//! A change of the assignment is only written down here; the loop in `consume` answers it when it is
//! ready, which is what makes a drain before a revocation possible. librdkafka waits for the answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use secrecy::ExposeSecret as _;
use tokio::sync::Notify;

use super::lsn::TopicPartition;
use super::trouble::Trouble;
use crate::config::settings::KafkaSettings;

/// A consumer that writes down what its group tells it.
pub(super) type Consumer = StreamConsumer<Group>;

/// Ours, unless the operator sets them: memory is bounded, a topic that appears is found soon, and a
/// process that died is soon replaced.
const DEFAULTS: [(&str, &str); 5] = [
    ("client.id", "evermirror"),
    ("queued.max.messages.kbytes", "8192"),
    ("session.timeout.ms", "10000"),
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("socket.keepalive.enable", "true"),
];

/// Names of properties that mean something to producers, too, begin with one of these.
const SHARED: [&str; 14] = [
    "api.",
    "broker.",
    "client.",
    "debug",
    "enable.sasl",
    "enable.ssl",
    "metadata.",
    "reconnect.",
    "retry.",
    "sasl.",
    "security.",
    "socket.",
    "ssl.",
    "topic.metadata.",
];

/// What happened in the consumer group.
#[derive(Debug)]
pub(super) enum Event {
    /// These are to be read from now on.
    Assigned(Vec<TopicPartition>),
    /// These are to be given back; `lost`: they are another process's already.
    Revoked { places: Vec<TopicPartition>, lost: bool },
    /// What the group had committed of partitions that were assigned.
    Begun(KafkaResult<Vec<(TopicPartition, Option<i64>)>>),
    /// The broker's answer to a commit.
    Committed(KafkaResult<Vec<(TopicPartition, i64)>>),
}

/// The consumer's side of its group.
#[derive(Debug)]
pub(super) struct Group {
    topics: Arc<[String]>,
    trouble: Arc<Trouble>,
    events: Mutex<VecDeque<Event>>,
    arrived: Notify,
    closing: AtomicBool,
}

impl Group {
    /// Waits until something may have happened.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// What has happened and was not yet looked at.
    pub(super) fn next_event(&self) -> Option<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From now on changes of the assignment are agreed to at once.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Something happened.
    pub(super) fn push(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
        self.arrived.notify_one();
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        self.trouble.complained(code, reason);
    }
}

impl ConsumerContext for Group {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        change: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assigns = change == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let done = if assigns {
                consumer.incremental_assign(list)
            } else {
                consumer.incremental_unassign(list)
            };
            if let Err(error) = done {
                tracing::debug!(%error, "The assignment could not be changed while closing.");
            }
            return;
        }
        let places = places(list, &self.topics).into_iter().map(|(place, _)| place).collect();
        self.push(if assigns {
            Event::Assigned(places)
        } else {
            Event::Revoked { places, lost: consumer.assignment_lost() }
        });
    }
}

/// The producer's context.
#[derive(Debug)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "The Kafka producer reports a problem.");
    }
}

/// What matters of librdkafka's log is said by [`Trouble`], in our words and once.
fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, text, "librdkafka reports a failure.");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::debug!(facility, text, "librdkafka reports a problem.");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::trace!(facility, text, "librdkafka tells what it does.");
        }
    }
}

/// A consumer that is not subscribed yet.
pub(super) fn consumer(
    settings: &KafkaSettings,
    topics: Arc<[String]>,
    trouble: Arc<Trouble>,
) -> KafkaResult<Consumer> {
    let mut config = common(settings, |_| true);
    config
        .set("group.id", &settings.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
    config.create_with_context(Group {
        topics,
        trouble,
        events: Mutex::default(),
        arrived: Notify::new(),
        closing: AtomicBool::new(false),
    })
}

/// The properties of a producer whose records are neither lost nor doubled by a retry.
pub(super) fn producer(settings: &KafkaSettings) -> ClientConfig {
    let shared = |name: &str| SHARED.iter().any(|prefix| name.starts_with(prefix));
    let mut config = common(settings, shared);
    config.set("acks", "all").set("enable.idempotence", "true").set("linger.ms", "5");
    config
}

fn common(settings: &KafkaSettings, applies: impl Fn(&str) -> bool) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Info).set("bootstrap.servers", &settings.brokers);
    let given = settings.properties.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in DEFAULTS.into_iter().chain(given).filter(|(name, _)| applies(name)) {
        config.set(name, value);
    }
    if let Some(password) = &settings.sasl_password {
        config.set("sasl.password", password.expose_secret());
    }
    config
}

/// What a list of the client holds of the configured topics.
pub(super) fn places(
    list: &TopicPartitionList,
    topics: &[String],
) -> Vec<(TopicPartition, Option<i64>)> {
    let place = |topic: &str, partition| {
        let topic = topics.iter().position(|name| name == topic)?;
        Some(TopicPartition { topic, partition })
    };
    let elements = list.elements().into_iter();
    elements
        .filter_map(|element| {
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                Offset::Beginning
                | Offset::End
                | Offset::Stored
                | Offset::Invalid
                | Offset::OffsetTail(_) => None,
            };
            Some((place(element.topic(), element.partition())?, offset))
        })
        .collect()
}

/// A list for the client.
pub(super) fn list(
    places: impl IntoIterator<Item = (TopicPartition, Option<i64>)>,
    topics: &[String],
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (place, offset) in places {
        let Some(topic) = topics.get(place.topic) else { continue };
        let mut element = list.add_partition(topic, place.partition);
        if let Some(offset) = offset
            && let Err(error) = element.set_offset(Offset::Offset(offset))
        {
            tracing::debug!(%error, offset, "An offset cannot be written.");
        }
    }
    list
}
