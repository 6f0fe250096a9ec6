//! Deletes at the target that are under way, by bucket: who discards waits until they have ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<Locks>>);

/// By source bucket: held for reading by deletes, for writing by who waits for them.
type Locks = HashMap<Arc<str>, Arc<RwLock<()>>>;

impl UnderWay {
    /// While the guard lives, deletes of this source bucket are under way.
    pub(super) async fn begin(&self, bucket: &Arc<str>) -> OwnedRwLockReadGuard<()> {
        self.lock(bucket).read_owned().await
    }

    /// Waits until those have ended that have begun by now.
    pub(super) async fn ended(&self, bucket: &Arc<str>) {
        drop(self.lock(bucket).write_owned().await);
    }

    fn lock(&self, bucket: &Arc<str>) -> Arc<RwLock<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(Arc::clone(bucket)).or_default())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn deletes_under_way_are_waited_for_and_no_other_buckets() {
        let (deletes, bucket) = (UnderWay::default(), "b".into());
        let (one, _other) = (deletes.begin(&bucket).await, deletes.begin(&"c".into()).await);
        assert!(deletes.ended(&bucket).now_or_never().is_none());
        drop(one);
        assert!(deletes.ended(&bucket).now_or_never().is_some());
    }
}
