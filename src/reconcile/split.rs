//! Finding places to cut a range of unknown keys, by asking for single keys of it.
//!
//! A question is "which is the first key behind this text?". What the keys that are left have in
//! common is found by bisection, then the first key of each group below that: the folders of a tree, or
//! the next digit of numbered keys in a flat one. Every place is a key that is there, because some
//! stores skip a key when `start-after` does not exist (MinIO #21463).

/// The first key of so many groups at most.
const GROUPS: usize = 16;

/// A search for keys at which the range behind a key can be cut. Ask, answer, until nothing is asked.
#[derive(Debug)]
pub(super) struct Search {
    from: String,
    end: Option<String>,
    /// How many characters of `from` every key behind it is known to share.
    shared: usize,
    /// So many characters of `from` some key behind it does not share; one more than it has if that
    /// is not known of any.
    unshared: usize,
    /// The first key of the group that is looked at.
    group: Option<String>,
    points: Vec<String>,
}

impl Search {
    /// Looks for keys behind `from` and before `end`.
    pub(super) fn new(from: String, end: Option<String>) -> Self {
        let unshared = from.chars().count() + 1;
        Self { from, end, shared: 0, unshared, group: None, points: Vec::new() }
    }

    /// Asks for the first key behind this; `None` when the search is over.
    pub(super) fn question(&mut self) -> Option<String> {
        while self.unshared - self.shared > 1 {
            let middle = usize::midpoint(self.shared, self.unshared);
            if let Some(text) = end_of(first_chars(&self.from, middle)) {
                return Some(text);
            }
            self.shared = middle;
        }
        let key = self.group.take()?;
        let text = end_of(first_chars(&key, self.unshared));
        self.points.push(key);
        text.filter(|_| self.points.len() < GROUPS)
    }

    /// Takes the first key behind what was asked, if there is one.
    pub(super) fn answer(&mut self, key: Option<String>) {
        let inside =
            |key: &String| *key > self.from && self.end.as_ref().is_none_or(|end| key < end);
        let key = key.filter(inside);
        if self.unshared - self.shared > 1 {
            // The longer the text, the more keys are behind all that begins with it.
            let middle = usize::midpoint(self.shared, self.unshared);
            match key {
                Some(_) => (self.unshared, self.group) = (middle, key),
                None => self.shared = middle,
            }
        } else {
            self.group = key;
        }
    }

    /// The keys that were found, in order.
    pub(super) fn into_points(self) -> Vec<String> {
        self.points
    }
}

fn first_chars(text: &str, count: usize) -> &str {
    let at = text.char_indices().nth(count).map_or(text.len(), |(at, _)| at);
    text.get(..at).unwrap_or(text)
}

/// A text behind everything that begins with `start`. At most one other key lies before what is behind
/// the text, the text itself: it is passed over, and is as good as any other.
pub(super) fn end_of(start: &str) -> Option<String> {
    let mut text = start.to_owned();
    while let Some(last) = text.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Bound::{Excluded, Unbounded};

    use proptest::prelude::*;

    use super::*;

    /// The places that are found among `keys`, and how many questions it took.
    fn places(keys: &BTreeSet<String>, from: &str, end: Option<&str>) -> (Vec<String>, usize) {
        let mut search = Search::new(from.to_owned(), end.map(str::to_owned));
        let mut asked = 0;
        while let Some(text) = search.question() {
            asked += 1;
            search.answer(keys.range::<str, _>((Excluded(&*text), Unbounded)).next().cloned());
        }
        (search.into_points(), asked)
    }

    fn key() -> impl Strategy<Value = String> {
        prop_oneof!["[ab/]{1,5}", "x[0-9]{4}", ".{1,4}", "[\u{d7ff}\u{e000}\u{10ffff}]{1,3}"]
    }

    proptest! {
        #[test]
        fn places_are_keys_inside_the_range_in_order(
            keys in prop::collection::btree_set(key(), 0..80), from in key(),
            end in prop::option::of(key()),
        ) {
            let (found, asked) = places(&keys, &from, end.as_deref());
            prop_assert!(found.is_sorted_by(|a, b| a < b));
            for key in &found {
                prop_assert!(keys.contains(key) && *key > from);
                prop_assert!(end.as_ref().is_none_or(|end| key < end));
            }
            prop_assert!(asked <= GROUPS + 4, "{asked} questions");
        }

        #[test]
        fn a_long_flat_range_is_always_cut(from in 0_u32..9_000, step in 1_u32..90) {
            let keys: BTreeSet<_> = (0..10_000).step_by(step as usize)
                .map(|n| format!("data/part-{n:05}.parquet")).collect();
            let (found, _) = places(&keys, &format!("data/part-{from:05}.parquet"), None);
            prop_assert!(!found.is_empty());
        }
    }

    #[test]
    fn numbered_keys_are_cut_at_their_first_different_digit() {
        let keys: BTreeSet<_> = (0..1000).map(|n| format!("part-{n:08}")).collect();
        let (found, asked) = places(&keys, "part-00000007", None);
        let hundreds: Vec<_> = (1..10).map(|n| format!("part-00000{n}00")).collect();
        assert_eq!(found[1..], hundreds[1..]);
        assert!(asked < 16, "{asked} questions");
    }

    #[test]
    fn folders_are_cut_at_their_first_keys() {
        let keys = ["a/1", "a/2x", "b/1", "b/2", "c/1"].map(str::to_owned).into();
        assert_eq!(places(&keys, "a/1", None).0, ["b/1", "c/1"]);
        assert_eq!(places(&keys, "a/1", Some("b/1")).0, ["a/2x"]);
        assert_eq!(places(&keys, "c/1", None).0, <[&str; 0]>::default());
    }

    #[test]
    fn the_end_of_all_that_begins_with_a_text_skips_what_is_no_character() {
        assert_eq!(end_of("a").as_deref(), Some("b"));
        assert_eq!(end_of("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(end_of("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(end_of("\u{10ffff}"), None);
        assert_eq!(end_of(""), None);
    }
}
