//! Ranges of keys, which together tile the key space: pure.

use serde::{Deserialize, Serialize};

/// The keys behind `start`, up to `end` and with it, in UTF-8 byte order.
///
/// A range begins behind a key because that is how a listing can begin.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct KeyRange {
    /// The key before the first; none at the beginning of the key space.
    pub start: Option<String>,
    /// The last key; none at the end of the key space.
    pub end: Option<String>,
}

impl KeyRange {
    /// All keys.
    pub const ALL: Self = Self { start: None, end: None };

    /// Whether `key` is in this range.
    pub fn contains(&self, key: &str) -> bool {
        self.start.as_deref().is_none_or(|start| key > start)
            && self.end.as_deref().is_none_or(|end| key <= end)
    }

    /// What every key of this range begins with.
    pub fn common_prefix(&self) -> &str {
        let (Some(start), Some(end)) = (&self.start, &self.end) else { return "" };
        let mut pairs = start.char_indices().zip(end.chars());
        let length = pairs.find(|((_, a), b)| a != b).map(|((at, _), _)| at);
        start.get(..length.unwrap_or(start.len().min(end.len()))).unwrap_or_default()
    }
}

/// The folder of a key, with its slash; empty for that of the bucket.
pub(super) fn folder(key: &str) -> &str {
    key.rfind('/').and_then(|at| key.get(..=at)).unwrap_or_default()
}

/// The key space, cut behind each of `points`.
pub fn tile(mut points: Vec<String>) -> Vec<KeyRange> {
    points.sort_unstable();
    points.dedup();
    let mut ranges = Vec::with_capacity(points.len() + 1);
    let mut start = None;
    for point in points {
        ranges.push(KeyRange { start, end: Some(point.clone()) });
        start = Some(point);
    }
    ranges.push(KeyRange { start, end: None });
    ranges
}

/// What is left of `ranges` without `done`, in key order.
pub fn without(ranges: Vec<KeyRange>, done: &[KeyRange]) -> Vec<KeyRange> {
    let done = union(done.to_vec());
    let mut left = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut rest = Some(range);
        for done in &done {
            rest = rest.and_then(|range| {
                let (before, behind) = cut(range, done);
                left.extend(before);
                behind
            });
        }
        left.extend(rest);
    }
    left
}

/// What is left of a range before and behind another.
fn cut(range: KeyRange, done: &KeyRange) -> (Option<KeyRange>, Option<KeyRange>) {
    let before = done.start.as_ref().map(|start| KeyRange {
        start: range.start.clone(),
        end: Some(range.end.as_ref().map_or(start, |end| end.min(start)).clone()),
    });
    let behind = done.end.as_ref().map(|end| KeyRange {
        start: Some(range.start.as_ref().map_or(end, |start| start.max(end)).clone()),
        end: range.end,
    });
    (before.filter(is_range), behind.filter(is_range))
}

/// Whether any key can be in it.
fn is_range(range: &KeyRange) -> bool {
    !matches!((&range.start, &range.end), (Some(start), Some(end)) if start >= end)
        && range.end.as_ref().is_none_or(|end| !end.is_empty())
}

