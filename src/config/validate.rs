//! Whether settings make sense together; pure, without I/O.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;

use super::problem::{Place, Problem};
use super::settings::{
    BucketSettings, CaptureSettings, DeleteSettings, JournalSettings, KafkaAck, KafkaSettings,
    LeaseSettings, LogSettings, ReconcileSettings, ReplicateSettings, Settings, SnapshotSettings,
    SqsSettings, StoreSettings, TargetSettings, WebSettings, WebhookSettings,
};
use super::units::ByteSize;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Properties of Kafka's client on which the promises rest, and what to do instead.
const OURS: [(&str, &str); 16] = [
    ("bootstrap.servers", "set `brokers` in [intake.kafka]"),
    ("metadata.broker.list", "set `brokers` in [intake.kafka]"),
    ("group.id", "set `group` in [intake.kafka]"),
    ("group.protocol", "remove it"),
    ("sasl.password", "set `sasl_password` or `sasl_password_file` in [intake.kafka]"),
    ("enable.auto.commit", "remove it; an offset is committed when `ack` says so"),
    ("auto.commit.interval.ms", "remove it; an offset is committed when `ack` says so"),
    ("enable.auto.offset.store", "remove it; an offset is committed when `ack` says so"),
    ("auto.offset.reset", "remove it; no record is ever skipped"),
    ("partition.assignment.strategy", "remove it; it is cooperative-sticky"),
    ("enable.partition.eof", "remove it"),
    ("statistics.interval.ms", "remove it; see the metrics of evermirror"),
    ("acks", "remove it; repairs wait for all replicas"),
    ("request.required.acks", "remove it; repairs wait for all replicas"),
    ("enable.idempotence", "remove it; repairs are idempotent"),
    ("partitioner", "remove it; repairs go where the store's notifications go"),
];

/// Every rule that is broken, by the path of the key to change.
pub(super) fn validate(settings: &Settings) -> Vec<Problem> {
    let mut check = Check::default();
    check.store("source", &settings.source);
    check.store("target", &settings.target.store());
    check.encryption(&settings.target);
    check.buckets(&settings.buckets);
    check.same_place(settings);
    check.listeners(settings);
    if let Some(webhook) = &settings.intake.webhook {
        check.webhook(webhook);
    }
    if let Some(sqs) = &settings.intake.sqs {
        check.sqs(sqs);
    }
    check.web(&settings.web);
    if let Some(capture) = &settings.capture {
        check.capture(capture, settings);
    }
    if let Some(listen) = &settings.intake.listen {
        let most = Duration::from_hours(24);
        check.duration(
            "intake.listen.max_silence",
            listen.max_silence,
            Duration::from_secs(15),
            most,
        );
    }
    if let Some(kafka) = &settings.intake.kafka {
        check.kafka(kafka);
    }
    check.journal(&settings.journal);
    check.replicate(&settings.replicate);
    check.deletes(&settings.deletes);
    check.reconcile(&settings.reconcile);
    if let Some(lease) = &settings.lease {
        check.lease(lease, settings.intake.shares_buckets());
    }
    if let Some(snapshot) = &settings.snapshot {
        check.snapshot(snapshot);
    }
    check.log(&settings.log);
    check.problems
}

