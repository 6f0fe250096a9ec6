//! A real RustFS server on one drive in a temporary directory.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::eventually::{SOON, eventually};
use super::http;
use super::minio::{ACCESS_KEY, SECRET_KEY, TOKEN, Webhook};
use super::ports::free_port;
use super::process::{Process, peer};
use super::s3::S3;

/// Where the program is: `EVERMIRROR_RUSTFS`, or where tests/run puts it.
fn program() -> PathBuf {
    let program = std::env::var_os("EVERMIRROR_RUSTFS").map_or_else(|| peer("rustfs"), Into::into);
    assert!(
        program.exists(),
        "there is no RustFS at {}: run `tests/run --rustfs`, which builds it (over an hour), or name \
         a RustFS 1.0.1 in EVERMIRROR_RUSTFS, or leave these tests out by `-- --skip rustfs::`",
        program.display()
    );
    program
}

/// A server that can be stopped and started again with its port and its data.
#[derive(Debug)]
pub(crate) struct Rustfs {
    port: u16,
    environment: Vec<(String, String)>,
    process: Option<Process>,
    directory: TempDir,
}

impl Rustfs {
    /// A server with these notification targets, all of them active.
    pub(crate) async fn start(webhooks: &[Webhook]) -> Self {
        let allowed: Vec<_> = webhooks.iter().map(Webhook::origin).collect();
        let policy = ("RUSTFS_OUTBOUND_ALLOW_ORIGINS".to_owned(), allowed.join(","));
        // RustFS asks each target once whether it is there, and drops those that are not.
        let stand_in = StandIn::listen(webhooks).await;
        let server = Self::start_with(webhooks, vec![policy]).await;
        eventually("RustFS has asked for its targets", SOON, async || {
            let asked = stand_in.asked.load(Ordering::Relaxed);
            (asked >= webhooks.len()).then_some(()).ok_or(format!("for {asked}"))
        })
        .await;
        drop(stand_in);
        server
    }

    /// A server with these notification targets and these variables, and nobody to answer for the
    /// targets.
    pub(crate) async fn start_with(webhooks: &[Webhook], variables: Vec<(String, String)>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut environment: Vec<_> = [
            ("RUSTFS_ACCESS_KEY", ACCESS_KEY),
            ("RUSTFS_SECRET_KEY", SECRET_KEY),
            ("RUSTFS_CONSOLE_ENABLE", "false"),
            ("RUSTFS_NOTIFY_ENABLE", if webhooks.is_empty() { "false" } else { "true" }),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        environment.extend(variables);
        for hook in webhooks {
            let queue = directory.path().join("queue").display().to_string();
            let settings = [
                ("ENABLE", "on".to_owned()),
                ("ENDPOINT", format!("{}/events", hook.origin())),
                ("AUTH_TOKEN", TOKEN.to_owned()),
                ("QUEUE_DIR", if hook.queue { queue } else { String::new() }),
            ];
            environment.extend(
                settings.map(|(name, value)| {
                    (format!("RUSTFS_NOTIFY_WEBHOOK_{name}_{}", hook.id), value)
                }),
            );
        }
        let mut server = Self { port: free_port(), environment, process: None, directory };
        // Another process may take the port between the look and the start.
        for _ in 0..5 {
            if server.try_start().await {
                return server;
            }
            server.port = free_port();
        }
        panic!("RustFS does not start. Its log: {}", server.log());
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.authority())
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// An independent client of it.
    pub(crate) fn client(&self) -> S3 {
        S3::new(&self.endpoint())
    }

    /// Kills it.
    pub(crate) fn stop(&mut self) {
        self.process.take().expect("it runs").end();
    }

    /// Starts it again, as it was, and waits until it serves.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.try_start().await, "RustFS does not start again. Its log: {}", self.log());
    }

    /// After a stop: destroys everything it held, and starts it again.
    pub(crate) async fn start_empty(&mut self) {
        let data = self.directory.path().join("data");
        fs::remove_dir_all(&data).expect("its data");
        self.start_again().await;
    }

    /// Everything it wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// False if it ended before it served.
    async fn try_start(&mut self) -> bool {
        let data = self.directory.path().join("data");
        fs::create_dir_all(&data).expect("a directory");
        let arguments = ["server".to_owned(), data.display().to_string()];
        let mut environment = self.environment.clone();
        environment.push(("RUSTFS_ADDRESS".to_owned(), self.authority()));
        let process = Process::start(&program(), &arguments, &environment, self.directory.path());
        let health = format!("{}/health/ready", self.endpoint());
        let serves = eventually("RustFS serves", SOON, async || {
            if !process.is_running() {
                return Ok(false);
            }
            match http::get(&health).await {
                Ok(answer) if answer.status.is_success() => Ok(true),
                Ok(answer) => Err(format!("{health} answers {}", answer.status)),
                Err(error) => Err(error),
            }
        })
        .await;
        if serves {
            self.process = Some(process);
        } else {
            process.end();
        }
        serves
    }
}

/// Answers RustFS's probes on the ports of webhooks until it is dropped.
#[derive(Debug)]
struct StandIn {
    asked: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl StandIn {
    async fn listen(webhooks: &[Webhook]) -> Self {
        let stand_in = Self { asked: Arc::default(), stop: CancellationToken::new() };
        let mut ports: Vec<_> = webhooks.iter().map(|hook| hook.port).collect();
        ports.dedup();
        for port in ports {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a port");
            let (asked, stop) = (Arc::clone(&stand_in.asked), stand_in.stop.clone());
            tokio::spawn(stop.run_until_cancelled_owned(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut request = [0; 1024];
                    if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                        let answer =
                            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                        drop(stream.write_all(answer.as_bytes()).await);
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        stand_in
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
