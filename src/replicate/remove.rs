//! What becomes of a key whose absence at the source was confirmed: the rule of [`crate::deletes`], then the delete.
//!
//! **Promise.** Nothing is deleted that the policy or a person keeps, before its delay is over, or while the
//! bucket's brake is on. On error the key is tried again; a key that was set aside twice, before and
//! after a crash, is dealt with twice, which is harmless.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::AttemptError;
use super::delete::{Deleter, Then};
use super::worker::{Done, Mapping, Worker};
use crate::clock;
use crate::deletes::{Admission, Case, Confirmed, Delays, Hold, Step, may_go};
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::policy::CANARY;
use crate::store::{ErrorKind, ObjectHead};
use crate::workqueue::{Pending, Work};

/// What only the way from source to target needs.
#[derive(Debug)]
pub(super) struct Forth {
    pub(super) hold: Hold,
    pub(super) delays: Arc<Delays>,
    pub(super) deleter: Deleter,
}

impl Worker {
    /// Deals with a key to which the source has just answered 404.
    pub(super) async fn remove(
        &self,
        work: &Work,
        mapping: &Mapping,
    ) -> Result<Done, AttemptError> {
        if self.is_unseen(work) {
            return Ok(Done::Unseen);
        }
        match &self.forth {
            Some(forth) => Removal { worker: self, forth, work, mapping }.decide().await,
            None => Ok(Done::Unchanged),
        }
    }

    /// Whether the 404 that the source has just answered contradicts what was reported, and was not answered for long
    /// enough to be believed.
    pub(super) fn is_unseen(&self, work: &Work) -> bool {
        self.forth.is_some() && unseen_for(&work.pending).is_some()
    }
}

/// A source may show what was written only a moment later: a store without read-after-write across its gateways, two
/// sites behind one balancer. How long to wait until it is asked again; `None` once that was half a
/// minute in all, or where nothing says that the object is there.
pub(super) fn unseen_for(pending: &Pending) -> Option<Duration> {
    const FIRST_MS: u64 = 500;
    const TIMES: u8 = 6;
    let waits = pending.is_reported_present() && pending.unseen < TIMES;
    waits.then(|| Duration::from_millis(FIRST_MS << pending.unseen))
}

/// One key that is gone from the source.
struct Removal<'a> {
    worker: &'a Worker,
    forth: &'a Forth,
    work: &'a Work,
    mapping: &'a Mapping,
}

