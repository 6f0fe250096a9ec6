//! A real moto server: an S3 that sends its own notifications to queues, topics and EventBridge.

use tempfile::TempDir;

use super::eventually::{SOON, eventually};
use super::http;
use super::ports::free_port;
use super::process::{Process, peer};
use super::s3::S3;
use super::sqs::Sqs;

/// The server. It keeps everything in memory.
#[derive(Debug)]
pub(crate) struct Moto {
    port: u16,
    _process: Process,
    _directory: TempDir,
}

impl Moto {
    /// A server that lets everybody in.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server that asks for keys, and knows nobody.
    pub(crate) async fn locked() -> Self {
        Self::start_with(&[("INITIAL_NO_AUTH_ACTION_COUNT".to_owned(), "0".to_owned())]).await
    }

    async fn start_with(environment: &[(String, String)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let arguments = ["-H", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned);
        let process =
            Process::start(&peer("moto_server"), &arguments, environment, directory.path());
        let home = format!("http://127.0.0.1:{port}/moto-api/");
        eventually("moto serves", SOON, async || http::get(&home).await.map(drop)).await;
        Self { port, _process: process, _directory: directory }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client of its S3.
    pub(crate) fn s3(&self) -> S3 {
        S3::new(&self.endpoint())
    }

    /// A client of its SQS.
    pub(crate) fn sqs(&self) -> Sqs {
        Sqs::new(&self.endpoint())
    }

    /// A call of a service that we have no client of, in the protocol of forms (SNS).
    pub(crate) async fn form(&self, service: &str, fields: &[(&str, &str)]) -> String {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.call(service, ("content-type", "application/x-www-form-urlencoded"), None, body).await
    }

    /// The same in the protocol of JSON (EventBridge); `operation` as `AWSEvents.PutRule`.
    pub(crate) async fn json(&self, service: &str, operation: &str, body: &serde_json::Value) {
        let kind = ("content-type", "application/x-amz-json-1.1");
        self.call(service, kind, Some(("x-amz-target", operation)), body.to_string()).await;
    }

    /// moto finds the service by the scope of the signature, and believes any.
    async fn call(
        &self,
        service: &str,
        kind: (&str, &str),
        target: Option<(&str, &str)>,
        body: String,
    ) -> String {
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/{service}/aws4_request, \
             SignedHeaders=host, Signature=none"
        );
        let mut headers = vec![kind, ("authorization", &scope)];
        headers.extend(target);
        let answer = http::request(hyper::Method::POST, &self.endpoint(), &headers, body).await;
        let answer = answer.unwrap();
        assert!(answer.status.is_success(), "{service}: {} {}", answer.status, answer.text());
        answer.text()
    }
}
