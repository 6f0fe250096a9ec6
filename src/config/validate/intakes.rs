//! The intakes, and the ports on which evermirror listens.

use std::time::Duration;

use http::Uri;

use super::stores::place_of;
use super::{Check, KIB, MIB};
use crate::config::settings::{
    IntakeSettings, KafkaAck, KafkaSettings, Settings, SqsSettings, WebhookSettings,
};

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

impl Check {
    pub(super) fn intakes(&mut self, intake: &IntakeSettings) {
        if let Some(webhook) = &intake.webhook {
            self.webhook(webhook);
        }
        if let Some(sqs) = &intake.sqs {
            self.sqs(sqs);
        }
        if let Some(listen) = &intake.listen {
            let (least, most) = (Duration::from_secs(15), Duration::from_hours(24));
            self.duration("intake.listen.max_silence", listen.max_silence, least, most);
        }
        if let Some(kafka) = &intake.kafka {
            self.kafka(kafka);
        }
    }

    pub(super) fn listeners(&mut self, settings: &Settings) {
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
