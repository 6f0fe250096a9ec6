//! AWS Signature Version 4 for S3, in the `Authorization` header.
//!
//! Pure: the same request, time and key give the same signature. The signing key is derived once per
//! day and credentials; a signature then costs two short hashes. Rules:
//! [AWS: create a signed request](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{CONTENT_TYPE, DATE, HOST, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

type HmacSha256 = Hmac<Sha256>;

/// `x-amz-content-sha256` of a body that is not part of the signature.
pub(super) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// A moment as signatures write it: `20261123T142659Z`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AmzDate([u8; 16]);

impl AmzDate {
    /// The moment `ms` milliseconds after the Unix epoch; the epoch itself if that is out of range.
    pub(super) fn at(ms: i64) -> Self {
        let moment = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let moment = jiff::tz::Offset::UTC.to_datetime(moment);
        let two = |n: i8| [b'0'.wrapping_add_signed(n / 10), b'0'.wrapping_add_signed(n % 10)];
        let [century, year] = [moment.year() / 100, moment.year() % 100]
            .map(|n| two(i8::try_from(n).unwrap_or_default()));
        let [month, day] = [moment.month(), moment.day()].map(two);
        let [hour, minute, second] = [moment.hour(), moment.minute(), moment.second()].map(two);
        Self([
            century[0], century[1], year[0], year[1], month[0], month[1], day[0], day[1], b'T',
            hour[0], hour[1], minute[0], minute[1], second[0], second[1], b'Z',
        ])
    }

    /// All of it.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// `20261123`.
    pub(super) fn day(&self) -> &str {
        self.as_str().split_once('T').map_or("", |(day, _)| day)
    }
}

/// What a signature is over, beside the headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signable<'a> {
    pub(super) method: &'a str,
    /// The path, encoded as it is sent.
    pub(super) path: &'a str,
    /// The canonical query, as it is sent.
    pub(super) query: &'a str,
    /// The hex SHA-256 of the body, or [`UNSIGNED_PAYLOAD`].
    pub(super) payload: &'a str,
}

/// Which characters of a header's value are signed as one space, however many stand together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spaces {
    /// The space alone, as AWS has it.
    Ascii,
    /// All that Unicode calls white space, as MinIO and RustFS have it: to them a tab or U+00A0 in a
    /// metadata value, signed as itself, is a `SignatureDoesNotMatch`.
    Unicode,
}

/// Credentials made ready to sign for one day, region and the service S3.
pub(super) struct Signer {
    day: String,
    key: HmacSha256,
    /// `20261123/us-east-1/s3/aws4_request`.
    scope: String,
    /// The answer's fixed start, up to the names of the signed headers.
    preamble: String,
    /// `x-amz-security-token` of temporary credentials.
    token: Option<HeaderValue>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Signer {
    /// Derives the key for the day of `date`.
    pub(super) fn new(
        access_key: &str,
        secret_key: &SecretString,
        token: Option<HeaderValue>,
        region: &str,
        date: AmzDate,
    ) -> Self {
        let day = date.day().to_owned();
        let start = format!("AWS4{}", secret_key.expose_secret());
        let key = [day.as_str(), region, "s3", "aws4_request"]
            .into_iter()
            .fold(keyed(start.as_bytes()), |key, part| {
                keyed(&key.chain_update(part).finalize().into_bytes())
            });
        let scope = format!("{day}/{region}/s3/aws4_request");
        let preamble = format!("AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders=");
        Self { day, key, scope, preamble, token }
    }

    /// The day this signer is for.
    pub(super) fn day(&self) -> &str {
        &self.day
    }

    /// The session token, to be set as `x-amz-security-token` before signing.
    pub(super) fn token(&self) -> Option<&HeaderValue> {
        self.token.as_ref()
    }

    /// The value of `Authorization`. `headers` are those that will be sent; of them `host`,
    /// `content-md5`, `content-type` and every `x-amz-*` are signed.
    pub(super) fn authorization(
        &self,
        date: AmzDate,
        request: Signable<'_>,
        headers: &HeaderMap,
        spaces: Spaces,
    ) -> Vec<u8> {
        let mut names: Vec<&HeaderName> = headers.keys().filter(|name| is_signed(name)).collect();
        names.sort_unstable_by_key(|name| name.as_str());
        let mut canonical = Vec::with_capacity(1024);
        for line in [request.method, request.path, request.query] {
            canonical.extend_from_slice(line.as_bytes());
            canonical.push(b'\n');
        }
        for name in &names {
            canonical.extend_from_slice(name.as_str().as_bytes());
            for (index, value) in headers.get_all(*name).iter().enumerate() {
                canonical.push(if index == 0 { b':' } else { b',' });
                push_trimmed(&mut canonical, value.as_bytes(), spaces);
            }
            canonical.push(b'\n');
        }
        canonical.push(b'\n');
        let signed = canonical.len();
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                canonical.push(b';');
            }
            canonical.extend_from_slice(name.as_str().as_bytes());
        }
        let mut answer = self.preamble.clone().into_bytes();
        answer.extend_from_slice(canonical.get(signed..).unwrap_or_default());
        canonical.push(b'\n');
        canonical.extend_from_slice(request.payload.as_bytes());

        let mut hash = [0; 64];
        hex_into(Sha256::digest(&canonical).as_ref(), &mut hash);
        let mut mac = self.key.clone();
        for part in ["AWS4-HMAC-SHA256\n", date.as_str(), "\n", self.scope.as_str(), "\n"] {
            mac.update(part.as_bytes());
        }
        mac.update(&hash);
        hex_into(mac.finalize().into_bytes().as_ref(), &mut hash);
        answer.extend_from_slice(b", Signature=");
        answer.extend_from_slice(&hash);
        answer
    }
}

/// The hex SHA-256 of a small body.
pub(super) fn payload_hash(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

fn is_signed(name: &HeaderName) -> bool {
    *name == HOST
        || *name == CONTENT_TYPE
        || *name == DATE
        || *name == RANGE
        || name.as_str() == "content-md5"
        || name.as_str().starts_with("x-amz-")
}

/// Values are signed as the bytes that are sent, less outer spaces, with inner runs of spaces as one.
fn push_trimmed(to: &mut Vec<u8>, value: &[u8], spaces: Spaces) {
    let folded;
    let value = match (spaces, std::str::from_utf8(value)) {
        (Spaces::Unicode, Ok(text)) if text.contains(|c: char| c != ' ' && c.is_whitespace()) => {
            folded = text.replace(char::is_whitespace, " ");
            folded.as_bytes()
        }
        _ => value,
    };
    let mut space = false;
    let start = to.len();
    for &byte in value {
        if byte == b' ' {
            space = true;
            continue;
        }
        if space && to.len() > start {
            to.push(b' ');
        }
        space = false;
        to.push(byte);
    }
}

fn keyed(key: &[u8]) -> HmacSha256 {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104, section 2)")]
    HmacSha256::new_from_slice(key).expect("a key of any length")
}

fn hex_into(digest: &[u8], to: &mut [u8; 64]) {
    let encoded = hex::encode_to_slice(digest, to);
    debug_assert!(encoded.is_ok(), "SHA-256 is 32 bytes");
}

#[cfg(test)]
mod tests;
