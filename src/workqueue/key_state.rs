//! The life of one key, as a pure state machine: no clock is read, no lock, no I/O.
//!
//! ```text
//!            mark                start               complete(Settled)
//!   (absent) ────▶ Ready ───────────────▶ InFlight ─────────────────▶ (absent)
//!                    ▲                      │  │ └── marked meanwhile ──▶ Waiting ─┐
//!                    │        due           │  └─ complete(Retry) ──────▶ Waiting  │
//!                    └──────────────────────┼────────────────────────────────◀─────┘
//!                                           └─ complete(Large) ─▶ Ready, large lane
//! ```
//!
//! A key that is settled before its minimum interval has passed is Cooling until then: nothing is left
//! to do, and a mark makes it Waiting rather than Ready.
//!
//! A key is in at most one of these states, so one key is never worked on by two workers; a mark
//! that arrives in flight is kept and worked on again.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::journal::Lsn;

/// A live event lets a failed key wait no longer than this, and no less than the other, and else an eighth of
/// its wait, after the last try: what made it fail may be gone, but a key that many events tell of, and
/// that fails each time, must not be tried as often as they come.
const WAKES_AT_MOST: Duration = Duration::from_secs(15);
const WAKES_AT_LEAST: Duration = Duration::from_secs(1);

/// Which queue a ready key waits in. Small copies never wait behind large ones, and live events
/// go before repairs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// Live events.
    Live,
    /// Repairs of the reconciler.
    Repair,
    /// Objects found to be large.
    Large,
}

/// All that is known of the work a key needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// The oldest journal record that this work stands for; it must not be trimmed before.
    pub first_lsn: Lsn,
    /// The newest one.
    pub last_lsn: Lsn,
    /// The oldest one that told of a removal, since the object was last reported to be there, or a person's approval
    /// since then; 0 if none did.
    removal: Lsn,
    /// What may have changed.
    pub aspects: Aspects,
    /// Live if any of the merged marks was; what was appended again does not take a live one's lane.
    pub origin: Origin,
    /// The oldest change's time (milliseconds since the Unix epoch): the lag is measured from here.
    pub since_ms: i64,
    /// One more than the bytes that the target lacks, as the newest mark that knew it told them: so it takes no
    /// more room than they do.
    size: Option<NonZeroU64>,
    /// Failed tries so far.
    pub attempts: u32,
    /// How often the source answered 404 although what was reported last is that the object is there.
    pub unseen: u8,
    /// A try found that the object is large.
    pub large: bool,
}

impl Pending {
    /// The work that one journal record asks for.
    pub(super) fn new(dirty: &DirtyKey, lsn: Lsn) -> Self {
        Self {
            first_lsn: lsn,
            last_lsn: lsn,
            removal: if dirty.aspects.has(Aspects::REMOVED) { lsn } else { 0 },
            aspects: dirty.aspects,
            origin: dirty.origin,
            since_ms: dirty.since_ms,
            size: one_more(dirty.size),
            attempts: 0,
            unseen: 0,
            large: false,
        }
    }

    /// Whether an event says that the object is there, and none since then that it went away. A 404 of the source
    /// contradicts that: it may show what was written only in a moment.
    pub fn is_reported_present(&self) -> bool {
        let told = self.aspects.has(Aspects::CONTENT) || self.aspects.has(Aspects::TAGS);
        self.origin.is_live() && told && !self.aspects.has(Aspects::REMOVED)
    }

    /// The record whose number says whether a person's decision about deletes came after the removal: that of an
    /// approval, or the oldest that told of the removal, or else the newest of all.
    pub const fn removal(&self) -> Lsn {
        if self.removal > 0 { self.removal } else { self.last_lsn }
    }

    /// The bytes that the target lacks, as the newest mark that knew it told them.
    pub fn size(&self) -> Option<u64> {
        self.size.map(|size| size.get() - 1)
    }

    /// The queue it belongs in.
    pub(super) fn lane(&self) -> Lane {
        match (self.large, self.origin) {
            (true, _) => Lane::Large,
            (false, Origin::Live) => Lane::Live,
            (false, Origin::LiveAgain | Origin::Repair) => Lane::Repair,
        }
    }

    /// Whether a record told of it that was appended again, or came back from a shelf: it says what stood when it left
    /// memory, and its number is younger than what it says.
    fn is_from_before(&self) -> bool {
        let moved = Aspects::APPROVED.with(Aspects::DUE).with(Aspects::DISCARDED);
        self.origin == Origin::LiveAgain || self.aspects.without(moved) != self.aspects
    }

