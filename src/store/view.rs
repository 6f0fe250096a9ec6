//! A versioned store as it was: each key as of the newest version written at or before a time.
//!
//! A view answers `list`, `head`, `get` and `get_tags` as the store would have answered them then:
//! a key whose newest version of that time is a delete marker is not there. The times are the
//! store's own `Last-Modified` times. Writing through a view writes to the store of today.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::versions::{Marker, Version, VersionPage};
use super::{ErrorKind, ListPage, ListQuery, ListedObject, Store, StoreError};
use crate::object::ObjectKey;

/// Versions that a listing named are remembered for the GETs that follow, twice as many at most. A
/// forgotten one costs a request.
const REMEMBERED: usize = 20_000;

/// The time, and the versions that listings named lately.
#[derive(Debug)]
pub(super) struct View {
    at_ms: i64,
    known: Mutex<Generations>,
}

/// What was remembered lately, and before that.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<ObjectKey, String>,
    old: HashMap<ObjectKey, String>,
}

impl Store {
    /// This store as it was at `at_ms` (milliseconds since the Unix epoch).
    #[must_use]
    pub fn as_of(&self, at_ms: i64) -> Self {
        self.with_view(Arc::new(View { at_ms, known: Mutex::default() }))
    }

    /// Which version to ask for: none on a store of today.
    pub(super) async fn version(
        &self,
        operation: &'static str,
        bucket: &str,
        key: &str,
    ) -> Result<Option<String>, StoreError> {
        let Some(view) = self.view() else { return Ok(None) };
        let name = ObjectKey::new(bucket, key);
        if let Some(version) = view.recall(&name) {
            return Ok(Some(version));
        }
        let mut marker = None;
        loop {
            // The key itself comes first of all keys that begin with it.
            let page = self.list_versions(bucket, key, None, marker.as_ref(), 100).await?;
            self.check_order(bucket, &page)?;
            let mut versions = page.versions.into_iter().take_while(|v| v.key == *key).peekable();
            let ours = versions.peek().is_some();
            if let Some(found) = versions.find(|version| version.modified_ms <= view.at_ms) {
                if found.content.is_some() {
                    view.remember(name, found.id.clone());
                    return Ok(Some(found.id));
                }
                return Err(self.was_not_there(operation, bucket, key));
            }
            match page.next {
                Some(next) if ours && next.key == *key => marker = Some(next),
                _ => return Err(self.was_not_there(operation, bucket, key)),
            }
        }
    }

    /// `ListObjectsV2` of that time.
    pub(super) async fn list_as_of(
        &self,
        view: &View,
        bucket: &str,
        list: &ListQuery<'_>,
    ) -> Result<ListPage, StoreError> {
        let marker = match (list.token, list.start_after) {
            (Some(token), _) => Some(decode_token(token)),
            (None, Some(key)) => Some(Marker { key: key.to_owned(), version: String::new() }),
            (None, None) => None,
        };
        let mut page = self
            .list_versions(bucket, list.prefix, list.delimiter, marker.as_ref(), list.max_keys)
            .await?;
        self.check_order(bucket, &page)?;
        let prefixes = std::mem::take(&mut page.prefixes);
        let passed = marker.as_ref().filter(|marker| marker.version.is_empty());
        let (objects, next) = reduce(page, passed.map(|marker| &*marker.key), view.at_ms);
        let listed = |version: Version| {
            let (size, etag) = version.content?;
            view.remember(ObjectKey::new(bucket, version.key.as_str()), version.id);
            Some(ListedObject { key: version.key, size, etag, modified_ms: version.modified_ms })
        };
        let objects = objects.into_iter().filter_map(listed).collect();
        Ok(ListPage { objects, prefixes, next: next.map(|marker| encode_token(&marker)) })
    }

    /// All that is said of the past rests on this order.
    fn check_order(&self, bucket: &str, page: &VersionPage) -> Result<(), StoreError> {
        let wrong = page.versions.windows(2).find_map(|pair| match pair {
            [first, second] if first.key == second.key => {
                (first.modified_ms < second.modified_ms).then_some(first)
            }
            _ => None,
        });
        let Some(version) = wrong else { return Ok(()) };
        let message =
            "the store does not list the newest version first, so its past cannot be told";
        let origin = self.inner().origin("ListObjectVersions", bucket, &version.key);
        Err(origin.error(ErrorKind::Invalid, message))
    }

