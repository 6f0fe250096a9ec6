//! The comparison of two buckets, against an oracle that lists them through the AWS SDK.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use evermirror::reconcile::list::ListingError;
use evermirror::reconcile::merge::{Finding, NoPairs, Why};
use evermirror::reconcile::pass::{self, PassError, PassEvent, PassOptions, PassReport};
use evermirror::reconcile::ranges::{KeyRange, union, without};
use evermirror::store::ErrorKind;
use futures_util::{StreamExt as _, stream};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;

use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::hostile;
use crate::support::ours::store;
use crate::support::s3::S3;
use crate::support::server::{Pair, on_every_pair};
use crate::support::site::Servers;

on_every_pair![a_folder_is_compared_beside_a_large_one_whose_name_goes_on];

async fn options(source: &str, target: &str, bucket: &str) -> PassOptions {
    PassOptions {
        source: (store(source).await, bucket.into()),
        target: (store(target).await, bucket.into()),
        prefix: "".into(),
        filter: Arc::new(|_| true),
        skew_ms: 0,
        opaque: false,
        closer: false,
        looked_until_ms: None,
        pairs: Arc::new(NoPairs),
        parallel: NonZeroUsize::new(6).unwrap(),
        split_points: Vec::new(),
        done: Vec::new(),
        requests_per_second: None,
    }
}

type Findings = BTreeMap<String, Finding>;

/// What a pass said: the report, the differences, and the finished ranges.
async fn pass(options: PassOptions) -> (Result<PassReport, PassError>, Findings, Vec<KeyRange>) {
    let (sink, mut events) = mpsc::channel(8);
    let running = tokio::spawn(pass::run(options, sink));
    let (mut found, mut done) = (BTreeMap::new(), Vec::new());
    while let Some(event) = events.recv().await {
        match event {
            PassEvent::Difference(one) => {
                let twice = found.insert(one.key.clone(), one.finding);
                assert_eq!(twice, None, "{:?} was found twice", one.key);
                let listed = done.iter().any(|range: &KeyRange| range.contains(&one.key));
                assert!(!listed, "{:?} came after its range was done", one.key);
            }
            PassEvent::RangeDone(range) => done.push(range),
        }
    }
    (running.await.unwrap(), found, done)
}

/// What the two listings say, in the simplest way.
async fn oracle(source: &S3, target: &S3, bucket: &str) -> Findings {
    let (ours, theirs) = (source.list(bucket).await.unwrap(), target.list(bucket).await.unwrap());
    let mut found: Findings = theirs
        .keys()
        .filter(|k| !ours.contains_key(*k))
        .map(|k| (k.clone(), Finding::Extra))
        .collect();
    for (key, ours) in ours {
        match theirs.get(&key) {
            None => found.insert(key, Finding::Missing),
            Some(theirs) if theirs.size != ours.size => {
                found.insert(key, Finding::Different(Why::Size))
            }
            Some(theirs) if theirs.etag != ours.etag => {
                found.insert(key, Finding::Different(Why::ETag))
            }
            Some(_) => None,
        };
    }
    found
}

/// Keys of every shape: flat and numbered, folders of folders, beyond ASCII, a folder's marker beside the
/// folder and a name that begins like it.
fn keys() -> Vec<String> {
    let flat = (0..3200).map(|n| format!("flat/part-{:06}.parquet", n * 7919 % 1_000_000));
    let nested = (0..600).map(|n| format!("t/y={}/m={:02}/{n}", 2020 + n % 7, n % 12));
    let beyond = (0..300_u32).map(|n| format!("ż/{}{n}", char::from_u32(0x4e00 + n).unwrap()));
    let beside =
        (0..100).flat_map(|n| [format!("dir{n}/"), format!("dir{n}/x"), format!("dir{n}-y")]);
    flat.chain(nested).chain(beyond).chain(beside).chain(hostile::keys()).collect()
}

