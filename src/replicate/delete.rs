//! Deletes at the target: confirmed, guarded, batched.
//!
//! **Promise.** A key is deleted at the target only after the source answered 404 to a HEAD of that very
//! key (the caller's part) *and* the source's bucket was there afterwards (checked here, once per
//! batch, because a HEAD's 404 does not tell a missing object from a missing bucket).
//!
//! No linger: a batch is whatever arrived while the one before it was under way. On cancellation of
//! a caller its delete may still be carried out, which was confirmed and stays right.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::store::{ErrorKind, Store, StoreError};

/// `DeleteObjects` takes at most this many keys (AWS API reference).
const MAX_BATCH: usize = 1_000;

/// One confirmed delete.
#[derive(Debug)]
struct Delete {
    source_bucket: Arc<str>,
    target_bucket: Arc<str>,
    key: Arc<str>,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

/// Takes confirmed deletes; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Deleter {
    queue: mpsc::Sender<Delete>,
}

impl Deleter {
    /// The taking end, and the task that does the work; it ends when all takers are gone.
    pub(super) fn new(source: Store, target: Store) -> (Self, impl Future<Output = ()>) {
        let (queue, deletes) = mpsc::channel(MAX_BATCH);
        (Self { queue }, run(source, target, deletes))
    }

    /// Deletes a key at the target whose absence at the source was just confirmed.
    pub(super) async fn delete(
        &self,
        source_bucket: &Arc<str>,
        target_bucket: &Arc<str>,
        key: &Arc<str>,
    ) -> Result<(), StoreError> {
        let (answer, result) = oneshot::channel();
        let delete = Delete {
            source_bucket: Arc::clone(source_bucket),
            target_bucket: Arc::clone(target_bucket),
            key: Arc::clone(key),
            answer,
        };
        let stopping = || StoreError {
            kind: ErrorKind::Transient,
            operation: "DeleteObjects",
            endpoint: "target".into(),
            bucket: (&**target_bucket).into(),
            key: (&**key).into(),
            status: None,
            code: None,
            message: "evermirror is stopping; the delete is carried out after the restart".into(),
            maybe_applied: false,
        };
        self.queue.send(delete).await.map_err(|_| stopping())?;
        result.await.unwrap_or_else(|_| Err(stopping()))
    }
}

async fn run(source: Store, target: Store, mut deletes: mpsc::Receiver<Delete>) {
    let mut batch = Vec::new();
    while deletes.recv_many(&mut batch, MAX_BATCH).await > 0 {
        // Side by side, so that a bucket that does not answer costs the others one wait, not many.
        let groups = by_bucket(std::mem::take(&mut batch)).into_iter();
        let deletes = groups.map(|(bucket, group)| {
            let (source, target) = (&source, &target);
            async move { delete_group(source, target, &bucket, group).await }
        });
        futures_util::future::join_all(deletes).await;
    }
}

fn by_bucket(batch: Vec<Delete>) -> HashMap<Arc<str>, Vec<Delete>> {
    let mut groups: HashMap<Arc<str>, Vec<Delete>> = HashMap::new();
    for delete in batch {
        groups.entry(Arc::clone(&delete.source_bucket)).or_default().push(delete);
    }
    groups
}

/// Deletes keys of one bucket, if the source still has that bucket.
async fn delete_group(source: &Store, target: &Store, source_bucket: &str, group: Vec<Delete>) {
    let Some(target_bucket) = group.first().map(|d| Arc::clone(&d.target_bucket)) else { return };
    let results = if let Err(error) = source.head_bucket(source_bucket).await {
        vec![Err(error); group.len()]
    } else {
        let keys: Vec<&str> = group.iter().map(|d| &*d.key).collect();
        target.delete_many(&target_bucket, &keys).await
    };
    for (delete, result) in group.into_iter().zip(results) {
        // A worker that was cancelled no longer listens.
        drop(delete.answer.send(result));
    }
}
