//! What becomes of a key whose absence at the source was confirmed: the bucket's policy, the brake,
//! then the delete.
//!
//! **Promise.** Nothing is deleted that the policy keeps, before its delay is over, or while the
//! bucket's brake is on. On error the key is tried again; a key that was set aside twice, before and
//! after a crash, is dealt with twice, which is harmless.

use std::sync::Arc;

use super::Direction;
use super::delay;
use super::guard::Verdict;
use super::worker::{Done, Mapping, Worker};
use crate::clock;
use crate::config::settings::DeletePolicy;
use crate::dirty::{Aspects, DirtyKey, Origin};
use crate::store::{ErrorKind, ListQuery, StoreError};
use crate::workqueue::Work;

impl Worker {
    /// Deals with a key to which the source has just answered 404.
    pub(super) async fn remove(&self, work: &Work, mapping: &Mapping) -> Result<Done, StoreError> {
        if self.direction == Direction::Back {
            return Ok(Done::Unchanged);
        }
        let (due, approved) =
            (work.pending.aspects.has(Aspects::DUE), work.pending.aspects.has(Aspects::APPROVED));
        if !approved && self.hold.discarded(&work.key.bucket, work.pending.last_lsn) {
            tracing::debug!(key = %work.key, "A delete that a person discarded is not carried out.");
            return Ok(Done::Unchanged);
        }
        match mapping.settings.deletes {
            DeletePolicy::Archive => Ok(Done::Kept),
            DeletePolicy::Delay if due => self.remove_due(work, mapping).await,
            DeletePolicy::Delay => {
                // The reconciler finds the object again in every pass until its time has come.
                if work.pending.origin == Origin::Repair && self.delays.knows(&work.key) {
                    return Ok(Done::Delayed);
                }
                match self.brake(work).await? {
                    Verdict::Allow => self.delay(work).await,
                    Verdict::Hold(reason) => self.hold(work, &reason).await,
                    Verdict::Look | Verdict::Wait => Ok(Done::Waits),
                }
            }
            DeletePolicy::Mirror => match self.brake(work).await? {
                Verdict::Allow => self.delete(work, mapping).await,
                Verdict::Hold(reason) => self.hold(work, &reason).await,
                Verdict::Look | Verdict::Wait => Ok(Done::Waits),
            },
        }
    }

    /// The delay is over. The brake has counted this delete when it was delayed; now it only matters
    /// whether it is on.
    async fn remove_due(&self, work: &Work, mapping: &Mapping) -> Result<Done, StoreError> {
        let (key, approved) = (&work.key, work.pending.aspects.has(Aspects::APPROVED));
        if !approved && let Some(reason) = self.hold.reason(&key.bucket) {
            return self.hold(work, &reason).await;
        }
        let head = match self.target.head(&mapping.target, &key.key).await {
            Ok(head) => head,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(Done::Unchanged),
            Err(error) => return Err(error),
        };
        let since_due = clock::now_ms() - work.pending.since_ms;
        let since_delete = since_due.saturating_add(delay::millis(mapping.settings.delete_delay));
        if delay::written_since(&head.headers, since_delete) {
            // The object came back and went away again: that delete has a delay of its own.
            return self.delay(work).await;
        }
        self.delete(work, mapping).await
    }

    async fn delete(&self, work: &Work, mapping: &Mapping) -> Result<Done, StoreError> {
        let key = &work.key;
        self.deleter.delete(&key.bucket, &mapping.target, &key.key).await?;
        Ok(Done::Deleted)
    }

    async fn delay(&self, work: &Work) -> Result<Done, StoreError> {
        let approved = work.pending.aspects.has(Aspects::APPROVED);
        let aspects = if approved { Aspects::APPROVED } else { Aspects::NONE };
        let dirty = DirtyKey {
            key: work.key.clone(),
            aspects: aspects.with(Aspects::REMOVED),
            origin: work.pending.origin,
            since_ms: clock::now_ms(),
        };
        self.delays.put(dirty).await.map_err(|message| disk_error(work, "delay", message))?;
        Ok(Done::Delayed)
    }

    async fn hold(&self, work: &Work, reason: &str) -> Result<Done, StoreError> {
        tracing::debug!(key = %work.key, reason, "A delete is held for a person to approve.");
        let held = DirtyKey {
            key: work.key.clone(),
            aspects: work.pending.aspects.with(Aspects::REMOVED),
            origin: Origin::Live,
            since_ms: work.pending.since_ms,
        };
        self.hold.put(held).await.map_err(|message| disk_error(work, "hold", message))?;
        Ok(Done::Held)
    }

    /// Whether this delete may pass the brake. Where that takes a look at the source's listing, it is
    /// taken here.
    async fn brake(&self, work: &Work) -> Result<Verdict, StoreError> {
        let bucket = &work.key.bucket;
        if work.pending.aspects.has(Aspects::APPROVED) {
            return Ok(Verdict::Allow);
        }
        let verdict = self.hold.admit(bucket);
        if verdict != Verdict::Look {
            return Ok(verdict);
        }
        let _looking = self.hold.looking(bucket);
        let page =
            self.source.list(bucket, &ListQuery { max_keys: 1, ..ListQuery::default() }).await?;
        if page.objects.is_empty() {
            let reason = "the source's bucket lists no object any more, it looks wiped";
            self.hold.pull(bucket, reason.into());
        } else {
            self.hold.looked(bucket);
        }
        Ok(self.hold.admit(bucket))
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
