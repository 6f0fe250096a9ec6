//! `evermirror verify`: every planted difference is found, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hyper::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::reconcile_engine::from_the_first_key;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::server::{Pair, on_every_pair};
use crate::support::site::{Setup, Site};

/// Twelve objects, the same on both sides, one of them in parts.
async fn agreeing(pair: Pair, bucket: &str, setup: Setup) -> Site {
    let site = pair.shared().await.silent(bucket, setup).await;
    for number in 0..10 {
        site.put(&format!("key/{number}"), format!("value {number}")).await;
    }
    let call = site.source.client.put_object().bucket(bucket).key("rich").metadata("who", "me");
    call.tagging("colour=red").body(b"rich".to_vec().into()).send().await.unwrap();
    site.source.put_parts(bucket, "parts", [vec![1; 5 << 20], vec![2; 7]]).await;
    let (status, answer) = site.evermirror.once(&["sync"]).await;
    assert_eq!((status, &answer["copied"]), (0, &json!(12)), "{answer}");
    site
}

/// The kinds of difference that were found, and how many of each.
fn kinds(answer: &Value) -> BTreeMap<String, u64> {
    let kinds = answer["by_kind"].as_object().unwrap().iter();
    let counts = kinds.map(|(kind, count)| (kind.clone(), count.as_u64().unwrap()));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn expected<const N: usize>(kinds: [&str; N]) -> BTreeMap<String, u64> {
    kinds.into_iter().map(|kind| (kind.to_owned(), 1)).collect()
}

on_every_pair![
    sides_that_agree_are_told_so_however_closely_they_are_looked_at,
    every_difference_that_listings_show_is_reported_with_what_it_is,
    what_is_to_stay_at_the_target_is_no_difference,
    headers_and_tags_are_compared_if_asked_for,
    bytes_that_differ_under_the_same_etag_are_found_by_reading_them,
    objects_whose_tags_cannot_agree_are_known_by_their_pair_and_else_by_their_bytes,
    a_comparison_that_cannot_be_finished_is_no_agreement,
];

async fn sides_that_agree_are_told_so_however_closely_they_are_looked_at(pair: Pair) {
    let site = agreeing(pair, "verify-same", Setup::default()).await;
    for how in [&["verify"][..], &["verify", "--metadata"], &["verify", "--metadata", "--deep"]] {
        let (status, answer) = site.evermirror.once(how).await;
        assert_eq!((status, &answer["differences"]), (0, &json!(0)), "{answer}");
        assert_eq!((&answer["complete"], &answer["compared"]), (&json!(true), &json!(12)));
    }
    let output = site.evermirror.command(&["verify"]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("12 keys compared") && said.contains("0 differences"), "{said}");
}

async fn every_difference_that_listings_show_is_reported_with_what_it_is(pair: Pair) {
    let site = agreeing(pair, "verify-listed", Setup::default()).await;
    site.target.delete(&site.target_bucket, "key/0").await;
    site.target.put(&site.target_bucket, "key/extra", "theirs").await;
    site.target.put(&site.target_bucket, "key/1", "value X").await;
    site.target.put(&site.target_bucket, "key/2", "longer than before").await;
    let report = tempfile::tempdir().unwrap();
    let file = report.path().join("differences");
    let before = site.target.list(&site.target_bucket).await.unwrap();
    let arguments = ["verify", "--report", file.to_str().unwrap()];
    let (status, answer) = site.evermirror.once(&arguments).await;
    assert_eq!(status, 1);
    let kinds = kinds(&answer);
    assert_eq!(kinds, expected(["missing", "extra", "different_etag", "different_size"]));
    let found: BTreeMap<_, _> = lines(&file)
        .iter()
        .map(|line| {
            assert_eq!(line["bucket"], "verify-listed");
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            (text("key"), text("finding"))
        })
        .collect();
    let wanted = [
        ("key/0", "missing"),
        ("key/1", "different_etag"),
        ("key/2", "different_size"),
        ("key/extra", "extra"),
    ];
    assert_eq!(found, wanted.map(|(key, kind)| (key.to_owned(), kind.to_owned())).into());
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap(), before, "it is read-only");
    assert!(!site.evermirror.data_dir().join("verify").exists());

    let (status, answer) = site.evermirror.once(&["verify", "--prefix", "key/9"]).await;
    assert_eq!((status, &answer["compared"]), (0, &json!(1)), "{answer}");
    // However closely it is looked, each is reported once.
    let (status, answer) = site.evermirror.once(&["verify", "--metadata", "--deep"]).await;
    assert_eq!((status, &answer["differences"]), (1, &json!(4)), "{answer}");
}

