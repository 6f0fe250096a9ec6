//! A real ElasticMQ server: the semantics of SQS, without S3. It keeps its messages over a restart.

use std::fs;

use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::eventually::{SOON, eventually};
use super::http;
use super::ports::free_port;
use super::process::{Process, peer};
use super::sqs::Sqs;

/// A server that can be stopped and started again with its port and its messages.
#[derive(Debug)]
pub(crate) struct ElasticMq {
    port: u16,
    process: Option<Process>,
    directory: TempDir,
}

impl ElasticMq {
    /// The one that all tests share which do not stop it. Every test has queues of its own.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<ElasticMq> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// One for one test.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self { port: free_port(), process: None, directory };
        server.start_again().await;
        server
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Sqs {
        Sqs::new(&format!("http://{}", self.authority()))
    }

    /// Kills it.
    pub(crate) fn stop(&mut self) {
        self.process.take().expect("it runs").end();
    }

    /// Starts it, as it was, and waits until it serves.
    pub(crate) async fn start_again(&mut self) {
        let room = self.directory.path();
        let (port, messages) = (self.port, room.join("messages").display().to_string());
        // Without the delay of H2's writes, a message that was acknowledged survives a kill.
        let configuration = format!(
            "include classpath(\"application.conf\")\n\
             node-address {{ protocol = http, host = \"127.0.0.1\", port = {port} }}\n\
             rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = \"127.0.0.1\" }}\n\
             rest-stats {{ enabled = false }}\n\
             messages-storage {{ enabled = true, uri = \"jdbc:h2:{messages};WRITE_DELAY=0\" }}\n"
        );
        let file = room.join("elasticmq.conf");
        fs::write(&file, configuration).expect("a file");
        let options = format!("-Xmx256m -Dconfig.file={}", file.display());
        let process = Process::start(
            &peer("elasticmq"),
            &["org.elasticmq.server.Main".to_owned()],
            &[("JAVA_OPTS".to_owned(), options)],
            room,
        );
        let health = format!("http://{}/health", self.authority());
        eventually("ElasticMQ serves", SOON, async || {
            assert!(process.is_running(), "ElasticMQ ended. Its log: {}", self.log());
            http::get(&health).await.map(drop)
        })
        .await;
        self.process = Some(process);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}
