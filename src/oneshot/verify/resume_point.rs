//! Up to which key a bucket was looked at, while many of its keys are looked at at once: pure.
//!
//! Promise: every key up to [`ResumePoint::last`] was looked at, and what differs there is recorded. It may be
//! behind what was done; a command that goes on from there finds all the rest.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};

use crate::reconcile::ranges::{KeyRange, union};

/// How far one bucket is. What it holds of keys is bounded by how many are on their way to a check.
#[derive(Debug)]
pub(super) struct ResumePoint {
    last: Option<String>,
    finished: bool,
    /// Ranges of which every difference was handed out.
    compared: Vec<KeyRange>,
    /// Differences that were handed out, and not looked at yet.
    differences: BTreeSet<String>,
    /// Where every pair of objects is looked at.
    pairs: Option<Pairs>,
}

/// Pairs of objects, handed out in the order of their keys.
#[derive(Debug, Default)]
struct Pairs {
    /// Those behind `last`, and whether they were looked at.
    window: VecDeque<(String, bool)>,
    /// The last key before which there is none that was not looked at.
    last: Option<String>,
    /// All were handed out.
    all: bool,
}

/// How far something reached: from nothing over a key to the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    UpTo(Option<String>),
    End,
}

impl ResumePoint {
    /// A bucket of which nothing was looked at, or of which all keys up to `start_after` are left out;
    /// `every` if every pair of objects is going to be looked at.
    pub(super) fn new(start_after: Option<&str>, every: bool) -> Self {
        let last = start_after.map(str::to_owned);
        let compared = last.iter().map(|end| KeyRange { start: None, end: Some(end.clone()) });
        Self {
            compared: compared.collect(),
            differences: BTreeSet::new(),
            pairs: every.then(|| Pairs { last: last.clone(), ..Pairs::default() }),
            last,
            finished: false,
        }
    }

    /// The place; none if there may be something to look at before the first key that was.
    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Whether the bucket was looked at to its end.
    pub(super) const fn is_finished(&self) -> bool {
        self.finished
    }

    /// It was.
    pub(super) const fn finish(&mut self) {
        self.finished = true;
    }

    /// A difference is about to be handed out.
    pub(super) fn difference(&mut self, key: &str) {
        self.differences.insert(key.to_owned());
    }

    /// Every difference of the range was handed out.
    pub(super) fn compared(&mut self, range: KeyRange) {
        let mut ranges = std::mem::take(&mut self.compared);
        ranges.push(range);
        self.compared = union(ranges);
        self.advance(None);
    }

    /// The next pair of objects is about to be handed out.
    pub(super) fn pair(&mut self, key: &str) {
        if let Some(pairs) = &mut self.pairs {
            pairs.window.push_back((key.to_owned(), false));
        }
    }

    /// Every pair was handed out.
    pub(super) fn all_pairs(&mut self) {
        if let Some(pairs) = &mut self.pairs {
            pairs.all = true;
        }
        self.advance(None);
    }

    /// A difference, or else a pair, was looked at, and what came of it is recorded.
    pub(super) fn done(&mut self, key: &str, difference: bool) {
        if difference {
            self.differences.remove(key);
        } else if let Some(pairs) = &mut self.pairs {
            pairs.done(key);
        }
        self.advance(Some(key));
    }

    /// Takes the farthest place that is known to be one: where everything reaches, or the key just done.
    fn advance(&mut self, done: Option<&str>) {
        let reach = self.pairs.as_ref().map_or(Reach::End, Pairs::reach).min(self.compared_to());
        let first_open = self.differences.first().map(String::as_str);
        let is_place = |key: &str| {
            let key_reach = Reach::UpTo(Some(key.to_owned()));
            key_reach <= reach && first_open.is_none_or(|open| key < open)
        };
        let reached = match &reach {
            Reach::UpTo(key) => key.as_deref(),
            Reach::End => None,
        };
        let best = [reached, done].into_iter().flatten().filter(|key| is_place(key)).max();
        if let Some(key) =
            best.filter(|key| self.last.as_deref().cmp(&Some(*key)) == Ordering::Less)
        {
            self.last = Some(key.to_owned());
        }
    }

    fn compared_to(&self) -> Reach {
        match self.compared.first() {
            Some(KeyRange { start: None, end: Some(end) }) => Reach::UpTo(Some(end.clone())),
            Some(KeyRange { start: None, end: None }) => Reach::End,
            _ => Reach::UpTo(None),
        }
    }
}

impl Pairs {
    fn done(&mut self, key: &str) {
        // It is near the front: only as many keys are before it as are looked at at once.
        if let Some((_, done)) = self.window.iter_mut().find(|(other, _)| other == key) {
            *done = true;
        }
        while self.window.front().is_some_and(|(_, done)| *done) {
            self.last = self.window.pop_front().map(|(key, _)| key);
        }
    }

    fn reach(&self) -> Reach {
        if self.all && self.window.is_empty() { Reach::End } else { Reach::UpTo(self.last.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: Option<&str>, end: Option<&str>) -> KeyRange {
        KeyRange { start: start.map(str::to_owned), end: end.map(str::to_owned) }
    }

    #[test]
    fn with_differences_alone_it_is_where_the_first_ranges_end_and_all_before_was_looked_at() {
        let mut place = ResumePoint::new(None, false);
        place.difference("d");
        place.compared(range(Some("c"), Some("e")));
        place.done("d", true);
        assert_eq!(place.last(), None, "what lies before that range was not compared");
        place.difference("a");
        place.compared(range(None, Some("c")));
        assert_eq!(place.last(), None, "a was not looked at");
        place.done("a", true);
        assert_eq!(place.last(), Some("e"));
        place.difference("f");
        place.difference("h");
        place.compared(range(Some("e"), None));
        assert_eq!(place.last(), Some("e"), "the end is no key");
        place.done("f", true);
        assert_eq!(place.last(), Some("f"));
    }

    #[test]
    fn with_every_pair_it_is_the_last_before_which_all_are_done_and_compared() {
        let mut place = ResumePoint::new(Some("a"), true);
        assert_eq!(place.last(), Some("a"));
        for key in ["b", "d", "f"] {
            place.pair(key);
        }
        place.done("d", false);
        place.done("b", false);
        assert_eq!(place.last(), Some("a"), "there may be an extra between them");
        place.difference("c");
        place.compared(range(Some("a"), None));
        assert_eq!(place.last(), Some("a"), "there is one");
        place.done("c", true);
        assert_eq!(place.last(), Some("d"));
        place.all_pairs();
        assert_eq!(place.last(), Some("d"), "f is not done");
        place.done("f", false);
        assert_eq!(place.last(), Some("f"));
    }
}
