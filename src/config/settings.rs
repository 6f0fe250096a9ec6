//! The settings, with their defaults, as the rest of the program sees them.
//!
//! One struct per table of the TOML file, field for field; `config/evermirror.toml` lists every
//! key with its default and a test proves that the two agree. Serializing shows secrets as
//! `"<hidden>"` and leaves out what is not set; it exists for `check-config`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::units::{ByteSize, duration, hidden};

mod capture;
mod kafka;
mod lease;
mod snapshot;
mod sqs;
mod store;

pub use capture::{CaptureSettings, CapturedBuckets};
pub use kafka::{KafkaAck, KafkaProperties, KafkaSettings};
pub use lease::LeaseSettings;
pub use snapshot::SnapshotSettings;
pub use sqs::SqsSettings;
pub use store::{StoreSettings, TargetSettings};

/// All settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the journal and all other state live. Must be on a disk that survives a restart.
    pub data_dir: PathBuf,
    /// The store that is protected.
    pub source: StoreSettings,
    /// The store that holds the live copy.
    pub target: TargetSettings,
    /// Which buckets are replicated, and to where. At least one.
    pub buckets: Vec<BucketSettings>,
    /// Where notifications arrive.
    #[serde(default)]
    pub intake: IntakeSettings,
    /// The durable queue.
    #[serde(default)]
    pub journal: JournalSettings,
    /// How keys are copied.
    #[serde(default)]
    pub replicate: ReplicateSettings,
    /// When deletes are held.
    #[serde(default)]
    pub deletes: DeleteSettings,
    /// The walk over both sides that finds what no event announced.
    #[serde(default)]
    pub reconcile: ReconcileSettings,
    /// What is captured of the source beside its objects; off unless the table is present.
    #[serde(default)]
    pub capture: Option<CaptureSettings>,
    /// Status, health and metrics.
    #[serde(default)]
    pub web: WebSettings,
    /// Active and standby; this process is the only one if absent.
    #[serde(default)]
    pub lease: Option<LeaseSettings>,
    /// Snapshots of the source's volume; none if absent.
    #[serde(default)]
    pub snapshot: Option<SnapshotSettings>,
    /// What is logged, and how.
    #[serde(default)]
    pub log: LogSettings,
}

/// One replicated bucket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketSettings {
    /// Its name at the source.
    pub source: String,
    /// Its name at the target; the same name if absent.
    #[serde(default)]
    pub target: Option<String>,
    /// Only keys that start with one of these; all keys if empty.
    #[serde(default)]
    pub include: Vec<String>,
    /// No key that starts with one of these, even if included.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// What becomes of an object at the target when the source has deleted it.
    #[serde(default)]
    pub deletes: DeletePolicy,
    /// With [`DeletePolicy::Delay`], how long the object stays; also those that wait already.
    #[serde(default = "a_day", with = "duration")]
    pub delete_delay: Duration,
    /// A source bucket that lists no object is an everyday thing, and no reason to hold its deletes.
    #[serde(default)]
    pub may_be_empty: bool,
}

/// What becomes of an object at the target when the source has deleted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeletePolicy {
    /// It is deleted at once.
    #[default]
    Mirror,
    /// It stays for ever.
    Archive,
    /// It is deleted `delete_delay` after the source confirmed that it was gone, if it still is.
    Delay,
}

const fn a_day() -> Duration {
    Duration::from_hours(24)
}

impl BucketSettings {
    /// The bucket's name at the target.
    pub fn target_name(&self) -> &str {
        self.target.as_deref().unwrap_or(&self.source)
    }

    /// Whether `key` is replicated.
    pub fn wants(&self, key: &str) -> bool {
        let starts = |prefixes: &[String]| prefixes.iter().any(|p| key.starts_with(p.as_str()));
        (self.include.is_empty() || starts(&self.include)) && !starts(&self.exclude)
    }
}

/// The intakes; each is off unless its table is present.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntakeSettings {
    /// HTTP notifications.
    pub webhook: Option<WebhookSettings>,
    /// An SQS queue.
    pub sqs: Option<SqsSettings>,
    /// A Kafka topic.
    pub kafka: Option<KafkaSettings>,
    /// The streams of MinIO and RustFS.
    pub listen: Option<ListenSettings>,
}

impl IntakeSettings {
    /// Whether several processes may share a bucket, because Kafka is their journal.
    pub fn shares_buckets(&self) -> bool {
        self.kafka.as_ref().is_some_and(|kafka| kafka.ack == KafkaAck::Replicated)
    }
}

/// The webhook.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// The path that takes POSTs.
    pub path: String,
    /// The bearer token every POST must carry; none is asked for if absent.
    #[serde(serialize_with = "hidden")]
    pub auth_token: Option<SecretString>,
    /// A file that holds the token.
    pub auth_token_file: Option<PathBuf>,
    /// The largest accepted body.
    pub max_body: ByteSize,
    /// How long an answer may wait for room in the journal before it is 503 and a recorded gap.
    #[serde(with = "duration")]
    pub max_wait: Duration,
    /// The largest number of open connections.
    pub max_connections: usize,
    /// TLS; plain HTTP if absent.
    pub tls: Option<TlsSettings>,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            path: "/events".to_owned(),
            auth_token: None,
            auth_token_file: None,
            max_body: ByteSize(1 << 20),
            max_wait: Duration::from_secs(20),
            max_connections: 1024,
            tls: None,
        }
    }
}

