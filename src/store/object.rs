//! A store's calls on single objects, and on the bucket itself.

use http::header::{CONTENT_LENGTH, ETAG, IF_MATCH, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;

use super::body::RequestBody;
use super::client::Inner;
use super::encode::Query;
use super::failure::CallSite;
use super::request::Call;
use super::{
    ErrorKind, GetOptions, ListQuery, ObjectBody, ObjectHead, PutBody, PutOutcome, Store,
    StoreError, Tags, admin, xml,
};
use crate::object::ETag;

/// The largest document that a call on one object answers.
pub(super) const MAX_DOCUMENT: u64 = 1 << 20;

impl Store {
    /// `GetObject`: the object, one part of it, or a range of its bytes.
    pub async fn get(
        &self,
        bucket: &str,
        key: &str,
        options: GetOptions<'_>,
    ) -> Result<ObjectBody, StoreError> {
        let mut query = Query::default();
        if let Some(part) = options.part {
            query = query.with("partNumber", &part.to_string());
        }
        let version = self.version("GetObject", bucket, key).await?;
        let query = of_version(query, version.as_deref());
        let range = options.range.map(|(first, last)| (RANGE, format!("bytes={first}-{last}")));
        let condition = options.if_match.map(|etag| (IF_MATCH, format!("\"{etag}\"")));
        let mut headers = HeaderMap::new();
        for (name, text) in range.into_iter().chain(condition) {
            let value = HeaderValue::try_from(text).map_err(|error| {
                self.inner()
                    .origin("GetObject", bucket, key)
                    .error(ErrorKind::Invalid, error.to_string())
            })?;
            headers.insert(name, value);
        }
        let call = || {
            let call = Call::new("GetObject", Method::GET, bucket, key);
            call.query(query.clone()).headers(&headers)
        };
        let answer = self.inner().read(call).await?;
        let head = object_head(answer.status, answer.headers, &answer.origin)?;
        Ok(ObjectBody { head, body: answer.body })
    }

    /// `HeadObject`. [`ErrorKind::NotFound`] means that the bucket is there and the object is not:
    /// AWS and RustFS answer a 404 without a code for either, so such a one is followed by `HeadBucket`, and
    /// what that says comes first. A 404 that is not even the store's own ([`StoreError::by_s3`]), as an ingress or a
    /// firewall answers that has lost its way, counts only if a listing of that very key says the same.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<ObjectHead, StoreError> {
        let version = self.version("HeadObject", bucket, key).await?;
        let query = of_version(Query::default(), version.as_deref());
        let call = || Call::new("HeadObject", Method::HEAD, bucket, key).query(query.clone());
        let answer = match self.inner().read(call).await {
            Err(error) if error.kind == ErrorKind::NotFound && error.code.is_none() => {
                if error.by_s3 {
                    self.head_bucket(bucket).await?;
                } else if self.lists(bucket, key).await? {
                    let message = "404 from something that is no S3 store, though the object is listed; is a \
                                   proxy or a firewall in between?";
                    let kind = ErrorKind::Transient;
                    return Err(StoreError { kind, message: message.to_owned(), ..error });
                }
                return Err(error);
            }
            answer => answer?,
        };
        object_head(answer.status, answer.headers, &answer.origin)
    }

    /// Whether a listing names this very key.
    async fn lists(&self, bucket: &str, key: &str) -> Result<bool, StoreError> {
        // Two, since RustFS lists keys that were deleted when one is asked for (#5375).
        let query = ListQuery { prefix: key, max_keys: 2, ..ListQuery::default() };
        match Box::pin(self.list(bucket, &query)).await {
            Ok(page) => Ok(page.objects.iter().any(|object| object.key == key)),
            // One 404 that is nobody's own does not confirm another.
            Err(error) if error.kind == ErrorKind::NotFound => {
                let message = "404 from something that is no S3 store to every request; is a proxy or a firewall in between?";
                let kind = ErrorKind::Transient;
                Err(StoreError { kind, message: message.to_owned(), ..error })
            }
            Err(error) => Err(error),
        }
    }

    /// `PutObject`. `headers` are sent as they are, byte for byte: `content-type`, `x-amz-meta-…`,
    /// `x-amz-tagging` and so on. With `content_md5` the store refuses a body that differs
    /// ([`ErrorKind::Corrupt`]).
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        headers: &HeaderMap,
        content_md5: Option<[u8; 16]>,
        body: PutBody,
    ) -> Result<PutOutcome, StoreError> {
        let call = Call::new("PutObject", Method::PUT, bucket, key).headers(headers);
        self.inner().put_data(call.content_md5(content_md5), body).await
    }

    /// `GetObjectTagging`. Some stores answer an error to an object that has no tags.
    pub async fn get_tags(&self, bucket: &str, key: &str) -> Result<Tags, StoreError> {
        let version = self.version("GetObjectTagging", bucket, key).await?;
        let call = Call::new("GetObjectTagging", Method::GET, bucket, key)
            .query(of_version(Query::flag("tagging"), version.as_deref()));
        let answer = match self.inner().send(call).await {
            Err(error)
                if matches!(error.code.as_deref(), Some("NoSuchTagSet" | "NoSuchTagSetError")) =>
            {
                return Ok(Tags::new());
            }
            answer => answer?,
        };
        let origin = answer.origin.clone();
        let document = answer.document(MAX_DOCUMENT).await?;
        xml::tags(&document).map_err(|error| unreadable(&origin, &error))
    }

    /// `PutObjectTagging`: replaces all tags.
    pub async fn put_tags(&self, bucket: &str, key: &str, tags: &Tags) -> Result<(), StoreError> {
        let document = xml::tagging(tags);
        let call = Call::new("PutObjectTagging", Method::PUT, bucket, key)
            .query(Query::flag("tagging"))
            .content_md5(Some(md5(document.as_bytes())))
            .document(document);
        self.inner().send(call).await?.finish().await.map(drop)
    }

    /// `DeleteObjectTagging`: removes all tags.
    pub async fn delete_tags(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let call = Call::new("DeleteObjectTagging", Method::DELETE, bucket, key);
        self.inner().send(call.query(Query::flag("tagging"))).await?.finish().await.map(drop)
    }

    /// `DeleteObject`; that there is none is success. In a versioned bucket this adds a delete marker.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let call = Call::new("DeleteObject", Method::DELETE, bucket, key);
        match self.inner().send(call).await {
            Ok(answer) => answer.finish().await.map(drop),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `HeadBucket`; a missing one is [`ErrorKind::NoSuchBucket`].
    pub async fn head_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        match self.inner().send(Call::new("HeadBucket", Method::HEAD, bucket, "")).await {
            Ok(answer) => answer.finish().await.map(drop),
            Err(error) if error.kind == ErrorKind::NotFound => {
                Err(StoreError { kind: ErrorKind::NoSuchBucket, ..error })
            }
            Err(error) => Err(error),
        }
    }

    /// `CreateBucket`, in the configured region; that we own it already is success.
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let origin = self.inner().origin("CreateBucket", bucket, "");
        admin::create_bucket(&self.inner().admin, &self.inner().region, false, &origin).await
    }

    /// As [`Self::create_bucket`], for objects that can be locked.
    pub async fn create_locked_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let origin = self.inner().origin("CreateBucket", bucket, "");
        admin::create_bucket(&self.inner().admin, &self.inner().region, true, &origin).await
    }
}