#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn report(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::at(Place::Path(path.into()), message));
    }

    fn range<T: PartialOrd + Display + Copy>(
        &mut self,
        path: &str,
        value: T,
        limits: RangeInclusive<T>,
    ) {
        if !limits.contains(&value) {
            let name = path.rsplit('.').next().unwrap_or(path);
            let (low, high) = limits.into_inner();
            self.report(path, format!("`{name}` must be between {low} and {high}, not {value}"));
        }
    }

    fn size(&mut self, path: &str, value: ByteSize, low: u64, high: u64) {
        self.range(path, value, ByteSize(low)..=ByteSize(high));
    }

    fn duration(&mut self, path: &str, value: Duration, low: Duration, high: Duration) {
        let show = humantime::format_duration;
        if value < low || value > high {
            let name = path.rsplit('.').next().unwrap_or(path);
            let (low, high, value) = (show(low), show(high), show(value));
            self.report(path, format!("`{name}` must be between {low} and {high}, not {value}"));
        }
    }

    fn store(&mut self, table: &str, store: &StoreSettings) {
        if let Err(message) = place_of(&store.endpoint) {
            self.report(format!("{table}.endpoint"), format!("`endpoint` {message}"));
        }
        let keys = [&store.access_key, &store.secret_key, &store.session_token];
        self.credentials(table, keys.map(Option::is_some));
    }

    /// Whether the access key, the secret key and the session token are set.
    fn credentials(&mut self, table: &str, [access_key, secret_key, session_token]: [bool; 3]) {
        let half = match [access_key, secret_key] {
            [true, false] => Some(("access_key", "secret_key")),
            [false, true] => Some(("secret_key", "access_key")),
            _ => None,
        };
        if let Some((set, missing)) = half {
            self.report(
                format!("{table}.{set}"),
                format!("`{set}` is set in [{table}] without `{missing}`: set both, or neither to use the AWS default chain"),
            );
        }
        if session_token && !access_key && !secret_key {
            self.report(
                format!("{table}.session_token"),
                format!("`session_token` is set in [{table}] without the `access_key` and `secret_key` it belongs to"),
            );
        }
    }

    fn encryption(&mut self, target: &TargetSettings) {
        let kms =
            target.server_side_encryption.as_deref().is_some_and(|s| s.starts_with("aws:kms"));
        if target.kms_key_id.is_some() && !kms {
            self.report(
                "target.kms_key_id",
                "`kms_key_id` needs `server_side_encryption = \"aws:kms\"` in [target]",
            );
        }
    }

    fn buckets(&mut self, buckets: &[BucketSettings]) {
        let mut sources = BTreeMap::new();
        let mut targets = BTreeMap::new();
        for (index, bucket) in buckets.iter().enumerate() {
            let source = format!("buckets.{index}.source");
            let target = match bucket.target {
                Some(_) => format!("buckets.{index}.target"),
                None => source.clone(),
            };
            self.bucket_name(&source, &bucket.source);
            if bucket.target.is_some() {
                self.bucket_name(&target, bucket.target_name());
            }
            if sources.insert(bucket.source.as_str(), index).is_some() {
                let name = &bucket.source;
                self.report(
                    source,
                    format!("source bucket \"{name}\" is listed twice: give all its prefixes in one entry"),
                );
            } else if let Some(other) = targets.insert(bucket.target_name(), bucket.source.as_str())
            {
                let (from, to) = (&bucket.source, bucket.target_name());
                self.report(
                    target,
                    format!("source buckets \"{other}\" and \"{from}\" would both be written to target bucket \"{to}\": give one of them another `target`"),
                );
            }
        }
    }

    /// Wider than today's naming rules, because older buckets may have longer names with capitals
    /// and underscores: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>.
    fn bucket_name(&mut self, path: &str, name: &str) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !(3..=255).contains(&name.len()) || !starts || !name.chars().all(allowed) {
            let shown = name.escape_debug();
            self.report(
                path,
                format!("\"{shown}\" is not a bucket name: 3 to 255 letters, digits, dots, hyphens and underscores, beginning with a letter or digit"),
            );
        }
    }

    /// A target bucket that is also a source bucket would feed itself, or another one.
    fn same_place(&mut self, settings: &Settings) {
        let source = place_of(&settings.source.endpoint);
        let Ok(endpoint) = source.as_ref() else { return };
        if Ok(endpoint) != place_of(&settings.target.endpoint).as_ref() {
            return;
        }
        for (index, bucket) in settings.buckets.iter().enumerate() {
            if settings.buckets.iter().any(|other| other.source == bucket.target_name()) {
                let key = if bucket.target.is_some() { "target" } else { "source" };
                let name = bucket.target_name();
                self.report(
                    format!("buckets.{index}.{key}"),
                    format!("bucket \"{name}\" on {endpoint} is both source and target: give the entry another `target`, or [target] another `endpoint`"),
                );
            }
        }
    }

    fn listeners(&mut self, settings: &Settings) {
        let Some(webhook) = &settings.intake.webhook else { return };
        let (a, b) = (webhook.listen, settings.web.listen);
        let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        if a.port() == b.port() && a.port() != 0 && overlap {
            self.report(
                "web.listen",
                format!("[web] and [intake.webhook] cannot both listen on port {}", a.port()),
            );
        }
    }

    fn web(&mut self, web: &WebSettings) {
        if !web.read_without_token && web.auth_token.is_none() {
            self.report(
                "web.read_without_token",
                "`read_without_token = false` needs a token: set `auth_token` or `auth_token_file` in [web]",
            );
        }
    }

    /// The documents are in nobody's way: replication would take them for objects that the source lost.
    fn capture(&mut self, capture: &CaptureSettings, settings: &Settings) {
        let (minute, month) = (Duration::from_mins(1), Duration::from_hours(24 * 31));
        self.duration("capture.interval", capture.interval, minute, month);
        self.range("capture.keep", capture.keep, 1..=10_000);
        self.bucket_name("capture.target_bucket", &capture.target_bucket);
        let one_store = place_of(&settings.source.endpoint) == place_of(&settings.target.endpoint);
        let taken = settings.buckets.iter().any(|bucket| {
            bucket.target_name() == capture.target_bucket
                || one_store && bucket.source == capture.target_bucket
        });
        if taken {
            let name = &capture.target_bucket;
            self.report(
                "capture.target_bucket",
                format!(
                    "bucket \"{name}\" is one of [[buckets]]: the documents need one of their own"
                ),
            );
        }
    }

    fn webhook(&mut self, webhook: &WebhookSettings) {
        let clean = |path: &str| path.chars().all(|c| c.is_ascii_graphic() && !"?#{}*".contains(c));
        if !webhook.path.starts_with('/') || !clean(&webhook.path) {
            let shown = webhook.path.escape_debug();
            self.report(
                "intake.webhook.path",
                format!("`path` must begin with / and be plain ASCII without spaces, ?, #, * and braces, not \"{shown}\""),
            );
        }
        self.size("intake.webhook.max_body", webhook.max_body, 64 * KIB, 64 * MIB);
        self.duration(
            "intake.webhook.max_wait",
            webhook.max_wait,
            Duration::ZERO,
            Duration::from_mins(5),
        );
        self.range("intake.webhook.max_connections", webhook.max_connections, 1..=65_536);
    }

    fn sqs(&mut self, sqs: &SqsSettings) {
        if let Err(message) = queue_url(&sqs.queue_url) {
            self.report("intake.sqs.queue_url", format!("`queue_url` {message}"));
        }
        if let Some(Err(message)) = sqs.endpoint.as_deref().map(place_of) {
            self.report("intake.sqs.endpoint", format!("`endpoint` {message}"));
        }
        let keys = [&sqs.access_key, &sqs.secret_key, &sqs.session_token];
        self.credentials("intake.sqs", keys.map(Option::is_some));
        self.range("intake.sqs.receivers", sqs.receivers, 1..=256);
        // What SQS allows, but for no wait at all, which would ask without a pause, and for a visibility
        // timeout that is too short to be extended in time.
        let second = Duration::from_secs(1);
        self.duration("intake.sqs.wait_time", sqs.wait_time, second, second * 20);
        let hours = Duration::from_hours(12);
        self.duration("intake.sqs.visibility_timeout", sqs.visibility_timeout, second * 5, hours);
    }

    fn kafka(&mut self, kafka: &KafkaSettings) {
        let host_and_port = |broker: &str| {
            let (host, port) = broker.trim().rsplit_once(':')?;
            (!host.is_empty() && !broker.contains('/') && port.parse::<u16>().is_ok()).then_some(())
        };
        if kafka.brokers.split(',').any(|broker| host_and_port(broker).is_none()) {
            let shown = kafka.brokers.escape_debug();
            self.report(
                "intake.kafka.brokers",
                format!("`brokers` must be HOST:PORT, several with commas, not \"{shown}\""),
            );
        }
        if kafka.topics.is_empty() || kafka.ack == KafkaAck::Replicated && kafka.topics.len() > 1 {
            let how_many = if kafka.topics.is_empty() {
                "at least one topic"
            } else {
                "one topic only with `ack = \"replicated\"`"
            };
            self.report("intake.kafka.topics", format!("`topics` must name {how_many}"));
        }
        // <https://kafka.apache.org/documentation/#basic_ops_add_topic>
        let clean = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        for topic in &kafka.topics {
            if topic.len() > 249 || !topic.chars().all(clean) {
                let shown = topic.escape_debug();
                self.report("intake.kafka.topics", format!("\"{shown}\" is not a topic's name"));
            }
        }
        let hour = Duration::from_hours(1);
        self.duration("intake.kafka.drain_timeout", kafka.drain_timeout, Duration::ZERO, hour);
        for name in kafka.properties.0.keys() {
            if let Some((_, instead)) = OURS.iter().find(|(ours, _)| ours == name) {
                self.report(
                    "intake.kafka.properties",
                    format!("property `{name}` is evermirror's own: {instead}"),
                );
            }
        }
    }

    fn journal(&mut self, journal: &JournalSettings) {
        self.size("journal.segment_size", journal.segment_size, MIB, GIB);
        let least = ByteSize(journal.segment_size.0.saturating_mul(2));
        if journal.max_size < least {
            let (size, segment) = (journal.max_size, journal.segment_size);
            self.report(
                "journal.max_size",
                format!("`max_size` must hold at least two segments ({least} with `segment_size` {segment}), not {size}"),
            );
        }
    }

    fn replicate(&mut self, replicate: &ReplicateSettings) {
        let r = replicate;
        let (zero, hour) = (Duration::ZERO, Duration::from_hours(1));
        let tick = Duration::from_millis(1);
        self.range("replicate.concurrency", r.concurrency, 1..=1024);
        self.range("replicate.large_concurrency", r.large_concurrency, 1..=1024);
        self.range("replicate.part_concurrency", r.part_concurrency, 1..=64);
        self.size("replicate.large_size", r.large_size, KIB, 5 * GIB);
        self.size("replicate.multipart_threshold", r.multipart_threshold, 5 * MIB, 5 * GIB);
        if let Some(bandwidth) = r.bandwidth {
            self.size("replicate.bandwidth", bandwidth, 64 * KIB, 1 << 40);
        }
        self.duration("replicate.min_interval", r.min_interval, zero, hour);
        self.duration("replicate.retry_initial", r.retry_initial, tick, hour);
        self.duration("replicate.retry_max", r.retry_max, tick, hour * 24);
        if r.retry_initial > r.retry_max {
            let show = humantime::format_duration;
            let (first, longest) = (show(r.retry_initial), show(r.retry_max));
            self.report(
                "replicate.retry_max",
                format!("`retry_max` ({longest}) is shorter than `retry_initial` ({first})"),
            );
        }
        self.range("replicate.max_pending_keys", r.max_pending_keys, 1_000..=10_000_000);
        self.duration("replicate.request_timeout", r.request_timeout, Duration::from_secs(1), hour);
        self.duration("replicate.drain_timeout", r.drain_timeout, zero, hour);
    }

    fn deletes(&mut self, deletes: &DeleteSettings) {
        let day = Duration::from_hours(24);
        self.duration("deletes.window", deletes.window, Duration::from_secs(1), day);
        self.range("deletes.max_delete_percent", deletes.max_delete_percent, 0..=100);
    }

    fn reconcile(&mut self, reconcile: &ReconcileSettings) {
        self.range("reconcile.parallel", reconcile.parallel, 1..=64);
        if let Some(rate) = reconcile.requests_per_second {
            self.range("reconcile.requests_per_second", rate, 1..=100_000);
        }
    }

    fn lease(&mut self, lease: &LeaseSettings, shares_buckets: bool) {
        let (tick, longest) = (Duration::from_millis(100), Duration::from_mins(10));
        self.kubernetes_name("lease.name", &lease.name);
        if shares_buckets {
            self.report(
                "lease.name",
                "[lease] is not for `ack = \"replicated\"` in [intake.kafka], with which several processes work at once: remove it",
            );
        }
        self.duration("lease.duration", lease.duration, Duration::from_secs(2), longest);
        self.duration("lease.renew_deadline", lease.renew_deadline, tick, longest);
        self.duration("lease.retry_period", lease.retry_period, tick, longest);
        let show = humantime::format_duration;
        // The process that ends needs a moment for it.
        if lease.renew_deadline + Duration::from_secs(1) > lease.duration {
            let (deadline, duration) = (show(lease.renew_deadline), show(lease.duration));
            self.report(
                "lease.renew_deadline",
                format!("`renew_deadline` ({deadline}) must be at least 1s shorter than `duration` ({duration})"),
            );
        }
        if lease.retry_period * 2 > lease.renew_deadline {
            let (period, deadline) = (show(lease.retry_period), show(lease.renew_deadline));
            self.report(
                "lease.retry_period",
                format!("`retry_period` ({period}) must be at most half of `renew_deadline` ({deadline})"),
            );
        }
    }

    fn snapshot(&mut self, snapshot: &SnapshotSettings) {
        let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
        if snapshot.selector.trim().is_empty() {
            self.report(
                "snapshot.selector",
                "`selector` must be the labels of one claim, such as \"app.kubernetes.io/name=rustfs\"",
            );
        }
        if !snapshot.interval.is_zero() {
            self.duration("snapshot.interval", snapshot.interval, second, 366 * day);
        }
        self.range("snapshot.retain", snapshot.retain, 1..=10_000);
        self.duration("snapshot.ready_timeout", snapshot.ready_timeout, second, day);
        self.duration("snapshot.quiesce", snapshot.quiesce, Duration::ZERO, day);
    }

    /// As the API server names objects (RFC 1123):
    /// <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
    fn kubernetes_name(&mut self, path: &str, name: &str) {
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let edge = |c: char| !matches!(c, '-' | '.');
        let edges = name.starts_with(edge) && name.ends_with(edge);
        if name.len() > 253 || !edges || !name.chars().all(allowed) {
            let shown = name.escape_debug();
            self.report(
                path,
                format!("\"{shown}\" is not a Kubernetes name: lower-case letters, digits, hyphens and dots, with a letter or digit at both ends"),
            );
        }
    }

    fn log(&mut self, log: &LogSettings) {
        if let Err(error) = log.filter.parse::<tracing_subscriber::EnvFilter>() {
            self.report(
                "log.filter",
                format!("`filter` must be a level such as \"info\", or levels by module such as \"info,evermirror::replicate=debug\": {error}"),
            );
        }
    }
}

