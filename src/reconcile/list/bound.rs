//! How a listing goes on from page to page, and when it has come to its end: pure.
//!
//! **Reading ahead.** Run against MinIO, 2026-11-23: a page that is asked for by `start-after` costs the
//! reading of every folder on the way to its first key, and of its objects, and nothing more. A continuation
//! token makes MinIO list everything up to the end of the prefix at once, one object after the other; who is
//! faster than that waits a quarter of a second at a time. So folders that are quickly read are
//! listed by `start-after`, and only wide ones by tokens, under a prefix that ends the reading ahead
//! where they end.
//!
//! **Ends.** MinIO looks at no more keys than a page has room for, and counts those of `t-old/` when it is
//! asked what comes behind `t/1`, although they come before it: it answers with an empty last page (seen with
//! 2026-02-12). A page that goes on is right, but one that says it is the last is believed only if nothing
//! but the last part of the key before it mattered: asked for under the prefix of its folder, and then
//! folder by folder upwards.
//!
//! The token of a page that was asked for behind a key which is not there skips a key in MinIO before
//! its fix of #21463. Tokens are followed here only from pages behind keys that were just listed, or at the
//! beginning of a range, so it takes a delete in that instant. Nothing in the answer tells of it; the next
//! pass, which begins elsewhere, finds the key.

use std::sync::Arc;

use super::order::{Order, PageStart, Step};
use crate::reconcile::ranges::folder;

/// What the keys that are asked for begin with.
#[derive(Debug)]
pub(super) struct Bounds {
    /// All keys of the range.
    common: Arc<str>,
    /// Those of the next page; longer for a while.
    prefix: Arc<str>,
    /// No page since the last one that was asked for in a way that can be trusted has told of a new key.
    sure: bool,
}

impl Bounds {
    pub(super) fn new(common: Arc<str>) -> Self {
        Self { prefix: Arc::clone(&common), common, sure: false }
    }

    pub(super) const fn prefix(&self) -> &Arc<str> {
        &self.prefix
    }

    /// Where to go on behind `step`, the answer to `asked`; `None` at the end.
    pub(super) fn next(
        &mut self,
        asked: &PageStart,
        step: &Step,
        order: &Order,
        reads_ahead: bool,
    ) -> Option<PageStart> {
        if let PageStart::Only(key) = asked {
            return (!step.past).then(|| PageStart::After(Some(key.clone())));
        }
        self.sure = !step.found && self.is_sure(asked);
        match &step.next {
            _ if step.past => None,
            Some(PageStart::Token(_)) if reads_ahead && step.found && asked.token().is_none() => {
                match narrow(order) {
                    Some(prefix) if prefix.len() > self.prefix.len() => self.prefix = prefix.into(),
                    Some(_) => return step.next.clone(),
                    None => {}
                }
                Some(PageStart::After(order.last.clone()))
            }
            Some(PageStart::Token(_)) => step.next.clone(),
            Some(PageStart::After(_) | PageStart::Only(_)) | None => self.behind_last_page(order),
        }
    }

    /// Whether the store can be trusted to begin where it was asked to.
    fn is_sure(&self, asked: &PageStart) -> bool {
        match asked {
            PageStart::After(None) | PageStart::Only(_) => true,
            PageStart::After(Some(key)) => {
                key.strip_prefix(&*self.prefix).is_none_or(|rest| !rest.contains('/'))
            }
            // MinIO that has lost what the token stands for begins behind the last key.
            PageStart::Token(_) => self.sure,
        }
    }

    /// A page said that it is the last one under the prefix.
    fn behind_last_page(&mut self, order: &Order) -> Option<PageStart> {
        let last = order.last.as_deref()?;
        if !self.sure {
            let folder = folder(last);
            if folder.len() > self.prefix.len() && folder.starts_with(&*self.prefix) {
                self.prefix = folder.into();
            }
            return Some(PageStart::After(Some(last.to_owned())));
        }
        if self.prefix == self.common {
            return None;
        }
        let Some(name) = self.prefix.strip_suffix('/') else {
            self.prefix = Arc::clone(&self.common);
            return Some(PageStart::After(Some(last.to_owned())));
        };
        // The first that could be behind all that begins with `name/`.
        let text = format!("{name}0");
        let parent = folder(name);
        self.prefix =
            if parent.len() > self.common.len() { parent.into() } else { Arc::clone(&self.common) };
        let over = order.end.as_ref().is_some_and(|end| *end < text);
        (!over).then_some(PageStart::Only(text))
    }
}

