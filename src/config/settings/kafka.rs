//! The settings of the Kafka intake.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::units::{HIDDEN, duration, hidden};

/// The Kafka intake.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// Where the cluster is found: `HOST:PORT`, several with commas.
    pub brokers: String,
    /// The topics to which the stores send notifications; exactly one with [`KafkaAck::Replicated`].
    pub topics: Vec<String>,
    /// The consumer group. Several processes in one group share the partitions.
    #[serde(default = "evermirror")]
    pub group: String,
    /// What must have happened before an offset is committed.
    #[serde(default)]
    pub ack: KafkaAck,
    /// How long a partition that goes to another process waits for its keys in flight.
    #[serde(default = "twenty_seconds", with = "duration")]
    pub drain_timeout: Duration,
    /// The password of SASL.
    #[serde(default, serialize_with = "hidden")]
    pub sasl_password: Option<SecretString>,
    /// A file that holds it.
    #[serde(default)]
    pub sasl_password_file: Option<PathBuf>,
    /// Any other property of the client library.
    #[serde(default)]
    pub properties: KafkaProperties,
}

fn evermirror() -> String {
    "evermirror".to_owned()
}

const fn twenty_seconds() -> Duration {
    Duration::from_secs(20)
}

/// What must have happened before an offset is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KafkaAck {
    /// The record's keys are durable in the local journal.
    #[default]
    Durable,
    /// The record's keys are replicated: Kafka is the journal, and several processes share one bucket.
    Replicated,
}

/// Properties of librdkafka by name, as written in its documentation. Those that may hold a secret are
/// hidden wherever they would be shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct KafkaProperties(pub BTreeMap<String, String>);

impl KafkaProperties {
    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        let shown = |name: &str| {
            const SECRET: [&str; 6] =
                ["password", "secret", "token", ".pem", "jaas", "bearer.config"];
            !SECRET.iter().any(|part| name.contains(part))
        };
        self.0.iter().map(move |(k, v)| (k.as_str(), if shown(k) { v.as_str() } else { HIDDEN }))
    }
}

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // On one line also in a pretty print: its names are no fields.
        write!(f, "{:?}", self.shown().collect::<BTreeMap<_, _>>())
    }
}

impl Serialize for KafkaProperties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.shown())
    }
}