    /// Whether it is what a person has just approved.
    fn is_approval(&self) -> bool {
        self.aspects.has(Aspects::APPROVED) && self.origin != Origin::LiveAgain
    }

    /// Whether it tells, late or once more, of a removal before all that `present` tells of, which says that the object is
    /// there. Both times are the source's; should its clock have been set back meanwhile, the source is asked for half a
    /// minute before anything is removed.
    fn is_removal_before(&self, present: &Self) -> bool {
        let removal = self.origin == Origin::Live && self.aspects.has(Aspects::REMOVED);
        removal && present.is_reported_present() && self.since_ms < present.since_ms
    }

    /// Both marks as one: level-triggered work loses nothing by merging.
    fn merge(&mut self, other: &Self) {
        let other_is_older = match (self.is_from_before(), other.is_from_before()) {
            (true, false) => false,
            (false, true) => true,
            // What a person approves was looked at after it left memory.
            (true, true) if self.is_approval() != other.is_approval() => self.is_approval(),
            (true, true) | (false, false) => {
                let first = other.last_lsn < self.last_lsn && !self.is_removal_before(other);
                first || other.is_removal_before(self)
            }
        };
        let (older, newer) = if other_is_older { (other, &*self) } else { (&*self, other) };
        let (aspects, size) = (together(older, newer), newer.size.or(older.size));
        let since_ms = if older.is_removal_before(newer) {
            newer.since_ms
        } else {
            older.since_ms.min(newer.since_ms)
        };
        let removal = if !aspects.has(Aspects::REMOVED) {
            0
        } else if let Some(approved) =
            [newer, older].into_iter().find(|mark| mark.aspects.has(Aspects::APPROVED))
        {
            approved.removal
        } else {
            match (older.removal, newer.removal) {
                (0, removal) | (removal, 0) => removal,
                (one, another) => one.min(another),
            }
        };
        // A new report that the object is there has its own half minute.
        let so_far = if newer.is_reported_present() { older.unseen.min(1) } else { older.unseen };
        let unseen = so_far.max(newer.unseen);
        (self.aspects, self.size, self.removal, self.unseen) = (aspects, size, removal, unseen);
        self.first_lsn = self.first_lsn.min(other.first_lsn);
        self.last_lsn = self.last_lsn.max(other.last_lsn);
        self.origin = self.origin.min(other.origin);
        self.since_ms = since_ms;
        self.attempts = self.attempts.max(other.attempts);
        self.large |= other.large;
    }
}

fn one_more(size: Option<u64>) -> Option<NonZeroU64> {
    size.and_then(|size| NonZeroU64::new(size.saturating_add(1)))
}

/// What two marks of a key ask for. All of both, but: an event that says that the object is there takes back
/// what an older one said of its removal, and a pass does not gainsay it; of a person's decisions the newer stands;
/// and a delete that is reported anew has not waited for its delay.
fn together(older: &Pending, newer: &Pending) -> Aspects {
    let mut all = older.aspects.with(newer.aspects);
    let present = newer.is_reported_present();
    if present || newer.origin == Origin::Repair && older.is_reported_present() {
        all = all.without(Aspects::REMOVED);
    }
    if present {
        all = all.without(Aspects::APPROVED).without(Aspects::DISCARDED);
    }
    if newer.aspects.has(Aspects::DISCARDED) {
        all = all.without(Aspects::APPROVED);
    } else if newer.aspects.has(Aspects::APPROVED) {
        all = all.without(Aspects::DISCARDED);
    }
    let anew = |mark: &Pending| mark.origin.is_live() && !mark.aspects.has(Aspects::DUE);
    if anew(older) || anew(newer) {
        all = all.without(Aspects::DUE);
    }
    all
}

/// How a try failed.
#[derive(PartialEq, Eq, Debug)]
pub struct Failure {
    /// The error's class, as in metrics.
    pub class: &'static str,
    /// The error, for people.
    pub reason: Arc<str>,
    /// A live event may bring the next try forward to this time.
    wakes: Instant,
}

/// Why a key waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wait {
    /// A try failed; this is what it said. Such a key is *parked*.
    Failed(Arc<Failure>),
    /// The key was copied a moment ago and is hot, or the source does not show yet what was reported to be there
    /// ([`Pending::unseen`]).
    Hot,
}

