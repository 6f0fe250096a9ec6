//! The eight promises of the README's "Guarantees", one test each, by name.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode, Uri};
use tokio_util::sync::CancellationToken;

use crate::support::events;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::server::{Pair, on_every_pair};
use crate::support::site::Setup;

/// Whether a request is about an object rather than about a bucket.
fn on_an_object(uri: &Uri) -> bool {
    uri.path().trim_matches('/').contains('/')
}

/// Refuses the first `times` requests that `wanted` picks, each with `fault`.
fn at_first(
    times: usize,
    fault: Fault,
    wanted: impl Fn(&Method, &Uri) -> bool + Send,
) -> impl Fn(&Method, &Uri) -> Option<Fault> + Send {
    let done = AtomicUsize::new(0);
    move |method, uri| {
        let mine = wanted(method, uri) && done.fetch_add(1, Ordering::Relaxed) < times;
        mine.then_some(fault)
    }
}

on_every_pair![
    an_acknowledged_notification_is_never_lost,
    the_target_converges_to_what_the_source_says_now,
    one_key_is_worked_on_by_one_worker_at_a_time,
    a_copy_is_byte_exact_and_faithful,
    deletes_are_careful,
    memory_is_bounded,
    nothing_fails_silently,
    the_lag_shown_is_true,
];

async fn an_acknowledged_notification_is_never_lost(pair: Pair) {
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|_, uri| on_an_object(uri).then_some(Fault::Answer(503, "ServiceUnavailable")));
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let mut site = servers.site("acknowledged", setup).await;
    // Each put returns only after its notification was acknowledged, and the source keeps no copy of it.
    for number in 0..200 {
        site.put(&format!("key {number}"), format!("value {number}")).await;
    }
    site.evermirror.kill();
    assert!(!proxy.seen().is_empty());
    site.evermirror.start().await;
    proxy.behave();
    site.converges(LATER).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 200);
}

async fn the_target_converges_to_what_the_source_says_now(pair: Pair) {
    let servers = pair.shared().await;
    let site = servers.site("converges", Setup::default()).await;
    for number in 0..20 {
        site.put(&format!("kept {number}"), "first").await;
        site.put(&format!("kept {number}"), "second").await;
        site.put(&format!("removed {number}"), "first").await;
        site.delete(&format!("removed {number}")).await;
    }
    // The same events again: late, twice, in the wrong order, and some with the wrong name.
    for number in (0..20).rev() {
        for name in ["ObjectRemoved:Delete", "ObjectCreated:Put", "ObjectCreated:PutTagging"] {
            for key in [format!("kept {number}"), format!("removed {number}")] {
                let body = events::event(name, &site.bucket, &key);
                assert_eq!(site.evermirror.post(body).await.status, StatusCode::OK);
            }
        }
    }
    site.converges(SOON).await;
    let there = site.target.list(&site.target_bucket).await.unwrap();
    assert_eq!(there.len(), 20);
    assert!(there.values().all(|object| object.size == 6), "{there:?}");
}

async fn one_key_is_worked_on_by_one_worker_at_a_time(pair: Pair) {
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    // Long copies, so that two at once would be seen.
    proxy.misbehave(|method, uri| {
        let put = method == Method::PUT && on_an_object(uri);
        put.then_some(Fault::Wait(Duration::from_millis(100)))
    });
    let setup = Setup {
        target_endpoint: Some(proxy.endpoint()),
        settings: vec![("REPLICATE__MIN_INTERVAL", "0ms".to_owned())],
        ..Setup::default()
    };
    let site = servers.site("one-worker", setup).await;
    for change in 0..60 {
        site.put("hot", format!("change {change}")).await;
        let again = events::event("ObjectCreated:Put", &site.bucket, "hot");
        assert_eq!(site.evermirror.post(again).await.status, StatusCode::OK);
    }
    site.converges(SOON).await;
    assert_eq!(proxy.most_parallel_puts(), 1);
    // A change that arrived during a copy was worked on again: the last one is there.
    let got = site.target.client.get_object().bucket(&site.target_bucket).key("hot").send().await;
    assert_eq!(got.unwrap().body.collect().await.unwrap().to_vec(), b"change 59");
}

