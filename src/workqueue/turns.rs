//! Whose turn it is: ready keys by bucket, and how many permits each bucket holds.
//!
//! The bucket with the fewest keys in flight goes first, and among equals the one that was served
//! longest ago. So a bucket takes its fair share of the permits and what others leave unused, and its
//! keys wait behind no other bucket's. A bucket that fails has one key in flight at a time, as a trial.
//!
//! Pure values: no clock, no lock, no I/O. Every operation costs the logarithm of the number of
//! buckets; a bucket that once had keys stays, since only configured buckets have any.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::key_state::Lane;
use crate::object::ObjectKey;

/// How many keys of one size a bucket that fails may have in flight.
const TRIALS: u64 = 1;

/// What a key needs: small copies never wait behind large ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// Live events and repairs of small objects.
    Small,
    /// Objects found to be large.
    Large,
}

/// How many keys of one size may be in flight, over all buckets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// As many as any bucket may have.
    pub window: u64,
    /// At most this many more, for buckets that have few in flight or none: however long the requests of
    /// one bucket hang, another bucket gets a permit.
    pub spare: u64,
}

impl Share {
    /// No bound here.
    pub const ALL: Self = Self { window: u64::MAX, spare: 0 };

    /// Whether a bucket that has `held` keys in flight, of `total` over all buckets, may have one more.
    const fn admits(self, held: u64, total: u64) -> bool {
        let Some(over) = total.checked_sub(self.window) else { return true };
        if over < self.spare / 2 { held < self.spare } else { over < self.spare && held == 0 }
    }
}

#[derive(Debug, Default)]
struct PerLane<T> {
    live: T,
    repair: T,
    large: T,
}

impl<T> PerLane<T> {
    const fn of(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Live => &mut self.live,
            Lane::Repair => &mut self.repair,
            Lane::Large => &mut self.large,
        }
    }
}

#[derive(Debug, Default)]
struct PerSize<T> {
    small: T,
    large: T,
}

impl<T: Copy> PerSize<T> {
    const fn at(&self, size: Size) -> T {
        match size {
            Size::Small => self.small,
            Size::Large => self.large,
        }
    }

    const fn of(&mut self, size: Size) -> &mut T {
        match size {
            Size::Small => &mut self.small,
            Size::Large => &mut self.large,
        }
    }
}

/// A bucket's place in a lane: first by how many keys it has in flight, then by when it was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    held: u64,
    served: u64,
    bucket: usize,
}

/// One bucket's ready keys of one lane.
#[derive(Debug, Default)]
struct Line {
    keys: VecDeque<Arc<str>>,
    /// When a key of it was handed out last, as a number that grows.
    served: u64,
    /// Where the bucket is in the lane; nowhere while it has no key here, or may have no further one.
    turn: Option<Turn>,
}

#[derive(Debug)]
struct Bucket {
    name: Arc<str>,
    lines: PerLane<Line>,
    held: PerSize<u64>,
    failing: bool,
}

/// The ready keys of all buckets.
#[derive(Debug)]
pub(super) struct Turns {
    names: HashMap<Arc<str>, usize>,
    buckets: Vec<Bucket>,
    lanes: PerLane<BTreeSet<Turn>>,
    total: PerSize<u64>,
    /// As last told.
    share: PerSize<Share>,
    served: u64,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            buckets: Vec::new(),
            lanes: PerLane::default(),
            total: PerSize::default(),
            share: PerSize { small: Share::ALL, large: Share::ALL },
            served: 0,
        }
    }
}

impl Turns {
    /// Puts a key at the end of its bucket's line. Returns whether the bucket may have a key handed out
    /// now; if not, it may when a key in flight was given back.
    pub(super) fn push(&mut self, lane: Lane, key: ObjectKey) -> bool {
        let index = self.index(&key.bucket);
        let (size, Some(bucket)) = (size_of(lane), self.buckets.get_mut(index)) else {
            return false;
        };
        bucket.lines.of(lane).keys.push_back(key.key);
        let held = bucket.held.at(size);
        self.place(index, lane);
        let waits = self.buckets.get(index).is_some_and(|bucket| blocked(bucket, size));
        !waits && self.share.at(size).admits(held, self.total.at(size))
    }