async fn what_is_to_stay_at_the_target_is_no_difference(pair: Pair) {
    let mut site = agreeing(pair, "verify-kept", Setup::default()).await;
    for key in ["key/0", "key/1"] {
        site.delete(key).await;
    }
    let (status, answer) = site.evermirror.once(&["verify"]).await;
    assert_eq!((status, &answer["by_kind"]["extra"]), (1, &json!(2)), "{answer}");
    for policy in ["archive", "delay"] {
        site.evermirror.set("BUCKETS__0__DELETES", policy);
        let report = tempfile::tempdir().unwrap();
        let file = report.path().join("differences");
        let arguments = ["verify", "--metadata", "--report", file.to_str().unwrap()];
        let (status, answer) = site.evermirror.once(&arguments).await;
        assert_eq!((status, &answer["differences"]), (0, &json!(0)), "{answer}");
        assert_eq!((&answer["kept"], &answer["first"]), (&json!(2), &json!([])), "{answer}");
        let mut keys: Vec<_> = lines(&file)
            .iter()
            .map(|line| {
                assert_eq!(line["finding"], "kept");
                assert!(line["detail"].as_str().unwrap().contains(policy), "{line}");
                line["key"].as_str().unwrap().to_owned()
            })
            .collect();
        keys.sort_unstable();
        assert_eq!(keys, ["key/0", "key/1"]);
        let said = site.evermirror.command(&["verify"]).await.stdout;
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("0 differences") && said.contains("2 more are only at"), "{said}");
        // Whatever else differs is told all the same.
        site.target.delete(&site.target_bucket, "rich").await;
        let (status, answer) = site.evermirror.once(&["verify"]).await;
        assert_eq!((status, kinds(&answer)), (1, expected(["missing"])), "{answer}");
        let (status, answer) = site.evermirror.once(&["sync"]).await;
        assert_eq!((status, &answer["copied"], &answer["deleted"]), (0, &json!(1), &json!(0)));
        let delayed = if policy == "delay" { 2 } else { 0 };
        assert_eq!((&answer["kept"], &answer["delayed"]), (&json!(2), &json!(delayed)), "{answer}");
    }
}

async fn headers_and_tags_are_compared_if_asked_for(pair: Pair) {
    let site = agreeing(pair, "verify-metadata", Setup::default()).await;
    site.target.tag(&site.target_bucket, "key/4", &[("colour", "blue")]).await;
    let copy = site.target.client.copy_object().bucket(&site.target_bucket).key("key/5");
    let copy = copy.copy_source(format!("{}/key/5", site.target_bucket)).metadata("who", "they");
    copy.metadata_directive("REPLACE".into()).send().await.unwrap();
    let (status, answer) = site.evermirror.once(&["verify"]).await;
    assert_eq!((status, &answer["differences"]), (0, &json!(0)), "no listing shows it: {answer}");
    let (status, answer) = site.evermirror.once(&["verify", "--metadata"]).await;
    assert_eq!((status, kinds(&answer)), (1, expected(["metadata", "tags"])), "{answer}");
    for found in answer["first"].as_array().unwrap() {
        let (finding, detail) = (found["finding"].as_str().unwrap(), &found["detail"]);
        assert_eq!(
            *detail,
            if finding == "tags" { "colour" } else { "content-type, x-amz-meta-who" }
        );
    }
}

async fn bytes_that_differ_under_the_same_etag_are_found_by_reading_them(pair: Pair) {
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = agreeing(pair, "verify-deep", setup).await;
    // A store that answers other bytes than it lists: what a bad disk behind it does.
    proxy.misbehave(|method, uri| {
        let about_tags = uri.query().unwrap_or("").contains("tagging");
        let rotten = method == Method::GET && uri.path().ends_with("/key/7") && !about_tags;
        rotten.then_some(Fault::SpoilAnswer)
    });
    let (status, answer) = site.evermirror.once(&["verify", "--metadata"]).await;
    assert_eq!((status, &answer["differences"]), (0, &json!(0)), "{answer}");
    let (status, answer) = site.evermirror.once(&["verify", "--deep"]).await;
    assert_eq!((status, kinds(&answer)), (1, expected(["different_bytes"])), "{answer}");
    assert_eq!(answer["first"][0]["key"], "key/7");
}

