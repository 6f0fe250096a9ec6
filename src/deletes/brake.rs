//! The brake on deletes: pure counting, no clock, no I/O.
//!
//! A burst of confirmed deletes that looks like a disaster is held for a person to approve. Once a bucket's
//! brake is on, every further delete in it is held until someone approves or discards.
//!
//! **What counts.** A key counts once in a window, however often its delete is tried or reported, until its object
//! is there again. Time is
//! monotonic milliseconds of this process: a wall clock that steps neither hides deletes nor piles them up.
//! Counters go into a [`Saved`] and come back from it at the next start, as old as they were.
//!
//! **What is too much.** More than `deletes.max_deletes` in the window; or, beyond [`FEW_DELETES`], more than
//! `deletes.max_delete_percent` of the objects that the last complete pass found, unless the source
//! still lists that share of them ([`Admission::Count`]); or a source that lists nothing ([`Brakes::pull`]).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::verdict::FEW_DELETES;
use crate::clock;
use crate::config::settings::DeleteSettings;

/// The window is counted in this many parts.
const SLOTS: u64 = 10;
/// At most this many keys of a bucket and a part of the window are told apart; beyond them tries count.
const MOST_KEYS: usize = 1 << 16;

/// Whether a delete that the source has confirmed may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may.
    Allow,
    /// By the numbers it is one too many, unless the source still lists at least this many objects.
    Count(u64),
    /// It is held, and why.
    Hold(Arc<str>),
    /// A person wants the object to stay.
    Keep,
}

/// The deletes of one part of the window.
#[derive(Debug, Default)]
struct Slot {
    number: u64,
    /// Fingerprints of the keys.
    keys: HashSet<u64>,
    /// Deletes that are known by number only: beyond [`MOST_KEYS`], or of an earlier process.
    others: u64,
}

#[derive(Debug, Default)]
struct Brake {
    slots: VecDeque<Slot>,
    /// Objects at the target, by the last complete pass.
    objects: Option<u64>,
    on: Option<On>,
}

/// Why a brake is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct On {
    /// For people.
    pub(crate) reason: Arc<str>,
    /// Since when, milliseconds since the Unix epoch; only shown.
    pub(crate) since_ms: i64,
    /// Its cause is looked for at each start, and says itself when it has ended: it is not saved.
    #[serde(skip)]
    pub(crate) found_at_start: bool,
}

/// What of a bucket's brake outlives the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedBrake {
    /// Deletes by their age when this was written, in milliseconds, newest last.
    pub(crate) recent: Vec<(u64, u64)>,
    /// Objects at the target, by the last complete pass.
    #[serde(default)]
    pub(crate) objects: Option<u64>,
    /// Set while the brake is on.
    #[serde(default)]
    pub(crate) on: Option<On>,
}

/// The brakes of all buckets as they outlive the process.
pub(crate) type Saved = BTreeMap<Arc<str>, SavedBrake>;

/// The brakes of all buckets.
#[derive(Debug)]
pub(crate) struct Brakes {
    max_deletes: u64,
    max_percent: u64,
    slot_ms: u64,
    buckets: BTreeMap<Arc<str>, Brake>,
    /// Grows with each change that is worth a [`Saved`].
    changes: u64,
}

impl Brakes {
    /// With the counters of an earlier process, which were written `ago_ms` before `now_ms`.
    pub(crate) fn new(settings: &DeleteSettings, saved: &Saved, now_ms: u64, ago_ms: u64) -> Self {
        let slot_ms = (clock::millis(settings.window) / SLOTS).max(1);
        let brake = |saved: &SavedBrake| {
            let slot = |(age_ms, count): &(u64, u64)| Slot {
                // Before the beginning of this process's clock counts as its beginning.
                number: now_ms.saturating_sub(age_ms.saturating_add(ago_ms)) / slot_ms,
                keys: HashSet::new(),
                others: *count,
            };
            let young = |(age_ms, _): &&(u64, u64)| age_ms.saturating_add(ago_ms) < slot_ms * SLOTS;
            Brake {
                slots: saved.recent.iter().filter(young).map(slot).collect(),
                objects: saved.objects,
                on: saved.on.clone(),
            }
        };
        Self {
            max_deletes: settings.max_deletes,
            max_percent: settings.max_delete_percent,
            slot_ms,
            buckets: saved.iter().map(|(name, saved)| (Arc::clone(name), brake(saved))).collect(),
            changes: 0,
        }
    }

