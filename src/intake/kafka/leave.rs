//! How partitions are given up: no further record of them, no further key; what is in flight is waited
//! for; what is done is committed; then they go. If that takes longer than `drain_timeout`, or if they
//! are another process's already, they go as they are, and what is not committed is read again there: a key that
//! is still in flight here then has two workers for a while. Should the older upload land last, a reconcile
//! finds it.

use rdkafka::consumer::Consumer as _;
use tokio::time::Instant;

use super::consume::{LAST_COMMIT, Session, shown};
use super::number::Place;

/// Partitions on their way out.
#[derive(Debug)]
pub(super) struct Leaving {
    places: Vec<Place>,
    /// Those of them that the group wants back.
    revoked: Vec<Place>,
    until: Instant,
    lost: bool,
    /// Nothing is in flight any more, or it took too long: the last commit has time until then.
    last_commit: Option<Instant>,
}

impl Leaving {
    pub(super) fn has(&self, place: Place) -> bool {
        self.places.contains(&place)
    }

    /// Whether it is on its way out, and another process's already.
    pub(super) fn is_lost(&self, place: Place) -> bool {
        self.lost && self.has(place)
    }

    /// Those that the group waits for.
    pub(super) fn into_revoked(self) -> Vec<Place> {
        self.revoked
    }
}

impl Session {
    /// Begins to give partitions up.
    pub(super) fn leave(&mut self, places: Vec<Place>, revoked: bool, lost: bool) {
        self.partitions.leave(&places);
        let mut stay = self.places();
        stay.retain(|place| !places.contains(place));
        self.keeper.owns(&stay);
        if let Err(error) = self.consumer.pause(&self.list(&places)) {
            tracing::debug!(%error, "Partitions on their way out could not be paused.");
        }
        let until = Instant::now() + self.drain_timeout;
        let new = Leaving {
            places: Vec::new(),
            revoked: Vec::new(),
            until,
            lost: false,
            last_commit: None,
        };
        let leaving = self.leaving.get_or_insert(new);
        leaving.lost |= lost;
        if revoked {
            leaving.revoked.extend(&places);
        }
        leaving.places.extend(places);
        leaving.places.sort_unstable();
        leaving.places.dedup();
    }

    /// Goes on giving up; true if nothing is on its way out any more.
    pub(super) fn left(&mut self) -> bool {
        let Some(leaving) = &mut self.leaving else { return true };
        for place in &leaving.places {
            if let Some(offset) = self.keeper.forget(*place) {
                self.partitions.leave_record(*place, offset);
            }
        }
        let done = leaving
            .places
            .iter()
            .all(|place| self.partitions.is_idle(*place) && self.keeper.needed(*place).is_none());
        let now = Instant::now();
        if leaving.last_commit.is_none() && (done || leaving.lost || now >= leaving.until) {
            if !done && !leaving.lost {
                tracing::warn!(partitions = ?shown(&leaving.places), "Keys of partitions that go to another process are still in flight after intake.kafka.drain_timeout; their records are read again there, so that two processes may work on one key for a while. Raise drain_timeout above the time that the largest object takes.");
            }
            leaving.last_commit = Some(now + LAST_COMMIT);
        }
        let Some(limit) = leaving.last_commit else { return false };
        let uncommitted = self.to_commit();
        let leaving = self.leaving.as_ref();
        let ours = |place| leaving.is_some_and(|leaving| leaving.places.contains(place));
        let open = uncommitted.iter().any(|(place, _)| ours(place));
        if open && !leaving.is_some_and(|leaving| leaving.lost) && now < limit {
            self.commit();
            return false;
        }
        self.give_back();
        true
    }

    fn give_back(&mut self) {
        let Some(Leaving { places, revoked, .. }) = self.leaving.take() else { return };
        self.shared.add_skipped(self.partitions.take_skipped());
        self.partitions.remove(&places);
        self.lingering.extend(places);
        if !revoked.is_empty()
            && let Err(error) = self.consumer.incremental_unassign(&self.list(&revoked))
        {
            tracing::error!(%error, "Partitions could not be given back to the group.");
        }
    }
}
