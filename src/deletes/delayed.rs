//! Delayed deletes: on disk until their time has come, then back in the journal.
//!
//! **Promise.** A confirmed delete of a bucket with `deletes = "delay"` is carried out no sooner than
//! `delete_delay` after it was confirmed, and after the source has answered 404 once more. Here it
//! only waits: when it is due the key goes back to the main journal, marked [`Aspects::DUE`], and a
//! worker decides. What waits survives a restart, and costs no memory beyond a bounded set of hashes.
//!
//! A bucket's shelf is in the order in which its deletes were confirmed, so its first key is
//! the next one due; the delay is the one that is configured now. Where the policy is another one by
//! now, everything is due at once. On error keys stay where they are and are looked at again a minute
//! later.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use jiff::fmt::rfc2822;

use super::known::Known;
use crate::clock;
use crate::config::settings::{BucketSettings, DeletePolicy};
use crate::dirty::{Aspects, DirtyKey};
use crate::journal::{Journal, JournalError, Recovery};
use crate::object::ObjectKey;
use crate::shelf::{Front, Shelf, ShelfError};

/// How exact the delay is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const AFTER_ERROR: Duration = Duration::from_mins(1);

/// The delayed deletes of one bucket, for people.
#[derive(Debug, Clone)]
pub struct DelayedDeletes {
    /// The source bucket.
    pub bucket: String,
    /// How many deletes wait (a key that was deleted twice counts twice).
    pub count: u64,
    /// When the next one is due, milliseconds since the Unix epoch; `None` until that has been read
    /// from disk, within a second or so.
    pub next_due_ms: Option<i64>,
}

/// The delayed deletes of all buckets.
#[derive(Debug, Default)]
pub struct Delays {
    buckets: BTreeMap<Arc<str>, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    shelf: Shelf,
    delay_ms: i64,
    /// When the delete at the front of the shelf was confirmed; `None` if there may be one that was
    /// not read yet.
    front_ms: Mutex<Option<i64>>,
    known: Known,
}

impl Delays {
    /// Opens what waits below `dir`, one shelf for each bucket that needs one, and says what a crash has
    /// done to them.
    pub async fn open(
        dir: &Path,
        buckets: &[BucketSettings],
        max_size: u64,
    ) -> Result<(Self, Vec<Recovery>), JournalError> {
        let (mut delays, mut recoveries) = (Self::default(), Vec::new());
        for bucket in buckets {
            let dir = dir.join(&bucket.source);
            let delayed = bucket.deletes == DeletePolicy::Delay;
            if !delayed && !dir.exists() {
                continue;
            }
            let known = Known::default();
            let (shelf, recovery) = Shelf::open_seeing(dir, max_size, |dirty| {
                known.add(&dirty.key, dirty.since_ms);
            })
            .await?;
            let delay_ms = if delayed { clock::signed_millis(bucket.delete_delay) } else { 0 };
            let waiting = Waiting { shelf, delay_ms, front_ms: Mutex::default(), known };
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

    /// Sets a delete aside, durably. `since_ms` is when it was confirmed.
    pub(crate) async fn put(&self, dirty: DirtyKey) -> Result<(), String> {
        let Some(waiting) = self.buckets.get(&dirty.key.bucket) else {
            return Err("this bucket's deletes are not delayed".to_owned());
        };
        let (key, since_ms) = (dirty.key.clone(), dirty.since_ms);
        waiting.shelf.put(&[dirty]).await.map_err(|error| error.to_string())?;
        waiting.known.add(&key, since_ms);
        Ok(())
    }

    /// Buckets with delayed deletes.
    pub fn list(&self) -> Vec<DelayedDeletes> {
        let entry = |(bucket, waiting): (&Arc<str>, &Waiting)| {
            let next = *waiting.front_ms();
            DelayedDeletes {
                bucket: bucket.to_string(),
                count: waiting.shelf.counts().values().sum(),
                next_due_ms: next.map(|since| since.saturating_add(waiting.delay_ms)),
            }
        };
        self.buckets.iter().map(entry).filter(|bucket| bucket.count > 0).collect()
    }

    /// Moves what is due to `main`, for ever. May be dropped at any point.
    pub async fn run(&self, main: &Journal) {
        loop {
            let mut wait = LOOK_EVERY;
            for (bucket, waiting) in &self.buckets {
                if let Err(error) = waiting.release(main, clock::now_ms()).await {
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
    /// Moves what is due at this time back to the main journal.
    async fn release(&self, main: &Journal, now_ms: i64) -> Result<(), ShelfError> {
        let due = |since: i64| since.saturating_add(self.delay_ms) <= now_ms;
        let front_waits = self.front_ms().is_some_and(|since| !due(since));
        if front_waits || self.shelf.counts().is_empty() {
            return Ok(());
        }
        let mut front = None;
        self.shelf
            .take_front(main, |dirty| {
                if !due(dirty.since_ms) {
                    front = Some(dirty.since_ms);
                    return Front::Stays;
                }
                self.known.remove(&dirty.key);
                // The lag is measured from the time at which the delete should have been carried out.
                let since_ms = dirty.since_ms.saturating_add(self.delay_ms);
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

/// Whether an object was written within the last `ms` milliseconds, by what its store says of it. Both
/// times are the store's own, so it does not matter whether our clocks agree. They are whole seconds:
/// in doubt the object is new.
pub(crate) fn written_since(headers: &HeaderMap, ms: i64) -> bool {
    let second = |name: &str| {
        let text = headers.get(name)?.to_str().ok()?;
        Some(rfc2822::parse(text).ok()?.timestamp().as_second())
    };
    let (Some(now), Some(written)) = (second("date"), second("last-modified")) else {
        return false;
    };
    now.saturating_sub(written).saturating_mul(1_000) < ms.saturating_add(1_000)
}

#[cfg(test)]
mod tests;
