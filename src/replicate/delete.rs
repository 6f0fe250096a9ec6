//! Deletes at the target: confirmed, admitted, batched.
//!
//! **Promise.** A key is deleted at the target only after the source answered 404 to a HEAD of that very
//! key (the caller's part) *and* the [`Gate`] let it pass afterwards, once per batch: it sees that the source's
//! bucket is there, because a HEAD's 404 does not tell a missing object from a missing bucket, and that
//! it lists something. A discard that comes while a batch is under way is answered when that has ended.
//!
//! No linger: a batch is whatever arrived while the bucket's one before it was under way. On cancellation of
//! a caller its delete may still be carried out, which was confirmed and stays right.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot};

use super::attempt::AttemptError;
use crate::deletes::{Admission, Confirmed, Gate};
use crate::store::{Store, StoreError};

/// `DeleteObjects` takes at most this many keys (AWS API reference).
const MAX_BATCH: usize = 1_000;

/// What becomes of a delete that passes.
#[derive(Debug, Clone)]
pub(super) enum Then {
    /// The object of this key is deleted in this bucket of the target.
    Delete(Arc<str>),
    /// Nothing yet: it is to be delayed.
    Nothing,
}

/// One confirmed delete.
#[derive(Debug)]
struct Delete {
    confirmed: Confirmed,
    then: Then,
    answer: oneshot::Sender<Result<Admission, StoreError>>,
}

/// Takes confirmed deletes; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Deleter {
    queue: mpsc::Sender<Delete>,
}

impl Deleter {
    /// The taking end, and the task that does the work; it ends when all takers are gone.
    pub(super) fn new(gate: Gate, target: Store) -> (Self, impl Future<Output = ()>) {
        let (queue, deletes) = mpsc::channel(MAX_BATCH);
        (Self { queue }, run(gate, target, deletes))
    }

    /// Asks whether a delete whose key the source has just confirmed may pass, and carries it out then.
    pub(super) async fn delete(
        &self,
        confirmed: Confirmed,
        then: Then,
    ) -> Result<Admission, AttemptError> {
        let (answer, result) = oneshot::channel();
        let delete = Delete { confirmed, then, answer };
        self.queue.send(delete).await.map_err(|_| AttemptError::Stopping)?;
        Ok(result.await.map_err(|_| AttemptError::Stopping)??)
    }
}

async fn run(gate: Gate, target: Store, mut deletes: mpsc::Receiver<Delete>) {
    // By bucket that has a batch under way, what has arrived since: a bucket that does not answer keeps no
    // other one waiting.
    let mut arrived: HashMap<Arc<str>, Vec<Delete>> = HashMap::new();
    let mut under_way = FuturesUnordered::new();
    let (mut batch, mut open) = (Vec::new(), true);
    while open || !under_way.is_empty() {
        let ready = tokio::select! {
            received = deletes.recv_many(&mut batch, MAX_BATCH), if open => {
                open = received > 0;
                by_bucket(std::mem::take(&mut batch))
            }
            Some(bucket) = under_way.next() => {
                let group = arrived.remove(&bucket).filter(|group| !group.is_empty());
                group.map(|group| (bucket, group)).into_iter().collect()
            }
        };
        for (bucket, mut group) in ready {
            if let Some(waiting) = arrived.get_mut(&bucket) {
                waiting.append(&mut group);
                continue;
            }
            let rest = group.split_off(group.len().min(MAX_BATCH));
            arrived.insert(Arc::clone(&bucket), rest);
            let (gate, target) = (&gate, &target);
            under_way.push(async move {
                delete_group(gate, target, &bucket, group).await;
                bucket
            });
        }
    }
}

fn by_bucket(batch: Vec<Delete>) -> HashMap<Arc<str>, Vec<Delete>> {
    let mut groups: HashMap<Arc<str>, Vec<Delete>> = HashMap::new();
    for delete in batch {
        groups.entry(Arc::clone(&delete.confirmed.key.bucket)).or_default().push(delete);
    }
    groups
}

/// Deletes those keys of one bucket that the gate lets pass.
async fn delete_group(gate: &Gate, target: &Store, source_bucket: &Arc<str>, group: Vec<Delete>) {
    let confirmed: Vec<_> = group.iter().map(|delete| delete.confirmed.clone()).collect();
    let _under_way = gate.begin(source_bucket).await;
    let admissions = match gate.admit(source_bucket, &confirmed).await {
        Ok(admissions) => admissions,
        Err(error) => {
            for delete in group {
                // A worker that was cancelled no longer listens.
                drop(delete.answer.send(Err(error.clone())));
            }
            return;
        }
    };
    let mut deletes = Vec::new();
    for (delete, admission) in group.into_iter().zip(admissions) {
        match (&delete.then, admission) {
            (Then::Delete(bucket), Admission::Allow) => deletes.push((Arc::clone(bucket), delete)),
            (_, admission) => drop(delete.answer.send(Ok(admission))),
        }
    }
    let Some(target_bucket) = deletes.first().map(|(bucket, _)| Arc::clone(bucket)) else { return };
    let keys: Vec<&str> = deletes.iter().map(|(_, delete)| &*delete.confirmed.key.key).collect();
    let results = target.delete_many(&target_bucket, &keys).await;
    for ((_, delete), result) in deletes.into_iter().zip(results) {
        drop(delete.answer.send(result.map(|()| Admission::Allow)));
    }
}
