//! The way back: by one command, into a clean store, proven.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use hyper::Method;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::compare::{Picture, differences, picture};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::evermirror::Evermirror;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::s3::S3;
use crate::support::server::{Pair, on_every_pair};
use crate::support::site::{Setup, Site};

/// Every object of a bucket, field by field.
async fn pictures(store: &S3, bucket: &str) -> BTreeMap<String, Picture> {
    let mut all = BTreeMap::new();
    for key in store.list(bucket).await.unwrap().into_keys() {
        let picture = picture(store, bucket, &key).await.unwrap();
        all.insert(key, picture);
    }
    all
}

fn assert_same(wanted: &BTreeMap<String, Picture>, found: &BTreeMap<String, Picture>) {
    let keys = |all: &BTreeMap<String, Picture>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(wanted), keys(found));
    let lines: Vec<_> =
        wanted.iter().flat_map(|(key, picture)| differences(key, picture, &found[key])).collect();
    assert!(lines.is_empty(), "{lines:#?}");
}

/// Runs `evermirror restore` to its end.
fn run(evermirror: &Evermirror, arguments: &[&str]) -> Output {
    let mut command = evermirror.process(&[&["restore"], arguments].concat());
    tokio::task::block_in_place(|| command.output()).expect("the binary starts")
}

/// Runs it with `--json`; it must succeed.
fn restore(evermirror: &Evermirror, arguments: &[&str]) -> Value {
    let output = run(evermirror, &[arguments, &["--json"]].concat());
    let log = String::from_utf8_lossy(&output.stderr);
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{report}\n{log}", output.status);
    serde_json::from_str(&report).expect("a report")
}

/// Runs it; it must fail, and say this.
fn refused(evermirror: &Evermirror, arguments: &[&str], reason: &str) {
    let output = run(evermirror, &[arguments, &["--json"]].concat());
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains(reason), "{reason:?} is not in {log}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["outcome"], "failed");
    assert!(report["errors"][0].as_str().unwrap().contains(reason), "{report}");
}

/// All kinds of objects.
async fn fill(pair: Pair, site: &Site) {
    for (number, key) in pair.hostile_keys().into_iter().enumerate() {
        let call = site.source.client.put_object().bucket(&site.bucket).key(&key);
        let call = call
            .body(ByteStream::from(vec![b'x'; number * 97]))
            .content_type(format!("text/x-{number}; charset=\"utf-8\""))
            .cache_control("max-age=60")
            .content_disposition("attachment")
            .metadata("number", number.to_string())
            .tagging(format!("number={number}&of=restore"));
        // The server refuses some of these keys.
        drop(call.send().await);
    }
    for name in ["parts/a", "parts/b"] {
        let parts = [vec![1; 5 << 20], vec![2; (6 << 20) + 1], vec![3; 7]];
        site.source.put_parts(&site.bucket, name, parts).await;
    }
    site.put("large", vec![7; 9 << 20]).await;
    site.put("empty", "").await;
}

on_every_pair![
    a_destroyed_source_comes_back_as_it_was_and_nothing_living_is_overwritten,
    another_store_another_bucket_and_a_prefix_while_run_goes_on,
    only_the_chosen_bucket_comes_back,
    a_restore_that_is_killed_goes_on_where_it_was,
    a_commit_is_written_only_after_all_that_it_names,
    a_commit_is_left_out_while_a_file_before_it_fails,
    each_point_of_a_recorded_history_comes_back,
    a_disaster_costs_no_more_than_what_was_shown_as_pending,
];

