//! Both sides, object by object: the proof at the end, which trusts neither the pipeline nor the ledger.
//!
//! Every object of both sides is listed and read through the stores' own S3 API: size, `ETag`, bytes
//! (as SHA-256), headers, user metadata and tags. Memory holds the keys and eight objects' heads.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use anyhow::Context;
use aws_sdk_s3::Client;
use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use crate::store::Tags;

/// Objects read at once.
const READERS: usize = 8;

/// Everything that is compared of one object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Snapshot {
    pub size: i64,
    /// As GET says it; the listing's must be the same.
    pub etag: String,
    pub listed_etag: String,
    pub sha256: String,
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub content_disposition: Option<String>,
    pub content_encoding: Option<String>,
    pub content_language: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub tags: Tags,
}

/// One field of one object that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub key: String,
    pub field: &'static str,
    pub source: String,
    pub target: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, field, source, target } = self;
        write!(
            f,
            "{}: {field} is {source} at the source, {target} at the target",
            key.escape_debug()
        )
    }
}

/// What the comparison found.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Objects at the source.
    pub objects: usize,
    pub differences: Vec<Difference>,
}

/// Compares a bucket of the source with the same bucket of the target.
pub(super) async fn compare(
    source: &Client,
    target: &Client,
    bucket: &str,
) -> anyhow::Result<Comparison> {
    let here = list(source, bucket).await.context("failed to list the source")?;
    let mut there = list(target, bucket).await.context("failed to list the target")?;
    let mut found = Comparison { objects: here.len(), ..Comparison::default() };
    let mut running = JoinSet::new();
    for (key, tag) in here {
        let Some(target_tag) = there.remove(&key) else {
            found.differences.push(presence(key, "present", "missing"));
            continue;
        };
        if running.len() == READERS
            && let Some(done) = running.join_next().await
        {
            found.differences.append(&mut done??);
        }
        let (source, target, bucket) = (source.clone(), target.clone(), bucket.to_owned());
        running.spawn(Box::pin(async move {
            let source = read(&source, &bucket, &key, tag);
            let target = read(&target, &bucket, &key, target_tag);
            let (source, target) = tokio::try_join!(source, target)?;
            anyhow::Ok(differences(&key, &source, &target))
        }));
    }
    while let Some(done) = running.join_next().await {
        found.differences.append(&mut done??);
    }
    found.differences.extend(there.into_keys().map(|key| presence(key, "missing", "present")));
    found.differences.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

fn presence(key: String, source: &str, target: &str) -> Difference {
    Difference { key, field: "existence", source: source.to_owned(), target: target.to_owned() }
}

/// The fields in which two copies of one object differ.
pub(super) fn differences(key: &str, source: &Snapshot, target: &Snapshot) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut field = |field, source: &dyn fmt::Debug, target: &dyn fmt::Debug| {
        let (source, target) = (format!("{source:?}"), format!("{target:?}"));
        if source != target {
            found.push(Difference { key: key.to_owned(), field, source, target });
        }
    };
    let (a, b) = (source, target);
    field("size", &a.size, &b.size);
    field("ETag", &a.etag, &b.etag);
    field("ETag in the listing", &a.listed_etag, &b.listed_etag);
    field("SHA-256 of the bytes", &a.sha256, &b.sha256);
    field("Content-Type", &a.content_type, &b.content_type);
    field("Cache-Control", &a.cache_control, &b.cache_control);
    field("Content-Disposition", &a.content_disposition, &b.content_disposition);
    field("Content-Encoding", &a.content_encoding, &b.content_encoding);
    field("Content-Language", &a.content_language, &b.content_language);
    field("user metadata", &a.metadata, &b.metadata);
    field("tags", &a.tags, &b.tags);
    found
}

/// The keys of a bucket with their `ETag`s.
async fn list(client: &Client, bucket: &str) -> anyhow::Result<HashMap<String, String>> {
    let pages = client.list_objects_v2().bucket(bucket).encoding_type(EncodingType::Url);
    let mut pages = pages.into_paginator().send();
    let mut keys = HashMap::new();
    while let Some(page) = pages.next().await {
        for object in page?.contents.into_iter().flatten() {
            let key = object.key.unwrap_or_default();
            let key = percent_decode_str(&key).decode_utf8()?.into_owned();
            keys.insert(key, object.e_tag.unwrap_or_default());
        }
    }
    Ok(keys)
}

