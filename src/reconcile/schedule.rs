//! Which bucket is reconciled when, and why: pure, the clock is an argument.
//!
//! At most one pass of a bucket runs at a time. Reasons that come together are one pass; a reason
//! that comes while a pass runs is worth another one, because the keys already seen may have changed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// How many buckets are walked at once.
const SIDE_BY_SIDE: usize = 2;
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

#[derive(Debug)]
struct Bucket {
    running: bool,
    /// When the whole bucket is to be walked next.
    whole: Option<(Instant, Trigger)>,
    prefixes: VecDeque<String>,
    /// When the last pass of the whole bucket began.
    began: Option<Instant>,
    gap_wait: Duration,
    failures: u32,
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
            running: false,
            whole: Some((now, Trigger::Start)),
            prefixes: VecDeque::new(),
            began: None,
            gap_wait: GAP_FIRST_WAIT,
            failures: 0,
        };
        Self { interval, buckets: buckets.map(|name| (name, bucket())).collect() }
    }

    /// No pass runs any more, and what happened meanwhile was not seen.
    pub(super) fn restarted(&mut self, now: Instant) {
        for bucket in self.buckets.values_mut() {
            bucket.running = false;
            bucket.due_by(now, Trigger::Start);
        }
    }

    /// A person wants a bucket, or one prefix of it, to be walked now. Returns whether it is known.
    pub(super) fn request(&mut self, bucket: &str, prefix: Option<&str>, now: Instant) -> bool {
        let Some(bucket) = self.buckets.get_mut(bucket) else { return false };
        match prefix.filter(|prefix| !prefix.is_empty()) {
            Some(prefix) if bucket.prefixes.len() < MOST_PREFIXES => {
                if !bucket.prefixes.iter().any(|waiting| waiting == prefix) {
                    bucket.prefixes.push_back(prefix.to_owned());
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
            if bucket.running {
                continue;
            }
            let earliest = bucket.began.map_or(now, |began| began + bucket.gap_wait);
            bucket.due_by(earliest.max(now + GAP_SETTLES), Trigger::Gap);
        }
    }

    /// The next pass that is due, which thereby begins.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        if self.buckets.values().filter(|bucket| bucket.running).count() >= SIDE_BY_SIDE {
            return None;
        }
        self.buckets.iter_mut().find_map(|(name, bucket)| {
            let (prefix, trigger) = bucket.take(now)?;
            Some(Job { bucket: Arc::clone(name), prefix, trigger })
        })
    }

    /// When the next pass is due.
    #[cfg(test)]
    fn wake(&self) -> Option<Instant> {
        let due = |bucket: &Bucket| bucket.whole.filter(|_| !bucket.running).map(|(at, _)| at);
        self.buckets.values().filter_map(due).min()
    }

    /// A pass ended. `gap` is whether the bucket still has one; `jitter`, from 0 to 1, spreads the
    /// passes of many buckets and of many evermirrors.
    pub(super) fn ended(&mut self, job: &Job, how: Ended, gap: bool, now: Instant, jitter: f64) {
        let interval = self.interval;
        let Some(bucket) = self.buckets.get_mut(&job.bucket) else { return };
        bucket.running = false;
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
                let most = if interval.is_zero() { LONGEST_WAIT } else { interval };
                bucket.due_by(now + wait.min(most).min(LONGEST_WAIT), Trigger::Retry);
            }
        }
    }
}

impl Bucket {
    /// The earliest reason counts.
    fn due_by(&mut self, at: Instant, trigger: Trigger) {
        if self.whole.is_none_or(|(due, _)| at < due) {
            self.whole = Some((at, trigger));
        }
    }