    /// Decides on one confirmed delete, and counts it if it is allowed. `print` is the key's fingerprint, the
    /// same for each try. `listed` is how many objects the source lists now, as far as that was counted.
    pub(crate) fn admit(
        &mut self,
        bucket: &Arc<str>,
        print: u64,
        listed: Option<u64>,
        now_ms: u64,
    ) -> Admission {
        let (max_deletes, max_percent, slot_ms) =
            (self.max_deletes, self.max_percent, self.slot_ms);
        let brake = self.brake(bucket);
        if let Some(on) = &brake.on {
            return Admission::Hold(Arc::clone(&on.reason));
        }
        let number = now_ms / slot_ms;
        brake.slots.retain(|slot| slot.number + SLOTS > number);
        if brake.slots.iter().any(|slot| slot.keys.contains(&print)) {
            return Admission::Allow;
        }
        let deletes = brake.slots.iter().map(Slot::count).sum::<u64>().saturating_add(1);
        let seconds = slot_ms * SLOTS / 1_000;
        if deletes > max_deletes {
            return Admission::Hold(
                format!(
                    "more than {max_deletes} deletes in {seconds} s (deletes.max_deletes, deletes.window)"
                )
                .into(),
            );
        }
        if let Some(objects) = brake.objects.filter(|_| deletes > FEW_DELETES)
            && is_more(deletes, objects, max_percent)
        {
            let left = left(objects, max_percent);
            match listed {
                None => return Admission::Count(left),
                Some(listed) if listed < left => {
                    return Admission::Hold(
                        format!(
                            "{deletes} of {objects} objects were deleted in {seconds} s, more than \
                             {max_percent} % (deletes.max_delete_percent, deletes.window)"
                        )
                        .into(),
                    );
                }
                // What is deleted here was not there at the last pass: files that come and go.
                Some(_) => {}
            }
        }
        brake.count(number, print);
        self.changes += 1;
        Admission::Allow
    }

    /// Whether so many deletes were counted that only real ones may be counted further: half of what is too much,
    /// or any of an earlier process, whose keys are not known, so that they may be told of again.
    pub(crate) fn is_near(&self, bucket: &str, now_ms: u64) -> bool {
        let Some(brake) = self.buckets.get(bucket) else { return self.max_deletes < FEW_DELETES };
        let number = now_ms / self.slot_ms;
        let slots = brake.slots.iter().filter(|slot| slot.number + SLOTS > number);
        let (mut twice, mut unknown) = (0_u64, false);
        for slot in slots {
            twice = twice.saturating_add(slot.count().saturating_mul(2));
            unknown |= slot.others > 0;
        }
        let share = |objects| twice > FEW_DELETES && is_more(twice, objects, self.max_percent);
        unknown
            || self.max_deletes < FEW_DELETES
            || twice >= self.max_deletes
            || brake.objects.is_some_and(share)
    }

    /// The object is there again: its next delete is another one. As a rule no delete was counted, and then its
    /// fingerprint need not be taken.
    pub(crate) fn returned(&mut self, bucket: &str, print: impl FnOnce() -> u64) {
        let brake = self.buckets.get_mut(bucket).filter(|brake| !brake.slots.is_empty());
        let Some(brake) = brake else { return };
        let print = print();
        for slot in &mut brake.slots {
            if slot.keys.remove(&print) {
                slot.others = slot.others.saturating_add(1);
            }
        }
    }

    /// A complete pass has found so many objects at the target.
    pub(crate) fn sized(&mut self, bucket: &Arc<str>, objects: u64) {
        self.changes += 1;
        self.brake(bucket).objects = Some(objects);
    }

    /// Holds all further deletes in the bucket. Returns whether that is new; the first reason stands.
    pub(crate) fn pull(&mut self, bucket: &Arc<str>, reason: Arc<str>, since_ms: i64) -> bool {
        self.changes += 1;
        let brake = self.brake(bucket);
        let new = brake.on.is_none();
        if new {
            brake.on = Some(On { reason, since_ms, found_at_start: false });
        }
        new
    }

    /// The same, for a cause that each start looks for.
    pub(crate) fn pull_at_start(&mut self, bucket: &Arc<str>, reason: Arc<str>, since_ms: i64) {
        let brake = self.brake(bucket);
        brake.on.get_or_insert(On { reason, since_ms, found_at_start: true });
    }

    /// A person decided on the held deletes: counting begins afresh. Returns whether the brake was on.
    pub(crate) fn release(&mut self, bucket: &str) -> bool {
        self.changes += 1;
        let Some(brake) = self.buckets.get_mut(bucket) else { return false };
        brake.slots.clear();
        brake.on.take().is_some()
    }

    /// Why the bucket's brake is on, if it is.
    pub(crate) fn reason(&self, bucket: &str) -> Option<Arc<str>> {
        self.buckets.get(bucket)?.on.as_ref().map(|on| Arc::clone(&on.reason))
    }

