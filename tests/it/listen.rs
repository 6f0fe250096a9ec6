//! `[intake.listen]`: events of stores that were told nothing about evermirror.

use hyper::Method;

use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::server::Pair;
use crate::support::site::{Servers, Setup, Site};
use crate::support::toxiproxy::Toxiproxy;

/// With the intake turned on.
fn listening(mut setup: Setup) -> Setup {
    // First, so that what a test sets counts.
    setup.settings.insert(0, ("INTAKE__LISTEN__MAX_SILENCE", "10m".to_owned()));
    setup
}

/// A site of which no bucket notifies anybody, with evermirror running.
async fn site(servers: &Servers, bucket: &str, setup: Setup) -> Site {
    let mut site = servers.silent(bucket, listening(setup)).await;
    site.evermirror.start().await;
    site
}

/// Why no event arrives by the streams, if so.
async fn trouble(site: &Site) -> Result<Option<String>, String> {
    let status = site.evermirror.status().await?;
    let intakes = status["intakes"].as_array().ok_or("no intakes")?;
    let listen = intakes.iter().find(|intake| intake["name"] == "listen").ok_or("no such one")?;
    Ok(listen["trouble"].as_str().map(str::to_owned))
}

async fn well(site: &Site) {
    eventually("the stream has begun", LATER, async || match trouble(site).await? {
        None => Ok(()),
        Some(trouble) => Err(trouble),
    })
    .await;
}

async fn count(site: &Site, sample: &str) -> f64 {
    site.evermirror.metric(sample).await.unwrap_or_default()
}

async fn accepted(site: &Site) -> f64 {
    count(site, "evermirror_intake_events_total{outcome=\"accepted\"}").await
}

async fn streams(site: &Site) -> f64 {
    count(site, "evermirror_gaps_total{reason=\"stream_began\"}").await
}

/// Waits until an object that is put now is announced by the stream.
async fn is_live(site: &Site, key: &str) {
    well(site).await;
    let before = accepted(site).await;
    site.put(key, "live").await;
    eventually("the stream tells of it", SOON, async || {
        (accepted(site).await > before).then_some(()).ok_or("not yet".to_owned())
    })
    .await;
}

