//! Stores that encrypt with a KMS: equal bytes, unequal `ETag`s.

use aws_sdk_s3::types::{
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration,
    ServerSideEncryptionRule,
};

use crate::support::compare::{differences, picture};
use crate::support::eventually::{LATER, eventually};
use crate::support::minio::Special;
use crate::support::s3::S3;
use crate::support::site::{Servers, Setup, Site};

/// Where the target keeps the source's tag.
const SOURCE_ETAG: &str = "x-amz-meta-evermirror-source-etag";

async fn servers() -> Servers {
    let kms_key = Some("tests:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    Servers::special(Special { kms_key, ..Special::default() }).await
}

/// From now on the bucket encrypts whatever is put.
async fn encrypt_by_default(store: &S3, bucket: &str) {
    let kms = ServerSideEncryptionByDefault::builder()
        .sse_algorithm(ServerSideEncryption::AwsKms)
        .kms_master_key_id("tests");
    let rule = ServerSideEncryptionRule::builder()
        .apply_server_side_encryption_by_default(kms.build().unwrap())
        .build();
    let rules = ServerSideEncryptionConfiguration::builder().rules(rule).build().unwrap();
    let call = store.client.put_bucket_encryption().bucket(bucket);
    call.server_side_encryption_configuration(rules).send().await.unwrap();
}

/// The algorithm an object is encrypted with.
async fn encryption(store: &S3, bucket: &str, key: &str) -> Option<ServerSideEncryption> {
    let head = store.client.head_object().bucket(bucket).key(key).send().await.unwrap();
    head.server_side_encryption().cloned()
}

/// Objects of every way in which bytes travel.
async fn put_all_kinds(site: &Site) -> Vec<&'static str> {
    site.source.put_parts(&site.bucket, "in parts", [vec![1; 5 << 20], vec![2; 300_000]]).await;
    site.source.put_parts(&site.bucket, "in one part", [vec![3; 1000]]).await;
    site.put("empty", "").await;
    site.put("small", "a few bytes").await;
    site.source.tag(&site.bucket, "small", &[("kind", "small")]).await;
    site.put("streamed", vec![4; 1 << 20]).await;
    site.put("large", vec![5; 20 << 20]).await;
    vec!["in parts", "in one part", "empty", "small", "streamed", "large"]
}

