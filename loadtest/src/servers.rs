//! Real MinIO servers, each on one drive in the run's directory.

use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use evermirror::config::settings::StoreSettings;
use evermirror::store::{Side, Store};
use serde_json::json;

use crate::http;
use crate::process::Process;

/// The access key of every server here.
pub(crate) const ACCESS_KEY: &str = "loadtest";
/// Its secret key.
pub(crate) const SECRET_KEY: &str = "loadtest-secret";
/// The token that comes with every notification.
pub(crate) const TOKEN: &str = "loadtest-token";
/// The webhook by which evermirror hears of the source.
pub(crate) const LIVE: &str = "LIVE";
/// The webhook by which the stop-watch hears of both sides.
pub(crate) const SEEN: &str = "SEEN";
/// A name and an address.
pub(crate) type Webhook = (&'static str, String);

/// A server that can be stopped and started again with its port and its data.
#[derive(Debug)]
pub(crate) struct Minio {
    pub(crate) port: u16,
    dir: PathBuf,
    webhooks: Vec<Webhook>,
    process: Option<Process>,
}

impl Minio {
    /// Starts a server in `dir` that knows these webhooks, without a queue: in milliseconds.
    pub(crate) async fn start(dir: PathBuf, webhooks: Vec<Webhook>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let mut server = Self { port: free_port()?, dir, webhooks, process: None };
        server.start_again().await?;
        Ok(server)
    }

    /// Kills it.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it and waits until objects can be written.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(peer("minio-listen")?);
        command
            .args(["server", "--quiet", "--address", &format!("127.0.0.1:{}", self.port)])
            .arg(self.dir.join("data"))
            .env("MINIO_ROOT_USER", ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
            .envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off")]);
        for (name, url) in &self.webhooks {
            command
                .env(format!("MINIO_NOTIFY_WEBHOOK_ENABLE_{name}"), "on")
                .env(format!("MINIO_NOTIFY_WEBHOOK_ENDPOINT_{name}"), url)
                .env(format!("MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_{name}"), TOKEN);
        }
        let process = Process::start(&mut command, &self.dir.join("log"))?;
        until("MinIO serves", || async {
            if !process.is_running()? {
                bail!("MinIO ended: {}", process.last_words());
            }
            let health = http::get(self.port, "/minio/health/cluster").await;
            Ok(health.is_ok_and(|(status, _)| status.is_success()))
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Copies a bucket's files from another server. Both have the bucket, and this one is stopped.
    pub(crate) async fn take_files(&self, from: &Self, bucket: &str) -> anyhow::Result<()> {
        let [from, to] = [from, self].map(|server| server.dir.join("data").join(bucket));
        let mut command = Command::new("cp");
        command.arg("-a").arg(from.join(".")).arg(to);
        Process::start(&mut command, &self.dir.join("log"))?.finished().await.map(drop)
    }

    /// The file in which this server keeps a small object: all of it, but for its name.
    pub(crate) fn object_file(&self, bucket: &str, key: &str) -> PathBuf {
        self.dir.join("data").join(bucket).join(key).join("xl.meta")
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// evermirror's own S3 client of it.
    pub(crate) async fn store(&self) -> anyhow::Result<Store> {
        let settings: StoreSettings = serde_json::from_value(json!({
            "endpoint": self.endpoint(),
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
        }))?;
        Ok(Store::connect(Side::Source, &settings, Duration::from_secs(30)).await?)
    }
}

/// Looks every few milliseconds until `done` says true; a minute at most.
pub(crate) async fn until<F>(what: &str, mut done: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    let begun = Instant::now();
    while !done().await? {
        if begun.elapsed() > Duration::from_mins(1) {
            bail!("waited a minute in vain until {what}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Where tests/peers/install puts everything.
pub(crate) fn peers_dir() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => Path::new(&std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(cache.join("evermirror-peers"))
}

/// A program that tests/peers/install put there.
pub(crate) fn peer(name: &str) -> anyhow::Result<PathBuf> {
    let path = peers_dir()?.join("bin").join(name);
    if !path.exists() {
        bail!(
            "{} is missing: run tests/peers/install minio-listen mc rclone elasticmq kafka",
            path.display()
        );
    }
    Ok(path)
}

/// Below the range from which the kernel gives ports to outgoing connections, so that a server that is
/// stopped finds its port free when it is started again.
const PORTS: Range<u16> = 10_000..32_000;

/// A port of 127.0.0.1 that nobody listens on now, and that is given away once.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let span = u32::from(PORTS.end - PORTS.start);
    // Each process begins at a place of its own.
    let home = std::process::id().wrapping_mul(97);
    for _ in 0..span {
        let offset = home.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % span;
        let port = PORTS.start + u16::try_from(offset)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free")
}
