//! A configuration that cannot work: the program ends, and says which setting and what to do.

use std::fs;
use std::net::TcpListener;

use crate::support::events;
use crate::support::eventually::{SOON, eventually};
use crate::support::evermirror::{Config, Evermirror};
use crate::support::minio::SECRET_KEY;
use crate::support::ports::free_port;
use crate::support::site::Servers;

/// A configuration that works but for `settings`.
async fn configured(settings: &[(&str, &str)]) -> (Evermirror, u16) {
    let servers = Servers::shared().await;
    let webhook_port = free_port();
    let config = Config {
        source_endpoint: servers.source.endpoint(),
        target_endpoint: servers.target.endpoint(),
        bucket: ("configured".to_owned(), "configured".to_owned()),
        webhook_port,
        settings: settings.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
    };
    (Evermirror::configure(config), webhook_port)
}

/// It ends with a failure, having said all of `words`, and no secret.
async fn ends_saying(mut evermirror: Evermirror, words: &[&str]) {
    evermirror.spawn();
    let status = evermirror.ended().await;
    let log = evermirror.log();
    assert!(status.code().is_some_and(|code| code != 0 && code != 101), "{status}: {log}");
    // A setting is named as it was given: by table and key, or by its variable's name.
    let said = log.to_lowercase();
    for word in words {
        assert!(said.contains(&word.to_lowercase()), "it does not say {word:?}: {log}");
    }
    assert!(!log.contains(SECRET_KEY) && !log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_no_url_is_named() {
    for (setting, name) in [("SOURCE__ENDPOINT", "source"), ("TARGET__ENDPOINT", "target")] {
        for wrong in ["", "minio:9000", "ftp://minio", "http://minio/a/path"] {
            let (evermirror, _) = configured(&[(setting, wrong)]).await;
            ends_saying(evermirror, &[name, "endpoint"]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_told_for_the_store_they_belong_to_and_notifications_are_still_kept() {
    for (setting, wrong, store, code) in [
        ("SOURCE__SECRET_KEY", "wrong", "source", "SignatureDoesNotMatch"),
        ("TARGET__SECRET_KEY", "wrong", "target", "SignatureDoesNotMatch"),
        ("SOURCE__ACCESS_KEY", "nobody", "source", "InvalidAccessKeyId"),
    ] {
        let (mut evermirror, _) = configured(&[(setting, wrong)]).await;
        evermirror.start().await;
        let advice = format!("access_key, secret_key and region in [{store}]");
        eventually("the log says what to mend", SOON, async || {
            let log = evermirror.log();
            let told = |line: &&str| line.contains(code) && line.contains(&advice);
            log.lines().find(told).map(|_| ()).ok_or(log.clone())
        })
        .await;
        let event = events::event("ObjectCreated:Put", "configured", "a key");
        assert_eq!(evermirror.post(event).await.status, 200);
        assert_eq!(evermirror.count("pending").await, Ok(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let in_the_way = directory.path().join("a-file");
    fs::write(&in_the_way, "not a directory").unwrap();
    let below = in_the_way.join("data");
    for path in [in_the_way.to_str().unwrap(), below.to_str().unwrap(), "/proc/evermirror"] {
        let (evermirror, _) = configured(&[("DATA_DIR", path)]).await;
        ends_saying(evermirror, &["data_dir", path]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_in_use_is_not_shared() {
    let (mut first, _) = configured(&[]).await;
    Servers::shared().await.source.client().create_bucket("configured").await;
    first.start().await;
    let used = first.data_dir();
    let (second, _) = configured(&[("DATA_DIR", used.to_str().unwrap())]).await;
    ends_saying(second, &["data_dir", used.to_str().unwrap()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_in_use_is_named() {
    let (evermirror, port) = configured(&[]).await;
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    ends_saying(evermirror, &["webhook", &format!("127.0.0.1:{port}")]).await;

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (evermirror, _) = configured(&[("WEB__LISTEN", &address)]).await;
    ends_saying(evermirror, &["web", &address]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_setting_is_named_with_the_nearest_right_one() {
    let (evermirror, _) = configured(&[("REPLICATE__CONCURENCY", "8")]).await;
    ends_saying(evermirror, &["concurency", "concurrency"]).await;
}