/// What bounds the reading ahead, if there is more to read than a few folders.
fn narrow(order: &Order) -> Option<&str> {
    let wide = order.widths.wide()?;
    let (last, end) = (order.last.as_deref().unwrap_or_default(), order.end.as_deref());
    let group = askable(end.and_then(|end| group(last, end)).unwrap_or_default());
    Some(if group.len() > wide.len() { group } else { wide })
}

/// A folder with so many entries is not read anew for every page.
const WIDE: u32 = 1_000;

/// How many entries were seen of each folder on the way to the last key.
#[derive(Debug, Default)]
pub(super) struct Widths {
    last: String,
    /// Of the folder that ends with the so manieth slash; the first is that of the bucket itself.
    entries: Vec<u32>,
}

impl Widths {
    /// Takes the next key, in key order.
    pub(super) fn pass(&mut self, key: &str) {
        let alike = key.bytes().zip(self.last.bytes()).take_while(|(a, b)| a == b);
        let shared = alike.filter(|(byte, _)| *byte == b'/').count();
        let depth = key.matches('/').count() + 1;
        self.entries.truncate(shared + 1);
        self.entries.resize(depth, 0);
        for entries in self.entries.iter_mut().skip(shared) {
            *entries = entries.saturating_add(1);
        }
        self.last.clear();
        self.last.push_str(key);
    }

    /// The first folder on the way that is wide, by what its keys begin with.
    pub(super) fn wide(&self) -> Option<&str> {
        let slashes = self.entries.iter().position(|entries| *entries >= WIDE)?;
        let Some(nth) = slashes.checked_sub(1) else { return Some("") };
        let (at, _) = self.last.match_indices('/').nth(nth)?;
        self.last.get(..=at)
    }
}

/// What `last` and some keys behind it begin with, and `end` does not.
fn group<'a>(last: &'a str, end: &str) -> Option<&'a str> {
    let mut pairs = last.char_indices().zip(end.chars());
    let (at, differs) = pairs.find_map(|((at, a), b)| (a != b).then_some((at, a)))?;
    last.get(..at + differs.len_utf8())
}

/// A prefix without a last `.` or `..`, which MinIO refuses as it does in keys.
pub(super) fn askable(prefix: &str) -> &str {
    match prefix.rsplit('/').next() {
        Some("." | "..") => prefix.trim_end_matches('.'),
        _ => prefix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(keys: impl IntoIterator<Item = String>) -> Option<String> {
        let mut widths = Widths::default();
        for key in keys {
            widths.pass(&key);
        }
        widths.wide().map(str::to_owned)
    }

    #[test]
    fn a_folder_is_wide_by_its_own_entries_whether_they_are_objects_or_folders() {
        let files = |count| (0..count).map(|n| format!("a/b/{n:06}"));
        assert_eq!((wide(files(999)), wide(files(1_000)).as_deref()), (None, Some("a/b/")));
        let folders =
            |count| (0..count).flat_map(|n| [format!("a/{n:06}/x"), format!("a/{n:06}/y")]);
        assert_eq!((wide(folders(999)), wide(folders(1_000)).as_deref()), (None, Some("a/")));
        assert_eq!(wide((0..1_000).map(|n| format!("{n:06}"))).as_deref(), Some(""));
    }

    #[test]
    fn folders_that_were_left_do_not_count() {
        let many = (0..5_000).map(|n| format!("a/{:03}/{n:06}", n / 500));
        assert_eq!(wide(many.clone()), None);
        assert_eq!(wide(many.chain(["b".to_owned()])), None);
        let left = (0..1_500).map(|n| format!("a/{n:06}")).chain(["b/1".to_owned()]);
        assert_eq!(wide(left), None);
    }

    #[test]
    fn a_group_is_what_a_key_and_its_neighbours_begin_with_and_the_end_does_not() {
        assert_eq!(group("t/part-01999", "t/part-03000"), Some("t/part-01"));
        assert_eq!(group("t=09/x", "t=10/"), Some("t=0"));
        assert_eq!(group("ż1", "ż2"), Some("ż1"));
        assert_eq!(group("a", "ab"), None);
        let prefixes = [".", "a/..", "a/...", ".a", "a./", ""].map(askable);
        assert_eq!(prefixes, ["", "a/", "a/...", ".a", "a./", ""]);
    }
}
