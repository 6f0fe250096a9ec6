//! Large and multipart objects: copied in parts, visible only when proven.
//!
//! **Promise.** The target's object appears only by a completed upload whose content was proven
//! first: with the source's own part layout, the MD5 of the parts' tags must equal the source's
//! `ETag`; in ranges, every part carries a Content-MD5 and the whole must hash to the source's MD5
//! where it has one. On any error the upload is aborted, after a crash by the next start.

use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use md5::{Digest, Md5};

use std::sync::atomic::Ordering;

use super::plan::{self, Layout, multipart_etag};
use super::worker::{CopyJob, Worker};
use crate::object::{ETag, ObjectKey};
use crate::store::{CallSite, ErrorKind, GetOptions, ObjectBody, PutBody, PutOutcome, StoreError};

/// A part is tried this often before the whole copy is given up and parked.
const PART_TRIES: u32 = 4;

type Parts = Vec<(u32, ETag)>;

impl Worker {
    /// Copies an object in parts. `first` is the answer of the GET that was already made, used when
    /// the object has a single part.
    pub(super) async fn copy_in_parts(
        &self,
        job: &CopyJob<'_>,
        layout: Layout,
        first: Option<ObjectBody>,
    ) -> Result<PutOutcome, StoreError> {
        let (bucket, key) = (job.target_bucket, job.key.key.as_ref());
        let upload_id = self.target.create_multipart(bucket, key, &job.headers).await?;
        let begun = self.uploads.begun(bucket, key, upload_id).await;
        let upload = Upload { worker: self, job, id: &begun.upload_id };
        let result = upload.fill_and_complete(layout, first).await;
        if result.is_err()
            && let Err(error) = self.target.abort_multipart(bucket, key, &begun.upload_id).await
            && error.kind != ErrorKind::NotFound
        {
            tracing::debug!(key = %job.key, %error, "A failed multipart upload could not be aborted yet.");
            self.uploads.abandoned(begun);
            return result;
        }
        self.uploads.ended(&begun).await;
        result
    }
}

/// A multipart upload that was begun for one object.
struct Upload<'a> {
    worker: &'a Worker,
    job: &'a CopyJob<'a>,
    id: &'a str,
}

