//! The brake on deletes, end to end: what looks like a disaster waits for a person.

use hyper::{Method, StatusCode};

use crate::support::events;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::http;
use crate::support::site::{Servers, Setup, Site};

const TOKEN: &str = "a-person's-token";

/// A site that holds deletes beyond `max_deletes`, and a person who may decide about them.
fn setup(max_deletes: u64) -> Setup {
    let settings = vec![
        ("DELETES__MAX_DELETES", max_deletes.to_string()),
        ("WEB__AUTH_TOKEN", TOKEN.to_owned()),
    ];
    Setup { settings, ..Setup::default() }
}

async fn fill(site: &Site, count: usize) -> Vec<String> {
    let keys: Vec<_> = (0..count).map(|number| format!("key {number}")).collect();
    for key in &keys {
        site.put(key, key.as_str()).await;
    }
    site.converges(SOON).await;
    keys
}

async fn decide(site: &Site, decision: &str, token: Option<&str>) -> http::Answer {
    let url = site.evermirror.web(&format!("/api/v1/deletes/{}/{decision}", site.bucket));
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    http::request(Method::POST, &url, &headers, "").await.unwrap()
}

async fn shows(site: &Site, name: &str, wanted: usize) {
    site.evermirror.counts(name, wanted as u64, SOON).await;
}

