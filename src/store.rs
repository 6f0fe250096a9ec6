//! One S3-compatible store, as the object calls that replication needs.
//!
//! The hot path speaks HTTP/1.1 through hyper with our own SigV4 (`http`, `request`, `sign`), because
//! the AWS SDK costs a multiple of the CPU per small request; creating a bucket and finding
//! credentials go through the SDK in `admin`. There are no retries here: an error says by its
//! [`ErrorKind`] what must be done, and `replicate` does it.
//!
//! Promises: a store never sees a complete request whose body was not complete; every wait ends; a
//! call that is dropped closes its connection. Nothing here outlives a crash.

mod admin;
mod body;
mod classify;
mod client;
mod credentials;
mod delete;
mod encode;
mod failure;
mod http;
mod list;
mod listen;
mod multipart;
mod notification;
mod object;
mod permission;
mod probe;
mod request;
mod settings;
mod sign;
mod stream;
#[cfg(test)]
mod tests;
mod versions;
mod view;
mod xml;

use std::collections::BTreeMap;
use std::sync::Arc;

use ::http::HeaderMap;
use bytes::Bytes;
use http_body_util::BodyExt as _;

pub(crate) use self::admin::{default_chain, http_client};
pub use self::client::{ConnectError, Store};
pub use self::failure::CallSite;
pub(crate) use self::failure::describe;
pub(crate) use self::http::tls_config;
pub use self::list::ListQuery;
pub use self::listen::Listening;
pub use self::notification::{Destination, NotificationConfig, NotificationRule};
pub(crate) use self::object::md5;
pub use self::probe::{ObjectLock, StoreKind};
pub(crate) use self::settings::means;
pub use self::settings::{BucketSetting, SettingAnswer};
pub use self::stream::{ByteStream, ObjectStream};
pub use self::versions::Versioning;
use crate::object::ETag;

/// What an error asks of the caller; the operator's decision table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorKind {
    /// Connection, timeout, 5xx: the store or the way to it has a fault. Try again.
    Transient,
    /// 429, 503 `SlowDown`: the store asks for less. Try again, slower.
    Throttled,
    /// The object, or the upload, does not exist (404 `NoSuchKey` and the like).
    NotFound,
    /// The bucket does not exist (404 `NoSuchBucket`): never taken as "the object is gone".
    NoSuchBucket,
    /// A condition did not hold (412): the object changed meanwhile. Start over.
    Changed,
    /// 401 or 403: credentials or policy must be mended by a person.
    Denied,
    /// The store will never take this request as it is (400, 405, 501).
    Invalid,
    /// The content is not what it should be (`BadDigest`, an `ETag` that differs, a short body).
    Corrupt,
}

impl ErrorKind {
    /// The name used in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::NotFound => "not_found",
            Self::NoSuchBucket => "no_such_bucket",
            Self::Changed => "changed",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Corrupt => "corrupt",
        }
    }
}

/// Which of its two stores a client is, as the data flows: on the way back, and where settings are put
/// back, the live copy is the source.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// Objects are read from it.
    Source,
    /// Objects are written to it.
    Target,
}

/// A failed call: what, on which object, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {} on {endpoint}: {message}", self.place())]
pub struct StoreError {
    /// What must be done about it.
    pub kind: ErrorKind,
    /// The S3 operation, by its API name (`GetObject`).
    pub operation: &'static str,
    /// Which store failed; two stores may share an endpoint.
    pub side: Side,
    /// Scheme, host and port of the store.
    pub endpoint: Arc<str>,
    /// The bucket, by this store's name.
    pub bucket: Box<str>,
    /// The key; empty for calls on a bucket.
    pub key: Box<str>,
    /// The HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// The S3 error code, when the answer carried one (`NoSuchKey`).
    pub code: Option<String>,
    /// For people: the code and the store's message, or the connection's error.
    pub message: String,
    /// The answer bears what only an S3 store's does, a code or a request id: a proxy or a firewall in front of
    /// it answers a bare status.
    pub by_s3: bool,
    /// The request had been sent whole when it failed, so the store may still carry it out.
    pub maybe_applied: bool,
}

impl StoreError {
    /// `bucket/key`, or the bucket alone, with control characters escaped.
    fn place(&self) -> String {
        let slash = if self.key.is_empty() { "" } else { "/" };
        format!("{}{slash}{}", self.bucket.escape_debug(), self.key.escape_debug())
    }
}

/// What a store says of an object beside its bytes (the headers of GET and HEAD).
#[derive(Debug, Clone)]
pub struct ObjectHead {
    /// Content length in bytes: of the answer's body (of the part, when one was asked for).
    pub length: u64,
    /// The object's entity tag.
    pub etag: Option<ETag>,
    /// Every response header, as received.
    pub headers: HeaderMap,
}

/// A GET that answered 200 or 206. Dropping it early closes the connection.
#[derive(Debug)]
pub struct ObjectBody {
    /// The headers.
    pub head: ObjectHead,
    /// The bytes, streamed. Fails when they stall, or end before [`ObjectHead::length`].
    pub body: ObjectStream,
}

impl ObjectBody {
    /// Reads the whole body into memory; the caller has looked at [`ObjectHead::length`] first.
    pub async fn bytes(self) -> Result<Bytes, StoreError> {
        self.body.bytes().await
    }

    /// The body as the body of a PUT to another store.
    pub fn into_put(self) -> PutBody {
        let length = self.head.length;
        PutBody::Stream { body: self.body.boxed_unsync(), length }
    }
}

/// Which part of an object to read, and on which condition.
#[derive(Debug, Clone, Copy, Default)]
pub struct GetOptions<'a> {
    /// Read only this part (1-based) of a multipart object.
    pub part: Option<u32>,
    /// Read only the bytes from the first to the second offset, both included.
    pub range: Option<(u64, u64)>,
    /// Fail with [`ErrorKind::Changed`] unless the object still has this tag.
    pub if_match: Option<&'a ETag>,
}

/// The bytes of a PUT.
#[derive(Debug)]
pub enum PutBody {
    /// Held in memory.
    Bytes(Bytes),
    /// Streamed, usually from another store's answer ([`ObjectBody::into_put`]). The request fails,
    /// and the store sees no complete object, unless the stream ends after `length` bytes exactly.
    /// An error of the stream is returned from the PUT as it is: it names the store that was read.
    Stream {
        /// The bytes.
        body: ByteStream,
        /// Its length in bytes, sent as `Content-Length`.
        length: u64,
    },
}

/// What a store answered to a PUT, an uploaded part or a completed upload.
#[derive(Debug, Clone)]
pub struct PutOutcome {
    /// The tag of what was stored.
    pub etag: Option<ETag>,
    /// `x-amz-server-side-encryption` of the answer (`AES256`, `aws:kms`).
    pub encryption: Option<String>,
}

/// The tags of an object, by key.
pub type Tags = BTreeMap<String, String>;

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The key, decoded.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag.
    pub etag: ETag,
    /// Last modified, milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// One page of a listing.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// The objects, in key order.
    pub objects: Vec<ListedObject>,
    /// With a delimiter: the prefixes that stand for the keys below them, in order.
    pub prefixes: Vec<String>,
    /// Pass to the next call; `None` at the end.
    pub next: Option<String>,
}
