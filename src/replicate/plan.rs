//! What to do about a key: pure decisions on what the two stores said.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use md5::{Digest, Md5};

use crate::config::settings::TargetSettings;
use crate::dirty::Aspects;
use crate::object::ETag;
use crate::store::{ErrorKind, ObjectHead, Tags};

/// Metadata field that names the source's `ETag` where the target's cannot equal it (KMS, other part
/// sizes), so that the pair can be learnt again from the target alone.
pub(super) const SOURCE_ETAG: &str = "x-amz-meta-evermirror-source-etag";

/// Headers of an object that are carried to the target as they are, beside `x-amz-meta-*`.
const CARRIED: [&str; 7] = [
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
];

/// The first request of a try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FirstStep {
    /// Nothing that is replicated has changed.
    Nothing,
    /// GET the source: it is probably there.
    Get,
    /// HEAD the source: it is probably gone.
    Head,
    /// HEAD both: they probably agree but for the tags.
    Compare,
}

/// Chooses the cheapest first request by what the marks said; what the source answers decides.
pub(super) fn first_step(aspects: Aspects) -> FirstStep {
    if aspects.has(Aspects::REMOVED) {
        FirstStep::Head
    } else if aspects.has(Aspects::CHECK) {
        FirstStep::Compare
    } else if aspects.has(Aspects::CONTENT) {
        FirstStep::Get
    } else if aspects.has(Aspects::TAGS) {
        FirstStep::Compare
    } else {
        FirstStep::Nothing
    }
}

/// How an object's bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// One GET, one PUT; the source's MD5 goes along.
    Single,
    /// Part by part with the source's own layout.
    Parts(u32),
    /// In ranges of this many bytes, buffered and hashed by us: the `ETag`s will differ.
    Ranges(u64),
}

/// The limits that [`layout`] respects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From this size on one PUT is not used.
    pub(super) multipart_threshold: u64,
    /// Part by part is of no use: the target encrypts with KMS, so its part tags prove nothing, or
    /// the source does not give single parts.
    pub(super) no_parts: bool,
}

/// Bytes up to which a body is held in memory rather than streamed.
pub(super) const BUFFERED: u64 = 256 << 10;
const RANGE: u64 = 16 << 20;
const MAX_PARTS: u64 = 10_000;

/// Chooses the layout from the source's answer.
pub(super) fn layout(etag: Option<&ETag>, length: u64, limits: Limits) -> Layout {
    let ranges = Layout::Ranges(RANGE.max(length.div_ceil(MAX_PARTS)));
    match (etag.and_then(ETag::parts), etag.and_then(ETag::md5)) {
        (Some(_), _) if limits.no_parts && length > BUFFERED => ranges,
        (Some(_), _) if limits.no_parts => Layout::Single,
        (Some(parts), _) => Layout::Parts(parts),
        (None, _) if length >= limits.multipart_threshold => ranges,
        // An opaque tag proves nothing: we hash, so what does not fit in memory goes in ranges.
        (None, None) if length > BUFFERED => ranges,
        (None, _) => Layout::Single,
    }
}

/// Whether the target's tag will be the source's: only a whole object under its MD5, or the source's
/// own parts, give the same tag again.
pub(super) fn tag_carries_over(layout: Layout, etag: Option<&ETag>) -> bool {
    match layout {
        Layout::Single => etag.and_then(ETag::md5).is_some(),
        Layout::Parts(_) => true,
        Layout::Ranges(_) => false,
    }
}

/// Why an answer to a range of `length` bytes cannot become a part, if it cannot: a source may ignore
/// the range, and then answers more than memory should hold, or the condition, and then answers another
/// version.
pub(super) fn misfit(
    answer: &ObjectHead,
    wanted: Option<&ETag>,
    length: u64,
) -> Option<(ErrorKind, String)> {
    if answer.etag.as_ref().is_some_and(|etag| Some(etag) != wanted) {
        return Some((ErrorKind::Changed, "the object changed while it was read".to_owned()));
    }
    (answer.length != length).then(|| {
        let message = format!("the source answered {} bytes to a range of {length}", answer.length);
        (ErrorKind::Invalid, message)
    })
}

/// The tag that a completed multipart upload of these parts has: the MD5 of the parts' MD5s.
/// `None` when a part's tag is no MD5.
pub(super) fn multipart_etag(parts: &[(u32, ETag)]) -> Option<ETag> {
    let mut hash = Md5::new();
    for (_, etag) in parts {
        hash.update(etag.md5()?);
    }
    Some(ETag::new(&format!("{}-{}", hex::encode(hash.finalize()), parts.len())))
}

