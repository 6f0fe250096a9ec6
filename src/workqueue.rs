//! Which keys are pending, in which order, and who works on them.
//!
//! Promise: one key is worked on by one worker at a time, and a change that arrives meanwhile is
//! worked on again. Keys, not events, are kept: marking a key that is already here merges.
//!
//! On error a key waits and comes back ([`Outcome::Retry`]); on cancellation of a worker its key
//! stays in flight until the process ends, and the journal brings it back; a crash loses all of
//! this, and the journal brings it back.

mod aside;
pub mod feeder;
mod key_map;
mod key_state;
#[cfg(test)]
mod model;
mod ready;
mod tally;
mod turns;

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::dirty::{Aspects, DirtyKey};
use crate::journal::Lsn;
use crate::object::ObjectKey;

use aside::Discarded;
use key_map::{Keep, KeyMap};
use key_state::{Effect, KeyState, Lane};
pub use key_state::{Failure, Outcome, Pending, Wait};
use ready::Schedule;
pub use tally::Counts;
pub use turns::{Share, Size};

/// A key handed to a worker, who must give it back with [`WorkQueue::complete`].
#[derive(Debug)]
pub struct Work {
    /// The key.
    pub key: ObjectKey,
    /// What it needs.
    pub pending: Pending,
    started: Instant,
    /// Whose permit it takes.
    size: Size,
}

/// A parked key, for people.
#[derive(Debug, Clone)]
pub struct ParkedKey {
    /// The key.
    pub key: ObjectKey,
    /// The last error's class.
    pub class: &'static str,
    /// The last error.
    pub reason: Arc<str>,
    /// Failed tries so far.
    pub attempts: u32,
    /// How long until the next one.
    pub next_try: Duration,
}

/// The queue; shared by the feeder, the dispatcher and the status page.
#[derive(Debug)]
pub struct WorkQueue {
    keys: KeyMap,
    schedule: Mutex<Schedule>,
    small_ready: Notify,
    large_ready: Notify,
    settled: Notify,
    max_keys: usize,
    min_interval: Duration,
    discarded: OnceLock<Discarded>,
}

impl WorkQueue {
    /// A queue that asks to be fed no more than `max_keys` keys, and hands out a settled key again only
    /// when `min_interval` has passed since it was handed out; but while more than half of its room
    /// is taken, a key that is settled is forgotten at once.
    pub fn new(max_keys: usize, min_interval: Duration) -> Self {
        Self {
            keys: KeyMap::default(),
            schedule: Mutex::default(),
            small_ready: Notify::new(),
            large_ready: Notify::new(),
            settled: Notify::new(),
            max_keys,
            min_interval,
            discarded: OnceLock::new(),
        }
    }

    /// Marks a key dirty on behalf of the journal record `lsn`.
    pub fn mark(&self, dirty: &DirtyKey, lsn: Lsn) {
        let (new, now) = (Pending::new(dirty, lsn), Instant::now());
        self.keys.update(&dirty.key, |state| {
            let (state, effect, old) = match state {
                Some(mut state) => {
                    let old = state.first_lsn();
                    let effect = state.mark(new, now);
                    (state, effect, old)
                }
                None => (KeyState::Ready(new.clone()), Effect::Enqueue(new.lane()), None),
            };
            let mut schedule = self.schedule();
            self.apply(&mut schedule, &dirty.key, (old, state.first_lsn()), effect);
            drop(schedule);
            (Keep::State(state), ())
        });
    }

    /// Waits until there is room for more keys, and says for how many.
    pub async fn room(&self) -> usize {
        loop {
            let settled = self.settled.notified();
            match self.room_now() {
                0 => settled.await,
                room => return room,
            }
        }
    }

    /// For how many more keys there is room.
    pub fn room_now(&self) -> usize {
        self.max_keys.saturating_sub(self.keys.len())
    }

    /// Waits for the next key of the small lanes.
    pub async fn next_small(&self) -> Work {
        self.next(Size::Small, || Share::ALL).await
    }

    /// Waits for the next key of the lane for large objects.
    pub async fn next_large(&self) -> Work {
        self.next(Size::Large, || Share::ALL).await
    }

