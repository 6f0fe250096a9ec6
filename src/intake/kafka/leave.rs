//! How partitions are given up: no further record of them, no further key; what is in flight is waited
//! for; what is done is committed; then they go. If that takes longer than `drain_timeout`, or if they
//! are another process's already, they go as they are, and what is not committed is read again there: a key that
//! is still in flight here then has two workers for a while. Should the older upload land last, a reconcile
//! finds it.

use std::time::Duration;

use tokio::time::Instant;

use super::keep::Keeper;
use super::lsn::{TopicPartition, shown};
use super::partitions::Partitions;

/// How long an answer about committed offsets may take.
pub(super) const LAST_COMMIT: Duration = Duration::from_secs(5);

/// Partitions on their way out.
#[derive(Debug)]
pub(super) struct Leaving {
    places: Vec<TopicPartition>,
    /// Those of them that the group wants back.
    revoked: Vec<TopicPartition>,
    until: Instant,
    lost: bool,
    /// Nothing is in flight any more, or it took too long: the last commit has time until then.
    last_commit: Option<Instant>,
}

impl Leaving {
    pub(super) fn has(&self, place: TopicPartition) -> bool {
        self.places.contains(&place)
    }

    /// Whether it is on its way out, and another process's already.
    pub(super) fn is_lost(&self, place: TopicPartition) -> bool {
        self.lost && self.has(place)
    }

    /// Nothing yet; what is added has time until then.
    pub(super) const fn until(until: Instant) -> Self {
        Self { places: Vec::new(), revoked: Vec::new(), until, lost: false, last_commit: None }
    }

    /// These, too.
    pub(super) fn add(&mut self, places: Vec<TopicPartition>, revoked: bool, lost: bool) {
        self.lost |= lost;
        if revoked {
            self.revoked.extend(&places);
        }
        self.places.extend(places);
        self.places.sort_unstable();
        self.places.dedup();
    }

    /// Forgets their keys that no worker has; true once only the last commit is missing, because nothing is in
    /// flight, or because it took too long.
    pub(super) fn drain(
        &mut self,
        partitions: &mut Partitions,
        keeper: &Keeper,
        now: Instant,
    ) -> bool {
        for place in &self.places {
            if let Some(offset) = keeper.forget(*place) {
                partitions.leave_record(*place, offset);
            }
        }
        let idle =
            |place: &TopicPartition| partitions.is_idle(*place) && keeper.needed(*place).is_none();
        let done = self.places.iter().all(idle);
        if self.last_commit.is_none() && (done || self.lost || now >= self.until) {
            if !done && !self.lost {
                tracing::warn!(partitions = ?shown(&self.places), "Keys of partitions that go to another process are still in flight after intake.kafka.drain_timeout; their records are read again there, so that two processes may work on one key for a while. Raise drain_timeout above the time that the largest object takes.");
            }
            self.last_commit = Some(now + LAST_COMMIT);
        }
        self.last_commit.is_some()
    }

    /// Whether the last commit is still worth its wait: something of theirs is `uncommitted`, and may be.
    pub(super) fn waits_for(&self, uncommitted: &[(TopicPartition, i64)], now: Instant) -> bool {
        let open = uncommitted.iter().any(|(place, _)| self.has(*place));
        open && !self.lost && self.last_commit.is_some_and(|limit| now < limit)
    }

    /// All of them, and those that the group waits for.
    pub(super) fn into_places(self) -> (Vec<TopicPartition>, Vec<TopicPartition>) {
        (self.places, self.revoked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_commit_is_waited_for_until_its_limit_and_never_of_lost_partitions() {
        let (now, ours) = (Instant::now(), TopicPartition { topic: 0, partition: 1 });
        let (open, others) = ([(ours, 7)], [(TopicPartition { topic: 0, partition: 2 }, 7)]);
        let mut leaving = Leaving::until(now);
        leaving.add(vec![ours, ours], true, false);
        assert!(!leaving.waits_for(&open, now), "it has not begun");
        leaving.last_commit = Some(now + LAST_COMMIT);
        assert!(leaving.waits_for(&open, now) && !leaving.waits_for(&others, now));
        assert!(!leaving.waits_for(&open, now + LAST_COMMIT));
        leaving.add(Vec::new(), false, true);
        assert!(!leaving.waits_for(&open, now) && leaving.is_lost(ours));
        assert_eq!(leaving.into_places(), (vec![ours], vec![ours, ours]));
    }
}
