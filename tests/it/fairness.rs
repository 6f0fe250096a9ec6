//! One bucket that fails or hangs stops no other bucket.

use hyper::Method;
use serde_json::Value;

use crate::support::events::{body, record};
use crate::support::eventually::{SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::mc;
use crate::support::site::{Servers, Setup, Site};

/// A site whose second bucket is called `other`, at both sides; all four buckets are there.
async fn two_buckets(first: &str, other: &str, mut setup: Setup) -> Site {
    setup.settings.push(("BUCKETS__1__SOURCE", other.to_owned()));
    let mut site = Servers::shared().await.silent(first, setup).await;
    site.target.create_bucket(&site.target_bucket).await;
    for store in [&site.source, &site.target] {
        store.create_bucket(other).await;
    }
    site.evermirror.start().await;
    site.walked().await;
    site
}

/// Puts objects into a bucket of the source, and posts their events.
async fn put(site: &Site, bucket: &str, keys: usize) {
    let mut records = Vec::new();
    for number in 0..keys {
        let key = format!("key-{number}");
        site.source.put(bucket, &key, vec![b'x'; 4 << 10]).await;
        records.push(record("ObjectCreated:Put", bucket, &key));
    }
    assert_eq!(site.evermirror.post(body(&records)).await.status, 200);
}

async fn arrives(site: &Site, bucket: &str) {
    eventually("an object of the other bucket arrives", SOON, async || {
        let listed = site.target.list(bucket).await?;
        listed.contains_key("key-0").then_some(()).ok_or(format!("{listed:?}"))
    })
    .await;
}

fn of_bucket<'a>(status: &'a Value, bucket: &str) -> &'a Value {
    let buckets = status["buckets"].as_array().expect("buckets");
    buckets.iter().find(|found| found["bucket"] == bucket).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_requests_hang_keeps_no_other_bucket_waiting() {
    let proxy = FaultProxy::in_front_of(&Servers::shared().await.target.authority()).await;
    let setup = Setup {
        target_endpoint: Some(proxy.endpoint()),
        // Beyond the test's end, so that nothing that hangs is given up.
        settings: vec![("REPLICATE__REQUEST_TIMEOUT", "1h".to_owned())],
        ..Setup::default()
    };
    let site = two_buckets("fair-hangs", "fair-hangs-not", setup).await;
    proxy.misbehave(|method, uri| {
        let hangs = *method == Method::PUT && uri.path().starts_with("/fair-hangs-copy/");
        hangs.then_some(Fault::Hold)
    });
    put(&site, "fair-hangs", 200).await;
    // All permits that one bucket may have.
    site.evermirror.counts("in_flight", 64, SOON).await;
    put(&site, "fair-hangs-not", 1).await;
    arrives(&site, "fair-hangs-not").await;
    proxy.behave();
    eventually("all is done", SOON, async || site.evermirror.idle().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_over_its_quota_neither_stops_another_nor_takes_the_store_down() {
    let site = two_buckets("fair-full", "fair-full-not", Setup::default()).await;
    mc::quota(&Servers::shared().await.target.authority(), &site.target_bucket, "1KiB");
    put(&site, "fair-full", 300).await;
    eventually("the bucket is unhealthy", SOON, async || {
        let status = site.evermirror.status().await?;
        let reason = of_bucket(&status, "fair-full")["unhealthy"].as_str();
        let quota = reason.is_some_and(|reason| reason.contains("Quota"));
        quota.then_some(()).ok_or(status["buckets"].to_string())
    })
    .await;
    put(&site, "fair-full-not", 1).await;
    arrives(&site, "fair-full-not").await;
    let status = site.evermirror.status().await.unwrap();
    assert_eq!(status["target"]["up"], true, "{status}");
    assert!(!site.evermirror.log().contains("The store is down"));
    assert_eq!(of_bucket(&status, "fair-full")["pending"], 300);
    mc::quota(&Servers::shared().await.target.authority(), &site.target_bucket, "1GiB");
    eventually("all is done", SOON, async || site.evermirror.idle().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_denied_or_missing_neither_stops_another_nor_takes_the_store_down() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = two_buckets("fair-denied", "fair-denied-not", setup).await;
    proxy.misbehave(|_, uri| {
        let denied = uri.path().starts_with("/fair-denied-copy");
        denied.then_some(Fault::Answer(403, "AccessDenied"))
    });
    put(&site, "fair-denied", 200).await;
    site.evermirror.counts("parked", 200, SOON).await;
    put(&site, "fair-denied-not", 1).await;
    arrives(&site, "fair-denied-not").await;
    let status = site.evermirror.status().await.unwrap();
    assert_eq!(status["target"]["up"], true, "{status}");
    // The same with a bucket that is not there any more.
    proxy.misbehave(|_, uri| {
        let missing = uri.path().starts_with("/fair-denied-copy");
        missing.then_some(Fault::Answer(404, "NoSuchBucket"))
    });
    put(&site, "fair-denied", 1).await;
    site.target.delete("fair-denied-not", "key-0").await;
    put(&site, "fair-denied-not", 1).await;
    arrives(&site, "fair-denied-not").await;
    let status = site.evermirror.status().await.unwrap();
    assert_eq!(status["target"]["up"], true, "{status}");
    assert_eq!(of_bucket(&status, "fair-denied")["pending"], 200);
    proxy.behave();
    eventually("all is done", SOON, async || site.evermirror.idle().await).await;
}