/// The headers to write with an object: the carried ones, the tags, and what the target's settings ask.
pub(super) fn outgoing_headers(
    source: &HeaderMap,
    tags: &Tags,
    target: &TargetSettings,
    pair: Option<&ETag>,
) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in source {
        if let Some(value) = carried(name, value) {
            out.append(name, value);
        }
    }
    let mut set = |name: &'static str, value: Option<&str>| {
        if let Some(value) = value.and_then(|v| HeaderValue::from_str(v).ok()) {
            out.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-amz-storage-class", target.storage_class.as_deref());
    set("x-amz-server-side-encryption", target.server_side_encryption.as_deref());
    set("x-amz-server-side-encryption-aws-kms-key-id", target.kms_key_id.as_deref());
    set(SOURCE_ETAG, pair.map(ETag::as_str));
    if !tags.is_empty() {
        set("x-amz-tagging", Some(&tagging_header(tags)));
    }
    out
}

/// Whether the tags fit into a header beside the rest: S3 limits all headers of a PUT to 8 KB (AWS API
/// reference), and ten tags of letters that need percent-encoding can have 30.
pub(super) fn tags_fit_header(tags: &Tags) -> bool {
    tagging_header(tags).len() <= 4 << 10
}

/// `key=value&key=value`, percent-encoded (the form of `x-amz-tagging`).
fn tagging_header(tags: &Tags) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(tags).finish()
}

/// The value under which a source header is written to the target, if it is carried at all.
fn carried(name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
    let name = name.as_str();
    if name == SOURCE_ETAG {
        return None;
    }
    if name == "content-encoding" {
        return without_aws_chunked(value);
    }
    (CARRIED.contains(&name) || name.starts_with("x-amz-meta-")).then(|| value.clone())
}

/// `aws-chunked` describes an upload's wire format; some stores keep it as if it were the object's.
fn without_aws_chunked(value: &HeaderValue) -> Option<HeaderValue> {
    let Ok(text) = value.to_str() else { return Some(value.clone()) };
    if !text.contains("aws-chunked") {
        return Some(value.clone());
    }
    let rest: Vec<&str> =
        text.split(',').map(str::trim).filter(|c| !c.is_empty() && *c != "aws-chunked").collect();
    HeaderValue::from_str(&rest.join(",")).ok().filter(|v| !v.is_empty())
}

/// Whether the target holds the source's object: content (by `ETag`, or by the remembered pair),
/// length, and every carried header. Tags are not part of a head.
pub(super) fn same_object(source: &ObjectHead, target: &ObjectHead) -> bool {
    let Some(etag) = &source.etag else { return false };
    (target.etag.as_ref() == Some(etag) || remembers(target, etag))
        && source.length == target.length
        && carried_headers(&source.headers) == carried_headers(&target.headers)
}

/// Whether the target's object says in its metadata that it is the verified copy of the source's object
/// of this tag: the remembered pair.
pub(crate) fn remembers(target: &ObjectHead, source: &ETag) -> bool {
    let pair = target.headers.get(SOURCE_ETAG).and_then(|v| v.to_str().ok());
    pair == Some(source.as_str())
}

/// The headers that belong to the object and are carried, sorted by name, by their carried values.
pub(crate) fn carried_headers(headers: &HeaderMap) -> Vec<(&str, HeaderValue)> {
    let mut all: Vec<_> =
        headers.iter().filter_map(|(n, v)| Some((n.as_str(), carried(n, v)?))).collect();
    all.sort();
    all
}

/// How many tags the source said the object has; `None` when it said nothing.
pub(crate) fn tag_count(head: &ObjectHead) -> Option<u32> {
    head.headers.get("x-amz-tagging-count")?.to_str().ok()?.parse().ok()
}

