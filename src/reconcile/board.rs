//! Who works on which range: pure. Ranges are cut while they are worked on.
//!
//! Promise: whatever is taken, claimed, cut and finished in whatever order, the finished ranges
//! tile what the board began with.

use std::collections::{BTreeMap, VecDeque};

use super::ranges::{KeyRange, union};

/// A range that is worked on.
pub(super) type WorkId = u64;

/// Only a range of which so many pages were claimed is worth being cut.
const WORTH: u32 = 3;
/// After a search for a place to cut found none, so many pages pass before the next.
const BARREN: u32 = 8;

#[derive(Debug)]
struct Work {
    range: KeyRange,
    /// Keys up to here belong to the worker.
    claimed: Option<String>,
    claims: u32,
    goes_on: bool,
    /// Not to be cut before so many claims; never while it is being searched.
    rest_until: u32,
}

/// All ranges that are not finished.
#[derive(Debug)]
pub(super) struct Board {
    waiting: VecDeque<KeyRange>,
    working: BTreeMap<WorkId, Work>,
    last_id: WorkId,
}

impl Board {
    pub(super) fn new(ranges: Vec<KeyRange>) -> Self {
        Self { waiting: ranges.into(), working: BTreeMap::new(), last_id: 0 }
    }

    /// Hands out a range.
    pub(super) fn take(&mut self) -> Option<(WorkId, KeyRange)> {
        let range = self.waiting.pop_front()?;
        self.last_id += 1;
        let work = Work {
            range: range.clone(),
            claimed: None,
            claims: 0,
            goes_on: true,
            rest_until: WORTH,
        };
        self.working.insert(self.last_id, work);
        Some((self.last_id, range))
    }

    /// Claims the keys up to `key`, and gives where the claim ends: there, or sooner at the end of a
    /// range that was cut. `goes_on`: more of the range is still to be listed.
    pub(super) fn claim(&mut self, id: WorkId, key: &str, goes_on: bool) -> Option<&KeyRange> {
        let work = self.working.get_mut(&id)?;
        let end = work.range.end.as_deref().map_or(key, |end| end.min(key)).to_owned();
        work.claimed = Some(end);
        work.claims += 1;
        work.goes_on = goes_on;
        Some(&work.range)
    }

    /// Takes a range off, and gives what it was in the end.
    pub(super) fn finish(&mut self, id: WorkId) -> Option<KeyRange> {
        self.working.remove(&id).map(|work| work.range)
    }

    /// Takes back a range of which nothing was claimed, and joins it to those beside it that wait.
    pub(super) fn give_back(&mut self, id: WorkId) {
        let Some(work) = self.working.remove(&id) else { return };
        let mut waiting: Vec<_> = std::mem::take(&mut self.waiting).into();
        waiting.push(work.range);
        self.waiting = union(waiting).into();
    }

    /// Nothing is left to do, now or later.
    pub(super) fn is_finished(&self) -> bool {
        self.waiting.is_empty() && self.working.is_empty()
    }

    /// The range that is most worth being cut: the one that has been worked on for longest. What
    /// is left of it is given, and nobody else will search it until [`Board::cut`].
    pub(super) fn search(&mut self) -> Option<(WorkId, String, Option<String>)> {
        let worth = self.working.iter_mut().filter(|(_, work)| {
            work.goes_on && work.claimed.is_some() && work.claims >= work.rest_until
        });
        let (&id, work) = worth.max_by_key(|(_, work)| work.claims)?;
        work.rest_until = u32::MAX;
        Some((id, work.claimed.clone()?, work.range.end.clone()))
    }

    /// Cuts a range behind those of `points` (in order) that lie before it; gives how many there were.
    pub(super) fn cut(&mut self, id: WorkId, points: Vec<String>) -> usize {
        let Some(work) = self.working.get_mut(&id) else { return 0 };
        let mut end = work.range.end.take();
        let mut cuts = 0;
        for point in points.into_iter().rev() {
            let inside = work.claimed.as_ref().is_none_or(|claimed| point > *claimed)
                && work.range.start.as_ref().is_none_or(|start| point > *start)
                && end.as_ref().is_none_or(|end| point < *end);
            if inside {
                self.waiting.push_front(KeyRange { start: Some(point.clone()), end });
                end = Some(point);
                cuts += 1;
            }
        }
        work.range.end = end;
        let rest = if cuts == 0 { BARREN } else { WORTH };
        work.rest_until = work.claims.saturating_add(rest);
        cuts
    }

    /// Cuts every range behind those of `points` (in order) that lie in what nobody has claimed of it.
    pub(super) fn cut_all(&mut self, points: &[String]) {
        let working: Vec<_> = self.working.keys().copied().collect();
        for id in working {
            self.cut(id, points.to_vec());
        }
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        self.waiting = waiting.flat_map(|range| pieces(range, points)).collect();
    }
}

