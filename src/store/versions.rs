//! The history of a versioned bucket: `ListObjectVersions`, and `GetBucketVersioning` with its PUT.

use std::cmp::Reverse;

use http::Method;

use super::encode::{Query, decode_listed};
use super::object::{MAX_DOCUMENT, md5, unreadable};
use super::request::Call;
use super::{ErrorKind, Store, StoreError, xml};
use crate::object::ETag;

/// The largest page: 1,000 versions of keys of 1,024 bytes, each byte spelled `%XX`.
const MAX_PAGE: u64 = 16 << 20;

/// Whether a bucket keeps what is overwritten and deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Versioning {
    /// It never did: an object is what was written last.
    Never,
    /// It did once; what happens since is not kept.
    Suspended,
    /// It does.
    Enabled,
}

/// One version of an object, or one of its deletions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// The key, decoded.
    pub(super) key: String,
    /// The store's name of the version; `null` where the bucket kept none at the time.
    pub(super) id: String,
    /// When it was written, milliseconds since the Unix epoch.
    pub(super) modified_ms: i64,
    /// Size and tag; `None` if this is a delete marker.
    pub(super) content: Option<(u64, ETag)>,
}

/// Where a listing of versions goes on: behind all versions of a key, or behind one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) key: String,
    /// Empty for "behind all versions of the key".
    pub(super) version: String,
}

/// One page of versions: by key in key order, and within a key the newest first (AWS API reference,
/// `ListObjectVersions`).
#[derive(Debug, Default)]
pub(super) struct VersionPage {
    pub(super) versions: Vec<Version>,
    /// Names that hold what follows the prefix up to the delimiter.
    pub(super) prefixes: Vec<String>,
    pub(super) next: Option<Marker>,
}

impl Store {
    /// `GetBucketVersioning`.
    pub async fn versioning(&self, bucket: &str) -> Result<Versioning, StoreError> {
        let call = Call::new("GetBucketVersioning", Method::GET, bucket, "");
        let answer = self.inner().send(call.query(Query::flag("versioning"))).await?;
        let origin = answer.origin.clone();
        let document = answer.document(MAX_DOCUMENT).await?;
        let status = xml::text_of(&document, "VersioningConfiguration/Status")
            .map_err(|error| unreadable(&origin, &error))?;
        Ok(match status.as_deref() {
            Some("Enabled") => Versioning::Enabled,
            Some("Suspended") => Versioning::Suspended,
            _ => Versioning::Never,
        })
    }

    /// `PutBucketVersioning`: from now on the bucket keeps what is overwritten and deleted.
    pub async fn enable_versioning(&self, bucket: &str) -> Result<(), StoreError> {
        let document = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                        <Status>Enabled</Status></VersioningConfiguration>";
        let call = Call::new("PutBucketVersioning", Method::PUT, bucket, "")
            .query(Query::flag("versioning"))
            .content_md5(Some(md5(document.as_bytes())))
            .document(document.to_owned());
        self.inner().send(call).await?.finish().await.map(drop)
    }

    /// `ListObjectVersions`: one page. A page that is cut, or that cannot be understood, is an error.
    pub(super) async fn list_versions(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        marker: Option<&Marker>,
        max_keys: u16,
    ) -> Result<VersionPage, StoreError> {
        let max_keys = max_keys.to_string();
        let version = marker.map(|marker| &*marker.version).filter(|version| !version.is_empty());
        let mut query = Query::default();
        for (name, value) in [
            ("delimiter", delimiter),
            ("encoding-type", Some("url")),
            ("key-marker", marker.map(|marker| &*marker.key)),
            ("max-keys", Some(&*max_keys)),
            ("prefix", Some(prefix).filter(|prefix| !prefix.is_empty())),
            ("version-id-marker", version),
            ("versions", Some("")),
        ] {
            if let Some(value) = value {
                query = query.with(name, value);
            }
        }
        let call = Call::new("ListObjectVersions", Method::GET, bucket, "").query(query);
        let answer = self.inner().send(call).await?;
        let origin = answer.origin.clone();
        let document = answer.document(MAX_PAGE).await?;
        parse(&document).map_err(|why| {
            origin.error(ErrorKind::Transient, format!("the page is not readable: {why}"))
        })
    }
}

