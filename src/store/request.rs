//! One S3 request: addressed, signed, sent, and its failure understood.
//!
//! There are no retries. What a failure teaches is kept for the next request: the store's clock
//! when ours is off, and that credentials have expired.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, HOST, SERVER, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::body::{BodyError, RequestBody};
use super::client::Inner;
use super::credentials::Ready;
use super::encode::{Query, push_path};
use super::failure::CallSite;
use super::http::Failure;
use super::sign::{AmzDate, Signable, Spaces, UNSIGNED_PAYLOAD, payload_hash};
use super::stream::ObjectStream;
use super::{ErrorKind, StoreError, xml};
use crate::clock;
use crate::traces;

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const AMZ_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const AMZ_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("evermirror/", env!("CARGO_PKG_VERSION")));

/// The largest error document that is read.
const MAX_ERROR: u64 = 64 << 10;
/// Clocks that differ by more than this make a store refuse a signature (15 minutes at AWS).
const SKEW_MS: u64 = 5 * 60 * 1000;

/// A request to be made.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// The API's name of the operation.
    operation: &'static str,
    method: Method,
    /// Empty for the store itself.
    bucket: &'a str,
    /// Empty for the bucket itself; a path of the store's own where there is no bucket.
    key: &'a str,
    query: Query,
    headers: HeaderMap,
    body: RequestBody,
    /// The body's hash, if it is part of the signature.
    payload: Option<String>,
    /// How long the store may be silent, if not as long as in any other call.
    silence: Option<Duration>,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        operation: &'static str,
        method: Method,
        bucket: &'a str,
        key: &'a str,
    ) -> Self {
        Self {
            operation,
            method,
            bucket,
            key,
            query: Query::default(),
            headers: HeaderMap::with_capacity(16),
            body: RequestBody::empty(),
            payload: None,
            silence: None,
        }
    }

    pub(super) fn query(self, query: Query) -> Self {
        Self { query, ..self }
    }

    /// Lets the store be silent for so long, before the answer and in it.
    pub(super) fn silence(self, silence: Duration) -> Self {
        Self { silence: Some(silence), ..self }
    }

    /// Adds a header.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Adds all of `headers`, as bytes.
    pub(super) fn headers(mut self, headers: &HeaderMap) -> Self {
        self.headers.reserve(headers.len());
        for (name, value) in headers {
            self.headers.append(name, value.clone());
        }
        self
    }

    /// Asks the store to check the body it receives.
    pub(super) fn content_md5(self, digest: Option<[u8; 16]>) -> Self {
        let Some(digest) = digest else { return self };
        let mut text = [0; 24];
        let length = BASE64_STANDARD.encode_slice(digest, &mut text).unwrap_or(0);
        let value = HeaderValue::from_bytes(text.get(..length).unwrap_or_default());
        debug_assert!(value.is_ok(), "Base64 is a header value");
        match value {
            Ok(value) => self.header(CONTENT_MD5, value),
            Err(_) => self,
        }
    }

    /// The data of an object: not hashed here, since Content-MD5 or the `ETag` proves it.
    pub(super) fn data(self, body: RequestBody) -> Self {
        Self { body, ..self }
    }

    /// A small document, which is signed.
    pub(super) fn document(self, text: String) -> Self {
        let payload = Some(payload_hash(text.as_bytes()));
        Self { body: RequestBody::bytes(Bytes::from(text)), payload, ..self }
    }

    /// Whether carrying it out changes anything.
    fn writes(&self) -> bool {
        self.method != Method::GET && self.method != Method::HEAD
    }
}

/// A successful answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: ObjectStream,
    pub(super) origin: CallSite,
}

impl Answer {
    /// The whole document, at most `limit` bytes.
    pub(super) async fn document(self, limit: u64) -> Result<Bytes, StoreError> {
        self.body.bytes_up_to(limit).await
    }

    /// The end of an answer whose body says nothing, so that the connection can be used again.
    pub(super) async fn finish(self) -> Result<HeaderMap, StoreError> {
        self.body.bytes_up_to(MAX_ERROR).await?;
        Ok(self.headers)
    }
}

impl Inner {
    /// Takes the store's time from an answer that just arrived. It tells whole seconds only.
    pub(super) fn note_clock(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        if let Some(at_ms) = date.and_then(store_clock_ms) {
            let middle = at_ms.saturating_add(500);
            self.clock_ahead_ms.store(middle.saturating_sub(clock::now_ms()), Ordering::Relaxed);
        }
    }

