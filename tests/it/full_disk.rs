//! No room for the journal: nothing is acknowledged that is not kept, and it mends itself.

use hyper::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::events;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::http;
use crate::support::minio::TOKEN;
use crate::support::site::{Servers, Setup, Site};
use crate::support::tiny_disk::TinyDisk;

/// Small segments, and a sender that is told at once.
fn settings() -> Vec<(&'static str, String)> {
    vec![
        ("JOURNAL__SEGMENT_SIZE", "1MiB".to_owned()),
        ("INTAKE__WEBHOOK__MAX_WAIT", "1s".to_owned()),
    ]
}

/// Long, so that the journal is soon full.
fn key(number: usize) -> String {
    format!("{}/{number}", "a directory".repeat(18))
}

/// A target that refuses everything, so that nothing is finished and the journal only grows.
async fn refusing_target(servers: &Servers) -> FaultProxy {
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|_, _| Some(Fault::Answer(503, "ServiceUnavailable")));
    proxy
}

/// Tells of objects that are there, again and again, until it is refused. All that was acknowledged is
/// so found at the target.
async fn post_until_refused(site: &Site) {
    let record =
        |number: usize| events::record("ObjectCreated:Put", &site.bucket, &key(number % 50));
    let body = events::body(&(0..500).map(record).collect::<Vec<_>>());
    for _ in 0..1000 {
        let answer = site.evermirror.post(body.clone()).await;
        let refused = answer.status == StatusCode::SERVICE_UNAVAILABLE;
        assert!(refused || answer.status == StatusCode::OK, "{}", answer.text());
        // A disk that is merely slow refuses, too.
        if refused && site.evermirror.status().await.unwrap()["journal"]["full"] == true {
            return;
        }
    }
    panic!("the journal takes more than it has room for");
}

/// One event, acknowledged or not.
async fn post_one(site: &Site, key: &str) -> StatusCode {
    let body = events::event("ObjectCreated:Put", &site.bucket, key);
    site.evermirror.post(body).await.status
}

/// Tells of an object until it is acknowledged.
async fn acknowledges_again(site: &Site, key: &str) {
    eventually("acknowledgements return", SOON, async || match post_one(site, key).await {
        StatusCode::OK => Ok(()),
        other => Err(format!("it answers {other}")),
    })
    .await;
}

/// The process is well, though nothing is acknowledged, and the bucket's gap is on record.
async fn refuses_and_says_so(site: &Site, reason: &str) {
    assert_eq!(post_one(site, &key(0)).await, StatusCode::SERVICE_UNAVAILABLE);
    let healthy = http::get(&site.evermirror.web("/healthz")).await.unwrap();
    assert_eq!(healthy.status, StatusCode::OK, "{}", healthy.text());
    let ready = http::get(&site.evermirror.web("/readyz")).await.unwrap();
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{}", ready.text());
    assert!(ready.text().contains("notifications are refused"), "{}", ready.text());
    let status = site.evermirror.status().await.unwrap();
    assert_eq!(status["journal"]["full"], true, "{status}");
    the_gap_is_recorded(site).await;
    let log = site.evermirror.log();
    let told = log.lines().any(|line| line.contains("ERROR") && line.contains(reason));
    assert!(told, "no error says {reason:?}: {log}");
}

/// Starts it again, while there is no room: it answers, and is not ready.
async fn starts_without_room(site: &mut Site) {
    site.evermirror.kill();
    site.evermirror.spawn();
    let healthy = site.evermirror.web("/healthz");
    eventually("evermirror answers", SOON, async || {
        let answer = http::get(&healthy).await?;
        answer.status.is_success().then_some(()).ok_or_else(|| answer.text())
    })
    .await;
}

async fn the_gap_is_recorded(site: &Site) {
    let status = site.evermirror.status().await.unwrap();
    let gaps = status["gaps"].as_array().unwrap();
    assert_eq!(gaps.len(), 1, "{status}");
    assert_eq!(gaps[0]["bucket"], *site.bucket, "{status}");
    assert_eq!(gaps[0]["reason"], "journal_full", "{status}");
}

