//! Held deletes: the brake, and the shelf where they wait for a person.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::Instant;

use super::book::BrakeBook;
use super::brake::{Admission, Brakes, Saved};
use super::decision::{Deciding, Decisions};
use super::delayed::Delays;
use super::discarded::Discards;
use super::known::Known;
use super::steady::SteadyClock;
use super::under_way::UnderWay;
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
#[derive(Debug, Clone, Serialize)]
pub struct HeldDeletes {
    /// The source bucket.
    pub bucket: String,
    /// How many deletes are held; none where the brake is on and no delete has come since.
    pub count: u64,
    /// Why.
    pub reason: Arc<str>,
    /// Since when the brake has been on, milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// How far a person's decision is that is being carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deciding: Option<Deciding>,
}

/// The shelf, opened, and which keys are on it.
#[derive(Debug)]
pub struct HeldShelf {
    shelf: Shelf,
    known: Known,
    /// No key on it bears a later time.
    newest_ms: i64,
}

impl HeldShelf {
    /// Opens or creates it in `dir`, and says what a crash has done to it.
    pub async fn open(dir: PathBuf, max_size: u64) -> Result<(Self, Recovery), JournalError> {
        let (known, mut newest_ms) = (Known::default(), i64::MIN);
        let (shelf, recovery) = Shelf::open_seeing(dir, max_size, |dirty| {
            newest_ms = newest_ms.max(dirty.since_ms);
            known.add(&dirty.key, dirty.since_ms);
        })
        .await?;
        Ok((Self { shelf, known, newest_ms }, recovery))
    }
}

/// The shelves of keys that wait for something else than a person; a decision concerns them, too.
#[derive(Debug, Clone)]
pub struct Aside {
    /// Parked keys beyond memory's share.
    pub deferred: Arc<Shelf>,
    /// Delayed deletes.
    pub delays: Arc<Delays>,
}

/// The brake and the shelf; cheap to clone.
#[derive(Debug, Clone)]
pub struct Hold {
    brakes: Arc<Mutex<Brakes>>,
    /// Where the brakes are kept; nowhere for a command that ends.
    book: Option<Arc<BrakeBook>>,
    prints: RandomState,
    pub(super) shelf: Arc<Shelf>,
    /// Where else keys wait whose records were trimmed: parked ones, and delayed deletes.
    pub(super) aside: Aside,
    /// What is on it: records that are read again after a restart are not held twice.
    pub(super) known: Arc<Known>,
    pub(super) discards: Arc<Discards>,
    pub(super) decisions: Decisions,
    pub(super) under_way: UnderWay,
    /// Held for writing while a decision's horizon is taken, and for reading while a record moves.
    pub(super) numbers: Arc<RwLock<()>>,
    pub(crate) remembered: Arc<Remembered>,
    clock: SteadyClock,
    /// Records below this one may tell of deletes that a person approved.
    approved_until: Arc<AtomicU64>,
    /// Grows with each approval.
    approvals: Arc<AtomicU64>,
    /// The brakes could not be written down when that was last tried.
    unsaved: Arc<AtomicBool>,
    /// Keys bear the numbers of the local journal, which a decision's horizon is.
    pub(super) numbered: bool,
    /// Buckets in which no approval counts: `run` has discards there that nobody has looked at yet.
    unapproved: Arc<BTreeSet<Arc<str>>>,
}

