//! One key, looked at on both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::config::Settings;
use crate::config::settings::{BucketSettings, DeletePolicy};
use crate::deletes::written_since;
use crate::object::ETag;
use crate::reconcile::merge::{self, Finding, Rules};
use crate::remembered::Kept;
use crate::replicate;
use crate::store::{ErrorKind, GetOptions, ListedObject, ObjectHead, Store, StoreError, Tags};
use crate::stores::Stores;
use crate::stores::patiently;

/// Both sides of a key that was written within so many milliseconds may be about to agree.
const SETTLES_MS: i64 = 5_000;
/// Between two looks at such a key.
const PAUSE: Duration = Duration::from_millis(500);
/// More than it takes for that time to pass.
const LOOKS: u32 = 16;

/// How closely a key is looked at; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// Whether it is on both sides.
    Existence,
    /// Whether size and `ETag` agree, or the remembered pair says so.
    Content,
    /// Headers, user metadata and tags, too.
    Metadata,
    /// And the bytes, which then decide about the content.
    Bytes,
}

/// What differs about one key: a line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mismatch {
    /// The source bucket.
    pub bucket: Arc<str>,
    /// The key.
    pub key: String,
    /// One of [`KINDS`], or [`KEPT`].
    pub finding: &'static str,
    /// What exactly, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The source's object.
    pub source: Option<Seen>,
    /// The target's object.
    pub target: Option<Seen>,
}

/// An object, as a HEAD tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Seen {
    /// Bytes.
    pub size: u64,
    /// Its tag, if it has one.
    pub etag: Option<String>,
}

/// Every kind of difference.
pub(super) const KINDS: [&str; 8] = [
    "missing",
    "extra",
    "different_size",
    "different_etag",
    "different_bytes",
    "metadata",
    "tags",
    "unverifiable",
];

/// An object that only the target has and that is to stay there: no difference. So is every one of a bucket
/// whose deletes are delayed, although its delay may be over: no listing tells since when the source has
/// it no more.
pub(super) const KEPT: &str = "kept";

/// Looks at the keys of one bucket.
#[derive(Debug)]
pub(super) struct Checker {
    source: (Store, Arc<str>),
    target: (Store, Arc<str>),
    opaque: bool,
    tags: bool,
    deletes: DeletePolicy,
    kept: Kept,
    read: Arc<AtomicU64>,
}

/// What one look has shown.
#[derive(Debug, Default)]
struct Look {
    found: Vec<Mismatch>,
    /// One of the two objects was written a moment ago.
    fresh: bool,
}

/// What both sides answered about a key that both have.
struct Pair<'a> {
    key: &'a str,
    source: &'a ObjectHead,
    target: &'a ObjectHead,
}

impl Checker {
    /// For the keys of `bucket`; `kept` tells what a person wants to stay, `read` counts the bytes.
    pub(super) fn new(
        settings: &Settings,
        stores: &Stores,
        bucket: &BucketSettings,
        kept: Kept,
        read: Arc<AtomicU64>,
    ) -> Self {
        Self {
            source: (stores.source.clone(), bucket.source.as_str().into()),
            target: (stores.target.clone(), bucket.target_name().into()),
            opaque: settings.target.encrypts_with_kms(),
            tags: settings.replicate.tags,
            deletes: bucket.deletes,
            kept,
            read,
        }
    }

    /// Every difference of one key, seen alike twice in a row. While the key was written a moment ago it
    /// may be on its way, and is looked at until it has come or [`SETTLES_MS`] have passed.
    pub(super) async fn check(
        &self,
        key: &str,
        depth: Depth,
        metadata: bool,
        suspect: bool,
    ) -> Vec<Mismatch> {
        let metadata = metadata || depth == Depth::Metadata;
        let mut before = None;
        for _ in 0..LOOKS {
            let look = match self.look(key, depth, metadata, suspect).await {
                Ok(look) => look,
                // What was replaced between two requests is looked at again.
                Err(error) if error.kind == ErrorKind::Changed => continue,
                Err(error) => {
                    let detail = Some(error.to_string());
                    return vec![self.mismatch(key, "unverifiable", detail, None, None)];
                }
            };
            let stands = before.as_ref() == Some(&look.found);
            if look.found.is_empty() || (stands && !look.fresh) {
                return look.found;
            }
            before = Some(look.found);
            if stands {
                tokio::time::sleep(PAUSE).await;
            }
        }
        before.unwrap_or_else(|| {
            let detail = Some("it is replaced again and again while it is read".to_owned());
            vec![self.mismatch(key, "unverifiable", detail, None, None)]
        })
    }