/// What was refused was found by comparing both sides, so nothing is in doubt any more.
async fn a_reconcile_closes_the_gap(site: &Site) {
    eventually("a reconcile closes the gap", LATER, async || {
        let status = site.evermirror.status().await?;
        (status["gaps"] == serde_json::json!([])).then_some(()).ok_or(status.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_acknowledges_nothing_records_the_gap_and_mends_itself() {
    let servers = Servers::shared().await;
    let proxy = refusing_target(servers).await;
    let disk = TinyDisk::mount(32);
    let mut settings = settings();
    settings.push(("DATA_DIR", disk.path().join("data").display().to_string()));
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), settings, ..Setup::default() };
    let mut site = servers.site("full-disk", setup).await;
    for number in 0..50 {
        site.put(&key(number), format!("value {number}")).await;
    }
    disk.fill();
    post_until_refused(&site).await;
    refuses_and_says_so(&site, "the disk is full").await;
    let sync = site.evermirror.command(&["sync"]).await;
    let said = String::from_utf8_lossy(&sync.stderr);
    assert_eq!(sync.status.code(), Some(2), "{said}");
    assert!(said.contains("is full: free space there"), "{said}");
    assert_eq!(said.matches("No space left").count(), 1, "the cause is told once: {said}");

    // A start finds no room either, and still knows what it missed.
    starts_without_room(&mut site).await;
    the_gap_is_recorded(&site).await;
    refuses_and_says_so(&site, "the disk is full").await;

    disk.relieve();
    site.put("after the full disk", "value").await;
    acknowledges_again(&site, "after the full disk").await;
    proxy.behave();
    site.converges(LATER).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 51);
    a_reconcile_closes_the_gap(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_at_its_largest_size_acknowledges_nothing_until_the_backlog_shrinks() {
    let servers = Servers::shared().await;
    let proxy = refusing_target(servers).await;
    let mut settings = settings();
    settings.push(("JOURNAL__MAX_SIZE", "4MiB".to_owned()));
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), settings, ..Setup::default() };
    let mut site = servers.site("full-journal", setup).await;
    for number in 0..50 {
        site.put(&key(number), format!("value {number}")).await;
    }
    post_until_refused(&site).await;
    refuses_and_says_so(&site, "journal.max_size").await;
    starts_without_room(&mut site).await;
    refuses_and_says_so(&site, "journal.max_size").await;
    proxy.behave();
    site.put("after the backlog", "value").await;
    acknowledges_again(&site, "after the backlog").await;
    site.converges(LATER).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 51);
    a_reconcile_closes_the_gap(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_hangs_up_while_the_journal_is_full_leaves_a_gap() {
    let servers = Servers::shared().await;
    let proxy = refusing_target(servers).await;
    let mut settings = settings();
    settings.push(("JOURNAL__MAX_SIZE", "4MiB".to_owned()));
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), settings, ..Setup::default() };
    let site = servers.site("hangs-up", setup).await;
    let not_taken = "evermirror_gaps_total{reason=\"not_taken\"}";
    assert!(site.evermirror.metric(not_taken).await.is_none_or(|marked| marked < 1.0));
    let webhook: hyper::Uri = site.evermirror.webhook("/").parse().unwrap();
    let body = events::event("ObjectCreated:Put", &site.bucket, &key(0));
    let head = format!(
        "POST /events HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    eventually("the gap is recorded", SOON, async || {
        // It makes room by itself, and then this one is taken, too.
        post_until_refused(&site).await;
        let mut sender = TcpStream::connect(webhook.authority().unwrap().as_str()).await.unwrap();
        sender.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
        drop(sender);
        let marked = site.evermirror.metric(not_taken).await;
        marked.is_some_and(|marked| marked >= 1.0).then_some(()).ok_or(format!("{marked:?}"))
    })
    .await;
    let gaps = site.evermirror.status().await.unwrap()["gaps"].take();
    assert_eq!(gaps[0]["bucket"], "hangs-up", "{gaps}");
}
