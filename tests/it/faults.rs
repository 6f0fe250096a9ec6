//! Stores and networks fail, and evermirror carries on where they let it.

use std::sync::Mutex;

use hyper::Method;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::server::Pair;
use crate::support::site::{Servers, Setup};
use crate::support::toxiproxy::Toxiproxy;
use crate::support::writer::seed;

/// A store without read-after-write across its gateways, two sites behind one balancer (data-fair#402).
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_the_source_shows_late_is_copied_and_its_old_copy_is_not_deleted() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    let mut setup = Setup { source_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    setup.settings.push(("RECONCILE__INTERVAL", "0s".to_owned()));
    let site = servers.site("shown-late", setup).await;
    site.put("other", "value").await;
    site.put("late", "old").await;
    site.converges(SOON).await;
    proxy.misbehave(|_, uri| {
        uri.path().ends_with("/late").then_some(Fault::Answer(404, "NoSuchKey"))
    });
    site.put("late", "new").await;
    // A GET and a HEAD make one try.
    eventually("it was asked for again", SOON, async || {
        let asked = proxy.faults();
        (asked >= 4).then_some(()).ok_or(format!("{asked} requests"))
    })
    .await;
    let copies = site.target.list(&site.target_bucket).await.unwrap();
    assert!(copies.contains_key("late"), "its old copy is gone: {copies:?}");
    assert_eq!(site.evermirror.count("pending").await, Ok(1), "it is not settled");
    proxy.behave();
    site.converges(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_for_a_while_misses_nothing() {
    let mut servers = Pair::MINIO.own().await;
    let site = servers.site("target-down", Setup::default()).await;
    for number in 0..50 {
        site.put(&format!("before/{number}"), "value").await;
    }
    site.converges(SOON).await;
    servers.target.stop();
    for number in 0..50 {
        site.put(&format!("during/{number}"), format!("value {number}")).await;
        site.put(&format!("before/{number}"), "changed").await;
    }
    site.delete("before/0").await;
    eventually("the backlog is shown", SOON, async || {
        let waiting = site.evermirror.idle().await;
        waiting.err().ok_or("it says that all is done".to_owned())
    })
    .await;
    servers.target.start_again().await;
    site.converges(LATER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_down_for_a_while_costs_nothing() {
    let mut servers = Pair::MINIO.own().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|method, _| (*method == Method::PUT).then_some(Fault::Answer(503, "SlowDown")));
    let mut site = servers
        .site(
            "source-down",
            Setup {
                target_endpoint: Some(proxy.endpoint()),
                // The proxy refuses every PUT, that of the bucket too.
                settings: vec![("TARGET__CREATE_BUCKETS", "false".to_owned())],
                ..Setup::default()
            },
        )
        .await;
    site.target.create_bucket(&site.target_bucket).await;
    for number in 0..30 {
        site.put(&format!("key {number}"), "value").await;
    }
    servers.source.stop();
    proxy.behave();
    site.evermirror.kill();
    site.evermirror.spawn();
    servers.source.start_again().await;
    site.converges(LATER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_answers_503_is_tried_again() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = servers.site("throttled", setup).await;
    // A third of all requests, at random: 503, 429, 500 and what a proxy says of a store that is away.
    let random = Mutex::new(StdRng::seed_from_u64(seed()));
    proxy.misbehave(move |_, _| {
        let faults = [
            (503, "SlowDown"),
            (503, "ServiceUnavailable"),
            (429, "TooManyRequests"),
            (500, "InternalError"),
            (502, "BadGateway"),
            (504, "GatewayTimeout"),
        ];
        let mut random = random.lock().unwrap();
        let (status, code) = faults[random.random_range(0..faults.len())];
        random.random_bool(0.33).then_some(Fault::Answer(status, code))
    });
    for number in 0..100 {
        site.put(&format!("key {number}"), format!("value {number}")).await;
    }
    site.source
        .put_parts(&site.bucket, "large", [vec![1; 5 << 20], vec![2; 5 << 20], vec![3]])
        .await;
    site.delete("key 0").await;
    site.converges(LATER).await;
    assert!(proxy.faults() > 30, "only {} faults", proxy.faults());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_in_the_middle_of_a_body_leave_nothing_half_written() {
    let servers = Servers::shared().await;
    let target = Toxiproxy::in_front_of(&servers.target.authority()).await;
    let source = Toxiproxy::in_front_of(&servers.source.authority()).await;
    let site = servers
        .site(
            "cut-off",
            Setup {
                source_endpoint: Some(source.endpoint()),
                target_endpoint: Some(target.endpoint()),
                ..Setup::default()
            },
        )
        .await;
    // Every connection to the target ends after 300 kB, every one from the source after 700 kB: no
    // object of a megabyte can pass, and small ones pass between the cuts.
    target.add("limit_data", "upstream", json!({"bytes": 300_000})).await;
    source.add("limit_data", "downstream", json!({"bytes": 700_000})).await;
    for number in 0..8_u8 {
        site.put(&format!("large {number}"), vec![number; 1 << 20]).await;
        site.put(&format!("small {number}"), vec![number; 1 << 10]).await;
    }
    site.source.put_parts(&site.bucket, "parts", [vec![1; 5 << 20], vec![2; 5 << 20]]).await;
    eventually("the small ones pass", LATER, async || {
        let listed = site.target.list(&site.target_bucket).await?;
        assert!(listed.keys().all(|key| key.starts_with("small")), "half written: {listed:?}");
        if listed.len() == 8 { Ok(()) } else { Err(format!("{} of 8", listed.len())) }
    })
    .await;
    target.heal().await;
    source.heal().await;
    site.converges(LATER).await;
    // Every upload that was cut off is aborted, also one whose abort was cut off.
    eventually("no upload is left", LATER, async || {
        match site.target.unfinished_uploads(&site.target_bucket, "parts").await {
            0 => Ok(()),
            left => Err(format!("{left} are left")),
        }
    })
    .await;
    // Now every connection is reset while it carries something.
    let errors = async || site.evermirror.metric("evermirror_errors_total").await.unwrap_or(0.0);
    let before = errors().await;
    target.add("reset_peer", "upstream", json!({"timeout": 50})).await;
    site.put("during the resets", vec![9; 1 << 20]).await;
    eventually("a reset is counted", SOON, async || {
        (errors().await > before).then_some(()).ok_or("no error is counted".to_owned())
    })
    .await;
    target.heal().await;
    site.converges(LATER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_source_is_waited_for() {
    let servers = Servers::shared().await;
    let source = Toxiproxy::in_front_of(&servers.source.authority()).await;
    let setup = Setup { source_endpoint: Some(source.endpoint()), ..Setup::default() };
    let site = servers.site("slow", setup).await;
    source.add("latency", "downstream", json!({"latency": 300, "jitter": 200})).await;
    source.add("bandwidth", "downstream", json!({"rate": 200})).await;
    source.add("slicer", "downstream", json!({"average_size": 500, "delay": 100})).await;
    for number in 0..10_u8 {
        site.put(&format!("key {number}"), vec![number; 50_000]).await;
    }
    site.converges(LATER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_cut_off_and_comes_back_is_found_again() {
    let servers = Servers::shared().await;
    let target = Toxiproxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup { target_endpoint: Some(target.endpoint()), ..Setup::default() };
    let site = servers.site("cut-away", setup).await;
    for round in 0..5 {
        target.cut().await;
        for number in 0..20 {
            site.put(&format!("{round}/{number}"), "value").await;
        }
        target.heal().await;
        for number in 20..40 {
            site.put(&format!("{round}/{number}"), "value").await;
        }
    }
    site.converges(LATER).await;
}
