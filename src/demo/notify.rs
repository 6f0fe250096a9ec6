//! The source's notifications: MinIO's envelope, one a POST, in order, until they are accepted.
//!
//! This is what MinIO does with a queue directory: one request in flight, and anything but a 2xx means
//! try again. The queue is bounded and in memory; while it is full, writers to the source wait, so
//! nothing is lost as long as the demo lives. The task ends when every sender is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::ledger::State;
use crate::object::ObjectKey;

/// The most notifications that wait.
pub(super) const QUEUE: usize = 65_536;
/// The wait between two tries of one notification.
const RETRY: Duration = Duration::from_millis(250);
/// The longest wait for one answer: more than the 20 s for which evermirror may hold one back.
const ANSWER: Duration = Duration::from_secs(30);

/// One change of the source, as its notification tells it.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub key: ObjectKey,
    /// `s3:ObjectCreated:Put` and the like.
    pub event: &'static str,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What the key holds now; `None` after a delete.
    pub state: Option<State>,
    pub content_type: Option<String>,
    /// Without the `x-amz-meta-` prefix.
    pub user_metadata: BTreeMap<String, String>,
    pub principal: String,
    pub user_agent: String,
}

/// Where notifications go.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    pub url: String,
    pub token: String,
    /// The source's own endpoint, for the envelope.
    pub origin: String,
}