async fn a_destroyed_source_comes_back_as_it_was_and_nothing_living_is_overwritten(pair: Pair) {
    let mut servers = pair.own().await;
    let mut site = servers.site("destroyed", Setup::default()).await;
    fill(pair, &site).await;
    site.converges(LATER).await;
    let wanted = pictures(&site.source, &site.bucket).await;
    refused(&site.evermirror, &[], "`evermirror run` is at work");
    site.evermirror.terminate().await;
    refused(&site.evermirror, &[], "is not empty");

    servers.source.lose_everything().await;
    let plan = restore(&site.evermirror, &["--dry-run"]);
    assert_eq!(plan["outcome"], "planned");
    assert_eq!(plan["buckets"][0]["objects"], wanted.len());
    let source = servers.source.client();
    assert!(source.list("destroyed").await.is_err(), "a dry run has made the bucket");
    let report = restore(&site.evermirror, &[]);
    assert_eq!((&report["outcome"], &report["copied"]), (&"restored".into(), &wanted.len().into()));
    assert_same(&wanted, &pictures(&source, "destroyed").await);

    // Into a bucket with a life of its own: what differs comes back, what is only there stays.
    source.put("destroyed", "empty", "not empty any more").await;
    source.put("destroyed", "new", "written after the disaster").await;
    source.delete("destroyed", "large").await;
    refused(&site.evermirror, &[], "is not empty");
    let report = restore(&site.evermirror, &["--into-non-empty"]);
    assert_eq!((&report["copied"], &report["buckets"][0]["extra"]), (&2.into(), &1.into()));
    let mut found = pictures(&source, "destroyed").await;
    assert!(found.remove("new").is_some());
    assert_same(&wanted, &found);
}

async fn another_store_another_bucket_and_a_prefix_while_run_goes_on(pair: Pair) {
    let site = pair.site("elsewhere").await;
    for key in ["keep/a", "keep/b", "other"] {
        site.put(key, key).await;
    }
    site.converges(SOON).await;
    // As evermirror marks an object whose tag cannot be the source's.
    let call = site.target.client.put_object().bucket(&site.target_bucket).key("keep/marked");
    let call = call.metadata("evermirror-source-etag", "abc").metadata("mine", "yes");
    call.body(ByteStream::from_static(b"marked")).send().await.unwrap();

    let fresh = pair.fresh_source().await;
    let endpoint = fresh.endpoint();
    let to = ["--to-endpoint", &endpoint, "--map", "elsewhere=moved", "--prefix", "keep/"];
    restore(&site.evermirror, &to);
    let store = fresh.client();
    let found = store.list("moved").await.unwrap();
    assert_eq!(found.into_keys().collect::<Vec<_>>(), ["keep/a", "keep/b", "keep/marked"]);
    let head = store.client.head_object().bucket("moved").key("keep/marked");
    let head = head.send().await.unwrap();
    let metadata = head.metadata().unwrap();
    assert_eq!((metadata.len(), metadata["mine"].as_str()), (1, "yes"));
    refused(&site.evermirror, &["--map", "nothing=x"], "is not one of the source buckets");
    refused(&site.evermirror, &["--at", "1m", "--to-endpoint", &endpoint], "keeps no versions");
}

async fn only_the_chosen_bucket_comes_back(pair: Pair) {
    let settings = vec![("BUCKETS__1__SOURCE", "not-chosen".to_owned())];
    let setup = Setup { settings, ..Setup::default() };
    let site = pair.shared().await.silent("chosen", setup).await;
    for bucket in [&*site.target_bucket, "not-chosen"] {
        site.target.create_bucket(bucket).await;
        site.target.put(bucket, "key", bucket).await;
    }
    let report = restore(&site.evermirror, &["--bucket", "chosen"]);
    assert_eq!((&report["copied"], report["buckets"].as_array().unwrap().len()), (&1.into(), 1));
    assert_eq!(site.source.list("chosen").await.unwrap().len(), 1);
    assert!(site.source.list("not-chosen").await.is_err(), "the other one was made, too");
}

