//! `evermirror sync`, as an operator uses it.

use hyper::Method;
use serde_json::json;

use crate::support::eventually::{SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::s3::S3;
use crate::support::server::{Pair, on_every_pair};
use crate::support::site::{Servers, Setup, Site};

/// Objects of every kind: headers, metadata, tags, parts, awkward keys, nothing in them.
async fn seed(site: &Site) -> usize {
    for number in 0..20 {
        site.put(&format!("dir/{number:02}"), format!("value {number}")).await;
    }
    for key in ["a b+c%20", "ünï/cödé", "empty", "x/y/z", "ctrl\u{1}"] {
        site.put(key, if key == "empty" { "" } else { key }).await;
    }
    let call = site.source.client.put_object().bucket(&site.bucket).key("rich");
    let call = call.content_type("text/x-rich").cache_control("max-age=5").metadata("who", "me");
    call.tagging("colour=red&a=b").body(b"rich".to_vec().into()).send().await.unwrap();
    let parts = [vec![1; 5 << 20], vec![2; 6 << 20], vec![3; 9]];
    site.source.put_parts(&site.bucket, "parts", parts).await;
    27
}

async fn equal(site: &Site) {
    assert_eq!(site.differences().await.unwrap(), Vec::<String>::new());
}

/// Gives an object other metadata, again and again until it is clearly newer than its copy: two clocks
/// are not compared to the second.
async fn change_metadata(site: &Site, key: &str) {
    let modified = async |store: &S3, bucket: &str| {
        let head = store.client.head_object().bucket(bucket).key(key).send().await.unwrap();
        head.last_modified().unwrap().secs()
    };
    let copied = modified(&site.target, &site.target_bucket).await;
    eventually("the object is newer than its copy", SOON, async || {
        let copy = site.source.client.copy_object().bucket(&site.bucket).key(key);
        let copy = copy.copy_source(format!("{}/{key}", site.bucket)).metadata("new", "metadata");
        copy.metadata_directive("REPLACE".into()).send().await.unwrap();
        let newer = modified(&site.source, &site.bucket).await - copied;
        if newer > 2 { Ok(()) } else { Err(format!("{newer} s")) }
    })
    .await;
}

on_every_pair![
    a_sync_makes_both_sides_equal_in_every_field_and_a_second_one_changes_nothing,
    with_metadata_a_sync_mends_what_no_listing_shows,
    a_dry_run_tells_what_would_be_done_and_writes_nothing,
    with_no_delete_the_target_only_grows,
    only_the_chosen_prefix_is_touched,
    a_wiped_source_empties_no_target_until_a_person_says_so,
    a_sync_that_is_killed_is_resumed_and_ends_with_both_sides_equal,
    an_interrupted_sync_ends_by_itself_and_is_resumed,
    keys_that_fail_for_good_are_named_and_the_others_are_copied,
];

async fn a_sync_makes_both_sides_equal_in_every_field_and_a_second_one_changes_nothing(pair: Pair) {
    let site = pair.shared().await.silent("sync-all", Setup::default()).await;
    let objects = seed(&site).await;
    let (status, answer) = site.evermirror.once(&["sync"]).await;
    assert_eq!((status, &answer["copied"], &answer["failed"]), (0, &json!(objects), &json!(0)));
    assert!(answer["bytes"].as_u64().unwrap() > 11 << 20, "{answer}");
    equal(&site).await;

    // One of each: changed, new, deleted, and tags or metadata alone.
    site.put("dir/00", "another value").await;
    site.put("new", "new").await;
    site.delete("dir/01").await;
    change_metadata(&site, "dir/02").await;
    let (status, answer) = site.evermirror.once(&["sync"]).await;
    assert_eq!((status, &answer["copied"], &answer["deleted"]), (0, &json!(3), &json!(1)));
    equal(&site).await;

    let (status, answer) = site.evermirror.once(&["sync"]).await;
    assert_eq!((status, &answer["copied"], &answer["deleted"]), (0, &json!(0), &json!(0)));
    assert_eq!(answer["unchanged"], objects);
}

/// A store tells of neither in a listing, and tags do not even change the time: lost events leave this behind.
async fn with_metadata_a_sync_mends_what_no_listing_shows(pair: Pair) {
    let site = pair.shared().await.silent("sync-metadata", Setup::default()).await;
    let objects = seed(&site).await;
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
    let tag = aws_sdk_s3::types::Tag::builder().key("lost").value("event").build().unwrap();
    for key in ["rich", "dir/03"] {
        let tags = aws_sdk_s3::types::Tagging::builder().tag_set(tag.clone()).build().unwrap();
        let call = site.source.client.put_object_tagging().bucket(&site.bucket).key(key);
        call.tagging(tags).send().await.unwrap();
    }
    // Written at the target later than at the source, so that the times hide it.
    let call = site.target.client.copy_object().bucket(&site.target_bucket).key("dir/04");
    let call = call.copy_source(format!("{}/dir/04", site.target_bucket));
    let call = call.metadata("wrong", "metadata").metadata_directive("REPLACE".into());
    call.send().await.unwrap();
    let (status, answer) = site.evermirror.once(&["sync"]).await;
    assert_eq!((status, &answer["unchanged"]), (0, &json!(objects)), "listings show nothing");
    assert_eq!(site.evermirror.once(&["verify", "--metadata"]).await.1["differences"], json!(3));

    let (status, answer) = site.evermirror.once(&["sync", "--metadata"]).await;
    let done = answer["copied"].as_u64().unwrap() + answer["tagged"].as_u64().unwrap();
    assert_eq!((status, done, &answer["unchanged"]), (0, 3, &json!(objects - 3)), "{answer}");
    equal(&site).await;
}

async fn a_dry_run_tells_what_would_be_done_and_writes_nothing(pair: Pair) {
    let site = pair.shared().await.silent("sync-dry", Setup::default()).await;
    for number in 0..10 {
        site.put(&format!("{number}"), "value").await;
    }
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
    site.put("1", "changed").await;
    site.put("new", "1234567").await;
    site.delete("2").await;
    let before = site.target.list(&site.target_bucket).await.unwrap();
    let state = std::fs::read_dir(site.evermirror.data_dir().join("sync")).unwrap().count();
    std::fs::remove_dir_all(site.evermirror.data_dir()).unwrap();
    assert!(state > 0, "a sync keeps its state there");

    let (status, answer) = site.evermirror.once(&["sync", "--dry-run"]).await;
    assert_eq!((status, &answer["dry_run"]), (0, &json!(true)));
    assert_eq!((&answer["copied"], &answer["deleted"]), (&json!(2), &json!(1)), "{answer}");
    assert_eq!(answer["bytes"], 14);
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap(), before);
    assert!(!site.evermirror.data_dir().exists(), "a dry run keeps no state");

    let output = site.evermirror.command(&["sync", "--dry-run"]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    for line in ["copy sync-dry/1 (", "copy sync-dry/new (missing)", "delete sync-dry/2 (extra)"] {
        assert!(said.contains(line), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_needs_no_target_bucket_and_makes_none() {
    let site = Servers::shared().await.silent("sync-dry-new", Setup::default()).await;
    for key in ["in/1", "in/2", "out"] {
        site.put(key, "12345").await;
    }
    let (status, answer) = site.evermirror.once(&["sync", "--dry-run"]).await;
    assert_eq!((status, &answer["copied"], &answer["bytes"]), (0, &json!(3), &json!(15)));
    assert_eq!(answer["new_buckets"], json!(["sync-dry-new-copy"]));
    let output = site.evermirror.command(&["sync", "--dry-run", "--prefix", "in/"]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("copy sync-dry-new/in/1 (missing)") && !said.contains("out"), "{said}");
    assert!(said.contains("bucket sync-dry-new-copy is not there yet"), "{said}");
    assert!(site.target.list(&site.target_bucket).await.is_err(), "it has made the bucket");
}

async fn with_no_delete_the_target_only_grows(pair: Pair) {
    let site = pair.shared().await.silent("sync-archive", Setup::default()).await;
    seed(&site).await;
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
    site.delete("dir/03").await;
    site.put("new", "new").await;
    let (status, answer) = site.evermirror.once(&["sync", "--no-delete"]).await;
    assert_eq!((status, &answer["kept"], &answer["deleted"]), (0, &json!(1), &json!(0)));
    let kept = site.target.list(&site.target_bucket).await.unwrap();
    assert!(kept.contains_key("dir/03") && kept.contains_key("new"));
}

async fn only_the_chosen_prefix_is_touched(pair: Pair) {
    let site = pair.shared().await.silent("sync-prefix", Setup::default()).await;
    for key in ["in/1", "in/2", "in/3", "in/4", "out/1"] {
        site.put(key, "value").await;
    }
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
    for key in ["in/1", "out/1"] {
        site.delete(key).await;
        site.put(&format!("{key}/new"), "value").await;
    }
    let chosen = ["sync", "--bucket", "sync-prefix", "--prefix", "in/"];
    let (status, answer) = site.evermirror.once(&chosen).await;
    assert_eq!((status, &answer["copied"], &answer["deleted"]), (0, &json!(1), &json!(1)));
    let keys: Vec<_> = site.target.list(&site.target_bucket).await.unwrap().into_keys().collect();
    assert_eq!(keys, ["in/1/new", "in/2", "in/3", "in/4", "out/1"]);
}

async fn a_wiped_source_empties_no_target_until_a_person_says_so(pair: Pair) {
    let site = pair.shared().await.silent("sync-wiped", Setup::default()).await;
    let keys: Vec<_> = (0..60).map(|number| format!("key {number}")).collect();
    for key in &keys {
        site.put(key, key.as_str()).await;
    }
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
    // More than the share that may go at once, then all of them.
    for gone in [&keys[..30], &keys[30..]] {
        site.source.delete_all(&site.bucket, gone).await;
        for _ in 0..2 {
            let (status, answer) = site.evermirror.once(&["sync"]).await;
            assert_eq!((status, &answer["deleted"]), (1, &json!(0)), "{answer}");
            let held = 60 - site.source.list(&site.bucket).await.unwrap().len();
            assert_eq!(answer["held"][0]["count"], held, "{answer}");
            assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 60);
        }
    }
    // A bucket that is not there at all is a failure, whoever approves.
    site.source.client.delete_bucket().bucket(&site.bucket).send().await.unwrap();
    let (status, answer) = site.evermirror.once(&["sync", "--approve-deletes"]).await;
    assert_eq!((status, &answer["deleted"]), (2, &json!(0)), "{answer}");
    assert!(
        answer["errors"][0].as_str().unwrap().contains("the source cannot be used"),
        "{answer}"
    );
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 60);

    site.source.create_bucket(&site.bucket).await;
    let (status, answer) = site.evermirror.once(&["sync", "--approve-deletes"]).await;
    assert_eq!((status, &answer["deleted"]), (0, &json!(60)), "{answer}");
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 0);
}

async fn a_sync_that_is_killed_is_resumed_and_ends_with_both_sides_equal(pair: Pair) {
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup {
        target_endpoint: Some(proxy.endpoint()),
        settings: vec![("REPLICATE__CONCURRENCY", "2".to_owned())],
        ..Setup::default()
    };
    let site = servers.silent("sync-killed", setup).await;
    for number in 0..300 {
        site.put(&format!("{number}"), format!("value {number}")).await;
    }
    for _ in 0..3 {
        proxy.hold_after(50, |method, _| method == Method::PUT);
        let killed = site.evermirror.begin(&["sync"]);
        proxy.holds_one().await;
        killed.kill();
    }
    let copied = site.target.list(&site.target_bucket).await.unwrap().len();
    assert!((50..300).contains(&copied), "{copied} objects are not the middle");
    proxy.behave();
    let (status, answer) = site.evermirror.once(&["sync"]).await;
    assert_eq!((status, &answer["failed"]), (0, &json!(0)), "{answer}");
    equal(&site).await;
}

async fn an_interrupted_sync_ends_by_itself_and_is_resumed(pair: Pair) {
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = servers.silent("sync-stopped", setup).await;
    for number in 0..200 {
        site.put(&format!("{number}"), format!("value {number}")).await;
    }
    proxy.hold_after(50, |method, _| method == Method::PUT);
    let stopped = site.evermirror.begin(&["sync"]);
    proxy.holds_one().await;
    stopped.interrupt("INT").await;
    proxy.behave();
    let (status, _) = stopped.ended().await;
    assert_eq!(status.code(), Some(1), "it ends in good order, and not with success");
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
    equal(&site).await;
}

async fn keys_that_fail_for_good_are_named_and_the_others_are_copied(pair: Pair) {
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|method, uri| {
        let refused = method == Method::PUT && uri.path().ends_with("/refused");
        refused.then_some(Fault::Answer(403, "AccessDenied"))
    });
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = servers.silent("sync-failing", setup).await;
    for key in ["1", "2", "refused"] {
        site.put(key, "value").await;
    }
    let (status, answer) = site.evermirror.once(&["sync"]).await;
    assert_eq!((status, &answer["copied"], &answer["failed"]), (1, &json!(2), &json!(1)));
    assert_eq!(answer["failures"][0]["key"], "refused", "{answer}");
    assert!(answer["failures"][0]["reason"].as_str().unwrap().contains("denied"), "{answer}");
    proxy.behave();
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
    equal(&site).await;
}