/// Keys of the target, sorted.
async fn kept(site: &Site) -> Vec<String> {
    site.target.list(&site.target_bucket).await.unwrap().into_keys().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_beyond_the_limit_wait_for_approval_and_are_confirmed_once_more() {
    let mut site = Servers::shared().await.site("held-approve", setup(10)).await;
    let keys = fill(&site, 40).await;
    site.source.delete_all(&site.bucket, &keys[..30]).await;
    shows(&site, "held", 20).await;
    shows(&site, "pending", 0).await;
    assert_eq!(kept(&site).await.len(), 30);
    let status = site.evermirror.status().await.unwrap();
    assert_eq!(status["held"][0]["bucket"], "held-approve", "{status}");
    assert!(status["held"][0]["reason"].as_str().unwrap().contains("deletes.max_deletes"));

    // What happens to the source meanwhile is never heard of: evermirror is down.
    site.evermirror.kill();
    let back = kept(&site).await.into_iter().find(|key| keys[..30].contains(key)).unwrap();
    site.put(&back, "made again").await;
    site.evermirror.start().await;
    // The end of the journal is read again, and what it tells of is held already. That of the object that was
    // made again is not, once the reconcile at the start has seen it.
    shows(&site, "held", 19).await;
    shows(&site, "pending", 0).await;
    assert_eq!(kept(&site).await.len(), 30, "a restart is no approval");

    let answer = decide(&site, "approve", Some(TOKEN)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    site.converges(SOON).await;
    let left = kept(&site).await;
    assert_eq!(left.len(), 11);
    assert!(left.contains(&back), "an object that is at the source was deleted at the target");
    // The brake is off again.
    site.delete(&back).await;
    site.converges(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_delete_is_forgotten_when_its_object_is_at_the_source_again() {
    let mut setup = setup(0);
    setup.settings.push(("RECONCILE__INTERVAL", "0s".to_owned()));
    let mut site = Servers::shared().await.site("held-returned", setup).await;
    let keys = fill(&site, 5).await;
    site.source.delete_all(&site.bucket, &keys).await;
    shows(&site, "held", 5).await;
    // Two come back, one of them with other content. Nobody reconciles; the events tell.
    site.put(&keys[0], keys[0].as_str()).await;
    site.put(&keys[1], "made again").await;
    shows(&site, "held", 3).await;
    let list = site.evermirror.command(&["deletes", "list", "--json"]).await;
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["held"][0]["count"], 3, "{list}");
    assert_eq!(kept(&site).await, keys);
    // One of them is deleted once more: that is held again, since nobody has decided.
    site.delete(&keys[0]).await;
    shows(&site, "held", 4).await;

    // What returns while evermirror is down, the pass at the start finds.
    site.evermirror.kill();
    for key in [&keys[0], &keys[2], &keys[3], &keys[4]] {
        site.put(key, key.as_str()).await;
    }
    site.evermirror.start().await;
    shows(&site, "held", 0).await;
    site.converges(SOON).await;
    assert_eq!(kept(&site).await, keys, "an object that had returned was deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn discarded_deletes_are_forgotten_and_their_objects_stay() {
    let mut site = Servers::shared().await.site("held-discard", setup(0)).await;
    let keys = fill(&site, 5).await;
    site.source.delete_all(&site.bucket, &keys).await;
    shows(&site, "held", 5).await;
    let answer = decide(&site, "discard", Some(TOKEN)).await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, r#"{"discarded":5}"#));
    for _ in 0..2 {
        shows(&site, "pending", 0).await;
        assert_eq!(site.evermirror.idle().await, Ok(()));
        assert_eq!(site.evermirror.status().await.unwrap()["held"], serde_json::json!([]));
        assert_eq!(kept(&site).await.len(), 5);
        assert!(site.evermirror.terminate().await.success());
        site.evermirror.start().await;
    }
    let answer = decide(&site, "approve", Some(TOKEN)).await;
    assert_eq!(answer.text(), r#"{"approved":0}"#);
    assert_eq!(kept(&site).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_reads_the_journal_again_undoes_no_decision() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|_, uri| {
        uri.path().ends_with("/forbidden").then_some(Fault::Answer(403, "AccessDenied"))
    });
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..setup(10) };
    let mut site = servers.site("held-again", setup).await;
    let keys = fill(&site, 40).await;
    // A key that fails for ever keeps the journal from forgetting what came after it.
    site.put("forbidden", "value").await;
    shows(&site, "parked", 1).await;
    site.source.delete_all(&site.bucket, &keys[..30]).await;
    shows(&site, "held", 20).await;
    let answer = decide(&site, "discard", Some(TOKEN)).await;
    assert_eq!(answer.text(), r#"{"discarded":20}"#);
    assert!(site.evermirror.terminate().await.success());
    site.evermirror.start().await;
    shows(&site, "pending", 1).await;
    shows(&site, "parked", 1).await;
    shows(&site, "held", 0).await;
    assert_eq!(kept(&site).await.len(), 30);
    // What is deleted from now on is another matter.
    site.delete(&keys[30]).await;
    eventually("a later delete is carried out", SOON, async || {
        let left = site.target.list(&site.target_bucket).await?.len();
        (left == 29).then_some(()).ok_or(format!("{left} are left"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_deletes_that_the_journal_tells_of_again_are_held_and_counted_once() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|_, uri| {
        uri.path().ends_with("/forbidden").then_some(Fault::Answer(403, "AccessDenied"))
    });
    let mut setup = Setup { target_endpoint: Some(proxy.endpoint()), ..setup(10) };
    setup.settings.push(("RECONCILE__INTERVAL", "0s".to_owned()));
    let mut site = servers.site("held-once", setup).await;
    let keys = fill(&site, 40).await;
    // It keeps the journal from forgetting what came after it.
    site.put("forbidden", "value").await;
    shows(&site, "parked", 1).await;
    site.source.delete_all(&site.bucket, &keys[..30]).await;
    shows(&site, "held", 20).await;
    for _ in 0..2 {
        site.evermirror.kill();
        site.evermirror.start().await;
        // All 30 are told of again: ten of them were carried out, and 20 are held.
        shows(&site, "pending", 1).await;
        shows(&site, "held", 20).await;
    }
    let answer = decide(&site, "approve", Some(TOKEN)).await;
    assert_eq!(answer.text(), r#"{"approved":20}"#);
    eventually("they are carried out", SOON, async || {
        let left = site.target.list(&site.target_bucket).await?.len();
        (left == 10).then_some(()).ok_or(format!("{left} are left"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_delete_that_nobody_had_looked_at_is_kept_by_later_passes_too() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    let mut setup = Setup { source_endpoint: Some(proxy.endpoint()), ..setup(0) };
    setup.settings.push(("RECONCILE__INTERVAL", "0s".to_owned()));
    let site = servers.site("held-unseen", setup).await;
    let keys = fill(&site, 5).await;
    proxy.misbehave(|method, uri| {
        let unseen = method == Method::HEAD && uri.path().ends_with('4');
        unseen.then_some(Fault::Answer(403, "AccessDenied"))
    });
    site.source.delete_all(&site.bucket, &keys).await;
    shows(&site, "held", 4).await;
    shows(&site, "parked", 1).await;
    let answer = decide(&site, "discard", Some(TOKEN)).await;
    assert_eq!(answer.text(), r#"{"discarded":4}"#);
    proxy.behave();
    shows(&site, "pending", 0).await;
    let url = site.evermirror.web("/api/v1/reconcile");
    let token = format!("Bearer {TOKEN}");
    let asked = http::request(Method::POST, &url, &[("authorization", &token)], "").await.unwrap();
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.text());
    eventually("the pass is over", SOON, async || {
        let walk = site.evermirror.status().await?["reconcile"][0].clone();
        let over = walk["trigger"] == "request" && walk["running"] == false;
        over.then_some(()).ok_or(walk.to_string())
    })
    .await;
    assert_eq!(site.evermirror.idle().await, Ok(()));
    assert_eq!(kept(&site).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_decides_without_the_token() {
    let site = Servers::shared().await.site("held-token", setup(0)).await;
    let keys = fill(&site, 3).await;
    site.source.delete_all(&site.bucket, &keys).await;
    shows(&site, "held", 3).await;
    for decision in ["approve", "discard"] {
        for token in [None, Some("wrong"), Some(""), Some("a-person's-token-and-more")] {
            let answer = decide(&site, decision, token).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token:?}: {}", answer.text());
        }
    }
    shows(&site, "held", 3).await;
    assert_eq!(kept(&site).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_token_is_configured_nobody_decides_at_all() {
    let mut setup = setup(0);
    setup.settings.retain(|(name, _)| *name != "WEB__AUTH_TOKEN");
    let site = Servers::shared().await.site("held-no-token", setup).await;
    let keys = fill(&site, 3).await;
    site.source.delete_all(&site.bucket, &keys).await;
    shows(&site, "held", 3).await;
    for decision in ["approve", "discard"] {
        for token in [None, Some(""), Some(TOKEN)] {
            let answer = decide(&site, decision, token).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{token:?}: {}", answer.text());
            let said = answer.text();
            assert!(said.contains("acting is turned off: set web.auth_token"), "{said}");
        }
    }
    shows(&site, "held", 3).await;
    assert_eq!(kept(&site).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_bucket_that_is_emptied_keeps_its_copy() {
    let site = Servers::shared().await.site("held-wiped", setup(10_000)).await;
    let keys = fill(&site, 250).await;
    site.source.delete_all(&site.bucket, &keys).await;
    // From the first delete on that is confirmed when the source lists nothing any more.
    eventually("every object is deleted or held", LATER, async || {
        let (held, left) = (site.evermirror.count("held").await?, kept(&site).await.len() as u64);
        (held == left && held >= 230).then_some(()).ok_or(format!("{held} held, {left} left"))
    })
    .await;
    shows(&site, "pending", 0).await;
    let status = site.evermirror.status().await.unwrap();
    assert!(status["held"][0]["reason"].as_str().unwrap().contains("looks wiped"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_the_source_lists_nothing_the_first_delete_is_held_however_small_the_bucket() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    let setup = Setup { source_endpoint: Some(proxy.endpoint()), ..setup(10_000) };
    let site = servers.site("held-small", setup).await;
    let keys = fill(&site, 5).await;
    // No delete is confirmed before the last object is gone.
    proxy.misbehave(|method, _| (method == Method::HEAD).then_some(Fault::Hold));
    site.source.delete_all(&site.bucket, &keys).await;
    proxy.holds_one().await;
    proxy.behave();
    shows(&site, "held", 5).await;
    assert_eq!(kept(&site).await.len(), 5);
    let status = site.evermirror.status().await.unwrap();
    assert!(status["held"][0]["reason"].as_str().unwrap().contains("may_be_empty"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_may_be_empty_loses_its_last_object_too() {
    let mut setup = setup(10_000);
    setup.settings.push(("BUCKETS__0__MAY_BE_EMPTY", "true".to_owned()));
    let site = Servers::shared().await.site("may-be-empty", setup).await;
    let keys = fill(&site, 2).await;
    site.source.delete_all(&site.bucket, &keys).await;
    eventually("both are deleted", SOON, async || {
        let left = kept(&site).await.len();
        (left == 0).then_some(()).ok_or(format!("{left} are left"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_discarded_stays_though_its_removal_is_reported_again() {
    let mut site = Servers::shared().await.site("held-told-again", setup(10)).await;
    let keys = fill(&site, 15).await;
    site.source.delete_all(&site.bucket, &keys[..14]).await;
    shows(&site, "held", 4).await;
    let answer = decide(&site, "discard", Some(TOKEN)).await;
    assert_eq!(answer.text(), r#"{"discarded":4}"#);
    let left = kept(&site).await;
    assert_eq!(left.len(), 5);
    for restarts in 0..2 {
        // By another webhook target, a queue, an application that repeats its DELETE: new identities.
        for key in left.iter().filter(|key| **key != keys[14]) {
            let body = events::event("ObjectRemoved:Delete", &site.bucket, key);
            assert_eq!(site.evermirror.post(body).await.status, StatusCode::OK);
        }
        shows(&site, "pending", 0).await;
        assert_eq!(site.evermirror.idle().await, Ok(()));
        assert_eq!(kept(&site).await, left, "after {restarts} restarts");
        site.evermirror.kill();
        site.evermirror.start().await;
    }
    // Only when the source has had it again its next delete counts.
    let again = left.iter().find(|key| **key != keys[14]).unwrap();
    site.put(again, "made again").await;
    eventually("it is copied", SOON, async || {
        let (source, target) =
            (site.source.list(&site.bucket).await?, site.target.list(&site.target_bucket).await?);
        (source.get(again) == target.get(again)).then_some(()).ok_or("not yet".to_owned())
    })
    .await;
    site.delete(again).await;
    eventually("the later delete is carried out", SOON, async || {
        let left = kept(&site).await;
        (!left.contains(again)).then_some(()).ok_or(format!("{left:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_bucket_that_is_removed_deletes_nothing() {
    let servers = Servers::shared().await;
    let setup = Setup { queue: true, ..Setup::default() };
    let mut site = servers.site("removed", setup).await;
    let keys = fill(&site, 20).await;
    // Emptied and removed while evermirror is down; it hears of the deletes afterwards.
    site.evermirror.kill();
    site.source.delete_all(&site.bucket, &keys).await;
    site.source.client.delete_bucket().bucket(&site.bucket).send().await.unwrap();
    site.evermirror.start().await;
    shows(&site, "parked", 20).await;
    assert_eq!(kept(&site).await.len(), 20);
    let status = site.evermirror.status().await.unwrap();
    let reason = status["parked"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("removed"), "the reason does not name the bucket: {reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_bucket_that_is_removed_by_force_deletes_nothing() {
    let site = Site::shared("forced").await;
    let keys = fill(&site, 20).await;
    let removal = site.source.client.delete_bucket().bucket(&site.bucket).customize();
    let removal = removal.mutate_request(|request| {
        request.headers_mut().insert("x-minio-force-delete", "true");
    });
    removal.send().await.unwrap();
    // MinIO tells of no object; someone else does.
    for key in &keys {
        let body = events::event("ObjectRemoved:Delete", &site.bucket, key);
        assert_eq!(site.evermirror.post(body).await.status, StatusCode::OK);
    }
    shows(&site, "parked", 20).await;
    assert_eq!(kept(&site).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_object_that_returns_unchanged_is_one_like_any_other() {
    let mut site = Servers::shared().await.site("held-unchanged", setup(0)).await;
    let keys = fill(&site, 3).await;
    site.delete(&keys[0]).await;
    shows(&site, "held", 1).await;
    let answer = decide(&site, "discard", Some(TOKEN)).await;
    assert_eq!(answer.text(), r#"{"discarded":1}"#);
    // It comes back with the same bytes and goes again, and no event tells of either: the passes find out.
    assert!(site.evermirror.terminate().await.success());
    site.put(&keys[0], keys[0].as_str()).await;
    site.evermirror.start().await;
    site.walked().await;
    site.converges(SOON).await;
    assert!(site.evermirror.terminate().await.success());
    site.delete(&keys[0]).await;
    site.evermirror.start().await;
    shows(&site, "held", 1).await;
    assert_eq!(kept(&site).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_waits_for_a_look_at_the_source_asks_nothing_again() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    let setup = Setup { source_endpoint: Some(proxy.endpoint()), ..setup(10_000) };
    let site = servers.site("held-look", setup).await;
    let keys = fill(&site, 5).await;
    let asked = || {
        let head = format!("HEAD /{}/{}", site.bucket, keys[0].replace(' ', "%20"));
        proxy.seen().iter().filter(|request| **request == head).count()
    };
    let before = asked();
    proxy.misbehave(|method, uri| {
        let listing = method == Method::GET && uri.query().is_some_and(|q| q.contains("list-type"));
        listing.then_some(Fault::Hold)
    });
    site.delete(&keys[0]).await;
    proxy.holds_one().await;
    // Meanwhile the others go on.
    for number in 0..20 {
        let key = format!("meanwhile {number}");
        site.put(&key, key.as_str()).await;
        eventually("it is copied", SOON, async || {
            kept(&site).await.contains(&key).then_some(()).ok_or("not yet".to_owned())
        })
        .await;
    }
    assert_eq!(asked() - before, 1);
    assert!(kept(&site).await.contains(&keys[0]));
    proxy.behave();
    site.converges(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_comes_while_approved_deletes_are_carried_out_holds_none_of_them() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let mut setup = Setup { target_endpoint: Some(proxy.endpoint()), ..setup(0) };
    setup.settings.push(("RECONCILE__INTERVAL", "0s".to_owned()));
    let mut site = servers.site("held-approved", setup).await;
    let keys = fill(&site, 40).await;
    site.source.delete_all(&site.bucket, &keys).await;
    shows(&site, "held", 40).await;
    proxy.misbehave(|method, uri| {
        let deletes =
            *method == Method::DELETE || uri.query().is_some_and(|q| q.contains("delete"));
        deletes.then_some(Fault::Hold)
    });
    let answer = decide(&site, "approve", Some(TOKEN)).await;
    assert_eq!(answer.text(), r#"{"approved":40}"#);
    proxy.holds_one().await;
    let pass = async |site: &Site| {
        eventually("a pass has found them", SOON, async || {
            let walk = site.evermirror.status().await?["reconcile"][0].clone();
            let over = walk["drift"]["extra"] == 40 && walk["running"] == false;
            over.then_some(()).ok_or(walk.to_string())
        })
        .await;
        let status = site.evermirror.status().await.unwrap();
        assert_eq!(status["held"], serde_json::json!([]));
    };
    let url = site.evermirror.web("/api/v1/reconcile");
    let token = format!("Bearer {TOKEN}");
    let asked = http::request(Method::POST, &url, &[("authorization", &token)], "").await.unwrap();
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.text());
    pass(&site).await;
    // The same after a crash.
    site.evermirror.kill();
    site.evermirror.start().await;
    pass(&site).await;
    proxy.behave();
    eventually("they are carried out", SOON, async || {
        let left = kept(&site).await.len();
        (left == 0).then_some(()).ok_or(format!("{left} are left"))
    })
    .await;
    shows(&site, "held", 0).await;
}