async fn objects_whose_tags_cannot_agree_are_known_by_their_pair_and_else_by_their_bytes(
    pair: Pair,
) {
    let setup = Setup {
        settings: vec![("REPLICATE__MULTIPART_THRESHOLD", "5MiB".to_owned())],
        ..Setup::default()
    };
    let site = pair.shared().await.silent("verify-pairs", setup).await;
    // In one piece at the source, in parts at the target.
    site.put("paired", vec![7; 6 << 20]).await;
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
    let (status, answer) = site.evermirror.once(&["verify", "--metadata"]).await;
    assert_eq!((status, &answer["differences"]), (0, &json!(0)), "{answer}");
    assert_eq!(site.evermirror.once(&["verify"]).await.0, 0);

    // Uploaded by someone else, in parts: the same bytes, and nothing that says so.
    site.target
        .put_parts(&site.target_bucket, "paired", [vec![7; 5 << 20], vec![7; 1 << 20]])
        .await;
    let (status, answer) = site.evermirror.once(&["verify"]).await;
    assert_eq!((status, kinds(&answer)), (1, expected(["unverifiable"])), "{answer}");
    let (status, answer) = site.evermirror.once(&["verify", "--deep"]).await;
    assert_eq!((status, &answer["differences"]), (0, &json!(0)), "{answer}");
}

async fn a_comparison_that_cannot_be_finished_is_no_agreement(pair: Pair) {
    let servers = pair.shared().await;
    let site = servers.silent("verify-half", Setup::default()).await;
    site.put("key", "value").await;
    // There is no bucket at the target.
    let (status, answer) = site.evermirror.once(&["verify"]).await;
    assert_eq!((status, &answer["complete"]), (2, &json!(false)), "{answer}");
    assert!(answer["errors"][0].as_str().unwrap().contains("verify-half-copy"), "{answer}");
    assert_eq!(answer["unfinished"], json!([{"bucket": "verify-half", "start_after": null}]));
}