    /// Makes the call. Every answer but 2xx is an error.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Answer, StoreError> {
        let traced = traces::request(call.operation);
        let answer = self.ask(call).await;
        if let Some(traced) = traced {
            traced.end(&self.endpoint, answer.as_ref().map(|answer| answer.status.as_u16()));
        }
        answer
    }

    /// Reads an object, whose metadata may be more headers than there is room for at first: then it is asked for
    /// once more.
    pub(super) async fn read<'a>(&self, call: impl Fn() -> Call<'a>) -> Result<Answer, StoreError> {
        let had_room = self.transport.has_room();
        match self.send(call()).await {
            Err(_) if !had_room && self.transport.has_room() => self.send(call()).await,
            answer => answer,
        }
    }

    async fn ask(&self, call: Call<'_>) -> Result<Answer, StoreError> {
        let origin = self.origin(call.operation, call.bucket, call.key);
        let writes = call.writes();
        let silence = call.silence.unwrap_or_else(|| self.transport.timeout());
        let now_ms = clock::now_ms();
        let signed_ms = now_ms.saturating_add(self.skew_ms.load(Ordering::Relaxed));
        let date = AmzDate::at(signed_ms);
        let ready = self.credentials.ready(date, now_ms).await;
        let ready = ready.map_err(|why| origin.error(ErrorKind::Transient, why))?;
        if writes && self.fence.get().is_some_and(|fence| !fence.holds()) {
            let why = "not sent: the lease is over, and another process may be the active one";
            return Err(origin.error(ErrorKind::Transient, why));
        }
        let request = self
            .signed(call, date, &ready)
            .map_err(|error| origin.error(ErrorKind::Invalid, error.to_string()))?;
        let (head, body) = match self.transport.exchange(request, silence).await {
            Ok(answer) => Response::into_parts(answer),
            Err(Failure::Body(BodyError::Stream(error))) => return Err(*error),
            Err(Failure::Body(error @ BodyError::Length(_))) => {
                return Err(origin.error(ErrorKind::Corrupt, error.to_string()));
            }
            Err(Failure::Connection { message, sent }) => {
                let error = origin.error(ErrorKind::Transient, message);
                return Err(StoreError { maybe_applied: sent && writes, ..error });
            }
        };
        self.note_server(&head.headers);
        let body = ObjectStream::new(body, silence, origin.clone());
        let answer = Answer { status: head.status, headers: head.headers, body, origin };
        if head.status.is_success() {
            return Ok(answer);
        }
        let error = self.understand(answer, signed_ms, &ready).await;
        Err(StoreError { maybe_applied: writes && is_uncertain(error.status), ..error })
    }

    /// Names a request to this store.
    pub(super) fn origin(&self, operation: &'static str, bucket: &str, key: &str) -> CallSite {
        CallSite {
            operation,
            side: self.side,
            endpoint: Arc::clone(&self.endpoint),
            bucket: bucket.into(),
            key: key.into(),
        }
    }

    /// The request as it goes over the wire.
    fn signed(
        &self,
        call: Call<'_>,
        date: AmzDate,
        ready: &Ready,
    ) -> Result<Request<RequestBody>, http::Error> {
        let Call { method, bucket, key, query, mut headers, body, payload, .. } = call;
        let (authority, host) = self.host(bucket)?;
        let mut target = String::with_capacity(64 + bucket.len() + key.len() * 3 / 2);
        target.push('/');
        if self.path_style && !bucket.is_empty() {
            push_path(&mut target, bucket);
            target.push('/');
        }
        push_path(&mut target, key);
        let path = target.len();
        if !query.as_str().is_empty() {
            target.push('?');
            target.push_str(query.as_str());
        }

        let payload = payload.as_deref().unwrap_or(UNSIGNED_PAYLOAD);
        headers.insert(HOST, host);
        headers.insert(USER_AGENT, AGENT);
        headers.insert(AMZ_DATE, HeaderValue::from_str(date.as_str())?);
        headers.insert(AMZ_CONTENT_SHA256, HeaderValue::from_str(payload)?);
        if let Some(token) = ready.signer.token() {
            headers.insert(AMZ_TOKEN, token.clone());
        }
        if method == Method::PUT || method == Method::POST {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.length()));
        }
        let path = target.get(..path).unwrap_or_default();
        let signable = Signable { method: method.as_str(), path, query: query.as_str(), payload };
        let aws = self.is_aws.load(Ordering::Relaxed);
        let spaces = if aws { Spaces::Ascii } else { Spaces::Unicode };
        let authorization = ready.signer.authorization(date, signable, &headers, spaces);
        let mut authorization = HeaderValue::from_maybe_shared(Bytes::from(authorization))?;
        authorization.set_sensitive(true);
        headers.insert(http::header::AUTHORIZATION, authorization);

        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(authority);
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(Bytes::from(target))?);
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Which host answers for `bucket` (if empty, for the store itself), and its `Host` header.
    fn host(&self, bucket: &str) -> Result<(Authority, HeaderValue), http::Error> {
        if self.path_style || bucket.is_empty() {
            return Ok((self.authority.clone(), self.host.clone()));
        }
        let host = format!("{bucket}.{}", self.authority);
        let value = HeaderValue::from_str(&host)?;
        Ok((Authority::from_maybe_shared(Bytes::from(host))?, value))
    }

    fn note_server(&self, headers: &HeaderMap) {
        let Some(server) = headers.get(SERVER) else { return };
        let known = |last: &Option<HeaderValue>| last.as_ref() == Some(server);
        if !known(&self.server.read().unwrap_or_else(std::sync::PoisonError::into_inner)) {
            let aws = server.as_bytes().starts_with(b"AmazonS3");
            self.is_aws.store(aws, Ordering::Relaxed);
            *self.server.write().unwrap_or_else(std::sync::PoisonError::into_inner) =
                Some(server.clone());
        }
    }

    /// Turns a refusal into an error and keeps what it teaches.
    async fn understand(&self, answer: Answer, signed_ms: i64, ready: &Arc<Ready>) -> StoreError {
        let Answer { status, headers, body, origin } = answer;
        // A body that cannot be read leaves the status, which says enough.
        let document = body.bytes_up_to(MAX_ERROR).await.unwrap_or_default();
        let xml::ErrorBody { code, message, region } = xml::error_body(&document);
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let code = code.or_else(|| text("x-minio-error-code").map(str::to_owned));
        let region = region.as_deref().or_else(|| text("x-amz-bucket-region"));

        if matches!(code.as_deref(), Some("ExpiredToken" | "TokenRefreshRequired")) {
            self.credentials.refused(ready);
        }
        let by_s3 = code.is_some() || text("x-amz-request-id").is_some();
        let mut error = origin.answered(status.as_u16(), code, message.as_deref());
        error.by_s3 = by_s3;
        if let Some(region) = region
            && (status.is_redirection() || error.code.as_deref() == Some(MALFORMED))
        {
            let region = region.escape_debug();
            error.message = format!(
                "{}: the bucket is in region {region}; set `region` and the endpoint to that",
                error.message
            );
        }
        if error.kind == ErrorKind::Denied && error.code.is_none()
            || error.code.as_deref() == Some("RequestTimeTooSkewed")
        {
            let date = text(DATE.as_str());
            if let Some(skew) = date.and_then(store_clock_ms).map(|at| at - signed_ms)
                && skew.unsigned_abs() > SKEW_MS
            {
                self.skew_ms.fetch_add(skew, Ordering::Relaxed);
                error.kind = ErrorKind::Transient;
                error.message = format!(
                    "{}: the clocks differ by {} s; the next request uses the store's",
                    error.message,
                    skew.unsigned_abs() / 1000
                );
            }
        }
        error
    }
}

