//! A double, not a store: it answers `ListObjectsV2` about millions of objects that do not exist.
//!
//! Every key is computed from its number, so nothing is kept, and a bucket of any size costs nothing.
//! The two sides list the same objects but for a few, which a comparison must find.

use std::fmt::Write as _;
use std::future;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::serve::serve;

/// The most entries of a page, whatever is asked for, as every store has it.
const MAX_KEYS: usize = 1_000;
const PER_FOLDER: u64 = 10_000;

/// Which of the two stores is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Source,
    Target,
}

/// A bucket of so many computed objects, as one side lists it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    pub(crate) role: Role,
    pub(crate) count: u64,
}

/// The double, listening. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Double {
    port: u16,
    accepting: JoinHandle<()>,
}

impl Double {
    /// Listens on a free port; every bucket name is answered with `bucket`.
    pub(crate) async fn start(bucket: Bucket) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let answers = serve(listener, move |request| future::ready(answer(&request, bucket)));
        Ok(Self { port, accepting: tokio::spawn(answers) })
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn answer<B>(request: &Request<B>, bucket: Bucket) -> Response<Full<Bytes>> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let lists = request.method() == Method::GET && query.list;
    let body = if lists { bucket.page(&query) } else { String::new() };
    let mut response = Response::new(Full::new(body.into()));
    if !lists {
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    }
    response
}

/// What is asked for.
#[derive(Debug, Default)]
struct Query {
    list: bool,
    prefix: String,
    delimiter: String,
    start_after: String,
    token: Option<u64>,
    url: bool,
    max_keys: Option<usize>,
}

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "list-type" => query.list = value == "2",
                "prefix" => query.prefix = value.into_owned(),
                "delimiter" => query.delimiter = value.into_owned(),
                "start-after" => query.start_after = value.into_owned(),
                "continuation-token" => query.token = value.parse().ok(),
                "encoding-type" => query.url = value == "url",
                "max-keys" => query.max_keys = value.parse().ok(),
                _ => {}
            }
        }
        query
    }
}

impl Bucket {
    /// The key of a number; keys are in the order of their numbers.
    pub(crate) fn key(number: u64) -> String {
        let folder = number / PER_FOLDER;
        format!("warehouse/orders/day={folder:04}/part-{number:08}-b9c1.parquet")
    }

    /// What a comparison must find, as (number, what is wrong with it).
    pub(crate) const fn differences(count: u64) -> [(u64, &'static str); 6] {
        [
            (0, "missing"),
            (count / 7, "different_etag"),
            (count / 3, "extra"),
            (count / 2, "missing"),
            (count / 2 + 1, "extra"),
            (count - 1, "missing"),
        ]
    }

    fn difference(self, number: u64) -> Option<&'static str> {
        let all = Self::differences(self.count);
        all.into_iter().find(|(odd, _)| *odd == number).map(|(_, what)| what)
    }