/// The webhook's TLS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM certificate chain.
    pub cert_file: PathBuf,
    /// PEM private key.
    pub key_file: PathBuf,
    /// PEM authorities of client certificates; when set, every client must present one.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
}

/// The listen streams.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenSettings {
    /// A stream in which nothing arrives for so long is given up, and another one begun.
    #[serde(with = "duration")]
    pub max_silence: Duration,
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self { max_silence: Duration::from_mins(10) }
    }
}

/// The journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalSettings {
    /// `"fsync"`: acknowledged events survive the host; `"write"`: they survive our own death only.
    pub durability: Durability,
    /// The size of one segment file.
    pub segment_size: ByteSize,
    /// The largest total size on disk; beyond it notifications are refused and a gap is recorded.
    pub max_size: ByteSize,
}

/// What "durable" means before an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// `fdatasync` has returned.
    #[default]
    Fsync,
    /// The write has returned: safe against our death, not the host's.
    Write,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            segment_size: ByteSize(64 << 20),
            max_size: ByteSize(10 << 30),
        }
    }
}

/// How keys are copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicateSettings {
    /// The most keys worked on at once; the number in use adapts to what the target bears.
    pub concurrency: usize,
    /// The most large objects (`large_size` and up, and multipart ones) among them.
    pub large_concurrency: usize,
    /// The parts of one multipart object that are copied at once.
    pub part_concurrency: usize,
    /// From this size on, an object uses the lane for large ones.
    pub large_size: ByteSize,
    /// A source object stored in one piece is uploaded in parts from this size on (S3 refuses a single
    /// PUT above 5 GiB); its `ETag` then differs from the source's.
    pub multipart_threshold: ByteSize,
    /// Bytes per second to the target, over all copies; unlimited if absent.
    pub bandwidth: Option<ByteSize>,
    /// A hot key is copied at most once in this time, always ending with its last state. A copy that
    /// failed does not count.
    #[serde(with = "duration")]
    pub min_interval: Duration,
    /// The first wait after a failure; it doubles with each further one.
    #[serde(with = "duration")]
    pub retry_initial: Duration,
    /// The longest wait between two tries of a key.
    #[serde(with = "duration")]
    pub retry_max: Duration,
    /// The most keys in memory: pending, parked, or settled within `min_interval`; the rest of the
    /// backlog waits on disk.
    pub max_pending_keys: usize,
    /// Copy tags.
    pub tags: bool,
    /// How long a request may make no progress.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// How long a graceful stop waits for work in flight.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
}

impl Default for ReplicateSettings {
    fn default() -> Self {
        Self {
            concurrency: 64,
            large_concurrency: 4,
            part_concurrency: 4,
            large_size: ByteSize(8 << 20),
            multipart_threshold: ByteSize(5 << 30),
            bandwidth: None,
            min_interval: Duration::from_millis(50),
            retry_initial: Duration::from_millis(500),
            retry_max: Duration::from_mins(5),
            max_pending_keys: 100_000,
            tags: true,
            request_timeout: Duration::from_mins(1),
            drain_timeout: Duration::from_secs(25),
        }
    }
}

/// The brake on deletes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeleteSettings {
    /// More confirmed deletes than this in one bucket within `window` trip the brake: further ones
    /// are held for a person to approve.
    pub max_deletes: u64,
    /// The window.
    #[serde(with = "duration")]
    pub window: Duration,
    /// A reconcile that would delete more than this share of a bucket's objects, in percent, holds
    /// those deletes instead; so do events within `window`.
    pub max_delete_percent: u64,
}

impl Default for DeleteSettings {
    fn default() -> Self {
        Self { max_deletes: 10_000, window: Duration::from_mins(10), max_delete_percent: 30 }
    }
}

/// The reconciler.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReconcileSettings {
    /// From the end of one pass to the beginning of the next, give or take a tenth; zero for passes
    /// only at the start, after gaps and on demand.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// The most ranges of one bucket that are listed at once, on each side.
    pub parallel: usize,
    /// The most listing requests per second to each store; unlimited if absent.
    pub requests_per_second: Option<u64>,
}

impl ReconcileSettings {
    /// The most listing requests per second to each store, if they are limited.
    pub fn rate(&self) -> Option<NonZeroU32> {
        let rate = self.requests_per_second?;
        NonZeroU32::new(u32::try_from(rate).unwrap_or(u32::MAX))
    }
}

impl Default for ReconcileSettings {
    fn default() -> Self {
        Self { interval: Duration::from_hours(1), parallel: 4, requests_per_second: None }
    }
}

/// The web listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// The bearer token that acting (approve, discard, reconcile) needs; without one, acting is refused.
    #[serde(serialize_with = "hidden")]
    pub auth_token: Option<SecretString>,
    /// A file that holds the token.
    pub auth_token_file: Option<PathBuf>,
    /// Reading the status and the metrics needs no token; if false, it needs `auth_token`, which
    /// `/healthz` and `/readyz` never do.
    pub read_without_token: bool,
}

impl Default for WebSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            auth_token: None,
            auth_token_file: None,
            read_without_token: true,
        }
    }
}

/// Logging.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// `"text"` or `"json"`.
    pub format: LogFormat,
    /// A level (`info`) or a `tracing` filter (`info,evermirror::replicate=debug`).
    pub filter: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}