    /// The brakes that are on.
    pub(crate) fn on(&self) -> impl Iterator<Item = (&Arc<str>, &On)> {
        self.buckets.iter().filter_map(|(bucket, brake)| Some((bucket, brake.on.as_ref()?)))
    }

    /// What is to outlive the process, as of `now_ms`.
    pub(crate) fn save(&self, now_ms: u64) -> Saved {
        let number = now_ms / self.slot_ms;
        let age = |slot: &Slot| (number.saturating_sub(slot.number) * self.slot_ms, slot.count());
        let saved = |brake: &Brake| SavedBrake {
            recent: brake.slots.iter().filter(|s| s.number + SLOTS > number).map(age).collect(),
            objects: brake.objects,
            on: brake.on.clone().filter(|on| !on.found_at_start),
        };
        self.buckets.iter().map(|(name, brake)| (Arc::clone(name), saved(brake))).collect()
    }

    /// Another number than before if anything changed that [`Brakes::save`] would write.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    fn brake(&mut self, bucket: &Arc<str>) -> &mut Brake {
        if !self.buckets.contains_key(bucket) {
            self.buckets.insert(Arc::clone(bucket), Brake::default());
        }
        self.buckets.entry(Arc::clone(bucket)).or_default()
    }
}

impl Brake {
    fn count(&mut self, number: u64, print: u64) {
        if self.slots.back().is_none_or(|slot| slot.number != number) {
            self.slots.push_back(Slot { number, ..Slot::default() });
        }
        let Some(slot) = self.slots.back_mut() else { return };
        if slot.keys.len() < MOST_KEYS {
            slot.keys.insert(print);
        } else {
            slot.others = slot.others.saturating_add(1);
        }
    }
}

impl Slot {
    fn count(&self) -> u64 {
        (self.keys.len() as u64).saturating_add(self.others)
    }
}

/// Whether `part` is more than `percent` of `whole`.
pub(super) fn is_more(part: u64, whole: u64, percent: u64) -> bool {
    u128::from(part) * 100 > u128::from(whole) * u128::from(percent)
}

