//! One try of one key: read the source, make the target agree.
//!
//! **Promise.** The target is changed only to what the source said during this try. On error nothing
//! half-written is visible and the try can be repeated. On cancellation or a crash the same holds,
//! and the journal still has the key.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use md5::{Digest, Md5};

use super::attempt::AttemptError;
use super::pace::Pace;
use super::plan::{self, BUFFERED, FirstStep, Layout, Limits};
use super::remove::Forth;
use super::uploads::Uploads;
use crate::config::settings::{BucketSettings, ReplicateSettings, TargetSettings};
use crate::dirty::Origin;
use crate::object::{ETag, ObjectKey};
use crate::retry::RetryPolicy;
use crate::store::{
    ErrorKind, GetOptions, ObjectBody, ObjectHead, PutBody, PutOutcome, Store, StoreError, Tags,
};
use crate::workqueue::Work;

/// How a try ended well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Done {
    /// The object was written, so many bytes of it.
    Copied(u64),
    /// The object was deleted.
    Deleted,
    /// The object is gone from the source and stays at the target, where the bucket is an archive.
    Kept,
    /// A delete was set aside until its time has come.
    Delayed,
    /// The source answers 404 to what was reported to be there a moment ago; nothing was done.
    Unseen,
    /// Only its tags were written.
    Tagged,
    /// Both sides agreed already.
    Unchanged,
    /// A listing named the object, and neither side has it: it never was there, or went meanwhile.
    Ghost,
    /// A delete was set aside for a person to approve.
    Held,
    /// The object needs the lane for large ones; nothing was done.
    Large,
}

impl Done {
    /// Whether the target has acknowledged a write: whatever made writes fail is over. A bucket over its quota
    /// still deletes.
    pub(super) const fn shows_room(self) -> bool {
        matches!(self, Self::Copied(_))
    }

    /// Whether the target was not asked for anything yet.
    pub(super) const fn is_source_alone(self) -> bool {
        matches!(self, Self::Large | Self::Unseen)
    }

    /// Whether the target has acknowledged a write.
    pub(super) const fn wrote(self) -> bool {
        matches!(self, Self::Copied(_) | Self::Deleted | Self::Tagged)
    }
}

/// What every try needs; shared by all of them.
#[derive(Debug)]
pub(super) struct Worker {
    /// On the way back there is nothing to delete, and nothing to remember.
    pub(super) forth: Option<Forth>,
    pub(super) source: Store,
    pub(super) target: Store,
    pub(super) target_settings: TargetSettings,
    pub(super) buckets: HashMap<Arc<str>, Mapping>,
    pub(super) settings: ReplicateSettings,
    pub(super) retry: RetryPolicy,
    pub(super) uploads: Uploads,
    pub(super) pace: Pace,
    /// Learnt: the target encrypts with KMS, so its `ETag`s never equal the source's.
    pub(super) target_kms: AtomicBool,
    /// Learnt: the source ignores `partNumber`.
    pub(super) source_partless: AtomicBool,
    /// Learnt: the source's HEAD tells how many tags there are, though its GET does not.
    pub(super) source_head_counts: AtomicBool,
    /// Learnt: the source has no tagging at all.
    pub(super) source_untagged: AtomicBool,
}

/// Where a bucket's keys go.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) target: Arc<str>,
    pub(super) settings: BucketSettings,
}

/// How an object's bytes will travel, with the answer at hand where one is.
enum Way {
    /// One PUT of this answer.
    Single(ObjectBody),
    /// A multipart upload; a single part may be this answer.
    InParts(Layout, Option<ObjectBody>),
}

/// One object on its way.
#[derive(Debug)]
pub(super) struct CopyJob<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) target_bucket: &'a str,
    pub(super) length: u64,
    /// The source's tag, as If-Match and as what the target must end with.
    pub(super) etag: Option<&'a ETag>,
    /// Whether the tag is a digest of the content (not with KMS or SSE-C).
    pub(super) etag_is_proof: bool,
    pub(super) headers: HeaderMap,
}

