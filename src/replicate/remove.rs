//! What becomes of a key whose absence at the source was confirmed: the bucket's policy, the brake,
//! then the delete.
//!
//! **Promise.** Nothing is deleted that the policy keeps, before its delay is over, or while the
//! bucket's brake is on. On error the key is tried again; a key that was set aside twice, before and
//! after a crash, is dealt with twice, which is harmless.

use std::io;
use std::sync::Arc;

use super::delete::Deleter;
use super::worker::{Done, Mapping, Worker};
use crate::clock;
use crate::config::settings::DeletePolicy;
use crate::deletes::{Delays, Hold, Verdict, written_since};
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::store::{ErrorKind, ObjectHead, StoreError};
use crate::workqueue::Work;

/// What only the way from source to target needs.
#[derive(Debug)]
pub(super) struct Forth {
    pub(super) hold: Hold,
    pub(super) delays: Arc<Delays>,
    pub(super) deleter: Deleter,
}

impl Worker {
    /// Deals with a key to which the source has just answered 404.
    pub(super) async fn remove(&self, work: &Work, mapping: &Mapping) -> Result<Done, StoreError> {
        match &self.forth {
            Some(forth) => Removal { worker: self, forth, work, mapping }.decide().await,
            None => Ok(Done::Unchanged),
        }
    }
}

/// One key that is gone from the source.
struct Removal<'a> {
    worker: &'a Worker,
    forth: &'a Forth,
    work: &'a Work,
    mapping: &'a Mapping,
}

impl Removal<'_> {
    async fn decide(&self) -> Result<Done, StoreError> {
        let (key, pending) = (&self.work.key, &self.work.pending);
        let discarded = || self.forth.hold.discarded(key, pending.last_lsn);
        let failed = |error: io::Error| disk_error(self.work, "keep", error.to_string());
        if !self.approved() && discarded().map_err(failed)? {
            tracing::debug!(%key, "A delete that a person discarded is not carried out.");
            return Ok(Done::Unchanged);
        }
        // A pass found it some time ago. What is gone by now must not be counted by the brake.
        let found = pending.origin == Origin::Repair && !self.approved();
        if found && self.at_target().await?.is_none() {
            return Ok(Done::Ghost);
        }
        // `sync` may have found it before a person discarded it in `run`.
        if pending.origin == Origin::Repair && self.forth.hold.keeps(key) {
            return Ok(Done::Kept);
        }
        match self.mapping.settings.deletes {
            DeletePolicy::Archive => Ok(Done::Kept),
            DeletePolicy::Delay if pending.aspects.has(Aspects::DUE) => self.remove_due().await,
            DeletePolicy::Delay => {
                // The reconciler finds the object again in every pass until its time has come.
                if pending.origin == Origin::Repair && self.forth.delays.knows(key) {
                    return Ok(Done::Delayed);
                }
                match self.brake().await? {
                    Verdict::Allow => self.delay().await,
                    Verdict::Hold(reason) => self.hold(&reason).await,
                    Verdict::Look | Verdict::Wait => Ok(Done::Waits),
                }
            }
            DeletePolicy::Mirror => match self.brake().await? {
                Verdict::Allow => self.delete().await,
                Verdict::Hold(reason) => self.hold(&reason).await,
                Verdict::Look | Verdict::Wait => Ok(Done::Waits),
            },
        }
    }

    fn approved(&self) -> bool {
        self.work.pending.aspects.has(Aspects::APPROVED)
    }

    /// The target's object, if there is one.
    async fn at_target(&self) -> Result<Option<ObjectHead>, StoreError> {
        let target = &self.worker.target;
        match target.head(&self.mapping.target, &self.work.key.key).await {
            Ok(head) => Ok(Some(head)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The delay is over. The brake has counted this delete when it was delayed; now it only matters
    /// whether it is on.
    async fn remove_due(&self) -> Result<Done, StoreError> {
        if !self.approved()
            && let Some(reason) = self.forth.hold.reason(&self.work.key.bucket)
        {
            return self.hold(&reason).await;
        }
        let Some(head) = self.at_target().await? else { return Ok(Done::Unchanged) };
        let since_due = clock::now_ms() - self.work.pending.since_ms;
        let delay = clock::signed_millis(self.mapping.settings.delete_delay);
        if written_since(&head.headers, since_due.saturating_add(delay)) {
            // The object came back and went away again: that delete has a delay of its own.
            return self.delay().await;
        }
        self.delete().await
    }

    async fn delete(&self) -> Result<Done, StoreError> {
        let key = &self.work.key;
        self.forth.deleter.delete(&key.bucket, &self.mapping.target, &key.key).await?;
        Ok(Done::Deleted)
    }

    async fn delay(&self) -> Result<Done, StoreError> {
        let work = self.work;
        let aspects = if self.approved() { Aspects::APPROVED } else { Aspects::NONE };
        let dirty = DirtyKey {
            key: work.key.clone(),
            aspects: aspects.with(Aspects::REMOVED),
            origin: work.pending.origin,
            since_ms: clock::now_ms(),
            size: Some(0),
        };
        let put = self.forth.delays.put(dirty).await;
        put.map_err(|message| disk_error(work, "delay", message))?;
        Ok(Done::Delayed)
    }

    async fn hold(&self, reason: &str) -> Result<Done, StoreError> {
        let work = self.work;
        // A record that is read again after a restart may tell of a delete that was carried out.
        if self.at_target().await?.is_none() {
            return Ok(Done::Unchanged);
        }
        tracing::debug!(key = %work.key, reason, "A delete is held for a person to approve.");
        let held = DirtyKey {
            key: work.key.clone(),
            aspects: work.pending.aspects.with(Aspects::REMOVED),
            origin: Origin::Live,
            since_ms: work.pending.since_ms,
            size: Some(0),
        };
        let put = self.forth.hold.put(vec![held]).await;
        put.map_err(|error| disk_error(work, "hold", error.to_string()))?;
        Ok(Done::Held)
    }

    /// Whether this delete may pass the brake. Where that takes a look at the source's listing, it is
    /// taken here.
    async fn brake(&self) -> Result<Verdict, StoreError> {
        let (hold, bucket) = (&self.forth.hold, &self.work.key.bucket);
        if self.approved() {
            return Ok(Verdict::Allow);
        }
        let verdict = hold.admit(bucket);
        if verdict != Verdict::Look {
            return Ok(verdict);
        }
        let _looking = hold.looking(bucket);
        if self.worker.source.is_empty(bucket).await? {
            let reason = "the source's bucket lists no object any more, it looks wiped";
            hold.pull(bucket, reason.into());
        } else {
            hold.looked(bucket);
        }
        Ok(hold.admit(bucket))
    }
}

/// Our own disk failed: no store is to blame.
fn disk_error(work: &Work, operation: &'static str, message: String) -> StoreError {
    StoreError {
        kind: ErrorKind::Transient,
        operation,
        endpoint: Arc::from("data_dir"),
        bucket: (&*work.key.bucket).into(),
        key: (&*work.key.key).into(),
        status: None,
        code: None,
        message,
        maybe_applied: false,
    }
}
