//! Uploads in parts.

use http::{HeaderMap, Method};

use super::encode::Query;
use super::object::{MAX_DOCUMENT, encryption, etag, is_gone, unreadable};
use super::request::Call;
use super::{ErrorKind, PutBody, PutOutcome, Store, StoreError, xml};
use crate::object::ETag;

impl Store {
    /// `CreateMultipartUpload`; gives the upload's id. `headers` are those of the object.
    pub async fn create_multipart(
        &self,
        bucket: &str,
        key: &str,
        headers: &HeaderMap,
    ) -> Result<String, StoreError> {
        let call = Call::new("CreateMultipartUpload", Method::POST, bucket, key)
            .query(Query::flag("uploads"))
            .headers(headers);
        let answer = self.inner().send(call).await?;
        let origin = answer.origin.clone();
        let document = answer.document(MAX_DOCUMENT).await?;
        xml::text_of(&document, "InitiateMultipartUploadResult/UploadId")
            .map_err(|error| unreadable(&origin, &error))?
            .filter(|id| !id.is_empty())
            .ok_or_else(|| origin.error(ErrorKind::Transient, "the answer names no upload"))
    }

    /// `UploadPart`; `part` counts from 1. As [`Store::put`].
    pub async fn upload_part(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        part: u32,
        content_md5: Option<[u8; 16]>,
        body: PutBody,
    ) -> Result<PutOutcome, StoreError> {
        let query =
            Query::default().with("partNumber", &part.to_string()).with("uploadId", upload_id);
        let call = Call::new("UploadPart", Method::PUT, bucket, key).query(query);
        self.inner().put_data(call.content_md5(content_md5), body).await
    }

    /// `CompleteMultipartUpload`; `parts` in ascending order. After an error with
    /// [`StoreError::maybe_applied`] the object may be there and the upload gone: look at the object.
    pub async fn complete_multipart(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        parts: &[(u32, ETag)],
    ) -> Result<PutOutcome, StoreError> {
        let call = Call::new("CompleteMultipartUpload", Method::POST, bucket, key)
            .query(Query::default().with("uploadId", upload_id))
            .document(xml::parts(parts));
        let answer = self.inner().send(call).await?;
        let (origin, status) = (answer.origin.clone(), answer.status.as_u16());
        let headers = answer.headers.clone();
        let uncertain = |error| StoreError { maybe_applied: true, ..error };
        let document = answer.document(MAX_DOCUMENT).await.map_err(uncertain)?;
        // The store answers 200 before it has put the parts together, and may fail after that.
        let failed = xml::error_body(&document);
        if failed.code.is_some() {
            let error = origin.answered(status, failed.code, failed.message.as_deref());
            return Err(uncertain(error));
        }
        let stored = xml::text_of(&document, "CompleteMultipartUploadResult/ETag")
            .map_err(|error| uncertain(unreadable(&origin, &error)))?;
        let stored = stored.as_deref().map(ETag::new).or_else(|| etag(&headers));
        Ok(PutOutcome { etag: stored, encryption: encryption(&headers) })
    }

    /// `AbortMultipartUpload`; that there is no such upload is success.
    pub async fn abort_multipart(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
    ) -> Result<(), StoreError> {
        let call = Call::new("AbortMultipartUpload", Method::DELETE, bucket, key)
            .query(Query::default().with("uploadId", upload_id));
        match self.inner().send(call).await {
            Ok(answer) => answer.finish().await.map(drop),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
