//! AWS's published examples, and AWS's own signer as the judge of everything else.

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

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// One example of AWS's.
struct Example {
    request: Signable<'static>,
    /// Beside `host`, `x-amz-content-sha256` and `x-amz-date`.
    headers: &'static [(&'static str, &'static str)],
    signed: &'static str,
    signature: &'static str,
}

const fn get(path: &'static str, query: &'static str) -> Signable<'static> {
    Signable { method: "GET", path, query, payload: EMPTY }
}

/// All four of AWS's "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)"
/// for S3: GET Object, PUT Object, GET Bucket Lifecycle, GET Bucket (List Objects).
const EXAMPLES: [Example; 4] = [
    Example {
        request: get("/test.txt", ""),
        headers: &[("range", "bytes=0-9")],
        signed: "host;range;x-amz-content-sha256;x-amz-date",
        signature: "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    },
    Example {
        request: Signable {
            method: "PUT",
            path: "/test%24file.text",
            query: "",
            payload: "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        },
        headers: &[
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ],
        signed: "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        signature: "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    },
    Example {
        request: get("/", "lifecycle="),
        headers: &[],
        signed: "host;x-amz-content-sha256;x-amz-date",
        signature: "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    },
    Example {
        request: get("/", "max-keys=2&prefix=J"),
        headers: &[],
        signed: "host;x-amz-content-sha256;x-amz-date",
        signature: "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    },
];

#[test]
fn the_examples_that_aws_publishes_for_s3_come_out() {
    let date = AmzDate::at(1_369_353_600_000);
    assert_eq!(date.as_str(), "20130524T000000Z");
    let signer = signer("us-east-1", None, date);
    for Example { request, headers: more, signed, signature } in EXAMPLES {
        let every = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", request.payload),
            ("x-amz-date", date.as_str()),
        ];
        let expected = format!(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders={signed}, Signature={signature}"
        );
        let headers = headers(&[&every[..], more].concat());
        let answer = signer.authorization(date, request, &headers, Spaces::Ascii);
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
    push_trimmed(&mut trimmed, b"  caf\xe9   au\tlait  ", Spaces::Ascii);
    assert_eq!(trimmed, b"caf\xe9 au\tlait");
}

#[test]
fn white_space_is_folded_as_the_store_does_it() {
    for (spaces, signed) in [(Spaces::Ascii, "\ta b\u{a0}\u{3000}c"), (Spaces::Unicode, "a b c")] {
        let mut trimmed = Vec::new();
        push_trimmed(&mut trimmed, "\ta  b\u{a0}\u{3000}c ".as_bytes(), spaces);
        assert_eq!(String::from_utf8(trimmed).unwrap(), signed);
    }
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
    let keys = Credentials::new("AKIAIOSFODNN7EXAMPLE", SECRET, token.map(Into::into), None, "t");
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
    let own =
        |name: &str| ["x-amz-date", "x-amz-content-sha256", "x-amz-security-token"].contains(&name);
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
        let ours = signer(&region, token.as_deref(), date).authorization(date, request, &map, Spaces::Ascii);
        let theirs = oracle(date, ms, &region, token.as_deref(), request, &map);
        prop_assert_eq!(String::from_utf8(ours).unwrap(), theirs);
    }
}
