//! What no event announced is found by comparing both sides, and what looks like a disaster is not
//! repeated at the target.

use std::time::Duration;

use hyper::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::http;
use crate::support::s3::S3;
use crate::support::server::{Pair, on_every_pair};
use crate::support::site::{Servers, Setup, Site};
use crate::support::writer::{Writer, seed};

const PERSON: &str = "a-person's-token";

/// A pass every second.
fn often() -> Setup {
    let settings =
        vec![("RECONCILE__INTERVAL", "1s".to_owned()), ("WEB__AUTH_TOKEN", PERSON.to_owned())];
    Setup { settings, ..Setup::default() }
}

/// Puts `count` objects, several at a time; their keys, in order.
async fn fill(store: &S3, bucket: &str, count: usize) -> Vec<String> {
    let keys: Vec<_> =
        (0..count).map(|number| format!("folder {}/{number:05}", number % 3)).collect();
    let mut writers = JoinSet::new();
    for keys in keys.chunks(count.div_ceil(16)) {
        let (store, bucket, keys) = (store.clone(), bucket.to_owned(), keys.to_vec());
        writers.spawn(async move {
            for key in keys {
                store.put(&bucket, &key, key.as_str()).await;
            }
        });
    }
    writers.join_all().await;
    keys
}

async fn passes(site: &Site, outcome: &str) -> f64 {
    let name = format!("evermirror_reconcile_passes_total{{outcome=\"{outcome}\"}}");
    site.evermirror.metric(&name).await.unwrap()
}

/// Stops evermirror with nothing left to do, and nobody tells it of what happens from now on.
async fn down(site: &mut Site) {
    site.source.notify(&site.bucket, &[]).await;
    assert_eq!(site.evermirror.terminate().await.code(), Some(0));
}

/// Waits until a pass since the start has ended like this.
async fn a_pass(site: &Site, outcome: &str) {
    eventually("a pass ends", LATER, async || {
        (passes(site, outcome).await > 0.0).then_some(()).ok_or("none yet".to_owned())
    })
    .await;
}

/// Waits until so many more passes have ended like this.
async fn more_passes(site: &Site, outcome: &str, more: f64) {
    let before = passes(site, outcome).await;
    eventually("there are more passes", LATER, async || {
        let now = passes(site, outcome).await;
        (now >= before + more).then_some(()).ok_or(format!("{now} after {before}"))
    })
    .await;
}

async fn at_target(site: &Site) -> usize {
    site.target.list(&site.target_bucket).await.unwrap().len()
}

async fn held(site: &Site, wanted: u64) {
    site.evermirror.counts("held", wanted, LATER).await;
}