/// MinIO holds events back until there are 4 KiB of them, so there must be many.
#[tokio::test(flavor = "multi_thread")]
async fn a_minio_that_holds_its_events_back_is_heard_when_there_are_enough() {
    let site = site(Servers::shared().await, "listen-minio", Setup::default()).await;
    let mut number = 0;
    eventually("the stream tells of many", LATER, async || {
        site.put(&format!("a b+c%20/é {number}"), "value").await;
        number += 1;
        let heard = accepted(&site).await;
        (heard >= 20.0).then_some(()).ok_or(format!("{heard} of {number}"))
    })
    .await;
    let keys = site.source.list(&site.bucket).await.unwrap();
    let lag = eventually("what was heard is copied", SOON, async || {
        let copied = count(&site, "evermirror_lag_seconds_count").await;
        (copied >= 20.0).then_some(copied).ok_or(format!("{copied}"))
    })
    .await;
    assert!(lag <= f64::from(u32::try_from(keys.len()).unwrap()), "keys are not decoded");
    assert_eq!(site.evermirror.metric("evermirror_dead_letters").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_the_call_is_told_of_and_the_webhook_works_on() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    proxy.misbehave(|method, uri| {
        let listen = *method == Method::GET && uri.to_string().contains("ping=");
        listen.then_some(Fault::Answer(501, "NotImplemented"))
    });
    let setup = Setup { source_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = servers.site("listen-without", listening(setup)).await;
    eventually("the trouble is shown", SOON, async || {
        let trouble = trouble(&site).await?.unwrap_or_default();
        let told = trouble.contains("listen-without: ") && trouble.contains("NotImplemented");
        told.then_some(()).ok_or(trouble)
    })
    .await;
    site.put("key", "value").await;
    site.converges(SOON).await;
    let accepted = "evermirror_intake_events_total{outcome=\"accepted\"}";
    assert_eq!(site.evermirror.metric(accepted).await, Some(1.0));
}

mod rustfs {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_kind_of_change_is_heard_at_once() {
        let servers = Pair::FROM_RUSTFS.shared().await;
        let site = site(servers, "listen-kinds", Setup::default()).await;
        well(&site).await;
        for key in ["a b+c%20/é", "tagged", "gone", "dir/sub"] {
            site.put(key, key).await;
        }
        let parts = [vec![1; 5 << 20], vec![2; 7]];
        site.source.put_parts(&site.bucket, "parts", parts).await;
        let copy = site.source.client.copy_object().bucket(&site.bucket).key("copy");
        copy.copy_source("listen-kinds/tagged").send().await.unwrap();
        site.converges(SOON).await;
        site.source.tag(&site.bucket, "tagged", &[("colour", "red")]).await;
        site.delete("gone").await;
        site.converges(SOON).await;
        assert!(accepted(&site).await >= 8.0, "of six creations, a tag and a removal");
        assert_eq!(site.evermirror.metric("evermirror_dead_letters").await, Some(0.0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_happens_while_the_stream_is_cut_is_found_by_reconciling() {
        let servers = Pair::FROM_RUSTFS.shared().await;
        let proxy = Toxiproxy::in_front_of(&servers.source.authority()).await;
        let setup = Setup { source_endpoint: Some(proxy.endpoint()), ..Setup::default() };
        let site = site(servers, "listen-cut", setup).await;
        is_live(&site, "before").await;
        let before = streams(&site).await;
        proxy.cut().await;
        for number in 0..20 {
            site.put(&format!("meanwhile {number}"), "unheard").await;
        }
        site.delete("before").await;
        eventually("the trouble is shown", SOON, async || {
            trouble(&site).await?.map(drop).ok_or("none".to_owned())
        })
        .await;
        proxy.heal().await;
        well(&site).await;
        assert!(streams(&site).await > before, "no gap was recorded");
        site.converges(LATER).await;
        assert!(count(&site, "evermirror_drift_total").await >= 20.0);
        is_live(&site, "after").await;
        site.converges(SOON).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_source_that_is_started_again_is_listened_to_again() {
        let mut servers = Pair::FROM_RUSTFS.own().await;
        let site = site(&servers, "listen-restart", Setup::default()).await;
        is_live(&site, "before").await;
        let before = streams(&site).await;
        servers.source.stop();
        servers.source.start_again().await;
        eventually("there is another stream", LATER, async || {
            let now = streams(&site).await;
            (now > before).then_some(()).ok_or(format!("{now}"))
        })
        .await;
        is_live(&site, "after").await;
        site.converges(LATER).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_happens_while_evermirror_is_killed_is_found_at_its_start() {
        let servers = Pair::FROM_RUSTFS.shared().await;
        let mut site = site(servers, "listen-killed", Setup::default()).await;
        is_live(&site, "before").await;
        for number in 0..30 {
            site.put(&format!("burst {number}"), "value").await;
        }
        site.evermirror.kill();
        site.put("meanwhile", "unheard").await;
        site.delete("before").await;
        site.evermirror.start().await;
        site.converges(LATER).await;
        is_live(&site, "after").await;
        site.converges(SOON).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_silent_connection_is_given_up_and_another_one_begun() {
        let servers = Pair::FROM_RUSTFS.shared().await;
        let proxy = Toxiproxy::in_front_of(&servers.source.authority()).await;
        let settings = vec![("INTAKE__LISTEN__MAX_SILENCE", "15s".to_owned())];
        let source_endpoint = Some(proxy.endpoint());
        let setup = Setup { source_endpoint, settings, ..Setup::default() };
        let site = site(servers, "listen-silent", setup).await;
        is_live(&site, "before").await;
        let before = streams(&site).await;
        // Nothing arrives any more, and nobody is told that the connection is gone.
        proxy.add("timeout", "downstream", serde_json::json!({"timeout": 0})).await;
        eventually("the silence is noticed", SOON, async || {
            trouble(&site).await?.map(drop).ok_or("all seems well".to_owned())
        })
        .await;
        proxy.heal().await;
        eventually("there is another stream", LATER, async || {
            (streams(&site).await > before).then_some(()).ok_or("not yet".to_owned())
        })
        .await;
        is_live(&site, "after").await;
        site.converges(LATER).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_webhook_and_a_stream_side_by_side_copy_nothing_twice() {
        let servers = Pair::FROM_RUSTFS.shared().await;
        let site = servers.site("listen-both", listening(Setup::default())).await;
        is_live(&site, "first").await;
        let before = accepted(&site).await;
        for number in 0..40 {
            site.put(&format!("key {number}"), "value").await;
        }
        eventually("every event has come twice", SOON, async || {
            let all = count(&site, "evermirror_intake_events_total").await;
            let wanted = 40.0_f64.mul_add(2.0, before);
            (all >= wanted).then_some(()).ok_or(format!("{all} of {wanted}"))
        })
        .await;
        site.converges(SOON).await;
        let twice = "evermirror_intake_events_total{outcome=\"duplicate\"}";
        let (taken, dropped) = (accepted(&site).await - before, count(&site, twice).await);
        assert!(dropped > 0.0, "{taken} were taken and {dropped} dropped");
    }
}