impl Inner {
    /// Sends object data and reads what the store says of it.
    pub(super) async fn put_data(
        &self,
        call: Call<'_>,
        body: PutBody,
    ) -> Result<PutOutcome, StoreError> {
        let body = match body {
            // Nothing of it would be sent, so nobody would see whether it ends.
            PutBody::Stream { mut body, length: 0 } => match body.frame().await {
                None => RequestBody::empty(),
                Some(Err(error)) => return Err(error),
                Some(Ok(_)) => RequestBody::of(PutBody::Stream { body, length: 0 }),
            },
            body @ (PutBody::Bytes(_) | PutBody::Stream { .. }) => RequestBody::of(body),
        };
        let headers = self.send(call.data(body)).await?.finish().await?;
        Ok(PutOutcome { etag: etag(&headers), encryption: encryption(&headers) })
    }
}

/// Asks for one version, if there is one to ask for.
fn of_version(query: Query, version: Option<&str>) -> Query {
    match version {
        Some(version) => query.with("versionId", version),
        None => query,
    }
}

/// The store itself says that there is nothing to delete; a bare 404 may be a proxy's.
pub(super) fn is_gone(error: &StoreError) -> bool {
    error.kind == ErrorKind::NotFound && error.code.is_some()
}

/// The answer held a document that cannot be read.
pub(super) fn unreadable(origin: &CallSite, error: &xml::XmlError) -> StoreError {
    origin.error(ErrorKind::Transient, format!("the answer is not readable: {error}"))
}

/// The `ETag` in `headers`.
pub(super) fn etag(headers: &HeaderMap) -> Option<ETag> {
    headers.get(ETAG).and_then(|value| value.to_str().ok()).map(ETag::new)
}

/// The server-side encryption in `headers`.
pub(super) fn encryption(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-amz-server-side-encryption")?;
    value.to_str().ok().map(str::to_owned)
}

/// The MD5 of a small document.
pub(crate) fn md5(document: &[u8]) -> [u8; 16] {
    use md5::Digest as _;
    md5::Md5::digest(document).into()
}

fn object_head(
    status: StatusCode,
    headers: HeaderMap,
    origin: &CallSite,
) -> Result<ObjectHead, StoreError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(length) = length else {
        let message = format!("{} without a Content-Length", status.as_u16());
        return Err(origin.error(ErrorKind::Invalid, message));
    };
    Ok(ObjectHead { length, etag: etag(&headers), headers })
}
