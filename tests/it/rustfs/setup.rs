//! `setup` and `doctor` with RustFS as the source.

use serde_json::Value;

use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::minio::Webhook;
use crate::support::ports::free_port;
use crate::support::rustfs::Rustfs;
use crate::support::site::{Servers, Setup, Site};

/// A RustFS with the two targets that `setup` looks for, which may send to evermirror, or may not.
async fn rustfs(webhook_port: u16, may_send: bool) -> Rustfs {
    let hook =
        |id: &str, queue| Webhook { id: id.to_owned(), port: webhook_port, queue, tls: false };
    let hooks = [hook("EM", true), hook("EMFAST", false)];
    let policy = ("RUSTFS_OUTBOUND_ALLOW_ORIGINS".to_owned(), hooks[0].origin());
    let variables = if may_send { vec![policy] } else { Vec::new() };
    Rustfs::start_with(&hooks, variables).await
}

async fn site(bucket: &str, source: &Rustfs, webhook_port: u16) -> Site {
    let settings = vec![("INTAKE__WEBHOOK__LISTEN", format!("127.0.0.1:{webhook_port}"))];
    let source_endpoint = Some(source.endpoint());
    let setup = Setup { source_endpoint, settings, ..Setup::default() };
    let mut site = Servers::shared().await.silent(bucket, setup).await;
    site.source = source.client();
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
async fn setup_once_and_objects_arrive() {
    let port = free_port();
    let source = rustfs(port, true).await;
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
async fn without_an_outbound_policy_is_told_what_to_set() {
    let port = free_port();
    let source = rustfs(port, false).await;
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
async fn setup_refuses_an_arn_in_capitals() {
    let port = free_port();
    let source = rustfs(port, true).await;
    let site = site("rustfs-capitals", &source, port).await;
    let output = site.evermirror.command(&["setup", "--arn", "arn:rustfs:sqs::EM:webhook"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("arn:rustfs:sqs::em:webhook"), "{said}");
}
