//! Keys on their way to the process that has their partition.
//!
//! **Promise.** When [`Router::send`] returns, all replicas in sync have the record. **On error** it tries
//! again for ever; a record that was sent twice is harmless. Keys that arrived in a partition that is not
//! their own (a store that hashes differently, a topic that was given more partitions) are sent on to
//! it, so that a key always has one worker.

use std::time::Duration;

use rdkafka::error::KafkaResult;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use tokio::sync::watch;

use super::client::{self, Quiet};
use super::lsn;
use super::wire;
use crate::config::settings::KafkaSettings;
use crate::dirty::DirtyKey;
use crate::object::ObjectKey;

/// How long until a failed record is sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// A producer to the one topic.
pub(super) struct Router {
    producer: FutureProducer<Quiet>,
    topic: String,
    /// How many partitions the topic has; 0 until that is known.
    partitions: watch::Receiver<i32>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Router {
    /// A producer that connects when it is needed.
    pub(super) fn new(
        settings: &KafkaSettings,
        topic: String,
        partitions: watch::Receiver<i32>,
    ) -> KafkaResult<Self> {
        let producer = client::producer(settings).create_with_context(Quiet)?;
        Ok(Self { producer, topic, partitions })
    }

    /// The partition of a key.
    pub(super) async fn home(&self, key: &ObjectKey) -> i32 {
        let mut partitions = self.partitions.clone();
        let count = partitions.wait_for(|count| *count > 0).await.map(|count| *count);
        match count {
            Ok(count) => lsn::partition_of(key, count),
            // Nobody asks the cluster any more: this process is ending, and so does its caller.
            Err(_) => std::future::pending().await,
        }
    }

    /// Sends a key to its partition.
    pub(super) async fn send(&self, dirty: &DirtyKey) {
        let partition = self.home(&dirty.key).await;
        let key = lsn::record_key(&dirty.key);
        self.produce(partition, &key, &wire::document(dirty), wire::headers(dirty)).await;
    }

    /// Tells the process that reconciles of a bucket in doubt.
    pub(super) async fn doubt(&self, bucket: &str) {
        self.produce(0, bucket, &wire::doubt(bucket), OwnedHeaders::new()).await;
    }

    async fn produce(&self, partition: i32, key: &str, document: &str, headers: OwnedHeaders) {
        let mut told = false;
        loop {
            let record = FutureRecord::to(&self.topic)
                .partition(partition)
                .key(key)
                .payload(document)
                .headers(headers.clone());
            let Err((error, _)) = self.producer.send(record, Timeout::Never).await else { return };
            if !told {
                tracing::warn!(topic = self.topic, partition, %error, "A record could not be sent to Kafka; trying again for ever.");
                told = true;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
