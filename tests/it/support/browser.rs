//! Real Chromium, driven by ChromeDriver over the WebDriver protocol (W3C), as far as the tests need it.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually::{SOON, eventually};
use super::http;
use super::ports::free_port;
use super::process::{Process, peer};

/// Keys that have no character of their own, as WebDriver names them.
pub(crate) const TAB: char = '\u{e004}';
pub(crate) const ENTER: char = '\u{e007}';

/// Chromium makes connections of its own accord, which closed networks refuse one by one.
const ARGUMENTS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1100",
];

/// Whether the reader prefers a light or a dark page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

/// One window.
#[derive(Debug)]
pub(crate) struct Browser {
    session: String,
    _driver: Process,
    _directory: TempDir,
}

impl Browser {
    pub(crate) async fn start(scheme: Scheme) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let arguments = [format!("--port={port}")];
        let driver = Process::start(&peer("chromedriver"), &arguments, &[], directory.path());
        let root = format!("http://127.0.0.1:{port}");
        eventually("ChromeDriver serves", SOON, async || {
            let answer = http::get(&format!("{root}/status")).await?;
            answer.text().contains("\"ready\":true").then_some(()).ok_or(answer.text())
        })
        .await;
        // The values of Blink's own enumeration.
        let preferred = match scheme {
            Scheme::Dark => 0,
            Scheme::Light => 1,
        };
        let mut arguments: Vec<_> = ARGUMENTS.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", directory.path().join("profile").display()));
        arguments.push(format!("--blink-settings=preferredColorScheme={preferred}"));
        let options = json!({ "binary": peer("chromium"), "args": arguments });
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let made = call(Method::POST, &format!("{root}/session"), &wanted).await;
        let id = made["sessionId"].as_str().expect("a session");
        let session = format!("{root}/session/{id}");
        Self { session, _driver: driver, _directory: directory }
    }

    pub(crate) async fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url })).await;
    }

    /// The window is so many pixels wide from now on.
    pub(crate) async fn resize(&self, width: u32) {
        let metrics =
            json!({ "width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": false });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.post("goog/cdp/execute", &command).await;
    }

    /// Runs JavaScript in the page; what it returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// The text of the first element that matches, as a reader sees it.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.innerText ?? ''");
        self.run(&script).await.as_str().expect("text").to_owned()
    }

    /// Waits until the text of an element holds `part`.
    pub(crate) async fn shows(&self, selector: &str, part: &str) {
        eventually(&format!("{selector} shows {part:?}"), SOON, async || {
            let text = self.text(selector).await;
            if text.contains(part) { Ok(()) } else { Err(format!("it shows {text:?}")) }
        })
        .await;
    }

    /// Presses keys, one after the other, on whatever has the focus.
    pub(crate) async fn press(&self, keys: &str) {
        let presses: Vec<_> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let keyboard = json!([{ "type": "key", "id": "keyboard", "actions": presses }]);
        self.post("actions", &json!({ "actions": keyboard })).await;
    }

    /// Keeps a picture of the page, for people to look at, and says where it is.
    pub(crate) async fn keep_picture(&self, name: &str) -> PathBuf {
        let picture =
            call(Method::GET, &format!("{}/screenshot", self.session), &Value::Null).await;
        let png = STANDARD.decode(picture.as_str().expect("base64")).expect("base64");
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pictures");
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join(format!("{name}.png"));
        std::fs::write(&path, png).expect("a file");
        path
    }

    async fn post(&self, command: &str, body: &Value) -> Value {
        call(Method::POST, &format!("{}/{command}", self.session), body).await
    }
}

async fn call(method: Method, url: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let json = [("content-type", "application/json")];
    let answer = http::request(method, url, &json, body).await.unwrap();
    assert!(answer.status.is_success(), "{url}: {}", answer.text());
    let mut answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    answer["value"].take()
}
