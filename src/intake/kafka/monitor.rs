//! What the cluster says when it is asked every other second: whether it is there, how many partitions
//! the topics have, how far behind this process is, and whether records expired before it read them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::{self, Consumer};
use super::keep::Keeper;
use super::number::Place;
use super::trouble::Trouble;

const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far this process is behind, over its partitions.
#[derive(Debug, Default)]
pub struct Backlog {
    lag: AtomicU64,
    unread: AtomicU64,
}

impl Backlog {
    /// Records behind the committed offsets, as Kafka's own tools count them: what would be read again.
    pub fn lag(&self) -> u64 {
        self.lag.load(Ordering::Relaxed)
    }

    /// Records that were not read yet.
    pub fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }
}

/// What the consumer's loop and the monitor tell each other.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) trouble: Arc<Trouble>,
    pub(super) backlog: Arc<Backlog>,
    /// The number of partitions of the first topic.
    pub(super) partitions: watch::Sender<i32>,
    positions: Mutex<Vec<(Place, Option<i64>)>>,
}

impl Shared {
    pub(super) fn new(trouble: Arc<Trouble>, backlog: Arc<Backlog>) -> Self {
        let partitions = watch::Sender::new(0);
        Self { trouble, backlog, partitions, positions: Mutex::default() }
    }

    pub(super) fn set_positions(&self, positions: Vec<(Place, Option<i64>)>) {
        *self.positions.lock().unwrap_or_else(PoisonError::into_inner) = positions;
    }

    fn positions(&self) -> Vec<(Place, Option<i64>)> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    partitions: i32,
    lag: u64,
    unread: u64,
    /// Partitions of which records expired that were never read.
    expired: Vec<Place>,
}

/// Asks until cancelled.
pub(super) async fn run(
    consumer: Arc<Consumer>,
    topics: Arc<[String]>,
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    stop: CancellationToken,
) {
    let mut told = BTreeSet::new();
    loop {
        let positions = shared.positions();
        told.retain(|place| positions.iter().any(|(held, _)| held == place));
        let (consumer, names) = (Arc::clone(&consumer), Arc::clone(&topics));
        let asked = tokio::task::spawn_blocking(move || ask(&consumer, &names, &positions));
        match stop.run_until_cancelled(asked).await {
            None | Some(Err(_)) => return,
            Some(Ok(Err(error))) => shared.trouble.failed(&error),
            Some(Ok(Ok(found))) => {
                shared.trouble.answered();
                shared.backlog.lag.store(found.lag, Ordering::Relaxed);
                shared.backlog.unread.store(found.unread, Ordering::Relaxed);
                shared.partitions.send_if_modified(|count| {
                    std::mem::replace(count, found.partitions) != found.partitions
                });
                let new: Vec<_> = found.expired.into_iter().filter(|p| told.insert(*p)).collect();
                if !new.is_empty() {
                    let partitions: Vec<_> = new.iter().map(|place| place.partition).collect();
                    tracing::error!(
                        ?partitions,
                        "Kafka has deleted records that were never read; all buckets will be reconciled. Make the topic's retention longer than the longest outage."
                    );
                    if stop.run_until_cancelled(keeper.doubt_all()).await.is_none() {
                        return;
                    }
                }
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(ASK_EVERY)).await.is_none() {
            return;
        }
    }
}

/// Blocking.
fn ask(
    consumer: &Consumer,
    topics: &[String],
    positions: &[(Place, Option<i64>)],
) -> Result<Found, KafkaError> {
    let mut counts = Vec::new();
    for name in topics {
        let metadata = consumer.fetch_metadata(Some(name), PATIENCE)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        let missing = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
        let topic = topic.ok_or(missing)?;
        if let Some(error) = topic.error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        counts.push(i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX));
    }
    let list = client::list(positions.iter().map(|(place, _)| (*place, None)), topics);
    let committed = if positions.is_empty() {
        Vec::new()
    } else {
        client::places(&consumer.committed_offsets(list, PATIENCE)?, topics)
    };
    let mut found = Found {
        partitions: counts.first().copied().unwrap_or(0),
        lag: 0,
        unread: 0,
        expired: Vec::new(),
    };
    for (place, next) in positions {
        let Some(topic) = topics.get(place.topic) else { continue };
        let (low, high) = consumer.fetch_watermarks(topic, place.partition, PATIENCE)?;
        let committed = committed.iter().find(|(other, _)| other == place).and_then(|(_, o)| *o);
        found.add(*place, *next, committed, (low, high));
    }
    Ok(found)
}

impl Found {
    /// One partition: behind the last record read, the committed offset, the first and the next one there.
    fn add(&mut self, place: Place, next: Option<i64>, committed: Option<i64>, marks: (i64, i64)) {
        let (low, high) = marks;
        let behind = |from: i64| u64::try_from(high.saturating_sub(from.max(low))).unwrap_or(0);
        self.lag += behind(committed.unwrap_or(low));
        self.unread += behind(next.or(committed).unwrap_or(low));
        if next.or(committed).is_some_and(|next| next < low) {
            self.expired.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_counts_what_is_not_committed_and_expired_records_are_noticed() {
        let place = |partition| Place { topic: 0, partition };
        let mut found = Found { partitions: 4, lag: 0, unread: 0, expired: Vec::new() };
        found.add(place(0), Some(90), Some(40), (0, 100));
        found.add(place(1), None, Some(5), (5, 10));
        found.add(place(2), None, None, (7, 9));
        assert_eq!((found.lag, found.unread), (60 + 5 + 2, 10 + 5 + 2));
        assert_eq!(found.expired, []);
        found.add(place(3), None, Some(5), (6, 6));
        // Read, not yet committed, and expired since: nothing was missed.
        found.add(place(4), Some(8), Some(5), (6, 8));
        assert_eq!(found.expired, [place(3)]);
    }
}