/// Whether a store's GET tells all that its HEAD does, and both give `x-amz-tagging-count` for every tagged
/// object, so that its absence means "no tags". MinIO and AWS do; RustFS 1.0.1's GET does not (run,
/// 2026-11-23), and of others nothing is known.
pub(crate) fn tells_all(server: Option<&str>) -> bool {
    server.is_some_and(|name| name.starts_with("MinIO") || name.starts_with("AmazonS3"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MD5: &str = "9e107d9d372bb6826bd81d3542a419d6";
    const LIMITS: Limits = Limits { multipart_threshold: 5 << 30, no_parts: false };

    fn head(pairs: &[(&'static str, &str)], etag: &str, length: u64) -> ObjectHead {
        let headers = pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap()))
            .collect();
        ObjectHead { length, etag: Some(ETag::new(etag)), headers }
    }

    #[test]
    fn a_removal_is_read_with_head_and_a_tag_change_compares() {
        assert_eq!(first_step(Aspects::REMOVED.with(Aspects::CONTENT)), FirstStep::Head);
        assert_eq!(first_step(Aspects::CONTENT.with(Aspects::TAGS)), FirstStep::Get);
        assert_eq!(first_step(Aspects::TAGS), FirstStep::Compare);
        assert_eq!(first_step(Aspects::CONTENT.with(Aspects::CHECK)), FirstStep::Compare);
        assert_eq!(first_step(Aspects::RETENTION), FirstStep::Nothing);
    }

    #[test]
    fn the_layout_follows_the_sources_etag() {
        let md5 = ETag::new(MD5);
        let parts = ETag::new(&format!("{MD5}-4"));
        let opaque = ETag::new("not-a-digest");
        assert_eq!(layout(Some(&md5), 1 << 30, LIMITS), Layout::Single);
        assert_eq!(layout(Some(&md5), 5 << 30, LIMITS), Layout::Ranges(16 << 20));
        assert_eq!(layout(Some(&parts), 10, LIMITS), Layout::Parts(4));
        assert_eq!(layout(Some(&opaque), 10, LIMITS), Layout::Single);
        assert_eq!(layout(Some(&opaque), 2 << 20, LIMITS), Layout::Ranges(16 << 20));
        let kms = Limits { no_parts: true, ..LIMITS };
        assert_eq!(layout(Some(&parts), 10, kms), Layout::Single);
        assert_eq!(layout(Some(&parts), 1 << 20, kms), Layout::Ranges(16 << 20));
    }

    #[test]
    fn only_an_md5_or_the_sources_own_parts_give_the_same_tag_again() {
        let md5 = ETag::new(MD5);
        let parts = ETag::new(&format!("{MD5}-4"));
        let opaque = ETag::new("not-a-digest");
        assert!(tag_carries_over(Layout::Single, Some(&md5)));
        assert!(tag_carries_over(Layout::Parts(4), Some(&parts)));
        // A small object of a source without single parts, or with tags of its own making.
        assert!(!tag_carries_over(Layout::Single, Some(&parts)));
        assert!(!tag_carries_over(Layout::Single, Some(&opaque)));
        assert!(!tag_carries_over(Layout::Single, None));
        assert!(!tag_carries_over(Layout::Ranges(1), Some(&md5)));
    }

    #[test]
    fn a_range_is_used_only_if_it_is_that_range_of_that_version() {
        let kind = |etag: &str, length| {
            misfit(&head(&[], etag, length), Some(&ETag::new(MD5)), 16).map(|(kind, _)| kind)
        };
        assert_eq!(kind(MD5, 16), None);
        assert_eq!(kind(MD5, 1 << 40), Some(ErrorKind::Invalid), "the whole object");
        assert_eq!(kind("another", 16), Some(ErrorKind::Changed));
    }

    #[test]
    fn a_multipart_etag_is_the_md5_of_the_parts_md5s() {
        // Two parts, "a" and "b": md5(md5("a") + md5("b")), as S3 computes it.
        let parts = [
            (1, ETag::new("0cc175b9c0f1b6a831c399e269772661")),
            (2, ETag::new("92eb5ffee6ae2fec3ad71c777531578f")),
        ];
        let whole = multipart_etag(&parts).unwrap();
        assert_eq!(whole.as_str(), "96e024ba2074fe77e8e965ba43a704be-2");
        assert_eq!(multipart_etag(&[(1, ETag::new("opaque"))]), None);
    }

    #[test]
    fn aws_chunked_is_not_an_encoding_of_the_object() {
        let value = HeaderValue::from_static("aws-chunked, gzip");
        assert_eq!(without_aws_chunked(&value).unwrap(), "gzip");
        assert_eq!(without_aws_chunked(&HeaderValue::from_static("aws-chunked")), None);
    }

    #[test]
    fn objects_are_the_same_only_if_content_length_and_metadata_are() {
        let source = head(&[("content-type", "text/plain"), ("x-amz-meta-a", "1")], MD5, 3);
        assert!(same_object(&source, &source.clone()));
        let other_meta = head(&[("content-type", "text/plain"), ("x-amz-meta-a", "2")], MD5, 3);
        assert!(!same_object(&source, &other_meta));
        let more_meta = head(&[("content-type", "text/plain")], MD5, 3);
        assert!(!same_object(&source, &more_meta));
        let uncarried = head(
            &[("content-type", "text/plain"), ("x-amz-meta-a", "1"), ("server", "MinIO")],
            MD5,
            3,
        );
        assert!(same_object(&source, &uncarried));
        let paired = head(
            &[("content-type", "text/plain"), ("x-amz-meta-a", "1"), (SOURCE_ETAG, MD5)],
            "other",
            3,
        );
        assert!(same_object(&source, &paired));
    }

    #[test]
    fn tags_that_are_too_long_for_a_header_travel_behind_the_object() {
        let tags = |value: &str| (0..10).map(|n| (n.to_string(), value.repeat(256))).collect();
        assert!(tags_fit_header(&tags("a")));
        assert!(!tags_fit_header(&tags("ä")));
    }

    proptest! {
        #[test]
        fn every_tag_set_survives_the_tagging_header(
            tags in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..10)
        ) {
            let header = tagging_header(&tags);
            let back: Tags = form_urlencoded::parse(header.as_bytes()).into_owned().collect();
            prop_assert_eq!(back, tags);
        }
    }
}
