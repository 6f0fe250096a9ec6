//! Makes room: in the journal, in the queue, and on the shelf of keys that are set aside.
//!
//! **Promise.** Whatever fails, for however long, the journal gets room again and is read on, as long as the stores
//! are up. What holds either back goes the first of these ways that is open: a stuck key ([`WorkQueue::stuck`]) is set
//! aside on the shelf, which takes no room in the journal; a waiting key, or one in flight for long, is appended again,
//! with room that only this uses; and a bucket of which neither can be kept becomes one gap, which needs no room at
//! all. Its failing keys are forgotten after the gap is durable, and a pass finds them again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Formatter};
use std::sync::Arc;

use super::{Feeder, READ};
use crate::deletes::Hold;
use crate::dirty::{Aspects, DirtyKey};
use crate::journal::{AppendError, Claim, Journal, Lsn};
use crate::shelf::{Shelf, ShelfError, Taken};
use crate::workqueue::WorkQueue;

/// Appended again at once; keys of any length fit into the smallest segment.
const AGAIN: usize = 256;
/// Set aside, or gone through on the shelf, at once.
const ASIDE: usize = 10 * READ;
/// A waiting key whose record lies this far behind the cursor, and as far as twice what the queue
/// holds, is appended again. Less would have a full queue append itself again for ever.
const HOLDS_THE_LOG: Lsn = 50_000;

/// Records durably that a bucket must be reconciled because more of its keys fail than can be set aside. Says
/// whether it did; if not, the keys are kept.
pub struct Failing(Box<dyn Fn(&str) -> bool + Send + Sync>);

impl Failing {
    /// Calls `record` with the source bucket's name.
    pub fn new(record: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Box::new(record))
    }

    fn record(&self, bucket: &str) -> bool {
        self.0(bucket)
    }
}

impl Debug for Failing {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failing").finish_non_exhaustive()
    }
}

/// What makes room, and remembers what it has logged.
#[derive(Debug)]
pub(super) struct Tidy {
    journal: Journal,
    queue: Arc<WorkQueue>,
    deferred: Arc<Shelf>,
    failing: Option<Arc<Failing>>,
    hold: Option<Hold>,
    /// Buckets that became a gap, whose keys leave the shelf bit by bit.
    given_up: BTreeSet<String>,
    /// So many keys at most of those on the shelf are there only because large objects took the queue's room.
    large_aside: u64,
    /// What could not be done was logged.
    told: bool,
    /// The shelf could not be read, and its buckets became gaps.
    lost: bool,
}

impl Tidy {
    pub(super) fn new(feeder: &mut Feeder) -> Self {
        Self {
            journal: feeder.journal.clone(),
            queue: Arc::clone(&feeder.queue),
            deferred: Arc::clone(&feeder.deferred),
            failing: feeder.failing.take().map(Arc::new),
            hold: feeder.hold.clone(),
            given_up: BTreeSet::new(),
            large_aside: 0,
            told: false,
            lost: false,
        }
    }

    /// Keeps waiting keys from holding the log, and from filling the queue; `position` is the next record to
    /// be read. What fails here is tried again a second later.
    pub(super) async fn run(&mut self, position: Lsn) {
        let hold = self.hold.clone();
        let moving = match &hold {
            Some(hold) => Some(hold.moving().await),
            None => None,
        };
        let done = self.make_room(position).await;
        if let Err(error) = &done
            && !self.told
        {
            tracing::warn!(%error, "Keys that wait could be neither set aside nor appended again, so they hold the journal; it is tried again every second. Free space on the disk of data_dir, or raise journal.max_size.");
        }
        self.told = done.is_err();
        self.empty_given_up().await;
        if self.large_aside > 0 && self.queue.large_waiting() < self.queue.max_keys() / 16 {
            self.take_back().await;
        }
        drop(moving);
    }

    /// As [`Tidy::take_back`], while no decision takes its horizon.
    pub(super) async fn retry_deferred(&mut self) {
        let hold = self.hold.clone();
        let moving = match &hold {
            Some(hold) => Some(hold.moving().await),
            None => None,
        };
        self.take_back().await;
        drop(moving);
    }

    async fn make_room(&mut self, position: Lsn) -> Result<(), AppendError> {
        let full = self.free_oldest_segment().await;
        let far = HOLDS_THE_LOG.max(2 * self.queue.max_keys() as Lsn);
        let holding = self.queue.holding_below(position.saturating_sub(far), AGAIN);
        let again = self.append_again(&holding).await;
        self.bound_stuck().await?;
        self.bound_large().await?;
        full.and(again)
    }

