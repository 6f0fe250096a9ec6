//! What becomes of an object that the source deleted, where a bucket's policy is not to mirror that.

use std::time::{Duration, Instant};

use crate::support::events;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::site::{Servers, Setup, Site};

fn setup(policy: &str, delay: &str) -> Setup {
    let settings = vec![
        ("BUCKETS__0__DELETES", policy.to_owned()),
        ("BUCKETS__0__DELETE_DELAY", delay.to_owned()),
    ];
    Setup { settings, ..Setup::default() }
}

async fn fill(site: &Site, keys: &[&str]) {
    for key in keys {
        site.put(key, *key).await;
    }
    site.converges(SOON).await;
}

async fn at_target(site: &Site) -> Vec<String> {
    site.target.list(&site.target_bucket).await.unwrap().into_keys().collect()
}

/// Waits until the target has these keys and no other, and says when that was.
async fn target_has(site: &Site, wanted: &[&str]) -> Instant {
    eventually("the target has what it should", LATER, async || {
        let keys = at_target(site).await;
        if keys == wanted { Ok(()) } else { Err(format!("{keys:?}, not {wanted:?}")) }
    })
    .await;
    Instant::now()
}

async fn delayed(site: &Site, wanted: u64) {
    eventually("deletes are delayed", SOON, async || {
        let count = site.evermirror.count("delayed").await?;
        (count == wanted).then_some(()).ok_or(format!("{count} of {wanted}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_keeps_what_the_source_deletes() {
    let site = Servers::shared().await.site("archive", setup("archive", "1s")).await;
    fill(&site, &["a", "b", "c"]).await;
    site.delete("a").await;
    site.delete("b").await;
    eventually("both deletes are counted", SOON, async || {
        let kept = site.evermirror.metric("evermirror_replicated_total{action=\"kept\"}").await;
        (kept >= Some(2.0)).then_some(()).ok_or(format!("{kept:?}"))
    })
    .await;
    eventually("nothing is left to do", SOON, async || site.evermirror.idle().await).await;
    assert_eq!(at_target(&site).await, ["a", "b", "c"]);
    // What comes back is replicated as ever.
    site.put("a", "made again").await;
    eventually("the new object arrives", SOON, async || {
        let list = site.target.list(&site.target_bucket).await?;
        let source = site.source.list(&site.bucket).await?;
        (list.get("a") == source.get("a")).then_some(()).ok_or("it is the old one".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_delete_is_carried_out_after_its_delay_and_not_before() {
    const DELAY: Duration = Duration::from_secs(4);
    let site = Servers::shared().await.site("delayed", setup("delay", "4s")).await;
    fill(&site, &["gone", "stays"]).await;
    let deleted = Instant::now();
    site.delete("gone").await;
    delayed(&site, 1).await;
    let status = site.evermirror.status().await.unwrap();
    assert_eq!(status["delayed"][0]["bucket"], "delayed", "{status}");
    assert_eq!(site.evermirror.metric("evermirror_delayed_deletes").await, Some(1.0));
    // The same delete, told again by someone: it is no reason to hurry.
    let body = events::event("ObjectRemoved:Delete", "delayed", "gone");
    assert!(site.evermirror.post(body).await.status.is_success());
    let carried_out = target_has(&site, &["stays"]).await;
    assert!(carried_out - deleted >= DELAY, "after {:?}", carried_out - deleted);
    delayed(&site, 0).await;
    site.converges(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_came_back_is_not_deleted_when_the_delay_is_over() {
    let site = Servers::shared().await.site("came-back", setup("delay", "3s")).await;
    fill(&site, &["back", "gone", "stays"]).await;
    site.delete("back").await;
    site.delete("gone").await;
    delayed(&site, 2).await;
    site.put("back", "made again").await;
    // The first delete is due before the second.
    target_has(&site, &["back", "stays"]).await;
    delayed(&site, 0).await;
    site.converges(SOON).await;
    assert_eq!(at_target(&site).await, ["back", "stays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_came_back_and_was_deleted_again_has_its_whole_delay_once_more() {
    const DELAY: Duration = Duration::from_secs(4);
    let site = Servers::shared().await.site("delayed-again", setup("delay", "4s")).await;
    fill(&site, &["first", "stays"]).await;
    site.delete("first").await;
    delayed(&site, 1).await;
    site.put("first", "made again").await;
    eventually("it arrives", SOON, async || {
        let list = site.target.list(&site.target_bucket).await?;
        let source = site.source.list(&site.bucket).await?;
        (list.get("first") == source.get("first")).then_some(()).ok_or("not yet".to_owned())
    })
    .await;
    let deleted = Instant::now();
    site.delete("first").await;
    let carried_out = target_has(&site, &["stays"]).await;
    assert!(carried_out - deleted >= DELAY, "after {:?}", carried_out - deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_deletes_survive_a_crash_and_are_still_carried_out() {
    let mut site = Servers::shared().await.site("delay-crash", setup("delay", "5s")).await;
    fill(&site, &["a", "b", "back", "stays"]).await;
    for key in ["a", "b", "back"] {
        site.delete(key).await;
    }
    delayed(&site, 3).await;
    site.evermirror.kill();
    // Nobody hears of this.
    site.put("back", "made again").await;
    site.evermirror.start().await;
    target_has(&site, &["back", "stays"]).await;
    delayed(&site, 0).await;
    site.converges(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brake_holds_delayed_deletes_too() {
    let mut setup = setup("delay", "1s");
    setup.settings.push(("DELETES__MAX_DELETES", "2".to_owned()));
    let site = Servers::shared().await.site("delay-brake", setup).await;
    fill(&site, &["a", "b", "c", "d", "e"]).await;
    for key in ["a", "b", "c", "d", "e"] {
        site.delete(key).await;
    }
    // Two were delayed; when those are due the brake is on, so that they are held as well.
    eventually("all are held", SOON, async || {
        let held = site.evermirror.count("held").await?;
        (held == 5).then_some(()).ok_or(format!("{held} are held"))
    })
    .await;
    assert_eq!(at_target(&site).await.len(), 5);
}