/// A listing of the source from before the objects below `came/` were there.
fn without_what_came(listing: &str) -> String {
    let Some((head, entries)) = listing.split_once("<Contents>") else { return listing.to_owned() };
    let (entries, tail) = entries.rsplit_once("</Contents>").expect("XML");
    let entries = entries.split("</Contents><Contents>");
    let older: Vec<_> = entries.filter(|entry| !entry.contains("<Key>came/")).collect();
    format!("{head}<Contents>{}</Contents>{tail}", older.join("</Contents><Contents>"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_to_a_busy_bucket_between_the_two_listings_is_no_delete_and_no_brake() {
    let servers = Servers::shared().await;
    let source = FaultProxy::in_front_of(&servers.source.authority()).await;
    let target = FaultProxy::in_front_of(&servers.target.authority()).await;
    let (at_source, at_target) = (Some(source.endpoint()), Some(target.endpoint()));
    let setup =
        Setup { source_endpoint: at_source, target_endpoint: at_target, ..Setup::default() };
    let site = servers.silent("sync-busy", setup).await;
    for number in 0..10 {
        site.put(&format!("dir/{number}"), "value").await;
    }
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
    let lists = |method: &Method, uri: &hyper::Uri| {
        *method == Method::GET && uri.query().is_some_and(|query| query.contains("list-type"))
    };
    source.misbehave(move |method, uri| {
        lists(method, uri).then_some(Fault::EditAnswer(without_what_came))
    });
    target.hold_after(0, lists);
    let busy = site.evermirror.begin(&["sync", "--json"]);
    target.holds_one().await;
    // `run` copies them meanwhile.
    for number in 0..30 {
        let key = format!("came/{number:02}");
        site.put(&key, "value").await;
        site.target.put(&site.target_bucket, &key, "value").await;
    }
    target.behave();
    let (status, answer) = busy.ended().await;
    let answer = answer.expect("a report");
    assert_eq!((status.code(), answer["deleted"].as_u64()), (Some(0), Some(0)), "{answer}");
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_or_configuration_has_a_status_of_its_own() {
    let site = Servers::shared().await.silent("sync-usage", Setup::default()).await;
    for arguments in [
        &["sync", "--bucket", "another"][..],
        &["sync", "--no-delete", "--approve-deletes"],
        &["verify", "--bucket", "another"],
        &["verify", "--what"],
        &["restore", "--bucket", "another"],
        &["restore", "--at", "yesterday"],
    ] {
        let output = site.evermirror.command(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
        assert!(said.contains("error"), "{said}");
    }
}