impl Removal<'_> {
    async fn decide(&self) -> Result<Done, AttemptError> {
        let (key, pending) = (&self.work.key, &self.work.pending);
        let hold = &self.forth.hold;
        let discarded = self.discarded().await?;
        // A pass found it, or it was set aside, some time ago, or a restart or a second delivery may tell of it again.
        // What is gone by now must not be counted by the brake, at least where that could make a difference.
        let again = pending.origin != Origin::Live || hold.counts_matter(&key.bucket);
        let found = again && !self.approved();
        if found && self.at_target().await?.is_none() {
            return Ok(if pending.origin.is_live() { Done::Unchanged } else { Done::Ghost });
        }
        let case = Case {
            policy: self.mapping.settings.deletes,
            aspects: pending.aspects,
            origin: pending.origin,
            kept: discarded || hold.keeps(key),
            delayed: self.forth.delays.knows(key),
        };
        match may_go(case) {
            Step::Keep => {
                if case.kept {
                    tracing::debug!(%key, "An object stays at the target because a person discarded its delete.");
                }
                Ok(Done::Kept)
            }
            Step::Wait => Ok(Done::Delayed),
            // Else what waits would count objects that are not there.
            Step::Delay if !found && self.at_target().await?.is_none() => Ok(Done::Unchanged),
            Step::Delay => match self.ask(Then::Nothing).await? {
                Admission::Hold(reason) => self.hold(&reason).await,
                Admission::Keep => self.keep().await,
                Admission::Allow | Admission::Count(_) => self.delay().await,
            },
            Step::DeleteDue => self.remove_due().await,
            Step::Delete => self.delete().await,
        }
    }

    /// Whether a person's decision covers this delete, which is durable then.
    async fn discarded(&self) -> Result<bool, AttemptError> {
        let (key, pending) = (&self.work.key, &self.work.pending);
        let discarded = self.forth.hold.discarded(key, pending.aspects, pending.removal());
        discarded.await.map_err(|error: io::Error| AttemptError::disk(key, "keep", error))
    }

    /// A person decided while this delete was on its way.
    async fn keep(&self) -> Result<Done, AttemptError> {
        self.discarded().await?;
        Ok(Done::Kept)
    }

    fn approved(&self) -> bool {
        self.work.pending.aspects.has(Aspects::APPROVED)
    }

    /// The target's object, if there is one.
    async fn at_target(&self) -> Result<Option<ObjectHead>, AttemptError> {
        let target = &self.worker.target;
        match target.head(&self.mapping.target, &self.work.key.key).await {
            Ok(head) => Ok(Some(head)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The delay is over, unless the object came back and went away again, and that could not be remembered.
    async fn remove_due(&self) -> Result<Done, AttemptError> {
        if self.forth.delays.waits(&self.work.key) {
            // It was deleted again, and that delete has a delay of its own.
            return Ok(Done::Delayed);
        }
        let Some(head) = self.at_target().await? else { return Ok(Done::Unchanged) };
        let since_due = self.forth.delays.ms_since(self.work.pending.since_ms);
        let delay = clock::signed_millis(self.mapping.settings.delete_delay);
        let waited = since_due.saturating_add(delay);
        if self.forth.delays.is_new(&self.work.key, &head.headers, waited) {
            // That delete has a delay of its own.
            return self.delay().await;
        }
        self.delete().await
    }

    async fn delete(&self) -> Result<Done, AttemptError> {
        match self.ask(Then::Delete(Arc::clone(&self.mapping.target))).await? {
            Admission::Hold(reason) => self.hold(&reason).await,
            Admission::Keep => self.keep().await,
            Admission::Allow | Admission::Count(_) => Ok(Done::Deleted),
        }
    }

    /// Whether this delete may pass the brake; carried out at once, if that is what follows.
    async fn ask(&self, then: Then) -> Result<Admission, AttemptError> {
        let key = self.work.key.clone();
        let confirmed = Confirmed {
            approved: self.approved(),
            counted: self.work.pending.aspects.has(Aspects::DUE),
            lsn: self.work.pending.removal(),
            aspects: self.work.pending.aspects,
            own: key.key.ends_with(CANARY),
            key,
        };
        self.forth.deleter.delete(confirmed, then).await
    }

    async fn delay(&self) -> Result<Done, AttemptError> {
        let work = self.work;
        let aspects = if self.approved() { Aspects::APPROVED } else { Aspects::NONE };
        let dirty = DirtyKey {
            key: work.key.clone(),
            aspects: aspects.with(Aspects::REMOVED),
            origin: work.pending.origin,
            since_ms: 0,
            size: Some(0),
        };
        let put = self.forth.delays.put(dirty).await;
        put.map_err(|error| AttemptError::disk(&work.key, "delay", error))?;
        // A decision that was made meanwhile did not see it on the shelf; now it is kept when its delay is over.
        self.discarded().await?;
        Ok(Done::Delayed)
    }

    async fn hold(&self, reason: &Arc<str>) -> Result<Done, AttemptError> {
        let work = self.work;
        // A record that is read again after a restart may tell of a delete that was carried out.
        if self.at_target().await?.is_none() {
            return Ok(Done::Unchanged);
        }
        self.forth.hold.pull(&work.key.bucket, reason);
        tracing::debug!(key = %work.key, %reason, "A delete is held for a person to approve.");
        let held = DirtyKey {
            key: work.key.clone(),
            aspects: work.pending.aspects.with(Aspects::REMOVED),
            origin: Origin::Live,
            since_ms: self.forth.hold.now_ms(),
            size: Some(0),
        };
        let put = self.forth.hold.put(vec![held]).await;
        put.map_err(|error| AttemptError::disk(&work.key, "hold", error))?;
        Ok(Done::Held)
    }
}
