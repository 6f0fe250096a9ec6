//! Listings that go wrong: what they cannot tell is not believed, and nothing is deleted by them.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::eventually::{LATER, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::site::{Servers, Setup, Site};

/// Two equal sides of so many objects, and a source whose listings go wrong as `fault` says, by query,
/// from the second start on.
async fn lying(
    bucket: &str,
    count: usize,
    fault: impl Fn(&str) -> Option<Fault> + Send + 'static,
) -> (Site, FaultProxy) {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.source.authority()).await;
    let settings = vec![("RECONCILE__PARALLEL", "1".to_owned())];
    let setup = Setup { source_endpoint: Some(proxy.endpoint()), settings, ..Setup::default() };
    let mut site = servers.prepare(bucket, setup).await;
    let puts = (0..count).map(|number| site.source.put(bucket, key(number), "v"));
    futures_util::future::join_all(puts).await;
    site.evermirror.start().await;
    site.converges(LATER).await;
    site.evermirror.kill();
    proxy.misbehave(move |_, uri| {
        let uri = uri.to_string();
        let page = uri.contains("list-type=2") && !uri.contains("max-keys=1&");
        if page { fault(&uri) } else { None }
    });
    site.evermirror.start().await;
    (site, proxy)
}

fn key(number: usize) -> &'static str {
    format!("{number:05}").leak()
}

/// The pass ends with this outcome.
async fn a_pass(site: &Site, outcome: &str) {
    let name = format!("evermirror_reconcile_passes_total{{outcome=\"{outcome}\"}}");
    eventually("a pass ends", LATER, async || {
        let passes = site.evermirror.metric(&name).await.unwrap();
        (passes > 0.0).then_some(()).ok_or("none yet".to_owned())
    })
    .await;
}

/// The pass fails and says this; all objects are where they were, and nothing waits to be done.
async fn fails_and_deletes_nothing(site: &Site, count: usize, because: &str) {
    a_pass(site, "failed").await;
    let status = site.evermirror.status().await.unwrap();
    let error = status["reconcile"][0]["last_error"].as_str().unwrap();
    assert!(error.contains(because), "{error}");
    eventually("nothing is left to do", LATER, async || site.evermirror.idle().await).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), count);
}

/// Its entries, in the order in which they stand, each with what surrounds it.
fn entries(page: &str) -> Vec<&str> {
    let Some(begin) = page.find("<Contents>") else { return Vec::new() };
    let listed = page.split_at(begin).1.split_inclusive("</Contents>");
    listed.filter(|entry| entry.ends_with("</Contents>")).collect()
}

fn with_entries(page: &str, changed: &[&str]) -> String {
    page.replace(&entries(page).concat(), &changed.concat())
}

fn swapped(page: &str) -> String {
    let mut entries = entries(page);
    if entries.len() > 7 {
        entries.swap(3, 6);
    }
    with_entries(page, &entries)
}

fn doubled(page: &str) -> String {
    let mut entries = entries(page);
    if entries.len() > 7 {
        entries.insert(4, entries[3]);
    }
    with_entries(page, &entries)
}

/// The bytes end in the middle of a key.
fn cut_off(page: &str) -> String {
    let middle = page.rfind("<Key>").map_or(page.len(), |at| at + 7);
    page.split_at(middle).0.to_owned()
}

fn element<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// Every page but the first goes on where it began.
fn endless(page: &str) -> String {
    let Some(asked) = element(page, "ContinuationToken") else { return page.to_owned() };
    let next = element(page, "NextContinuationToken").unwrap_or_default();
    let page = page.replace(&format!("<NextContinuationToken>{next}</NextContinuationToken>"), "");
    let page = page.replace("<IsTruncated>false<", "<IsTruncated>true<");
    let more = format!("<NextContinuationToken>{asked}</NextContinuationToken></ListBucketResult>");
    page.replace("</ListBucketResult>", &more)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_is_out_of_order_is_not_compared_by() {
    let (site, _proxy) = lying("list-order", 30, |_| Some(Fault::EditAnswer(swapped))).await;
    fails_and_deletes_nothing(&site, 30, "out of order").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_names_a_key_twice_is_not_compared_by() {
    let (site, _proxy) = lying("list-twice", 30, |_| Some(Fault::EditAnswer(doubled))).await;
    fails_and_deletes_nothing(&site, 30, "out of order").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_never_ends_is_given_up() {
    let (site, proxy) = lying("list-endless", 1_200, |_| Some(Fault::EditAnswer(endless))).await;
    fails_and_deletes_nothing(&site, 1_200, "goes in circles").await;
    assert!(proxy.faults() < 50, "{} pages were asked for", proxy.faults());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_cut_off_is_asked_for_again_and_never_taken_for_a_short_one() {
    let pages = AtomicU32::new(0);
    let (site, proxy) = lying("list-cut-off", 30, move |_| {
        let first = pages.fetch_add(1, Ordering::Relaxed) < 2;
        first.then_some(Fault::EditAnswer(cut_off))
    })
    .await;
    a_pass(&site, "complete").await;
    assert_eq!(proxy.faults(), 2);
    assert_eq!(site.evermirror.metric("evermirror_drift_total").await, Some(0.0));
    site.converges(LATER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_fails_twice_in_the_middle_makes_no_difference() {
    let pages = AtomicU32::new(0);
    let (site, proxy) = lying("list-500", 1_200, move |uri| {
        let behind = uri.contains("continuation-token=") || uri.contains("start-after=");
        let first = behind && pages.fetch_add(1, Ordering::Relaxed) < 2;
        first.then_some(Fault::Answer(500, "InternalError"))
    })
    .await;
    a_pass(&site, "complete").await;
    assert_eq!(proxy.faults(), 2);
    assert_eq!(site.evermirror.metric("evermirror_drift_total").await, Some(0.0));
}

/// One more object, which nobody can read.
fn haunted(page: &str) -> String {
    let mut entries = entries(page);
    let Some(last) = entries.last() else { return page.to_owned() };
    let name = element(last, "Key").unwrap_or_default();
    let ghost = last.replace(&format!("<Key>{name}</Key>"), "<Key>ghost</Key>");
    entries.push(&ghost);
    with_entries(page, &entries)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_listed_and_not_there_is_counted_and_makes_no_difference() {
    let (site, _proxy) = lying("list-ghost", 30, |_| Some(Fault::EditAnswer(haunted))).await;
    a_pass(&site, "complete").await;
    eventually("the ghost is looked for", LATER, async || {
        let name = "evermirror_replicated_total{action=\"ghost\"}";
        let ghosts = site.evermirror.metric(name).await.unwrap();
        (ghosts >= 1.0).then_some(()).ok_or(format!("{ghosts} ghosts"))
    })
    .await;
    eventually("nothing is left to do", LATER, async || site.evermirror.idle().await).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 30);
}
