//! What the cluster says when it is asked every other second: whether it is there, how many partitions
//! the topics have, how far behind this process is, and whether records expired before it read them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::{self, Consumer};
use super::keep::Keeper;
use super::lsn::TopicPartition;
use super::partitions::hull;
use super::trouble::Trouble;

const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far this process is behind, over its partitions.
#[derive(Debug, Default)]
pub struct ConsumerLag {
    lag: AtomicU64,
    unread: AtomicU64,
}

impl ConsumerLag {
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
    pub(super) lag: Arc<ConsumerLag>,
    /// The number of partitions of the first topic.
    pub(super) partitions: watch::Sender<i32>,
    positions: Mutex<Vec<(TopicPartition, Option<i64>)>>,
    /// Offsets that never came, and may have expired.
    skipped: Mutex<BTreeMap<TopicPartition, Range<i64>>>,
}

impl Shared {
    pub(super) fn new(trouble: Arc<Trouble>, lag: Arc<ConsumerLag>) -> Self {
        let partitions = watch::Sender::new(0);
        let (positions, skipped) = (Mutex::default(), Mutex::default());
        Self { trouble, lag, partitions, positions, skipped }
    }

    pub(super) fn set_positions(&self, positions: Vec<(TopicPartition, Option<i64>)>) {
        *self.positions.lock().unwrap_or_else(PoisonError::into_inner) = positions;
    }

    /// Offsets that never came: from the first to the last of a partition.
    pub(super) fn add_skipped(
        &self,
        skipped: impl IntoIterator<Item = (TopicPartition, Range<i64>)>,
    ) {
        let mut all = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, range) in skipped {
            let old = all.entry(place).or_insert_with(|| range.clone());
            *old = hull(old, &range);
        }
    }

    fn take_skipped(&self) -> BTreeMap<TopicPartition, Range<i64>> {
        std::mem::take(&mut *self.skipped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn positions(&self) -> Vec<(TopicPartition, Option<i64>)> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    partitions: i32,
    lag: u64,
    unread: u64,
    /// Partitions of which records expired that were never read, each with the offset behind them.
    expired: Vec<(TopicPartition, i64)>,
}

/// Asks until cancelled.
pub(super) async fn run(
    consumer: Arc<Consumer>,
    topics: Arc<[String]>,
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    stop: CancellationToken,
) {
    // Behind the last expired record that was told.
    let mut told = BTreeMap::new();
    loop {
        let (positions, skipped) = (shared.positions(), shared.take_skipped());
        let (consumer, names, holes) =
            (Arc::clone(&consumer), Arc::clone(&topics), skipped.clone());
        let asked = tokio::task::spawn_blocking(move || ask(&consumer, &names, &positions, &holes));
        match stop.run_until_cancelled(asked).await {
            None | Some(Err(_)) => return,
            Some(Ok(Err(error))) => {
                shared.add_skipped(skipped);
                shared.trouble.failed(&error);
            }
            Some(Ok(Ok(found))) => {
                shared.trouble.answered();
                shared.lag.lag.store(found.lag, Ordering::Relaxed);
                shared.lag.unread.store(found.unread, Ordering::Relaxed);
                shared.partitions.send_if_modified(|count| {
                    std::mem::replace(count, found.partitions) != found.partitions
                });
                let new = untold(&mut told, found.expired);
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

/// The partitions of which more expired than was told before.
fn untold(
    told: &mut BTreeMap<TopicPartition, i64>,
    expired: Vec<(TopicPartition, i64)>,
) -> Vec<TopicPartition> {
    let is_new = |(place, behind): &(TopicPartition, i64)| {
        let before = told.insert(*place, *behind);
        before.is_none_or(|before| before < *behind)
    };
    expired.into_iter().filter(is_new).map(|(place, _)| place).collect()
}

/// Blocking. `skipped` are partitions of which offsets never came.
fn ask(
    consumer: &Consumer,
    topics: &[String],
    positions: &[(TopicPartition, Option<i64>)],
    skipped: &BTreeMap<TopicPartition, Range<i64>>,
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
        found.judge(*place, skipped.get(place).cloned(), low);
    }
    for (place, range) in skipped {
        // Of a partition that has gone to another process meanwhile.
        if let Some(topic) = topics.get(place.topic)
            && positions.iter().all(|(held, _)| held != place)
        {
            let (low, _) = consumer.fetch_watermarks(topic, place.partition, PATIENCE)?;
            found.judge(*place, Some(range.clone()), low);
        }
    }
    Ok(found)
}

impl Found {
    /// One partition: behind the last record read, the committed offset, the first and the next one there.
    fn add(
        &mut self,
        place: TopicPartition,
        next: Option<i64>,
        committed: Option<i64>,
        marks: (i64, i64),
    ) {
        let (low, high) = marks;
        let behind = |from: i64| u64::try_from(high.saturating_sub(from.max(low))).unwrap_or(0);
        self.lag += behind(committed.unwrap_or(low));
        self.unread += behind(next.or(committed).unwrap_or(low));
        // What is to be read next is there no more.
        self.judge(place, next.or(committed).map(|next| next..i64::MAX), low);
    }

    /// Offsets that were not read, and the first one that the partition still has.
    fn judge(&mut self, place: TopicPartition, unread: Option<Range<i64>>, low: i64) {
        if let Some(unread) = unread
            && unread.start < low
        {
            self.expired.push((place, unread.end.min(low)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_counts_what_is_not_committed_and_expired_records_are_noticed() {
        let place = |partition| TopicPartition { topic: 0, partition };
        let mut found = Found { partitions: 4, lag: 0, unread: 0, expired: Vec::new() };
        found.add(place(0), Some(90), Some(40), (0, 100));
        found.add(place(1), None, Some(5), (5, 10));
        found.add(place(2), None, None, (7, 9));
        assert_eq!((found.lag, found.unread), (60 + 5 + 2, 10 + 5 + 2));
        assert_eq!(found.expired, []);
        found.add(place(3), None, Some(5), (6, 6));
        // Read, not yet committed, and expired since: nothing was missed.
        found.add(place(4), Some(8), Some(5), (6, 8));
        assert_eq!(found.expired, [(place(3), 6)]);
    }

    #[test]
    fn a_hole_is_expired_records_only_where_the_partition_begins_behind_it() {
        let place = TopicPartition { topic: 0, partition: 0 };
        let mut found = Found { partitions: 1, lag: 0, unread: 0, expired: Vec::new() };
        found.judge(place, Some(5..8), 5);
        found.judge(place, None, 5);
        assert_eq!(found.expired, [], "compacted, or the mark of a transaction");
        found.judge(place, Some(5..8), 7);
        found.judge(place, Some(5..8), 90);
        assert_eq!(found.expired, [(place, 7), (place, 8)]);
    }

    #[test]
    fn expired_records_are_told_once_and_again_when_more_expired() {
        let place = TopicPartition { topic: 0, partition: 0 };
        let mut told = BTreeMap::new();
        assert_eq!(untold(&mut told, vec![(place, 6)]), [place]);
        assert_eq!(untold(&mut told, vec![(place, 6)]), []);
        assert_eq!(untold(&mut told, vec![(place, 9)]), [place]);
    }
}