async fn a_restore_that_is_killed_goes_on_where_it_was(pair: Pair) {
    let mut site = pair.site("killed-restore").await;
    let put = async |n: usize| site.put(&format!("k/{n:03}"), format!("content {n}")).await;
    join_all((0..400).map(put)).await;
    let parts = [vec![1; 5 << 20], vec![2; 5 << 20], vec![3; 5 << 20]];
    site.source.put_parts(&site.bucket, "k/150-parts", parts).await;
    site.converges(LATER).await;
    site.evermirror.terminate().await;
    let wanted = pictures(&site.source, &site.bucket).await;

    let fresh = pair.fresh_source().await;
    let store = fresh.client();
    let proxy = FaultProxy::in_front_of(&fresh.authority()).await;
    let endpoint = proxy.endpoint();
    let to = ["--to-endpoint", &endpoint];
    let begin = async || {
        proxy.hold_after(120, |method, _| method == Method::PUT);
        let command = site.evermirror.begin(&["restore", "--to-endpoint", &endpoint]);
        proxy.holds_one().await;
        command
    };
    let stopped = begin().await;
    stopped.interrupt("TERM").await;
    proxy.behave();
    assert_eq!(stopped.ended().await.0.code(), Some(1));
    begin().await.kill();
    let there = store.list(&site.bucket).await.unwrap().len();
    assert!((100..wanted.len()).contains(&there), "{there} objects are not the middle");
    proxy.behave();
    let report = restore(&site.evermirror, &to);
    assert_eq!(report["resumed"], true);
    let copied = report["copied"].as_u64().unwrap();
    assert!(copied < wanted.len() as u64, "all {copied} were copied again");
    assert_same(&wanted, &pictures(&store, &site.bucket).await);
    assert_eq!(store.unfinished_uploads(&site.bucket, "k/150-parts").await, 0);
    // It is complete: a further one is a new one, and the bucket is not empty.
    refused(&site.evermirror, &to, "is not empty");
}

async fn a_commit_is_written_only_after_all_that_it_names(pair: Pair) {
    let site = pair.site("tables").await;
    let steps: [&[&str]; 6] = [
        &["ice/data/z.parquet", "delta/p0.parquet", "hudi/p/a.parquet", "plain"],
        &["ice/metadata/m0.avro", "delta/_delta_log/00000000000000000001.checkpoint.parquet"],
        &["ice/metadata/snap-1.avro"],
        &[
            "ice/metadata/v1.metadata.json",
            "delta/_delta_log/00000000000000000000.json",
            "delta/_delta_log/00000000000000000001.json",
            "delta/_delta_log/00000000000000000002.json",
            "hudi/.hoodie/1.commit.requested",
        ],
        &[
            "ice/metadata/version-hint.text",
            "delta/_delta_log/_last_checkpoint",
            "hudi/.hoodie/1.commit",
        ],
        &["hudi/.hoodie/hoodie.properties"],
    ];
    for key in steps.concat() {
        site.put(key, key).await;
    }
    site.converges(SOON).await;
    let fresh = pair.fresh_source().await;
    let proxy = FaultProxy::in_front_of(&fresh.authority()).await;
    // The first try of every object fails: who does not wait for the second is seen.
    let seen = Mutex::new(std::collections::BTreeSet::new());
    proxy.misbehave(move |method, uri| {
        let is_object = method == Method::PUT && uri.path().matches('/').count() > 1;
        let is_first = is_object && seen.lock().unwrap().insert(uri.path().to_owned());
        is_first.then_some(Fault::Answer(500, "InternalError"))
    });
    restore(&site.evermirror, &["--to-endpoint", &proxy.endpoint()]);
    let requests = proxy.seen();
    let puts = |key: &str| {
        let path = format!("PUT /{}/{key}", site.bucket);
        let of_it = |request: &String| request.split('?').next() == Some(&path);
        let first = requests.iter().position(of_it).unwrap_or_else(|| panic!("no {path}"));
        (first, requests.iter().rposition(of_it).expect("there is a first"))
    };
    for pair in steps.windows(2) {
        let last = pair[0].iter().map(|key| puts(key).1).max().unwrap();
        let first = pair[1].iter().map(|key| puts(key).0).min().unwrap();
        assert!(last < first, "{pair:?}: {last} is not before {first}");
    }
    for pair in steps[3][1..4].windows(2) {
        assert!(puts(pair[0]).1 < puts(pair[1]).0, "{pair:?} are out of order");
    }
}

