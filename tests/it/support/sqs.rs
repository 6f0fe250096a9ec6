//! Queues, seen through the AWS SDK: ElasticMQ's and moto's. Its calls panic on errors.

use std::collections::HashMap;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use serde_json::json;

use super::minio::{ACCESS_KEY, SECRET_KEY};

/// A client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Sqs {
    /// For calls that only one test needs.
    pub(crate) client: Client,
    endpoint: String,
}

/// One queue.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    sqs: Sqs,
    pub(crate) url: String,
    pub(crate) arn: String,
}

impl Sqs {
    /// A client of `endpoint`, with the credentials of all test servers.
    pub(crate) fn new(endpoint: &str) -> Self {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .endpoint_url(endpoint)
            .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "tests"))
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        Self { client: Client::from_conf(config.build()), endpoint: endpoint.to_owned() }
    }

    /// Makes a queue.
    pub(crate) async fn queue(&self, name: &str) -> Queue {
        self.queue_with(name, &[]).await
    }

    /// Makes a queue that moves what was received `most` times to the other.
    pub(crate) async fn queue_with_redrive(&self, name: &str, most: u32, dead: &Queue) -> Queue {
        let policy = json!({"deadLetterTargetArn": dead.arn, "maxReceiveCount": most.to_string()});
        self.queue_with(name, &[(QueueAttributeName::RedrivePolicy, policy.to_string())]).await
    }

    async fn queue_with(&self, name: &str, attributes: &[(QueueAttributeName, String)]) -> Queue {
        let attributes = attributes.iter().cloned().collect();
        let call = self.client.create_queue().queue_name(name);
        let url = call.set_attributes(Some(attributes)).send().await.unwrap().queue_url.unwrap();
        let queue = Queue { sqs: self.clone(), url, arn: String::new() };
        let arn = queue.attributes(&[QueueAttributeName::QueueArn]).await;
        Queue { arn: arn[&QueueAttributeName::QueueArn].clone(), ..queue }
    }
}

impl Queue {
    /// evermirror's settings to take from it, with receipts that soon come back.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        self.settings_by(&self.sqs.endpoint)
    }

    /// The same by way of another endpoint.
    pub(crate) fn settings_by(&self, endpoint: &str) -> Vec<(&'static str, String)> {
        vec![
            ("INTAKE__SQS__QUEUE_URL", self.url.clone()),
            ("INTAKE__SQS__ENDPOINT", endpoint.to_owned()),
            ("INTAKE__SQS__ACCESS_KEY", ACCESS_KEY.to_owned()),
            ("INTAKE__SQS__SECRET_KEY", SECRET_KEY.to_owned()),
            ("INTAKE__SQS__VISIBILITY_TIMEOUT", "5s".to_owned()),
        ]
    }

    /// Sends messages, ten in each call.
    pub(crate) async fn send(&self, bodies: &[String]) {
        for some in bodies.chunks(10) {
            let entries = some.iter().enumerate().map(|(index, body)| {
                let entry = SendMessageBatchRequestEntry::builder().id(index.to_string());
                entry.message_body(body).build().unwrap()
            });
            let call = self.sqs.client.send_message_batch().queue_url(&self.url);
            let sent = call.set_entries(Some(entries.collect())).send().await.unwrap();
            assert_eq!(sent.failed(), []);
        }
    }

    /// How many messages it holds, visible or not.
    pub(crate) async fn holds(&self) -> u64 {
        // Asked for together: a message that becomes visible in between would be counted twice.
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let counts = self.attributes(&names).await;
        names.iter().map(|name| counts[name].parse::<u64>().unwrap()).sum()
    }

    async fn attributes(
        &self,
        names: &[QueueAttributeName],
    ) -> HashMap<QueueAttributeName, String> {
        let call = self.sqs.client.get_queue_attributes().queue_url(&self.url);
        let answer = call.set_attribute_names(Some(names.to_vec())).send().await.unwrap();
        answer.attributes.unwrap()
    }

    /// `Ok` when it holds so many.
    pub(crate) async fn holds_exactly(&self, count: u64) -> Result<(), String> {
        let holds = self.holds().await;
        (holds == count).then_some(()).ok_or(format!("{} holds {holds} messages", self.url))
    }

    /// The text of what it gives, if it gives anything within a second.
    pub(crate) async fn receive(&self) -> Vec<String> {
        let call = self.sqs.client.receive_message().queue_url(&self.url);
        let call = call.max_number_of_messages(10).wait_time_seconds(1);
        let messages = call.send().await.unwrap().messages.unwrap_or_default();
        messages.into_iter().filter_map(|message| message.body).collect()
    }
}
