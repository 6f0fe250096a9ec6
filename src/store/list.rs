//! Listing a bucket, a page at a time, in key order.

use http::Method;

use super::encode::{Query, decode_listed};
use super::request::Call;
use super::{ErrorKind, ListPage, ListedObject, Store, StoreError, xml};
use crate::object::ETag;

/// The largest page: 1,000 keys of 1,024 bytes, each byte spelled `%XX`, and what surrounds them.
const MAX_PAGE: u64 = 16 << 20;

/// What to list: the parameters of `ListObjectsV2`.
#[derive(Debug, Clone, Copy)]
pub struct ListQuery<'a> {
    /// Only keys that start with this; empty for all.
    pub prefix: &'a str,
    /// Only keys behind this one, which need not exist. Some stores include it all the same
    /// (RustFS #1165), some skip a key when it does not exist (MinIO #21463).
    pub start_after: Option<&'a str>,
    /// Keys that share what follows the prefix up to this are given as one of [`ListPage::prefixes`].
    pub delimiter: Option<&'a str>,
    /// Where to go on, by [`ListPage::next`] of the page before.
    pub token: Option<&'a str>,
    /// At most so many entries; the store may give fewer, even none, before the end. At most 1,000
    /// is sent: stores disagree about more (RustFS #2931).
    pub max_keys: u16,
}

impl Default for ListQuery<'_> {
    /// Everything, in the largest pages.
    fn default() -> Self {
        Self { prefix: "", start_after: None, delimiter: None, token: None, max_keys: MAX_KEYS }
    }
}

/// The largest page that every store gives.
const MAX_KEYS: u16 = 1000;

impl Store {
    /// `ListObjectsV2`: one page. A page that is cut, or that cannot be understood, is an error and
    /// never a short page.
    pub async fn list(&self, bucket: &str, list: &ListQuery<'_>) -> Result<ListPage, StoreError> {
        if let Some(view) = self.view() {
            return self.list_as_of(view, bucket, list).await;
        }
        let max_keys = list.max_keys.min(MAX_KEYS).to_string();
        let prefix = Some(list.prefix).filter(|prefix| !prefix.is_empty());
        let mut query = Query::default();
        for (name, value) in [
            ("continuation-token", list.token),
            ("delimiter", list.delimiter),
            ("encoding-type", Some("url")),
            ("list-type", Some("2")),
            ("max-keys", Some(&*max_keys)),
            ("prefix", prefix),
            ("start-after", list.start_after),
        ] {
            if let Some(value) = value {
                query = query.with(name, value);
            }
        }
        let call = Call::new("ListObjectsV2", Method::GET, bucket, "").query(query);
        let answer = self.inner().send(call).await?;
        self.inner().note_clock(&answer.headers);
        let origin = answer.origin.clone();
        let document = answer.document(MAX_PAGE).await?;
        parse(&document).map_err(|why| {
            origin.error(ErrorKind::Transient, format!("the page is not readable: {why}"))
        })
    }

    /// Whether the bucket lists no object. Two are asked for, since RustFS lists keys that were deleted when one
    /// is asked for (#5375).
    pub async fn is_empty(&self, bucket: &str) -> Result<bool, StoreError> {
        let few = ListQuery { max_keys: 2, ..ListQuery::default() };
        Ok(self.list(bucket, &few).await?.objects.is_empty())
    }

    /// Whether the bucket can be read, and how far the store's clock is ahead of ours, in milliseconds.
    ///
    /// By a HEAD: MinIO reads a whole folder, with all its names, to list one key of it. Only if that
    /// fails is the bucket listed, whose error says why.
    pub async fn clock(&self, bucket: &str) -> Result<i64, StoreError> {
        let head = Call::new("HeadBucket", Method::HEAD, bucket, "");
        if let Ok(answer) = self.inner().send(head).await {
            self.inner().note_clock(&answer.headers);
            answer.finish().await?;
        } else {
            let one = ListQuery { max_keys: 1, ..ListQuery::default() };
            self.list(bucket, &one).await?;
        }
        Ok(self.clock_ahead_ms())
    }
}

