//! Which object is where: the embedded store's directory of keys.
//!
//! One entry per key, in key order, in memory; every change is appended to a file of JSON lines, so
//! that a demo that is run again with the same `--data-dir` finds its objects. A torn last line (the
//! demo was killed) is dropped at the next start. Nothing is synced: this is a demo's store.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Bound;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Where one object's bytes are, and what LIST and conditions must know without opening them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The name under which `s3s-fs` keeps the bytes and the headers; never used twice.
    pub blob: String,
    /// Bytes.
    pub size: i64,
    /// Without quotes.
    pub etag: String,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// The parts' sizes in bytes; empty for an object put in one piece.
    pub parts: Vec<i64>,
    /// The tags.
    pub tags: BTreeMap<String, String>,
}

/// One line of the file: the entry of a key from now on, or its removal.
#[derive(Serialize, Deserialize)]
struct Line {
    bucket: String,
    key: String,
    entry: Option<Entry>,
}

/// All keys of all buckets.
#[derive(Debug)]
pub(super) struct Index {
    buckets: HashMap<String, BTreeMap<String, Entry>>,
    file: File,
}

/// What a listing asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Query<'a> {
    pub prefix: &'a str,
    pub delimiter: Option<&'a str>,
    /// Only names after this one.
    pub after: &'a str,
    pub max: usize,
}

/// One page of a listing.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Page {
    pub objects: Vec<(String, Entry)>,
    /// Groups of keys that share a beginning up to the delimiter.
    pub prefixes: Vec<String>,
    /// The last name of this page, when there are more.
    pub next: Option<String>,
}

impl Index {
    /// Reads the file, if there is one, and rewrites it without what is obsolete.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut buckets: HashMap<String, BTreeMap<String, Entry>> = HashMap::new();
        for Line { bucket, key, entry } in text.lines().map_while(|l| serde_json::from_str(l).ok())
        {
            let keys = buckets.entry(bucket).or_default();
            match entry {
                Some(entry) => keys.insert(key, entry),
                None => keys.remove(&key),
            };
        }
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        for (bucket, keys) in &buckets {
            for (key, entry) in keys {
                append(&mut file, bucket, key, Some(entry))?;
            }
        }
        fs::rename(&fresh, path)?;
        Ok(Self { buckets, file })
    }

    /// The entry of one key.
    pub(super) fn get(&self, bucket: &str, key: &str) -> Option<&Entry> {
        self.buckets.get(bucket)?.get(key)
    }

    /// Replaces the entry of one key, or removes it; gives the one before.
    pub(super) fn set(
        &mut self,
        bucket: &str,
        key: &str,
        entry: Option<Entry>,
    ) -> io::Result<Option<Entry>> {
        append(&mut self.file, bucket, key, entry.as_ref())?;
        let keys = self.buckets.entry(bucket.to_owned()).or_default();
        Ok(match entry {
            Some(entry) => keys.insert(key.to_owned(), entry),
            None => keys.remove(key),
        })
    }

    /// One page of a bucket, in the order of the keys' bytes.
    pub(super) fn list(&self, bucket: &str, query: Query<'_>) -> Page {
        let mut page = Page::default();
        let Some(keys) = self.buckets.get(bucket) else { return page };
        let start = if query.after < query.prefix {
            Bound::Included(query.prefix)
        } else {
            Bound::Excluded(query.after)
        };
        let mut last = String::new();
        let range = keys.range::<str, _>((start, Bound::Unbounded));
        for (key, entry) in range.take_while(|(key, _)| key.starts_with(query.prefix)) {
            let group = group(key, &query);
            let name = group.unwrap_or(key);
            if group.is_some() && (name == last || name <= query.after) {
                continue;
            }
            if page.objects.len() + page.prefixes.len() == query.max {
                page.next = (query.max > 0).then_some(last);
                return page;
            }
            name.clone_into(&mut last);
            match group {
                Some(prefix) => page.prefixes.push(prefix.to_owned()),
                None => page.objects.push((key.clone(), entry.clone())),
            }
        }
        page
    }
}

/// The common prefix that `key` is shown under, when the query groups it.
fn group<'k>(key: &'k str, query: &Query<'_>) -> Option<&'k str> {
    let delimiter = query.delimiter.filter(|d| !d.is_empty())?;
    let rest = key.get(query.prefix.len()..)?;
    key.get(..query.prefix.len() + rest.find(delimiter)? + delimiter.len())
}

fn append(file: &mut File, bucket: &str, key: &str, entry: Option<&Entry>) -> io::Result<()> {
    let line = Line { bucket: bucket.to_owned(), key: key.to_owned(), entry: entry.cloned() };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.push(b'\n');
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(size: i64) -> Entry {
        let (blob, etag) = (format!("b{size}"), format!("e{size}"));
        Entry { blob, size, etag, modified_ms: 1, parts: vec![], tags: BTreeMap::new() }
    }

    fn names(page: &Page) -> Vec<&str> {
        page.objects.iter().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn a_listing_pages_through_every_key_once_and_groups_by_delimiter() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::open(&dir.path().join("index")).unwrap();
        for key in ["a", "a/1", "a/2", "a//x", "b+c", "p/q/r", "z"] {
            index.set("bkt", key, Some(entry(1))).unwrap();
        }
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let page = index.list("bkt", Query { after: &after, max: 2, ..Query::default() });
            all.extend(names(&page).into_iter().map(str::to_owned));
            let Some(next) = page.next else { break };
            after = next;
        }
        assert_eq!(all, ["a", "a//x", "a/1", "a/2", "b+c", "p/q/r", "z"]);

        let query = Query { delimiter: Some("/"), max: 2, ..Query::default() };
        let page = index.list("bkt", query);
        assert_eq!((names(&page), &page.prefixes[..]), (vec!["a"], &["a/".to_owned()][..]));
        assert_eq!(page.next.as_deref(), Some("a/"));
        let page = index.list("bkt", Query { after: "a/", max: 9, ..query });
        assert_eq!((names(&page), &page.prefixes[..]), (vec!["b+c", "z"], &["p/".to_owned()][..]));
        assert_eq!(page.next, None);
        let page = index.list("bkt", Query { prefix: "a/", max: 9, ..Query::default() });
        assert_eq!(names(&page), ["a//x", "a/1", "a/2"]);
    }

    #[test]
    fn entries_are_found_again_after_a_restart_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let mut index = Index::open(&path).unwrap();
        index.set("bkt", "kept", Some(entry(1))).unwrap();
        index.set("bkt", "kept", Some(entry(2))).unwrap();
        index.set("bkt", "gone", Some(entry(3))).unwrap();
        index.set("bkt", "gone", None).unwrap();
        index.file.write_all(b"{\"bucket\":\"bkt\",\"ke").unwrap();
        let mut index = Index::open(&path).unwrap();
        assert_eq!(index.get("bkt", "kept"), Some(&entry(2)));
        assert_eq!(index.get("bkt", "gone"), None);
        index.set("bkt", "later", Some(entry(4))).unwrap();
        assert_eq!(Index::open(&path).unwrap().get("bkt", "later"), Some(&entry(4)));
    }
}