async fn read(
    client: &Client,
    bucket: &str,
    key: &str,
    listed_etag: String,
) -> anyhow::Result<Snapshot> {
    let what = || format!("failed to read {}/{}", bucket, key.escape_debug());
    let mut object = client.get_object().bucket(bucket).key(key).send().await.with_context(what)?;
    let mut hash = Sha256::new();
    let mut size = 0_i64;
    while let Some(chunk) = object.body.try_next().await.with_context(what)? {
        size += i64::try_from(chunk.len())?;
        hash.update(&chunk);
    }
    let tagging = client.get_object_tagging().bucket(bucket).key(key).send();
    let tags = tagging.await.with_context(what)?.tag_set;
    Ok(Snapshot {
        size,
        etag: object.e_tag.unwrap_or_default(),
        listed_etag,
        sha256: hex::encode(hash.finalize()),
        content_type: object.content_type,
        cache_control: object.cache_control,
        content_disposition: object.content_disposition,
        content_encoding: object.content_encoding,
        content_language: object.content_language,
        metadata: object.metadata.into_iter().flatten().collect(),
        tags: tags.into_iter().map(|tag| (tag.key, tag.value)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aws_sdk_s3::primitives::ByteStream;

    use super::*;
    use crate::demo::ledger::{Ledger, Side};
    use crate::demo::store::{EmbeddedStore, Watcher};

    #[tokio::test]
    async fn an_object_that_is_missing_extra_or_changed_on_one_side_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut stores = Vec::new();
        for name in ["source", "target"] {
            let watcher =
                Watcher { side: Side::Target, ledger: Arc::new(Ledger::default()), notifier: None };
            let store = EmbeddedStore::start(&dir.path().join(name), name, watcher).await.unwrap();
            store.client().create_bucket().bucket("bkt").send().await.unwrap();
            stores.push(store);
        }
        let (source, target) = (stores[0].client(), stores[1].client());
        for (client, key, bytes) in [
            (&source, "same +%", "1"),
            (&target, "same +%", "1"),
            (&source, "a missing", "1"),
            (&target, "b extra", "1"),
            (&source, "c changed", "1"),
            (&target, "c changed", "2"),
        ] {
            let body = ByteStream::from(bytes.as_bytes().to_vec());
            client.put_object().bucket("bkt").key(key).body(body).send().await.unwrap();
        }
        let found = compare(&source, &target, "bkt").await.unwrap();
        assert_eq!(found.objects, 3);
        let found: Vec<_> = found.differences.iter().map(|d| (d.key.as_str(), d.field)).collect();
        let expected = [
            ("a missing", "existence"),
            ("b extra", "existence"),
            ("c changed", "ETag"),
            ("c changed", "ETag in the listing"),
            ("c changed", "SHA-256 of the bytes"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_difference_in_any_field_is_found() {
        let base = Snapshot::default();
        let text = || Some("other".to_owned());
        let map = || BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let changed = [
            Snapshot { size: 1, ..base.clone() },
            Snapshot { etag: "e".to_owned(), ..base.clone() },
            Snapshot { listed_etag: "e".to_owned(), ..base.clone() },
            Snapshot { sha256: "s".to_owned(), ..base.clone() },
            Snapshot { content_type: text(), ..base.clone() },
            Snapshot { cache_control: text(), ..base.clone() },
            Snapshot { content_disposition: text(), ..base.clone() },
            Snapshot { content_encoding: text(), ..base.clone() },
            Snapshot { content_language: text(), ..base.clone() },
            Snapshot { metadata: map(), ..base.clone() },
            Snapshot { tags: map(), ..base.clone() },
        ];
        let mut fields: Vec<_> = changed
            .iter()
            .map(|other| match differences("k", &base, other).as_slice() {
                [one] => one.field,
                found => panic!("{found:?}"),
            })
            .collect();
        fields.dedup();
        assert_eq!(fields.len(), changed.len());
        assert_eq!(differences("k", &base, &base), []);
    }
}