/// Reads a `ListBucketResult` document.
fn parse(document: &[u8]) -> Result<ListPage, String> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut prefixes: Vec<String> = Vec::new();
    let mut entry = Entry::default();
    let (mut next, mut truncated, mut encoded) = (None, None, false);
    xml::read(document, |path, text| match path {
        "ListBucketResult/Contents/Key" => entry.key = text,
        "ListBucketResult/Contents/Size" => entry.size = text,
        "ListBucketResult/Contents/ETag" => entry.etag = text,
        "ListBucketResult/Contents/LastModified" => entry.modified = text,
        "ListBucketResult/Contents" => entries.push(std::mem::take(&mut entry)),
        "ListBucketResult/CommonPrefixes/Prefix" => prefixes.push(text),
        "ListBucketResult/IsTruncated" => truncated = Some(text == "true"),
        "ListBucketResult/NextContinuationToken" => next = Some(text),
        "ListBucketResult/EncodingType" => encoded = text == "url",
        _ => {}
    })
    .map_err(|error| error.to_string())?;
    let next = match (truncated, next.filter(|token| !token.is_empty())) {
        (Some(false), _) => None,
        (Some(true), Some(token)) => Some(token),
        (Some(true), None) => return Err("it goes on, but does not say where".to_owned()),
        (None, _) => return Err("it does not say whether it is the last".to_owned()),
    };
    let objects =
        entries.into_iter().map(|entry| entry.object(encoded)).collect::<Result<_, _>>()?;
    let prefixes =
        prefixes.into_iter().map(|prefix| decoded(prefix, encoded)).collect::<Result<_, _>>()?;
    Ok(ListPage { objects, prefixes, next })
}

/// An entry as it is written.
#[derive(Debug, Default)]
struct Entry {
    key: String,
    size: String,
    etag: String,
    modified: String,
}

impl Entry {
    fn object(self, encoded: bool) -> Result<ListedObject, String> {
        let bad = |what: &str, text: &str| format!("{what} {text:?} of a key");
        let key = decoded(self.key, encoded)?;
        let size = self.size.parse().map_err(|_| bad("the size", &self.size))?;
        let modified: jiff::Timestamp =
            self.modified.parse().map_err(|_| bad("the time", &self.modified))?;
        let etag = ETag::new(&self.etag);
        Ok(ListedObject { key, size, etag, modified_ms: modified.as_millisecond() })
    }
}

/// A key or a prefix as it is, however the store spells it.
fn decoded(text: String, encoded: bool) -> Result<String, String> {
    if !encoded {
        return Ok(text);
    }
    decode_listed(&text).ok_or_else(|| format!("the spelling {text:?} of a key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(inner: &str) -> String {
        format!(
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</ListBucketResult>"
        )
    }

    fn entry(key: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-11-23T14:26:59.123Z</LastModified>\
             <ETag>&#34;d41d8cd98f00b204e9800998ecf8427e&#34;</ETag><Size>7</Size>\
             <Owner><ID>x</ID></Owner></Contents>"
        )
    }

    #[test]
    fn a_page_gives_its_objects_decoded_and_where_it_goes_on() {
        let text = page(&format!(
            "<Name>b</Name>{}{}<IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>\
             <NextContinuationToken>t+/=</NextContinuationToken>",
            entry("a+b%2B%01"),
            entry("z")
        ));
        let page = parse(text.as_bytes()).unwrap();
        assert_eq!(page.next.as_deref(), Some("t+/="));
        assert_eq!(page.objects[0].key, "a b+\u{1}");
        assert_eq!(page.objects[0].size, 7);
        assert_eq!(page.objects[0].etag, ETag::new("d41d8cd98f00b204e9800998ecf8427e"));
        assert_eq!(page.objects[0].modified_ms, 1_795_444_019_123);
        assert_eq!(page.objects[1].key, "z");
    }

    #[test]
    fn keys_of_a_store_that_does_not_encode_are_taken_as_they_are() {
        let text = page(&format!("<IsTruncated>false</IsTruncated>{}", entry("a+b%2B&amp;")));
        assert_eq!(parse(text.as_bytes()).unwrap().objects[0].key, "a+b%2B&");
    }

    #[test]
    fn a_page_that_cannot_be_trusted_is_an_error() {
        let whole = page(&format!("<IsTruncated>false</IsTruncated>{}", entry("a")));
        assert!(parse(&whole.as_bytes()[..whole.len() - 5]).is_err());
        for inner in [
            String::new(),
            "<IsTruncated>true</IsTruncated>".to_owned(),
            format!("<IsTruncated>false</IsTruncated>{}", entry("a").replace(">7<", ">-7<")),
            format!("<IsTruncated>false</IsTruncated>{}", entry("a").replace("2026", "now")),
            format!(
                "<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>{}",
                entry("%ff")
            ),
        ] {
            assert!(parse(page(&inner).as_bytes()).is_err(), "{inner}");
        }
    }
}
