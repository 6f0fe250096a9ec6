//! HTTPS everywhere, and client certificates at the webhook.

use hyper::{Method, StatusCode};

use crate::support::events;
use crate::support::eventually::{SOON, eventually};
use crate::support::http;
use crate::support::minio::{Special, TOKEN};
use crate::support::site::{Servers, Setup};
use crate::support::tls::fixture;

/// Every setting of TLS there is.
fn settings() -> Vec<(&'static str, String)> {
    [
        ("SOURCE__CA_FILE", "authority.pem"),
        ("TARGET__CA_FILE", "authority.pem"),
        ("INTAKE__WEBHOOK__TLS__CERT_FILE", "server.pem"),
        ("INTAKE__WEBHOOK__TLS__KEY_FILE", "server.key"),
        ("INTAKE__WEBHOOK__TLS__CLIENT_CA_FILE", "authority.pem"),
    ]
    .map(|(setting, file)| (setting, fixture(file).display().to_string()))
    .into()
}

async fn servers() -> Servers {
    Servers::special(Special { tls: true, ..Special::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_and_notifications_by_https_and_no_stranger_is_heard() {
    let servers = servers().await;
    let setup = Setup { settings: settings(), ..Setup::default() };
    let site = servers.site("tls", setup).await;
    for number in 0..10 {
        site.put(&format!("key {number}"), format!("value {number}")).await;
    }
    site.put("streamed", vec![1; 1 << 20]).await;
    site.source.put_parts(&site.bucket, "parts", [vec![2; 5 << 20], vec![3; 9]]).await;
    site.delete("key 0").await;
    site.converges(SOON).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 11);

    let url = site.evermirror.webhook("/events").replace("http://127.0.0.1", "https://localhost");
    let token = format!("Bearer {TOKEN}");
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let post = async |identity, url: &str| {
        let body = events::event("ObjectCreated:Put", &site.bucket, "key 1");
        http::request_as(identity, Method::POST, url, &headers, body).await.map(|a| a.status)
    };
    assert_eq!(post(Some("client"), &url).await, Ok(StatusCode::OK));
    // The right token does not make up for the certificate.
    for stranger in [None, Some("stranger")] {
        let answer = post(stranger, &url).await;
        assert!(answer.is_err(), "{stranger:?} is answered {answer:?}");
    }
    let plain = post(None, &site.evermirror.webhook("/events")).await;
    assert!(plain.is_err(), "without TLS the answer is {plain:?}");
    assert_eq!(post(Some("client"), &url).await, Ok(StatusCode::OK), "it no longer listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_certificate_is_not_trusted_is_told_and_sent_nothing() {
    let servers = servers().await;
    let mut settings = settings();
    settings.retain(|(name, _)| *name != "TARGET__CA_FILE");
    let site = servers.site("untrusted", Setup { settings, ..Setup::default() }).await;
    eventually("the log says why", SOON, async || {
        let log = site.evermirror.log();
        let told = |line: &str| {
            line.contains("certificate not trusted") && line.contains(&servers.target.endpoint())
        };
        log.lines().any(told).then_some(()).ok_or("nothing is said".to_owned())
    })
    .await;
    assert!(site.target.list(&site.target_bucket).await.is_err(), "the bucket was created");
}
