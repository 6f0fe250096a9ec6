//! Held deletes: the brake, and the shelf where they wait for a person.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::brake::{Guard, Verdict};
use super::discarded::Discards;
use super::known::Known;
use crate::clock;
use crate::config::settings::DeleteSettings;
use crate::dirty::{Aspects, DirtyKey};
use crate::journal::{Journal, JournalError, Lsn, Recovery};
use crate::object::ObjectKey;
use crate::remembered::Remembered;
use crate::shelf::{Shelf, ShelfError, Taken};

/// How often it is looked for objects that have returned, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The held deletes of one bucket, for people.
#[derive(Debug, Clone)]
pub struct HeldDeletes {
    /// The source bucket.
    pub bucket: String,
    /// How many deletes are held.
    pub count: u64,
    /// Why.
    pub reason: Arc<str>,
}

/// What a person decides about a bucket's held deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Carry them out, after the source has confirmed each once more.
    Approve,
    /// Forget them, and those not yet looked at; the objects stay at the target until the source has
    /// them again.
    Discard,
}

impl Decision {
    /// Reads what is asked for: `approve` or `discard`.
    pub fn parse(asked: &str) -> Option<Self> {
        match asked {
            "approve" => Some(Self::Approve),
            "discard" => Some(Self::Discard),
            _ => None,
        }
    }

    /// What was done, as the API's answers and the log say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Discard => "discarded",
        }
    }
}

/// Why a decision was not carried out, or not in full.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// The held deletes could not be moved.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The decision could not be written down.
    #[error("the decision cannot be recorded: {0}")]
    Record(#[from] io::Error),
}

/// The shelf, opened, and which keys are on it.
#[derive(Debug)]
pub struct HeldShelf {
    shelf: Shelf,
    known: Known,
}

impl HeldShelf {
    /// Opens or creates it in `dir`, and says what a crash has done to it.
    pub async fn open(dir: PathBuf, max_size: u64) -> Result<(Self, Recovery), JournalError> {
        let known = Known::default();
        let (shelf, recovery) = Shelf::open_seeing(dir, max_size, |dirty| {
            known.add(&dirty.key, dirty.since_ms);
        })
        .await?;
        Ok((Self { shelf, known }, recovery))
    }
}

/// The brake and the shelf; cheap to clone.
#[derive(Debug, Clone)]
pub struct Hold {
    guard: Arc<Mutex<Guard>>,
    shelf: Arc<Shelf>,
    /// What is on it: records that are read again after a restart are not held twice.
    known: Arc<Known>,
    discards: Arc<Discards>,
    pub(crate) remembered: Arc<Remembered>,
}

impl Hold {
    /// A bucket that has held deletes from before keeps its brake on. That of each bucket in `braked` is on
    /// from the beginning, before any delete can ask; why is beside its name.
    pub fn new(
        settings: &DeleteSettings,
        held: HeldShelf,
        discards: Discards,
        remembered: Arc<Remembered>,
        braked: BTreeMap<Arc<str>, Arc<str>>,
    ) -> Self {
        let HeldShelf { shelf, known } = held;
        let mut guard = Guard::new(settings);
        for bucket in shelf.counts().into_keys() {
            guard.pull(&bucket.into(), "deletes were held before the restart".into());
        }
        for (bucket, reason) in braked {
            guard.pull(&bucket, reason);
        }
        let (guard, shelf, discards) =
            (Arc::new(Mutex::new(guard)), Arc::new(shelf), Arc::new(discards));
        Self { guard, shelf, known: Arc::new(known), discards, remembered }
    }

    /// Whether a person discarded the delete of which the record `lsn` was the last to tell. Then the
    /// object is remembered as one to be kept, also by the reconciler: the decision covered keys that
    /// nobody had looked at, so that only now it is known that this is one of them.
    pub(crate) fn discarded(&self, key: &ObjectKey, lsn: Lsn) -> io::Result<bool> {
        let covered = self.discards.covers(&key.bucket, lsn);
        if covered {
            self.remembered.keep(&key.bucket, &key.key)?;
        }
        Ok(covered)
    }