async fn a_commit_is_left_out_while_a_file_before_it_fails(pair: Pair) {
    let site = pair.site("stuck").await;
    let (data, commit) = ("t/data/a.parquet", "t/metadata/v1.metadata.json");
    for key in [data, "t/data/b.parquet", commit] {
        site.put(key, key).await;
    }
    site.converges(SOON).await;
    let fresh = pair.fresh_source().await;
    let store = fresh.client();
    let proxy = FaultProxy::in_front_of(&fresh.authority()).await;
    proxy.misbehave(|method, uri| {
        let denied = method == Method::PUT && uri.path().ends_with("a.parquet");
        denied.then_some(Fault::Answer(403, "AccessDenied"))
    });
    let endpoint = proxy.endpoint();
    let to = ["restore", "--to-endpoint", &endpoint];
    let keys = async || store.list(&site.bucket).await.unwrap().into_keys().collect::<Vec<_>>();
    let (status, report) = site.evermirror.once(&to).await;
    assert_eq!((status, &report["outcome"]), (1, &"incomplete".into()), "{report}");
    assert!(report["failed"][0]["key"].as_str().unwrap().ends_with(data), "{report}");
    assert_eq!(keys().await, ["t/data/b.parquet"]);

    let (status, report) = site.evermirror.once(&[&to[..], &["--keep-going"]].concat()).await;
    assert_eq!((status, &report["outcome"]), (1, &"differs".into()), "{report}");
    assert_eq!(report["buckets"][0]["missing"], 1);
    assert_eq!(keys().await, ["t/data/b.parquet", commit]);

    proxy.behave();
    let (status, report) = site.evermirror.once(&to).await;
    assert_eq!((status, &report["outcome"]), (0, &"restored".into()), "{report}");
    assert_eq!(keys().await, [data, "t/data/b.parquet", commit]);
}

async fn each_point_of_a_recorded_history_comes_back(pair: Pair) {
    let servers = pair.shared().await;
    let site = servers.prepare("history", Setup::default()).await;
    let (target, bucket) = (&site.target, site.target_bucket.as_str());
    for bucket in [bucket, "history-clock"] {
        target.create_bucket(bucket).await;
        target.enable_versioning(bucket).await;
    }
    let mut points = Vec::new();
    for phase in 0..3_u8 {
        write_history(target, bucket, phase).await;
        let now = last_modified(target, bucket).await;
        points.push((now, pictures(target, bucket).await));
        eventually("the target's clock has gone on", SOON, async || {
            target.put("history-clock", "tick", "").await;
            let later = last_modified(target, "history-clock").await;
            if later > now { Ok(()) } else { Err(format!("{later:?}")) }
        })
        .await;
    }
    let fresh = pair.fresh_source().await;
    let (store, endpoint) = (fresh.client(), fresh.endpoint());
    let counts: Vec<_> = points.iter().map(|(_, objects)| objects.len()).collect();
    assert!(counts.windows(2).all(|pair| pair[0] != pair[1]), "the points look alike: {counts:?}");
    for (number, (at, wanted)) in points.iter().enumerate() {
        let (name, at) = (format!("then-{number}"), at.fmt(DateTimeFormat::DateTime).unwrap());
        let map = format!("history={name}");
        let to = ["--to-endpoint", &endpoint, "--map", &map, "--at", &at];
        let report = restore(&site.evermirror, &to);
        assert_eq!(report["copied"], wanted.len(), "{report}");
        assert_same(wanted, &pictures(&store, &name).await);
    }
    let to = ["--to-endpoint", &endpoint, "--map", "history=before", "--at", "1000h ago"];
    assert_eq!(restore(&site.evermirror, &to)["copied"], 0);
}