    fn was_not_there(&self, operation: &'static str, bucket: &str, key: &str) -> StoreError {
        let origin = self.inner().origin(operation, bucket, key);
        let message = Some("no such object at the time that was asked for");
        origin.answered(404, Some("NoSuchKey".to_owned()), message)
    }
}

/// The version of each key that counted at a time (delete markers too), and where to go on: within
/// the last key only if what was seen of it is all too new. What a store still tells of a key up to `passed`
/// is too old: that one was decided by the page before.
fn reduce(page: VersionPage, passed: Option<&str>, at_ms: i64) -> (Vec<Version>, Option<Marker>) {
    let mut counted: Vec<Version> = Vec::new();
    let behind = |version: &Version| passed.is_none_or(|passed| *version.key > *passed);
    for version in page.versions.into_iter().filter(behind) {
        let decided = counted.last().is_some_and(|last| last.key == version.key);
        if !decided && version.modified_ms <= at_ms {
            counted.push(version);
        }
    }
    let next = page.next.map(|next| match counted.last() {
        Some(last) if last.key == next.key => Marker { version: String::new(), ..next },
        _ => next,
    });
    (counted, next)
}

/// Key and version in one text; a version's name holds no line break.
fn encode_token(marker: &Marker) -> String {
    format!("{}\n{}", marker.version, marker.key)
}

fn decode_token(token: &str) -> Marker {
    let (version, key) = token.split_once('\n').unwrap_or(("", token));
    Marker { key: key.to_owned(), version: version.to_owned() }
}

impl View {
    fn remember(&self, key: ObjectKey, version: String) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.young.len() >= REMEMBERED {
            known.old = std::mem::take(&mut known.young);
        }
        known.young.insert(key, version);
    }

    fn recall(&self, key: &ObjectKey) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.young.get(key).or_else(|| known.old.get(key)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ETag;

    fn version(key: &str, id: &str, modified_ms: i64, exists: bool) -> Version {
        let content = exists.then(|| (1, ETag::new("x")));
        Version { key: key.into(), id: id.into(), modified_ms, content }
    }

    fn ids(versions: Vec<Version>, next: Option<Marker>) -> (Vec<String>, Option<Marker>) {
        let (counted, next) =
            reduce(VersionPage { versions, next, ..VersionPage::default() }, None, 50);
        (counted.into_iter().map(|version| version.id).collect(), next)
    }

    #[test]
    fn the_newest_version_of_the_time_counts_be_it_a_deletion() {
        let versions = vec![
            version("a", "a3", 60, true),
            version("a", "a2", 50, true),
            version("a", "a1", 10, true),
            version("b", "b2", 40, false),
            version("b", "b1", 30, true),
            version("c", "c1", 51, true),
        ];
        assert_eq!(ids(versions, None), (vec!["a2".to_owned(), "b2".to_owned()], None));
    }

    #[test]
    fn a_key_that_a_page_cuts_is_decided_once() {
        let next = |version: &str| Some(Marker { key: "a".into(), version: version.into() });
        // Too new so far: the older versions are looked at.
        let (found, on) = ids(vec![version("a", "a9", 90, true)], next("a9"));
        assert_eq!((found.len(), on), (0, next("a9")));
        // Decided: they are passed over.
        let (found, on) = ids(vec![version("a", "a4", 40, true)], next("a4"));
        assert_eq!((found.len(), on), (1, next("")));
    }

    #[test]
    fn older_versions_of_a_key_that_was_decided_are_not_taken_for_it() {
        let versions = vec![version("a", "a1", 10, true), version("b", "b1", 10, true)];
        let page = VersionPage { versions, ..VersionPage::default() };
        let (found, _) = reduce(page, Some("a"), 50);
        assert_eq!(found.into_iter().map(|version| version.id).collect::<Vec<_>>(), ["b1"]);
    }

    #[test]
    fn a_token_survives_any_key() {
        for key in ["a", "", "line\nbreak", "\n"] {
            let marker = Marker { key: key.into(), version: "v-1".into() };
            assert_eq!(decode_token(&encode_token(&marker)), marker);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let view = View { at_ms: 0, known: Mutex::default() };
        for n in 0..5 * REMEMBERED {
            view.remember(ObjectKey::new("b", n.to_string()), n.to_string());
        }
        let known = view.known.lock().unwrap();
        assert!(known.young.len() + known.old.len() <= 2 * REMEMBERED);
        drop(known);
        let last = 5 * REMEMBERED - 1;
        assert_eq!(view.recall(&ObjectKey::new("b", last.to_string())), Some(last.to_string()));
    }
}
