//! Asks a store whether it answers: when much fails, and while it is down.
//!
//! Any bucket will do, by a request with our credentials, since one that is broken by itself must not
//! stop the others: several are asked at once, and each later probe asks for others. Every wait ends. On cancellation
//! nothing is left behind.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::dispatcher::Dispatcher;
use super::health::Question;
use crate::store::{ErrorKind, Side, Store, StoreError};

/// For at most this many buckets at once a store is asked.
const BUCKETS_AT_ONCE: usize = 8;
/// A bucket that takes longer than this to answer a HEAD is taken for one that does not.
const PATIENCE: Duration = Duration::from_secs(5);

impl Dispatcher {
    /// Asks one of the stores, whenever there is a question, until cancelled.
    pub(super) async fn run_probe(self: Arc<Self>, side: Side, stop: CancellationToken) {
        let health = self.health(side);
        let store = match side {
            Side::Source => &self.worker.source,
            Side::Target => &self.worker.target,
        };
        let names = self.worker.buckets.iter().map(|(source, mapping)| match side {
            Side::Source => source,
            Side::Target => &mapping.target,
        });
        let count = names.len();
        let mut names = names.cycle();
        let asking = async {
            loop {
                let question = health.question().await;
                let answer = ask(store, names.by_ref().take(BUCKETS_AT_ONCE.min(count))).await;
                match question {
                    Question::IsItDown => {
                        health.asked(answer);
                        if !health.is_up() {
                            self.forgive_all(side);
                        }
                    }
                    Question::IsItBack if health.probed(answer) => {
                        self.small.restarted();
                        self.large.restarted();
                    }
                    Question::IsItBack => {}
                }
            }
        };
        stop.run_until_cancelled(asking).await;
    }
}

/// Asks for all of these buckets at once; the first answer counts.
async fn ask(store: &Store, buckets: impl Iterator<Item = &Arc<str>>) -> Result<(), StoreError> {
    let mut answers: FuturesUnordered<_> = buckets.map(|bucket| probe(store, bucket)).collect();
    let mut last = Ok(());
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(()) => return Ok(()),
            Err(error) => last = Err(error),
        }
    }
    last
}

/// Any answer but "not well" means that the store is up, though the bucket may be missing.
async fn probe(store: &Store, bucket: &str) -> Result<(), StoreError> {
    let Ok(answer) = tokio::time::timeout(PATIENCE, store.head_bucket(bucket)).await else {
        let call = store.failure("HeadBucket", bucket, "");
        return Err(call.transient(format!("no answer within {} s", PATIENCE.as_secs())));
    };
    match answer {
        Err(error) if matches!(error.kind, ErrorKind::Transient | ErrorKind::Throttled) => {
            Err(error)
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