    fn take(&mut self, now: Instant) -> Option<(Option<String>, Trigger)> {
        if self.running {
            return None;
        }
        let taken = match self.whole.take_if(|(at, _)| *at <= now) {
            Some((_, trigger)) => {
                // It sees all that anyone asked for.
                self.prefixes.clear();
                self.began = Some(now);
                (None, trigger)
            }
            None => (Some(self.prefixes.pop_front()?), Trigger::Request),
        };
        self.running = true;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn schedule(interval: Duration, names: &[&str]) -> (Schedule, Instant) {
        let now = Instant::now();
        (Schedule::new(interval, names.iter().map(|name| Arc::from(*name)), now), now)
    }

    /// Runs what is due now, to a complete end.
    fn pass(schedule: &mut Schedule, now: Instant, gap: bool) -> Job {
        let job = schedule.next(now).expect("a pass is due");
        schedule.ended(&job, Ended::Complete, gap, now, 0.5);
        job
    }

    #[test]
    fn every_bucket_is_walked_at_the_start_and_then_by_the_interval_give_or_take_a_tenth() {
        let (mut schedule, now) = schedule(HOUR, &["a", "b"]);
        for (name, jitter) in [("a", 0.0), ("b", 1.0)] {
            let job = schedule.next(now).unwrap();
            assert_eq!((&*job.bucket, job.trigger), (name, Trigger::Start));
            schedule.ended(&job, Ended::Complete, false, now, jitter);
        }
        assert_eq!(schedule.wake(), Some(now + HOUR.mul_f64(0.9)));
        assert_eq!(schedule.next(now + HOUR.mul_f64(0.89)), None);
        let job = schedule.next(now + HOUR.mul_f64(1.05)).unwrap();
        assert_eq!((&*job.bucket, job.trigger), ("a", Trigger::Interval));
        assert_eq!(&*schedule.next(now + HOUR.mul_f64(1.11)).unwrap().bucket, "b");
    }

    #[test]
    fn without_an_interval_nothing_is_due_after_the_start() {
        let (mut schedule, now) = schedule(Duration::ZERO, &["a"]);
        pass(&mut schedule, now, false);
        assert_eq!((schedule.wake(), schedule.next(now + HOUR * 1_000)), (None, None));
    }

    #[test]
    fn a_bucket_has_one_pass_at_a_time_and_a_request_meanwhile_is_another_one() {
        let (mut schedule, now) = schedule(HOUR, &["a"]);
        let job = schedule.next(now).unwrap();
        assert!(schedule.request("a", None, now) && schedule.request("a", None, now));
        assert_eq!(schedule.next(now), None);
        schedule.ended(&job, Ended::Complete, false, now, 0.5);
        assert_eq!(pass(&mut schedule, now, false).trigger, Trigger::Request);
        assert_eq!(schedule.next(now), None, "both requests were one");
        assert!(!schedule.request("unknown", None, now));
    }

    #[test]
    fn only_so_many_buckets_are_walked_at_once() {
        let (mut schedule, now) = schedule(HOUR, &["a", "b", "c"]);
        let first = schedule.next(now).unwrap();
        assert!(schedule.next(now).is_some());
        assert_eq!(schedule.next(now), None);
        schedule.ended(&first, Ended::Complete, false, now, 0.5);
        assert_eq!(&*schedule.next(now).unwrap().bucket, "c");
    }

    #[test]
    fn a_gap_is_soon_followed_by_one_pass() {
        let (mut schedule, now) = schedule(HOUR, &["a"]);
        pass(&mut schedule, now, false);
        let later = now + HOUR / 2;
        for tick in 0..3 {
            schedule.gaps(["a", "unknown"].into_iter(), later + SECOND * tick);
        }
        assert_eq!(schedule.wake(), Some(later + GAP_SETTLES));
        assert_eq!(pass(&mut schedule, later + GAP_SETTLES, false).trigger, Trigger::Gap);
        assert_eq!(schedule.next(later + GAP_SETTLES * 2), None);
    }

    #[test]
    fn a_gap_that_never_closes_is_no_endless_loop_of_passes() {
        let (mut schedule, start) = schedule(Duration::ZERO, &["a"]);
        let passes = (0..36_000)
            .map(|second| start + SECOND * second)
            .filter(|now| {
                schedule.gaps(std::iter::once("a"), *now);
                let job = schedule.next(*now);
                job.inspect(|job| schedule.ended(job, Ended::Complete, true, *now, 0.5)).is_some()
            })
            .count();
        // In ten hours: at the start, after 2, 4, … minutes, then hourly.
        assert_eq!(passes, 14);
    }

    #[test]
    fn a_failed_pass_is_tried_again_ever_later_but_within_the_interval() {
        let (mut schedule, mut now) = schedule(Duration::from_mins(5), &["a"]);
        let mut waits = Vec::new();
        for _ in 0..7 {
            let job = schedule.next(now).unwrap();
            schedule.ended(&job, Ended::Failed, true, now, 0.5);
            let next = schedule.wake().unwrap();
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 300, 300]);
        assert_eq!(pass(&mut schedule, now, false).trigger, Trigger::Retry);
    }

    #[test]
    fn a_resumed_pass_is_followed_by_a_whole_one_at_once() {
        let (mut schedule, now) = schedule(HOUR, &["a"]);
        let job = schedule.next(now).unwrap();
        schedule.ended(&job, Ended::Resumed, true, now, 0.5);
        assert_eq!(pass(&mut schedule, now, false).trigger, Trigger::FollowUp);
    }

    #[test]
    fn prefixes_are_walked_one_by_one_and_too_many_of_them_are_the_whole_bucket() {
        let (mut schedule, now) = schedule(HOUR, &["a"]);
        pass(&mut schedule, now, false);
        for prefix in ["x/", "y/", "x/"] {
            assert!(schedule.request("a", Some(prefix), now));
        }
        for prefix in ["x/", "y/"] {
            assert_eq!(pass(&mut schedule, now, false).prefix.as_deref(), Some(prefix));
        }
        assert_eq!(schedule.next(now), None);
        for number in 0..=MOST_PREFIXES {
            schedule.request("a", Some(&number.to_string()), now);
        }
        assert_eq!(pass(&mut schedule, now, false).prefix, None);
        assert_eq!(schedule.next(now), None, "the whole bucket covers its prefixes");
    }
}