/// The lines of a report file.
fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Their keys.
fn keys(file: &Path) -> BTreeSet<String> {
    lines(file).iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_verify_names_the_place_from_which_another_finds_the_rest() {
    let servers = Pair::MINIO.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup {
        target_endpoint: Some(proxy.endpoint()),
        settings: vec![("REPLICATE__CONCURRENCY", "2".to_owned())],
        ..Setup::default()
    };
    let mut site = servers.silent("verify-place", setup).await;
    for number in 0..100 {
        site.put(&format!("{number:03}"), format!("value {number}")).await;
    }
    assert_eq!(site.evermirror.once(&["sync"]).await.0, 0);
    let copy = site.target.client.copy_object().bucket(&site.target_bucket).key("005");
    let copy = copy.copy_source(format!("{}/005", site.target_bucket)).metadata("who", "they");
    copy.metadata_directive("REPLACE".into()).send().await.unwrap();
    site.target.delete(&site.target_bucket, "097").await;
    site.target.put(&site.target_bucket, "050 extra", "theirs").await;
    site.target.put(&site.target_bucket, "060", "another value").await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let verify = async |name: &str, options: &[&str]| {
        let path = file(name);
        let report = ["verify", "--metadata", "--report", path.to_str().unwrap()];
        site.evermirror.once(&[&report[..], options].concat()).await
    };
    // From now on, nothing was written a moment ago, for which a key is looked at again and again.
    let (status, answer) = verify("whole", &[]).await;
    assert_eq!((status, &answer["unfinished"]), (1, &json!([])), "{answer}");
    let whole = keys(&file("whole"));
    assert_eq!(whole, ["005", "050 extra", "060", "097"].map(str::to_owned).into());

    proxy.hold_after(40, |method, uri| {
        let object = uri.path().matches('/').count() > 1 && uri.path().len() > 20;
        object && method == Method::HEAD
    });
    let first = file("first");
    let arguments = ["verify", "--metadata", "--json", "--report", first.to_str().unwrap()];
    let stopped = site.evermirror.begin(&arguments);
    proxy.holds_one().await;
    stopped.interrupt("INT").await;
    proxy.behave();
    let (status, answer) = stopped.ended().await;
    let answer = answer.expect("one JSON object");
    assert_eq!((status.code(), &answer["interrupted"]), (Some(1), &json!(true)), "{answer}");
    assert_eq!(answer["unfinished"][0]["bucket"], "verify-place", "{answer}");
    let place = answer["unfinished"][0]["start_after"].as_str().expect("a place").to_owned();
    assert!(("006"..="096").contains(&&*place), "{answer}");

    let (status, answer) =
        verify("second", &["--bucket", "verify-place", "--start-after", &place]).await;
    assert_eq!((status, &answer["complete"]), (1, &json!(true)), "{answer}");
    assert!(answer["compared"].as_u64().unwrap() < 95, "{answer}");
    let (first, second) = (keys(&first), keys(&file("second")));
    assert!(second.iter().all(|key| *key > place), "{second:?}");
    assert_eq!(first.union(&second).cloned().collect::<BTreeSet<_>>(), whole);
    let said = site.evermirror.command(&["verify", "--start-after", "098"]).await.stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("1 keys compared") && said.contains("up to \"098\" were left"), "{said}");

    // A place is one of one bucket.
    site.evermirror.set("BUCKETS__1__SOURCE", "another");
    let output = site.evermirror.command(&["verify", "--start-after", "1"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    assert!(said.contains("--bucket") && said.contains("verify-place, another"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_compared_by_how_far_the_clocks_are_apart() {
    let servers = Pair::MINIO.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = agreeing(Pair::MINIO, "verify-clocks", setup).await;
    // If the target's clock is an hour slow, its copies are an hour older than it says, so later than what
    // they were made of. If it is an hour fast, every one looks older than its object.
    for (hours, newer) in [(-1, 0), (1, 12)] {
        let by = SignedDuration::from_hours(hours);
        proxy.misbehave(move |_, _| Some(Fault::MoveClock(by)));
        let (status, answer) = site.evermirror.once(&["verify"]).await;
        assert_eq!((status, &answer["newer"]), (0, &json!(newer)), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verify_goes_on_also_where_the_store_ignores_start_after() {
    let servers = Pair::MINIO.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    let setup = Setup { source_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = agreeing(Pair::MINIO, "verify-ignores", setup).await;
    site.target.delete(&site.target_bucket, "key/1").await;
    site.target.delete(&site.target_bucket, "rich").await;
    proxy.misbehave(|_, uri| {
        uri.to_string().contains("start-after=").then_some(Fault::EditAnswer(from_the_first_key))
    });
    let arguments = ["verify", "--metadata", "--start-after", "key/7"];
    let (status, answer) = site.evermirror.once(&arguments).await;
    assert_eq!((status, kinds(&answer)), (1, expected(["missing"])), "{answer}");
    assert_eq!((&answer["first"][0]["key"], &answer["complete"]), (&json!("rich"), &json!(true)));
    assert!(proxy.faults() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_while_verify_runs_is_not_blamed_for_it() {
    let servers = Pair::MINIO.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = agreeing(Pair::MINIO, "verify-moving", setup).await;
    // Written a moment ago, and its copy is on its way: both listings, and two looks, see a difference.
    site.put("key/0", "a new value").await;
    site.put("key/new", "a new key").await;
    // Both keys are looked at twice before that.
    proxy.hold_after(4, |method, uri| method == Method::HEAD && uri.path().contains("/key/"));
    let verifying = site.evermirror.begin(&["verify", "--json"]);
    proxy.holds_one().await;
    site.target.put(&site.target_bucket, "key/0", "a new value").await;
    site.target.put(&site.target_bucket, "key/new", "a new key").await;
    proxy.behave();
    let (status, answer) = verifying.ended().await;
    let answer = answer.expect("one JSON object");
    assert_eq!((status.code(), &answer["differences"]), (Some(0), &json!(0)), "{answer}");
}
