//! What a store holds beside objects, kept at the target and put back.

mod moved;
mod people;

use std::collections::BTreeMap;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketVersioningStatus, CorsConfiguration, CorsRule,
    DefaultRetention, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
    ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetentionMode, ObjectLockRule,
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration,
    ServerSideEncryptionRule, Tag, Tagging, VersioningConfiguration,
};
use serde_json::{Value, json};

use crate::support::browser::{Browser, Scheme};
use crate::support::eventually::{LATER, eventually};
use crate::support::mc::{USER_SECRET, admin, user};
use crate::support::minio::Special;
use crate::support::s3::S3;
use crate::support::server::{Kind, Pair, on_every_pair};
use crate::support::site::{Servers, Setup, Site};

/// Where documents are kept by default.
const VAULT: &str = "evermirror-captured";
const PREFIX: &str = "settings/";
const ACCOUNT_SECRET: &str = "secret-of-an-access-key";
const SEALED: (&str, &str) = ("CAPTURE__PASSPHRASE", "correct horse battery staple");
const ALL: (&str, &str) = ("CAPTURE__BUCKETS", "all");

on_every_pair![every_setting_and_every_user_comes_back_into_an_empty_store];

/// Servers of their own, whose source can encrypt.
async fn servers(pair: Pair) -> Servers {
    let kms_key = Some("tests:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    Servers::start(pair, 1, Special { kms_key, ..Special::default() }).await
}

/// Runs a command with further settings; its status, its answer, and what it said besides.
async fn run(site: &Site, arguments: &[&str], settings: &[(&str, &str)]) -> (i32, Value, String) {
    let mut command = site.evermirror.process(&[arguments, &["--json"]].concat());
    command.envs(settings.iter().map(|(name, value)| (format!("EVERMIRROR__{name}"), value)));
    let ended = tokio::task::spawn_blocking(move || command.output());
    let output = ended.await.expect("no panic").expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().expect("it ends"), answer, said)
}

/// Runs it; it must succeed.
async fn done(site: &Site, arguments: &[&str], settings: &[(&str, &str)]) -> Value {
    let (status, answer, said) = run(site, arguments, settings).await;
    assert_eq!(status, 0, "{arguments:?}: {answer:#}\n{said}");
    answer
}

/// Every kind of setting that this kind of store has, in a bucket, and another one with object lock.
async fn fill(store: &S3, kind: Kind, bucket: &str, locked: &str) {
    let c = &store.client;
    let versioning = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled);
    let versioning = versioning.build();
    c.put_bucket_versioning()
        .bucket(bucket)
        .versioning_configuration(versioning)
        .send()
        .await
        .unwrap();
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build().unwrap();
    let tags = Tagging::builder().tag_set(tag("team", "data + more")).tag_set(tag("a", "b=c/d"));
    c.put_bucket_tagging().bucket(bucket).tagging(tags.build().unwrap()).send().await.unwrap();
    let expires = |id: &str, days| {
        LifecycleRule::builder()
            .id(id)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(format!("{id}/")).build())
            .expiration(LifecycleExpiration::builder().days(days).build())
            .build()
            .unwrap()
    };
    let rules =
        BucketLifecycleConfiguration::builder().rules(expires("tmp", 7)).rules(expires("logs", 90));
    let rules = rules.build().unwrap();
    c.put_bucket_lifecycle_configuration()
        .bucket(bucket)
        .lifecycle_configuration(rules)
        .send()
        .await
        .unwrap();
    let default =
        ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::Aes256);
    let rule = ServerSideEncryptionRule::builder()
        .apply_server_side_encryption_by_default(default.build().unwrap());
    let encryption =
        ServerSideEncryptionConfiguration::builder().rules(rule.build()).build().unwrap();
    c.put_bucket_encryption()
        .bucket(bucket)
        .server_side_encryption_configuration(encryption)
        .send()
        .await
        .unwrap();
    // MinIO takes no CORS rules of a bucket.
    if kind == Kind::Rustfs {
        let rule =
            CorsRule::builder().allowed_methods("GET").allowed_origins("https://example.com");
        let cors = CorsConfiguration::builder().cors_rules(rule.build().unwrap()).build().unwrap();
        c.put_bucket_cors().bucket(bucket).cors_configuration(cors).send().await.unwrap();
    }
    let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
        "Principal": {"AWS": ["*"]}, "Action": ["s3:GetObject"],
        "Resource": [format!("arn:aws:s3:::{bucket}/public/*")]}]});
    c.put_bucket_policy().bucket(bucket).policy(policy.to_string()).send().await.unwrap();

    c.create_bucket().bucket(locked).object_lock_enabled_for_bucket(true).send().await.unwrap();
    let retention = DefaultRetention::builder().mode(ObjectLockRetentionMode::Governance).days(30);
    let lock = ObjectLockConfiguration::builder()
        .object_lock_enabled(ObjectLockEnabled::Enabled)
        .rule(ObjectLockRule::builder().default_retention(retention.build()).build());
    c.put_object_lock_configuration()
        .bucket(locked)
        .object_lock_configuration(lock.build())
        .send()
        .await
        .unwrap();
}