impl Hold {
    /// Brakes as `book` has them. A bucket that has held deletes from before keeps its brake on. That of each
    /// bucket in `on` is on from the beginning, before any delete can ask; why is beside its name.
    pub fn new(
        settings: &DeleteSettings,
        held: HeldShelf,
        discards: Discards,
        remembered: Arc<Remembered>,
        aside: Aside,
        book: Option<BrakeBook>,
        on: BTreeMap<Arc<str>, Arc<str>>,
    ) -> Self {
        let HeldShelf { shelf, known, newest_ms } = held;
        let numbers = Arc::clone(&aside.delays.numbers);
        let clock = aside.delays.clock.not_before(newest_ms);
        let none = Saved::new();
        let (saved, ago_ms) = book.as_ref().map_or((&none, 0), BrakeBook::saved);
        let mut brakes = Brakes::new(settings, saved, monotonic_ms(), ago_ms);
        for (bucket, reason) in on {
            brakes.pull_at_start(&bucket, reason, clock::now_ms());
        }
        for bucket in shelf.counts().into_keys() {
            let reason = "deletes were held before the restart";
            brakes.pull(&bucket.into(), reason.into(), clock::now_ms());
        }
        for (bucket, on) in brakes.on() {
            log_on(bucket, &on.reason);
        }
        Self {
            brakes: Arc::new(Mutex::new(brakes)),
            book: book.map(Arc::new),
            prints: RandomState::new(),
            shelf: Arc::new(shelf),
            aside,
            known: Arc::new(known),
            discards: Arc::new(discards),
            decisions: Decisions::default(),
            under_way: UnderWay::default(),
            numbers,
            clock,
            approved_until: Arc::default(),
            approvals: Arc::default(),
            unsaved: Arc::default(),
            numbered: true,
            unapproved: Arc::default(),
            remembered,
        }
    }

    /// Brakes that are off, with nothing held, and all their state in `dir`.
    #[cfg(test)]
    pub(crate) async fn for_tests(dir: &std::path::Path) -> Self {
        Self::remembering(dir, Remembered::open(&dir.join("reconcile")).unwrap()).await
    }

    /// The same, with these kept objects.
    #[cfg(test)]
    pub(super) async fn remembering(dir: &std::path::Path, remembered: Remembered) -> Self {
        let (held, _) = HeldShelf::open(dir.join("held"), 64 << 20).await.unwrap();
        let (deferred, _) = Shelf::open(dir.join("deferred"), 64 << 20).await.unwrap();
        let aside = Aside { deferred: Arc::new(deferred), delays: Arc::default() };
        let discards = Discards::open(&dir.join("discards"), 1).unwrap();
        let remembered = Arc::new(remembered);
        let (settings, on) = (DeleteSettings::default(), BTreeMap::new());
        Self::new(&settings, held, discards, remembered, aside, None, on)
    }

    /// Whether a person discarded the delete of a key with these marks, of which record `lsn` told: whatever was
    /// reported of the key since then, the source has not had the object. It is remembered as one to be kept, also
    /// by the reconciler: the decision covered keys that nobody had looked at, so that only now it is known
    /// that this is one of them.
    pub(crate) async fn discarded(
        &self,
        key: &ObjectKey,
        aspects: Aspects,
        lsn: Lsn,
    ) -> io::Result<bool> {
        let covered = self.is_discarded(&key.bucket, aspects, lsn);
        if covered && !self.keeps(key) {
            self.remembered.keep(&key.bucket, &key.key)?;
            let remembered = Arc::clone(&self.remembered);
            let durable = tokio::task::spawn_blocking(move || remembered.make_durable());
            durable.await.map_err(io::Error::other)??;
        }
        Ok(covered)
    }

    /// Whether a person discarded all deletes of the bucket of which record `lsn` or an older one told.
    pub(crate) fn covers(&self, bucket: &str, lsn: Lsn) -> bool {
        self.numbered && self.discards.covers(bucket, lsn)
    }

    /// The same for a key with these marks, whose decision may have travelled with it.
    pub(super) fn is_discarded(&self, bucket: &str, aspects: Aspects, lsn: Lsn) -> bool {
        aspects.has(Aspects::DISCARDED) || self.covers(bucket, lsn)
    }

    /// The same where Kafka is the journal: its numbers are others, so a decision covers what is on the shelves.
    #[must_use]
    pub(crate) fn unnumbered(self) -> Self {
        Self { numbered: false, ..self }
    }

    /// In these source buckets no approval counts, whenever it was given.
    #[must_use]
    pub(crate) fn without_approvals(self, buckets: Arc<BTreeSet<Arc<str>>>) -> Self {
        Self { unapproved: buckets, ..self }
    }