/// An entry as it is written.
#[derive(Debug, Default)]
struct Entry {
    key: String,
    id: String,
    modified: String,
    size: String,
    etag: String,
}

/// Reads a `ListVersionsResult` document.
fn parse(document: &[u8]) -> Result<VersionPage, String> {
    let (mut entries, mut entry) = (Vec::new(), Entry::default());
    let mut prefixes = Vec::new();
    let (mut key, mut version) = (None, String::new());
    let (mut truncated, mut encoded) = (None, false);
    xml::read(document, |path, text| {
        match path.strip_prefix("ListVersionsResult/").unwrap_or_default() {
            "Version/Key" | "DeleteMarker/Key" => entry.key = text,
            "Version/VersionId" | "DeleteMarker/VersionId" => entry.id = text,
            "Version/LastModified" | "DeleteMarker/LastModified" => entry.modified = text,
            "Version/Size" => entry.size = text,
            "Version/ETag" => entry.etag = text,
            "Version" => entries.push((std::mem::take(&mut entry), true)),
            "DeleteMarker" => entries.push((std::mem::take(&mut entry), false)),
            "CommonPrefixes/Prefix" => prefixes.push(text),
            "NextKeyMarker" => key = Some(text),
            "NextVersionIdMarker" => version = text,
            "IsTruncated" => truncated = Some(text == "true"),
            "EncodingType" => encoded = text == "url",
            _ => {}
        }
    })
    .map_err(|error| error.to_string())?;
    let decode = |text: String| {
        if !encoded {
            return Ok(text);
        }
        decode_listed(&text).ok_or_else(|| format!("the spelling {text:?} of a key"))
    };
    let next = match (truncated, key.filter(|key| !key.is_empty())) {
        (Some(false), _) => None,
        (Some(true), Some(key)) => Some(Marker { key: decode(key)?, version }),
        (Some(true), None) => return Err("it goes on, but does not say where".to_owned()),
        (None, _) => return Err("it does not say whether it is the last".to_owned()),
    };
    let versions = entries
        .into_iter()
        .map(|(entry, is_object)| entry.version(is_object, decode))
        .collect::<Result<_, _>>()
        .map(in_order)?;
    let prefixes = prefixes.into_iter().map(decode).collect::<Result<_, _>>()?;
    Ok(VersionPage { versions, prefixes, next })
}

/// By key, and within a key the newest first.
fn rank(version: &Version) -> (&str, Reverse<i64>) {
    (&version.key, Reverse(version.modified_ms))
}

/// RustFS 1.0.1 writes all deletions of a page before all objects of it: the two are put together. Of an
/// object and its deletion in one millisecond the object counts as the newer one, since nobody loses by
/// that. What is out of order among the objects, or among the deletions, stays so, to be seen.
fn in_order(versions: Vec<Version>) -> Vec<Version> {
    if versions.is_sorted_by(|one, next| rank(one) <= rank(next)) {
        return versions;
    }
    let mut all = Vec::with_capacity(versions.len());
    let (objects, deletions): (Vec<_>, Vec<_>) =
        versions.into_iter().partition(|version| version.content.is_some());
    let mut deletions = deletions.into_iter().peekable();
    for object in objects {
        while let Some(deletion) = deletions.next_if(|deletion| rank(deletion) < rank(&object)) {
            all.push(deletion);
        }
        all.push(object);
    }
    all.extend(deletions);
    all
}

