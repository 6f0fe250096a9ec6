//! The queue, as the few calls that the intake needs. The only place that knows the AWS SDK's client.
//!
//! **Promise.** A call ends: with an answer, or with a [`Failure`] after at most three tries and
//! [`PATIENCE`] each (and the long poll's own wait). **On cancellation** a message may have been
//! received by nobody; it comes back after its visibility timeout.

use std::fmt;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry, MessageSystemAttributeName, QueueAttributeName,
};
use secrecy::ExposeSecret as _;

use super::fault::{Failure, classify};
use crate::config::settings::SqsSettings;
use crate::store;

/// The most messages that one call takes, gives or changes.
const BATCH: i32 = 10;
/// How long a try of a call may take, beyond what it is told to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// One queue.
pub(super) struct Queue {
    client: Client,
    url: String,
    wait_s: i32,
    visibility_s: i32,
}

/// A message that was received and is invisible to others for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The same at each delivery.
    pub(super) id: String,
    /// Of this delivery: what deletes or extends it.
    pub(super) receipt: String,
    pub(super) body: String,
    /// When it was sent to the queue, in milliseconds since the Unix epoch.
    pub(super) sent_ms: Option<i64>,
}

/// What the queue says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    /// About how many messages it holds: waiting, delayed, or received and not deleted.
    pub(super) messages: u64,
    /// Messages that were received too often are moved to a dead-letter queue.
    pub(super) redrives: bool,
}

/// One message of a batch for which a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Its place in the batch.
    pub(super) index: usize,
    /// The service's code and words.
    pub(super) reason: String,
    /// The call is wrong and will fail again; the receipt is out of date, mostly.
    pub(super) is_final: bool,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Queue {
    /// A client, which has not asked anything yet; an error is one of the settings.
    pub(super) async fn connect(settings: &SqsSettings) -> Result<Self, String> {
        let region = settings.signing_region();
        let provider = match (&settings.access_key, &settings.secret_key) {
            (Some(access_key), Some(secret_key)) => {
                let token = settings.session_token.as_ref().map(|t| t.expose_secret().to_owned());
                let (access_key, secret_key) =
                    (access_key.expose_secret(), secret_key.expose_secret());
                let keys =
                    Credentials::new(access_key, secret_key, token, None, "evermirror settings");
                SharedCredentialsProvider::new(keys)
            }
            _ => store::default_chain(&region).await?,
        };
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .operation_attempt_timeout(settings.wait_time + PATIENCE);
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(settings.service_endpoint())
            .region(Region::new(region))
            .credentials_provider(provider)
            .http_client(store::http_client(settings.ca_file.as_deref())?)
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(timeouts.build())
            // It would take a long poll for a stalled one.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let seconds = |time: Duration| i32::try_from(time.as_secs()).unwrap_or(i32::MAX);
        Ok(Self {
            client: Client::from_conf(config.build()),
            url: settings.queue_url.clone(),
            wait_s: seconds(settings.wait_time),
            visibility_s: seconds(settings.visibility_timeout),
        })
    }

    /// Where it is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Up to ten messages, as soon as there is one; none if there is none for the whole wait.
    pub(super) async fn receive(&self) -> Result<Vec<Message>, Failure> {
        let call = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(BATCH)
            .wait_time_seconds(self.wait_s)
            .visibility_timeout(self.visibility_s)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp);
        let answer = call.send().await.map_err(|e| failure("ReceiveMessage", &e))?;
        let messages = answer.messages.unwrap_or_default().into_iter();
        Ok(messages
            .filter_map(|message| {
                let sent = |a: &std::collections::HashMap<MessageSystemAttributeName, String>| {
                    a.get(&MessageSystemAttributeName::SentTimestamp)?.parse().ok()
                };
                Some(Message {
                    sent_ms: message.attributes.as_ref().and_then(sent),
                    // Without a receipt nothing can be done with it.
                    receipt: message.receipt_handle?,
                    id: message.message_id.unwrap_or_default(),
                    body: message.body.unwrap_or_default(),
                })
            })
            .collect())
    }

    /// Deletes messages by their receipts, ten at most; answers which it did not delete.
    pub(super) async fn delete(&self, receipts: &[&str]) -> Result<Vec<Refusal>, Failure> {
        let entries = numbered(receipts).filter_map(|(id, receipt)| {
            let entry = DeleteMessageBatchRequestEntry::builder();
            entry.id(id).receipt_handle(receipt).build().ok()
        });
        let call = self.client.delete_message_batch().queue_url(&self.url);
        let answer = call.set_entries(Some(entries.collect())).send().await;
        let answer = answer.map_err(|error| failure("DeleteMessageBatch", &error))?;
        Ok(answer.failed.iter().filter_map(refusal).collect())
    }

    /// Keeps messages invisible for a whole visibility timeout from now, ten at most; answers for which
    /// it did not.
    pub(super) async fn extend(&self, receipts: &[&str]) -> Result<Vec<Refusal>, Failure> {
        let entries = numbered(receipts).filter_map(|(id, receipt)| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder();
            let entry = entry.visibility_timeout(self.visibility_s);
            entry.id(id).receipt_handle(receipt).build().ok()
        });
        let call = self.client.change_message_visibility_batch().queue_url(&self.url);
        let answer = call.set_entries(Some(entries.collect())).send().await;
        let answer = answer.map_err(|error| failure("ChangeMessageVisibilityBatch", &error))?;
        Ok(answer.failed.iter().filter_map(refusal).collect())
    }

    /// What the queue says of itself.
    pub(super) async fn attributes(&self) -> Result<Attributes, Failure> {
        let counts = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let names = counts.iter().cloned().chain([QueueAttributeName::RedrivePolicy]);
        let call = self.client.get_queue_attributes().queue_url(&self.url);
        let answer = call.set_attribute_names(Some(names.collect())).send().await;
        let attributes = answer.map_err(|error| failure("GetQueueAttributes", &error))?.attributes;
        let attributes = attributes.unwrap_or_default();
        let count = |name| attributes.get(name)?.parse::<u64>().ok();
        let redrive = attributes.get(&QueueAttributeName::RedrivePolicy);
        Ok(Attributes {
            messages: counts.iter().filter_map(count).sum(),
            redrives: redrive.is_some_and(|policy| policy.contains("deadLetterTargetArn")),
        })
    }
}

fn numbered<'a>(receipts: &'a [&'a str]) -> impl Iterator<Item = (String, &'a str)> {
    receipts.iter().enumerate().map(|(index, receipt)| (index.to_string(), *receipt))
}

fn refusal(entry: &BatchResultErrorEntry) -> Option<Refusal> {
    let message = entry.message.as_deref().unwrap_or_default();
    Some(Refusal {
        index: entry.id.parse().ok()?,
        reason: format!("{}: {message}", entry.code).escape_debug().to_string(),
        is_final: entry.sender_fault,
    })
}

fn failure<E>(operation: &'static str, error: &SdkError<E>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error.raw_response().map(|answer| answer.status().as_u16());
    let reason = match (status, error.code()) {
        (Some(status), Some(code)) => {
            let text = format!("{status} {code}: {}", error.message().unwrap_or_default());
            text.escape_debug().to_string()
        }
        (Some(200), None) => "an answer that is not one of SQS".to_owned(),
        (Some(status), None) => format!("{status} without a code"),
        (None, _) => store::describe(error),
    };
    Failure { kind: classify(status, error.code()), operation, reason }
}