impl Upload<'_> {
    async fn fill_and_complete(
        &self,
        layout: Layout,
        first: Option<ObjectBody>,
    ) -> Result<PutOutcome, StoreError> {
        let parts = match (layout, first) {
            (Layout::Ranges(size), _) => self.fill_ranges(size).await?,
            (_, Some(only)) => vec![(1, self.put_part(1, only.into_put()).await?)],
            (Layout::Parts(count), None) => self.fill_parts(count).await?,
            (Layout::Single, None) => Vec::new(),
        };
        let (worker, job) = (self.worker, self.job);
        let expected = multipart_etag(&parts);
        if let Layout::Parts(_) = layout
            && expected.as_ref() != job.etag
        {
            return Err(worker.target_error(job, "UploadPart", format!(
                "the uploaded parts hash to {} but the source's ETag is {}; the upload was aborted and nothing is visible",
                expected.map_or_else(|| "nothing comparable".to_owned(), |e| e.to_string()),
                job.etag.map_or("absent", ETag::as_str),
            )));
        }
        let (bucket, key) = (job.target_bucket, job.key.key.as_ref());
        worker.target.complete_multipart(bucket, key, self.id, &parts).await
    }

    /// Copies every part as the source has it, several at once. A part that is done makes room for the
    /// next one even while an earlier one is slow.
    async fn fill_parts(&self, count: u32) -> Result<Parts, StoreError> {
        let mut parts: Parts = futures_util::stream::iter(1..=count)
            .map(|part| async move { Ok((part, self.copy_part(part, count).await?)) })
            .buffer_unordered(self.worker.settings.part_concurrency)
            .try_collect()
            .await?;
        parts.sort_unstable_by_key(|(number, _)| *number);
        Ok(parts)
    }

    /// One part, tried again on its own while the fault may pass.
    async fn copy_part(&self, part: u32, count: u32) -> Result<ETag, StoreError> {
        let mut tries = 0;
        loop {
            let error = match self.copy_part_once(part, count).await {
                Ok(etag) => return Ok(etag),
                Err(error) => error,
            };
            tries += 1;
            let passes = matches!(error.kind, ErrorKind::Transient | ErrorKind::Throttled);
            if !passes || tries == PART_TRIES {
                return Err(error);
            }
            tracing::debug!(key = %self.job.key, part, %error, "A part failed and is tried again.");
            tokio::time::sleep(self.worker.retry.delay(tries - 1)).await;
        }
    }

    async fn copy_part_once(&self, part: u32, count: u32) -> Result<ETag, StoreError> {
        let (worker, job) = (self.worker, self.job);
        let options = GetOptions { part: Some(part), if_match: job.etag, ..GetOptions::default() };
        let body = worker.source.get(&job.key.bucket, &job.key.key, options).await?;
        if count > 1 && !body.head.headers.contains_key(http::header::CONTENT_RANGE) {
            worker.source_partless.store(true, Ordering::Relaxed);
            let message = "the source answers a part with the whole object; from now on multipart objects are copied in ranges";
            return Err(self.source_call().changed(message));
        }
        self.put_part(part, body.into_put()).await
    }

    async fn put_part(&self, part: u32, body: PutBody) -> Result<ETag, StoreError> {
        let put = self.upload(part, None, body).await?;
        // Parts in the source's layout are proven by their tags, which are no digests then.
        if self.worker.encrypts_with_kms(self.job, &put) {
            return Err(self.worker.kms_error(self.job, "UploadPart"));
        }
        self.part_etag(put)
    }

    /// Copies fixed ranges one after the other, hashing them, so that memory holds one range.
    async fn fill_ranges(&self, size: u64) -> Result<Parts, StoreError> {
        let (worker, job) = (self.worker, self.job);
        let mut whole = Md5::new();
        let mut parts = Vec::new();
        let starts = (0..job.length).step_by(usize::try_from(size).unwrap_or(usize::MAX));
        for (number, start) in (1..).zip(starts) {
            let end = (start + size).min(job.length) - 1;
            let options = GetOptions {
                range: Some((start, end)),
                if_match: job.etag,
                ..GetOptions::default()
            };
            let body = worker.source.get(&job.key.bucket, &job.key.key, options).await?;
            if let Some((kind, message)) = plan::misfit(&body.head, job.etag, end - start + 1) {
                return Err(StoreError { kind, ..self.source_call().corrupt(message) });
            }
            let bytes = body.bytes().await?;
            whole.update(&bytes);
            let md5: [u8; 16] = Md5::digest(&bytes).into();
            let put = self.upload(number, Some(md5), PutBody::Bytes(bytes)).await?;
            parts.push((number, self.part_etag(put)?));
        }
        let whole: [u8; 16] = whole.finalize().into();
        match job.etag.and_then(ETag::md5) {
            Some(expected) if job.etag_is_proof && expected != whole => {
                Err(self.source_call().corrupt(
                    "the bytes read do not hash to the source's ETag; nothing was made visible",
                ))
            }
            _ => Ok(parts),
        }
    }

    /// A read of this object, whose answer is not what it should be.
    fn source_call(&self) -> CallSite {
        let ObjectKey { bucket, key } = self.job.key;
        self.worker.source.failure("GetObject", bucket, key)
    }

    async fn upload(
        &self,
        part: u32,
        md5: Option<[u8; 16]>,
        body: PutBody,
    ) -> Result<PutOutcome, StoreError> {
        let (worker, job) = (self.worker, self.job);
        let body = worker.pace.spread(body).await;
        let (bucket, key) = (job.target_bucket, job.key.key.as_ref());
        worker.target.upload_part(bucket, key, self.id, part, md5, body).await
    }

    fn part_etag(&self, put: PutOutcome) -> Result<ETag, StoreError> {
        put.etag.ok_or_else(|| {
            self.worker.target_error(self.job, "UploadPart", "the answer carries no ETag".into())
        })
    }
}
