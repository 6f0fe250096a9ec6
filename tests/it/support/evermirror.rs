//! The real binary, as an operator runs it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::eventually::{SOON, eventually};
use super::http;
use super::minio::{ACCESS_KEY, SECRET_KEY, TOKEN};
use super::one_shot::OneShot;
use super::ports::free_port;

/// What the configuration file says.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) source_endpoint: String,
    pub(crate) target_endpoint: String,
    /// Names at the source and at the target.
    pub(crate) bucket: (String, String),
    pub(crate) webhook_port: u16,
    /// Settings by environment, as `("REPLICATE__RETRY_MAX", "1s")`; and OpenTelemetry's variables.
    pub(crate) settings: Vec<(String, String)>,
}

impl Config {
    fn toml(&self, data_dir: &Path, web_port: u16) -> String {
        let (source, target) = &self.bucket;
        format!(
            r#"
data_dir = "{}"

[source]
endpoint = "{}"
access_key = "{ACCESS_KEY}"
secret_key = "{SECRET_KEY}"

[target]
endpoint = "{}"
access_key = "{ACCESS_KEY}"
secret_key = "{SECRET_KEY}"

[[buckets]]
source = "{source}"
target = "{target}"

[intake.webhook]
listen = "127.0.0.1:{}"
auth_token = "{TOKEN}"

[replicate]
retry_initial = "50ms"
retry_max = "2s"

[web]
listen = "127.0.0.1:{web_port}"
"#,
            data_dir.display(),
            self.source_endpoint,
            self.target_endpoint,
            self.webhook_port,
        )
    }
}

/// What it logs once it has taken notice of a signal.
pub(crate) const STOPPING: &str = "Stopping: work in flight is finished first";

/// Sends a signal, by its name without `SIG`.
pub(super) fn signal(child: &Child, name: &str) {
    let (signal, pid) = (format!("-{name}"), child.id().to_string());
    let sent = Command::new("kill").args([signal, pid]).status().expect("kill");
    assert!(sent.success());
}

/// OpenTelemetry's variables have names of their own.
fn variable(setting: &str) -> String {
    if setting.starts_with("OTEL_") { setting.to_owned() } else { format!("EVERMIRROR__{setting}") }
}

/// A run of the binary with a data directory that survives it. Dropping it kills it; if the test is
/// failing, its log is shown.
#[derive(Debug)]
pub(crate) struct Evermirror {
    settings: Vec<(String, String)>,
    kubeconfig: Option<PathBuf>,
    webhook_port: u16,
    web_port: u16,
    child: Option<Child>,
    directory: TempDir,
}