    /// Waits for the next key of this size that `share` admits.
    pub async fn next(&self, size: Size, share: impl Fn() -> Share) -> Work {
        loop {
            let notified = self.notify(size).notified();
            match self.take(size, share()) {
                (Some(work), _) => return work,
                (None, Some(at)) => drop(tokio::time::timeout_at(at, notified).await),
                (None, None) => notified.await,
            }
        }
    }

    /// The next key of this size, if one is ready and `share` admits it.
    pub fn next_now(&self, size: Size, share: Share) -> Option<Work> {
        self.take(size, share).0
    }

    /// A worker takes no further key, or more may be in flight now: who waits in [`WorkQueue::next`] looks
    /// again. A key that is given back wakes nobody, since its worker takes the next one itself.
    pub fn nudge(&self, size: Size) {
        if self.schedule().turns.any(size) {
            self.notify(size).notify_one();
        }
    }

    /// A bucket that fails has one key in flight at a time, until it is told that it fails no more.
    pub fn set_failing(&self, bucket: &Arc<str>, failing: bool) {
        self.schedule().turns.set_failing(bucket, failing);
        if !failing {
            self.retry_parked(bucket);
            self.nudge(Size::Small);
            self.nudge(Size::Large);
        }
    }

    /// What made the keys of this bucket fail is over: those that are parked need not wait any longer.
    fn retry_parked(&self, bucket: &Arc<str>) {
        let now = Instant::now();
        let parked = self.keys.tally().parked_in(bucket);
        for key in parked {
            self.keys.update(&key, |state| {
                let Some(mut state) = state else { return (Keep::Absent, ()) };
                let lsn = state.first_lsn();
                let effect = state.retry_now(now);
                self.apply(&mut self.schedule(), &key, (lsn, lsn), effect);
                (Keep::State(state), ())
            });
        }
    }

    /// Takes a key back from its worker.
    pub fn complete(&self, work: &Work, outcome: Outcome) {
        let now = Instant::now();
        let crowded = self.keys.len() > self.max_keys / 2;
        let cool = if crowded { now } else { work.started + self.min_interval };
        self.keys.update(&work.key, |state| {
            let mut schedule = self.schedule();
            schedule.turns.given_back(&work.key.bucket, work.size);
            let Some(mut state) = state else { return (Keep::Absent, ()) };
            let old = state.first_lsn();
            let effect = state.complete(outcome, now, cool);
            if effect == Effect::Remove {
                self.apply(&mut schedule, &work.key, (old, None), effect);
                return (Keep::Absent, ());
            }
            self.apply(&mut schedule, &work.key, (old, state.first_lsn()), effect);
            drop(schedule);
            (Keep::State(state), ())
        });
        self.settled.notify_one();
    }

    /// The oldest journal record that any key here still needs.
    pub fn lowest_unfinished(&self) -> Option<Lsn> {
        self.schedule().lowest_unfinished()
    }

    /// The oldest of these records that any key here still needs.
    pub fn lowest_in(&self, records: RangeInclusive<Lsn>) -> Option<Lsn> {
        self.schedule().lowest_in(records)
    }

    /// Forgets the keys whose oldest record is one of these, because another process will be told of
    /// them. A key in flight is forgotten when its worker gives it back settled; what was marked
    /// meanwhile is forgotten now. Returns the oldest record so forgotten.
    pub fn forget(&self, records: &RangeInclusive<Lsn>) -> Option<Lsn> {
        let concerned = self.keys.fold(Vec::new(), |mut found, key, state| {
            if state.first_lsn().is_some_and(|lsn| records.contains(&lsn)) {
                found.push(key.clone());
            }
            found
        });
        let forget = |key: &ObjectKey| {
            self.keys.update(key, |state| {
                let Some(mut state) = state else { return (Keep::Absent, None) };
                let old = state.first_lsn();
                let (stays, forgotten) = state.forget(records);
                let new = state.first_lsn().filter(|_| stays);
                self.schedule().replace(old, new);
                (if stays { Keep::State(state) } else { Keep::Absent }, forgotten)
            })
        };
        let lowest = concerned.iter().filter_map(forget).min();
        self.settled.notify_one();
        lowest
    }

    /// How many keys are where. It costs the same however many there are.
    pub fn counts(&self) -> Counts {
        self.keys.tally().counts()
    }