async fn a_copy_is_byte_exact_and_faithful(pair: Pair) {
    const SPOILT: usize = 7;
    let servers = pair.shared().await;
    let source_proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    let target_proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup {
        source_endpoint: Some(source_proxy.endpoint()),
        target_endpoint: Some(target_proxy.endpoint()),
        ..Setup::default()
    };
    let site = servers.site("exact", setup).await;
    let content = |uri: &Uri| on_an_object(uri) && !uri.query().unwrap_or("").contains("tagging");
    // A reader of the target that never rests: whatever it sees must be a state of the source.
    let (reader, bucket) = (site.target.clone(), site.target_bucket.clone());
    eventually("the target's bucket is created", SOON, async || {
        reader
            .client
            .head_bucket()
            .bucket(&bucket)
            .send()
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    })
    .await;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let watching = tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        while !stopped.is_cancelled() {
            let listed = reader.list(&bucket).await.unwrap();
            seen.extend(listed.into_iter().map(|(key, object)| (key, object.etag)));
        }
        seen
    });
    let mut states = BTreeSet::new();
    for round in 0..3_u8 {
        // Bytes change on the way from the source, then on the way to the target, then not at all.
        match round {
            0 => {
                source_proxy.misbehave(at_first(SPOILT, Fault::SpoilAnswer, move |method, uri| {
                    method == Method::GET && content(uri)
                }));
            }
            1 => {
                target_proxy.misbehave(at_first(
                    SPOILT,
                    Fault::SpoilRequest,
                    move |method, uri| method == Method::PUT && content(uri),
                ));
            }
            _ => {}
        }
        for number in 0..8 {
            let call = site.source.client.put_object().bucket(&site.bucket);
            let call = call.key(format!("small {number}")).metadata("round", round.to_string());
            let call = call.content_type("text/x-exact").tagging(format!("round={round}"));
            let put = call.body(vec![round; 3000 + number].into()).send().await.unwrap();
            states.insert((format!("small {number}"), put.e_tag().unwrap().to_owned()));
        }
        let parts = [vec![round; 5 << 20], vec![round; 7]];
        let etag = site.source.put_parts(&site.bucket, "large", parts).await;
        states.insert(("large".to_owned(), etag));
        site.converges(LATER).await;
    }
    stop.cancel();
    let seen = watching.await.unwrap();
    assert_eq!((source_proxy.faults(), target_proxy.faults()), (SPOILT, SPOILT));
    let never: Vec<_> = seen.difference(&states).collect();
    assert!(never.is_empty(), "the target showed what the source never held: {never:?}");
}

async fn deletes_are_careful(pair: Pair) {
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    let setup = Setup {
        source_endpoint: Some(proxy.endpoint()),
        settings: vec![("DELETES__MAX_DELETES", "10".to_owned())],
        ..Setup::default()
    };
    let mut site = servers.site("careful", setup).await;
    for number in 0..40 {
        site.put(&format!("key {number}"), "value").await;
    }
    // A source that lists nothing any more would have all its deletes held.
    site.put("another", "stays").await;
    site.converges(SOON).await;
    let there = async || site.target.list(&site.target_bucket).await.unwrap().len();

    // An event says so, but the source still has it.
    let lie = events::event("ObjectRemoved:Delete", &site.bucket, "key 0");
    assert_eq!(site.evermirror.post(lie.clone()).await.status, StatusCode::OK);
    eventually("the lie is worked off", SOON, async || site.evermirror.idle().await).await;
    assert_eq!(there().await, 41);

    // The source does not say "no such object": it fails, it forbids, it has lost the bucket.
    for (status, code) in
        [(500, "InternalError"), (403, "AccessDenied"), (404, "NoSuchBucket"), (503, "SlowDown")]
    {
        proxy.misbehave(move |_, _| Some(Fault::Answer(status, code)));
        let before = proxy.faults();
        assert_eq!(site.evermirror.post(lie.clone()).await.status, StatusCode::OK);
        eventually("the source is asked", SOON, async || {
            (proxy.faults() > before + 1).then_some(()).ok_or("it was not".to_owned())
        })
        .await;
        assert_eq!(there().await, 41, "deleted on {status} {code}");
    }
    proxy.behave();
    eventually("the lies are worked off", SOON, async || site.evermirror.idle().await).await;
    assert_eq!(there().await, 41);

    // A burst: some go, the rest waits for a person, also over a restart.
    let keys: Vec<_> = (0..40).map(|number| format!("key {number}")).collect();
    site.source.delete_all(&site.bucket, &keys).await;
    let held = async |site: &crate::support::site::Site| {
        eventually("the burst is held", SOON, async || {
            let (held, busy) =
                (site.evermirror.count("held").await?, site.evermirror.count("pending").await?);
            match (held, busy) {
                (30, 0) => Ok(()),
                _ => Err(format!("{held} deletes are held, {busy} keys are pending")),
            }
        })
        .await;
    };
    held(&site).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 31);
    site.evermirror.kill();
    site.evermirror.start().await;
    held(&site).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 31);
}

