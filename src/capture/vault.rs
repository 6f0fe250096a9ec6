//! Where captured documents are kept: a bucket of the target that holds nothing else.
//!
//! A document is written once, under the time it was taken, and never changed. `checked.json` beside
//! them tells when the source was last found to say what the newest one says. On a crash between the
//! two, the next check mends it.

use bytes::Bytes;
use http::HeaderMap;
use secrecy::SecretString;
use serde_json::json;

use super::document::{Document, moment};
use super::{CaptureError, seal};
use crate::config::Settings;
use crate::config::settings::CaptureSettings;
use crate::store::{ErrorKind, GetOptions, ListQuery, PutBody, Store, StoreError};
use crate::stores::ensure_target;
use crate::stores::patiently;

/// A document that could not be read whole says so in its name.
const INCOMPLETE: &str = ".incomplete";
const ENDING: &str = ".json";
const CHECKED: &str = "checked.json";
/// The largest document that is read.
const MAX_DOCUMENT: u64 = 256 << 20;

/// The place of the documents.
#[derive(Debug)]
pub(super) struct Vault<'a> {
    target: &'a Store,
    settings: &'a CaptureSettings,
    create: bool,
}

impl<'a> Vault<'a> {
    pub(super) fn new(target: &'a Store, settings: &'a Settings, of: &'a CaptureSettings) -> Self {
        Self { target, settings: of, create: settings.target.create_buckets }
    }

