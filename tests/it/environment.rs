//! Settings as a container has them: variables, secrets in files, buckets that people make.

use std::fs;

use crate::support::eventually::{SOON, eventually};
use crate::support::minio::{ACCESS_KEY, SECRET_KEY, TOKEN};
use crate::support::site::{Servers, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_and_secrets_in_files_are_enough() {
    let servers = Servers::shared().await;
    let mut site = servers.prepare("no-file", Setup::default()).await;
    let secrets = tempfile::tempdir().unwrap();
    let secret = |name: &str, content: &str| {
        let path = secrets.path().join(name);
        // As `echo` and most editors leave it.
        fs::write(&path, format!("{content}\n")).unwrap();
        path.display().to_string()
    };
    let address = |url: String| url.trim_start_matches("http://").to_owned();
    let (access, key) = (secret("access", ACCESS_KEY), secret("key", SECRET_KEY));
    let settings = [
        ("DATA_DIR", site.evermirror.data_dir().display().to_string()),
        ("SOURCE__ENDPOINT", servers.source.endpoint()),
        ("SOURCE__ACCESS_KEY_FILE", access.clone()),
        ("SOURCE__SECRET_KEY_FILE", key.clone()),
        ("TARGET__ENDPOINT", servers.target.endpoint()),
        ("TARGET__ACCESS_KEY_FILE", access),
        ("TARGET__SECRET_KEY_FILE", key),
        ("BUCKETS", format!("{}:{}", site.bucket, site.target_bucket)),
        ("INTAKE__WEBHOOK__LISTEN", address(site.evermirror.webhook(""))),
        ("INTAKE__WEBHOOK__AUTH_TOKEN_FILE", secret("token", TOKEN)),
        ("WEB__LISTEN", address(site.evermirror.web(""))),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    site.evermirror.configure_by_environment_alone(settings.into());
    site.evermirror.start().await;
    for number in 0..10 {
        site.put(&format!("key {number}"), "value").await;
    }
    site.converges(SOON).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 10);
    let unknown = site.evermirror.post_with(&[("authorization", "Bearer wrong")], "{}").await;
    assert_eq!(unknown.status, hyper::StatusCode::UNAUTHORIZED);
    let log = site.evermirror.log();
    assert!(!log.contains(SECRET_KEY) && !log.contains(TOKEN), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_keys_that_are_included_and_not_excluded_are_copied() {
    let settings = vec![
        ("BUCKETS__0__INCLUDE", "data/,logs/".to_owned()),
        ("BUCKETS__0__EXCLUDE", "data/tmp/,logs/debug".to_owned()),
    ];
    let setup = Setup { settings, ..Setup::default() };
    let mut site = Servers::shared().await.prepare("prefixes", setup).await;
    let wanted = ["data/1", "data/tmpfile", "logs/", "logs/error.log"];
    let unwanted = ["1", "datum", "Data/1", "data/tmp/1", "logs/debug.log", "other/data/1"];
    // What is at the target and is not ours to copy is not ours to delete either.
    site.target.create_bucket(&site.target_bucket).await;
    site.target.put(&site.target_bucket, "data/tmp/theirs", "value").await;
    site.evermirror.start().await;
    site.put("data/tmp/theirs", "another value").await;
    site.delete("data/tmp/theirs").await;
    for key in unwanted.into_iter().chain(wanted) {
        site.put(key, "value").await;
    }
    eventually("the wanted keys are there", SOON, async || {
        site.evermirror.idle().await?;
        let there = site.target.list(&site.target_bucket).await?;
        let missing: Vec<_> = wanted.iter().filter(|key| !there.contains_key(**key)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing")) }
    })
    .await;
    let there = site.target.list(&site.target_bucket).await.unwrap();
    let mut expected = [&["data/tmp/theirs"], &wanted[..]].concat();
    expected.sort_unstable();
    assert_eq!(there.into_keys().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_bucket_that_must_be_made_by_hand_is_asked_for_and_then_filled() {
    let settings = vec![("TARGET__CREATE_BUCKETS", "false".to_owned())];
    let setup = Setup { settings, ..Setup::default() };
    let site = Servers::shared().await.site("by-hand", setup).await;
    for number in 0..20 {
        site.put(&format!("key {number}"), "value").await;
    }
    eventually("all keys are parked", SOON, async || {
        let parked = site.evermirror.count("parked").await?;
        (parked == 20).then_some(()).ok_or(format!("{parked} of 20 are parked"))
    })
    .await;
    let status = site.evermirror.status().await.unwrap();
    let reason = status["parked"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("NoSuchBucket") && reason.contains(&site.target_bucket), "{reason}");
    let log = site.evermirror.log();
    let told = |line: &str| {
        line.contains("ERROR")
            && line.contains(&site.target_bucket)
            && line.contains("create the bucket at the target")
    };
    assert!(log.lines().any(told), "no error says what to do: {log}");
    assert!(site.target.list(&site.target_bucket).await.is_err(), "it was created all the same");

    site.target.create_bucket(&site.target_bucket).await;
    site.converges(SOON).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), 20);
}
