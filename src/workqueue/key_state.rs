//! The life of one key, as a pure state machine: no clock is read, no lock, no I/O.
//!
//! ```text
//!            mark                start               complete(Settled)
//!   (absent) ────▶ Ready ───────────────▶ InFlight ─────────────────▶ Cooling ─▶ (absent)
//!                    ▲                      │  │ └── marked meanwhile ──▶ Waiting ─┐
//!                    │        due           │  └─ complete(Retry) ──────▶ Waiting  │
//!                    └──────────────────────┼────────────────────────────────◀─────┘
//!                                           └─ complete(Large) ─▶ Ready, large lane
//! ```
//!
//! A key is in at most one of these states, so one key is never worked on by two workers; a mark
//! that arrives in flight is kept and worked on again, and one that arrives while the key cools waits
//! until it has cooled.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::journal::Lsn;

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
    /// What may have changed.
    pub aspects: Aspects,
    /// Live if any of the merged marks was.
    pub origin: Origin,
    /// The oldest change's time (milliseconds since the Unix epoch): the lag is measured from here.
    pub since_ms: i64,
    /// Failed tries so far.
    pub attempts: u32,
    /// A try found that the object is large.
    pub large: bool,
}

impl Pending {
    /// The work that one journal record asks for.
    pub(super) fn new(dirty: &DirtyKey, lsn: Lsn) -> Self {
        Self {
            first_lsn: lsn,
            aspects: dirty.aspects,
            origin: dirty.origin,
            since_ms: dirty.since_ms,
            attempts: 0,
            large: false,
        }
    }

    /// The queue it belongs in.
    pub(super) fn lane(&self) -> Lane {
        match (self.large, self.origin) {
            (true, _) => Lane::Large,
            (false, Origin::Live) => Lane::Live,
            (false, Origin::Repair) => Lane::Repair,
        }
    }

    /// Both marks as one: level-triggered work loses nothing by merging.
    fn merge(&mut self, other: &Self) {
        self.first_lsn = self.first_lsn.min(other.first_lsn);
        self.aspects = self.aspects.with(other.aspects);
        self.origin = self.origin.min(other.origin);
        self.since_ms = self.since_ms.min(other.since_ms);
        self.attempts = self.attempts.max(other.attempts);
        self.large |= other.large;
    }
}

/// Why a key waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wait {
    /// A try failed; this is what it said. Such a key is *parked*.
    Failed {
        /// The error's class, as in metrics.
        class: &'static str,
        /// The error, for people.
        reason: Arc<str>,
    },
    /// Nothing failed: the key was worked on a moment ago and is hot, or its worker asked for a moment.
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
        /// What was marked since.
        again: Option<Pending>,
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
    /// In the delay queue with nothing to do, so that the next change finds out that the key is hot.
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
    /// Nothing was done and nothing failed; the key's turn comes again after this time.
    Later(Duration),
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
    /// Put the key in the delay queue; it needs no record any more.
    Cool(Instant),
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

    /// The oldest work of the key, if there is any.
    pub(super) fn work(&self) -> Option<&Pending> {
        match self {
            Self::Ready(work) | Self::InFlight { work, .. } | Self::Waiting { work, .. } => {
                Some(work)
            }
            Self::Cooling { .. } => None,
        }
    }

    /// A further mark of a key that is already known.
    ///
    /// A live event wakes a parked key, because what made it fail may be gone; a repair, and any
    /// mark of a hot key, waits as long as the key does.
    pub(super) fn mark(&mut self, new: Pending) -> Effect {
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
                    None => *again = Some(new),
                }
                Effect::None
            }
            Self::Waiting { work, wait, until } => {
                let (wakes, until) = (new.origin == Origin::Live && *wait != Wait::Hot, *until);
                work.merge(&new);
                if wakes { self.due(until) } else { Effect::None }
            }
            Self::Cooling { until } => {
                // It is in the delay queue already.
                *self = Self::Waiting { work: new, wait: Wait::Hot, until: *until };
                Effect::None
            }
        }
    }

    /// It is `now`: a waiting key whose time has come is ready, and one that has cooled is forgotten. One
    /// whose time has not come was woken and parked again since, and waits on.
    pub(super) fn due(&mut self, now: Instant) -> Effect {
        let (Self::Waiting { until, .. } | Self::Cooling { until }) = self else {
            return Effect::None;
        };
        if *until > now {
            return Effect::None;
        }
        let Self::Waiting { work, .. } = self else { return Effect::Remove };
        let work = work.clone();
        let lane = work.lane();
        *self = Self::Ready(work);
        Effect::Enqueue(lane)
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
                Effect::Cool(cool)
            }
            (Outcome::Settled, Some(again)) if cool <= now => {
                let lane = again.lane();
                *self = Self::Ready(again);
                Effect::Enqueue(lane)
            }
            (Outcome::Settled, Some(again)) => {
                *self = Self::Waiting { work: again, wait: Wait::Hot, until: cool };
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
            (Outcome::Later(after), again) => {
                if let Some(again) = again {
                    work.merge(&again);
                }
                let until = now + after;
                *self = Self::Waiting { work, wait: Wait::Hot, until };
                Effect::Delay(until)
            }
            (Outcome::Retry { after, class, reason }, again) => {
                work.attempts = work.attempts.saturating_add(1);
                if let Some(again) = again {
                    work.merge(&again);
                }
                let until = now + after;
                *self = Self::Waiting { work, wait: Wait::Failed { class, reason }, until };
                Effect::Delay(until)
            }
        }
    }

    /// The key's record was appended again as `lsn`, so the old one may be trimmed.
    pub(super) fn rebase(&mut self, lsn: Lsn) {
        match self {
            Self::Ready(work) | Self::InFlight { work, .. } | Self::Waiting { work, .. } => {
                work.first_lsn = work.first_lsn.max(lsn);
            }
            Self::Cooling { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