    /// In a full journal no stuck key may hold the oldest segment: it may be stuck for ever, and when all
    /// else is done nothing would be finished any more; and none that is in flight, when no other does. Other keys are
    /// left alone: they are worked on as soon as both stores are up.
    async fn free_oldest_segment(&mut self) -> Result<(), AppendError> {
        let full = self.journal.stats().full;
        let Some(ends) = self.journal.oldest_segment_ends().filter(|_| full) else {
            return Ok(());
        };
        let held = self.queue.stuck_below(ends, ASIDE);
        if held.is_empty() {
            if !self.queue.only_in_flight_below(ends) {
                return Ok(());
            }
            return self.append_again(&self.queue.holding_below(ends, AGAIN)).await;
        }
        match self.set_aside(&held).await {
            Err(AppendError::Full(_)) => {}
            done => return done,
        }
        // All that hold the segment fit into the reserve, since they fit into the segment; a page a second.
        let page = held.get(..AGAIN).unwrap_or(&held);
        match self.append_again(page).await {
            Err(AppendError::Full(_)) if self.give_up(&held, BTreeMap::new()) => Ok(()),
            done => done,
        }
    }

    /// Appends waiting keys again, so that their records need not be kept.
    async fn append_again(&self, holding: &[DirtyKey]) -> Result<(), AppendError> {
        if holding.is_empty() {
            return Ok(());
        }
        // For `sync`, which does not look for decisions behind the decision's horizon; `run` knows it by the record. What
        // cannot be kept stays where `sync` sees it.
        let kept = self.keep_discarded(holding);
        let moves = |dirty: &&DirtyKey| kept || !dirty.aspects.has(Aspects::DISCARDED);
        let holding: Vec<_> = holding.iter().filter(moves).collect();
        if holding.is_empty() {
            return Ok(());
        }
        let payloads = holding.iter().map(|dirty| dirty.encode()).collect();
        let last = self.journal.append_as(Claim::Rewrite, payloads).await?;
        let first = last + 1 - holding.len() as Lsn;
        for (dirty, lsn) in holding.iter().zip(first..) {
            self.queue.rebase(&dirty.key, lsn);
        }
        Ok(())
    }

    /// Leaves half of the queue's room to keys that do not fail. The bucket with the most goes first: one that
    /// has few does not wait behind it on the shelf.
    async fn bound_stuck(&mut self) -> Result<(), AppendError> {
        let stuck = self.queue.stuck();
        let all: usize = stuck.iter().map(|(_, keys)| keys).sum();
        let excess = all.saturating_sub(self.queue.max_keys() / 2);
        let Some((bucket, _)) = stuck.iter().max_by_key(|(_, keys)| *keys).filter(|_| excess > 0)
        else {
            return Ok(());
        };
        let mut keys = self.queue.stuck_in(bucket, excess.min(ASIDE));
        let many = self.too_many(&keys);
        if !many.is_empty() && self.give_up_all(&many) {
            keys.retain(|dirty| !many.contains(&*dirty.key.bucket));
        }
        match self.set_aside(&keys).await {
            Err(AppendError::Full(_)) if self.give_up(&keys, self.deferred.counts()) => {
                return Ok(());
            }
            done => done?,
        }
        if !keys.is_empty() {
            tracing::warn!(
                %bucket,
                keys = keys.len(),
                stuck = all,
                "Many keys fail; some were set aside on disk and will be tried again later."
            );
        }
        Ok(())
    }

    /// Leaves a quarter of the queue's room to small objects, whatever fails: with large ones alone it would
    /// not be read on.
    async fn bound_large(&mut self) -> Result<(), AppendError> {
        let share = self.queue.max_keys() / 4;
        let excess = self.queue.large_waiting().saturating_sub(share);
        // A command that ends has no events to wait for.
        let crowded = self.failing.is_some() && self.queue.room_now() < self.queue.max_keys() / 8;
        if excess == 0 || !crowded {
            return Ok(());
        }
        let keys = self.queue.large_work(excess.min(ASIDE));
        // Without room on the shelf they wait where they are: nothing of them fails.
        if self.set_aside(&keys).await.is_ok() {
            self.large_aside += keys.len() as u64;
            tracing::info!(
                keys = keys.len(),
                "Many large objects wait; some were set aside on disk, so that small ones need not wait for them."
            );
        }
        Ok(())
    }

    async fn set_aside(&self, keys: &[DirtyKey]) -> Result<(), AppendError> {
        self.keep_discarded(keys);
        self.deferred.put(keys).await?;
        for dirty in keys {
            self.queue.forget_set_aside(&dirty.key);
        }
        Ok(())
    }

    /// The buckets of these keys of which more would be set aside than the queue holds.
    fn too_many(&self, keys: &[DirtyKey]) -> BTreeSet<String> {
        let most = self.queue.max_keys() as u64;
        let mut counts = self.deferred.counts();
        let buckets: BTreeSet<String> = keys.iter().map(|d| d.key.bucket.to_string()).collect();
        for dirty in keys {
            *counts.entry(dirty.key.bucket.to_string()).or_default() += 1;
        }
        buckets.into_iter().filter(|bucket| counts.get(bucket).is_some_and(|n| *n > most)).collect()
    }