/// A range, cut behind those of `points` (in order) that lie in it.
fn pieces(mut range: KeyRange, points: &[String]) -> Vec<KeyRange> {
    let mut pieces = Vec::new();
    for point in points {
        let inside = range.start.as_ref().is_none_or(|start| point > start)
            && range.end.as_ref().is_none_or(|end| point < end);
        if inside {
            let start = range.start.replace(point.clone());
            pieces.push(KeyRange { start, end: Some(point.clone()) });
        }
    }
    pieces.push(range);
    pieces
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::reconcile::ranges::tile;

    #[derive(Debug, Clone)]
    enum Step {
        Take,
        Work { worker: usize, keys: usize },
        Cut { points: Vec<String> },
        CutAll { points: Vec<String> },
        GiveBack,
    }

    fn key() -> impl Strategy<Value = String> {
        prop_oneof!["[ab/]{1,4}", "[!-~]{1,3}", ".{1,3}"]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Take),
            Just(Step::GiveBack),
            (0_usize..4, 1_usize..6).prop_map(|(worker, keys)| Step::Work { worker, keys }),
            prop::collection::vec(key(), 0..4).prop_map(|points| Step::Cut { points }),
            prop::collection::vec(key(), 0..4).prop_map(|points| Step::CutAll { points }),
        ]
    }

    /// A worker that visits keys in order, as far as it has claimed them.
    struct Worker {
        id: WorkId,
        at: Option<String>,
    }

    fn work(
        board: &mut Board,
        worker: &mut Worker,
        keys: &BTreeSet<String>,
        most: usize,
        seen: &mut Vec<String>,
    ) -> Option<KeyRange> {
        let range = board.working[&worker.id].range.clone();
        let ahead: Vec<_> = keys
            .iter()
            .filter(|key| range.contains(key) && worker.at.as_ref().is_none_or(|at| *key > at))
            .take(most)
            .cloned()
            .collect();
        let Some(last) = ahead.last() else { return board.finish(worker.id) };
        let range = board.claim(worker.id, last, true)?;
        seen.extend(ahead.iter().filter(|key| range.contains(key)).cloned());
        worker.at = Some(last.clone());
        None
    }

    proptest! {
        #[test]
        fn no_key_is_missed_or_visited_twice(
            points in prop::collection::vec(key(), 0..4),
            keys in prop::collection::btree_set(key(), 0..60),
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let mut board = Board::new(tile(points));
            let (mut workers, mut seen, mut done) = (Vec::new(), Vec::new(), Vec::new());
            let rest = std::iter::repeat_n([Step::Take, Step::Work { worker: 0, keys: 9 }], 200);
            for step in steps.into_iter().chain(rest.flatten()) {
                match step {
                    Step::Take => workers.extend(
                        board.take().map(|(id, range)| Worker { id, at: range.start }),
                    ),
                    Step::Work { worker, keys: most } if worker < workers.len() => {
                        let finished =
                            work(&mut board, &mut workers[worker], &keys, most, &mut seen);
                        if let Some(range) = finished {
                            done.push(range);
                            workers.remove(worker);
                        }
                    }
                    Step::Work { .. } => {}
                    Step::GiveBack => {
                        let untouched = |worker: &Worker| board.working[&worker.id].claims == 0;
                        if let Some(at) = workers.iter().position(untouched) {
                            board.give_back(workers.remove(at).id);
                        }
                    }
                    Step::Cut { mut points } => if let Some((id, ..)) = board.search() {
                        points.sort_unstable();
                        board.cut(id, points);
                    },
                    Step::CutAll { mut points } => {
                        points.sort_unstable();
                        board.cut_all(&points);
                    }
                }
            }
            prop_assert!(board.is_finished());
            seen.sort_unstable();
            prop_assert_eq!(seen, keys.into_iter().collect::<Vec<_>>());
            done.sort_unstable_by(|a, b| a.start.cmp(&b.start));
            prop_assert!(done.windows(2).all(|pair| pair[0].end == pair[1].start), "{:?}", done);
            prop_assert_eq!(union(done), [KeyRange::ALL]);
        }
    }

    #[test]
    fn only_a_long_range_is_cut_and_never_by_two_at_once() {
        let mut board = Board::new(vec![KeyRange::ALL]);
        let (id, _) = board.take().unwrap();
        assert!(board.search().is_none());
        for key in ["Z", "a", "b"] {
            board.claim(id, key, true).unwrap();
        }
        assert_eq!(board.search(), Some((id, "b".to_owned(), None)));
        assert!(board.search().is_none());
        let points = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(board.cut(id, points), 2);
        assert_eq!(board.take().unwrap().1.start.as_deref(), Some("c"));
        assert_eq!(board.claim(id, "z", true).unwrap().end.as_deref(), Some("c"));
    }
}