/// Whether this can be the URL of a queue: a place, and a path that names the queue there.
fn queue_url(url: &str) -> Result<(), &'static str> {
    const SHAPE: &str = "must be the queue's URL, such as https://sqs.eu-central-1.amazonaws.com/111122223333/NAME (not its ARN, not its name)";
    let uri: Uri = url.parse().map_err(|_| SHAPE)?;
    let path = uri.path().trim_matches('/');
    let place = url.strip_suffix(uri.path()).ok_or(SHAPE)?;
    match place_of(place) {
        Err(message) if message.contains("user or password") => Err(message),
        Ok(_) if !path.is_empty() && uri.query().is_none() => Ok(()),
        Ok(_) | Err(_) => Err(SHAPE),
    }
}

/// Scheme, host and port of an endpoint, so that two spellings of one place compare equal.
fn place_of(endpoint: &str) -> Result<String, &'static str> {
    const SHAPE: &str = "must be http://HOST[:PORT] or https://HOST[:PORT], without a path";
    let uri: Uri = endpoint.parse().map_err(|_| SHAPE)?;
    let port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return Err(SHAPE),
    };
    let authority = uri.authority().ok_or(SHAPE)?;
    if authority.as_str().contains('@') {
        return Err(
            "must not hold a user or password: write them as `access_key` and `secret_key`",
        );
    }
    if uri.path_and_query().is_some_and(|path| path != "/") || authority.host().is_empty() {
        return Err(SHAPE);
    }
    if authority.port().is_some() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("must have a port between 1 and 65535");
    }
    let (scheme, host) =
        (uri.scheme_str().unwrap_or_default(), authority.host().to_ascii_lowercase());
    Ok(format!("{scheme}://{host}:{}", authority.port_u16().unwrap_or(port)))
}
