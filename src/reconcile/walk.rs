//! One pass of one bucket inside `run`: differences become marks in the journal.
//!
//! **Promise.** Nothing is written to a store. No object is marked as removed unless every key of the
//! bucket, or of the prefix, was compared without an error in this one pass; and then only if its
//! source does not look wiped. **On error** what was found is marked all the same, and the ranges that
//! were finished are not walked again by the next pass. **On crash** likewise.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::checkpoint::{Checkpoint, Looked};
use super::merge::{Finding, Pairs};
use super::pass::{self, Difference, PassError, PassEvent, PassOptions, PassReport};
use super::progress::Progress;
use super::reconciler::Parts;
use super::repairs::{PAGE, Repairs, repair};
use super::schedule::{Ended, Job};
use crate::clock;
use crate::config::settings::{BucketSettings, DeletePolicy};
use crate::deletes::extras::{Extras, ExtrasError, judge_extras};
use crate::deletes::verdict::{Case, Verdict};
use crate::dirty::Aspects;
use crate::gaps::{GapError, Generation};
use crate::journal::AppendError;
use crate::object::{ETag, ObjectKey};
use crate::remembered::Remembered;
use crate::shelf::ShelfError;
use crate::store::StoreError;
use crate::stores::Stores;

/// Differences that may wait for the journal.
const QUEUE: usize = 1_024;
/// What is written while a pass begins is looked at by the next one, too.
const OVERLAP_MS: i64 = 5_000;