impl Entry {
    fn version(
        self,
        is_object: bool,
        decode: impl Fn(String) -> Result<String, String>,
    ) -> Result<Version, String> {
        let bad = |what: &str, text: &str| format!("{what} {text:?} of a version");
        let modified: jiff::Timestamp =
            self.modified.parse().map_err(|_| bad("the time", &self.modified))?;
        let content = if is_object {
            let size = self.size.parse().map_err(|_| bad("the size", &self.size))?;
            Some((size, ETag::new(&self.etag)))
        } else {
            None
        };
        if self.id.is_empty() {
            return Err(bad("the missing name", &self.key));
        }
        let modified_ms = modified.as_millisecond();
        Ok(Version { key: decode(self.key)?, id: self.id, modified_ms, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "<ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
        <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
        <NextKeyMarker>a%2Bb</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>\
        <DeleteMarker><Key>a%2Bb</Key><VersionId>v2</VersionId><IsLatest>true</IsLatest>\
        <LastModified>2026-11-23T14:27:00.000Z</LastModified></DeleteMarker>\
        <Version><Key>a%2Bb</Key><VersionId>v1</VersionId><IsLatest>false</IsLatest>\
        <LastModified>2026-11-23T14:26:59.123Z</LastModified><Size>7</Size>\
        <ETag>\"d41d8cd98f00b204e9800998ecf8427e\"</ETag></Version></ListVersionsResult>";

    #[test]
    fn a_page_gives_versions_and_deletions_and_where_it_goes_on() {
        let page = parse(PAGE.as_bytes()).unwrap();
        assert_eq!(page.next, Some(Marker { key: "a+b".into(), version: "v1".into() }));
        assert_eq!(page.versions[0].content, None);
        assert_eq!((page.versions[0].key.as_str(), page.versions[0].id.as_str()), ("a+b", "v2"));
        let etag = ETag::new("d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(page.versions[1].content, Some((7, etag)));
        assert_eq!(page.versions[1].modified_ms, 1_795_444_019_123);
    }

    #[test]
    fn deletions_that_a_page_tells_first_are_put_where_they_belong() {
        let version = |key: &str, modified_ms: i64, is_object: bool| {
            let content = is_object.then(|| (0, ETag::new("x")));
            Version { key: key.to_owned(), id: "v".to_owned(), modified_ms, content }
        };
        let page = |all: &[(&str, i64, bool)]| {
            all.iter().map(|(key, ms, is_object)| version(key, *ms, *is_object)).collect::<Vec<_>>()
        };
        let grouped = page(&[
            ("b", 2, false),
            ("c", 9, false),
            ("a", 7, true),
            ("b", 3, true),
            ("b", 1, true),
            ("c", 9, true),
        ]);
        let wanted = page(&[
            ("a", 7, true),
            ("b", 3, true),
            ("b", 2, false),
            ("b", 1, true),
            ("c", 9, true),
            ("c", 9, false),
        ]);
        assert_eq!(in_order(grouped), wanted);
        // In order already: the store's word is taken for what happened in one millisecond.
        let given = page(&[("c", 9, false), ("c", 9, true), ("d", 1, true)]);
        assert_eq!(in_order(given.clone()), given);
        let oldest_first = page(&[("a", 1, true), ("a", 2, true)]);
        assert_eq!(in_order(oldest_first.clone()), oldest_first, "this is for others to see");
    }

    #[test]
    fn a_page_that_cannot_be_trusted_is_an_error() {
        for spoilt in [
            PAGE.replace("</ListVersionsResult>", "</ListVers"),
            PAGE.replace("<NextKeyMarker>a%2Bb</NextKeyMarker>", ""),
            PAGE.replace("<IsTruncated>true</IsTruncated>", ""),
            PAGE.replace("<VersionId>v1</VersionId>", ""),
            PAGE.replace("<Size>7</Size>", ""),
            PAGE.replace("2026-11-23T14:27", "yesterday"),
        ] {
            assert!(parse(spoilt.as_bytes()).is_err(), "{spoilt}");
        }
    }
}
