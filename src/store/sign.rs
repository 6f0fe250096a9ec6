//! AWS Signature Version 4 for S3, in the `Authorization` header.
//!
//! Pure: the same request, time and key give the same signature. The signing key is derived once per
//! day and credentials; a signature then costs two short hashes. Rules:
//! [AWS: create a signed request](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{CONTENT_TYPE, HOST};
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
                push_trimmed(&mut canonical, value.as_bytes());
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
        || name.as_str() == "content-md5"
        || name.as_str().starts_with("x-amz-")
}

/// Values are signed as the bytes that are sent, less outer spaces, with inner runs of spaces as one.
fn push_trimmed(to: &mut Vec<u8>, value: &[u8]) {
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
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{
        PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest,
        SigningSettings, UriPathNormalizationMode, sign,
    };
    use aws_sigv4::sign::v4;
    use proptest::prelude::*;

    use super::*;
    use crate::store::encode::{Query, push_path};

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn signer(region: &str, token: Option<&str>, date: AmzDate) -> Signer {
        let token = token.map(|token| HeaderValue::from_str(token).unwrap());
        Signer::new("AKIAIOSFODNN7EXAMPLE", &SecretString::from(SECRET), token, region, date)
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    /// The examples of AWS's "Authenticating Requests: Using the Authorization Header" for S3.
    #[test]
    fn the_examples_that_aws_publishes_for_s3_come_out() {
        const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let date = AmzDate::at(1_369_353_600_000);
        assert_eq!(date.as_str(), "20130524T000000Z");
        let signer = signer("us-east-1", None, date);
        for (query, signature) in [
            ("lifecycle=", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            (
                "max-keys=2&prefix=J",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let headers = headers(&[
                ("host", "examplebucket.s3.amazonaws.com"),
                ("x-amz-content-sha256", EMPTY),
                ("x-amz-date", date.as_str()),
            ]);
            let request = Signable { method: "GET", path: "/", query, payload: EMPTY };
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
                 SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}"
            );
            let answer = signer.authorization(date, request, &headers);
            assert_eq!(String::from_utf8(answer).unwrap(), expected);
        }
    }

    #[test]
    fn moments_are_written_as_signatures_want_them() {
        for (ms, text) in [
            (0, "19700101T000000Z"),
            (1_440_938_160_999, "20150830T123600Z"),
            (951_782_399_000, "20000228T235959Z"),
            (i64::MAX, "19700101T000000Z"),
        ] {
            assert_eq!(AmzDate::at(ms).as_str(), text);
        }
        assert_eq!(AmzDate::at(1_440_938_160_999).day(), "20150830");
    }

    #[test]
    fn a_header_that_is_not_utf_8_is_signed_as_its_bytes() {
        let mut trimmed = Vec::new();
        push_trimmed(&mut trimmed, b"  caf\xe9   au\tlait  ");
        assert_eq!(trimmed, b"caf\xe9 au\tlait");
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", signer("r", Some("token-1"), AmzDate::at(0)));
        assert!(!shown.contains(SECRET) && !shown.contains("token-1"), "{shown}");
    }

    /// Signs with AWS's own signer.
    fn oracle(
        date: AmzDate,
        ms: u64,
        region: &str,
        token: Option<&str>,
        request: Signable<'_>,
        headers: &HeaderMap,
    ) -> String {
        let keys =
            Credentials::new("AKIAIOSFODNN7EXAMPLE", SECRET, token.map(Into::into), None, "t");
        let identity = keys.into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.session_token_mode = SessionTokenMode::Include;
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name("s3")
            .time(UNIX_EPOCH + Duration::from_millis(ms))
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let host = headers[HOST].to_str().unwrap();
        let uri = format!("http://{host}{}?{}", request.path, request.query);
        let body = match request.payload {
            UNSIGNED_PAYLOAD => SignableBody::UnsignedPayload,
            hash => SignableBody::Precomputed(hash.to_owned()),
        };
        // These it adds itself.
        let own = |name: &str| {
            ["x-amz-date", "x-amz-content-sha256", "x-amz-security-token"].contains(&name)
        };
        let pairs = headers
            .iter()
            .filter(|(name, _)| !own(name.as_str()))
            .map(|(name, value)| (name.as_str(), std::str::from_utf8(value.as_bytes()).unwrap()));
        let signable = SignableRequest::new(request.method, uri, pairs, body).unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        let added: Vec<_> = instructions.headers().collect();
        assert!(added.contains(&("x-amz-date", date.as_str())));
        added.iter().find(|(name, _)| *name == "authorization").unwrap().1.to_owned()
    }

    fn value() -> impl Strategy<Value = String> {
        "[ -~]{0,24}|[ąęż ]{0,8}".prop_map(|text| text)
    }

    proptest! {
        #[test]
        fn a_signature_is_the_one_that_the_aws_signer_makes(
            ms in 0_u64..4_000_000_000_000,
            region in "[a-z]{2}-[a-z]{4,9}-[1-9]",
            token in prop::option::of("[A-Za-z0-9/+=]{1,80}"),
            key in "\\PC{1,40}|[a-z./ +%?#&=~]{1,40}",
            prefix in "\\PC{0,20}",
            metadata in prop::collection::btree_map("[a-z0-9-]{1,12}", value(), 0..6),
            content_type in prop::option::of("[a-z]{1,8}/[a-z]{1,8}; charset=utf-8"),
            method in prop::sample::select(vec!["GET", "PUT", "POST", "DELETE", "HEAD"]),
            document in prop::option::of("[a-z<>]{0,20}"),
        ) {
            let date = AmzDate::at(ms.try_into().unwrap());
            let payload = document.map_or(UNSIGNED_PAYLOAD.to_owned(), |d| payload_hash(d.as_bytes()));
            let mut map = headers(&[
                ("host", "127.0.0.1:9000"),
                ("x-amz-date", date.as_str()),
                ("x-amz-content-sha256", &payload),
            ]);
            if let Some(token) = &token {
                map.insert("x-amz-security-token", token.parse().unwrap());
            }
            if let Some(content_type) = &content_type {
                map.insert("content-type", content_type.parse().unwrap());
            }
            for (name, value) in &metadata {
                let name: HeaderName = format!("x-amz-meta-{name}").parse().unwrap();
                map.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let mut path = "/bucket/".to_owned();
            push_path(&mut path, &key);
            let query = Query::default().with("prefix", &prefix).with("uploads", "");
            let request = Signable { method, path: &path, query: query.as_str(), payload: &payload };
            let ours = signer(&region, token.as_deref(), date).authorization(date, request, &map);
            let theirs = oracle(date, ms, &region, token.as_deref(), request, &map);
            prop_assert_eq!(String::from_utf8(ours).unwrap(), theirs);
        }
    }
}