/// Why a pass came to no end.
#[derive(Debug, thiserror::Error)]
pub(super) enum WalkError {
    #[error(transparent)]
    Unreachable(#[from] StoreError),
    #[error(transparent)]
    Pass(#[from] PassError),
    #[error("failed to mark what was found: {0}")]
    Mark(#[from] AppendError),
    #[error("failed to hold deletes: {0}")]
    Hold(#[from] ShelfError),
    #[error("failed to set keys aside in data_dir/reconcile: {0}")]
    Set(#[from] std::io::Error),
    #[error(transparent)]
    Extras(#[from] ExtrasError),
    #[error(transparent)]
    Gap(#[from] GapError),
}

/// What time it was as a pass began.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    /// At the source, in milliseconds since the Unix epoch.
    source_ms: i64,
    /// The source's clock less the target's.
    skew_ms: i64,
}

/// When a pass began, by the clocks that matter.
#[derive(Debug, Clone, Copy)]
struct BeganAt {
    began: Instant,
    /// Our wall clock.
    began_ms: i64,
    /// [`crate::deletes::Hold::now_ms`].
    held_ms: i64,
    /// A person has decided since then that objects stay.
    decided: bool,
    /// Deletes that a person approved were to be carried out then, or have been since.
    approved: bool,
}

/// What is known of single objects of a bucket.
struct Memory {
    remembered: Arc<Remembered>,
    bucket: Arc<str>,
    /// [`Remembered::kept_so_far`] before the first listing.
    kept_so_far: u64,
}

impl Pairs for Memory {
    fn knows(&self, key: &str, source: &ETag, target: &ETag) -> bool {
        self.remembered.is_pair(&self.bucket, key, source, target)
    }

    /// What a person kept in spite of the source is at the source again; but not by a listing that may be older than
    /// that decision.
    fn agree(&self, key: &str) {
        if self.remembered.kept_so_far() == self.kept_so_far
            && let Err(error) = self.remembered.replaced(&self.bucket, key)
        {
            tracing::debug!(bucket = %self.bucket, %error, "A kept object is remembered for longer than it need be.");
        }
    }
}

/// What a pass needs.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) parts: &'a Parts,
    pub(super) stores: &'a Stores,
    pub(super) settings: &'a BucketSettings,
    pub(super) progress: &'a Arc<Progress>,
    pub(super) dir: &'a Path,
    pub(super) job: &'a Job,
}

impl Walk<'_> {
    /// Runs the pass.
    pub(super) async fn run(&self) -> Result<Ended, WalkError> {
        // Before anything else: what is marked from now on may be missing in the listings.
        let generation = self.parts.gaps.generation();
        let (began, began_ms) = (Instant::now(), clock::now_ms());
        let (kept_so_far, held_ms) =
            (self.parts.remembered.kept_so_far(), self.parts.hold.now_ms());
        let (approvals, approving) = (self.parts.hold.approvals(), self.approved_waits());
        let mut checkpoint = Checkpoint::load(self.dir, &self.job.bucket).await;
        self.progress.last_complete(checkpoint.last_complete_ms);
        let whole = self.job.prefix.is_none();
        let resumed = whole && checkpoint.can_resume(began_ms);
        if whole && !resumed {
            (checkpoint.began_ms, checkpoint.done) = (began_ms, Vec::new());
        }
        let clocks = self.clocks().await?;
        let options = self.options(&checkpoint, resumed, clocks.skew_ms);
        let mut extras = Extras::new(self.dir.join(format!("{}.extras", self.file_name())));
        let (differences, received) = mpsc::channel(QUEUE);
        let (report, marked) = tokio::join!(
            pass::run(options, differences),
            self.mark(received, &mut extras, &mut checkpoint),
        );
        // Its error is the cause when both fail: a pass ends when nobody takes what it finds.
        marked?;
        let report = report?;
        self.progress.counted(&report);
        if resumed {
            checkpoint.done.clear();
            self.save(&checkpoint).await;
            return Ok(Ended::Resumed);
        }
        let decided = self.parts.remembered.kept_so_far() != kept_so_far;
        let approved = approving || self.parts.hold.approvals() != approvals;
        let began_at = BeganAt { began, began_ms, held_ms, decided, approved };
        if !self.settle_extras(&report, &mut extras, began_at).await? {
            // Its gap stays, and another whole pass follows.
            checkpoint.done.clear();
            self.save(&checkpoint).await;
            return Ok(Ended::Failed);
        }
        if whole {
            checkpoint.done.clear();
            checkpoint.split_points.clone_from(&report.split_points);
            checkpoint.last_complete_ms = Some(clock::now_ms());
            let until_ms = clocks.source_ms.saturating_sub(OVERLAP_MS);
            checkpoint.looked = Some(Looked { between: self.between(), until_ms });
            self.save(&checkpoint).await;
            self.progress.last_complete(checkpoint.last_complete_ms);
            self.clear_gap(generation, began_ms).await?;
        }
        Ok(Ended::Complete)
    }

    /// Asks both sides what time it is there; whether they answer, too.
    async fn clocks(&self) -> Result<Clocks, StoreError> {
        let (source, target) = tokio::try_join!(
            self.stores.source.clock(&self.job.bucket),
            self.stores.target.clock(self.settings.target_name()),
        )?;
        Ok(Clocks { source_ms: clock::now_ms() + source, skew_ms: source - target })
    }

    /// What is compared: [`Looked::between`].
    fn between(&self) -> String {
        let (source, target) = (self.stores.source.endpoint(), self.stores.target.endpoint());
        let BucketSettings { include, exclude, .. } = self.settings;
        let bucket = self.settings.target_name();
        format!("{source} {target}/{bucket} include {include:?} exclude {exclude:?}")
    }

    /// Until when an earlier pass has looked: [`Looked::until_ms`]. After a gap that says nothing, since its
    /// marks may be among what was lost.
    fn looked_until_ms(&self, checkpoint: &Checkpoint) -> Option<i64> {
        let gaps = &self.parts.gaps;
        if gaps.damaged() || gaps.list().iter().any(|gap| *gap.bucket == *self.job.bucket) {
            return None;
        }
        let looked = checkpoint.looked.as_ref()?;
        (looked.between == self.between()).then_some(looked.until_ms)
    }

    fn options(&self, checkpoint: &Checkpoint, resumed: bool, skew_ms: i64) -> PassOptions {
        let reconcile = &self.parts.settings.reconcile;
        let (settings, progress) = (self.settings.clone(), Arc::clone(self.progress));
        let (remembered, bucket) =
            (Arc::clone(&self.parts.remembered), Arc::clone(&self.job.bucket));
        let target = self.settings.target_name().into();
        PassOptions {
            source: (self.stores.source.clone(), Arc::clone(&self.job.bucket)),
            target: (self.stores.target.clone(), target),
            prefix: self.job.prefix.as_deref().unwrap_or_default().into(),
            filter: Arc::new(move |key| {
                progress.key_compared();
                settings.wants(key)
            }),
            skew_ms,
            opaque: self.parts.settings.target.encrypts_with_kms(),
            closer: false,
            looked_until_ms: self.looked_until_ms(checkpoint),
            pairs: Arc::new(Memory { kept_so_far: remembered.kept_so_far(), remembered, bucket }),
            parallel: NonZeroUsize::new(reconcile.parallel).unwrap_or(NonZeroUsize::MIN),
            split_points: checkpoint.split_points.clone(),
            done: if resumed { checkpoint.done.clone() } else { Vec::new() },
            requests_per_second: reconcile.rate(),
        }
    }

    /// Marks what the pass finds, until it ends.
    async fn mark(
        &self,
        mut events: mpsc::Receiver<PassEvent>,
        extras: &mut Extras,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), WalkError> {
        let mut repairs = self.repairs();
        while let Some(event) = events.recv().await {
            match event {
                PassEvent::Difference(found) => self.take(found, &mut repairs, extras).await?,
                PassEvent::RangeDone(range) => {
                    repairs.flush().await?;
                    if self.job.prefix.is_none() {
                        checkpoint.done.push(range);
                        self.save(checkpoint).await;
                    }
                }
            }
        }
        Ok(repairs.flush().await?)
    }

    async fn take(
        &self,
        found: Difference,
        repairs: &mut Repairs<'_>,
        extras: &mut Extras,
    ) -> Result<(), WalkError> {
        let Some(aspects) = found.finding.repair() else { return Ok(()) };
        if found.finding == Finding::Extra {
            if !self.stays(&found.key) {
                self.count(found.finding);
                extras.push(&found.key).await?;
            }
            return Ok(());
        }
        self.count(found.finding);
        // What is only doubtful is no change that waits.
        let doubtful = matches!(found.finding, Finding::Newer | Finding::Unverifiable);
        let known = found.source.filter(|_| !doubtful);
        let size = known.as_ref().map(|object| object.size);
        let since_ms = known.map_or_else(clock::now_ms, |object| object.modified_ms);
        Ok(repairs.push(&found.key, aspects, since_ms, size).await?)
    }

    /// Whether it is as it should be that only the target has this object.
    fn stays(&self, key: &str) -> bool {
        let bucket = &self.job.bucket;
        self.parts.remembered.is_kept(bucket, key)
            || match self.settings.deletes {
                DeletePolicy::Mirror => false,
                DeletePolicy::Archive => true,
                DeletePolicy::Delay => {
                    self.parts.delays.knows(&ObjectKey::new(Arc::clone(bucket), key))
                }
            }
    }

    /// Marks or holds the objects that only the target has, or leaves them. Says whether they could be
    /// judged.
    async fn settle_extras(
        &self,
        report: &PassReport,
        extras: &mut Extras,
        BeganAt { began, began_ms, held_ms, decided, approved }: BeganAt,
    ) -> Result<bool, WalkError> {
        let (bucket, hold) = (&self.job.bucket, &self.parts.hold);
        let count = if decided { self.still_extra(extras).await? } else { extras.count() };
        let took = began.elapsed();
        let case = Case {
            policy: self.settings.deletes,
            report,
            extras: count,
            came: 0,
            prefix: self.job.prefix.is_some(),
            may_be_empty: self.settings.may_be_empty,
            max_percent: self.parts.settings.deletes.max_delete_percent,
            brake: hold.reason(bucket),
        };
        let source = (&self.stores.source, &**bucket);
        let verdict = judge_extras(case, source, async || extras.read().await, took).await?;
        if self.job.prefix.is_none() {
            hold.sized(bucket, report.target_objects);
        }
        let prefix = self.job.prefix.as_deref().unwrap_or_default();
        if matches!(verdict, Verdict::Hold(_)) && (approved || self.approved_waits()) {
            // What a person approved and is being deleted, or was while the target was listed, is no disaster; what
            // else there is another pass finds.
            return Ok(false);
        }
        let reason = match verdict {
            // What is held has come back to the source, or is gone from the target.
            Verdict::Keep if count == 0 && !report.start_ignored => {
                if hold.holds(bucket) {
                    hold.forget(&self.parts.journal, bucket, prefix, held_ms).await?;
                }
                return Ok(true);
            }
            Verdict::Keep => return Ok(true),
            Verdict::Mark => None,
            Verdict::Hold(reason) => Some(reason),
        };
        if let Some(reason) = &reason {
            hold.pull(bucket, reason);
        }
        let mut repairs = self.repairs();
        let mut keys = extras.read().await?;
        loop {
            let mut page = keys.page(PAGE).await?;
            if page.is_empty() {
                break;
            }
            // A person may have decided meanwhile.
            page.retain(|key| !self.stays(key));
            if reason.is_none() {
                for key in &page {
                    repairs.push(key, Aspects::REMOVED, began_ms, Some(0)).await?;
                }
            } else {
                let removed =
                    |key: &String| repair(bucket, key, Aspects::REMOVED, held_ms, Some(0));
                hold.renew(page.iter().map(removed).collect()).await?;
            }
        }
        repairs.flush().await?;
        if reason.is_some() {
            // What was held before is renewed, or there is nothing to delete any more.
            hold.forget(&self.parts.journal, bucket, prefix, held_ms).await?;
        }
        Ok(true)
    }

    /// Whether deletes of the bucket that a person approved may still be about to be carried out.
    fn approved_waits(&self) -> bool {
        let Parts { hold, queue, position, .. } = &self.parts;
        // In the order in which a key goes, so that it is not missed on its way.
        let moving = hold.decides(&self.job.bucket);
        let unread = moving || hold.may_read_approved(position.load(Ordering::Acquire));
        unread || queue.has_approved(&self.job.bucket)
    }

    /// How many of the extras are not to stay by now.
    async fn still_extra(&self, extras: &mut Extras) -> Result<u64, WalkError> {
        let (mut keys, mut count) = (extras.read().await?, 0);
        loop {
            let page = keys.page(PAGE).await?;
            if page.is_empty() {
                return Ok(count);
            }
            count += page.iter().filter(|key| !self.stays(key)).count() as u64;
        }
    }

    /// Everything that events before the pass may have missed was compared.
    async fn clear_gap(&self, seen: Generation, began_ms: i64) -> Result<(), GapError> {
        let (gaps, bucket) = (Arc::clone(&self.parts.gaps), Arc::clone(&self.job.bucket));
        let cleared = tokio::task::spawn_blocking(move || gaps.clear(&bucket, seen, began_ms));
        // Without an answer the runtime is ending, and the gap stays.
        cleared.await.unwrap_or(Ok(()))
    }

    fn repairs(&self) -> Repairs<'_> {
        let pending = self.parts.settings.replicate.max_pending_keys / 2;
        Repairs {
            journal: &self.parts.journal,
            queue: &self.parts.queue,
            position: &self.parts.position,
            most_pending: pending as u64,
            bucket: Arc::clone(&self.job.bucket),
            batch: Vec::new(),
        }
    }

    fn count(&self, finding: Finding) {
        self.parts.metrics.drift(finding);
        self.progress.found(finding);
    }

    async fn save(&self, checkpoint: &Checkpoint) {
        if let Err(error) = checkpoint.save(self.dir).await {
            tracing::warn!(bucket = %self.job.bucket, %error, "The reconciler's checkpoint could not be written; after a crash the whole bucket is walked.");
        }
    }

    fn file_name(&self) -> String {
        form_urlencoded::byte_serialize(self.job.bucket.as_bytes()).collect()
    }
}
