//! `s3s-fs` with an index before it: what the operations of `service` are made of.
//!
//! A write stores its blob first and then changes the index, under one lock with the ledger: what
//! a reader sees is always one whole write, and ledger and queue have the index's order. A write that fails
//! or is cancelled leaves at most a blob that nothing refers to.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{Extensions, HeaderMap, Method, Uri};
use s3s::{S3, S3Request, S3Result, dto, s3_error};
use s3s_fs::FileSystem;

use super::Watcher;
use super::index::{Entry, Index};
use crate::clock::now_ms;
use crate::demo::ledger::State;
use crate::demo::notify::Change;
use crate::object::ObjectKey;
use crate::store::Tags;

/// A whole enough S3 on top of `s3s-fs`.
pub(super) struct WholeS3 {
    pub inner: FileSystem,
    index: Mutex<Index>,
    uploads: Mutex<HashMap<String, Upload>>,
    watcher: Watcher,
}

/// A multipart upload that is under way.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub bucket: String,
    pub key: String,
    pub blob: String,
    pub tags: Tags,
}

/// A blob that is stored and not yet visible.
pub(super) struct Write {
    pub key: ObjectKey,
    pub blob: String,
    pub parts: Vec<i64>,
    pub tags: Tags,
    /// The event's name, as MinIO has it.
    pub event: &'static str,
}

/// Who made a request, for the notification.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    principal: String,
    user_agent: String,
}

impl WholeS3 {
    /// Opens the store under `dir`, which is created if it is missing.
    pub(super) fn open(dir: &Path, watcher: Watcher) -> anyhow::Result<Self> {
        let blobs = dir.join("blobs");
        std::fs::create_dir_all(&blobs)?;
        let inner = FileSystem::new(&blobs).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let index = Mutex::new(Index::open(&dir.join("index.jsonl"))?);
        Ok(Self { inner, index, uploads: Mutex::default(), watcher })
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn uploads(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails with `NoSuchBucket` unless the bucket exists.
    pub(super) async fn need_bucket(&self, bucket: &str) -> S3Result<()> {
        let input = dto::HeadBucketInput { bucket: bucket.to_owned(), ..Default::default() };
        self.inner.head_bucket(request(input)).await.map(drop)
    }

    /// The entry of an object; `NoSuchBucket` or `NoSuchKey` if there is none.
    pub(super) async fn locate(&self, bucket: &str, key: &str) -> S3Result<Entry> {
        let found = self.index().get(bucket, key).cloned();
        if found.is_none() {
            self.need_bucket(bucket).await?;
        }
        found.ok_or_else(|| s3_error!(NoSuchKey))
    }

    /// Makes a stored blob the object, tells the watchers, and drops the blob it replaces.
    pub(super) async fn commit(&self, caller: &Caller, write: Write) -> S3Result<Entry> {
        let Write { key, blob, parts, tags, event } = write;
        let bucket = key.bucket.to_string();
        let input = dto::HeadObjectInput { bucket, key: blob.clone(), ..Default::default() };
        let head = self.inner.head_object(request(input)).await?.output;
        let entry = Entry {
            blob,
            size: head.content_length.unwrap_or_default(),
            etag: head.e_tag.map(dto::ETag::into_value).unwrap_or_default(),
            modified_ms: now_ms(),
            parts,
            tags,
        };
        let mut change = caller.change(&key, event);
        change.content_type = head.content_type;
        change.user_metadata = head.metadata.unwrap_or_default().into_iter().collect();
        let replaced = self.apply(change, |_| Ok(Some(entry.clone()))).await?;
        if let Some(old) = replaced {
            self.drop_blob(&key.bucket, old.blob).await;
        }
        Ok(entry)
    }

    /// Takes the object away, if there is one. `missing` names the event when there is none.
    pub(super) async fn remove(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        missing: &'static str,
    ) -> S3Result<()> {
        let exists = self.index().get(&key.bucket, &key.key).is_some();
        let event = if exists { "s3:ObjectRemoved:Delete" } else { missing };
        let removed = self.apply(caller.change(key, event), |_| Ok(None)).await?;
        if let Some(old) = removed {
            self.drop_blob(&key.bucket, old.blob).await;
        }
        Ok(())
    }

    /// Replaces the tags of an object.
    pub(super) async fn tag(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        tags: Tags,
        event: &'static str,
    ) -> S3Result<()> {
        self.locate(&key.bucket, &key.key).await?;
        let tagged = |now: Option<&Entry>| match now {
            Some(entry) => Ok(Some(Entry { tags, ..entry.clone() })),
            None => Err(s3_error!(NoSuchKey)),
        };
        self.apply(caller.change(key, event), tagged).await.map(drop)
    }

    /// Changes the index, tells the ledger and queues the notification, in one step that cannot be
    /// cancelled half-way: the place in the queue is waited for before. Gives the entry before.
    async fn apply(
        &self,
        mut change: Change,
        next: impl FnOnce(Option<&Entry>) -> S3Result<Option<Entry>>,
    ) -> S3Result<Option<Entry>> {
        let place = match &self.watcher.notifier {
            Some(queue) => {
                Some(queue.reserve().await.map_err(|e| s3_error!(e, ServiceUnavailable))?)
            }
            None => None,
        };
        let mut index = self.index();
        let entry = next(index.get(&change.key.bucket, &change.key.key))?;
        let state = entry.as_ref().map(|e| State {
            etag: e.etag.clone(),
            tags: e.tags.clone(),
            size: u64::try_from(e.size).unwrap_or_default(),
        });
        let old = index
            .set(&change.key.bucket, &change.key.key, entry)
            .map_err(|error| s3_error!(error, InternalError))?;
        change.at_ms = now_ms();
        self.watcher.ledger.note(self.watcher.side, &change.key, state.clone(), change.at_ms);
        change.state = state;
        if let Some(place) = place {
            place.send(change);
        }
        Ok(old)
    }

    /// Deletes a blob that nothing refers to. Readers that have opened it keep it to its end.
    pub(super) async fn drop_blob(&self, bucket: &str, blob: String) {
        let input =
            dto::DeleteObjectInput { bucket: bucket.to_owned(), key: blob, ..Default::default() };
        if let Err(error) = self.inner.delete_object(request(input)).await {
            tracing::debug!(%error, "The embedded store could not delete a blob.");
        }
    }
}

impl Caller {
    /// Taken from the request's credentials and headers.
    pub(super) fn of<T>(request: &S3Request<T>) -> Self {
        let user_agent = request.headers.get(http::header::USER_AGENT);
        Self {
            principal: request
                .credentials
                .as_ref()
                .map_or_else(String::new, |c| c.access_key.clone()),
            user_agent: user_agent.and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned(),
        }
    }

    fn change(&self, key: &ObjectKey, event: &'static str) -> Change {
        Change {
            key: key.clone(),
            event,
            at_ms: 0,
            state: None,
            content_type: None,
            user_metadata: BTreeMap::new(),
            principal: self.principal.clone(),
            user_agent: self.user_agent.clone(),
        }
    }
}

/// A request of our own to `s3s-fs`, which looks at nothing but the input.
pub(super) fn request<T>(input: T) -> S3Request<T> {
    S3Request {
        input,
        method: Method::GET,
        uri: Uri::default(),
        headers: HeaderMap::new(),
        extensions: Extensions::new(),
        credentials: None,
        region: None,
        service: None,
        trailing_headers: None,
    }
}

/// A name that no other blob has.
pub(super) fn blob_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}