    /// Whether a person wants the object to stay at the target.
    pub(crate) fn keeps(&self, key: &ObjectKey) -> bool {
        self.remembered.is_kept(&key.bucket, &key.key)
    }

    /// Decides on one confirmed delete.
    pub(crate) fn admit(&self, bucket: &Arc<str>) -> Verdict {
        let mut guard = self.guard();
        let was_off = guard.reason(bucket).is_none();
        let verdict = guard.admit(bucket, clock::now_ms());
        if let Verdict::Hold(reason) = &verdict
            && was_off
        {
            tell(bucket, reason);
        }
        verdict
    }

    /// The look that [`Verdict::Look`] asked for lasts as long as this value, also if it fails or is
    /// cancelled.
    pub(crate) const fn looking<'a>(&'a self, bucket: &'a str) -> Looking<'a> {
        Looking { hold: self, bucket }
    }

    /// The source still lists objects in the bucket.
    pub(crate) fn looked(&self, bucket: &Arc<str>) {
        self.guard().looked(bucket, clock::now_ms());
    }

    /// Holds all further deletes in the bucket.
    pub(crate) fn pull(&self, bucket: &Arc<str>, reason: Arc<str>) {
        let mut guard = self.guard();
        if guard.reason(bucket).is_none() {
            tell(bucket, &reason);
        }
        guard.pull(bucket, reason);
    }

    /// Why the bucket's brake is on, if it is.
    pub(crate) fn reason(&self, bucket: &str) -> Option<Arc<str>> {
        self.guard().reason(bucket)
    }

    /// Sets deletes aside, durably; one that is held already, or is about to be, is held once.
    pub(crate) async fn put(&self, mut keys: Vec<DirtyKey>) -> Result<(), ShelfError> {
        keys.retain(|dirty| self.known.add(&dirty.key, dirty.since_ms));
        self.set_aside(&keys).await
    }

    /// Sets deletes aside, durably, even if they are held since an earlier time; [`Hold::forget`] then
    /// drops what is older, so that at no instant they are not held.
    pub(crate) async fn renew(&self, mut keys: Vec<DirtyKey>) -> Result<(), ShelfError> {
        keys.retain(|dirty| self.known.renew(&dirty.key, dirty.since_ms));
        self.set_aside(&keys).await
    }

    async fn set_aside(&self, keys: &[DirtyKey]) -> Result<(), ShelfError> {
        let put = self.shelf.put(keys).await;
        if put.is_err() {
            // Held twice is better than not at all.
            for dirty in keys {
                self.known.remove(&dirty.key);
            }
        }
        Ok(put?)
    }

    /// The object is at the source again, and its copy at the target: there is nothing to delete any more.
    pub(crate) fn returned(&self, key: &ObjectKey) {
        self.known.release(key);
    }

    /// Forgets the held deletes of objects that have returned, for ever; a crash before that leaves them to
    /// the next pass. The brake stays as it is. May be dropped at any point.
    pub(crate) async fn run(&self, main: &Journal) {
        loop {
            let begin = Instant::now();
            if self.known.has_released() {
                match self.forget_returned(main).await {
                    Ok(count) => {
                        tracing::info!(
                            count,
                            "Held deletes were forgotten: their objects are at the source again."
                        );
                    }
                    Err(error) => {
                        tracing::warn!(%error, "Held deletes whose objects are at the source again could not be forgotten. Trying again.");
                    }
                }
            }
            // What stays is written anew, so a long shelf is not gone through all the time.
            tokio::time::sleep(LOOK_EVERY.max(begin.elapsed() * 20)).await;
        }
    }

    async fn forget_returned(&self, main: &Journal) -> Result<u64, ShelfError> {
        let sort = |dirty: DirtyKey| {
            if self.known.take_released(&dirty.key) { Taken::Dropped } else { Taken::Kept(dirty) }
        };
        self.shelf.drain(main, u64::MAX, sort).await
    }