const MALFORMED: &str = "AuthorizationHeaderMalformed";

/// Whether a store that answers this may have carried out the request all the same.
fn is_uncertain(status: Option<u16>) -> bool {
    status.is_some_and(|status| status >= 500 && status != 501)
}

fn store_clock_ms(date: &str) -> Option<i64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    parser.parse_timestamp(date).ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Side, Store};

    async fn sent(settings: &str) -> Request<RequestBody> {
        let settings = format!("access_key = 'a'\nsecret_key = 'b'\n{settings}");
        let settings = toml::from_str(&settings).unwrap();
        let store = Store::connect(Side::Source, &settings, Duration::from_secs(1)).await.unwrap();
        let inner = store.inner();
        let date = AmzDate::at(0);
        let ready = inner.credentials.ready(date, 0).await.unwrap();
        let call = Call::new("PutObject", Method::PUT, "bucket", "/k y");
        inner.signed(call.query(Query::flag("tagging")), date, &ready).unwrap()
    }

    #[tokio::test]
    async fn a_bucket_is_a_part_of_the_path_or_of_the_host() {
        let path = sent("endpoint = 'https://s3.example.com:443'").await;
        assert_eq!(path.uri(), "https://s3.example.com/bucket//k%20y?tagging=");
        assert_eq!(path.headers()[HOST], "s3.example.com");
        let host = sent("endpoint = 'http://s3.example.com:9000'\npath_style = false").await;
        assert_eq!(host.uri(), "http://bucket.s3.example.com:9000//k%20y?tagging=");
        assert_eq!(host.headers()[HOST], "bucket.s3.example.com:9000");
    }

    #[tokio::test]
    async fn every_request_carries_what_strict_stores_ask_for() {
        let request = sent("endpoint = 'http://h'\nsession_token = 'token'").await;
        let headers = request.headers();
        assert_eq!(headers["x-amz-content-sha256"], UNSIGNED_PAYLOAD);
        assert_eq!(headers["x-amz-security-token"], "token");
        assert_eq!(headers[CONTENT_LENGTH], "0");
        assert!(!headers.contains_key("expect") && !headers.contains_key("transfer-encoding"));
        let shown = format!("{headers:?}");
        assert!(!shown.contains("Credential=") && !shown.contains("\"token\""), "{shown}");
    }
}