    /// There is no room for these keys: the bucket that has the most of them, and of those that `counts` already
    /// has, becomes a gap. Returns whether it did.
    fn give_up(&mut self, keys: &[DirtyKey], mut counts: BTreeMap<String, u64>) -> bool {
        for dirty in keys {
            *counts.entry(dirty.key.bucket.to_string()).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, keys)| *keys);
        most.is_some_and(|(bucket, _)| self.give_up_all(&BTreeSet::from([bucket])))
    }

    /// Makes gaps of these buckets, and then forgets their failing keys; those on the shelf are left to
    /// [`Tidy::empty_given_up`].
    fn give_up_all(&mut self, buckets: &BTreeSet<String>) -> bool {
        let Some(failing) = self.failing.clone() else { return false };
        let mut done = true;
        for bucket in buckets {
            if !failing.record(bucket) {
                done = false;
                continue;
            }
            let stuck = self.queue.stuck_in(bucket, usize::MAX);
            if !self.keep_discarded(&stuck) {
                done = false;
                continue;
            }
            for dirty in &stuck {
                self.queue.forget_set_aside(&dirty.key);
            }
            if self.given_up.insert(bucket.clone()) {
                tracing::warn!(
                    bucket,
                    keys = stuck.len(),
                    "More keys of this bucket fail than can be set aside, so it is recorded as a gap and reconciled as a whole, with longer and longer waits while it fails. Its status shows a gap for bucket_failing; remedy what the log says of its keys."
                );
            }
        }
        done
    }

    /// Keys are about to be forgotten, and a pass finds them again: what a person discarded of them must be known then.
    /// Returns whether it is.
    fn keep_discarded(&self, keys: &[DirtyKey]) -> bool {
        let Some(hold) = &self.hold else { return true };
        let kept = hold.keep_discarded(keys.iter());
        if let Err(error) = &kept {
            tracing::warn!(%error, "It cannot be written down which deletes of failing keys a person discarded; the keys are not forgotten before it is.");
        }
        kept.is_ok()
    }

    /// Removes some of the keys of buckets that are gaps from the shelf. Each time the gap is recorded anew
    /// before: a pass that began earlier must not close it.
    async fn empty_given_up(&mut self) {
        let counts = self.deferred.counts();
        self.given_up.retain(|bucket| counts.contains_key(bucket));
        let recorded =
            |bucket: &String| self.failing.as_ref().is_some_and(|failing| failing.record(bucket));
        if self.given_up.is_empty() || !self.given_up.iter().all(recorded) {
            return;
        }
        let sort = |dirty: DirtyKey| {
            let given_up = self.given_up.contains(&*dirty.key.bucket);
            if given_up && self.hold.as_ref().is_none_or(|hold| hold.keep_one(&dirty).is_ok()) {
                Taken::Dropped
            } else {
                Taken::Kept(dirty)
            }
        };
        if let Err(error) = self.deferred.drain(&self.journal, ASIDE as u64, sort).await {
            tracing::debug!(%error, "Keys of a failing bucket could not be removed from disk now.");
        }
        // What is trimmed is trimmed on disk a second later.
        if let Some(Err(error)) = self.hold.as_ref().map(Hold::make_kept_durable) {
            tracing::warn!(%error, "What a person discarded could not be written down.");
        }
    }

    /// Makes gaps of all buckets that have keys on the shelf; says whether it did.
    fn doubt_set_aside(&self) -> bool {
        let Some(failing) = &self.failing else { return false };
        let mut done = true;
        for bucket in self.deferred.counts().into_keys() {
            done &= failing.record(&bucket);
        }
        done
    }

    /// Takes the oldest set-aside keys back, however many are parked: those may fail for ever, and others
    /// are set aside in exchange, so every key has its turn. Not while the journal is full: they would
    /// only take its reserve.
    async fn take_back(&mut self) {
        if self.deferred.is_empty() || self.journal.stats().full {
            return;
        }
        let room = self.queue.max_keys() as u64 / 4;
        let (given_up, hold) = (&self.given_up, &self.hold);
        let sort = |dirty: DirtyKey| {
            // Its number hides from `sync` what a person discarded; that it is kept does not.
            let hidden = hold.as_ref().is_some_and(|hold| hold.keep_one(&dirty).is_err());
            if hidden || given_up.contains(&*dirty.key.bucket) {
                Taken::Kept(dirty)
            } else {
                Taken::Back(dirty)
            }
        };
        match self.deferred.drain(&self.journal, room, sort).await {
            Ok(keys) => {
                self.large_aside = self.large_aside.saturating_sub(keys);
                tracing::info!(keys, "Keys that were set aside are tried again.");
            }
            Err(ShelfError::Read(error)) => {
                // What cannot be read any more, a pass finds again.
                self.lost = self.lost || self.doubt_set_aside();
                tracing::error!(%error, gaps_recorded = self.lost, "Keys that were set aside cannot be read; their buckets are reconciled. Check the disk of data_dir, and start evermirror again.");
            }
            Err(error @ (ShelfError::Append(_) | ShelfError::Main(_))) => {
                tracing::warn!(%error, "Keys that were set aside could not be taken back now.");
            }
        }
    }
}
