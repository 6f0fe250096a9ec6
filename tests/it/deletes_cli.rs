//! `evermirror deletes` and `evermirror reconcile`, as an operator uses them against the running
//! process.

use std::process::Output;

use hyper::Method;
use serde_json::{Value, json};

use crate::support::eventually::{SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::site::{Servers, Setup, Site};

const TOKEN: &str = "a-person's-token";

fn setup(token: Option<&str>) -> Setup {
    let mut settings = vec![("DELETES__MAX_DELETES", "0".to_owned())];
    settings.extend(token.map(|token| ("WEB__AUTH_TOKEN", token.to_owned())));
    Setup { settings, ..Setup::default() }
}

/// A site with three held deletes.
async fn holding(bucket: &str, token: Option<&str>) -> Site {
    let site = Servers::shared().await.site(bucket, setup(token)).await;
    for key in ["a", "b", "c"] {
        site.put(key, key).await;
    }
    site.converges(SOON).await;
    for key in ["a", "b", "c"] {
        site.delete(key).await;
    }
    held(&site, 3).await;
    site
}

async fn held(site: &Site, wanted: u64) {
    site.evermirror.counts("held", wanted, SOON).await;
}

/// It ended with this status and said that on stderr, as a sentence and not as a panic.
fn failed(output: &Output, status: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.starts_with("error: ") && !stderr.contains(TOKEN), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "it does not say {word:?}: {stderr}");
    }
    assert!(output.stdout.is_empty(), "{}", text(output));
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn answer(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn held_deletes_are_listed_and_approved() {
    let site = holding("cli-approve", Some(TOKEN)).await;
    let list = site.evermirror.command(&["deletes", "list"]).await;
    assert_eq!(list.status.code(), Some(0));
    let said = text(&list);
    assert!(said.starts_with("held ") && said.contains("3  cli-approve: more than 0"), "{said}");
    let list = answer(&site.evermirror.command(&["deletes", "list", "--json"]).await);
    assert_eq!((&list["held"][0]["count"], &list["delayed"]), (&json!(3), &json!([])));
    let list = text(&site.evermirror.command(&["deletes", "list", "--keys", "2"]).await);
    let lines: Vec<_> = list.lines().map(str::trim).skip(1).collect();
    assert!(matches!(lines[..], ["a" | "b" | "c", "a" | "b" | "c", "… and 1 more"]), "{list}");
    let list = answer(&site.evermirror.command(&["deletes", "list", "--json", "--keys"]).await);
    let keys = list["held"][0]["keys"].as_array().unwrap().iter().map(|held| &held["key"]);
    let mut keys: Vec<_> = keys.collect();
    keys.sort_by_key(|key| key.as_str());
    assert_eq!(keys, ["a", "b", "c"]);
    let other = ["deletes", "list", "--json", "--bucket", "other"];
    assert_eq!(answer(&site.evermirror.command(&other).await)["held"], json!([]));

    let approved = site.evermirror.command(&["deletes", "approve", "--json"]).await;
    assert_eq!(answer(&approved), json!({"approved": {"cli-approve": 3}}));
    site.converges(SOON).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 0);
    let list = site.evermirror.command(&["deletes", "list"]).await;
    assert_eq!(text(&list), "no delete is held or delayed\n");
    let approved = site.evermirror.command(&["deletes", "approve"]).await;
    assert_eq!((approved.status.code(), &*text(&approved)), (Some(0), "no delete is held\n"));
    let unknown = ["deletes", "approve", "--bucket", "no-such-bucket"];
    failed(&site.evermirror.command(&unknown).await, 1, &["no-such-bucket", "not in the config"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn held_deletes_of_one_bucket_are_discarded() {
    let site = holding("cli-discard", Some(TOKEN)).await;
    let other = ["deletes", "discard", "--bucket", "other/../x"];
    failed(&site.evermirror.command(&other).await, 1, &["other/../x", "not in the configuration"]);
    held(&site, 3).await;
    let discard = ["deletes", "discard", "--bucket", "cli-discard"];
    let discarded = site.evermirror.command(&discard).await;
    assert_eq!(text(&discarded), "discarded 3 deletes of cli-discard\n");
    held(&site, 0).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_decides_nothing_and_a_right_one_can_come_from_a_file() {
    let site = holding("cli-token", Some(TOKEN)).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let path = file.to_str().unwrap();
    let approve = ["deletes", "approve", "--bucket", "cli-token", "--token-file", path];
    failed(&site.evermirror.command(&approve).await, 2, &[path, "cannot be read"]);
    std::fs::write(&file, "another\n").unwrap();
    failed(&site.evermirror.command(&approve).await, 1, &["refused the token", "web.auth_token"]);
    held(&site, 3).await;
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let approved = site.evermirror.command(&approve).await;
    assert_eq!(text(&approved), "approved 3 deletes of cli-token\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_token_is_configured_the_command_says_how_to_configure_one() {
    let site = holding("cli-no-token", None).await;
    for decision in ["approve", "discard"] {
        let output = site.evermirror.command(&["deletes", decision]).await;
        failed(&output, 2, &["web.auth_token_file", "--token-file"]);
    }
    assert_eq!(
        answer(&site.evermirror.command(&["deletes", "list", "--json"]).await)["held"][0]["count"],
        3
    );
    held(&site, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_run_is_told_from_one_that_refuses() {
    let mut site = Servers::shared().await.site("cli-down", setup(Some(TOKEN))).await;
    site.evermirror.kill();
    for command in ["list", "approve", "discard"] {
        let output = site.evermirror.command(&["deletes", command]).await;
        failed(
            &output,
            1,
            &["no evermirror can be reached at http://127.0.0.1:", "refused", "--url"],
        );
    }
    // A web server that is no evermirror.
    let store = Servers::shared().await.source.endpoint();
    let output = site.evermirror.command(&["deletes", "list", "--url", &store]).await;
    failed(&output, 1, &[&store, "no answer of this version"]);
    let output = site.evermirror.command(&["deletes", "list", "--url", "host:1"]).await;
    failed(&output, 2, &["--url must be like"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconcile_that_was_asked_for_finds_what_no_event_announced() {
    let mut setup = setup(Some(TOKEN));
    setup.settings.push(("RECONCILE__INTERVAL", "0s".to_owned()));
    let mut site = Servers::shared().await.site("cli-reconcile", setup).await;
    for key in ["lost/1", "lost/2", "other"] {
        site.put(key, key).await;
    }
    site.converges(SOON).await;
    eventually("the pass at the start is over", SOON, async || {
        let status = site.evermirror.status().await?;
        let walk = &status["reconcile"][0];
        let over = walk["last_complete_ms"].is_i64() && walk["running"] == false;
        over.then_some(()).ok_or(format!("{walk}"))
    })
    .await;
    // Nobody tells evermirror of this, and without an interval no further pass begins by itself.
    for key in ["lost/1", "lost/2", "other"] {
        site.target.delete(&site.target_bucket, key).await;
    }
    let asked = ["reconcile", "--bucket", "cli-reconcile", "--prefix", "lost/", "--json"];
    assert_eq!(answer(&site.evermirror.command(&asked).await), json!({"buckets": 1}));
    eventually("the keys of the prefix are there", SOON, async || {
        let keys: Vec<_> = site.target.list(&site.target_bucket).await?.into_keys().collect();
        if keys == ["lost/1", "lost/2"] { Ok(()) } else { Err(format!("{keys:?}")) }
    })
    .await;
    let asked = site.evermirror.command(&["reconcile"]).await;
    assert!(text(&asked).starts_with("1 bucket is reconciled"), "{}", text(&asked));
    site.converges(SOON).await;

    let unknown = site.evermirror.command(&["reconcile", "--bucket", "another"]).await;
    failed(&unknown, 1, &["another", "not in the configuration"]);
    site.evermirror.kill();
    failed(&site.evermirror.command(&["reconcile"]).await, 1, &["no evermirror can be reached"]);
}

/// The same, with an object that the source still has, so that it does not look wiped.
async fn holding_beside_another(bucket: &str) -> Site {
    let site = holding(bucket, Some(TOKEN)).await;
    site.put("stays", "stays").await;
    eventually("it is copied", SOON, async || {
        let copied = site.target.list(&site.target_bucket).await?.contains_key("stays");
        copied.then_some(()).ok_or("it is not there".to_owned())
    })
    .await;
    site
}

async fn at_target(site: &Site) -> Vec<String> {
    site.target.list(&site.target_bucket).await.unwrap().into_keys().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_deletes_nothing_where_run_holds_deletes_until_a_person_approves() {
    let mut site = holding_beside_another("cli-sync-held").await;
    // It is the brake of `run` that holds them, not one of its own.
    site.evermirror.set("DELETES__MAX_DELETES", "10000");
    let refused = async |site: &Site, arguments: &[&str]| {
        let (status, answer) = site.evermirror.once(arguments).await;
        let dry = answer["dry_run"] == true;
        assert_eq!((status, &answer["deleted"]), (i32::from(!dry), &json!(0)), "{answer}");
        assert_eq!(answer["held"][0]["count"], 3, "{answer}");
        let reason = answer["held"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("`evermirror run` holds"), "{reason}");
        assert_eq!(at_target(site).await, ["a", "b", "c", "stays"]);
    };
    // While it is at work, and when it is not.
    refused(&site, &["sync"]).await;
    refused(&site, &["sync", "--dry-run"]).await;
    assert!(site.evermirror.terminate().await.success());
    refused(&site, &["sync"]).await;
    let (status, answer) = site.evermirror.once(&["verify"]).await;
    assert_eq!(
        (status, &answer["by_kind"]["extra"]),
        (1, &json!(3)),
        "nobody has decided: {answer}"
    );
    let said = text(&site.evermirror.command(&["sync"]).await);
    assert!(said.contains("deletes list") && said.contains("--approve-deletes"), "{said}");

    let (status, answer) = site.evermirror.once(&["sync", "--approve-deletes"]).await;
    assert_eq!((status, &answer["deleted"]), (0, &json!(3)), "{answer}");
    assert_eq!(at_target(&site).await, ["stays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_discarded_no_sync_deletes_whatever_else_is_approved() {
    let mut site = holding_beside_another("cli-sync-kept").await;
    let discard = ["deletes", "discard", "--bucket", "cli-sync-kept"];
    assert_eq!(site.evermirror.command(&discard).await.status.code(), Some(0));
    assert!(site.evermirror.terminate().await.success());
    site.evermirror.set("DELETES__MAX_DELETES", "10000");
    for arguments in [&["sync", "--dry-run"][..], &["sync"], &["sync", "--approve-deletes"]] {
        let (status, answer) = site.evermirror.once(arguments).await;
        assert_eq!((status, &answer["deleted"]), (0, &json!(0)), "{answer}");
        assert_eq!((&answer["kept"], &answer["discarded"]), (&json!(3), &json!(3)), "{answer}");
        assert_eq!(answer["held"], json!([]));
        assert_eq!(at_target(&site).await, ["a", "b", "c", "stays"]);
    }
    let (status, answer) = site.evermirror.once(&["verify"]).await;
    assert_eq!((status, &answer["differences"], &answer["kept"]), (0, &json!(0), &json!(3)));
    let said = text(&site.evermirror.command(&["sync", "--dry-run"]).await);
    assert!(said.contains("keep cli-sync-kept/a (extra)"), "{said}");
    assert!(said.contains("3 of them because a person discarded"), "{said}");
    // What nobody decided about is deleted as ever.
    site.delete("stays").await;
    site.put("new", "new").await;
    let (status, answer) = site.evermirror.once(&["sync"]).await;
    assert_eq!((status, &answer["deleted"], &answer["kept"]), (0, &json!(1), &json!(3)));
    assert_eq!(at_target(&site).await, ["a", "b", "c", "new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_a_killed_sync_has_left_is_not_carried_out_once_a_person_has_discarded_it() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..setup(Some(TOKEN)) };
    let mut site = servers.prepare("cli-sync-left", setup).await;
    for key in ["a", "b", "stays"] {
        site.put(key, key).await;
    }
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
    for key in ["a", "b"] {
        site.delete(key).await;
    }
    site.evermirror.set("DELETES__MAX_DELETES", "10000");
    proxy.misbehave(|method, uri| {
        let delete = method == Method::POST && uri.query().is_some_and(|q| q.contains("delete"));
        delete.then_some(Fault::Answer(503, "SlowDown"))
    });
    let sync = site.evermirror.begin(&["sync"]);
    eventually("it tries to delete", SOON, async || {
        let tries = proxy.faults();
        (tries > 0).then_some(()).ok_or("no delete yet".to_owned())
    })
    .await;
    sync.kill();
    proxy.behave();

    site.evermirror.set("DELETES__MAX_DELETES", "0");
    site.evermirror.start().await;
    held(&site, 2).await;
    assert_eq!(site.evermirror.command(&["deletes", "discard"]).await.status.code(), Some(0));
    assert!(site.evermirror.terminate().await.success());
    site.evermirror.set("DELETES__MAX_DELETES", "10000");
    let (status, answer) = site.evermirror.once(&["sync"]).await;
    assert_eq!((status, &answer["deleted"], &answer["kept"]), (0, &json!(0), &json!(2)));
    assert_eq!(at_target(&site).await, ["a", "b", "stays"]);
}