/// Where a key is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum KeyState {
    /// In a ready queue.
    Ready(Pending),
    /// With a worker.
    InFlight {
        /// What the worker was given.
        work: Pending,
        /// What was marked since; few keys have it, so that all others are the smaller.
        again: Option<Box<Pending>>,
    },
    /// In the delay queue.
    Waiting {
        /// The work.
        work: Pending,
        /// Why it waits.
        wait: Wait,
        /// Until when.
        until: Instant,
    },
    /// Settled a moment ago; only remembered, so that it is not copied again too soon.
    Cooling {
        /// Until when.
        until: Instant,
    },
}

/// How a try ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The target agrees with the source as it was when it was read.
    Settled,
    /// The key belongs in the lane for large objects.
    Large,
    /// The source answered 404 to what was reported to be there; nothing was done. It is asked again after this time.
    Unseen(Duration),
    /// The try failed; try again after the delay.
    Retry {
        /// The wait.
        after: Duration,
        /// The error's class.
        class: &'static str,
        /// The error, for people.
        reason: Arc<str>,
    },
}

/// What the owner of the queues must do after a transition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// Put the key at the end of this ready queue.
    Enqueue(Lane),
    /// Put the key in the delay queue.
    Delay(Instant),
    /// Forget the key.
    Remove,
}

impl KeyState {
    /// The oldest record this key still needs, if any. A mark that came in flight may be older than the
    /// work, when the work's record was appended again.
    pub(super) fn first_lsn(&self) -> Option<Lsn> {
        let first = self.work()?.first_lsn;
        if let Self::InFlight { again: Some(again), .. } = self {
            Some(first.min(again.first_lsn))
        } else {
            Some(first)
        }
    }

    /// The oldest work of the key, if any is left.
    pub(super) fn work(&self) -> Option<&Pending> {
        match self {
            Self::Ready(work) | Self::InFlight { work, .. } | Self::Waiting { work, .. } => {
                Some(work)
            }
            Self::Cooling { .. } => None,
        }
    }

    /// All that is left to do for the key, if a worker has it with what was marked since.
    pub(super) fn unfinished(&self) -> Option<Pending> {
        let mut all = self.work()?.clone();
        if let Self::InFlight { again: Some(again), .. } = self {
            all.merge(again);
        }
        Some(all)
    }

    /// The bytes that the target lacks, as far as they are known.
    pub(super) fn size(&self) -> Option<u64> {
        let marked = match self {
            Self::InFlight { again, .. } => again.as_ref().and_then(|again| again.size()),
            Self::Ready(_) | Self::Waiting { .. } | Self::Cooling { .. } => None,
        };
        marked.or(self.work()?.size())
    }

    /// A further mark of a key that is already known.
    ///
    /// A live event brings a parked key's next try forward, because what made it fail may be gone; a repair, and
    /// any mark of a hot key, waits as long as the key does. What the source does not show yet is only woken by an
    /// event that says that it went away.
    pub(super) fn mark(&mut self, new: Pending, now: Instant) -> Effect {
        match self {
            Self::Ready(work) => {
                let lane = work.lane();
                work.merge(&new);
                // The entry in the lane for repairs stays behind and is dropped when its turn comes.
                if work.lane() == lane { Effect::None } else { Effect::Enqueue(work.lane()) }
            }
            Self::InFlight { again, .. } => {
                match again {
                    Some(pending) => pending.merge(&new),
                    None => *again = Some(Box::new(new)),
                }
                Effect::None
            }
            Self::Waiting { work, wait, until } => {
                let live = new.origin == Origin::Live;
                let gone = live && new.aspects.has(Aspects::REMOVED);
                work.merge(&new);
                let wakes = match wait {
                    Wait::Failed(failure) => live.then_some(failure.wakes),
                    Wait::Hot => (work.unseen > 0 && gone).then_some(now),
                };
                // Once a wait: the entry in the delay queue stays behind, and there must not be many.
                let Some(wakes) = wakes.filter(|wakes| *wakes < *until) else {
                    return Effect::None;
                };
                *until = wakes;
                let until = *until;
                if until <= now { self.due(now) } else { Effect::Delay(until) }
            }
            Self::Cooling { until } => {
                // It is in the delay queue already.
                *self = Self::Waiting { work: new, wait: Wait::Hot, until: *until };
                Effect::None
            }
        }
    }

    /// It is `now`: a waiting key whose time has come is ready, and one that only cooled is forgotten.
    /// One whose time has not come was woken and parked again since, and waits on.
    pub(super) fn due(&mut self, now: Instant) -> Effect {
        match self {
            Self::Waiting { work, until, .. } if *until <= now => {
                let work = work.clone();
                let lane = work.lane();
                *self = Self::Ready(work);
                Effect::Enqueue(lane)
            }
            Self::Cooling { until } if *until <= now => Effect::Remove,
            Self::Ready(_)
            | Self::InFlight { .. }
            | Self::Waiting { .. }
            | Self::Cooling { .. } => Effect::None,
        }
    }