impl Worker {
    /// Makes the target agree with the source about one key.
    pub(super) async fn converge(&self, work: &Work) -> Result<Done, AttemptError> {
        let key = &work.key;
        let Some(mapping) = self.buckets.get(&key.bucket) else { return Ok(Done::Unchanged) };
        if !mapping.settings.wants(&key.key) {
            return Ok(Done::Unchanged);
        }
        match plan::first_step(work.pending.aspects) {
            // A large object that the target has already is not worth a second copy.
            FirstStep::Get if work.pending.large => self.compare(work, mapping).await,
            FirstStep::Nothing => Ok(Done::Unchanged),
            FirstStep::Get => self.read_and_copy(work, mapping).await,
            FirstStep::Compare => self.compare(work, mapping).await,
            FirstStep::Head => match self.source.head(&key.bucket, &key.key).await {
                Ok(_) => self.read_and_copy(work, mapping).await,
                Err(error) if error.kind == ErrorKind::NotFound => self.remove(work, mapping).await,
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Reads the source and writes what it answered.
    async fn read_and_copy(&self, work: &Work, mapping: &Mapping) -> Result<Done, AttemptError> {
        let key = &work.key;
        let body = match self.source.get(&key.bucket, &key.key, GetOptions::default()).await {
            Ok(body) => body,
            Err(error) if error.kind == ErrorKind::NotFound => {
                // Two answers, the second a HEAD, before anything is deleted.
                return match self.source.head(&key.bucket, &key.key).await {
                    Err(error) if error.kind == ErrorKind::NotFound => {
                        self.remove(work, mapping).await
                    }
                    Err(error) => Err(error.into()),
                    Ok(_) => Err(StoreError { kind: ErrorKind::Changed, ..error }.into()),
                };
            }
            Err(error) => return Err(error.into()),
        };
        if body.head.length >= self.settings.large_size.0 && !work.pending.large {
            return Ok(Done::Large);
        }
        let head = self.whole_head(key, &body.head).await?;
        let way = match self.layout(&head) {
            Layout::Single => Way::Single(body),
            layout @ Layout::Parts(1) => Way::InParts(layout, Some(body)),
            layout @ (Layout::Parts(_) | Layout::Ranges(_)) => Way::InParts(layout, None),
        };
        self.copy(key, mapping, &head, way).await
    }

    /// HEADs both sides: often they agree already, or differ in tags only.
    async fn compare(&self, work: &Work, mapping: &Mapping) -> Result<Done, AttemptError> {
        let key = &work.key;
        let (source, target) = tokio::join!(
            self.source.head(&key.bucket, &key.key),
            self.target.head(&mapping.target, &key.key),
        );
        let source = match source {
            Ok(head) => head,
            Err(error) if error.kind == ErrorKind::NotFound => {
                return match target {
                    Err(error) if error.kind == ErrorKind::NotFound => {
                        if self.is_unseen(work) {
                            return Ok(Done::Unseen);
                        }
                        let listed = work.pending.origin == Origin::Repair;
                        Ok(if listed { Done::Ghost } else { Done::Unchanged })
                    }
                    Ok(_) | Err(_) => self.remove(work, mapping).await,
                };
            }
            Err(error) => return Err(error.into()),
        };
        match target {
            Ok(target) if plan::same_object(&source, &target) => {
                self.remember_pair(key, source.etag.as_ref(), target.etag.as_ref());
                self.returned(key).await;
                Ok(self.agree_on_tags(key, mapping, &source, &target).await?)
            }
            Err(error) if error.kind != ErrorKind::NotFound => Err(error.into()),
            Ok(_) | Err(_)
                if source.length >= self.settings.large_size.0 && !work.pending.large =>
            {
                Ok(Done::Large)
            }
            Ok(_) | Err(_) => match self.layout(&source) {
                Layout::Single => self.read_and_copy(work, mapping).await,
                layout @ (Layout::Parts(_) | Layout::Ranges(_)) => {
                    let way = Way::InParts(layout, None);
                    self.copy(key, mapping, &source, way).await
                }
            },
        }
    }

    async fn agree_on_tags(
        &self,
        key: &ObjectKey,
        mapping: &Mapping,
        source: &ObjectHead,
        target: &ObjectHead,
    ) -> Result<Done, StoreError> {
        if !self.settings.tags {
            return Ok(Done::Unchanged);
        }
        let wanted = self.source_tags(key, source).await?;
        let told = plan::tells_all(self.target.server().as_deref());
        let present = match plan::tag_count(target) {
            None if told => Tags::new(),
            _ => self.target.get_tags(&mapping.target, &key.key).await?,
        };
        if wanted == present {
            return Ok(Done::Unchanged);
        }
        if wanted.is_empty() {
            self.target.delete_tags(&mapping.target, &key.key).await?;
        } else {
            self.target.put_tags(&mapping.target, &key.key, &wanted).await?;
        }
        Ok(Done::Tagged)
    }

    /// The source object's tags, asked for only where the answer at hand does not already say that
    /// there are none.
    async fn source_tags(&self, key: &ObjectKey, head: &ObjectHead) -> Result<Tags, StoreError> {
        let told = plan::tells_all(self.source.server().as_deref())
            || self.source_head_counts.load(Ordering::Relaxed);
        let none = match plan::tag_count(head) {
            Some(count) => count == 0,
            None => told || self.source_untagged.load(Ordering::Relaxed),
        };
        if none || !self.settings.tags {
            return Ok(Tags::new());
        }
        match self.source.get_tags(&key.bucket, &key.key).await {
            // This store has no tags, so there are none to lose. Any other refusal concerns one object.
            Err(error)
                if matches!(error.status, Some(405 | 501)) && plan::tag_count(head).is_none() =>
            {
                self.source_untagged.store(true, Ordering::Relaxed);
                tracing::info!(%error, "The source has no object tagging; tags are not asked for again.");
                Ok(Tags::new())
            }
            result => result,
        }
    }

    async fn copy(
        &self,
        key: &ObjectKey,
        mapping: &Mapping,
        head: &ObjectHead,
        way: Way,
    ) -> Result<Done, AttemptError> {
        let tags = self.source_tags(key, head).await?;
        let proof = etag_is_proof(head);
        let layout = match way {
            Way::Single(_) => Layout::Single,
            Way::InParts(layout, _) => layout,
        };
        let carries_over = proof && plan::tag_carries_over(layout, head.etag.as_ref());
        let paired = self.target_kms.load(Ordering::Relaxed) || !carries_over;
        let pair = head.etag.as_ref().filter(|_| paired && self.forth.is_some());
        let (inline, behind) =
            if plan::tags_fit_header(&tags) { (tags, None) } else { (Tags::new(), Some(tags)) };
        let job = CopyJob {
            key,
            target_bucket: &mapping.target,
            length: head.length,
            etag: head.etag.as_ref(),
            etag_is_proof: proof,
            headers: plan::outgoing_headers(&head.headers, &inline, &self.target_settings, pair),
        };
        let outcome = match way {
            Way::Single(body) => self.copy_single(&job, body).await?,
            Way::InParts(layout, first) => self.copy_in_parts(&job, layout, first).await?,
        };
        self.verify(&job, paired, &outcome)?;
        self.remember_pair(key, job.etag, outcome.etag.as_ref());
        self.returned(key).await;
        if let Some(tags) = behind {
            self.target.put_tags(&mapping.target, &key.key, &tags).await?;
        }
        Ok(Done::Copied(job.length))
    }

    /// Both sides have the object: what was to be done about its delete is void.
    async fn returned(&self, key: &ObjectKey) {
        if let Some(forth) = &self.forth {
            forth.hold.returned(key);
            forth.delays.returned(key).await;
        }
    }

    /// Where the two tags cannot be equal, a listing alone can then tell that the content is.
    fn remember_pair(&self, key: &ObjectKey, source: Option<&ETag>, target: Option<&ETag>) {
        if let (Some(forth), Some(source), Some(target)) = (&self.forth, source, target) {
            forth.hold.remembered.pair(&key.bucket, &key.key, source, target);
        }
    }

    /// One PUT. The source's MD5 goes along, so that the two stores prove the copy to each other.
    async fn copy_single(
        &self,
        job: &CopyJob<'_>,
        body: ObjectBody,
    ) -> Result<PutOutcome, StoreError> {
        let md5 = job.etag.filter(|_| job.etag_is_proof).and_then(ETag::md5);
        let (md5, put) = if job.length <= BUFFERED {
            let bytes = body.bytes().await?;
            (Some(md5.unwrap_or_else(|| Md5::digest(&bytes).into())), PutBody::Bytes(bytes))
        } else {
            (md5, body.into_put())
        };
        let put = self.pace.spread(put).await;
        self.target.put(job.target_bucket, &job.key.key, &job.headers, md5, put).await
    }

    /// The target must end with the source's tag, unless it is known that it cannot.
    fn verify(
        &self,
        job: &CopyJob<'_>,
        paired: bool,
        outcome: &PutOutcome,
    ) -> Result<(), StoreError> {
        if paired || outcome.etag.as_ref() == job.etag {
            return Ok(());
        }
        if self.encrypts_with_kms(job, outcome) {
            return Err(self.kms_error(job, "PutObject"));
        }
        let put = outcome.etag.as_ref().map_or("no ETag", ETag::as_str);
        let wanted = job.etag.map_or("no ETag", ETag::as_str);
        let message = format!("the target answered {put} where the source has {wanted}");
        Err(self.target_error(job, "PutObject", message))
    }

    /// Learns from the target's answer to a write whether its `ETag`s can equal the source's.
    pub(super) fn encrypts_with_kms(&self, job: &CopyJob<'_>, outcome: &PutOutcome) -> bool {
        let kms = outcome.encryption.as_deref().is_some_and(|e| e.starts_with("aws:kms"));
        if kms && !self.target_kms.swap(true, Ordering::Relaxed) {
            tracing::info!(
                bucket = job.target_bucket,
                "The target encrypts with KMS, so its ETags differ from the source's; the source's is kept in the metadata of each object."
            );
        }
        kms
    }

    /// This copy began before that was known; the next try, at once, goes about it otherwise.
    pub(super) fn kms_error(&self, job: &CopyJob<'_>, operation: &'static str) -> StoreError {
        let message = "the target encrypts with KMS, which this copy did not expect";
        let error = self.target_error(job, operation, message.into());
        StoreError { kind: ErrorKind::Changed, ..error }
    }

    fn layout(&self, head: &ObjectHead) -> Layout {
        let limits = Limits {
            multipart_threshold: self.settings.multipart_threshold.0,
            no_parts: self.target_kms.load(Ordering::Relaxed)
                || self.source_partless.load(Ordering::Relaxed),
        };
        let etag = head.etag.as_ref().filter(|_| etag_is_proof(head));
        plan::layout(etag, head.length, limits)
    }

    pub(super) fn target_error(
        &self,
        job: &CopyJob<'_>,
        operation: &'static str,
        message: String,
    ) -> StoreError {
        let call = self.target.failure(operation, job.target_bucket, &job.key.key);
        StoreError { maybe_applied: true, ..call.corrupt(message) }
    }
}

/// With KMS or customer keys a store's `ETag` is not a digest of the content (AWS user guide,
/// "Checking object integrity").
fn etag_is_proof(head: &ObjectHead) -> bool {
    let value = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
    let kms = value("x-amz-server-side-encryption").is_some_and(|e| e.starts_with("aws:kms"));
    !kms && value("x-amz-server-side-encryption-customer-algorithm").is_none()
}
