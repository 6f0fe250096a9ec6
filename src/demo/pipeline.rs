//! The real pipeline: this very program, as a child process, with a configuration file.
//!
//! A child, so that the kill in the middle is a real `SIGKILL` and the restart a real restart. Its log
//! goes to a file in the data directory; when it dies unasked, the last lines of that file are part of
//! the error. Dropping a [`Pipeline`] kills the child.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::store::{EmbeddedStore, REGION};

/// How long a start may take.
const START: Duration = Duration::from_secs(30);
/// How long a child that was asked to stop may take.
const STOP: Duration = Duration::from_secs(5);
/// The wait between two looks at the child.
const POLL: Duration = Duration::from_millis(20);
/// How many lines of the child's log an error shows.
const LOG_LINES: usize = 15;

/// The child and how to start it again.
#[derive(Debug)]
pub(super) struct Pipeline {
    config: PathBuf,
    log: PathBuf,
    /// `http://127.0.0.1:port/events`.
    pub webhook: String,
    /// `http://127.0.0.1:port`.
    pub web: String,
    pub token: String,
    child: Option<Child>,
}

impl Pipeline {
    /// Chooses free ports and writes the configuration under `dir`; nothing runs yet.
    pub(super) fn prepare(
        dir: &Path,
        source: &EmbeddedStore,
        target: &EmbeddedStore,
        bucket: &str,
    ) -> anyhow::Result<Self> {
        let (webhook, web) = free_addresses().context("failed to find free ports")?;
        let token = format!("{:032x}", rand::random::<u128>());
        let store = |s: &EmbeddedStore| {
            format!(
                "endpoint = {:?}\nregion = {REGION:?}\naccess_key = {:?}\nsecret_key = {:?}\n",
                s.endpoint, s.access_key, s.secret_key
            )
        };
        let text = format!(
            "data_dir = {}\n\n[source]\n{}\n[target]\n{}\n[[buckets]]\nsource = {bucket:?}\nmay_be_empty = true\n\n\
             [intake.webhook]\nlisten = \"{webhook}\"\nauth_token = {token:?}\n\n\
             [web]\nlisten = \"{web}\"\n",
            quoted(&dir.join("evermirror"))?,
            store(source),
            store(target),
        );
        let config = dir.join("evermirror.toml");
        fs::write(&config, text)
            .with_context(|| format!("failed to write the configuration {}", config.display()))?;
        let (webhook, web) = (format!("http://{webhook}/events"), format!("http://{web}"));
        let log = dir.join("evermirror.log");
        Ok(Self { config, log, webhook, web, token, child: None })
    }

    /// Starts the child and waits until it is ready.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("failed to find this program's own file")?;
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("failed to open {}", self.log.display()))?;
        let mut command = Command::new(&program);
        command.arg("run").arg("--config").arg(&self.config);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("failed to start the pipeline {}", program.display()))?;
        self.child = Some(child);
        self.ready().await
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let url: http::Uri = format!("{}/readyz", self.web).parse()?;
        let deadline = Instant::now() + START;
        loop {
            self.check()?;
            if client.get(url.clone()).await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let tail = tail(&self.log);
                bail!(
                    "the pipeline was not ready after {} s; its log ends:\n{tail}",
                    START.as_secs()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Fails if the child has ended by itself.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.child = None;
            bail!("the pipeline died ({status}); its log ends:\n{}", tail(&self.log));
        }
        Ok(())
    }

    /// The last lines of the child's log.
    pub(super) fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// `SIGKILL`, without any warning.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("failed to kill the pipeline")?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends the child. One that got the terminal's Ctrl-C too is given a little time to stop by itself;
    /// then it is killed, and loses nothing by it.
    pub(super) async fn finish(&mut self, interrupted: bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + if interrupted { STOP } else { Duration::ZERO };
        while let Some(child) = &mut self.child {
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                return self.kill();
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(%error, "The pipeline could not be killed and may still run.");
        }
    }
}

/// Two addresses on which nothing listens. Another program may take one before the child does; the
/// child's own error then says so.
fn free_addresses() -> std::io::Result<(SocketAddr, SocketAddr)> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (first, second) = (bind()?, bind()?);
    Ok((first.local_addr()?, second.local_addr()?))
}

/// A path as a TOML string; JSON's escapes are among TOML's.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path)?;
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(serde_json::to_string(text)?)
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = File::open(log).and_then(std::io::read_to_string).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
    format!("  | {}", last.join("\n  | "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::settings::Settings;
    use crate::demo::ledger::{Ledger, Side};
    use crate::demo::store::Watcher;

    #[tokio::test]
    async fn the_configuration_is_one_that_evermirror_reads() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a \"quoted\" näme");
        let ledger = Arc::new(Ledger::default());
        let watcher = Watcher { side: Side::Target, ledger, notifier: None };
        let store = EmbeddedStore::start(&home, "someone", watcher).await.unwrap();
        let pipeline = Pipeline::prepare(&home, &store, &store, "demo").unwrap();
        let text = fs::read_to_string(&pipeline.config).unwrap();
        let settings: Settings = toml::from_str(&text).unwrap();
        assert_eq!(settings.data_dir, home.join("evermirror"));
        assert_eq!(settings.source.endpoint, store.endpoint);
        let webhook = settings.intake.webhook.unwrap();
        assert_eq!(pipeline.webhook, format!("http://{}{}", webhook.listen, webhook.path));
        assert_eq!(pipeline.web, format!("http://{}", settings.web.listen));
        assert!(webhook.auth_token.is_some());
    }

    #[test]
    fn an_error_shows_the_last_lines_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let lines: Vec<_> = (0..100).map(|n| format!("line {n}")).collect();
        fs::write(&log, lines.join("\n")).unwrap();
        let shown = tail(&log);
        assert_eq!(shown.lines().count(), LOG_LINES);
        assert!(shown.ends_with("line 99"), "{shown}");
    }
}