async fn memory_is_bounded(pair: Pair) {
    const EVENTS: usize = 300_000;
    const LIMIT_KIB: u64 = 100 << 10;
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|_, uri| on_an_object(uri).then_some(Fault::Answer(503, "ServiceUnavailable")));
    let setup = Setup {
        target_endpoint: Some(proxy.endpoint()),
        settings: vec![("REPLICATE__MAX_PENDING_KEYS", "1000".to_owned())],
        ..Setup::default()
    };
    let site = servers.site("bounded", setup).await;
    let keys: Vec<_> = (0..EVENTS).collect();
    for some in keys.chunks(2000) {
        let record = |number| {
            let key = format!("a/key/as/long/as/real/ones/are/part-{number:09}.parquet");
            events::record("ObjectRemoved:Delete", &site.bucket, &key)
        };
        let body = events::body(&some.iter().map(record).collect::<Vec<_>>());
        assert_eq!(site.evermirror.post(body).await.status, StatusCode::OK);
    }
    let peak = site.evermirror.peak_memory_kib();
    println!("peak memory with {EVENTS} events: {peak} KiB");
    assert!(peak < LIMIT_KIB, "{peak} KiB resident with {EVENTS} events in the journal");
    assert_ne!(site.evermirror.idle().await, Ok(()), "the backlog is not shown");
}

async fn nothing_fails_silently(pair: Pair) {
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|_, uri| {
        uri.path().ends_with("/forbidden").then_some(Fault::Answer(403, "AccessDenied"))
    });
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = servers.site("silent", setup).await;
    site.put("forbidden", "value").await;
    for number in 0..20 {
        site.put(&format!("fine {number}"), "value").await;
    }
    eventually("the others are copied and the failing key is shown", SOON, async || {
        let copied = site.target.list(&site.target_bucket).await?.len();
        let parked = site.evermirror.count("parked").await?;
        if (copied, parked) == (20, 1) {
            return Ok(());
        }
        Err(format!("{copied} copied, {parked} parked"))
    })
    .await;
    let errors = site.evermirror.metric("evermirror_errors_total").await;
    assert!(errors.is_some_and(|count| count >= 1.0), "errors are counted: {errors:?}");
    let log = site.evermirror.log();
    let told = log.lines().any(|line| line.contains("forbidden") && line.contains("AccessDenied"));
    assert!(told, "the log does not tell which key failed and why");
    // It is tried again without being asked to.
    proxy.behave();
    site.converges(SOON).await;
}

async fn the_lag_shown_is_true(pair: Pair) {
    const HELD_BACK: Duration = Duration::from_secs(1);
    let servers = pair.shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|method, uri| {
        let put = method == Method::PUT && on_an_object(uri);
        put.then_some(Fault::Wait(HELD_BACK))
    });
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = servers.site("lag", setup).await;
    let began = Instant::now();
    site.put("object", "value").await;
    site.converges(SOON).await;
    let most = began.elapsed();
    let count = site.evermirror.metric("evermirror_lag_seconds_count").await;
    assert_eq!(count, Some(1.0), "{}", site.evermirror.metrics().await);
    let lag = site.evermirror.metric("evermirror_lag_seconds_sum").await.unwrap();
    // The copy could not end before the target had answered, nor after we saw it done; the source
    // gives its event time in whole milliseconds.
    assert!(lag >= HELD_BACK.as_secs_f64(), "{lag} s, though the target took {HELD_BACK:?}");
    assert!(lag <= most.as_secs_f64() + 0.001, "{lag} s, though all was done after {most:?}");
}
