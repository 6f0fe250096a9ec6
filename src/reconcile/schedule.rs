//! Which bucket is reconciled when, and why: pure, the clock is an argument.
//!
//! At most one pass of a bucket runs at a time. Reasons that come together are one pass; a reason
//! that comes while a pass runs is worth another one, because the keys already seen may have changed.
//!
//! There are two lanes with slots of their own, so that neither can starve the other: *urgent* for gaps
//! and requests, *routine* for everything else. Within a lane the bucket that has been due longest goes
//! first. A pass that runs for long (a first copy of a large bucket, whose repairs wait for the work queue)
//! gives its slot to another bucket and continues beside it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// How many buckets of a lane are walked at once, long passes apart.
const SIDE_BY_SIDE: usize = 2;
/// A pass that has run for this long gives its slot away.
const LONG: Duration = Duration::from_mins(10);
/// At most this many long passes of a lane continue without a slot: a pass holds some pages of both listings
/// in memory.
const MOST_LONG: usize = 4;
/// Requests for single prefixes of a bucket that may wait; more become one for the whole bucket.
const MOST_PREFIXES: usize = 16;
/// A gap often grows for a moment: one pass for all of it.
const GAP_SETTLES: Duration = Duration::from_secs(2);
/// From the beginning of one pass to the next because of a gap; doubled while the gap stays, since
/// its cause (a full journal) then persists.
const GAP_FIRST_WAIT: Duration = Duration::from_mins(1);
/// How long a failed pass waits; doubled with each failure.
const RETRY_FIRST_WAIT: Duration = Duration::from_secs(15);
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Why a pass runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// evermirror was started: what happened before was not seen.
    Start,
    /// `reconcile.interval` has passed.
    Interval,
    /// Events may have been missed.
    Gap,
    /// A person asked for it.
    Request,
    /// The pass before failed.
    Retry,
    /// The pass before only finished what an interrupted one had left.
    FollowUp,
}

impl Trigger {
    /// The name in logs, as in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Interval => "interval",
            Self::Gap => "gap",
            Self::Request => "request",
            Self::Retry => "retry",
            Self::FollowUp => "follow_up",
        }
    }
}

/// A pass to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) bucket: Arc<str>,
    /// Only this part of it.
    pub(super) prefix: Option<String>,
    pub(super) trigger: Trigger,
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Every key was compared.
    Complete,
    /// The ranges that an interrupted pass had left were compared; the others may have changed since.
    Resumed,
    /// It came to no end.
    Failed,
}

/// Whose slots a pass takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// Events were missed, or a person waits.
    Urgent,
    /// The clock says so.
    Routine,
}

impl Lane {
    const fn of(trigger: Trigger) -> Self {
        match trigger {
            Trigger::Gap | Trigger::Request => Self::Urgent,
            Trigger::Start | Trigger::Interval | Trigger::Retry | Trigger::FollowUp => {
                Self::Routine
            }
        }
    }
}

#[derive(Debug)]
struct Bucket {
    /// Since when a pass runs, and in which lane.
    running: Option<(Instant, Lane)>,
    /// When the whole bucket is to be walked next, for an urgent reason and by the clock.
    urgent: Option<(Instant, Trigger)>,
    routine: Option<(Instant, Trigger)>,
    /// Prefixes that a person waits for, and since when.
    prefixes: VecDeque<(Instant, String)>,
    /// When the last pass of the whole bucket began.
    began: Option<Instant>,
    gap_wait: Duration,
    failures: u32,
    /// Among buckets that are due since the same moment, as at the start, the lowest goes first.
    rank: Option<i64>,
}

/// The plan for all buckets.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Zero: no pass for the sake of time alone.
    interval: Duration,
    buckets: BTreeMap<Arc<str>, Bucket>,
}

impl Schedule {
    /// Every bucket is due at once.
    pub(super) fn new(
        interval: Duration,
        buckets: impl Iterator<Item = Arc<str>>,
        now: Instant,
    ) -> Self {
        let bucket = || Bucket {
            running: None,
            urgent: None,
            routine: Some((now, Trigger::Start)),
            prefixes: VecDeque::new(),
            began: None,
            gap_wait: GAP_FIRST_WAIT,
            failures: 0,
            rank: None,
        };
        Self { interval, buckets: buckets.map(|name| (name, bucket())).collect() }
    }

    /// No pass runs any more, and what happened meanwhile was not seen. `last_complete_ms` is when a bucket
    /// was last compared as a whole, if it ever was: the longest ago goes first, lest frequent restarts always
    /// begin with the same ones.
    pub(super) fn restarted(
        &mut self,
        last_complete_ms: impl Fn(&str) -> Option<i64>,
        now: Instant,
    ) {
        for (name, bucket) in &mut self.buckets {
            bucket.running = None;
            bucket.rank = last_complete_ms(name);
            bucket.due_by(now, Trigger::Start);
        }
    }

    /// A person wants a bucket, or one prefix of it, to be walked now. Returns whether it is known.
    pub(super) fn request(&mut self, bucket: &str, prefix: Option<&str>, now: Instant) -> bool {
        let Some(bucket) = self.buckets.get_mut(bucket) else { return false };
        match prefix.filter(|prefix| !prefix.is_empty()) {
            Some(prefix) if bucket.prefixes.len() < MOST_PREFIXES => {
                if !bucket.prefixes.iter().any(|(_, waiting)| waiting == prefix) {
                    bucket.prefixes.push_back((now, prefix.to_owned()));
                }
            }
            _ => bucket.due_by(now, Trigger::Request),
        }
        true
    }