    /// The keys of all documents, the oldest first; none if there is no bucket yet.
    async fn keys(&self) -> Result<Vec<String>, StoreError> {
        let (bucket, prefix) = (&self.settings.target_bucket, &self.settings.prefix);
        let mut keys = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let query = ListQuery { prefix, token: token.as_deref(), ..ListQuery::default() };
            let page = match patiently(|| self.target.list(bucket, &query)).await {
                Err(error) if error.kind == ErrorKind::NoSuchBucket => return Ok(Vec::new()),
                page => page?,
            };
            let objects = page.objects.into_iter().map(|object| object.key);
            keys.extend(objects.filter(|key| key.strip_prefix(&**prefix).is_some_and(is_document)));
            token = page.next;
            if token.is_none() {
                keys.sort_unstable();
                return Ok(keys);
            }
        }
    }

    /// The key of the newest complete document, and of a newer one that is not.
    pub(super) async fn newest(&self) -> Result<(Option<String>, Option<String>), StoreError> {
        let mut keys = self.keys().await?;
        let last = keys.last().cloned().filter(|key| is_incomplete(key));
        keys.retain(|key| !is_incomplete(key));
        Ok((keys.pop(), last))
    }

    /// The newest document of all, if it can be read.
    pub(super) async fn last(&self) -> Result<Option<(String, Document)>, CaptureError> {
        let Some(key) = self.keys().await?.pop() else { return Ok(None) };
        match self.read(&key).await {
            Ok(document) => Ok(Some((key, document))),
            // Another passphrase, or damage: then there is nothing to compare with.
            Err(CaptureError::Unreadable { reason, .. }) => {
                tracing::warn!(%key, reason, "The newest captured document cannot be read; another one is written.");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads one document.
    pub(super) async fn read(&self, key: &str) -> Result<Document, CaptureError> {
        let bucket = &self.settings.target_bucket;
        let object = patiently(|| self.target.get(bucket, key, GetOptions::default())).await?;
        let unreadable =
            |reason: String| CaptureError::Unreadable { place: format!("{bucket}/{key}"), reason };
        if object.head.length > MAX_DOCUMENT {
            return Err(unreadable(format!("it is larger than {MAX_DOCUMENT} bytes")));
        }
        let sealed = object.bytes().await?.to_vec();
        let text = opened(sealed, self.settings.passphrase.clone()).await.map_err(unreadable)?;
        Document::parse(&text).map_err(unreadable)
    }

    /// Writes a document, and gives its key.
    pub(super) async fn write(
        &self,
        text: Vec<u8>,
        taken_ms: i64,
        complete: bool,
    ) -> Result<String, StoreError> {
        let state = if complete { "" } else { INCOMPLETE };
        let key = format!("{}{}{state}{ENDING}", self.settings.prefix, stamp(taken_ms));
        patiently(|| ensure_target(self.target, &self.settings.target_bucket, self.create)).await?;
        self.put(&key, text).await?;
        Ok(key)
    }

    /// Notes that the source was seen to say what the document `key` says.
    pub(super) async fn checked(&self, key: &str, at_ms: i64) -> Result<(), StoreError> {
        let text = json!({ "checked": moment(at_ms).to_string(), "document": key }).to_string();
        self.put(&format!("{}{CHECKED}", self.settings.prefix), text.into_bytes()).await
    }

    async fn put(&self, key: &str, text: Vec<u8>) -> Result<(), StoreError> {
        let (text, headers) = (Bytes::from(text), HeaderMap::new());
        let digest = crate::store::md5(&text);
        let bucket = &self.settings.target_bucket;
        let put = || {
            let body = PutBody::Bytes(text.clone());
            self.target.put(bucket, key, &headers, Some(digest), body)
        };
        patiently(put).await.map(drop)
    }

    /// Deletes the oldest documents beyond those to keep.
    pub(super) async fn trim(&self) -> Result<(), StoreError> {
        for key in too_old(&self.keys().await?, self.settings.keep) {
            patiently(|| self.target.delete(&self.settings.target_bucket, &key)).await?;
        }
        Ok(())
    }
}

/// What is deleted of `keys`, which are in order: all but the newest `keep`, and never the newest
/// complete one.
fn too_old(keys: &[String], keep: usize) -> Vec<String> {
    let complete = keys.iter().rposition(|key| !is_incomplete(key));
    let old = keys.iter().enumerate().take(keys.len().saturating_sub(keep));
    old.filter(|(at, _)| Some(*at) != complete).map(|(_, key)| key.clone()).collect()
}

/// Encrypts without holding up what else runs on this thread.
pub(super) async fn sealed(
    text: Vec<u8>,
    passphrase: Option<SecretString>,
) -> Result<Vec<u8>, String> {
    let Some(passphrase) = passphrase else { return Ok(text) };
    let sealing = tokio::task::spawn_blocking(move || seal::seal(&text, &passphrase));
    sealing.await.map_err(|error| error.to_string())?
}

async fn opened(sealed: Vec<u8>, passphrase: Option<SecretString>) -> Result<Vec<u8>, String> {
    let opening = tokio::task::spawn_blocking(move || seal::open(sealed, passphrase.as_ref()));
    opening.await.map_err(|error| error.to_string())?
}

/// `20261123T212214.031Z`: in order of time by order of spelling.
fn stamp(ms: i64) -> String {
    let moment = moment(ms);
    let text = moment.strftime("%Y%m%dT%H%M%S");
    format!("{text}.{:03}Z", ms.rem_euclid(1000))
}

fn is_document(name: &str) -> bool {
    let stem = name.strip_suffix(ENDING).unwrap_or_default();
    let stem = stem.strip_suffix(INCOMPLETE).unwrap_or(stem);
    stem.len() == 20 && stem.ends_with('Z') && stem.bytes().take(8).all(|b| b.is_ascii_digit())
}

fn is_incomplete(key: &str) -> bool {
    key.strip_suffix(ENDING).is_some_and(|stem| stem.ends_with(INCOMPLETE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_of_time_and_only_ours_count() {
        assert_eq!(stamp(86_400_000 + 3_661_007), "19700102T010101.007Z");
        assert!(stamp(1_000) < stamp(1_001) && stamp(999) < stamp(1_000));
        assert!(is_document(&format!("{}.json", stamp(5))));
        assert!(is_document(&format!("{}.incomplete.json", stamp(5))));
        for other in [CHECKED, "", ".json", "x/20261123T205534.031Z.json", "notes.json"] {
            assert!(!is_document(other), "{other}");
        }
    }

    #[test]
    fn the_newest_complete_document_is_never_deleted() {
        let keys =
            ["1.json", "2.json", "3.incomplete.json", "4.incomplete.json"].map(str::to_owned);
        assert_eq!(too_old(&keys, 2), ["1.json"]);
        assert_eq!(too_old(&keys, 1), ["1.json", "3.incomplete.json"]);
        assert!(too_old(&keys, 4).is_empty());
    }
}
