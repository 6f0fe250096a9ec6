//! Large and multipart objects: copied in parts, visible only when proven.
//!
//! **Promise.** The target's object appears only by a completed upload whose content was proven
//! first: with the source's own part layout, the MD5 of the parts' tags must equal the source's
//! `ETag`; in ranges, every part carries a Content-MD5 and the whole must hash to the source's MD5
//! where it has one. On any error the upload is aborted; after a crash the next start aborts it.

use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use md5::{Digest, Md5};

use std::sync::atomic::Ordering;

use super::plan::{self, Layout, multipart_etag};
use super::uploads::Begun;
use super::worker::{CopyJob, Worker};
use crate::object::ETag;
use crate::store::{ErrorKind, GetOptions, ObjectBody, PutBody, PutOutcome, StoreError};

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
        let result = self.fill_and_complete(job, layout, first, &begun).await;
        if result.is_err()
            && let Err(error) = self.target.abort_multipart(bucket, key, &begun.upload_id).await
            && error.kind != ErrorKind::NotFound
        {
            // Its note stays, so the next start aborts it.
            tracing::warn!(key = %job.key, %error, "A failed multipart upload could not be aborted; the next start tries again.");
            return result;
        }
        self.uploads.ended(&begun).await;
        result
    }

    async fn fill_and_complete(
        &self,
        job: &CopyJob<'_>,
        layout: Layout,
        first: Option<ObjectBody>,
        begun: &Begun,
    ) -> Result<PutOutcome, StoreError> {
        let parts = match (layout, first) {
            (Layout::Ranges(size), _) => self.fill_ranges(job, size, begun).await?,
            (_, Some(only)) => vec![(1, self.put_part(job, begun, 1, only.into_put()).await?)],
            (Layout::Parts(count), None) => self.fill_parts(job, count, begun).await?,
            (Layout::Single, None) => Vec::new(),
        };
        let expected = multipart_etag(&parts);
        if let Layout::Parts(_) = layout
            && expected.as_ref() != job.etag
        {
            return Err(self.target_error(job, "UploadPart", format!(
                "the uploaded parts hash to {} but the source's ETag is {}; the upload was aborted and nothing is visible",
                expected.map_or_else(|| "nothing comparable".to_owned(), |e| e.to_string()),
                job.etag.map_or("absent", ETag::as_str),
            )));
        }
        let (bucket, key) = (job.target_bucket, job.key.key.as_ref());
        self.target.complete_multipart(bucket, key, &begun.upload_id, &parts).await
    }

    /// Copies every part as the source has it, several at once.
    async fn fill_parts(
        &self,
        job: &CopyJob<'_>,
        count: u32,
        begun: &Begun,
    ) -> Result<Parts, StoreError> {
        futures_util::stream::iter(1..=count)
            .map(|part| async move { Ok((part, self.copy_part(job, begun, part, count).await?)) })
            .buffered(self.settings.part_concurrency)
            .try_collect()
            .await
    }

    /// One part, tried again on its own while the fault may pass.
    async fn copy_part(
        &self,
        job: &CopyJob<'_>,
        begun: &Begun,
        part: u32,
        count: u32,
    ) -> Result<ETag, StoreError> {
        let mut tries = 0;
        loop {
            let error = match self.copy_part_once(job, begun, part, count).await {
                Ok(etag) => return Ok(etag),
                Err(error) => error,
            };
            tries += 1;
            let passes = matches!(error.kind, ErrorKind::Transient | ErrorKind::Throttled);
            if !passes || tries == PART_TRIES {
                return Err(error);
            }
            tracing::debug!(key = %job.key, part, %error, "A part failed and is tried again.");
            tokio::time::sleep(self.retry.delay(tries - 1)).await;
        }
    }

    async fn copy_part_once(
        &self,
        job: &CopyJob<'_>,
        begun: &Begun,
        part: u32,
        count: u32,
    ) -> Result<ETag, StoreError> {
        let options = GetOptions { part: Some(part), if_match: job.etag, ..GetOptions::default() };
        let body = self.source.get(&job.key.bucket, &job.key.key, options).await?;
        if count > 1 && !body.head.headers.contains_key(http::header::CONTENT_RANGE) {
            self.source_partless.store(true, Ordering::Relaxed);
            let message = "the source answers a part with the whole object; from now on multipart objects are copied in ranges";
            let error = self.target_error(job, "GetObject", message.into());
            return Err(StoreError { kind: ErrorKind::Changed, ..error });
        }
        self.put_part(job, begun, part, body.into_put()).await
    }

    async fn put_part(
        &self,
        job: &CopyJob<'_>,
        begun: &Begun,
        part: u32,
        body: PutBody,
    ) -> Result<ETag, StoreError> {
        let put = self.upload(job, begun, part, None, body).await?;
        // Parts in the source's layout are proven by their tags, which are no digests then.
        if self.encrypts_with_kms(job, &put) {
            return Err(self.kms_error(job, "UploadPart"));
        }
        self.part_etag(job, put)
    }

    /// Copies fixed ranges one after the other, hashing them, so that memory holds one range.
    async fn fill_ranges(
        &self,
        job: &CopyJob<'_>,
        size: u64,
        begun: &Begun,
    ) -> Result<Parts, StoreError> {
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
            let body = self.source.get(&job.key.bucket, &job.key.key, options).await?;
            if let Some((kind, message)) = plan::misfit(&body.head, job.etag, end - start + 1) {
                let error = self.target_error(job, "GetObject", message);
                return Err(StoreError { kind, endpoint: self.source.endpoint().into(), ..error });
            }
            let bytes = body.bytes().await?;
            whole.update(&bytes);
            let md5: [u8; 16] = Md5::digest(&bytes).into();
            let put = self.upload(job, begun, number, Some(md5), PutBody::Bytes(bytes)).await?;
            parts.push((number, self.part_etag(job, put)?));
        }
        let whole: [u8; 16] = whole.finalize().into();
        match job.etag.and_then(ETag::md5) {
            Some(expected) if job.etag_is_proof && expected != whole => Err(self.target_error(
                job,
                "GetObject",
                "the bytes read do not hash to the source's ETag; nothing was made visible".into(),
            )),
            _ => Ok(parts),
        }
    }

    async fn upload(
        &self,
        job: &CopyJob<'_>,
        begun: &Begun,
        part: u32,
        md5: Option<[u8; 16]>,
        body: PutBody,
    ) -> Result<PutOutcome, StoreError> {
        let (bucket, key) = (job.target_bucket, job.key.key.as_ref());
        let body = self.pace.spread(body).await;
        self.target.upload_part(bucket, key, &begun.upload_id, part, md5, body).await
    }

    fn part_etag(&self, job: &CopyJob<'_>, put: PutOutcome) -> Result<ETag, StoreError> {
        put.etag.ok_or_else(|| {
            self.target_error(job, "UploadPart", "the answer carries no ETag".into())
        })
    }
}