    async fn look(
        &self,
        key: &str,
        depth: Depth,
        metadata: bool,
        suspect: bool,
    ) -> Result<Look, StoreError> {
        let (source, target) = tokio::join!(head(&self.source, key), head(&self.target, key));
        let (source, target) = (source?, target?);
        let fresh = [&source, &target].into_iter().flatten();
        let fresh =
            fresh.into_iter().any(|head| written_since(&head.headers, SETTLES_MS) == Some(true));
        let (source, target) = match (source, target) {
            (Some(source), Some(target)) => (source, target),
            (None, None) => return Ok(Look::default()),
            // Every pair is looked at: of those without a partner the listings tell.
            _ if !suspect => return Ok(Look::default()),
            (source, target) => {
                let (kind, detail) = match self.wanted(key) {
                    _ if source.is_some() => ("missing", None),
                    Some(why) => (KEPT, Some(why.to_owned())),
                    None => ("extra", None),
                };
                let found = self.mismatch(key, kind, detail, source.as_ref(), target.as_ref());
                return Ok(Look { found: vec![found], fresh });
            }
        };
        let pair = Pair { key, source: &source, target: &target };
        let mut found = Vec::new();
        if let Some((kind, detail)) = self.content(&pair, depth).await? {
            found.push(self.mismatch(key, kind, detail, Some(&source), Some(&target)));
        }
        if metadata {
            for (kind, detail) in self.metadata(&pair).await? {
                found.push(self.mismatch(key, kind, Some(detail), Some(&source), Some(&target)));
            }
        }
        Ok(Look { found, fresh })
    }

    /// Why an object that only the target has is to stay there, if it is.
    fn wanted(&self, key: &str) -> Option<&'static str> {
        match self.deletes {
            DeletePolicy::Archive => Some("deletes = \"archive\""),
            DeletePolicy::Delay => Some("deletes = \"delay\""),
            DeletePolicy::Mirror => {
                // What cannot be told apart is a difference.
                let discarded = self.kept.has(&self.source.1, key).unwrap_or(false);
                discarded.then_some("a person discarded its delete")
            }
        }
    }

    /// What is wrong with the content, if anything is.
    async fn content(
        &self,
        pair: &Pair<'_>,
        depth: Depth,
    ) -> Result<Option<(&'static str, Option<String>)>, StoreError> {
        let knows = |_: &str, source: &ETag, _: &ETag| replicate::remembers(pair.target, source);
        let rules = Rules {
            skew_ms: 0,
            opaque: self.opaque,
            closer: false,
            looked_until_ms: None,
            pairs: &knows,
        };
        let (source, target) = (listed(pair.key, pair.source), listed(pair.key, pair.target));
        let finding = merge::compare(Some(&source), Some(&target), rules);
        if depth == Depth::Bytes && source.size == target.size {
            let (ours, theirs) = tokio::try_join!(
                self.hash(&self.source, pair.key, pair.source),
                self.hash(&self.target, pair.key, pair.target),
            )?;
            let detail =
                || Some(format!("SHA-256 {} and {}", hex::encode(ours), hex::encode(theirs)));
            return Ok((ours != theirs).then(|| ("different_bytes", detail())));
        }
        Ok(match finding {
            Finding::Different(_) => Some((finding.name(), None)),
            Finding::Unverifiable => {
                let detail = "the ETags cannot be compared; --deep compares the bytes";
                Some((finding.name(), Some(detail.to_owned())))
            }
            Finding::Same | Finding::Missing | Finding::Extra | Finding::Newer => None,
        })
    }

    /// Headers and tags that differ, by name.
    async fn metadata(&self, pair: &Pair<'_>) -> Result<Vec<(&'static str, String)>, StoreError> {
        let mut found = Vec::new();
        let names = differing(
            &replicate::carried_headers(&pair.source.headers),
            &replicate::carried_headers(&pair.target.headers),
        );
        if !names.is_empty() {
            found.push(("metadata", names));
        }
        if self.tags {
            let (ours, theirs) = tokio::try_join!(
                tags(&self.source, pair.key, pair.source),
                tags(&self.target, pair.key, pair.target),
            )?;
            let (ours, theirs): (Vec<_>, Vec<_>) =
                (ours.into_iter().collect(), theirs.into_iter().collect());
            let names = differing(&ours, &theirs);
            if !names.is_empty() {
                found.push(("tags", names));
            }
        }
        Ok(found)
    }

    /// SHA-256 of the object's bytes; fails if it is no longer the object of `head`.
    async fn hash(
        &self,
        (store, bucket): &(Store, Arc<str>),
        key: &str,
        head: &ObjectHead,
    ) -> Result<[u8; 32], StoreError> {
        let options = GetOptions { if_match: head.etag.as_ref(), ..GetOptions::default() };
        patiently(|| async {
            let mut body = store.get(bucket, key, options).await?.body;
            let mut hash = Sha256::new();
            while let Some(frame) = body.frame().await {
                if let Ok(bytes) = frame?.into_data() {
                    self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    hash.update(&bytes);
                }
            }
            Ok(hash.finalize().into())
        })
        .await
    }

    fn mismatch(
        &self,
        key: &str,
        finding: &'static str,
        detail: Option<String>,
        source: Option<&ObjectHead>,
        target: Option<&ObjectHead>,
    ) -> Mismatch {
        let seen = |head: &ObjectHead| Seen {
            size: head.length,
            etag: head.etag.as_ref().map(ETag::to_string),
        };
        Mismatch {
            bucket: Arc::clone(&self.source.1),
            key: key.to_owned(),
            finding,
            detail,
            source: source.map(seen),
            target: target.map(seen),
        }
    }
}

