//! A real Kubernetes API server with its etcd: what is asked of the API is answered as in any cluster.
//! No controller and no kubelet runs, so nothing else happens.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::eventually::{LATER, eventually};
use super::ports::free_port;
use super::process::{Process, peer};

/// Who asks, by token.
pub(crate) const ADMINISTRATOR: &str = "administrator";
/// A user who may do what a role allows and nothing else.
pub(crate) const EVERMIRROR: &str = "evermirror";

/// One API server.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    port: u16,
    directory: TempDir,
    servers: [(Process, TempDir); 2],
}

impl Kubernetes {
    /// The one that all tests share. Every test has a namespace of its own.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Kubernetes> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let room = || tempfile::tempdir().expect("a temporary directory");
        let (directory, etcd_room, server_room) = (room(), room(), room());
        let [client, etcd_peer, port] = [free_port(), free_port(), free_port()];
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let etcd = [
            format!("--data-dir={}", etcd_room.path().join("data").display()),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-peer-urls={}", url(etcd_peer)),
            format!("--listen-client-urls={}", url(client)),
            format!("--advertise-client-urls={}", url(client)),
        ];
        let etcd = Process::start(&peer("etcd"), &etcd, &[], etcd_room.path());
        let file = |name: &str| server_room.path().join(name).display().to_string();
        let made = Command::new("openssl")
            .args(["genrsa", "-out", &file("accounts.key"), "2048"])
            .output()
            .expect("openssl");
        assert!(made.status.success());
        let users = format!(
            "{ADMINISTRATOR},{ADMINISTRATOR},1,\"system:masters\"\n{EVERMIRROR},{EVERMIRROR},2\n"
        );
        fs::write(file("tokens.csv"), users).expect("a file");
        let server = [
            format!("--etcd-servers={}", url(client)),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", file("certificates")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://tests".to_owned(),
            format!("--service-account-key-file={}", file("accounts.key")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        ];
        let server = Process::start(&peer("kube-apiserver"), &server, &[], server_room.path());
        let kubernetes =
            Self { port, directory, servers: [(server, server_room), (etcd, etcd_room)] };
        eventually("the API server is ready", LATER, async || {
            let log = |(_, room): &(Process, TempDir)| {
                fs::read_to_string(room.path().join("log")).unwrap_or_default()
            };
            for (process, _) in &kubernetes.servers {
                assert!(process.is_running(), "{:?}", kubernetes.servers.each_ref().map(log));
            }
            let answer = kubernetes.kubectl(&["get", "--raw", "/readyz"]).await?;
            if answer == "ok" { Ok(()) } else { Err(answer) }
        })
        .await;
        kubernetes
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A kubeconfig of `user`, with this namespace, for the server at `endpoint` (`https://…`).
    pub(crate) fn kubeconfig(&self, endpoint: &str, user: &str, namespace: &str) -> PathBuf {
        let certificate = self.servers[0].1.path().join("certificates/apiserver.crt");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: tests\n\
             clusters: [{{name: tests, cluster: {{server: \"{endpoint}\", certificate-authority: \"{}\"}}}}]\n\
             users: [{{name: tests, user: {{token: {user}}}}}]\n\
             contexts: [{{name: tests, context: {{cluster: tests, user: tests, namespace: {namespace}}}}}]\n",
            certificate.display()
        );
        let name =
            format!("{namespace}-{user}-{}", endpoint.rsplit(':').next().unwrap_or_default());
        let path = self.directory.path().join(name);
        // Others may be reading it.
        let file = tempfile::NamedTempFile::new_in(self.directory.path()).expect("a file");
        fs::write(file.path(), text).expect("a file");
        file.persist(&path).expect("a file");
        path
    }

    /// The server itself, as `user` sees it.
    pub(crate) fn direct(&self, user: &str, namespace: &str) -> PathBuf {
        self.kubeconfig(&format!("https://{}", self.authority()), user, namespace)
    }

    /// What kubectl prints, as the administrator.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.kubectl_with(arguments, "").await
    }

    /// The same, with input.
    pub(crate) async fn kubectl_with(
        &self,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, String> {
        use tokio::io::AsyncWriteExt as _;
        let mut kubectl = tokio::process::Command::new(peer("kubectl"))
            .args(arguments)
            .env("KUBECONFIG", self.direct(ADMINISTRATOR, "default"))
            .env("HOME", self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/run has installed kubectl");
        let mut stdin = kubectl.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).await.map_err(|error| error.to_string())?;
        drop(stdin);
        let output = kubectl.wait_with_output().await.expect("kubectl ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Makes or changes objects.
    pub(crate) async fn apply(&self, objects: &Value) {
        let text = objects.to_string();
        self.kubectl_with(&["apply", "--server-side", "-f", "-"], &text)
            .await
            .expect("it is applied");
    }

    /// One object.
    pub(crate) async fn get(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat()).await?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// Makes a namespace.
    pub(crate) async fn namespace(&self, name: &str) {
        self.kubectl(&["create", "namespace", name]).await.expect("it is made");
    }
}