async fn decide(site: &Site, decision: &str) {
    let url = site.evermirror.web(&format!("/api/v1/deletes/{}/{decision}", site.bucket));
    let token = format!("Bearer {PERSON}");
    let answer = http::request(Method::POST, &url, &[("authorization", &token)], "").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

/// A site whose two sides are equal, filled before evermirror was started.
async fn filled(pair: Pair, bucket: &str, setup: Setup, count: usize) -> (Site, Vec<String>) {
    let mut site = pair.shared().await.prepare(bucket, setup).await;
    let keys = fill(&site.source, bucket, count).await;
    site.evermirror.start().await;
    site.converges(LATER).await;
    (site, keys)
}

on_every_pair![
    what_was_there_before_the_start_is_copied,
    objects_of_which_the_source_never_told_are_found,
    what_another_site_replicates_into_the_source_is_found,
    whatever_changed_on_either_side_while_evermirror_was_down_is_mended,
    metadata_that_changed_without_an_event_is_found,
    a_reconcile_that_is_killed_again_and_again_comes_to_its_end,
    a_source_that_was_emptied_while_evermirror_was_down_keeps_its_copy_until_approved,
    what_a_person_keeps_stays_however_often_the_sides_are_compared,
    a_source_bucket_that_is_gone_deletes_nothing_and_is_told_of,
    a_listing_that_fails_in_the_middle_deletes_nothing,
    pages_that_claim_to_be_the_last_one_are_not_believed,
    a_listing_that_shrinks_is_held_and_deletes_nothing,
    what_is_put_and_copied_between_the_two_listings_pulls_no_brake,
];

async fn what_was_there_before_the_start_is_copied(pair: Pair) {
    let mut site = pair.shared().await.prepare("rec-before", Setup::default()).await;
    let mut taken = 0;
    for key in pair.hostile_keys() {
        taken += usize::from(site.source.try_put(&site.bucket, &key, key.as_str()).await.is_ok());
    }
    assert!(taken > 100, "the store took {taken} keys");
    let parts = [vec![1; 5 << 20], vec![2; 77]];
    site.source.put_parts(&site.bucket, "in parts", parts).await;
    site.source.tag(&site.bucket, "in parts", &[("team", "a b+c")]).await;
    site.evermirror.start().await;
    site.converges(LATER).await;
    let drift = site.evermirror.metric("evermirror_drift_total{kind=\"missing\"}").await.unwrap();
    assert!(drift >= 1.0);
    let status = site.evermirror.status().await.unwrap();
    assert!(status["reconcile"][0]["last_complete_ms"].as_i64().is_some(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_was_removed_by_force_goes_at_the_target() {
    let (site, _) = filled(Pair::MINIO, "rec-force", often(), 100).await;
    for number in 0..20 {
        site.put(&format!("gone/{number}"), "soon").await;
    }
    site.converges(SOON).await;
    let removal = site.source.client.delete_object().bucket(&site.bucket).key("gone/").customize();
    let removal = removal.mutate_request(|request| {
        request.headers_mut().insert("x-minio-force-delete", "true");
    });
    removal.send().await.unwrap();
    assert_eq!(site.source.list(&site.bucket).await.unwrap().len(), 100);
    site.converges(LATER).await;
}

async fn objects_of_which_the_source_never_told_are_found(pair: Pair) {
    let site = pair.shared().await.site("rec-silent", often()).await;
    site.source.notify(&site.bucket, &[]).await;
    let mut writer = Writer::new(seed(), &site.source, &site.bucket);
    for _ in 0..150 {
        writer.change().await;
    }
    site.converges(LATER).await;
    assert_eq!(site.evermirror.metric("evermirror_lag_seconds_count").await, Some(0.0));
}

/// Both stores send no notification of a request that says it is another site's replication; each has its
/// own header for that.
async fn what_another_site_replicates_into_the_source_is_found(pair: Pair) {
    let site = pair.shared().await.site("rec-inbound", often()).await;
    for key in ["stays", "goes", "changes"] {
        site.put(key, "before").await;
    }
    site.converges(SOON).await;
    let accepted = "evermirror_intake_events_total{outcome=\"accepted\"}";
    let told = site.evermirror.metric(accepted).await.unwrap();
    let client = &site.source.client;
    macro_rules! as_a_replica {
        ($request:expr) => {
            $request.customize().mutate_request(|request| {
                request.headers_mut().insert("x-minio-source-replication-request", "true");
                request.headers_mut().insert("x-rustfs-source-replication-request", "true");
            })
        };
    }
    for key in ["new", "changes"] {
        let put = client.put_object().bucket(&site.bucket).key(key);
        as_a_replica!(put.body(b"replicated".to_vec().into())).send().await.unwrap();
    }
    as_a_replica!(client.delete_object().bucket(&site.bucket).key("goes")).send().await.unwrap();
    site.converges(LATER).await;
    assert_eq!(at_target(&site).await, 3);
    assert_eq!(site.evermirror.metric(accepted).await, Some(told), "the store told of it");
}

async fn whatever_changed_on_either_side_while_evermirror_was_down_is_mended(pair: Pair) {
    let seed = seed();
    let (mut site, keys) = filled(pair, "rec-both", Setup::default(), 200).await;
    site.evermirror.kill();
    let mut random = StdRng::seed_from_u64(seed);
    let mut writer = Writer::new(seed, &site.source, &site.bucket);
    for _ in 0..100 {
        writer.change().await;
    }
    for _ in 0..40 {
        let key = &keys[random.random_range(0..keys.len())];
        let (target, bucket) = (&site.target, &site.target_bucket);
        match random.random_range(0..5) {
            0 => target.put(bucket, &format!("foreign/{key}"), "not the source's").await,
            1 => target.put(bucket, key, "x".repeat(key.len())).await,
            2 => target.put(bucket, key, "of another length altogether").await,
            3 => target.delete(bucket, key).await,
            _ => site.delete(key).await,
        }
    }
    let as_written = site.source.list(&site.bucket).await.unwrap();
    site.evermirror.start().await;
    site.converges(LATER).await;
    // They are equal because the target follows, and not the other way about.
    assert_eq!(site.source.list(&site.bucket).await.unwrap(), as_written);
}

async fn metadata_that_changed_without_an_event_is_found(pair: Pair) {
    let site = pair.shared().await.site("rec-metadata", often()).await;
    site.put("key", "value").await;
    site.converges(SOON).await;
    site.source.notify(&site.bucket, &[]).await;
    let modified = async |store: &S3, bucket: &str, key: &str| {
        let head = store.client.head_object().bucket(bucket).key(key).send().await.unwrap();
        head.last_modified().unwrap().secs()
    };
    let copied = modified(&site.target, &site.target_bucket, "key").await;
    // Listings tell a change by its time alone, and the clocks are compared by whole seconds.
    eventually("the source's clock is well past the copy", SOON, async || {
        site.put("clock", "tick").await;
        let now = modified(&site.source, &site.bucket, "clock").await;
        (now > copied + 3).then_some(()).ok_or(format!("{now} after {copied}"))
    })
    .await;
    let put = site.source.client.put_object().bucket(&site.bucket).key("key");
    let put = put.body(b"value".to_vec().into()).content_type("text/changed");
    put.metadata("new", "yes").send().await.unwrap();
    site.converges(LATER).await;
    let drift = site.evermirror.metric("evermirror_drift_total{kind=\"newer\"}").await.unwrap();
    assert!(drift >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_newer_than_their_copies_are_looked_at_and_then_left_alone() {
    let mut site = Servers::shared().await.site("rec-newer", often()).await;
    let count = fill(&site.source, &site.bucket, 30).await.len();
    site.converges(LATER).await;
    down(&mut site).await;
    let modified = async |store: &S3, bucket: &str| {
        let listed = store.client.list_objects_v2().bucket(bucket).send().await.unwrap();
        listed.contents().iter().map(|object| object.last_modified().unwrap().secs()).collect()
    };
    let copied: Vec<i64> = modified(&site.target, &site.target_bucket).await;
    // As after a restore: the same objects, written later.
    eventually("every object is newer than its copy", LATER, async || {
        fill(&site.source, &site.bucket, count).await;
        let written: Vec<i64> = modified(&site.source, &site.bucket).await;
        let (oldest, newest) = (written.iter().min(), copied.iter().max());
        (oldest > newest.map(|secs| secs + 3).as_ref()).then_some(()).ok_or("not yet".to_owned())
    })
    .await;
    site.evermirror.start().await;
    let newer = async |site: &Site| {
        site.evermirror.metric("evermirror_drift_total{kind=\"newer\"}").await.unwrap()
    };
    more_passes(&site, "complete", 1.0).await;
    assert!(newer(&site).await >= 30.0, "{}", newer(&site).await);
    // A pass looks again at what was written while the one before it began.
    eventually("nothing is looked at any more", LATER, async || {
        let before = newer(&site).await;
        more_passes(&site, "complete", 2.0).await;
        let now = newer(&site).await;
        (now <= before).then_some(()).ok_or(format!("{now} after {before}"))
    })
    .await;
    let copied = "evermirror_replicated_total{action=\"copied\"}";
    assert_eq!(site.evermirror.metric(copied).await, Some(0.0));

    // A change of metadata alone is still found afterwards.
    let put = site.source.client.put_object().bucket(&site.bucket).key("folder 0/00000");
    let put = put.body(b"folder 0/00000".to_vec().into()).content_type("text/changed");
    put.send().await.unwrap();
    site.converges(LATER).await;
}

async fn a_reconcile_that_is_killed_again_and_again_comes_to_its_end(pair: Pair) {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let servers = pair.shared().await;
    // Slow enough that a kill hits the middle.
    let slow = FaultProxy::in_front_of(&servers.source.authority()).await;
    slow.misbehave(|method, uri| {
        let listing = *method == Method::GET && uri.to_string().contains("list-type=2");
        listing.then_some(Fault::Wait(Duration::from_millis(100)))
    });
    let settings = vec![("RECONCILE__PARALLEL", "2".to_owned())];
    let setup = Setup { source_endpoint: Some(slow.endpoint()), settings, ..Setup::default() };
    let mut site = servers.prepare("rec-killed", setup).await;
    fill(&site.source, "rec-killed", 4_000).await;
    site.target.create_bucket(&site.target_bucket).await;
    fill(&site.target, &site.target_bucket, 1_000).await;
    for number in 0..50 {
        site.target.put(&site.target_bucket, &format!("foreign {number}"), "").await;
    }
    for _ in 0..6 {
        site.evermirror.start().await;
        // Not a wait for anything: the moment itself is what is random.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1_500))).await;
        site.evermirror.kill();
    }
    // Once more, when a range is finished and the last one hangs: what was done is not done again.
    slow.misbehave(|method, uri| {
        let last = *method == Method::GET && uri.to_string().contains("folder%202");
        last.then_some(Fault::Wait(Duration::from_mins(1)))
    });
    site.source.delete(&site.bucket, "folder 0/00000").await;
    std::fs::remove_dir_all(site.evermirror.data_dir().join("reconcile")).unwrap();
    site.evermirror.start().await;
    let checkpoint = site.evermirror.data_dir().join("reconcile/rec-killed.json");
    eventually("a range is done", LATER, async || {
        let text = std::fs::read_to_string(&checkpoint).map_err(|error| error.to_string())?;
        let saved: serde_json::Value = serde_json::from_str(&text).unwrap();
        let done = saved["done"].as_array().is_some_and(|ranges| !ranges.is_empty());
        done.then_some(()).ok_or(text)
    })
    .await;
    site.evermirror.kill();
    slow.behave();
    site.evermirror.start().await;
    a_pass(&site, "resumed").await;
    site.converges(LATER).await;
}

/// The target's listing comes late, as from a store that throttles, and names what the source's did not.
async fn what_is_put_and_copied_between_the_two_listings_pulls_no_brake(pair: Pair) {
    const OBJECTS: usize = 40;
    let servers = pair.shared().await;
    let source = FaultProxy::in_front_of(&servers.source.authority()).await;
    let late = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup {
        source_endpoint: Some(source.endpoint()),
        target_endpoint: Some(late.endpoint()),
        ..Setup::default()
    };
    let mut site = servers.prepare("rec-between", setup).await;
    let listing = |request: &str| request.starts_with("GET /") && request.contains("list-type=2");
    late.hold_after(0, move |method, uri| listing(&format!("{method} {uri}")));
    site.evermirror.start().await;
    late.holds_one().await;
    eventually("the source is listed", SOON, async || {
        let seen = source.seen();
        seen.iter().any(|request| listing(request)).then_some(()).ok_or(format!("{seen:?}"))
    })
    .await;
    for number in 0..OBJECTS {
        site.put(&format!("{number}"), "value").await;
    }
    eventually("all are copied", LATER, async || {
        let there = site.target.list(&site.target_bucket).await?.len();
        (there == OBJECTS).then_some(()).ok_or(format!("{there} are"))
    })
    .await;
    late.behave();
    site.walked().await;
    site.delete("0").await;
    site.converges(LATER).await;
    let log = site.evermirror.log();
    assert!(!log.contains("The brake on deletes is on"), "{log}");
}

async fn a_source_that_was_emptied_while_evermirror_was_down_keeps_its_copy_until_approved(
    pair: Pair,
) {
    let (mut site, keys) = filled(pair, "rec-wiped", often(), 40).await;
    down(&mut site).await;
    site.source.delete_all(&site.bucket, &keys).await;
    site.evermirror.start().await;
    held(&site, 40).await;
    let status = site.evermirror.status().await.unwrap();
    assert!(status["held"][0]["reason"].as_str().unwrap().contains("looks wiped"), "{status}");
    // Further passes find the same, and nothing is counted twice.
    more_passes(&site, "complete", 3.0).await;
    assert_eq!((site.evermirror.count("held").await, at_target(&site).await), (Ok(40), 40));
    decide(&site, "approve").await;
    site.converges(LATER).await;
    assert_eq!(at_target(&site).await, 0);
}

async fn what_a_person_keeps_stays_however_often_the_sides_are_compared(pair: Pair) {
    let (mut site, keys) = filled(pair, "rec-kept", often(), 60).await;
    down(&mut site).await;
    site.source.delete_all(&site.bucket, &keys[..30]).await;
    site.evermirror.start().await;
    held(&site, 30).await;
    decide(&site, "discard").await;
    more_passes(&site, "complete", 3.0).await;
    assert_eq!(site.evermirror.terminate().await.code(), Some(0));
    site.evermirror.start().await;
    more_passes(&site, "complete", 2.0).await;
    assert_eq!((site.evermirror.count("held").await, at_target(&site).await), (Ok(0), 60));
    // One that the source has again is an object like any other.
    site.put(&keys[0], "back").await;
    eventually("it is copied", SOON, async || {
        let (here, there) =
            (site.source.list(&site.bucket).await?, site.target.list(&site.target_bucket).await?);
        (here.get(&keys[0]) == there.get(&keys[0])).then_some(()).ok_or("not yet".to_owned())
    })
    .await;
    site.delete(&keys[0]).await;
    eventually("it goes", LATER, async || {
        let count = at_target(&site).await;
        (count == 59).then_some(()).ok_or(format!("{count} are left"))
    })
    .await;
}

async fn a_source_bucket_that_is_gone_deletes_nothing_and_is_told_of(pair: Pair) {
    let (mut site, keys) = filled(pair, "rec-removed", often(), 25).await;
    down(&mut site).await;
    site.source.delete_all(&site.bucket, &keys).await;
    site.source.client.delete_bucket().bucket(&site.bucket).send().await.unwrap();
    site.evermirror.start().await;
    a_pass(&site, "failed").await;
    let status = site.evermirror.status().await.unwrap();
    let error = status["reconcile"][0]["last_error"].as_str().unwrap();
    assert!(error.contains("rec-removed"), "{error}");
    assert_eq!((site.evermirror.idle().await, at_target(&site).await), (Ok(()), 25));
}

fn cut_short(page: &str) -> String {
    page.replace("<IsTruncated>true</IsTruncated>", "<IsTruncated>false</IsTruncated>")
}

/// Every page but the first is the empty end of the listing.
fn emptied(page: &str) -> String {
    let Some((head, rest)) = page.split_once("<Contents>") else { return page.to_owned() };
    let end = rest.rsplit_once("</Contents>").map_or("", |(_, end)| end);
    cut_short(&format!("{head}{end}"))
}

/// Two equal sides, and a source whose listings go wrong as `fault` says, by method and query.
async fn lying(
    pair: Pair,
    bucket: &'static str,
    fault: impl Fn(&str) -> Option<Fault> + Send + 'static,
) -> (Site, FaultProxy) {
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    let settings = vec![("RECONCILE__PARALLEL", "1".to_owned())];
    let setup = Setup { source_endpoint: Some(proxy.endpoint()), settings, ..Setup::default() };
    let (mut site, _) = filled(pair, bucket, setup, 2_500).await;
    site.evermirror.kill();
    proxy.misbehave(move |_, uri| {
        let uri = uri.to_string();
        if uri.contains("list-type=2") && !uri.contains("max-keys=1&") { fault(&uri) } else { None }
    });
    site.evermirror.start().await;
    (site, proxy)
}

fn behind_the_first_page(uri: &str) -> bool {
    uri.contains("continuation-token=") || uri.contains("start-after=")
}

async fn a_listing_that_fails_in_the_middle_deletes_nothing(pair: Pair) {
    let (mut site, proxy) = lying(pair, "rec-500", |uri| {
        behind_the_first_page(uri).then_some(Fault::Answer(500, "InternalError"))
    })
    .await;
    a_pass(&site, "failed").await;
    assert!(proxy.faults() > 0);
    assert_eq!((site.evermirror.idle().await, at_target(&site).await), (Ok(()), 2_500));
    proxy.behave();
    site.evermirror.kill();
    site.evermirror.start().await;
    a_pass(&site, "complete").await;
    site.converges(LATER).await;
}

async fn pages_that_claim_to_be_the_last_one_are_not_believed(pair: Pair) {
    let (site, proxy) = lying(pair, "rec-cut", |_| Some(Fault::EditAnswer(cut_short))).await;
    a_pass(&site, "complete").await;
    assert!(proxy.faults() > 2);
    assert_eq!(site.evermirror.metric("evermirror_drift_total").await, Some(0.0));
    site.converges(LATER).await;
}

async fn a_listing_that_shrinks_is_held_and_deletes_nothing(pair: Pair) {
    let (site, _proxy) = lying(pair, "rec-shrunk", |uri| {
        behind_the_first_page(uri).then_some(Fault::EditAnswer(emptied))
    })
    .await;
    held(&site, 1_500).await;
    assert_eq!(at_target(&site).await, 2_500);
    let status = site.evermirror.status().await.unwrap();
    let reason = status["held"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("deletes.max_delete_percent"), "{reason}");
}
