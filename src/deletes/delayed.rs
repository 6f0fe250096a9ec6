//! Delayed deletes: on disk until their time has come, then back in the journal.
//!
//! **Promise.** A confirmed delete of a bucket with `deletes = "delay"` is carried out no sooner than
//! `delete_delay` after it was confirmed, and after the source has answered 404 once more. Here it
//! only waits: when it is due the key goes back to the main journal, marked [`Aspects::DUE`], and a
//! worker decides. What waits survives a restart, and costs no memory beyond a bounded set of hashes.
//!
//! A bucket's shelf is in the order in which its deletes were confirmed, so its first key is
//! the next one due; the delay is the one that is configured now. Where the policy is another one by
//! now, everything is due at once. A key that was deleted again waits for its newest delete; one that came back
//! for none, which a record behind that of its delete says (one that bears no [`Aspects::REMOVED`]). On error keys stay
//! where they are and are looked at again a minute later.
//!
//! Times are those of [`SteadyClock`], so that a clock that is set neither hastens nor blocks anything. A record from an
//! earlier process whose time is still to come counts as confirmed at the start: it waits its whole delay, and no longer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use jiff::fmt::rfc2822;
use tokio::sync::RwLock;

use super::known::Known;
use super::steady::SteadyClock;
use crate::clock;
use crate::config::settings::{BucketSettings, DeletePolicy};
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::journal::{AppendError, Journal, JournalError, Lsn, Recovery};
use crate::object::ObjectKey;
use crate::shelf::{Front, Shelf, ShelfError};

/// How exact the delay is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const AFTER_ERROR: Duration = Duration::from_mins(1);
/// So many leave a bucket's shelf each time it is looked at: a person's decision waits meanwhile.
const AT_ONCE: usize = 16_384;

/// The delayed deletes of one bucket, for people.
#[derive(Debug, Clone)]
pub struct DelayedDeletes {
    /// The source bucket.
    pub bucket: String,
    /// How many deletes wait; beyond what memory holds a key that was deleted twice counts twice.
    pub count: u64,
    /// When the next one is due, milliseconds since the Unix epoch; `None` until that has been read
    /// from disk, within a second or so.
    pub next_due_ms: Option<i64>,
}

/// The delayed deletes of all buckets.
#[derive(Debug, Default)]
pub struct Delays {
    buckets: BTreeMap<Arc<str>, Waiting>,
    /// Held for writing while a decision's horizon is taken, and for reading while a record moves.
    pub(super) numbers: Arc<RwLock<()>>,
    pub(super) clock: SteadyClock,
}

#[derive(Debug)]
struct Waiting {
    shelf: Shelf,
    delay_ms: i64,
    /// When the delete at the front of the shelf was confirmed; `None` if there may be one that was
    /// not read yet.
    front_ms: Mutex<Option<i64>>,
    known: Known,
    clock: SteadyClock,
    /// The records before this one are of an earlier process.
    ours: Lsn,
}

impl Delays {
    /// Opens what waits below `dir`, one shelf for each bucket that needs one, and says what a crash has
    /// done to them.
    pub async fn open(
        dir: &Path,
        buckets: &[BucketSettings],
        max_size: u64,
        clock: SteadyClock,
    ) -> Result<(Self, Vec<Recovery>), JournalError> {
        let (mut delays, mut recoveries) = (Self { clock, ..Self::default() }, Vec::new());
        for bucket in buckets {
            let dir = dir.join(&bucket.source);
            let delayed = bucket.deletes == DeletePolicy::Delay;
            if !delayed && !dir.exists() {
                continue;
            }
            let known = Known::default();
            let (shelf, recovery) = Shelf::open_seeing(dir, max_size, |dirty| {
                if dirty.aspects.has(Aspects::REMOVED) {
                    known.add(&dirty.key, clock.noted_ms(dirty.since_ms));
                } else {
                    known.release(&dirty.key);
                }
            })
            .await?;
            let delay_ms = if delayed { clock::signed_millis(bucket.delete_delay) } else { 0 };
            let (front_ms, ours) = (Mutex::default(), shelf.next_lsn());
            let waiting = Waiting { shelf, delay_ms, front_ms, known, clock, ours };
            delays.buckets.insert(bucket.source.as_str().into(), waiting);
            recoveries.push(recovery);
        }
        Ok((delays, recoveries))
    }