    /// Whether deletes of the bucket are held.
    pub(crate) fn holds(&self, bucket: &str) -> bool {
        self.shelf.counts().contains_key(bucket)
    }

    /// Forgets the held deletes of a bucket below `prefix` that are older than `before_ms`, because a
    /// pass since then has renewed all that are still to be held.
    pub(crate) async fn forget(
        &self,
        main: &Journal,
        bucket: &str,
        prefix: &str,
        before_ms: i64,
    ) -> Result<(), ShelfError> {
        let forget = |dirty: DirtyKey| {
            let concerned = *dirty.key.bucket == *bucket && dirty.key.key.starts_with(prefix);
            if concerned && dirty.since_ms < before_ms {
                self.known.left(&dirty.key, dirty.since_ms);
                Taken::Dropped
            } else {
                Taken::Kept(dirty)
            }
        };
        self.shelf.drain(main, u64::MAX, forget).await.map(|_| ())
    }

    /// Buckets with held deletes.
    pub fn list(&self) -> Vec<HeldDeletes> {
        let counts: BTreeMap<String, u64> = self.shelf.counts();
        let guard = self.guard();
        let entry = |(bucket, count): (String, u64)| {
            let reason = guard.reason(&bucket).unwrap_or_else(|| "the brake was on".into());
            HeldDeletes { bucket, count, reason }
        };
        counts.into_iter().map(entry).collect()
    }

    /// Of the bucket's held deletes at most so many, those held longest first: the key, and since when in
    /// milliseconds since the Unix epoch. A key that was held anew may be there twice.
    pub async fn keys(
        &self,
        bucket: &str,
        most: usize,
    ) -> Result<Vec<(Arc<str>, i64)>, JournalError> {
        let mut keys = Vec::new();
        self.shelf
            .look(|dirty| {
                if *dirty.key.bucket == *bucket && keys.len() < most {
                    keys.push((dirty.key.key, dirty.since_ms));
                }
                keys.len() < most
            })
            .await?;
        Ok(keys)
    }

    /// Carries out a person's decision; returns how many deletes it concerned.
    pub async fn decide(
        &self,
        main: &Journal,
        bucket: &str,
        decision: Decision,
    ) -> Result<u64, DecisionError> {
        if decision == Decision::Discard {
            let until = main.stats().next_lsn;
            let (discards, bucket) = (Arc::clone(&self.discards), bucket.to_owned());
            tokio::task::spawn_blocking(move || discards.record(&bucket, until))
                .await
                .map_err(io::Error::other)??;
        }
        let taken = self
            .shelf
            .drain(main, u64::MAX, |dirty| match decision {
                _ if *dirty.key.bucket != *bucket => Taken::Kept(dirty),
                Decision::Discard => match self.remembered.keep(bucket, &dirty.key.key) {
                    Ok(()) => {
                        self.known.remove(&dirty.key);
                        Taken::Dropped
                    }
                    Err(error) => {
                        tracing::error!(key = %dirty.key, %error, "A delete could not be discarded, and is still held.");
                        Taken::Kept(dirty)
                    }
                },
                Decision::Approve => {
                    self.known.remove(&dirty.key);
                    let aspects = dirty.aspects.with(Aspects::APPROVED);
                    Taken::Back(DirtyKey { aspects, ..dirty })
                }
            })
            .await?;
        self.guard().release(bucket);
        Ok(taken)
    }

    /// Persists and closes the shelf.
    pub async fn close(&self) {
        self.shelf.close().await;
    }

    fn guard(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look at the source's listing that is under way.
#[derive(Debug)]
pub(crate) struct Looking<'a> {
    hold: &'a Hold,
    bucket: &'a str,
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.hold.guard().look_ended(self.bucket);
    }
}

/// Once for each time the brake goes on: a disaster has more keys than a log should have lines.
fn tell(bucket: &str, reason: &str) {
    tracing::error!(
        bucket,
        reason,
        "The brake on deletes is on: further deletes in this bucket are held, and their objects stay \
         at the target, until a person approves or discards them."
    );
}
