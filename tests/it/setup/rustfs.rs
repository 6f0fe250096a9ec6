//! `setup` and `doctor` with RustFS as the source, by the binary that `EVERMIRROR_RUSTFS` names.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::http;
use crate::support::minio::{ACCESS_KEY, SECRET_KEY, TOKEN};
use crate::support::ports::free_port;
use crate::support::process::{Process, peer};
use crate::support::s3::S3;
use crate::support::site::{Servers, Setup, Site};

/// A RustFS that may send to evermirror's webhook, or may not.
struct Rustfs {
    endpoint: String,
    // Before the directory, so that the server has ended when that goes.
    _process: Process,
    _directory: TempDir,
}

impl Rustfs {
    async fn start(webhook_port: u16, may_send: bool) -> Self {
        let named = std::env::var_os("EVERMIRROR_RUSTFS").map(PathBuf::from);
        let program = named.unwrap_or_else(|| peer("rustfs"));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let origin = format!("http://127.0.0.1:{webhook_port}");
        let address = format!("127.0.0.1:{}", free_port());
        let queue = directory.path().join("queue").display().to_string();
        let mut environment: Vec<(String, String)> = [
            ("ACCESS_KEY", ACCESS_KEY),
            ("SECRET_KEY", SECRET_KEY),
            ("ADDRESS", &*address),
            ("CONSOLE_ENABLE", "false"),
            ("NOTIFY_ENABLE", "true"),
            ("NOTIFY_WEBHOOK_QUEUE_DIR_EM", &*queue),
            ("NOTIFY_WEBHOOK_QUEUE_DIR_EMFAST", ""),
        ]
        .map(|(name, value)| (format!("RUSTFS_{name}"), value.to_owned()))
        .into();
        for id in ["EM", "EMFAST"] {
            let mut set = |name: &str, value: &str| {
                environment.push((format!("RUSTFS_NOTIFY_WEBHOOK_{name}_{id}"), value.to_owned()));
            };
            set("ENABLE", "on");
            set("ENDPOINT", &format!("{origin}/events"));
            set("AUTH_TOKEN", TOKEN);
        }
        if may_send {
            environment.push(("RUSTFS_OUTBOUND_ALLOW_ORIGINS".to_owned(), origin));
        }
        // It makes no directories.
        let data = directory.path().join("data");
        std::fs::create_dir(&data).expect("a directory");
        let arguments = ["server".to_owned(), data.display().to_string()];
        let process = Process::start(&program, &arguments, &environment, directory.path());
        let endpoint = format!("http://{address}");
        let health = format!("{endpoint}/health");
        eventually("RustFS serves", SOON, async || match http::get(&health).await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error),
        })
        .await;
        Self { endpoint, _process: process, _directory: directory }
    }
}

async fn site(bucket: &str, source: &Rustfs, webhook_port: u16) -> Site {
    let settings = vec![("INTAKE__WEBHOOK__LISTEN", format!("127.0.0.1:{webhook_port}"))];
    let source_endpoint = Some(source.endpoint.clone());
    let setup = Setup { source_endpoint, settings, ..Setup::default() };
    let mut site = Servers::shared().await.silent(bucket, setup).await;
    site.source = S3::new(&source.endpoint);
    eventually("RustFS makes a bucket", SOON, async || {
        let call = site.source.client.create_bucket().bucket(&site.bucket).send().await;
        call.map(drop).map_err(|error| format!("{error:?}"))
    })
    .await;
    site
}

fn says<'a>(report: &'a Value, text: &str) -> Option<&'a Value> {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["says"].as_str().unwrap().contains(text))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the RustFS that EVERMIRROR_RUSTFS names"]
async fn after_setup_objects_arrive_and_doctor_finds_all_well() {
    let port = free_port();
    let source = Rustfs::start(port, true).await;
    let mut site = site("rustfs-setup", &source, port).await;
    site.evermirror.start().await;
    // RustFS tries a target again every 5 s until it is there.
    eventually("both targets are found", LATER, async || {
        let (status, report) = site.evermirror.once(&["setup"]).await;
        let rules = report["buckets"][0]["kept"].as_array().map_or(0, Vec::len);
        if status == 0 && rules == 2 { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
    let (status, again) = site.evermirror.once(&["setup"]).await;
    assert_eq!((status, &again["buckets"][0]["added"]), (0, &serde_json::json!([])), "{again}");
    site.put("first", "object").await;
    site.converges(SOON).await;
    let (status, report) = site.evermirror.once(&["doctor", "--timeout", "1m"]).await;
    assert_eq!(status, 0, "{report:#}");
    assert!(says(&report, "a canary was on the target").is_some(), "{report:#}");
    assert!(says(&report, "its deletion was on the target").is_some(), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the RustFS that EVERMIRROR_RUSTFS names"]
async fn without_an_outbound_policy_the_variable_is_named() {
    let port = free_port();
    let source = Rustfs::start(port, false).await;
    let site = site("rustfs-policy", &source, port).await;
    let output = site.evermirror.command(&["setup"]).await;
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("RUSTFS_OUTBOUND_ALLOW_ORIGINS=http://127.0.0.1:{port}")),
        "{said}"
    );
    let (status, report) = site.evermirror.once(&["doctor", "--timeout", "3s"]).await;
    assert_eq!(status, 1, "{report:#}");
    let unheard = says(&report, "no event of a canary arrived").expect("the canary was not heard");
    assert!(unheard["advice"].as_str().unwrap().contains("RUSTFS_OUTBOUND_ALLOW_ORIGINS"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the RustFS that EVERMIRROR_RUSTFS names"]
async fn an_arn_in_capitals_is_refused() {
    let port = free_port();
    let source = Rustfs::start(port, true).await;
    let site = site("rustfs-capitals", &source, port).await;
    let output = site.evermirror.command(&["setup", "--arn", "arn:rustfs:sqs::EM:webhook"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("arn:rustfs:sqs::em:webhook"), "{said}");
}