    /// Whether an approval of a delete in this bucket counts.
    pub(super) fn heeds_approvals(&self, bucket: &str) -> bool {
        !self.unapproved.contains(bucket)
    }

    /// The time that held deletes bear, in milliseconds since the Unix epoch: it goes on evenly when the clock is set, and
    /// what was held before the restart is older although the clock was ahead then.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Keeps those of these keys that a person's decision covers, durably, because they are to be forgotten. Blocking,
    /// if there are any.
    pub(crate) fn keep_discarded<'a>(
        &self,
        keys: impl Iterator<Item = &'a DirtyKey>,
    ) -> io::Result<()> {
        for dirty in keys {
            self.keep_one(dirty)?;
        }
        self.make_kept_durable()
    }

    /// Keeps a key that is to be forgotten, if a person's decision covers it, and its removal; not durable before
    /// [`Hold::make_kept_durable`].
    pub(crate) fn keep_one(&self, dirty: &DirtyKey) -> io::Result<()> {
        if dirty.aspects.has(Aspects::DISCARDED) && !dirty.tells_present() {
            self.remembered.keep(&dirty.key.bucket, &dirty.key.key)?;
        }
        Ok(())
    }

    /// Blocking: one sync, if any key was kept since the last one.
    pub(crate) fn make_kept_durable(&self) -> io::Result<()> {
        self.remembered.make_durable()
    }

    /// While the guard lives no decision takes its horizon: a key whose record moves to another number is covered
    /// by it before, or after.
    pub(crate) async fn moving(&self) -> RwLockReadGuard<'_, ()> {
        self.numbers.read().await
    }

    /// Whether a person wants the object to stay at the target.
    pub(crate) fn keeps(&self, key: &ObjectKey) -> bool {
        self.remembered.is_kept(&key.bucket, &key.key)
    }

    /// Decides on one confirmed delete, given how many objects the source lists, as far as that was
    /// counted. One that is to be held puts the brake on only where there is an object to delete ([`Hold::pull`]).
    pub(crate) fn admit(&self, key: &ObjectKey, listed: Option<u64>) -> Admission {
        let print = self.prints.hash_one(key);
        self.brakes().admit(&key.bucket, print, listed, monotonic_ms())
    }

    /// Whether one delete more or less may soon decide about the bucket's brake ([`Brakes::is_near`]).
    pub(crate) fn counts_matter(&self, bucket: &str) -> bool {
        self.brakes().is_near(bucket, monotonic_ms())
    }

    /// Holds all further deletes in the bucket.
    pub(crate) fn pull(&self, bucket: &Arc<str>, reason: &Arc<str>) {
        if self.brakes().pull(bucket, Arc::clone(reason), clock::now_ms()) {
            log_on(bucket, reason);
        }
    }

    /// Takes the brake off.
    pub(super) fn release(&self, bucket: &str) {
        if self.brakes().release(bucket) {
            tracing::info!(
                bucket,
                "The brake on deletes is off: deletes in this bucket are carried out again."
            );
        }
    }

    /// A complete pass has found so many objects at the target.
    pub(crate) fn sized(&self, bucket: &Arc<str>, objects: u64) {
        self.brakes().sized(bucket, objects);
    }

    /// Records below this one may tell of deletes that a person approved.
    pub(crate) fn approved_before(&self, lsn: Lsn) {
        self.approved_until.fetch_max(lsn, Ordering::AcqRel);
        self.approvals.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether a person's decision about the bucket is being carried out.
    pub(crate) fn decides(&self, bucket: &str) -> bool {
        self.decisions.progress(bucket).is_some()
    }

    /// Another number whenever a person approved deletes: what a listing from before then shows may be gone.
    pub(crate) fn approvals(&self) -> u64 {
        self.approvals.load(Ordering::Acquire)
    }

    /// Whether a record that is not read yet, from `position` on, may tell of a delete that a person approved.
    pub(crate) fn may_read_approved(&self, position: Lsn) -> bool {
        self.numbered && position < self.approved_until.load(Ordering::Acquire)
    }

    /// Why the bucket's brake is on, if it is.
    pub(crate) fn reason(&self, bucket: &str) -> Option<Arc<str>> {
        self.brakes().reason(bucket)
    }

    /// Sets deletes aside, durably; one that is held already, or is about to be, is held once.
    pub(crate) async fn put(&self, mut keys: Vec<DirtyKey>) -> Result<(), ShelfError> {
        keys.retain(|dirty| self.known.add_first(&dirty.key, dirty.since_ms));
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

    /// The object is at the source again, and its copy at the target: there is nothing to delete any more, and
    /// nothing that a person wants to keep in spite of the source.
    pub(crate) fn returned(&self, key: &ObjectKey) {
        if let Err(error) = self.remembered.replaced(&key.bucket, &key.key) {
            tracing::debug!(%key, %error, "A kept object is remembered for longer than it need be.");
        }
        self.known.release(key);
        self.brakes().returned(&key.bucket, || self.prints.hash_one(key));
    }

    /// Forgets the held deletes of objects that have returned, and writes down what the brakes have counted,
    /// until it is dropped; a crash before that leaves the former to the next pass. The brake stays as it is. May be
    /// dropped at any point.
    pub(crate) async fn run(&self, main: &Journal) {
        let (mut saved, mut next) = (self.brakes().changes(), Instant::now());
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let changes = self.brakes().changes();
            if changes != saved && self.save().await {
                saved = changes;
            }
            if !self.known.has_released() || Instant::now() < next {
                continue;
            }
            let begin = Instant::now();
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
            // What stays is written anew, so a long shelf is not gone through all the time.
            next = Instant::now() + begin.elapsed() * 20;
        }
    }

    /// Writes down the brakes, and says whether it did. What fails is logged once, and tried again each second.
    pub(super) async fn save(&self) -> bool {
        let Some(book) = self.book.clone() else { return true };
        let saved = self.brakes().save(monotonic_ms());
        let written = tokio::task::spawn_blocking(move || book.save(saved)).await;
        let written = written.map_err(io::Error::other).and_then(|written| written);
        let failed_before = self.unsaved.swap(written.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (&written, failed_before) {
            tracing::warn!(%error, "What the brakes on deletes have counted could not be written to data_dir; a restart begins with what was written before. Trying again each second. Free space on the disk of data_dir.");
        }
        written.is_ok()
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

    /// Buckets whose brake is on, or that have held deletes.
    pub fn list(&self) -> Vec<HeldDeletes> {
        let mut counts: BTreeMap<String, u64> = self.shelf.counts();
        let brakes = self.brakes();
        let on: BTreeMap<&str, _> = brakes.on().map(|(bucket, on)| (&**bucket, on)).collect();
        for bucket in on.keys() {
            counts.entry((*bucket).to_owned()).or_default();
        }
        let entry = |(bucket, count): (String, u64)| {
            let on = on.get(&*bucket);
            HeldDeletes {
                count,
                reason: on.map_or_else(|| "the brake was on".into(), |on| Arc::clone(&on.reason)),
                since_ms: on.map(|on| on.since_ms),
                deciding: self.decisions.progress(&bucket),
                bucket,
            }
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
                    keys.push((dirty.key.key, self.clock.shown_ms(dirty.since_ms)));
                }
                keys.len() < most
            })
            .await?;
        Ok(keys)
    }

    /// Persists and closes the shelf.
    pub async fn close(&self) {
        let _logged = self.save().await;
        self.shelf.close().await;
    }

    fn brakes(&self) -> MutexGuard<'_, Brakes> {
        self.brakes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No step of the wall clock moves it.
fn monotonic_ms() -> u64 {
    clock::millis(clock::since_boot())
}

/// Once for each time the brake goes on: a disaster has more keys than a log should have lines.
fn log_on(bucket: &str, reason: &str) {
    tracing::error!(
        bucket,
        reason,
        "The brake on deletes is on: further deletes in this bucket are held, and their objects stay \
         at the target, until a person approves or discards them."
    );
}
