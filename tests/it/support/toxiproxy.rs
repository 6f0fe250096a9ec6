//! A real Toxiproxy server: network faults between evermirror and a store.

use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually::{SOON, eventually};
use super::http;
use super::ports::free_port;
use super::process::{Process, peer};

/// One proxy in front of one store, on a server of its own.
#[derive(Debug)]
pub(crate) struct Toxiproxy {
    api: String,
    port: u16,
    _process: Process,
    _directory: TempDir,
}

impl Toxiproxy {
    /// Starts a proxy in front of `upstream` (`127.0.0.1:PORT`).
    pub(crate) async fn in_front_of(upstream: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (api_port, port) = (free_port(), free_port());
        let arguments = ["-host", "127.0.0.1", "-port", &api_port.to_string()].map(str::to_owned);
        let program = peer("toxiproxy-server");
        let process = Process::start(&program, &arguments, &[], directory.path());
        let api = format!("http://127.0.0.1:{api_port}");
        eventually("Toxiproxy serves", SOON, async || http::get(&format!("{api}/version")).await)
            .await;
        let proxy = Self { api, port, _process: process, _directory: directory };
        let listen = format!("127.0.0.1:{port}");
        let body = json!({"name": "store", "listen": listen, "upstream": upstream});
        proxy.call(Method::POST, "/proxies", &body).await;
        proxy
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Adds a toxic to every connection, open ones too. `stream` is `upstream` (towards the store) or
    /// `downstream`.
    pub(crate) async fn add(&self, kind: &str, stream: &str, attributes: Value) {
        let name = format!("{kind}-{stream}");
        let body = json!({
            "name": name, "type": kind, "stream": stream,
            "attributes": attributes,
        });
        self.call(Method::POST, "/proxies/store/toxics", &body).await;
    }

    /// Removes every toxic and lets connections through again.
    pub(crate) async fn heal(&self) {
        self.call(Method::POST, "/reset", &Value::Null).await;
    }

    /// Refuses connections, and cuts those that are open, until [`Toxiproxy::heal`].
    pub(crate) async fn cut(&self) {
        self.call(Method::POST, "/proxies/store", &json!({"enabled": false})).await;
    }

    async fn call(&self, method: Method, path: &str, body: &Value) {
        let url = format!("{}{path}", self.api);
        let json = [("content-type", "application/json")];
        let answer = http::request(method, &url, &json, body.to_string()).await.unwrap();
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text());
    }
}