    /// The next key of this size, whose bucket holds it until [`Turns::given_back`]: live before repair.
    pub(super) fn pop(&mut self, size: Size, share: Share) -> Option<ObjectKey> {
        *self.share.of(size) = share;
        let lane = lanes_of(size).iter().copied().find(|lane| {
            let first = self.lanes.of(*lane).first();
            first.is_some_and(|turn| share.admits(turn.held, self.total.at(size)))
        })?;
        let turn = *self.lanes.of(lane).first()?;
        self.served += 1;
        let bucket = self.buckets.get_mut(turn.bucket)?;
        let ready = bucket.lines.of(lane);
        let key = ready.keys.pop_front()?;
        ready.served = self.served;
        *bucket.held.of(size) += 1;
        *self.total.of(size) += 1;
        let key = ObjectKey { bucket: Arc::clone(&bucket.name), key };
        self.place_all(turn.bucket, size);
        Some(key)
    }

    /// A key of this bucket is in flight no more.
    pub(super) fn given_back(&mut self, bucket: &str, size: Size) {
        let Some(index) = self.names.get(bucket).copied() else { return };
        let Some(bucket) = self.buckets.get_mut(index) else { return };
        let held = bucket.held.of(size);
        *held = held.saturating_sub(1);
        let total = self.total.of(size);
        *total = total.saturating_sub(1);
        self.place_all(index, size);
    }

    /// From now on the bucket has one key in flight at a time, or no longer.
    pub(super) fn set_failing(&mut self, bucket: &Arc<str>, failing: bool) {
        let index = self.index(bucket);
        if let Some(bucket) = self.buckets.get_mut(index) {
            bucket.failing = failing;
        }
        self.place_all(index, Size::Small);
        self.place_all(index, Size::Large);
    }

    /// The buckets that have one key in flight at a time.
    pub(super) fn failing(&self) -> HashSet<Arc<str>> {
        let failing = self.buckets.iter().filter(|bucket| bucket.failing);
        failing.map(|bucket| Arc::clone(&bucket.name)).collect()
    }

    /// Whether a bucket has keys of this size that may be handed out when there is room.
    pub(super) fn any(&mut self, size: Size) -> bool {
        lanes_of(size).iter().any(|lane| !self.lanes.of(*lane).is_empty())
    }

    fn index(&mut self, name: &Arc<str>) -> usize {
        if let Some(index) = self.names.get(name) {
            return *index;
        }
        let index = self.buckets.len();
        self.names.insert(Arc::clone(name), index);
        self.buckets.push(Bucket {
            name: Arc::clone(name),
            lines: PerLane::default(),
            held: PerSize::default(),
            failing: false,
        });
        index
    }

    fn place_all(&mut self, index: usize, size: Size) {
        for lane in lanes_of(size) {
            self.place(index, *lane);
        }
    }

    /// Puts the bucket where it belongs in the lane now.
    fn place(&mut self, index: usize, lane: Lane) {
        let Some(bucket) = self.buckets.get_mut(index) else { return };
        let size = size_of(lane);
        let (held, blocked) = (bucket.held.at(size), blocked(bucket, size));
        let ready = bucket.lines.of(lane);
        let listed = !ready.keys.is_empty() && !blocked;
        let turn = listed.then_some(Turn { held, served: ready.served, bucket: index });
        if turn == ready.turn {
            return;
        }
        let turns = self.lanes.of(lane);
        if let Some(old) = ready.turn.take() {
            turns.remove(&old);
        }
        turns.extend(turn);
        ready.turn = turn;
    }
}

const fn blocked(bucket: &Bucket, size: Size) -> bool {
    bucket.failing && bucket.held.at(size) >= TRIALS
}

const fn size_of(lane: Lane) -> Size {
    match lane {
        Lane::Live | Lane::Repair => Size::Small,
        Lane::Large => Size::Large,
    }
}

