//! Where notifications arrive, and the one door they all go through.
//!
//! **Promise.** When [`Inlet::accept`] answers `Ok`, every key in the document is durable in the
//! journal, and every bucket that the document leaves in doubt is durable in the gap book. So an
//! intake acknowledges after `Ok` and never before. **On error** nothing may be acknowledged; the
//! buckets concerned have a recorded gap, because some senders never try again. **On cancellation**
//! the keys may or may not become durable, nothing was acknowledged, and the buckets concerned have a gap
//! (`untaken`). **On crash** keys may or may not be durable, and the next start walks every bucket.
//!
//! Content is never a reason to refuse: MinIO's and RustFS's queues block for ever behind one refusal.
//! What cannot be used is counted, kept in the dead-letter list, and leaves its bucket in doubt. Only
//! configured buckets are ever marked: nothing in a payload makes us look anywhere else.

pub mod dead_letters;
pub mod kafka;
pub mod listen;
mod recent;
mod sort;
pub mod sqs;
#[cfg(test)]
mod tests;
pub mod tls;
mod untaken;
pub mod webhook;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::settings::BucketSettings;
use crate::dirty::DirtyKey;
use crate::event::{Parsed, Unusable, UnusableReason};
use crate::fence::Fence;
use crate::gaps::{GapBook, GapError, GapReason};
use crate::journal::{AppendError, Journal};
use crate::metrics::{EventOutcome, Metrics, Stage};
use crate::traces;
use dead_letters::DeadLetters;
use recent::Recent;
use sort::{Doubts, Sorted};
use untaken::{Saver, Untaken};

/// How often a full journal is asked again whether it has room.
const ROOM_POLL: Duration = Duration::from_millis(100);
/// At most one log line about what was not taken in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// No notification has arrived yet.
const NEVER: i64 = i64::MIN;

const TOO_LARGE: Unusable =
    Unusable { reason: UnusableReason::TooLarge, bucket: None, key: None, event: None };

/// One way in, ready to run.
#[async_trait::async_trait]
pub trait Intake: Debug + Send {
    /// Its name, its place and whether it is well, for people; the same one throughout.
    fn health(&self) -> Arc<IntakeHealth>;

    /// Takes notifications until told to stop. It never ends before, whatever fails: trouble goes to
    /// its [`IntakeHealth`] and the log, and it tries again.
    async fn run(self: Box<Self>, stop: CancellationToken);
}

/// Whether an intake is well.
#[derive(Debug)]
pub struct IntakeHealth {
    /// As in the configuration: `webhook`, `sqs`, `kafka`, `listen`.
    pub name: &'static str,
    /// Where it listens or what it reads from, without secrets.
    pub address: String,
    last_event_ms: AtomicI64,
    trouble: Mutex<Option<String>>,
    backlog: Mutex<Option<Backlog>>,
}

/// What waits where an intake reads from, and is not durable here yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// About how many notifications.
    pub messages: u64,
    /// About when the oldest of them was sent, in milliseconds since the Unix epoch; `None` if there is
    /// none, or nobody knows.
    pub oldest_ms: Option<i64>,
}

impl IntakeHealth {
    /// A well intake.
    pub fn new(name: &'static str, address: String) -> Self {
        Self {
            name,
            address,
            last_event_ms: AtomicI64::new(NEVER),
            trouble: Mutex::default(),
            backlog: Mutex::default(),
        }
    }

    /// It works.
    pub fn set_well(&self) {
        self.set(None);
    }

    /// A notification arrived through it at this time (milliseconds since the Unix epoch).
    pub fn heard(&self, at_ms: i64) {
        self.last_event_ms.fetch_max(at_ms, Ordering::Relaxed);
    }

    /// When the last notification arrived through it, if one has since the start.
    pub fn last_event_ms(&self) -> Option<i64> {
        Some(self.last_event_ms.load(Ordering::Relaxed)).filter(|at| *at != NEVER)
    }