/// Waits until nothing is left to do, and compares all but the tags of content, which cannot agree; in
/// their stead the target's objects name the source's.
async fn arrive_with_their_source_etags(site: &Site, keys: &[&str]) {
    eventually("all are the same", LATER, async || {
        site.evermirror.idle().await?;
        let mut found = Vec::new();
        for key in keys {
            let mut ours = picture(&site.source, &site.bucket, key).await?;
            let mut theirs = picture(&site.target, &site.target_bucket, key).await?;
            let etag = ours.take("etag").map(|etag| etag.trim_matches('"').to_owned());
            theirs.take("etag");
            let named = theirs.take(SOURCE_ETAG).map(|etag| etag.trim_matches('"').to_owned());
            if named != etag {
                found.push(format!("{key:?}: {named:?} is named, and the source has {etag:?}"));
            }
            found.extend(differences(key, &ours, &theirs));
        }
        if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_told_to_encrypt_with_kms_gets_every_byte_and_the_source_etags() {
    let servers = servers().await;
    let settings = vec![("TARGET__SERVER_SIDE_ENCRYPTION", "aws:kms".to_owned())];
    let site = servers.site("told", Setup { settings, ..Setup::default() }).await;
    let keys = put_all_kinds(&site).await;
    arrive_with_their_source_etags(&site, &keys).await;
    for key in &keys {
        let with = encryption(&site.target, &site.target_bucket, key).await;
        assert_eq!(with, Some(ServerSideEncryption::AwsKms), "{key:?}");
    }
    site.put("small", "overwritten").await;
    arrive_with_their_source_etags(&site, &keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_encrypts_by_itself_is_learnt_from_its_answers() {
    let servers = servers().await;
    let mut site = servers.prepare("learnt", Setup::default()).await;
    site.target.create_bucket(&site.target_bucket).await;
    encrypt_by_default(&site.target, &site.target_bucket).await;
    site.evermirror.start().await;
    // An object in parts alone must be enough to learn from.
    site.source.put_parts(&site.bucket, "first", [vec![1; 5 << 20], vec![2; 300_000]]).await;
    arrive_with_their_source_etags(&site, &["first"]).await;
    let keys = put_all_kinds(&site).await;
    arrive_with_their_source_etags(&site, &keys).await;
    for key in &keys {
        let with = encryption(&site.target, &site.target_bucket, key).await;
        assert_eq!(with, Some(ServerSideEncryption::AwsKms), "{key:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_the_source_encrypts_with_kms_arrive() {
    let servers = servers().await;
    let site = servers.site("encrypted", Setup::default()).await;
    encrypt_by_default(&site.source, &site.bucket).await;
    let keys = put_all_kinds(&site).await;
    arrive_with_their_source_etags(&site, &keys).await;
    let with = encryption(&site.source, &site.bucket, "large").await;
    assert_eq!(with, Some(ServerSideEncryption::AwsKms));
    site.delete("small").await;
    site.put("large", vec![6; 20 << 20]).await;
    arrive_with_their_source_etags(&site, &["in parts", "large"]).await;
    assert_eq!(site.target.list(&site.target_bucket).await.unwrap().len(), keys.len() - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_to_a_target_that_encrypts_is_verified_and_copies_nothing_twice() {
    let servers = servers().await;
    let site = servers.silent("kms-sync", Setup::default()).await;
    site.target.create_bucket(&site.target_bucket).await;
    encrypt_by_default(&site.target, &site.target_bucket).await;
    let keys = put_all_kinds(&site).await;
    let (status, answer) = site.evermirror.once(&["sync"]).await;
    assert_eq!((status, &answer["copied"]), (0, &serde_json::json!(keys.len())), "{answer}");
    let (status, answer) = site.evermirror.once(&["verify", "--metadata", "--deep"]).await;
    assert_eq!((status, &answer["differences"]), (0, &serde_json::json!(0)), "{answer}");
    // Nothing remembers the pairs but the target's own metadata.
    std::fs::remove_dir_all(site.evermirror.data_dir()).unwrap();
    let (status, answer) = site.evermirror.once(&["sync"]).await;
    assert_eq!((status, &answer["copied"]), (0, &serde_json::json!(0)), "{answer}");
    let (status, answer) = site.evermirror.once(&["verify"]).await;
    assert_eq!((status, &answer["differences"]), (0, &serde_json::json!(0)), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_whose_etags_cannot_agree_are_not_copied_again_by_the_next_pass() {
    let servers = servers().await;
    let often = || vec![("RECONCILE__INTERVAL", "1s".to_owned())];
    let mut site =
        servers.prepare("kms-pairs", Setup { settings: often(), ..Setup::default() }).await;
    site.target.create_bucket(&site.target_bucket).await;
    encrypt_by_default(&site.target, &site.target_bucket).await;
    let keys = put_all_kinds(&site).await;
    site.evermirror.start().await;
    arrive_with_their_source_etags(&site, &keys).await;
    let counted = async |site: &Site, name: &str| {
        let text = site.evermirror.metric(name).await.unwrap().to_string();
        text.parse::<usize>().expect("a whole number")
    };
    let passes = "evermirror_reconcile_passes_total{outcome=\"complete\"}";
    let more_passes = async |site: &Site| {
        let before = counted(site, passes).await;
        eventually("there are more passes", LATER, async || {
            let now = counted(site, passes).await;
            (now >= before + 3).then_some(()).ok_or(format!("{now} after {before}"))
        })
        .await;
    };
    // The listings alone, with the pairs that were remembered, show no difference at all.
    more_passes(&site).await;
    let (drift, replicated) = ("evermirror_drift_total", "evermirror_replicated_total");
    let before = (counted(&site, drift).await, counted(&site, replicated).await);
    more_passes(&site).await;
    assert_eq!((counted(&site, drift).await, counted(&site, replicated).await), before);

    // Without the memory one look at each object brings it back, and nothing is copied.
    assert_eq!(site.evermirror.terminate().await.code(), Some(0));
    std::fs::remove_dir_all(site.evermirror.data_dir().join("reconcile")).unwrap();
    site.evermirror.start().await;
    eventually("every pair is remembered again", LATER, async || {
        site.evermirror.idle().await?;
        let looked = counted(&site, "evermirror_replicated_total{action=\"unchanged\"}").await;
        (looked >= keys.len()).then_some(()).ok_or(format!("{looked} were looked at"))
    })
    .await;
    let drifted = counted(&site, drift).await;
    more_passes(&site).await;
    assert_eq!(counted(&site, drift).await, drifted);
    let copied = "evermirror_replicated_total{action=\"copied\"}";
    assert_eq!(counted(&site, copied).await, 0);
}