/// How many of so many objects are left if not more than `percent` of them went.
fn left(objects: u64, percent: u64) -> u64 {
    let stays = u128::from(100_u64.saturating_sub(percent)) * u128::from(objects);
    u64::try_from(stays.div_ceil(100)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn brakes(max_deletes: u64) -> (Brakes, Arc<str>) {
        (Brakes::new(&settings(max_deletes), &Saved::new(), 0, 0), "b".into())
    }

    fn settings(max_deletes: u64) -> DeleteSettings {
        let window = Duration::from_secs(10);
        DeleteSettings { max_deletes, window, ..DeleteSettings::default() }
    }

    fn held(admission: &Admission) -> bool {
        matches!(admission, Admission::Hold(_))
    }

    #[test]
    fn deletes_beyond_the_maximum_in_a_window_are_held_until_released() {
        let (mut brakes, bucket) = brakes(3);
        for key in 0..3 {
            assert_eq!(brakes.admit(&bucket, key, None, 1_000), Admission::Allow);
        }
        let Admission::Hold(reason) = brakes.admit(&bucket, 4, None, 1_000) else { panic!() };
        assert!(brakes.pull(&bucket, Arc::clone(&reason), 7));
        assert!(!brakes.pull(&bucket, "another".into(), 8), "the first reason stands");
        // The brake stays on although the window has passed.
        assert_eq!(brakes.admit(&bucket, 4, None, 100_000), Admission::Hold(reason));
        assert!(brakes.release("b") && !brakes.release("b"));
        assert_eq!(brakes.admit(&bucket, 4, None, 100_000), Admission::Allow);
    }

    #[test]
    fn a_key_whose_delete_is_tried_again_counts_once() {
        let (mut brakes, bucket) = brakes(30);
        for attempt in 0..4 {
            for key in 0..10 {
                let admission = brakes.admit(&bucket, key, None, attempt * 500);
                assert_eq!(admission, Admission::Allow);
            }
        }
        assert_eq!(brakes.save(2_000)["b"].recent.iter().map(|slot| slot.1).sum::<u64>(), 10);
    }

    #[test]
    fn a_delete_of_an_object_that_was_there_again_is_another_one() {
        let (mut brakes, bucket) = brakes(3);
        for _ in 0..3 {
            assert_eq!(brakes.admit(&bucket, 1, None, 5), Admission::Allow);
            assert_eq!(brakes.admit(&bucket, 1, None, 5), Admission::Allow, "told of again");
            brakes.returned(&bucket, || 1);
            brakes.returned(&bucket, || 2);
        }
        assert!(held(&brakes.admit(&bucket, 1, None, 5)));
    }

    #[test]
    fn what_may_be_told_of_again_after_a_restart_or_is_near_the_limit_is_looked_at_first() {
        let (mut brakes, bucket) = brakes(100);
        brakes.sized(&bucket, 1_000);
        for key in 0..49 {
            brakes.admit(&bucket, key, None, 5);
        }
        assert!(!brakes.is_near("b", 5) && !brakes.is_near("another", 5));
        let again = Brakes::new(&settings(100), &brakes.save(5), 0, 0);
        assert!(again.is_near("b", 0) && !again.is_near("b", 10_001), "it has left the window");
        brakes.admit(&bucket, 49, None, 5);
        assert!(brakes.is_near("b", 5));
        brakes.release("b");
        brakes.sized(&bucket, 50);
        for key in 0..11 {
            brakes.admit(&bucket, key, None, 5);
        }
        assert!(brakes.is_near("b", 5), "22 of 50");
    }

    #[test]
    fn a_steady_trickle_is_never_held() {
        let (mut brakes, bucket) = brakes(3);
        for second in 0..100 {
            let admission = brakes.admit(&bucket, second, None, second * 5_000);
            assert_eq!(admission, Admission::Allow);
        }
    }

    #[test]
    fn more_than_the_share_of_the_last_pass_is_held_by_events_too() {
        let (mut brakes, bucket) = brakes(10_000);
        brakes.sized(&bucket, 659);
        let passed = (0..634)
            .take_while(|key| brakes.admit(&bucket, *key, Some(400), 5) == Admission::Allow)
            .count();
        assert_eq!(passed, 197, "30 % of 659");
        assert_eq!(brakes.admit(&bucket, 900, None, 5), Admission::Count(462));
        assert!(held(&brakes.admit(&bucket, 900, Some(461), 5)));
        // Files that come and go were not there at the last pass, which the source's listing shows.
        assert_eq!(brakes.admit(&bucket, 900, Some(462), 5), Admission::Allow);
    }

    #[test]
    fn a_few_deletes_of_a_small_bucket_are_every_days_work() {
        let (mut brakes, bucket) = brakes(10_000);
        brakes.sized(&bucket, 25);
        for key in 0..FEW_DELETES {
            assert_eq!(brakes.admit(&bucket, key, Some(1), 5), Admission::Allow);
        }
        assert!(held(&brakes.admit(&bucket, 99, Some(1), 5)));
    }

    #[test]
    fn counters_size_and_brake_survive_a_restart_at_any_hour_of_the_clock() {
        let (mut brakes, bucket) = brakes(3);
        brakes.admit(&bucket, 1, None, 50_000);
        brakes.admit(&bucket, 2, None, 55_000);
        brakes.sized(&bucket, 7);
        brakes.pull(&"other".into(), "wiped".into(), 9);
        let saved = brakes.save(56_000);
        let json = serde_json::to_string(&saved).unwrap();
        let saved: Saved = serde_json::from_str(&json).unwrap();

        // Right after it, and with the clock of a process that has just begun.
        let mut again = Brakes::new(&settings(3), &saved, 0, 0);
        assert_eq!(again.reason("other").as_deref(), Some("wiped"));
        assert_eq!(again.on().map(|(_, on)| on.since_ms).collect::<Vec<_>>(), [9]);
        assert_eq!(again.admit(&bucket, 3, None, 0), Admission::Allow);
        assert!(held(&again.admit(&bucket, 4, None, 0)), "two were counted before");
        assert_eq!(again.save(0)["b"].objects, Some(7));

        // Five seconds later the older one has left the window.
        let mut later = Brakes::new(&settings(3), &saved, 1_000_000, 5_000);
        assert_eq!(later.admit(&bucket, 3, None, 1_000_000), Admission::Allow);
        assert_eq!(later.admit(&bucket, 4, None, 1_000_000), Admission::Allow);
        assert!(held(&later.admit(&bucket, 5, None, 1_000_000)));
    }

    #[test]
    fn a_brake_whose_cause_each_start_looks_for_is_not_saved() {
        let (mut brakes, bucket) = brakes(3);
        brakes.pull_at_start(&bucket, "a restore is not finished".into(), 9);
        assert!(held(&brakes.admit(&bucket, 1, None, 5)));
        assert_eq!(brakes.save(5)["b"].on, None);
    }

    #[test]
    fn one_buckets_brake_does_not_hold_another_bucket() {
        let (mut brakes, bucket) = brakes(3);
        brakes.pull(&bucket, "its listing is empty".into(), 0);
        assert!(held(&brakes.admit(&bucket, 1, None, 5)));
        assert_eq!(brakes.admit(&"other".into(), 1, None, 5), Admission::Allow);
    }
}