impl Evermirror {
    /// Writes the configuration and starts nothing.
    pub(crate) fn configure(config: Config) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let web_port = free_port();
        let toml = config.toml(&directory.path().join("data"), web_port);
        let Config { settings, webhook_port, .. } = config;
        let kubeconfig = None;
        let evermirror =
            Self { settings, kubeconfig, webhook_port, web_port, child: None, directory };
        fs::write(evermirror.file(), toml).expect("a file");
        evermirror
    }

    /// Another one with the same settings, also for the webhook's port, as two pods behind one Service
    /// have; its data and its web port are its own.
    pub(crate) fn twin(&self) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let web_port = free_port();
        let twin = Self {
            settings: self.settings.clone(),
            kubeconfig: self.kubeconfig.clone(),
            webhook_port: self.webhook_port,
            web_port,
            child: None,
            directory,
        };
        let toml = fs::read_to_string(self.file()).expect("it was written");
        let (ours, its) = (self.data_dir(), twin.data_dir());
        let toml = toml
            .replace(&ours.display().to_string(), &its.display().to_string())
            .replace(&format!("127.0.0.1:{}\"", self.web_port), &format!("127.0.0.1:{web_port}\""));
        fs::write(twin.file(), toml).expect("a file");
        twin
    }

    /// Changes a setting.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Takes away every setting that begins so.
    pub(crate) fn configure_nothing_of(&mut self, prefix: &str) {
        self.settings.retain(|(name, _)| !name.starts_with(prefix));
    }

    /// From now on it finds a Kubernetes cluster by this file.
    pub(crate) fn set_kubeconfig(&mut self, file: PathBuf) {
        self.kubeconfig = Some(file);
    }

    /// From now on there is no file, and these settings are all there are.
    pub(crate) fn configure_by_environment_alone(&mut self, settings: Vec<(String, String)>) {
        fs::remove_file(self.file()).expect("it was written");
        self.settings = settings;
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(&mut self) {
        self.spawn();
        let ready = self.web("/readyz");
        eventually("evermirror is ready", SOON, async || {
            let child = self.child.as_mut().expect("started");
            if let Some(status) = child.try_wait().expect("a child of ours") {
                panic!("evermirror ended with {status} before it was ready");
            }
            match http::get(&ready).await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                Err(error) => Err(error),
            }
        })
        .await;
    }

    /// Starts it without waiting for anything.
    pub(crate) fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_evermirror"));
        command.arg("run");
        if self.file().exists() {
            command.arg("--config").arg(self.file());
        }
        let child = command
            .envs(self.settings.iter().map(|(k, v)| (variable(k), v)))
            .envs(self.kubeconfig.iter().map(|file| ("KUBECONFIG", file)))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.child = Some(child);
    }

    /// A command that ends, with this configuration, not yet started: `sync`, `verify`, `restore`.
    pub(crate) fn process(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evermirror"));
        command.args(arguments).arg("--config").arg(self.file());
        command.envs(self.settings.iter().map(|(k, v)| (variable(k), v)));
        command.envs(self.kubeconfig.iter().map(|file| ("KUBECONFIG", file)));
        command.stdin(Stdio::null());
        command
    }

    /// Starts a command that ends.
    pub(crate) fn begin(&self, arguments: &[&str]) -> OneShot {
        OneShot::begin(self.process(arguments))
    }

    /// Runs a command that ends, to its end, and gives its status and its JSON answer.
    pub(crate) async fn once(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.command(&[arguments, &["--json"]].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr);
        let status = output.status.code().expect("it ends by itself");
        let answer = serde_json::from_slice(&output.stdout);
        (status, answer.unwrap_or_else(|error| panic!("{error}; status {status}: {said}")))
    }

    /// SIGKILL: no last words, no flush.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
    }

    /// SIGTERM, and how it ended.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Sends a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.as_ref().expect("it runs"), name);
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it was started");
        let status = eventually("evermirror ends", SOON, async || {
            child.try_wait().expect("a child of ours").ok_or("it still runs".to_owned())
        })
        .await;
        self.child = None;
        status
    }

    /// Runs another command of the same binary with the same configuration, to its end.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = self.process(arguments);
        let ended = tokio::task::spawn_blocking(move || command.output());
        ended.await.expect("it does not panic").expect("the binary starts")
    }

    /// Posts `body` to the webhook as MinIO would.
    pub(crate) async fn post(&self, body: impl Into<bytes::Bytes>) -> http::Answer {
        self.post_with(&[("authorization", &format!("Bearer {TOKEN}"))], body).await
    }

    /// Posts with these headers and no other token.
    pub(crate) async fn post_with(
        &self,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> http::Answer {
        let url = self.webhook("/events");
        let headers = [headers, &[("content-type", "application/json")]].concat();
        http::request(hyper::Method::POST, &url, &headers, body).await.unwrap()
    }

    /// `/api/v1/status`.
    pub(crate) async fn status(&self) -> Result<Value, String> {
        let answer = http::get(&self.web("/api/v1/status")).await?;
        serde_json::from_slice(&answer.body).map_err(|error| format!("{error}: {}", answer.text()))
    }

    /// One of the status's counts: `pending`, `in_flight`, `parked`, `held`.
    pub(crate) async fn count(&self, name: &str) -> Result<u64, String> {
        let status = self.status().await?;
        status["keys"][name].as_u64().ok_or_else(|| format!("no count {name:?} in {status}"))
    }

    /// Waits until one of the status's counts is this.
    pub(crate) async fn counts(&self, name: &str, wanted: u64, within: Duration) {
        eventually("the keys are counted", within, async || {
            let counted = self.count(name).await?;
            (counted == wanted).then_some(()).ok_or(format!("{counted} of {wanted} {name}"))
        })
        .await;
    }

    /// `Ok` when it has nothing left to do.
    pub(crate) async fn idle(&self) -> Result<(), String> {
        let status = self.status().await?;
        let busy = |name: &&str| status["keys"][*name] != 0;
        let busy: Vec<_> =
            ["pending", "in_flight", "parked", "held"].into_iter().filter(busy).collect();
        if busy.is_empty() { Ok(()) } else { Err(format!("{busy:?} are not zero: {status}")) }
    }

    /// Everything on `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        http::get(&self.web("/metrics")).await.unwrap().text()
    }

    /// One sample, as `name{label="value"}`; or by `name` alone the sum over its labels. `None` if there
    /// is none.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.metrics().await;
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.reduce(|a, b| a + b)
    }

    /// The most memory it ever had resident, in KiB, as the kernel counts it.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// All it wrote to stdout and stderr, over all its runs.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Where it keeps its state.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where its page, its metrics and its API are.
    pub(crate) fn web(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.web_port)
    }

    /// A path of the webhook's listener.
    pub(crate) fn webhook(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.webhook_port)
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("evermirror.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for Evermirror {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(200)..];
            eprintln!("--- the end of evermirror's log ---\n{}\n---", shown.join("\n"));
        }
    }
}