    /// Whether a delete of the key need not be delayed again, because one waits already. Beyond
    /// what memory should hold the answer is yes for every key: the reconciler finds it again when others
    /// have gone.
    pub(crate) fn knows(&self, key: &ObjectKey) -> bool {
        self.buckets
            .get(&key.bucket)
            .is_some_and(|waiting| waiting.known.has(key) || waiting.known.is_full())
    }

    /// Sets a delete aside, durably, that was confirmed now, whatever time it bears.
    pub(crate) async fn put(&self, dirty: DirtyKey) -> Result<(), String> {
        let Some(waiting) = self.buckets.get(&dirty.key.bucket) else {
            return Err("this bucket's deletes are not delayed".to_owned());
        };
        waiting.put(dirty, waiting.clock.now_ms()).await.map_err(|error| error.to_string())
    }

    /// How long ago this was, in milliseconds, by the clock of the delays.
    pub(crate) fn ms_since(&self, due_ms: i64) -> i64 {
        self.clock.now_ms().saturating_sub(due_ms)
    }

    /// Whether a delete of the key waits, for certain.
    pub(crate) fn waits(&self, key: &ObjectKey) -> bool {
        self.buckets.get(&key.bucket).is_some_and(|waiting| waiting.known.has(key))
    }

    /// Both sides have the object: the deletes that wait are void, also after a restart unless the disk is full.
    pub(crate) async fn returned(&self, key: &ObjectKey) {
        let Some(waiting) = self.buckets.get(&key.bucket).filter(|w| w.known.has(key)) else {
            return;
        };
        waiting.known.release(key);
        let there = DirtyKey {
            key: key.clone(),
            aspects: Aspects::CONTENT,
            origin: Origin::Repair,
            since_ms: waiting.clock.now_ms(),
            size: Some(0),
        };
        if let Err(error) = waiting.shelf.put(&[there]).await {
            tracing::warn!(%key, %error, "It cannot be written down that an object is there again whose delete waits; if evermirror restarts and the object goes once more, that delete may not wait its whole delay.");
        }
    }

    /// Shows the delayed deletes of a bucket that are not void to `see`, until it wants no more.
    pub(super) async fn look(
        &self,
        bucket: &str,
        mut see: impl FnMut(DirtyKey) -> bool,
    ) -> Result<(), JournalError> {
        let Some(Waiting { shelf, known, .. }) = self.buckets.get(bucket) else { return Ok(()) };
        let waits = |dirty: &DirtyKey| {
            dirty.aspects.has(Aspects::REMOVED) && !known.is_released(&dirty.key)
        };
        shelf.look(|dirty| !waits(&dirty) || see(dirty)).await
    }

    /// Whether the object may have come back and gone again in the last `waited` milliseconds, in which its delete
    /// waited. As a rule that is known; beyond what memory holds the target's own clock tells, and
    /// in doubt it is so.
    pub(crate) fn is_new(&self, key: &ObjectKey, headers: &HeaderMap, waited: i64) -> bool {
        let known = self.buckets.get(&key.bucket).is_some_and(|waiting| !waiting.known.is_full());
        !known && written_since(headers, waited).unwrap_or(true)
    }

    /// Buckets with delayed deletes.
    pub fn list(&self) -> Vec<DelayedDeletes> {
        let entry = |(bucket, waiting): (&Arc<str>, &Waiting)| {
            let next = *waiting.front_ms();
            DelayedDeletes {
                bucket: bucket.to_string(),
                count: waiting.count(),
                next_due_ms: next
                    .map(|since| self.clock.shown_ms(since.saturating_add(waiting.delay_ms))),
            }
        };
        self.buckets.iter().map(entry).filter(|bucket| bucket.count > 0).collect()
    }