    /// A key whose last try failed is ready before its time.
    pub(super) fn retry_now(&mut self, now: Instant) -> Effect {
        if let Self::Waiting { wait: Wait::Failed(_), until, .. } = self {
            *until = now;
            return self.due(now);
        }
        Effect::None
    }

    /// A worker takes the key; `None` when it is not ready (a stale queue entry).
    pub(super) fn start(&mut self) -> Option<Pending> {
        let Self::Ready(work) = self else { return None };
        let work = work.clone();
        *self = Self::InFlight { work: work.clone(), again: None };
        Some(work)
    }

    /// The worker is done. The key's minimum interval ends at `cool`.
    pub(super) fn complete(&mut self, outcome: Outcome, now: Instant, cool: Instant) -> Effect {
        let Self::InFlight { work, again } = self else { return Effect::None };
        let mut work = work.clone();
        let again = again.take();
        match (outcome, again) {
            (Outcome::Settled, None) if cool <= now => Effect::Remove,
            (Outcome::Settled, None) => {
                *self = Self::Cooling { until: cool };
                Effect::Delay(cool)
            }
            (Outcome::Settled, Some(again)) if cool <= now => {
                let lane = again.lane();
                *self = Self::Ready(*again);
                Effect::Enqueue(lane)
            }
            (Outcome::Settled, Some(again)) => {
                *self = Self::Waiting { work: *again, wait: Wait::Hot, until: cool };
                Effect::Delay(cool)
            }
            (Outcome::Large, again) => {
                work.large = true;
                if let Some(again) = again {
                    work.merge(&again);
                }
                *self = Self::Ready(work);
                Effect::Enqueue(Lane::Large)
            }
            (Outcome::Unseen(after), again) => {
                work.unseen = work.unseen.saturating_add(1);
                let until = if let Some(again) = again {
                    work.merge(&again);
                    // What was reported meanwhile may explain it.
                    if work.is_reported_present() { now + after } else { cool.max(now) }
                } else {
                    now + after
                };
                *self = Self::Waiting { work, wait: Wait::Hot, until };
                Effect::Delay(until)
            }
            (Outcome::Retry { after, class, reason }, again) => {
                work.attempts = work.attempts.saturating_add(1);
                if let Some(again) = again {
                    work.merge(&again);
                }
                let until = now + after;
                let soonest = (after / 8).clamp(WAKES_AT_LEAST, WAKES_AT_MOST);
                let wakes = (now + soonest).max(cool).min(until);
                let wait = Wait::Failed(Arc::new(Failure { class, reason, wakes }));
                *self = Self::Waiting { work, wait, until };
                Effect::Delay(until)
            }
        }
    }

    /// These records are another process's business now. Returns whether the key stays, as one in
    /// flight does, and the oldest record of which nothing is left here.
    pub(super) fn forget(&mut self, records: &RangeInclusive<Lsn>) -> (bool, Option<Lsn>) {
        let concerned = |work: &Pending| records.contains(&work.first_lsn);
        match self {
            Self::InFlight { again, .. } => {
                (true, again.take_if(|again| concerned(again)).map(|again| again.first_lsn))
            }
            Self::Ready(work) | Self::Waiting { work, .. } if concerned(work) => {
                (false, Some(work.first_lsn))
            }
            Self::Ready(_) | Self::Waiting { .. } | Self::Cooling { .. } => (true, None),
        }
    }

    /// Whether the last try failed, and the next one waits for its time.
    pub(super) fn is_parked(&self) -> bool {
        matches!(self, Self::Waiting { wait: Wait::Failed(_), .. })
    }

    /// Whether a try found that the object is large, and no worker has it.
    pub(super) fn waits_as_large(&self) -> bool {
        matches!(self, Self::Ready(work) if work.large)
    }

    /// What [`KeyState::unfinished`] said was appended again as `lsn`, and nothing was marked since: the old records may
    /// be trimmed.
    pub(super) fn rebase(&mut self, lsn: Lsn) {
        match self {
            Self::InFlight { work, again } => {
                work.first_lsn = work.first_lsn.max(lsn);
                if let Some(again) = again {
                    again.first_lsn = again.first_lsn.max(lsn);
                }
            }
            Self::Ready(work) | Self::Waiting { work, .. } => {
                work.first_lsn = work.first_lsn.max(lsn);
            }
            Self::Cooling { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