/// The object's head, if there is an object.
async fn head(
    (store, bucket): &(Store, Arc<str>),
    key: &str,
) -> Result<Option<ObjectHead>, StoreError> {
    match patiently(|| store.head(bucket, key)).await {
        Ok(head) => Ok(Some(head)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The object's tags, asked for only where the head does not already say that there are none.
async fn tags(
    (store, bucket): &(Store, Arc<str>),
    key: &str,
    head: &ObjectHead,
) -> Result<Tags, StoreError> {
    let none = match replicate::tag_count(head) {
        Some(count) => count == 0,
        None => replicate::tells_all(store.server().as_deref()),
    };
    if none {
        return Ok(Tags::new());
    }
    match patiently(|| store.get_tags(bucket, key)).await {
        // A store without tagging has no tags.
        Err(error) if matches!(error.status, Some(405 | 501)) => Ok(Tags::new()),
        answer => answer,
    }
}

/// A head in the form of a listing's entry. Times are not compared here.
fn listed(key: &str, head: &ObjectHead) -> ListedObject {
    let etag = head.etag.clone().unwrap_or_else(|| ETag::new(""));
    ListedObject { key: key.to_owned(), size: head.length, etag, modified_ms: 0 }
}

/// The names that have not the same values on both sides, joined; values may be secret.
fn differing<N: AsRef<str>, V: PartialEq>(ours: &[(N, V)], theirs: &[(N, V)]) -> String {
    let mut names: Vec<&str> = ours.iter().chain(theirs).map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !values(ours, name).eq(values(theirs, name)));
    names.join(", ")
}

fn values<'a, N: AsRef<str>, V>(side: &'a [(N, V)], name: &str) -> impl Iterator<Item = &'a V> {
    side.iter().filter(move |(other, _)| other.as_ref() == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_names_are_told_and_equal_ones_are_not() {
        let ours = [("a", 1), ("b", 2), ("c", 3), ("c", 4)];
        assert_eq!(differing(&ours, &ours), "");
        assert_eq!(differing(&ours, &[("b", 2), ("c", 3), ("d", 5)]), "a, c, d");
    }
}