/// Delivers until the senders are gone.
pub(super) async fn deliver(webhook: Webhook, mut queue: mpsc::Receiver<Change>) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut number = 0_u64;
    while let Some(change) = queue.recv().await {
        number += 1;
        let body = Bytes::from(envelope(&change, number, &webhook.origin).to_string());
        while let Err(error) = post(&client, &webhook, body.clone()).await {
            tracing::debug!(%error, key = %change.key, "A notification waits for evermirror.");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn post(
    client: &Client<HttpConnector, Full<Bytes>>,
    webhook: &Webhook,
    body: Bytes,
) -> anyhow::Result<()> {
    let request = Request::post(&webhook.url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {}", webhook.token))
        .body(Full::new(body))?;
    let answer = tokio::time::timeout(ANSWER, client.request(request))
        .await
        .context("no answer within 30 s")??;
    anyhow::ensure!(answer.status().is_success(), "the webhook answered {}", answer.status());
    Ok(())
}

/// The JSON of MinIO's webhook target. Empty values are left out, as its Go code does (`omitempty`): a
/// zero-byte object has no `size`, a delete has only key and sequencer.
fn envelope(change: &Change, number: u64, origin: &str) -> Value {
    let ObjectKey { bucket, key } = &change.key;
    let time = Timestamp::from_millisecond(change.at_ms).unwrap_or_default();
    let nanoseconds = time.as_nanosecond();
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
    set("key", json!(query_escape(key)));
    set("sequencer", json!(format!("{nanoseconds:X}")));
    if let Some(state) = &change.state {
        if state.size > 0 {
            set("size", json!(state.size));
        }
        set("eTag", json!(state.etag));
        let kind = change.content_type.as_deref().unwrap_or_default();
        set("contentType", json!(kind));
        let meta = change.user_metadata.iter();
        let mut metadata: BTreeMap<String, &str> =
            meta.map(|(name, value)| (format!("X-Amz-Meta-{name}"), value.as_str())).collect();
        metadata.insert("content-type".to_owned(), kind);
        set("userMetadata", json!(metadata));
    }
    let principal = json!({ "principalId": change.principal });
    json!({
        "EventName": change.event,
        "Key": format!("{bucket}/{key}"),
        "Records": [{
            "eventVersion": "2.0",
            "eventSource": "minio:s3",
            "awsRegion": "",
            "eventTime": format!("{time:.3}"),
            "eventName": change.event,
            "userIdentity": principal,
            "requestParameters": {
                "principalId": change.principal, "region": "", "sourceIPAddress": "127.0.0.1",
            },
            "responseElements": {
                "x-amz-id-2": "evermirror-demo",
                "x-amz-request-id": format!("{:X}", nanoseconds + i128::from(number % 1_000_000)),
                "x-minio-deployment-id": "00000000-0000-0000-0000-000000000000",
                "x-minio-origin-endpoint": origin,
            },
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "Config",
                "bucket": {
                    "name": &**bucket,
                    "ownerIdentity": principal,
                    "arn": format!("arn:aws:s3:::{bucket}"),
                },
                "object": object,
            },
            "source": { "host": "127.0.0.1", "port": "", "userAgent": change.user_agent },
        }],
    })
}

/// Go's `url.QueryEscape`, which differs from a browser's form in two characters.
fn query_escape(key: &str) -> String {
    let form: String = form_urlencoded::byte_serialize(key.as_bytes()).collect();
    form.replace("%7E", "~").replace('*', "%2A")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, size: u64) -> Change {
        let etag = "9dd4e461268c8034f5c8564e155c67a6".to_owned();
        Change {
            key: ObjectKey::new("bkt1", key),
            event: "s3:ObjectCreated:Put",
            at_ms: 1_795_434_695_290,
            state: Some(State { etag, tags: BTreeMap::new(), size }),
            content_type: Some("text/plain".to_owned()),
            user_metadata: BTreeMap::from([("Foo".to_owned(), "bar".to_owned())]),
            principal: "testadmin".to_owned(),
            user_agent: "Boto3".to_owned(),
        }
    }

    /// The pairs were captured from a real MinIO, or follow from Go's `url.QueryEscape`.
    #[test]
    fn hostile_keys_are_encoded_as_minio_does() {
        for (key, encoded) in [
            ("dir a/réd +flower%20.txt", "dir+a%2Fr%C3%A9d+%2Bflower%2520.txt"),
            ("a//b/../c", "a%2F%2Fb%2F..%2Fc"),
            ("x&y=z?#", "x%26y%3Dz%3F%23"),
            ("\u{1}\n\u{7f}", "%01%0A%7F"),
            ("dir/~*%7E", "dir%2F~%2A%257E"),
            ("漢\"\\", "%E6%BC%A2%22%5C"),
        ] {
            let value = envelope(&change(key, 1), 1, "http://127.0.0.1:1");
            let parsed: Value = serde_json::from_str(&value.to_string()).unwrap();
            assert_eq!(parsed["Key"], format!("bkt1/{key}"));
            assert_eq!(parsed["Records"][0]["s3"]["object"]["key"], encoded);
        }
    }

    #[tokio::test]
    async fn a_refused_notification_is_sent_again_before_the_next_one() {
        let (seen, mut posts) = mpsc::channel(16);
        let hook = move |headers: http::HeaderMap, body: String| {
            let seen = seen.clone();
            async move {
                assert_eq!(headers["authorization"], "Bearer secret");
                let key = serde_json::from_str::<Value>(&body).unwrap()["Key"].to_string();
                seen.send(key).await.unwrap();
                let refuse = seen.capacity() == seen.max_capacity() - 1;
                if refuse { http::StatusCode::SERVICE_UNAVAILABLE } else { http::StatusCode::OK }
            }
        };
        let app = axum::Router::new().route("/events", axum::routing::post(hook));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let server = tokio::spawn(axum::serve(listener, app).into_future());
        let (queue, waiting) = mpsc::channel(4);
        for key in ["first", "second"] {
            queue.send(change(key, 1)).await.unwrap();
        }
        drop(queue);
        deliver(Webhook { url, token: "secret".to_owned(), origin: String::new() }, waiting).await;
        server.abort();
        let mut keys = Vec::new();
        while let Ok(key) = posts.try_recv() {
            keys.push(key);
        }
        assert_eq!(keys, ["\"bkt1/first\"", "\"bkt1/first\"", "\"bkt1/second\""]);
    }

    #[test]
    fn the_envelope_has_the_fields_of_a_captured_one() {
        let value = envelope(&change("k", 1), 7, "http://127.0.0.1:19731");
        let record = &value["Records"][0];
        assert_eq!(value["EventName"], "s3:ObjectCreated:Put");
        assert_eq!(record["eventSource"], "minio:s3");
        assert_eq!(record["eventTime"], "2026-11-23T11:51:35.290Z");
        assert_eq!(record["s3"]["object"]["size"], 1);
        assert_eq!(record["s3"]["object"]["userMetadata"]["X-Amz-Meta-Foo"], "bar");
        assert_eq!(record["s3"]["object"]["sequencer"].as_str().unwrap().len(), 16);
        assert_eq!(record["responseElements"]["x-amz-request-id"].as_str().unwrap().len(), 16);
    }

    #[test]
    fn an_empty_object_has_no_size_and_a_delete_has_only_key_and_sequencer() {
        let empty = envelope(&change("k", 0), 1, "");
        assert!(empty["Records"][0]["s3"]["object"].get("size").is_none());
        let deleted = envelope(&Change { state: None, ..change("k", 0) }, 1, "");
        let object = deleted["Records"][0]["s3"]["object"].as_object().unwrap();
        assert_eq!(object.keys().map(String::as_str).collect::<Vec<_>>(), ["key", "sequencer"]);
    }
}
