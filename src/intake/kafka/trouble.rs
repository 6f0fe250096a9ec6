//! What is wrong with Kafka, for people: one log line when it begins, one when it ends.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::intake::IntakeHealth;

/// What the client says of the cluster, made into the intake's [`IntakeHealth`].
#[derive(Debug)]
pub(super) struct Trouble {
    health: Arc<IntakeHealth>,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The last thing that the client complained of in the background: it knows why a broker hung up,
    /// the request that timed out does not.
    complaint: Option<(RDKafkaErrorCode, String)>,
    /// Records cannot be read although the brokers answer.
    refused: Option<(RDKafkaErrorCode, String)>,
    /// The advice that was logged last.
    told: Option<&'static str>,
    /// Records that were read and cannot be kept here now.
    stuck: usize,
}

/// A record that cannot be kept now, for as long as this lives.
#[derive(Debug)]
pub(super) struct Stuck<'a>(&'a Trouble);

impl Drop for Stuck<'_> {
    fn drop(&mut self) {
        let mut heard = self.0.heard();
        heard.stuck -= 1;
        if heard.stuck == 0 {
            tracing::info!(address = self.0.health.address, "Records of Kafka are kept again.");
            self.0.health.set_well();
        }
    }
}

impl Trouble {
    pub(super) fn new(health: Arc<IntakeHealth>) -> Self {
        Self { health, heard: Mutex::default() }
    }

    /// The client complained. Whether it matters shows when the cluster is asked next; that the group or
    /// the topic is refused matters at once.
    pub(super) fn complained(&self, code: RDKafkaErrorCode, text: &str) {
        tracing::debug!(?code, text, "The Kafka client reports a problem.");
        let complaint = (code, text.to_owned());
        let mut heard = self.heard();
        if matches!(
            code,
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::InconsistentGroupProtocol
        ) {
            heard.refused = Some(complaint.clone());
            self.tell(&mut heard, code, text);
        }
        // A refused login also ends in brokers that are down.
        if heard.complaint.is_none() || !is_unclear(code) {
            heard.complaint = Some(complaint);
        }
    }

    /// The cluster did not answer, or not as it should.
    pub(super) fn failed(&self, error: &KafkaError) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        let mut heard = self.heard();
        match heard.complaint.clone().filter(|_| is_unclear(code)) {
            Some((code, text)) => self.tell(&mut heard, code, &text),
            None => self.tell(&mut heard, code, &error.to_string()),
        }
    }

    /// A record was read at this time (milliseconds since the Unix epoch).
    pub(super) fn read(&self, at_ms: i64) {
        self.health.heard(at_ms);
        self.reads();
    }

    /// A record was read and cannot be kept, because of this. Only the first of them is told: all behind it
    /// wait for the same.
    pub(super) fn stuck(&self, error: &dyn std::error::Error) -> Stuck<'_> {
        let mut heard = self.heard();
        heard.stuck += 1;
        if heard.stuck == 1 {
            tracing::error!(address = self.health.address, %error, "Records of Kafka cannot be kept now; they wait there, and nothing is lost.");
            self.health.set_trouble(format!("{error}; records wait in Kafka"));
        }
        Stuck(self)
    }

    /// Records can be read.
    pub(super) fn reads(&self) {
        self.heard().refused = None;
    }

    /// The cluster answered.
    pub(super) fn answered(&self) {
        let mut heard = self.heard();
        heard.complaint = None;
        if heard.refused.is_some() || heard.stuck > 0 {
            return;
        }
        if heard.told.take().is_some() {
            tracing::info!(address = self.health.address, "Kafka answers again.");
        }
        self.health.set_well();
    }

    fn tell(&self, heard: &mut Heard, code: RDKafkaErrorCode, text: &str) {
        let advice = advice(code);
        if heard.told != Some(advice) {
            heard.told = Some(advice);
            tracing::warn!(
                address = self.health.address,
                error = text,
                advice,
                "No notifications can be read from Kafka; they wait there. Trying again for ever."
            );
        }
        self.health.set_trouble(format!("{text}: {advice}"));
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a code tells only that there is no answer, and not why.
const fn is_unclear(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
    )
}

/// What the operator can do.
fn advice(code: RDKafkaErrorCode) -> &'static str {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "there are over 150 codes, and more to come"
    )]
    match code {
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
            "check sasl.mechanism and sasl.username in [intake.kafka.properties], and sasl_password"
        }
        RDKafkaErrorCode::SSL => {
            "check security.protocol and the ssl.* properties in [intake.kafka.properties]"
        }
        RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
            "create the topic, or correct `topics` in [intake.kafka]"
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            "allow this user to Read and Describe the topic, and to Write it with ack = \"replicated\""
        }
        RDKafkaErrorCode::GroupAuthorizationFailed => "allow this user to Read the consumer group",
        RDKafkaErrorCode::InconsistentGroupProtocol => {
            "another program uses this consumer group: set `group` in [intake.kafka]"
        }
        _ => {
            "check that the brokers run, `brokers` in [intake.kafka], and security.protocol in \
             [intake.kafka.properties]"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_clients_and_goes_when_the_cluster_answers() {
        let health = Arc::new(IntakeHealth::new("kafka", "t at b:1".to_owned()));
        let trouble = Trouble::new(Arc::clone(&health));
        let timed_out = KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut);
        trouble.failed(&timed_out);
        assert!(health.trouble().unwrap().contains("check that the brokers run"));
        trouble.complained(RDKafkaErrorCode::Authentication, "SASL authentication error");
        trouble.complained(RDKafkaErrorCode::AllBrokersDown, "all brokers are down");
        trouble.failed(&timed_out);
        let told = health.trouble().unwrap();
        assert!(told.contains("SASL authentication error") && told.contains("sasl_password"));
        trouble.answered();
        assert_eq!(health.trouble(), None);
    }

    #[test]
    fn records_that_cannot_be_kept_are_trouble_until_the_last_of_them_is() {
        let health = Arc::new(IntakeHealth::new("kafka", "t at b:1".to_owned()));
        let trouble = Trouble::new(Arc::clone(&health));
        let full = std::io::Error::other("the journal is full");
        let (one, other) = (trouble.stuck(&full), trouble.stuck(&full));
        trouble.answered();
        drop(one);
        assert!(health.trouble().unwrap().contains("the journal is full"));
        drop(other);
        assert_eq!(health.trouble(), None);
    }

    #[test]
    fn brokers_that_answer_do_not_hide_that_the_group_is_refused() {
        let health = Arc::new(IntakeHealth::new("kafka", "t at b:1".to_owned()));
        let trouble = Trouble::new(Arc::clone(&health));
        trouble.complained(RDKafkaErrorCode::GroupAuthorizationFailed, "refused");
        trouble.answered();
        assert!(health.trouble().unwrap().contains("allow this user"));
        trouble.reads();
        trouble.answered();
        assert_eq!(health.trouble(), None);
    }
}
