//! Between the start of a restore and its end with everything there, an object may be nowhere but at the
//! target: nothing is deleted there.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::server::{Pair, on_every_pair};
use crate::support::site::{Setup, Site};

const REASON: &str = "a restore into this bucket is not finished";

/// Where it is written down that a restore is not finished.
fn state(site: &Site) -> PathBuf {
    site.evermirror.data_dir().join("restore/progress.json")
}

/// Waits until as many deletes are held, because of the restore.
async fn held(site: &Site, wanted: usize) {
    site.evermirror.counts("held", wanted as u64, SOON).await;
    let list = site.evermirror.command(&["deletes", "list", "--json"]).await;
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(
        (&list["held"][0]["bucket"], &list["held"][0]["count"]),
        (&json!(site.bucket), &json!(wanted))
    );
    let reason = list["held"][0]["reason"].as_str().unwrap();
    assert!(reason.contains(REASON) && reason.contains("restore/progress.json"), "{reason}");
}

/// Keys of the target, sorted.
async fn kept(site: &Site) -> Vec<String> {
    site.target.list(&site.target_bucket).await.unwrap().into_keys().collect()
}

on_every_pair![
    nothing_that_a_killed_restore_has_not_brought_back_is_deleted,
    what_a_restore_left_out_is_deleted_only_when_a_person_approves,
];

async fn nothing_that_a_killed_restore_has_not_brought_back_is_deleted(pair: Pair) {
    let mut servers = pair.own().await;
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    let setup = Setup { source_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let mut site = servers.site("half-restored", setup).await;
    let keys: Vec<_> = (0..60).map(|n| format!("k/{n:02}")).collect();
    join_all(keys.iter().map(|key| site.put(key, key.as_str()))).await;
    site.converges(LATER).await;
    site.evermirror.terminate().await;
    servers.source.lose_everything().await;

    // The last ten of 60 do not come through: so few that no other brake would hold their deletes.
    proxy.misbehave(|method, uri| {
        let last = method == Method::PUT && uri.path().contains("/k/5");
        last.then_some(Fault::Wait(Duration::from_mins(10)))
    });
    let unfinished = site.evermirror.begin(&["restore"]);
    eventually("all others are back", SOON, async || {
        let count = site.source.list(&site.bucket).await?.len();
        (count == 50).then_some(()).ok_or(format!("{count} objects"))
    })
    .await;
    let (status, report) = site.evermirror.once(&["restore"]).await;
    unfinished.kill();
    assert_eq!((status, &report["outcome"]), (2, &json!("failed")), "two at once: {report}");
    assert!(report["errors"][0].as_str().unwrap().contains("another restore works"), "{report}");
    proxy.behave();

    site.evermirror.start().await;
    held(&site, 10).await;
    site.walked().await;
    assert_eq!(kept(&site).await, keys);
    let log = site.evermirror.log();
    assert!(log.contains("A restore into the source is not finished"), "{log}");
    for (arguments, status) in [(&["sync", "--dry-run"][..], 0), (&["sync"], 1)] {
        let (ended, answer) = site.evermirror.once(arguments).await;
        assert_eq!((ended, &answer["held"][0]["count"]), (status, &json!(10)), "{answer}");
        assert!(answer["held"][0]["reason"].as_str().unwrap().contains(REASON), "{answer}");
        assert_eq!(answer["deleted"], 0);
    }
    // Not even a restart makes a difference.
    site.evermirror.kill();
    site.evermirror.start().await;
    held(&site, 10).await;
    assert_eq!(kept(&site).await, keys);

    site.evermirror.terminate().await;
    let (status, report) = site.evermirror.once(&["restore"]).await;
    assert_eq!((status, &report["resumed"]), (0, &json!(true)), "{report}");
    assert!(!state(&site).exists());
    site.evermirror.start().await;
    site.walked().await;
    // What was held is forgotten: its objects are at the source again.
    site.converges(SOON).await;
    assert_eq!(kept(&site).await, keys);
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
}

async fn what_a_restore_left_out_is_deleted_only_when_a_person_approves(pair: Pair) {
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    let settings = vec![("WEB__AUTH_TOKEN", "a-person's-token".to_owned())];
    let setup = Setup { source_endpoint: Some(proxy.endpoint()), settings, ..Setup::default() };
    let mut site = servers.site("left-out", setup).await;
    let keys = ["a", "b", "c"].map(str::to_owned);
    join_all(keys.iter().map(|key| site.put(key, key.as_str()))).await;
    site.converges(LATER).await;
    assert_eq!(site.evermirror.once(&["restore"]).await.0, 2, "run is at work");
    site.evermirror.terminate().await;
    assert_eq!(site.evermirror.once(&["restore"]).await.0, 2, "there are objects");
    assert_eq!(site.evermirror.once(&["restore", "--dry-run"]).await.0, 0);
    assert!(!state(&site).exists(), "what was not begun need not be finished");

    site.source.delete_all(&site.bucket, &keys).await;
    proxy.misbehave(|method, uri| {
        let denied = method == Method::PUT && uri.path().ends_with("/a");
        denied.then_some(Fault::Answer(403, "AccessDenied"))
    });
    for (arguments, outcome) in
        [(&["restore"][..], "incomplete"), (&["restore", "--keep-going"], "differs")]
    {
        let (status, report) = site.evermirror.once(arguments).await;
        assert_eq!((status, &report["outcome"]), (1, &json!(outcome)), "{report}");
        assert!(state(&site).exists(), "{outcome}");
    }
    proxy.behave();

    site.evermirror.start().await;
    held(&site, 1).await;
    assert_eq!(kept(&site).await, keys);
    let approved = site.evermirror.command(&["deletes", "approve", "--json"]).await;
    let approved: Value = serde_json::from_slice(&approved.stdout).unwrap();
    assert_eq!(approved, json!({"approved": {&*site.bucket: 1}}));
    site.converges(SOON).await;
    assert_eq!(kept(&site).await, keys[1..]);
}
