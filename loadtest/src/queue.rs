//! A real ElasticMQ server and its queues, spoken to in SQS's JSON protocol over plain connections: what
//! a queue can do at best, without the cost of an SDK.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::data::{self, Notifier, Numbers};
use crate::http::{self, Connection};
use crate::process::{Process, Usage};
use crate::servers::{free_port, peer, until};

/// The most messages in one call.
const BATCH: usize = 10;

/// The server. It keeps its messages in memory.
#[derive(Debug)]
pub(crate) struct ElasticMq {
    process: Process,
    port: u16,
}

/// One queue, for each connection that speaks to it.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    port: u16,
    name: String,
}

impl ElasticMq {
    /// Starts a server.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let (port, file) = (free_port()?, dir.join("elasticmq.conf"));
        let settings = format!(
            "include classpath(\"application.conf\")\n\
             node-address {{ protocol = http, host = \"127.0.0.1\", port = {port} }}\n\
             rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = \"127.0.0.1\" }}\n\
             rest-stats {{ enabled = false }}\n"
        );
        std::fs::write(&file, settings)?;
        let mut command = Command::new(peer("elasticmq")?);
        command.arg("org.elasticmq.server.Main");
        command.env("JAVA_OPTS", format!("-Xmx512m -Dconfig.file={}", file.display()));
        let process = Process::start(&mut command, &dir.join("elasticmq.log"))?;
        until("ElasticMQ serves", || async {
            if !process.is_running()? {
                bail!("ElasticMQ ended: {}", process.last_words());
            }
            Ok(http::get(port, "/health").await.is_ok())
        })
        .await?;
        Ok(Self { process, port })
    }

    /// Makes a queue.
    pub(crate) async fn queue(&self, name: &str) -> anyhow::Result<Queue> {
        let mut connection = Connection::open(self.port).await?;
        call(&mut connection, "CreateQueue", &json!({"QueueName": name})).await?;
        Ok(Queue { port: self.port, name: name.to_owned() })
    }

    /// What the server has used since its start.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        self.process.usage()
    }
}

impl Queue {
    /// As SQS would give it.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/000000000000/{}", self.port, self.name)
    }

    /// Sends the notifications below `count`, ten in each call.
    pub(crate) async fn fill(&self, notifier: &Notifier, count: usize) -> anyhow::Result<()> {
        let batches = Numbers::below(count / BATCH);
        data::crew(8, || {
            let (queue, batches, notifier) = (self.clone(), batches.clone(), notifier.clone());
            async move {
                let mut connection = Connection::open(queue.port).await?;
                for batch in batches {
                    let entry = |at: usize| -> anyhow::Result<Value> {
                        let body = notifier.body(batch * BATCH + at);
                        let body = std::str::from_utf8(&body)?;
                        Ok(json!({"Id": at.to_string(), "MessageBody": body}))
                    };
                    let entries = (0..BATCH).map(entry).collect::<anyhow::Result<Vec<_>>>()?;
                    let answer = json!({"QueueUrl": queue.url(), "Entries": entries});
                    let answer = call(&mut connection, "SendMessageBatch", &answer).await?;
                    none_failed(&answer)?;
                }
                Ok(())
            }
        })
        .await
    }

    /// Receives and deletes `count` messages with this many connections, and does nothing else.
    pub(crate) async fn drain(&self, count: usize, connections: usize) -> anyhow::Result<()> {
        let left = Arc::new(AtomicUsize::new(count));
        data::crew(connections, || {
            let (queue, left) = (self.clone(), Arc::clone(&left));
            async move {
                let mut connection = Connection::open(queue.port).await?;
                let receive = json!({"QueueUrl": queue.url(), "MaxNumberOfMessages": BATCH});
                while left.load(Ordering::Relaxed) > 0 {
                    let answer = call(&mut connection, "ReceiveMessage", &receive).await?;
                    let messages = answer.get("Messages").and_then(Value::as_array);
                    let messages = messages.map_or(&[][..], Vec::as_slice);
                    if messages.is_empty() {
                        continue;
                    }
                    let entry = |(at, message): (usize, &Value)| {
                        json!({"Id": at.to_string(), "ReceiptHandle": message.get("ReceiptHandle")})
                    };
                    let entries: Vec<_> = messages.iter().enumerate().map(entry).collect();
                    let delete = json!({"QueueUrl": queue.url(), "Entries": entries});
                    let answer = call(&mut connection, "DeleteMessageBatch", &delete).await?;
                    none_failed(&answer)?;
                    left.fetch_sub(messages.len(), Ordering::Relaxed);
                }
                Ok(())
            }
        })
        .await
    }

    /// How many messages it holds, visible or not.
    pub(crate) async fn holds(&self) -> anyhow::Result<u64> {
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let asked = json!({"QueueUrl": self.url(), "AttributeNames": names});
        let mut connection = Connection::open(self.port).await?;
        let answer = call(&mut connection, "GetQueueAttributes", &asked).await?;
        let attributes = answer.get("Attributes").unwrap_or(&Value::Null);
        let count = |name: &&str| attributes.get(*name)?.as_str()?.parse::<u64>().ok();
        names.iter().map(count).sum::<Option<u64>>().context("the queue does not tell its length")
    }
}

async fn call(connection: &mut Connection, operation: &str, body: &Value) -> anyhow::Result<Value> {
    let answer = connection.call_sqs(operation, Bytes::from(body.to_string())).await?;
    Ok(serde_json::from_slice(&answer)?)
}

fn none_failed(answer: &Value) -> anyhow::Result<()> {
    match answer.get("Failed").and_then(Value::as_array) {
        Some(failed) if !failed.is_empty() => bail!("the queue refuses: {answer}"),
        _ => Ok(()),
    }
}
