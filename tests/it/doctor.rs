//! `evermirror doctor`, against real stores.

use serde_json::Value;

use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::mc::{USER_SECRET, user};
use crate::support::ports::free_port;
use crate::support::site::{Servers, Setup, Site};

async fn doctor(site: &Site, arguments: &[&str]) -> (i32, Value) {
    site.evermirror.once(&[&["doctor"], arguments].concat()).await
}

/// The check that says this; its level.
fn level<'a>(report: &'a Value, says: &str) -> Option<&'a str> {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["says"].as_str().unwrap().contains(says))?;
    check["level"].as_str()
}

async fn is_empty(site: &Site) -> bool {
    let source = site.source.list(&site.bucket).await.unwrap();
    source.is_empty() && site.target.list(&site.target_bucket).await.unwrap().is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_running_evermirror_doctor_sees_a_canary_come_and_go() {
    let site = Site::shared("doctor-well").await;
    let (status, report) = doctor(&site, &["--timeout", "1m"]).await;
    assert_eq!(status, 0, "{report:#}");
    for says in [
        "may list and read",
        "upload in parts, abort, delete",
        "clock agrees",
        "is running",
        "a canary was on the target",
        "its deletion was on the target",
    ] {
        assert_eq!(level(&report, says), Some("ok"), "{says}: {report:#}");
    }
    assert_eq!(level(&report, "no target has a queue"), Some("warning"), "{report:#}");
    assert_eq!(level(&report, "LifecycleDelMarker"), Some("warning"), "{report:#}");
    assert!(is_empty(&site).await, "doctor leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_process_doctor_hears_the_event_and_sees_whether_there_is_a_queue() {
    let servers = Servers::shared().await;
    for (bucket, queue, says, found) in [
        ("doctor-queue", true, "that was refused came again", "ok"),
        ("doctor-no-queue", false, "no target has a queue", "warning"),
    ] {
        let site = servers.prepare(bucket, Setup { queue, ..Setup::default() }).await;
        let (status, report) = doctor(&site, &["--timeout", "1m"]).await;
        assert_eq!(status, 0, "{report:#}");
        assert_eq!(level(&report, "no evermirror is running"), Some("warning"), "{report:#}");
        assert_eq!(level(&report, "the event of a canary arrived"), Some("ok"), "{report:#}");
        assert_eq!(level(&report, says), Some(found), "{report:#}");
        assert!(site.source.list(bucket).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_doctor_hears_of_other_objects_is_left_for_evermirror() {
    let setup = Setup { queue: true, ..Setup::default() };
    let mut site = Servers::shared().await.prepare("doctor-others", setup).await;
    site.put("waiting", "in the queue").await;
    let (_, report) = doctor(&site, &["--timeout", "10s"]).await;
    assert!(level(&report, "wait in the source's queue").is_some(), "{report:#}");
    site.evermirror.start().await;
    site.converges(LATER).await;
    // The reconcile at the start may have been faster than the queue.
    eventually("the event comes again", LATER, async || {
        let accepted = "evermirror_intake_events_total{outcome=\"accepted\"}";
        let told = site.evermirror.metric(accepted).await;
        if told.is_some_and(|told| told >= 1.0) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_told_and_never_shown() {
    let settings = vec![("INTAKE__WEBHOOK__AUTH_TOKEN", "not-the-sources-token".to_owned())];
    let setup = Setup { settings, ..Setup::default() };
    let site = Servers::shared().await.site("doctor-token", setup).await;
    let (status, report) = doctor(&site, &["--timeout", "2s"]).await;
    assert_eq!(status, 1, "{report:#}");
    assert_eq!(level(&report, "does not send the token"), Some("problem"), "{report:#}");
    assert_eq!(level(&report, "carry a wrong token"), Some("problem"), "{report:#}");
    let text = report.to_string();
    assert!(!text.contains("not-the-sources-token"), "{text}");
    assert!(!text.contains(crate::support::minio::TOKEN), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_tells_of_nothing_is_a_problem() {
    let mut site = Servers::shared().await.silent("doctor-silent", Setup::default()).await;
    site.evermirror.start().await;
    let (status, report) = doctor(&site, &["--timeout", "1s"]).await;
    assert_eq!(status, 1, "{report:#}");
    assert_eq!(level(&report, "no notification is configured"), Some("problem"), "{report:#}");
    assert_eq!(level(&report, "no notification has arrived"), Some("problem"), "{report:#}");
    assert!(is_empty(&site).await, "doctor leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bucket_on_both_sides_is_a_problem_and_the_same_store_a_warning() {
    let servers = Servers::shared().await;
    // Another name of the same machine: only a request shows that it is the same store.
    let target_endpoint = Some(servers.source.endpoint().replace("127.0.0.1", "localhost"));
    let setup = Setup { target_endpoint, ..Setup::default() };
    let site = servers.silent("doctor-same", setup).await;
    site.source.create_bucket(&site.target_bucket).await;
    let (_, report) = doctor(&site, &["--no-canary"]).await;
    assert_eq!(level(&report, "buckets of the same store"), Some("warning"), "{report:#}");
    let mut command = site.evermirror.process(&["doctor", "--no-canary", "--json"]);
    command.env("EVERMIRROR__BUCKETS", &site.bucket);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(level(&report, "the same bucket of the same store"), Some("problem"), "{report:#}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_told_and_the_other_is_looked_at() {
    let servers = Servers::shared().await;
    let target_endpoint = Some(format!("http://127.0.0.1:{}", free_port()));
    let setup = Setup { target_endpoint, ..Setup::default() };
    let site = servers.silent("doctor-down", setup).await;
    let (status, report) = doctor(&site, &["--no-canary"]).await;
    assert_eq!(status, 1);
    assert_eq!(level(&report, "TCP to 127.0.0.1"), Some("problem"), "{report:#}");
    assert_eq!(level(&report, "may list and read"), Some("ok"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_it_could_not_see_with_the_least_of_rights() {
    let servers = Servers::shared().await;
    let settings = vec![
        ("SOURCE__ACCESS_KEY", "doctor-source".to_owned()),
        ("SOURCE__SECRET_KEY", USER_SECRET.to_owned()),
        ("TARGET__ACCESS_KEY", "doctor-target".to_owned()),
        ("TARGET__SECRET_KEY", USER_SECRET.to_owned()),
    ];
    let mut site = servers.prepare("doctor-least", Setup { settings, ..Setup::default() }).await;
    for (side, server) in [("source", &servers.source), ("target", &servers.target)] {
        let policy = site.evermirror.command(&["policy", side, "--for", "run"]).await;
        let name = format!("doctor-{side}");
        user(&server.authority(), &name, &serde_json::from_slice(&policy.stdout).unwrap());
    }
    site.evermirror.start().await;
    let (status, report) = doctor(&site, &[]).await;
    assert_eq!(status, 0, "what run does not need is no problem: {report:#}");
    assert_eq!(
        level(&report, "the way of an event cannot be tried"),
        Some("warning"),
        "{report:#}"
    );
    site.converges(SOON).await;
}