const fn lanes_of(size: Size) -> &'static [Lane] {
    match size {
        Size::Small => &[Lane::Live, Lane::Repair],
        Size::Large => &[Lane::Large],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(buckets: &[(&str, usize)]) -> Turns {
        let mut turns = Turns::default();
        for (bucket, keys) in buckets {
            for key in 0..*keys {
                turns.push(Lane::Live, ObjectKey::new(*bucket, key.to_string()));
            }
        }
        turns
    }

    fn small(turns: &mut Turns, share: Share) -> Option<String> {
        turns.pop(Size::Small, share).map(|key| key.bucket.to_string())
    }

    #[test]
    fn a_key_waits_behind_no_other_buckets_ten_thousand() {
        let mut turns = filled(&[("full", 10_000), ("other", 1)]);
        let served = [small(&mut turns, Share::ALL), small(&mut turns, Share::ALL)];
        assert_eq!(served.map(Option::unwrap), ["full", "other"]);
    }

    #[test]
    fn buckets_with_ready_keys_share_the_permits_equally() {
        let mut turns = filled(&[("a", 100), ("b", 100), ("c", 2)]);
        let share = Share { window: 12, spare: 0 };
        let mut held = HashMap::<String, u64>::new();
        while let Some(bucket) = small(&mut turns, share) {
            *held.entry(bucket).or_default() += 1;
        }
        assert_eq!((held["a"], held["b"], held["c"]), (5, 5, 2));
        // What c gave back, and leaves unused, is for the others.
        turns.given_back("c", Size::Small);
        assert_eq!(small(&mut turns, share).unwrap(), "a");
        assert_eq!(small(&mut turns, share), None);
    }

    #[test]
    fn a_bucket_that_holds_every_permit_leaves_some_for_the_others() {
        let mut turns = filled(&[("hangs", 1_000)]);
        let share = Share { window: 64, spare: 8 };
        let held = std::iter::from_fn(|| small(&mut turns, share)).count();
        assert_eq!(held, 64);
        let new =
            |turns: &mut Turns, bucket: &str| turns.push(Lane::Repair, ObjectKey::new(bucket, "k"));
        for _ in 0..4 {
            assert!(new(&mut turns, "b"), "it may be handed out at once");
            assert_eq!(small(&mut turns, share).unwrap(), "b");
        }
        assert!(!new(&mut turns, "b"), "the last ones are for buckets that have none");
        for bucket in ["c", "d", "e", "f"] {
            assert!(new(&mut turns, bucket));
            assert_eq!(small(&mut turns, share).unwrap(), bucket);
        }
        assert!(!new(&mut turns, "g"));
        assert_eq!(small(&mut turns, share), None);
    }

    #[test]
    fn a_failing_bucket_has_one_key_in_flight_until_it_recovers() {
        let mut turns = filled(&[("fails", 3), ("works", 3)]);
        turns.set_failing(&"fails".into(), true);
        let served: Vec<_> = std::iter::from_fn(|| small(&mut turns, Share::ALL)).collect();
        assert_eq!(served, ["fails", "works", "works", "works"]);
        assert!(!turns.push(Lane::Live, ObjectKey::new("fails", "new")));
        turns.given_back("fails", Size::Small);
        assert_eq!(small(&mut turns, Share::ALL).unwrap(), "fails");
        assert_eq!(small(&mut turns, Share::ALL), None);
        turns.set_failing(&"fails".into(), false);
        assert_eq!(std::iter::from_fn(|| small(&mut turns, Share::ALL)).count(), 2);
    }

    #[test]
    fn large_objects_take_turns_and_permits_of_their_own() {
        let mut turns = filled(&[("a", 1)]);
        for bucket in ["a", "a", "b"] {
            turns.push(Lane::Large, ObjectKey::new(bucket, "large"));
        }
        let share = Share { window: 2, spare: 1 };
        let large = std::iter::from_fn(|| turns.pop(Size::Large, share));
        assert_eq!(large.map(|key| key.bucket.to_string()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(small(&mut turns, share).is_some());
    }
}