    /// These buckets have a gap.
    pub(super) fn gaps<'a>(&mut self, gaps: impl Iterator<Item = &'a str>, now: Instant) {
        for name in gaps {
            let Some(bucket) = self.buckets.get_mut(name) else { continue };
            // A pass that runs may clear it; whether it did is seen when it ends.
            if bucket.running.is_some() {
                continue;
            }
            let earliest = bucket.began.map_or(now, |began| began + bucket.gap_wait);
            bucket.due_by(earliest.max(now + GAP_SETTLES), Trigger::Gap);
        }
    }

    /// The next pass that is due, which thereby begins.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        self.next_in(Lane::Urgent, now).or_else(|| self.next_in(Lane::Routine, now))
    }

    fn next_in(&mut self, lane: Lane, now: Instant) -> Option<Job> {
        if !self.has_slot(lane, now) {
            return None;
        }
        let due = self.buckets.iter_mut().filter_map(|(name, bucket)| {
            let since = bucket.due_in(lane, now)?;
            Some((since, bucket.rank, name, bucket))
        });
        let (_, _, name, bucket) =
            due.min_by_key(|(since, rank, name, _)| (*since, *rank, *name))?;
        let (prefix, trigger) = bucket.begin(lane, now)?;
        Some(Job { bucket: Arc::clone(name), prefix, trigger })
    }

    fn has_slot(&self, lane: Lane, now: Instant) -> bool {
        let running = self.buckets.values().filter_map(|bucket| bucket.running);
        let ages = running.filter(|(_, of)| *of == lane).map(|(since, _)| now - since);
        let (long, fresh): (Vec<_>, Vec<_>) = ages.partition(|age| *age >= LONG);
        fresh.len() + long.len().saturating_sub(MOST_LONG) < SIDE_BY_SIDE
    }

    /// When the next pass is due.
    #[cfg(test)]
    fn wake(&self) -> Option<Instant> {
        let waiting = self.buckets.values().filter(|bucket| bucket.running.is_none());
        let due = waiting.flat_map(|bucket| [bucket.urgent, bucket.routine]);
        due.flatten().map(|(at, _)| at).min()
    }

    /// A pass ended. `gap` is whether the bucket still has one; `jitter`, from 0 to 1, spreads the
    /// passes of many buckets and of many evermirrors.
    pub(super) fn ended(&mut self, job: &Job, how: Ended, gap: bool, now: Instant, jitter: f64) {
        let interval = self.interval;
        let Some(bucket) = self.buckets.get_mut(&job.bucket) else { return };
        bucket.running = None;
        if job.prefix.is_some() {
            // What it failed to see, the next pass of the whole bucket sees.
            return;
        }
        match how {
            Ended::Complete => {
                bucket.failures = 0;
                bucket.gap_wait =
                    if gap { (bucket.gap_wait * 2).min(LONGEST_WAIT) } else { GAP_FIRST_WAIT };
                if !interval.is_zero() {
                    let next = now + interval.mul_f64(0.9 + 0.2 * jitter);
                    bucket.due_by(next, Trigger::Interval);
                }
            }
            Ended::Resumed => bucket.due_by(now, Trigger::FollowUp),
            Ended::Failed => {
                let wait = RETRY_FIRST_WAIT * 2_u32.saturating_pow(bucket.failures.min(16));
                bucket.failures = bucket.failures.saturating_add(1);
                if gap {
                    bucket.gap_wait = (bucket.gap_wait * 2).min(LONGEST_WAIT);
                }
                let most = if interval.is_zero() { LONGEST_WAIT } else { interval };
                bucket.due_by(now + wait.min(most).min(LONGEST_WAIT), Trigger::Retry);
            }
        }
    }
}

impl Bucket {
    /// In each lane the earliest reason counts.
    fn due_by(&mut self, at: Instant, trigger: Trigger) {
        let whole = match Lane::of(trigger) {
            Lane::Urgent => &mut self.urgent,
            Lane::Routine => &mut self.routine,
        };
        if whole.is_none_or(|(due, _)| at < due) {
            *whole = Some((at, trigger));
        }
    }

    /// Since when a pass has been due in this lane, if one is.
    fn due_in(&self, lane: Lane, now: Instant) -> Option<Instant> {
        if self.running.is_some() {
            return None;
        }
        let since = match lane {
            Lane::Urgent => {
                let prefix = self.prefixes.front().map(|(since, _)| *since);
                self.urgent.map(|(at, _)| at).into_iter().chain(prefix).min()
            }
            Lane::Routine => self.routine.map(|(at, _)| at),
        };
        since.filter(|since| *since <= now)
    }

    /// Takes what is due, as much of it as one pass can do.
    fn begin(&mut self, lane: Lane, now: Instant) -> Option<(Option<String>, Trigger)> {
        let is_due = |(at, _): &(Instant, Trigger)| *at <= now;
        let whole = match (self.urgent.filter(is_due), self.routine.filter(is_due), lane) {
            (Some((_, trigger)), _, _) | (None, Some((_, trigger)), Lane::Routine) => Some(trigger),
            // A prefix was requested, and all of it is due.
            (None, Some(_), Lane::Urgent) => Some(Trigger::Request),
            (None, None, _) => None,
        };
        let taken = if let Some(trigger) = whole {
            // It sees all that anyone asked for.
            self.prefixes.clear();
            (self.urgent, self.routine) = (None, None);
            self.began = Some(now);
            (None, trigger)
        } else {
            (Some(self.prefixes.pop_front()?.1), Trigger::Request)
        };
        self.running = Some((now, lane));
        Some(taken)
    }
}

#[cfg(test)]
mod tests;