    /// The same of each bucket that has keys here, by the source's name.
    pub fn by_bucket(&self) -> Vec<(Arc<str>, Counts)> {
        self.keys.tally().by_bucket()
    }

    /// The first `limit` parked keys in the order of their names.
    pub fn parked(&self, limit: usize) -> Vec<ParkedKey> {
        let now = Instant::now();
        let parked = self.keys.tally().parked(limit);
        let shown = |key: ObjectKey| match self.keys.get(&key)? {
            KeyState::Waiting { work, wait: Wait::Failed(failure), until } => {
                let next_try = until.saturating_duration_since(now);
                let (class, reason) = (failure.class, Arc::clone(&failure.reason));
                Some(ParkedKey { key, class, reason, attempts: work.attempts, next_try })
            }
            // It moved on since its name was read.
            KeyState::Waiting { wait: Wait::Hot, .. }
            | KeyState::Ready(_)
            | KeyState::InFlight { .. }
            | KeyState::Cooling { .. } => None,
        };
        parked.into_iter().filter_map(shown).collect()
    }

    /// Whether a delete that a person approved is about to be carried out in this bucket. One that failed may do so
    /// for ever.
    pub fn has_approved(&self, bucket: &str) -> bool {
        self.keys.fold(false, |found, key, state| {
            let approved = |work: &Pending| work.aspects.has(Aspects::APPROVED);
            let about = || !state.is_parked() && state.work().is_some_and(approved);
            found || *key.bucket == *bucket && about()
        })
    }

    /// The most keys this queue asks to be fed.
    pub const fn max_keys(&self) -> usize {
        self.max_keys
    }

    /// A ready key; if there is none, when the next delayed one is due.
    fn take(&self, size: Size, share: Share) -> (Option<Work>, Option<Instant>) {
        self.wake_due();
        loop {
            let (key, due) = {
                let mut schedule = self.schedule();
                (schedule.turns.pop(size, share), schedule.next_due())
            };
            let Some(key) = key else { return (None, due) };
            if let Some(pending) = self.start(&key) {
                return (Some(Work { key, pending, started: Instant::now(), size }), due);
            }
            // The key has moved on since it was put there.
            self.schedule().turns.given_back(&key.bucket, size);
        }
    }

    fn start(&self, key: &ObjectKey) -> Option<Pending> {
        self.keys.update(key, |state| {
            let Some(mut state) = state else { return (Keep::Absent, None) };
            let pending = state.start();
            (Keep::State(state), pending)
        })
    }

    /// Moves delayed keys whose time has come to their ready queues, and forgets those that cooled.
    fn wake_due(&self) {
        let now = Instant::now();
        while let Some(key) = { self.schedule().pop_due(now) } {
            let forgotten = self.keys.update(&key, |state| {
                let Some(mut state) = state else { return (Keep::Absent, false) };
                let lsn = state.first_lsn();
                let effect = state.due(now);
                self.apply(&mut self.schedule(), &key, (lsn, lsn), effect);
                let forget = effect == Effect::Remove;
                (if forget { Keep::Absent } else { Keep::State(state) }, forget)
            });
            if forgotten {
                self.settled.notify_one();
            }
        }
    }

    /// Carries out what a transition asks for; its key needed the one record before, and needs the other now.
    fn apply(
        &self,
        schedule: &mut Schedule,
        key: &ObjectKey,
        (old, new): (Option<Lsn>, Option<Lsn>),
        effect: Effect,
    ) {
        schedule.replace(old, new);
        match effect {
            Effect::None | Effect::Remove => {}
            Effect::Enqueue(lane) => {
                let size = if lane == Lane::Large { Size::Large } else { Size::Small };
                if schedule.turns.push(lane, key.clone()) {
                    self.notify(size).notify_one();
                }
            }
            Effect::Delay(until) => {
                // The dispatchers must learn of an earlier deadline than the one they sleep on; of every
                // key that cools behind others they need not.
                let sooner = schedule.next_due().is_none_or(|due| until < due);
                schedule.delay(until, key.clone());
                if sooner {
                    self.small_ready.notify_one();
                    self.large_ready.notify_one();
                }
            }
        }
    }

    const fn notify(&self, size: Size) -> &Notify {
        match size {
            Size::Small => &self.small_ready,
            Size::Large => &self.large_ready,
        }
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
