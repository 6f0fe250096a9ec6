//! What a GET leaves out: some stores tell all of an object only in the answer to a HEAD.

use std::sync::atomic::Ordering;

use super::plan;
use super::worker::Worker;
use crate::object::ObjectKey;
use crate::store::{ErrorKind, ObjectHead, StoreError};

impl Worker {
    /// All that the source says of the object that it answered to a GET. RustFS 1.0.1's GET leaves out
    /// `Expires` and the number of tags (run, 2026-11-23); its HEAD tells them.
    pub(super) async fn whole_head(
        &self,
        key: &ObjectKey,
        got: &ObjectHead,
    ) -> Result<ObjectHead, StoreError> {
        if plan::tells_all(self.source.server().as_deref()) {
            return Ok(got.clone());
        }
        let head = match self.source.head(&key.bucket, &key.key).await {
            // It was there a moment ago.
            Err(error) if error.kind == ErrorKind::NotFound => {
                return Err(StoreError { kind: ErrorKind::Changed, ..error });
            }
            head => head?,
        };
        if head.etag != got.etag || head.length != got.length {
            return Err(self.source_changed(key));
        }
        if plan::tag_count(&head).is_some() && plan::tag_count(got).is_none() {
            self.source_head_counts.store(true, Ordering::Relaxed);
        }
        Ok(head)
    }

    fn source_changed(&self, key: &ObjectKey) -> StoreError {
        let call = self.source.failure("HeadObject", &key.bucket, &key.key);
        call.changed("the object changed while it was read")
    }
}