/// A user with a policy, in a group with another one, and an access key of that user.
fn people(authority: &str, bucket: &str) {
    let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
        "Action": ["s3:ListBucket", "s3:PutObject"],
        "Resource": [format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/*")]}]});
    user(authority, "alice", &policy);
    admin(authority, &["user", "add", "it", "bob", USER_SECRET]);
    admin(authority, &["policy", "attach", "it", "alice", "--user", "bob"]);
    admin(authority, &["user", "disable", "it", "bob"]);
    admin(authority, &["group", "add", "it", "team", "alice"]);
    admin(authority, &["policy", "attach", "it", "readonly", "--group", "team"]);
    let key = ["user", "svcacct", "add", "it", "alice", "--access-key", "ALICESKEY"];
    admin(authority, &[&key[..], &["--secret-key", ACCOUNT_SECRET]].concat());
}

/// Every setting of a bucket, as an independent client sees it.
async fn settings_of(store: &S3, bucket: &str) -> BTreeMap<&'static str, String> {
    let c = &store.client;
    // What is not there is an error, which says so.
    macro_rules! seen {
        ($call:ident, $of:ident) => {
            match c.$call().bucket(bucket).send().await {
                Ok(answer) => format!("{:?}", answer.$of()),
                Err(error) => format!("{:?}", error.as_service_error().map(ToString::to_string)),
            }
        };
    }
    // MinIO tells tags in another order each time.
    let tags = match c.get_bucket_tagging().bucket(bucket).send().await {
        Ok(answer) => {
            let mut tags: Vec<_> = answer.tag_set().iter().map(|tag| format!("{tag:?}")).collect();
            tags.sort();
            tags.concat()
        }
        Err(error) => format!("{:?}", error.as_service_error().map(ToString::to_string)),
    };
    BTreeMap::from([
        ("versioning", seen!(get_bucket_versioning, status)),
        ("object lock", seen!(get_object_lock_configuration, object_lock_configuration)),
        ("encryption", seen!(get_bucket_encryption, server_side_encryption_configuration)),
        ("tags", tags),
        ("lifecycle", seen!(get_bucket_lifecycle_configuration, rules)),
        ("cors", seen!(get_bucket_cors, cors_rules)),
        ("notification", seen!(get_bucket_notification_configuration, queue_configurations)),
        ("policy", seen!(get_bucket_policy, policy)),
    ])
}

/// The captured documents, with their texts.
async fn documents(target: &S3) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for key in target.list(VAULT).await.unwrap().into_keys() {
        if !key.ends_with("/checked.json") {
            let object = target.client.get_object().bucket(VAULT).key(&key).send().await.unwrap();
            let bytes = object.body.collect().await.unwrap().to_vec();
            found.insert(key, String::from_utf8(bytes).unwrap());
        }
    }
    found
}

async fn every_setting_and_every_user_comes_back_into_an_empty_store(pair: Pair) {
    let (mut servers, sealed) = (servers(pair).await, [SEALED, ALL]);
    // It runs, so that the webhook answers when the store asks whether it is there.
    let site = servers.site("captured", Setup::default()).await;
    let (bucket, locked) = ("captured", "captured-locked");
    fill(&site.source, pair.source, bucket, locked).await;
    people(&servers.source.authority(), bucket);
    let before = [settings_of(&site.source, bucket).await, settings_of(&site.source, locked).await];

    let captured = done(&site, &["capture"], &sealed).await;
    assert_eq!((&captured["encrypted"], &captured["unchanged"]), (&json!(true), &json!(false)));
    assert_eq!(captured["problems"], json!([]));
    let again = done(&site, &["capture"], &sealed).await;
    assert_eq!((&again["unchanged"], &again["document"]), (&json!(true), &captured["document"]));
    let kept = documents(&site.target).await;
    assert_eq!(kept.len(), 1, "{:?}", kept.keys());
    for (key, text) in &kept {
        assert!(key.starts_with(PREFIX) && !text.contains("alice"), "{key}");
    }

    servers.source.lose_everything().await;
    let source = servers.source.client();
    let planned = done(&site, &["restore", "--settings", "--dry-run"], &sealed).await;
    assert!(planned["changes"].as_array().unwrap().len() > 10, "{planned:#}");
    assert!(source.list(bucket).await.is_err(), "a dry run makes no bucket");
    let restored = done(&site, &["restore", "--settings"], &sealed).await;
    assert_eq!(restored["not_equal"], json!([]), "{restored:#}");

    let after = [settings_of(&source, bucket).await, settings_of(&source, locked).await];
    for (before, after) in before.iter().zip(&after) {
        for (name, setting) in before {
            assert_eq!(after[name], *setting, "{name}");
        }
    }
    let endpoint = servers.source.endpoint();
    for (name, secret) in [("alice", USER_SECRET), ("ALICESKEY", ACCOUNT_SECRET)] {
        let listed = S3::with_keys(&endpoint, name, secret).list(bucket).await;
        assert!(listed.is_ok(), "{name}: {listed:?}");
    }
    let stranger = S3::with_keys(&endpoint, "alice", "a-wrong-secret").list(bucket).await;
    assert!(stranger.is_err(), "alice has the secret she had");
    let bob = S3::with_keys(&endpoint, "bob", USER_SECRET).list(bucket).await;
    assert!(bob.is_err(), "who was switched off stays so");
    let nothing = done(&site, &["restore", "--settings"], &sealed).await;
    assert_eq!((&nothing["changes"], &nothing["conflicts"]), (&json!([]), &json!([])));

    // What somebody has changed since then is not overwritten unseen.
    source.client.delete_bucket_tagging().bucket(bucket).send().await.unwrap();
    let tag = Tag::builder().key("new").value("one").build().unwrap();
    let tags = Tagging::builder().tag_set(tag).build().unwrap();
    source.client.put_bucket_tagging().bucket(bucket).tagging(tags).send().await.unwrap();
    let (status, refused, said) = run(&site, &["restore", "--settings"], &sealed).await;
    assert_eq!((status, &refused["refused"]), (2, &json!(true)), "{said}");
    assert_eq!(refused["conflicts"], json!(["bucket captured: tags"]));
    assert!(settings_of(&source, bucket).await["tags"].contains("new"));
    done(&site, &["restore", "--settings", "--force"], &sealed).await;
    assert_eq!(settings_of(&source, bucket).await["tags"], before[0]["tags"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_passphrase_no_secret_is_kept_and_the_restore_names_who_needs_one() {
    let mut servers = Pair::MINIO.own().await;
    let site = servers.silent("redacted", Setup::default()).await;
    people(&servers.source.authority(), "redacted");
    let captured = done(&site, &["capture"], &[]).await;
    assert_eq!(captured["encrypted"], json!(false));
    for text in documents(&site.target).await.values() {
        assert!(text.contains("alice") && text.contains("ALICESKEY"));
        assert!(!text.contains(USER_SECRET) && !text.contains(ACCOUNT_SECRET), "{text}");
    }
    servers.source.lose_everything().await;
    let (status, report, _) = run(&site, &["restore", "--settings"], &[]).await;
    assert_eq!(status, 1);
    let needed = report["need_secrets"].as_array().unwrap();
    for who in ["user alice", "user bob", "access key ALICESKEY"] {
        assert!(needed.contains(&json!(who)), "{report:#}");
    }
    // Once the user is there again, what hangs on it comes by the same command.
    admin(&servers.source.authority(), &["user", "add", "it", "alice", "another-secret"]);
    let (_, report, _) = run(&site, &["restore", "--settings"], &[]).await;
    let changes = report["changes"].as_array().unwrap();
    assert!(changes.contains(&json!("policies of user alice")), "{report:#}");
    let alice = S3::with_keys(&servers.source.endpoint(), "alice", "another-secret");
    alice.put("redacted", "by-alice", "x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_opens_with_its_passphrase_alone_and_whole() {
    let servers = Pair::MINIO.own().await;
    let site = servers.silent("sealed", Setup::default()).await;
    let captured = done(&site, &["capture"], &[SEALED]).await;
    let back = ["restore", "--settings", "--dry-run"];
    for (settings, why) in [
        (vec![("CAPTURE__PASSPHRASE", "wrong")], "the passphrase is not the one"),
        (vec![], "it is encrypted"),
    ] {
        let (status, _, said) = run(&site, &back, &settings).await;
        assert_eq!(status, 2, "{said}");
        assert!(said.contains(why), "{said}");
    }
    let key = captured["document"].as_str().unwrap();
    let text = documents(&site.target).await[key].clone();
    let cut = ByteStream::from(text.as_bytes()[..text.len() / 2].to_vec());
    site.target.client.put_object().bucket(VAULT).key(key).body(cut).send().await.unwrap();
    let (status, _, said) = run(&site, &back, &[SEALED]).await;
    assert_eq!(status, 2, "{said}");
    assert!(said.contains(key) && said.contains("damaged"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_may_not_be_read_is_named_and_the_rest_is_kept() {
    let servers = Pair::MINIO.own().await;
    let site = servers.silent("partly", Setup::default()).await;
    let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
        "Action": ["s3:ListBucket", "s3:GetBucketTagging", "s3:GetBucketPolicy"],
        "Resource": ["arn:aws:s3:::partly"]}]});
    user(&servers.source.authority(), "reader", &policy);
    let keys = [("SOURCE__ACCESS_KEY", "reader"), ("SOURCE__SECRET_KEY", USER_SECRET)];
    let (status, report, said) = run(&site, &["capture"], &keys).await;
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("bucket partly, lifecycle") && said.contains("s3:GetLifecycle"),
        "{said}"
    );
    assert!(said.contains("admin:ExportIAM") && !said.contains("partly, tags"), "{said}");
    assert!(report["document"].as_str().unwrap().ends_with(".incomplete.json"), "{report}");
    let (status, _, said) = run(&site, &["restore", "--settings"], &[]).await;
    assert_eq!(status, 2);
    assert!(said.contains("no complete captured document"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policies_suffice() {
    let servers = Pair::MINIO.own().await;
    let site = servers.silent("least", Setup::default()).await;
    for (side, server) in [("source", &servers.source), ("target", &servers.target)] {
        let printed = site.evermirror.command(&["policy", side, "--for", "capture"]).await;
        let policy: Value = serde_json::from_slice(&printed.stdout).expect("a policy");
        user(&server.authority(), side, &policy);
    }
    let keys = [
        ("SOURCE__ACCESS_KEY", "source"),
        ("SOURCE__SECRET_KEY", USER_SECRET),
        ("TARGET__ACCESS_KEY", "target"),
        ("TARGET__SECRET_KEY", USER_SECRET),
    ];
    let captured = done(&site, &["capture"], &keys).await;
    assert_eq!((&captured["problems"], &captured["users"]), (&json!([]), &json!(true)));
    assert_eq!(done(&site, &["capture"], &keys).await["unchanged"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn run_captures_by_itself_and_shows_when() {
    let servers = Pair::MINIO.own().await;
    let settings = vec![("CAPTURE__INTERVAL", "1m".to_owned())];
    let mut site = servers.prepare("scheduled", Setup { settings, ..Setup::default() }).await;
    site.evermirror.start().await;
    eventually("it is captured", LATER, async || {
        let status = site.evermirror.status().await?;
        let checked = status["capture"]["checked_ms"].as_i64();
        checked.map(drop).ok_or(status["capture"].to_string())
    })
    .await;
    assert_eq!(documents(&site.target).await.len(), 1);
    let when = site.evermirror.metric("evermirror_capture_last_success_timestamp_seconds").await;
    assert!(when.is_some_and(|when| when > 1e9), "{when:?}");
    assert_eq!(site.evermirror.metric("evermirror_capture_interval_seconds").await, Some(60.0));
    assert_eq!(site.evermirror.metric("evermirror_capture_failures_total").await, Some(0.0));
    let browser = Browser::start(Scheme::Light).await;
    browser.open(&site.evermirror.web("/")).await;
    browser.shows("#stores", "every 1 min\tcaptured ").await;
}
