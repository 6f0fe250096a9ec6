//! A real MinIO server on one drive in a temporary directory.

use std::fs;

use tempfile::TempDir;

use super::eventually::{SOON, eventually};
use super::http;
use super::ports::free_port;
use super::process::{Process, peer};
use super::s3::S3;
use super::tls;

/// The access key of every server in the tests.
pub(crate) const ACCESS_KEY: &str = "evermirror-tests";
/// Its secret key.
pub(crate) const SECRET_KEY: &str = "evermirror-tests-secret";
/// The token that MinIO sends with every notification.
pub(crate) const TOKEN: &str = "a-token-of-the-tests";

/// Where a source sends notifications.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    /// Names it in the ARN; upper-case letters and digits.
    pub(crate) id: String,
    /// Of 127.0.0.1.
    pub(crate) port: u16,
    /// With a queue directory: redelivered until acknowledged, but up to three seconds late. Without
    /// one: in milliseconds, once, and lost if refused.
    pub(crate) queue: bool,
    /// HTTPS, with the fixtures' client certificate.
    pub(crate) tls: bool,
}

impl Webhook {
    /// What a bucket's notification configuration calls it.
    pub(crate) fn arn(&self) -> String {
        format!("arn:minio:sqs::{}:webhook", self.id)
    }

    /// Scheme, host and port.
    pub(crate) fn origin(&self) -> String {
        let host = if self.tls { "https://localhost" } else { "http://127.0.0.1" };
        format!("{host}:{}", self.port)
    }
}

/// How a server differs from the usual one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Special {
    /// It serves HTTPS with the fixtures' certificate.
    pub(crate) tls: bool,
    /// The key of its built-in KMS, as `name:` and 32 bytes in base64.
    pub(crate) kms_key: Option<&'static str>,
    /// Further variables, as those of notification targets that are no webhooks.
    pub(crate) environment: Vec<(String, String)>,
}

/// A server that can be stopped and started again with its port and its data.
#[derive(Debug)]
pub(crate) struct Minio {
    port: u16,
    tls: bool,
    environment: Vec<(String, String)>,
    process: Option<Process>,
    directory: TempDir,
}

impl Minio {
    /// A server that notifies nobody.
    pub(crate) async fn target() -> Self {
        Self::start(&[], &Special::default()).await
    }

    /// A server with these notification targets.
    ///
    /// `MINIO_API_SYNC_EVENTS` makes a PUT return only once its notification was delivered (or, with a
    /// queue, written to the queue): without it MinIO may lose what a test waits for. The answer to a
    /// multipart completion or a delete still comes before its notification.
    pub(crate) async fn source(webhooks: &[Webhook]) -> Self {
        Self::start(webhooks, &Special::default()).await
    }

    /// A server with these notification targets that differs from the usual one.
    pub(crate) async fn start(webhooks: &[Webhook], special: &Special) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut environment = vec![
            ("MINIO_ROOT_USER".to_owned(), ACCESS_KEY.to_owned()),
            ("MINIO_ROOT_PASSWORD".to_owned(), SECRET_KEY.to_owned()),
            ("MINIO_BROWSER".to_owned(), "off".to_owned()),
            ("MINIO_UPDATE".to_owned(), "off".to_owned()),
            ("MINIO_API_SYNC_EVENTS".to_owned(), "on".to_owned()),
        ];
        environment.extend(special.kms_key.map(|key| ("MINIO_KMS_SECRET_KEY".into(), key.into())));
        environment.extend(special.environment.iter().cloned());
        let certificates = directory.path().join("certs");
        fs::create_dir_all(certificates.join("CAs")).expect("a directory");
        let mut files = vec![("authority.pem", "CAs/authority.crt")];
        if special.tls {
            files.extend([("server.pem", "public.crt"), ("server.key", "private.key")]);
        }
        for (from, to) in files {
            fs::copy(tls::fixture(from), certificates.join(to)).expect("a copy");
        }
        for hook in webhooks {
            let mut set = |name: &str, value: String| {
                environment.push((format!("MINIO_NOTIFY_WEBHOOK_{name}_{}", hook.id), value));
            };
            set("ENABLE", "on".to_owned());
            set("ENDPOINT", format!("{}/events", hook.origin()));
            if hook.tls {
                set("CLIENT_CERT", tls::fixture("client.pem").display().to_string());
                set("CLIENT_KEY", tls::fixture("client.key").display().to_string());
            }
            set("AUTH_TOKEN", TOKEN.to_owned());
            if hook.queue {
                set("QUEUE_DIR", directory.path().join("queue").display().to_string());
            }
        }
        let (port, tls) = (free_port(), special.tls);
        let mut server = Self { port, tls, environment, process: None, directory };
        // Another process may take the port between the look and the start.
        for _ in 0..5 {
            if server.try_start().await {
                return server;
            }
            server.port = free_port();
        }
        panic!("MinIO does not start. Its log: {}", server.log());
    }

    /// `http://127.0.0.1:PORT`, or `https://localhost:PORT`, as the certificate has it.
    pub(crate) fn endpoint(&self) -> String {
        let origin = if self.tls { "https://localhost" } else { "http://127.0.0.1" };
        format!("{origin}:{}", self.port)
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
        assert!(self.try_start().await, "MinIO does not start again. Its log: {}", self.log());
    }

    /// After a stop: destroys everything it held, and starts it again.
    pub(crate) async fn start_empty(&mut self) {
        let data = self.directory.path().join("data");
        // What was killed may still be writing in its last moment.
        eventually("its data is gone", SOON, async || match fs::remove_dir_all(&data) {
            Err(error) if data.exists() => Err(error.to_string()),
            Ok(()) | Err(_) => Ok(()),
        })
        .await;
        self.start_again().await;
    }

    /// False if it ended before it served.
    async fn try_start(&mut self) -> bool {
        let arguments = [
            "server".to_owned(),
            "--quiet".to_owned(),
            "--certs-dir".to_owned(),
            self.directory.path().join("certs").display().to_string(),
            "--address".to_owned(),
            self.authority(),
            self.directory.path().join("data").display().to_string(),
        ];
        let room = self.directory.path();
        let process = Process::start(&peer("minio"), &arguments, &self.environment, room);
        // Cluster health, not liveness: it is 200 only once objects can be written.
        let health = format!("{}/minio/health/cluster", self.endpoint());
        let serves = eventually("MinIO serves", SOON, async || {
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

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}
