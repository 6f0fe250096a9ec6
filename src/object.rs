//! The values that name and describe an object: key, `ETag`, head.
//!
//! Plain data, no I/O. A *key* is always bucket + object key (see the glossary in `ARCHITECTURE.md`).

use std::fmt;
use std::sync::Arc;

/// Bucket and object key, the unit of all work: one key is worked on by one worker at a time.
///
/// The bucket is always the *source's* bucket; the mapping to the target's happens in `replicate`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The source's bucket name.
    pub bucket: Arc<str>,
    /// The object's key inside the bucket: any UTF-8 of 1 to 1,024 bytes, not normalised in any way.
    pub key: Arc<str>,
}

impl ObjectKey {
    /// Names the object `key` of `bucket`.
    pub fn new(bucket: impl Into<Arc<str>>, key: impl Into<Arc<str>>) -> Self {
        Self { bucket: bucket.into(), key: key.into() }
    }
}

/// For people and logs: `bucket/key` with control characters escaped (keys are hostile input).
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket.escape_debug(), self.key.escape_debug())
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An entity tag without its quotes, as S3 stores give it.
///
/// Two shapes are understood: 32 hex digits (the MD5 of an object put in one piece) and
/// 32 hex digits, `-`, a part count (the MD5 of the parts' MD5s of a multipart upload).
/// Anything else is opaque: it can be compared, but proves nothing about the content.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ETag(String);

impl ETag {
    /// Takes a header or XML value; surrounding quotes and a weak prefix `W/` are removed.
    pub fn new(raw: &str) -> Self {
        let raw = raw.trim();
        Self(raw.strip_prefix("W/").unwrap_or(raw).trim_matches('"').to_owned())
    }

    /// The tag without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The MD5 of the content, when the tag has the shape of one.
    pub fn md5(&self) -> Option<[u8; 16]> {
        let mut digest = [0_u8; 16];
        hex::decode_to_slice(&self.0, &mut digest).ok().map(|()| digest)
    }

    /// The number of parts of a multipart upload, when the tag says so (`…-4` is 4).
    pub fn parts(&self) -> Option<u32> {
        let (digest, count) = self.0.split_once('-')?;
        let mut buffer = [0_u8; 16];
        hex::decode_to_slice(digest, &mut buffer).ok()?;
        count.parse().ok().filter(|n| (1..=10_000).contains(n))
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ETag({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_of_one_piece_is_its_md5() {
        let tag = ETag::new("\"d41d8cd98f00b204e9800998ecf8427e\"");
        assert_eq!(tag.md5().unwrap()[0], 0xd4);
        assert_eq!(tag.parts(), None);
    }

    #[test]
    fn an_etag_of_a_multipart_upload_tells_its_parts() {
        let tag = ETag::new("d41d8cd98f00b204e9800998ecf8427e-10000");
        assert_eq!(tag.parts(), Some(10_000));
        assert_eq!(tag.md5(), None);
        assert_eq!(ETag::new("d41d8cd98f00b204e9800998ecf8427e-0").parts(), None);
        assert_eq!(ETag::new("zz-3").parts(), None);
    }

    #[test]
    fn a_key_is_shown_with_control_characters_escaped() {
        assert_eq!(ObjectKey::new("b", "a\n\u{1b}[2J").to_string(), "b/a\\n\\u{1b}[2J");
    }
}
