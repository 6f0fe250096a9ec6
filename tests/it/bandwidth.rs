//! Limits that spare the target: bytes a second, and copies of a key that changes all the time.

use std::time::{Duration, Instant};

use crate::support::eventually::{LATER, eventually};
use crate::support::fault_proxy::FaultProxy;
use crate::support::site::{Servers, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_key_is_copied_seldom_and_ends_with_its_last_state() {
    const INTERVAL: Duration = Duration::from_secs(2);
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let settings = vec![("REPLICATE__MIN_INTERVAL", format!("{}s", INTERVAL.as_secs()))];
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), settings, ..Setup::default() };
    let site = servers.site("hot", setup).await;
    let began = Instant::now();
    for change in 0..200 {
        site.put("key", format!("change {change}")).await;
    }
    site.converges(LATER).await;
    let object = site.target.client.get_object().bucket(&site.target_bucket).key("key").send();
    let object = object.await.unwrap().body.collect().await.unwrap();
    assert_eq!(object.to_vec(), b"change 199");
    // A slow machine gives more time, and so more copies, but never more than one an interval.
    let most = 2 + began.elapsed().as_secs() / INTERVAL.as_secs();
    let puts = proxy.seen().iter().filter(|seen| *seen == "PUT /hot-copy/key").count();
    assert!((1..=most).contains(&(puts as u64)), "{puts} copies, where {most} are the most");
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_bytes_were_written_than_the_bandwidth_allows() {
    const RATE: u32 = 300_000;
    const SIZE: u32 = 100_000;
    const OBJECTS: u32 = 20;
    let settings = vec![("REPLICATE__BANDWIDTH", RATE.to_string())];
    let setup = Setup { settings, ..Setup::default() };
    let site = Servers::shared().await.site("bandwidth", setup).await;
    let began = Instant::now();
    for number in 0..OBJECTS {
        site.put(&format!("key {number}"), vec![1; SIZE as usize]).await;
    }
    let total = f64::from(OBJECTS * SIZE);
    eventually("all is written", LATER, async || {
        let bytes = site.evermirror.metric("evermirror_replicated_bytes_total").await;
        let bytes = bytes.ok_or("bytes are not counted")?;
        // The time is taken after the bytes: however slow this machine is, they had no more of it. What
        // is sent first need not wait.
        let allowed = began.elapsed().as_secs_f64() * f64::from(RATE) + f64::from(SIZE);
        assert!(bytes <= allowed, "{bytes} bytes written where {allowed} are allowed");
        if bytes >= total { Ok(()) } else { Err(format!("{bytes} of {total} bytes")) }
    })
    .await;
    site.converges(LATER).await;
}
