//! Whether two buckets hold the same objects, asked of both stores and of nobody else.

use std::collections::BTreeMap;

use aws_sdk_s3::error::DisplayErrorContext;
use sha2::{Digest, Sha256};

use super::s3::S3;

/// All that evermirror promises to carry, field by field.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Picture(BTreeMap<String, String>);

impl Picture {
    /// Takes a field out, lest it is compared.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }
}

/// Reads one object whole: its headers, its tags, and a hash of its bytes.
pub(crate) async fn picture(store: &S3, bucket: &str, key: &str) -> Result<Picture, String> {
    let call = store.client.get_object().bucket(bucket).key(key);
    let mut answer = call.send().await.map_err(|e| DisplayErrorContext(e).to_string())?;
    let mut hash = Sha256::new();
    let mut length = 0;
    while let Some(chunk) = answer.body.next().await {
        let chunk = chunk.map_err(|error| error.to_string())?;
        length += chunk.len();
        hash.update(&chunk);
    }
    let mut fields = BTreeMap::new();
    let mut field = |name: &str, value: Option<&str>| {
        fields.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    };
    field("size", Some(&length.to_string()));
    field("sha256", Some(&hex::encode(hash.finalize())));
    field("etag", answer.e_tag());
    field("content-type", answer.content_type());
    field("content-encoding", answer.content_encoding());
    field("content-language", answer.content_language());
    field("content-disposition", answer.content_disposition());
    field("cache-control", answer.cache_control());
    // RustFS 1.0.1 tells this in the answer to a HEAD only.
    let head = store.client.head_object().bucket(bucket).key(key).send().await;
    let head = head.map_err(|e| DisplayErrorContext(e).to_string())?;
    field("expires", head.expires_string());
    for (name, value) in answer.metadata().into_iter().flatten() {
        field(&format!("x-amz-meta-{name}"), Some(value));
    }
    for (name, value) in store.tags(bucket, key).await {
        field(&format!("tag {name}"), Some(&value));
    }
    Ok(Picture(fields))
}

/// The fields in which two pictures differ, one line each.
pub(crate) fn differences(key: &str, source: &Picture, target: &Picture) -> Vec<String> {
    let mut names: Vec<_> = source.0.keys().chain(target.0.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let differing = names.into_iter().filter(|name| source.0.get(*name) != target.0.get(*name));
    differing
        .map(|name| {
            let (source, target) = (source.0.get(name), target.0.get(name));
            format!("{key:?}: {name} is {source:?} at the source and {target:?} at the target")
        })
        .collect()
}

/// What the two listings alone tell: keys, sizes, tags of content. Cheap enough to poll.
pub(crate) async fn compare_listings(
    (source, source_bucket): (&S3, &str),
    (target, target_bucket): (&S3, &str),
) -> Result<Vec<String>, String> {
    let (here, there) = (source.list(source_bucket).await?, target.list(target_bucket).await?);
    let missing = here.iter().filter_map(|(key, ours)| match there.get(key) {
        None => Some(format!("{key:?}: missing at the target")),
        Some(theirs) if theirs != ours => Some(format!("{key:?}: {ours:?} but {theirs:?}")),
        Some(_) => None,
    });
    let extra = there.keys().filter(|key| !here.contains_key(*key));
    Ok(missing.chain(extra.map(|key| format!("{key:?}: only at the target"))).collect())
}

/// Every difference between the two buckets: keys, bytes, headers, metadata, tags.
pub(crate) async fn compare(
    (source, source_bucket): (&S3, &str),
    (target, target_bucket): (&S3, &str),
) -> Result<Vec<String>, String> {
    let found = compare_listings((source, source_bucket), (target, target_bucket)).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    let mut found = Vec::new();
    for key in source.list(source_bucket).await?.into_keys() {
        let ours = picture(source, source_bucket, &key).await?;
        let theirs = picture(target, target_bucket, &key).await?;
        found.extend(differences(&key, &ours, &theirs));
    }
    Ok(found)
}