/// The same keys in the fewest ranges, in key order: what a caller keeps of the ranges that are done.
pub fn union(mut ranges: Vec<KeyRange>) -> Vec<KeyRange> {
    ranges.retain(is_range);
    ranges.sort_unstable_by(|a, b| a.start.cmp(&b.start));
    let mut joined: Vec<KeyRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end.is_none() => {}
            Some(last) if range.start <= last.end => {
                if range.end.is_none() || range.end > last.end {
                    last.end = range.end;
                }
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// `wanted` of the points, evenly spread; all of them if there are not so many.
pub(super) fn thin(points: Vec<String>, wanted: usize) -> Vec<String> {
    let have = points.len();
    if have <= wanted {
        return points;
    }
    let mut taken = 0;
    let chosen = points.into_iter().enumerate().filter(|(index, _)| {
        // The `taken`th of `wanted` points stands at (taken + 1) / (wanted + 1) of the way.
        let due = (taken + 1) * (have + 1) <= (index + 1) * (wanted + 1);
        taken += usize::from(due && taken < wanted);
        due
    });
    chosen.map(|(_, point)| point).take(wanted).collect()
}

/// The keys that are kept of all that pass by: one of so many, never more than [`MOST`].
#[derive(Debug)]
pub(super) struct Samples {
    every: u64,
    passed: u64,
    points: Vec<String>,
}

/// The largest number of points that a pass remembers.
const MOST: usize = 1024;
/// One key of so many is remembered, while there is room: a page.
const EVERY: u64 = 1000;

impl Samples {
    pub(super) const fn new() -> Self {
        Self { every: EVERY, passed: 0, points: Vec::new() }
    }

    pub(super) fn pass(&mut self, key: &str) {
        self.passed += 1;
        if self.passed == self.every {
            self.passed = 0;
            self.points.push(key.to_owned());
            if self.points.len() > MOST {
                self.coarsen();
            }
        }
    }

    /// Both together, in key order, at the distance of the coarser.
    pub(super) fn join(mut self, mut other: Self) -> Self {
        while self.every < other.every {
            self.coarsen();
        }
        while other.every < self.every {
            other.coarsen();
        }
        self.points.append(&mut other.points);
        self.points.sort_unstable();
        while self.points.len() > MOST {
            self.coarsen();
        }
        self
    }

    pub(super) fn into_points(self) -> Vec<String> {
        self.points
    }

    fn coarsen(&mut self) {
        self.every *= 2;
        let mut odd = true;
        self.points.retain(|_| {
            odd = !odd;
            odd
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Keys in which one is often the beginning of another, and from all over Unicode.
    fn key() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab/]{1,4}",
            "[!-~]{1,8}",
            ".{1,6}",
            "[a\u{7f}\u{80}\u{7ff}\u{ffff}\u{10ffff}]{1,3}"
        ]
    }

    fn keys(most: usize) -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(key(), 0..most)
    }

    fn holders(ranges: &[KeyRange], key: &str) -> usize {
        ranges.iter().filter(|range| range.contains(key)).count()
    }

    proptest! {
        #[test]
        fn ranges_tile_the_key_space(points in keys(12), keys in keys(40)) {
            let ranges = tile(points.clone());
            prop_assert!(ranges.is_sorted_by(|a, b| a.start < b.start));
            for key in keys.iter().chain(&points) {
                prop_assert_eq!(holders(&ranges, key), 1, "{:?}", key);
                let range = ranges.iter().find(|range| range.contains(key)).unwrap();
                prop_assert!(key.starts_with(range.common_prefix()), "{:?} {:?}", key, range);
            }
        }

        #[test]
        fn what_is_done_is_left_out_and_nothing_else(
            points in keys(8), ends in keys(16), keys in keys(40),
        ) {
            let done: Vec<_> = ends.chunks(2).map(|ends| match ends {
                [a, b] => KeyRange { start: Some(a.clone()), end: Some(b.clone()) },
                [a] if a.len() % 2 == 0 => KeyRange { start: Some(a.clone()), end: None },
                [a, ..] => KeyRange { start: None, end: Some(a.clone()) },
                [] => KeyRange::ALL,
            }).collect();
            let left = without(tile(points.clone()), &done);
            let joined = union(done.clone());
            for key in keys.iter().chain(&points).chain(&ends) {
                let is_done = holders(&done, key) > 0;
                prop_assert_eq!(holders(&left, key), usize::from(!is_done), "{:?} {:?}", key, &left);
                prop_assert_eq!(holders(&joined, key), usize::from(is_done), "{:?}", key);
            }
        }

        #[test]
        fn thinned_points_are_spread_evenly(have in 0_usize..200, wanted in 0_usize..40) {
            let points: Vec<_> = (0..have).map(|n| format!("{n:04}")).collect();
            let chosen = thin(points.clone(), wanted);
            prop_assert_eq!(chosen.len(), have.min(wanted));
            let at: Vec<usize> = chosen.iter().map(|point| point.parse().unwrap()).collect();
            if have > wanted && wanted > 0 {
                let gaps = at.windows(2).map(|pair| pair[1] - pair[0]);
                prop_assert!(gaps.clone().max().unwrap_or(0) <= gaps.min().unwrap_or(0) + 1);
            }
        }

        #[test]
        fn samples_are_bounded_and_in_order(counts in prop::collection::vec(0_u64..3_000_000, 1..4)) {
            let samples = counts.iter().enumerate().map(|(worker, &count)| {
                let mut samples = Samples::new();
                let mut left = count;
                while left >= samples.every - samples.passed {
                    left -= samples.every - samples.passed;
                    samples.passed = samples.every - 1;
                    samples.pass(&format!("{worker}{:08}", count - left));
                }
                samples.passed += left;
                samples
            });
            let points = samples.reduce(Samples::join).unwrap().into_points();
            let total: u64 = counts.iter().sum();
            prop_assert!(points.len() <= MOST && points.is_sorted());
            prop_assert!(points.len() as u64 + 4 >= (total / EVERY).min(MOST as u64 / 4));
        }
    }

    #[test]
    fn nothing_is_left_when_all_is_done() {
        assert_eq!(without(tile(vec!["m".to_owned()]), &[KeyRange::ALL]), []);
        let halves = tile(vec!["m".to_owned()]);
        assert_eq!(union(halves), [KeyRange::ALL]);
    }
}