    /// No notification arrives through it at present, and why.
    pub fn set_trouble(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// Why no notification arrives through it, if so.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// So much waits where the intake reads from; `None` if that cannot be known.
    pub fn set_backlog(&self, backlog: Option<Backlog>) {
        *self.backlog.lock().unwrap_or_else(PoisonError::into_inner) = backlog;
    }

    /// What waits where the intake reads from, if that can be known.
    pub fn backlog(&self) -> Option<Backlog> {
        *self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// Why a document was not taken. It must not be acknowledged; the sender may try again.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The journal did not take the keys.
    #[error("the journal did not take a notification: {0}")]
    Journal(#[from] AppendError),
    /// The journal did not answer in time.
    #[error("the journal did not make a notification durable within {0:?}; is its disk stuck?")]
    TimedOut(Duration),
    /// This process is not the active one any more, so that nobody may read what its journal has.
    #[error("the lease is over: another process may be the active one")]
    LeaseOver,
    /// A bucket is in doubt and that could not be written down.
    #[error("a bucket must be reconciled and that could not be recorded: {0}")]
    GapBook(#[from] GapError),
}

impl Refused {
    const fn class(&self) -> &'static str {
        match self {
            Self::Journal(AppendError::Full(_)) => "journal_full",
            Self::Journal(_) => "journal_failed",
            Self::TimedOut(_) => "journal_timeout",
            Self::LeaseOver => "lease_over",
            Self::GapBook(_) => "gap_book",
        }
    }
}

/// The door to the journal; share it by `Arc`.
#[derive(Debug)]
pub struct Inlet {
    buckets: HashMap<String, BucketSettings>,
    journal: Journal,
    gaps: Arc<GapBook>,
    metrics: Metrics,
    max_wait: Duration,
    recent: Recent,
    dead_letters: Arc<DeadLetters>,
    last_log: Mutex<Option<Instant>>,
    saver: Saver,
    fence: Arc<Fence>,
}

impl Inlet {
    /// A door for events of `buckets`. `max_wait` bounds how long [`Inlet::accept`] waits for room.
    pub fn new(
        buckets: &[BucketSettings],
        journal: Journal,
        gaps: Arc<GapBook>,
        metrics: Metrics,
        max_wait: Duration,
    ) -> Self {
        Self {
            buckets: buckets.iter().map(|b| (b.source.clone(), b.clone())).collect(),
            journal,
            gaps,
            metrics,
            max_wait,
            recent: Recent::default(),
            dead_letters: Arc::default(),
            last_log: Mutex::default(),
            saver: Saver::default(),
            fence: Arc::new(Fence::alone()),
        }
    }

    /// The same door, which takes nothing once `fence` has fallen.
    #[must_use]
    pub fn fenced(self, fence: Arc<Fence>) -> Self {
        Self { fence, ..self }
    }

    /// What arrived and could not be used.
    pub fn dead_letters(&self) -> &Arc<DeadLetters> {
        &self.dead_letters
    }

    /// Takes one document that arrived at `received_ms` (milliseconds since the Unix epoch). Its
    /// sender may never send it again, so a refusal leaves a gap, and so does dropping this future.
    pub async fn accept(&self, parsed: Parsed, received_ms: i64) -> Result<(), Refused> {
        let sorted = self.sort(parsed, received_ms);
        let mut offer = Untaken::new(self, sorted, received_ms);
        let taken = self.take(&mut offer.sorted, received_ms).await;
        if let Err(refused) = &taken {
            self.refuse(refused, &offer.sorted, received_ms).await;
        }
        offer.settled();
        taken
    }

    /// As [`Inlet::accept`], for a document that stays where it came from until it is acknowledged:
    /// a refusal loses nothing and leaves no gap.
    pub async fn accept_kept(&self, parsed: Parsed, received_ms: i64) -> Result<(), Refused> {
        let mut sorted = self.sort(parsed, received_ms);
        let taken = self.take(&mut sorted, received_ms).await;
        if let Err(refused) = &taken {
            self.metrics.error(Stage::Journal, refused.class());
        }
        taken
    }

    fn sort(&self, parsed: Parsed, received_ms: i64) -> Sorted {
        sort::sort(parsed, received_ms, &self.buckets, |identity| self.recent.knows(identity))
    }

    async fn take(&self, sorted: &mut Sorted, received_ms: i64) -> Result<(), Refused> {
        self.store(sorted, received_ms).await?;
        // After it is durable, because only then it is told to the sender: who takes the lease over lists
        // the source after the fence has fallen, and so after the change that this one tells of.
        if !self.fence.holds() {
            return Err(Refused::LeaseOver);
        }
        traces::received(&sorted.keys, received_ms);
        self.recent.remember(sorted.identities.iter().copied());
        self.count(sorted, received_ms);
        Ok(())
    }

    /// A document was too long to be read: whatever it said, every bucket is in doubt.
    pub async fn too_large(&self, body_bytes: usize, received_ms: i64) -> Result<(), Refused> {
        let unusable = vec![TOO_LARGE];
        let parsed = Parsed { unusable, all_buckets_dirty: true, body_bytes, ..Parsed::default() };
        self.accept(parsed, received_ms).await
    }

    /// Records that events of `bucket` may have been missed before `at_ms` (milliseconds since the Unix
    /// epoch).
    pub async fn doubt(&self, bucket: &str, reason: GapReason, at_ms: i64) -> Result<(), Refused> {
        Ok(self.mark(&vec![(bucket.to_owned(), reason)], at_ms).await?)
    }

    async fn store(&self, sorted: &mut Sorted, received_ms: i64) -> Result<(), Refused> {
        self.mark(&sorted.doubts, received_ms).await?;
        if sorted.keys.is_empty() {
            return Ok(());
        }
        match self.append(&sorted.keys).await {
            // Nothing would ever make it fit, so the buckets are reconciled instead.
            Err(Refused::Journal(AppendError::TooLarge { .. })) => {
                self.mark(&sorted.concerned(GapReason::DeadLetter), received_ms).await?;
                sorted.keys.clear();
                sorted.identities.clear();
                sorted.letters.push(TOO_LARGE);
                Ok(())
            }
            done => done,
        }
    }

    /// Waits for room, up to `max_wait`: a slow answer is how a sender is held back.
    async fn append(&self, keys: &[DirtyKey]) -> Result<(), Refused> {
        let deadline = Instant::now() + self.max_wait;
        loop {
            let payloads = keys.iter().map(DirtyKey::encode).collect();
            match tokio::time::timeout_at(deadline, self.journal.append(payloads)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(AppendError::Full(_))) if Instant::now() + ROOM_POLL < deadline => {
                    tokio::time::sleep(ROOM_POLL).await;
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(Refused::TimedOut(self.max_wait)),
            }
        }
    }

    /// Makes doubts durable. A book without room keeps the gap in memory, and the reconcile at
    /// start covers the rest, so that is logged and not refused.
    async fn mark(&self, doubts: &Doubts, at_ms: i64) -> Result<(), GapError> {
        if doubts.is_empty() {
            return Ok(());
        }
        let (gaps, doubts) = (Arc::clone(&self.gaps), doubts.clone());
        let metrics = self.metrics.clone();
        let marked = tokio::task::spawn_blocking(move || {
            let mut result = Ok(());
            for (bucket, reason) in doubts {
                metrics.gap(reason);
                match gaps.mark(&bucket, reason, at_ms) {
                    Ok(()) => {}
                    Err(error @ GapError::NoRoom { .. }) => {
                        tracing::error!(%error, "The gap is kept in memory only.");
                    }
                    Err(error) => result = Err(error),
                }
            }
            result
        });
        match marked.await.map_err(JoinError::try_into_panic) {
            Ok(result) => result,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is going away, and this task with it.
            Err(Err(_)) => std::future::pending().await,
        }
    }

    async fn refuse(&self, refused: &Refused, sorted: &Sorted, received_ms: i64) {
        self.metrics.error(Stage::Journal, refused.class());
        let reason = match refused {
            Refused::LeaseOver => GapReason::TakenOver,
            Refused::Journal(_) | Refused::TimedOut(_) | Refused::GapBook(_) => {
                GapReason::JournalFull
            }
        };
        let concerned = sorted.concerned(reason);
        let recorded = self.mark(&concerned, received_ms).await;
        if self.may_log() {
            let buckets: Vec<_> = concerned.iter().map(|(bucket, _)| bucket).collect();
            tracing::error!(
                error = %refused, ?buckets, gap_recorded = recorded.is_ok(),
                "Notifications are being refused; the buckets will be reconciled."
            );
        }
    }

    /// Whether another log line about what was not taken is due.
    fn may_log(&self) -> bool {
        let mut last = self.last_log.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    fn count(&self, sorted: &Sorted, received_ms: i64) {
        for letter in &sorted.letters {
            self.dead_letters.push(letter, sorted.body_bytes, received_ms);
        }
        for (outcome, count) in [
            (EventOutcome::Accepted, sorted.keys.len()),
            (EventOutcome::Duplicate, sorted.duplicates),
            (EventOutcome::Ignored, sorted.ignored),
            (EventOutcome::DeadLetter, sorted.letters.len()),
        ] {
            if count > 0 {
                self.metrics.intake_events(outcome, count);
            }
        }
    }
}