    fn page(self, query: &Query) -> String {
        let wanted = query.max_keys.unwrap_or(MAX_KEYS).min(MAX_KEYS);
        let end = self.count_while(|key| *key < *query.prefix || key.starts_with(&query.prefix));
        let first = self.count_while(|key| *key < *query.prefix);
        let behind = match query.token {
            Some(number) => number,
            None if query.start_after.is_empty() => 0,
            None => self.count_while(|key| *key <= *query.start_after),
        };
        let (mut number, mut entries, mut xml) = (first.max(behind), 0, String::new());
        while number < end && entries < wanted {
            let key = Self::key(number);
            if let Some(common) = common_prefix(&key, query) {
                element(&mut xml, "<CommonPrefixes><Prefix>", common, query.url);
                xml.push_str("</Prefix></CommonPrefixes>");
                number = self.count_while(|key| *key < *common || key.starts_with(common));
                entries += 1;
                continue;
            }
            entries += usize::from(self.push_object(&mut xml, number, &key, query.url));
            number += 1;
        }
        let next = if number < end {
            format!("<NextContinuationToken>{number}</NextContinuationToken>")
        } else {
            String::new()
        };
        let truncated = number < end;
        let encoding = if query.url { "<EncodingType>url</EncodingType>" } else { "" };
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>double</Name>\
             <KeyCount>{entries}</KeyCount><MaxKeys>{wanted}</MaxKeys>{encoding}\
             <IsTruncated>{truncated}</IsTruncated>{next}{xml}</ListBucketResult>"
        )
    }

    /// Writes an object, if this side has it.
    fn push_object(self, xml: &mut String, number: u64, key: &str, url: bool) -> bool {
        let difference = self.difference(number);
        let tag = match (difference, self.role) {
            (Some("missing"), Role::Target) | (Some("extra"), Role::Source) => return false,
            (Some("different_etag"), Role::Target) => u128::MAX,
            _ => u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        };
        element(xml, "<Contents><Key>", key, url);
        let written = write!(
            xml,
            "</Key><LastModified>2026-11-23T14:26:59.123Z</LastModified><ETag>&#34;{tag:032x}&#34;\
             </ETag><Size>4096</Size><StorageClass>STANDARD</StorageClass></Contents>"
        );
        written.is_ok()
    }

    /// How many keys come before the first for which this does not hold; it must hold for none behind it.
    fn count_while(self, holds: impl Fn(&str) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = u64::midpoint(low, high);
            if holds(&Self::key(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// What stands for `key` in a listing with a delimiter.
fn common_prefix<'a>(key: &'a str, query: &Query) -> Option<&'a str> {
    let rest = key.strip_prefix(&*query.prefix)?;
    let at = rest.find(&*query.delimiter).filter(|_| !query.delimiter.is_empty())?;
    key.get(..query.prefix.len() + at + query.delimiter.len())
}

/// No key here needs to be escaped for XML.
fn element(xml: &mut String, open: &str, text: &str, url: bool) {
    xml.push_str(open);
    if url {
        xml.extend(form_urlencoded::byte_serialize(text.as_bytes()));
    } else {
        xml.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u64 = 25_000;
    const SOURCE: Bucket = Bucket { role: Role::Source, count: COUNT };
    const TARGET: Bucket = Bucket { role: Role::Target, count: COUNT };

    fn texts<'a>(xml: &'a str, element: &str) -> Vec<&'a str> {
        let open = format!("<{element}>");
        xml.split(&*open).skip(1).filter_map(|rest| rest.split('<').next()).collect()
    }

    /// All keys by following the tokens, beginning with this query.
    fn walk(bucket: Bucket, query: &str) -> Vec<String> {
        let (mut keys, mut token) = (Vec::new(), String::new());
        loop {
            let page = bucket.page(&Query::parse(&format!("list-type=2&{query}{token}")));
            keys.extend(texts(&page, "Key").into_iter().map(str::to_owned));
            let next = texts(&page, "NextContinuationToken");
            let Some(next) = next.first() else { return keys };
            token = format!("&continuation-token={next}");
        }
    }

    fn keys(bucket: Bucket) -> Vec<String> {
        let gone = if bucket.role == Role::Source { "extra" } else { "missing" };
        (0..COUNT).filter(|n| bucket.difference(*n) != Some(gone)).map(Bucket::key).collect()
    }

    #[test]
    fn every_key_is_listed_once_in_order_whatever_the_page_size() {
        for bucket in [SOURCE, TARGET] {
            let all = keys(bucket);
            assert!(all.is_sorted());
            assert_eq!(walk(bucket, "max-keys=1000"), all);
            assert_eq!(walk(bucket, "max-keys=7"), all);
        }
    }

    #[test]
    fn start_after_prefix_and_delimiter_choose_what_they_name() {
        let all = keys(SOURCE);
        let after = "warehouse/orders/day=0001/part-00012";
        let behind: Vec<_> = all.iter().filter(|key| key.as_str() > after).cloned().collect();
        assert_eq!(walk(SOURCE, &format!("start-after={after}")), behind);
        assert_eq!(walk(SOURCE, &format!("start-after={}", all[5])), all[6..]);
        let day = "warehouse/orders/day=0001/";
        let inside: Vec<_> = all.iter().filter(|key| key.starts_with(day)).cloned().collect();
        assert_eq!(walk(SOURCE, &format!("prefix={day}")), inside);
        assert!(walk(SOURCE, "prefix=nothing").is_empty());
        let page = SOURCE.page(&Query::parse("prefix=warehouse/orders/&delimiter=/"));
        let folders = ["0000", "0001", "0002"].map(|n| format!("warehouse/orders/day={n}/"));
        assert_eq!(texts(&page, "Prefix"), folders);
    }

    #[test]
    fn the_two_sides_differ_where_they_should_and_nowhere_else() {
        let page = |bucket: Bucket, n: u64| {
            let mut xml = String::new();
            bucket.push_object(&mut xml, n, &Bucket::key(n), true);
            xml
        };
        let odd: Vec<_> = (0..COUNT).filter(|n| page(SOURCE, *n) != page(TARGET, *n)).collect();
        assert_eq!(odd, Bucket::differences(COUNT).map(|(number, _)| number));
    }
}
