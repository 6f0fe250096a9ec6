//! The webhook with RustFS: what it sends, how it probes, its queue, and its outbound policy.

mod setup;

use hyper::{Method, StatusCode};

use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::evermirror::{Config, Evermirror};
use crate::support::http;
use crate::support::minio::{Minio, Webhook};
use crate::support::ports::free_port;
use crate::support::rustfs::Rustfs;
use crate::support::s3::S3;
use crate::support::server::Pair;
use crate::support::site::{Setup, Site};

async fn events(evermirror: &Evermirror, outcome: &str) -> Option<f64> {
    let sample = format!("evermirror_intake_events_total{{outcome=\"{outcome}\"}}");
    evermirror.metric(&sample).await
}

/// Waits until so many events have been taken.
async fn taken(evermirror: &Evermirror, wanted: f64) {
    eventually("events arrive", LATER, async || {
        let count = events(evermirror, "accepted").await;
        (count >= Some(wanted)).then_some(()).ok_or(format!("{count:?} of {wanted}"))
    })
    .await;
}

fn hook(queue: bool) -> Webhook {
    Webhook { id: "EM".to_owned(), port: free_port(), queue, tls: false }
}

const ARN: &str = "arn:rustfs:sqs::em:webhook";

fn allowed(hook: &Webhook) -> Vec<(String, String)> {
    vec![("RUSTFS_OUTBOUND_ALLOW_ORIGINS".to_owned(), hook.origin())]
}

/// An evermirror between this RustFS and this MinIO, which listens where the hook points to.
async fn evermirror(source: &Rustfs, target: &Minio, hook: &Webhook) -> (Evermirror, S3) {
    let client = source.client();
    client.create_bucket("hooked").await;
    let evermirror = Evermirror::configure(Config {
        source_endpoint: source.endpoint(),
        target_endpoint: target.endpoint(),
        bucket: ("hooked".to_owned(), "hooked-copy".to_owned()),
        webhook_port: hook.port,
        settings: Vec::new(),
    });
    (evermirror, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_notification_that_it_sends_today_is_understood() {
    let setup = Setup { versioned: true, ..Setup::default() };
    let site: Site = Pair::FROM_RUSTFS.shared().await.site("rustfs-events", setup).await;
    for key in ["a b+c%20/é", "tagged", "gone", "bulk 1", "bulk 2"] {
        site.put(key, key).await;
    }
    let parts = [vec![1; 5 << 20], vec![2; 7]];
    site.source.put_parts(&site.bucket, "parts", parts).await;
    let copy = site.source.client.copy_object().bucket(&site.bucket).key("copy");
    copy.copy_source("rustfs-events/tagged").send().await.unwrap();
    site.source.tag(&site.bucket, "tagged", &[("colour", "red")]).await;
    let untag = site.source.client.delete_object_tagging().bucket(&site.bucket).key("tagged");
    untag.send().await.unwrap();
    site.delete("gone").await;
    site.delete("never existed").await;
    let bulk = ["bulk 1", "bulk 2", "never existed either"].map(str::to_owned);
    site.source.delete_all(&site.bucket, &bulk).await;
    // Seven creations, two changes of tags, at least three removals.
    taken(&site.evermirror, 12.0).await;
    site.converges(SOON).await;
    assert_eq!(events(&site.evermirror, "dead_letter").await, Some(0.0));
    assert_eq!(site.evermirror.metric("evermirror_gaps_total").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_probe_is_answered_and_its_events_arrive_as_soon_as_they_can() {
    let target = Minio::target().await;
    let hook = hook(false);
    // Nobody answers the probe when RustFS starts; it drops such a target, and probes again.
    let source = Rustfs::start_with(std::slice::from_ref(&hook), allowed(&hook)).await;
    let (mut evermirror, client) = evermirror(&source, &target, &hook).await;
    evermirror.start().await;
    let probe = http::request(Method::HEAD, &evermirror.webhook("/"), &[], "").await.unwrap();
    assert_eq!(probe.status, StatusCode::OK);
    // Until it has reached one, it refuses the notifications of a bucket.
    eventually("RustFS has found its target", LATER, async || {
        client.try_notify("hooked", &[ARN.to_owned()]).await
    })
    .await;
    let mut number = 0;
    eventually("RustFS sends events", LATER, async || {
        number += 1;
        client.put("hooked", &format!("key {number}"), "value").await;
        let count = events(&evermirror, "accepted").await;
        (count > Some(0.0)).then_some(()).ok_or(format!("none of {number}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_queue_keeps_what_happens_while_evermirror_is_down() {
    const MISSED: usize = 25;
    let target = Minio::target().await;
    let hook = hook(true);
    let source = Rustfs::start_with(std::slice::from_ref(&hook), allowed(&hook)).await;
    let (mut evermirror, client) = evermirror(&source, &target, &hook).await;
    client.notify("hooked", &[ARN.to_owned()]).await;
    for number in 0..MISSED {
        client.put("hooked", &format!("key {number}"), "value").await;
    }
    evermirror.start().await;
    taken(&evermirror, 25.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_outbound_policy_refuses_a_neighbour_unless_told() {
    let target = Minio::target().await;
    let hook = hook(false);
    let source = Rustfs::start_with(std::slice::from_ref(&hook), Vec::new()).await;
    let (mut evermirror, client) = evermirror(&source, &target, &hook).await;
    evermirror.start().await;
    let log = source.log();
    let advice = format!("add {} to RUSTFS_OUTBOUND_ALLOW_ORIGINS", hook.origin());
    assert!(log.contains(&advice), "{log}");
    let refused = client.try_notify("hooked", &[ARN.to_owned()]).await.unwrap_err();
    assert!(refused.contains("No notify targets configured"), "{refused}");
    client.put("hooked", "key", "value").await;
    // It is found all the same, but by reconciling.
    let answer = evermirror.once(&["sync"]).await;
    assert_eq!(answer.0, 0, "{}", answer.1);
    assert_eq!(events(&evermirror, "accepted").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_cannot_hold_is_parked_with_its_reason_and_holds_up_nothing_else() {
    let site = Pair::TO_RUSTFS.site("cannot-hold").await;
    let bucket = site.target_bucket.clone();
    for key in [bucket.as_str(), "a line\nend"] {
        site.put(key, "not for RustFS").await;
    }
    for number in 0..40 {
        site.put(&format!("fine {number}"), "value").await;
    }
    eventually("all others are copied and two are shown", LATER, async || {
        let copied = site.target.list(&bucket).await?.len();
        let parked = site.evermirror.count("parked").await?;
        if (copied, parked) == (40, 2) {
            return Ok(());
        }
        Err(format!("{copied} copied, {parked} parked"))
    })
    .await;
    let log = site.evermirror.log();
    assert!(log.contains("control characters") && log.contains("ServiceUnavailable"), "{log}");
}
