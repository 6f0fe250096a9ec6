//! The status page in real Chromium: what an operator sees, and does, at three in the morning.

use hyper::{Method, StatusCode};
use serde_json::json;

use crate::support::browser::{Browser, ENTER, Scheme, TAB};
use crate::support::eventually::{SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::http;
use crate::support::site::{Servers, Setup};

const TOKEN: &str = "a-person's-token";
/// What is wider than the place it has.
const WIDER: &str = "return [document.documentElement, ...document.querySelectorAll('section')] \
                     .filter((part) => part.scrollWidth > part.clientWidth + 1) \
                     .map((part) => part.id || part.getAttribute('aria-labelledby') || part.tagName)";
const HOSTILE: &str = "<img src=x onerror=document.title='owned'>";

/// Presses Tab until the element with the focus has `label`.
async fn tab_to(browser: &Browser, label: &str) {
    let focus = "return document.activeElement.getAttribute('aria-label') \
                 || document.activeElement.innerText";
    for _ in 0..60 {
        browser.press(&TAB.to_string()).await;
        if browser.run(focus).await.as_str().is_some_and(|found| found.starts_with(label)) {
            return;
        }
    }
    panic!("Tab never reaches {label:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_of_a_target_that_goes_down_and_comes_back() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let mut site = servers.site("page-down", setup).await;
    let page = site.evermirror.web("/");
    let (browser, dark) = tokio::join!(Browser::start(Scheme::Light), Browser::start(Scheme::Dark));
    browser.open(&page).await;
    for number in 0..20 {
        site.put(&format!("key {number}"), "12345").await;
    }
    browser.shows("#connection", "live").await;
    browser.shows("#verdict", "Nothing").await;
    browser.shows("#because", "Every change that the source told of is on the target.").await;
    browser.shows("#totals", "20 (100 B)").await;
    assert_eq!(browser.run("return document.getElementById('answer').dataset.state").await, "good");
    browser.keep_picture("page-well").await;

    proxy.misbehave(|_, _| Some(Fault::Answer(503, "ServiceUnavailable")));
    site.put(HOSTILE, "never copied while the target is down").await;
    browser.shows("#parked", HOSTILE).await;
    browser.shows("#bytes", "37 B").await;
    browser.shows("#because", "Changes to 1 key (37 B) are not on the target yet.").await;
    browser.shows("#buckets", "1 key, 37 B").await;
    browser.shows("#stores", "open, last event").await;
    browser.shows("#verdict", "The last").await;
    browser.shows("#problems", "The target has not answered").await;
    browser.shows("#stores", "down for").await;
    let images = browser.run("return document.images.length").await;
    assert_eq!(images, 0, "a key became markup");
    browser.keep_picture("page-target-down").await;
    dark.open(&page).await;
    dark.shows("#problems", "The target has not answered").await;
    dark.keep_picture("page-target-down-dark").await;
    let background = "return getComputedStyle(document.body).backgroundColor";
    assert_ne!(browser.run(background).await, dark.run(background).await);

    proxy.behave();
    browser.shows("#verdict", "Nothing").await;
    eventually("the trouble is gone from the page", SOON, async || {
        let hidden = "return document.getElementById('trouble').hidden \
                      && document.getElementById('parked-section').hidden";
        (browser.run(hidden).await == true).then_some(()).ok_or(browser.text("main").await)
    })
    .await;
    assert_ne!(browser.run("return document.title").await, "owned");

    site.evermirror.kill();
    browser.shows("#connection", "does not answer").await;
    site.evermirror.start().await;
    browser.shows("#connection", "live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_breaks_the_page_be_it_as_narrow_as_a_telephone() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    proxy.misbehave(|method, _| {
        (method == Method::PUT).then_some(Fault::Answer(403, "AccessDenied"))
    });
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = servers.site("page-narrow", setup).await;
    let long = "long".repeat(60);
    for key in [&long, HOSTILE, "\u{202e}gnp.exe"] {
        site.put(key, "refused").await;
    }
    let browser = Browser::start(Scheme::Dark).await;
    browser.open(&site.evermirror.web("/")).await;
    for shown in [&long, HOSTILE, "\\u{202e}gnp.exe"] {
        browser.shows("#parked", shown).await;
    }
    for width in [360, 800, 1440] {
        browser.resize(width).await;
        assert_eq!(browser.run(WIDER).await, json!([]), "{width} pixels wide");
        browser.keep_picture(&format!("page-{width}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_a_bucket_that_fails_as_a_whole() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup { target_endpoint: Some(proxy.endpoint()), ..Setup::default() };
    let site = servers.site("page-failing", setup).await;
    site.walked().await;
    proxy.misbehave(|method, _| {
        (method == Method::PUT).then_some(Fault::Answer(507, "XMinioStorageFull"))
    });
    let browser = Browser::start(Scheme::Light).await;
    browser.open(&site.evermirror.web("/")).await;
    for number in 0..20 {
        site.put(&format!("key {number}"), "12345").await;
    }
    browser.shows("#problems", "Bucket page-failing fails as a whole").await;
    browser.shows("#problems", "XMinioStorageFull").await;
    proxy.behave();
    browser.shows("#verdict", "Nothing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_deletes_are_decided_by_keyboard_and_only_with_the_token() {
    let settings =
        vec![("DELETES__MAX_DELETES", "5".to_owned()), ("WEB__AUTH_TOKEN", TOKEN.to_owned())];
    let site =
        Servers::shared().await.site("page-held", Setup { settings, ..Setup::default() }).await;
    let keys: Vec<_> = (0..20).map(|number| format!("key {number}")).collect();
    for key in &keys {
        site.put(key, key.as_str()).await;
    }
    site.put("another", "stays").await;
    site.converges(SOON).await;
    site.source.delete_all(&site.bucket, &keys).await;
    let browser = Browser::start(Scheme::Light).await;
    browser.open(&site.evermirror.web("/")).await;
    browser.shows("#held", "page-held").await;
    eventually("all are held", SOON, async || {
        let held = site.evermirror.count("held").await?;
        (held == 15).then_some(()).ok_or(format!("{held} are held"))
    })
    .await;
    browser.shows("#held", "15").await;
    browser.keep_picture("page-held").await;

    tab_to(&browser, "Discard").await;
    browser.press(&ENTER.to_string()).await;
    browser.shows("#confirm-dialog", "15 objects stay on the target").await;
    tab_to(&browser, "Keep them").await;
    browser.press(&ENTER.to_string()).await;
    browser.shows("#token-dialog", "Acting needs the token.").await;
    browser.press(&format!("wrong{ENTER}")).await;
    browser.shows("#token-dialog", "That was not the token.").await;
    assert_eq!(site.evermirror.count("held").await, Ok(15), "a wrong token acted");
    browser.keep_picture("page-token").await;
    browser.press(&format!("{TOKEN}{ENTER}")).await;
    browser.shows("#said", "15 deletes discarded.").await;
    eventually("nothing is held", SOON, async || {
        let held = site.evermirror.count("held").await?;
        (held == 0).then_some(()).ok_or(format!("{held} are held"))
    })
    .await;
    let left = site.target.list(&site.target_bucket).await.unwrap();
    assert_eq!(left.len(), 16, "what was discarded was deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_page_asks_for_the_token_before_it_shows_anything() {
    let settings = vec![
        ("WEB__AUTH_TOKEN", TOKEN.to_owned()),
        ("WEB__READ_WITHOUT_TOKEN", "false".to_owned()),
    ];
    let site =
        Servers::shared().await.site("page-private", Setup { settings, ..Setup::default() }).await;
    let refused = http::request(Method::GET, &site.evermirror.web("/api/v1/stream"), &[], "").await;
    assert_eq!(refused.unwrap().status, StatusCode::UNAUTHORIZED);
    let browser = Browser::start(Scheme::Light).await;
    browser.open(&site.evermirror.web("/")).await;
    browser.shows("#token-dialog", "Reading this page needs the token.").await;
    assert!(!browser.text("main").await.contains("page-private"));
    browser.keep_picture("page-asks").await;
    browser.press(&format!("{TOKEN}{ENTER}")).await;
    browser.shows("#buckets", "page-private").await;
}