/// Objects that stay, are overwritten, are deleted, come back, or change their kind.
async fn write_history(store: &S3, bucket: &str, phase: u8) {
    let put = async |key: String, body: String| {
        let call = store.client.put_object().bucket(bucket).key(key).metadata("body", &body);
        let call = call.tagging(format!("phase={phase}"));
        call.body(ByteStream::from(body.into_bytes())).send().await.unwrap();
    };
    // More versions than a page of a listing holds, of one key. (RustFS 1.0.1 lets a writer wait 5 s
    // for the others of its key, and then answers 503.)
    let hot = (0..400).map(|n| put("hot key+%".to_owned(), format!("{phase} {n}")));
    stream::iter(hot).buffer_unordered(8).for_each(|()| std::future::ready(())).await;
    if phase == 0 {
        put("stays".to_owned(), "for ever".to_owned()).await;
        put("comes back".to_owned(), "at first".to_owned()).await;
    }
    join_all((0..30).map(|n| put(format!("overwritten/{n}"), format!("in phase {phase}")))).await;
    put(format!("only from/{phase}"), String::new()).await;
    match phase {
        1 => {
            store.delete(bucket, "comes back").await;
            store.delete(bucket, "only from/0").await;
            store.delete(bucket, "overwritten/7").await;
        }
        2 => put("comes back".to_owned(), "again".to_owned()).await,
        _ => {}
    }
    let parts = [vec![phase; 5 << 20], vec![phase + 1; 1 + usize::from(phase)]];
    store.put_parts(bucket, "parts", parts).await;
}

/// When a bucket changed last, by the store's own clock.
async fn last_modified(store: &S3, bucket: &str) -> DateTime {
    let mut call = store.client.list_object_versions().bucket(bucket);
    let mut newest = DateTime::from_secs(0);
    loop {
        let page = call.clone().send().await.unwrap();
        let versions = page.versions().iter().filter_map(|version| version.last_modified());
        let markers = page.delete_markers().iter().filter_map(|marker| marker.last_modified());
        newest = versions.chain(markers).copied().fold(newest, |a, b| if b > a { b } else { a });
        let Some(key) = page.next_key_marker() else { return newest };
        call = call
            .key_marker(key)
            .set_version_id_marker(page.next_version_id_marker().map(Into::into));
    }
}

/// The disaster drill. It prints what an operator wants to know: how much is lost, and how old it was.
async fn a_disaster_costs_no_more_than_what_was_shown_as_pending(pair: Pair) {
    const WRITERS: usize = 8;
    let mut servers = pair.own().await;
    let mut site = servers.site("disaster", Setup::default()).await;
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let (stop, number) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let writers = (0..WRITERS).map(|_| {
        let (store, bucket) = (site.source.clone(), site.bucket.clone());
        let (acknowledged, stop) = (Arc::clone(&acknowledged), stop.clone());
        let number = Arc::clone(&number);
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                let key = format!("w/{}", number.fetch_add(1, Ordering::Relaxed));
                if store.try_put(&bucket, &key, key.as_str()).await.is_ok() {
                    acknowledged.lock().unwrap().push((key, Instant::now()));
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    eventually("much is written", SOON, async || match acknowledged.lock().unwrap().len() {
        0..600 => Err("too little".to_owned()),
        _ => Ok(()),
    })
    .await;
    let disaster = Instant::now();
    servers.source.stop();
    stop.cancel();
    join_all(writers).await;
    let pending = eventually("evermirror has seen it", LATER, async || {
        match (site.evermirror.count("in_flight").await?, site.evermirror.count("pending").await?) {
            (0, pending) => Ok(pending),
            (flying, _) => Err(format!("{flying} are in flight")),
        }
    })
    .await;
    site.evermirror.kill();
    servers.source.start_empty().await;
    restore(&site.evermirror, &[]);

    let found = pictures(&servers.source.client(), &site.bucket).await;
    assert_same(&pictures(&site.target, &site.target_bucket).await, &found);
    let acknowledged = acknowledged.lock().unwrap();
    let lost: Vec<_> = acknowledged.iter().filter(|(key, _)| !found.contains_key(key)).collect();
    // A write may be acknowledged in the instant of the disaster.
    let age = lost.iter().map(|(_, at)| disaster.saturating_duration_since(*at)).max();
    println!(
        "disaster drill: {} writes were acknowledged, {} of them are lost (the oldest {:?} old), {pending} were shown as pending",
        acknowledged.len(),
        lost.len(),
        age.unwrap_or_default(),
    );
    assert!(lost.len() as u64 <= pending, "{} lost, but {pending} pending", lost.len());
}