    /// Moves what is due to `main`, for ever. May be dropped at any point.
    pub async fn run(&self, main: &Journal) {
        loop {
            let mut wait = LOOK_EVERY;
            for (bucket, waiting) in &self.buckets {
                let moving = self.numbers.read().await;
                let released = waiting.release(main, waiting.clock.now_ms()).await;
                drop(moving);
                if let Err(error) = released {
                    tracing::warn!(%bucket, %error, "Delayed deletes could not be taken from disk; their objects stay at the target. Trying again in a minute.");
                    wait = AFTER_ERROR;
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Persists and closes the shelves.
    pub async fn close(&self) {
        for waiting in self.buckets.values() {
            waiting.shelf.close().await;
        }
    }
}

impl Waiting {
    fn count(&self) -> u64 {
        self.known.waiting().unwrap_or_else(|| self.shelf.counts().values().sum())
    }

    async fn put(&self, dirty: DirtyKey, since_ms: i64) -> Result<(), AppendError> {
        // First: a record of it that is due just now must not be taken for the newest.
        self.known.add(&dirty.key, since_ms);
        let key = dirty.key.clone();
        let put = self.shelf.put(&[DirtyKey { since_ms, ..dirty }]).await;
        if put.is_err() {
            self.known.left(&key, since_ms);
        }
        put
    }

    /// Moves what is due at this time back to the main journal.
    async fn release(&self, main: &Journal, now_ms: i64) -> Result<(), ShelfError> {
        let due = |since_ms: i64| since_ms.saturating_add(self.delay_ms) <= now_ms;
        let front_waits = self.front_ms().is_some_and(|since| !due(since));
        if front_waits || self.shelf.counts().is_empty() {
            return Ok(());
        }
        let (mut front, mut left) = (None, 0);
        self.shelf
            .take_front(main, |dirty, lsn| {
                let earlier = lsn < self.ours;
                let since_ms =
                    if earlier { self.clock.noted_ms(dirty.since_ms) } else { dirty.since_ms };
                left += 1;
                if left > AT_ONCE {
                    return Front::Stays;
                }
                if !dirty.aspects.has(Aspects::REMOVED) {
                    return Front::Dropped;
                }
                if !due(since_ms) {
                    front = Some(since_ms);
                    return Front::Stays;
                }
                // It came back, or its newest delete waits behind.
                let void = self.known.take_released(&dirty.key)
                    || self.known.newest(&dirty.key).is_some_and(|newest| newest > since_ms);
                if void {
                    return Front::Dropped;
                }
                self.known.remove(&dirty.key);
                // The lag is measured from the time at which the delete should have been carried out.
                let since_ms = since_ms.saturating_add(self.delay_ms);
                let aspects = dirty.aspects.with(Aspects::DUE);
                Front::Back(DirtyKey { aspects, since_ms, ..dirty.clone() })
            })
            .await?;
        *self.front_ms() = front;
        Ok(())
    }

    fn front_ms(&self) -> MutexGuard<'_, Option<i64>> {
        self.front_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an object was written within the last `ms` milliseconds, by what its store says of it; `None` if it
/// does not say. Both times are the store's own, so it does not matter whether our clocks agree. They are
/// whole seconds: in doubt the object is new.
pub(crate) fn written_since(headers: &HeaderMap, ms: i64) -> Option<bool> {
    let second = |name: &str| {
        let text = headers.get(name)?.to_str().ok()?;
        Some(rfc2822::parse(text).ok()?.timestamp().as_second())
    };
    let (now, written) = (second("date")?, second("last-modified")?);
    Some(now.saturating_sub(written).saturating_mul(1_000) < ms.saturating_add(1_000))
}

#[cfg(test)]
mod tests;