/// Fills a bucket of both stores so that about one key in eight differs.
async fn fill(source: &S3, target: &S3, bucket: &str) {
    source.create_bucket(bucket).await;
    target.create_bucket(bucket).await;
    let mut random = StdRng::seed_from_u64(4);
    let work = keys().into_iter().flat_map(|key| {
        let (ours, theirs) = match random.random_range(0..32) {
            0 => (Some("same size"), Some("same SIZE")),
            1 => (Some("one size"), Some("another size")),
            2 => (Some("only here"), None),
            3 => (None, Some("only there")),
            _ => (Some("equal"), Some("equal")),
        };
        [(source, key.clone(), ours), (target, key, theirs)]
    });
    let puts = work.filter_map(|(store, key, body)| body.map(|body| (store, key, body)));
    // A store may refuse a hostile key; what it then lists is what counts.
    let puts = puts
        .map(|(store, key, body)| async move { store.try_put(bucket, &key, body).await.is_ok() });
    let taken =
        stream::iter(puts).buffer_unordered(48).filter(|ok| std::future::ready(*ok)).count();
    assert!(taken.await > 8_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_finds_exactly_what_differs() {
    const BUCKET: &str = "engine-differences";
    let servers = Servers::shared().await;
    let (source, target) = (servers.source.client(), servers.target.client());
    fill(&source, &target, BUCKET).await;
    let expected = oracle(&source, &target, BUCKET).await;
    assert!(expected.len() > 300, "only {} keys differ", expected.len());
    let options = options(&servers.source.endpoint(), &servers.target.endpoint(), BUCKET).await;

    let (report, found, done) = pass(options.clone()).await;
    let report = report.unwrap();
    assert_eq!(found, expected);
    assert_eq!(union(done.clone()), [KeyRange::ALL]);
    assert!(report.ranges > 1, "it was not parallel");
    assert_eq!(report.source_objects, source.list(BUCKET).await.unwrap().len() as u64);
    assert_eq!(report.target_objects, target.list(BUCKET).await.unwrap().len() as u64);
    let kinds = [report.missing, report.extra, report.different].iter().sum::<u64>();
    assert_eq!(kinds, expected.len() as u64);

    // One range at a time, and cut at the points of the pass before, the findings are the same.
    let one = PassOptions { parallel: NonZeroUsize::MIN, ..options.clone() };
    assert_eq!(pass(one).await.1, expected);
    let points = report.split_points.iter().cloned().chain(hostile::keys()).collect();
    let (again, found, _) = pass(PassOptions { split_points: points, ..options.clone() }).await;
    assert_eq!((found, again.unwrap().same), (expected.clone(), report.same));

    // Some ranges are done already: exactly the others are compared.
    let done: Vec<_> = done.into_iter().step_by(2).collect();
    let left = without(vec![KeyRange::ALL], &done);
    let (_, found, _) = pass(PassOptions { done, ..options.clone() }).await;
    let is_left = |key: &str| left.iter().any(|range| range.contains(key));
    let rest = |keep: &dyn Fn(&str) -> bool| -> Findings {
        expected.clone().into_iter().filter(|(key, _)| keep(key)).collect()
    };
    assert_eq!(found, rest(&is_left));

    // A prefix and a filter leave the other keys alone.
    let part = PassOptions { prefix: "flat/".into(), ..options.clone() };
    assert_eq!(pass(part).await.1, rest(&|key| key.starts_with("flat/")));
    let odd = |key: &str| key.len() % 2 == 1;
    let filtered = PassOptions { filter: Arc::new(odd), ..options.clone() };
    assert_eq!(pass(filtered).await.1, rest(&odd));

    // If the source's clock were ten minutes behind, all that is equal would have been written later.
    let late = PassOptions { skew_ms: -600_000, ..options };
    let (late, ..) = pass(late).await;
    assert_eq!(late.map(|late| (late.newer, late.same)).unwrap(), (report.same, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_fails_is_tried_again_and_never_makes_a_difference() {
    const BUCKET: &str = "engine-faults";
    let servers = Servers::shared().await;
    let (source, target) = (servers.source.client(), servers.target.client());
    source.create_bucket(BUCKET).await;
    target.create_bucket(BUCKET).await;
    for key in ["a", "b/c", "z"] {
        source.put(BUCKET, key, "content").await;
        target.put(BUCKET, key, "content").await;
    }
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let options = options(&servers.source.endpoint(), &proxy.endpoint(), BUCKET).await;
    let times = std::sync::atomic::AtomicU32::new(0);
    proxy.misbehave(move |_, _| {
        let first = times.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2;
        first.then_some(Fault::Answer(503, "SlowDown"))
    });
    let (report, found, done) = pass(options.clone()).await;
    assert_eq!(report.unwrap().same, 3);
    assert_eq!((found, union(done)), (Findings::new(), vec![KeyRange::ALL]));
    assert_eq!(proxy.faults(), 2);

    proxy.misbehave(|_, _| Some(Fault::Answer(403, "AccessDenied")));
    let (report, found, done) = pass(options).await;
    let Err(PassError::Listing { side: "target", error: ListingError::Store(error) }) = report
    else {
        panic!("{report:?}");
    };
    assert_eq!(error.kind, ErrorKind::Denied);
    assert_eq!((found, done), (Findings::new(), Vec::new()));
}

/// What a store answers that does not honour `start-after`: it begins with the first key of all.
pub(crate) fn from_the_first_key(page: &str) -> String {
    let first = "<Contents><Key>0</Key><LastModified>2026-11-23T14:26:59.123Z</LastModified>\
                 <ETag>&#34;9a0364b9e99bb480dd25e1f0284c8555&#34;</ETag><Size>7</Size></Contents>";
    page.replacen("<Contents>", &format!("{first}<Contents>"), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_ignores_start_after_is_listed_in_one_piece() {
    const BUCKET: &str = "engine-start";
    let servers = Servers::shared().await;
    let (source, target) = (servers.source.client(), servers.target.client());
    source.create_bucket(BUCKET).await;
    target.create_bucket(BUCKET).await;
    source.put(BUCKET, "0", "content").await;
    target.put(BUCKET, "0", "content").await;
    for number in 0..60 {
        let key = format!("t{}/{number}", number % 9);
        if number % 7 != 0 {
            source.put(BUCKET, &key, "content").await;
        }
        if number % 5 != 0 {
            target.put(BUCKET, &key, "content").await;
        }
    }
    let expected = oracle(&source, &target, BUCKET).await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|_, uri| {
        uri.to_string().contains("start-after=").then_some(Fault::EditAnswer(from_the_first_key))
    });
    let mut options = options(&servers.source.endpoint(), &proxy.endpoint(), BUCKET).await;
    // Cut from the start: so few keys could be compared before a search for places to cut has ended.
    options.split_points = source.list(BUCKET).await.unwrap().into_keys().collect();
    let (report, found, done) = pass(options.clone()).await;
    assert!(report.unwrap().start_ignored && proxy.faults() > 0);
    assert_eq!((&found, union(done)), (&expected, vec![KeyRange::ALL]));

    // Now that it is known, nothing rests on it, and the pass is as good as any.
    let (report, found, done) = pass(options).await;
    assert!(!report.unwrap().start_ignored);
    assert_eq!((found, done), (expected, vec![KeyRange::ALL]));
}

/// MinIO, asked what comes behind a key of `t/`, counts the objects of `t-old/` as if it gave them out, and
/// answers that there is nothing. RustFS 1.0.1 answers what is there.
async fn a_folder_is_compared_beside_a_large_one_whose_name_goes_on(pair: Pair) {
    const BUCKET: &str = "engine-beside";
    let servers = pair.shared().await;
    let (source, target) = (servers.source.client(), servers.target.client());
    source.create_bucket(BUCKET).await;
    target.create_bucket(BUCKET).await;
    let old = (0..1_200).flat_map(|number| {
        let key = format!("t-old/{number:04}");
        [(&source, key.clone()), (&target, key)]
    });
    let puts = old.map(|(store, key)| async move { store.put(BUCKET, &key, "old").await });
    assert_eq!(stream::iter(puts).buffer_unordered(48).count().await, 2_400);
    for number in 0..30 {
        source.put(BUCKET, &format!("t/{number}"), "new").await;
    }
    let expected = oracle(&source, &target, BUCKET).await;
    assert_eq!(expected.len(), 30);
    for parallel in [1, 4] {
        let mut options =
            options(&servers.source.endpoint(), &servers.target.endpoint(), BUCKET).await;
        options.parallel = NonZeroUsize::new(parallel).unwrap();
        let (report, found, done) = pass(options).await;
        report.unwrap();
        assert_eq!((&found, union(done)), (&expected, vec![KeyRange::ALL]), "{parallel} ranges");
    }
}
