//! The loop of one consumer: records in, offsets committed, partitions given back in good order.
//!
//! One task does all of it, so nothing here is locked. A partition that another process is to have is
//! drained first: no further record, no further key of it; what is in flight is waited for, within
//! `drain_timeout`; what is done is committed; then it is given back. A full work queue or journal
//! pauses the partitions, and the consumer stays in its group.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt as _};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::client::{self, Consumer, Event};
use super::keep::{Incoming, Keeper};
use super::leave::{LAST_COMMIT, Leaving};
use super::lsn::{TopicPartition, shown};
use super::monitor::Shared;
use super::partitions::{Partitions, Ticket};
use super::wire;
use crate::clock;

/// Records that are being taken at once; the journal syncs them in groups.
const WINDOW: usize = 1_024;
/// The bytes of their documents together, or one that is longer.
const WINDOW_BYTES: usize = 16 << 20;
/// How often draining, room and places are looked at.
const LOOK: Duration = Duration::from_millis(100);
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Without room for so long, the partitions are paused.
const PAUSE_AFTER: Duration = Duration::from_secs(1);

/// One consumer, from its subscription to its end.
pub(super) struct Session {
    consumer: Arc<Consumer>,
    topics: Arc<[String]>,
    keeper: Arc<Keeper>,
    shared: Arc<Shared>,
    drain_timeout: Duration,
    partitions: Partitions,
    leaving: Option<Leaving>,
    /// Partitions that are gone although a worker still has one of their keys.
    lingering: Vec<TopicPartition>,
    /// A commit was not answered yet.
    committing: bool,
    /// The group was asked for its committed offsets and has not answered yet.
    beginning: bool,
    /// Of the documents that are being taken.
    bytes: usize,
    paused: bool,
    /// Since when there has been no room.
    full_since: Option<Instant>,
}

/// Why a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// It was told to.
    Stopped,
    /// The client cannot go on; another one can.
    Failed(KafkaError),
}

impl Session {
    /// A consumer that has no partition yet.
    pub(super) fn new(
        consumer: Arc<Consumer>,
        topics: Arc<[String]>,
        keeper: Arc<Keeper>,
        shared: Arc<Shared>,
        drain_timeout: Duration,
    ) -> Self {
        Self {
            consumer,
            topics,
            keeper,
            shared,
            drain_timeout,
            partitions: Partitions::default(),
            leaving: None,
            lingering: Vec::new(),
            committing: false,
            beginning: false,
            bytes: 0,
            paused: false,
            full_since: None,
        }
    }

    /// Consumes until told to stop; then everything is drained and committed.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> End {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        if let Err(error) = self.consumer.subscribe(&topics) {
            return End::Failed(error);
        }
        let consumer = Arc::clone(&self.consumer);
        let keeper = Arc::clone(&self.keeper);
        let mut taking = FuturesOrdered::new();
        let mut telling = FuturesUnordered::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut commit = tokio::time::interval(COMMIT_EVERY);
        commit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;
        loop {
            let small = taking.len() < WINDOW && self.bytes < WINDOW_BYTES;
            let room = small && self.keeper.room() > 0;
            self.full_since = if room { None } else { self.full_since.or(Some(Instant::now())) };
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.leave(self.places(), false, false);
                }
                () = consumer.context().arrived() => {}
                Some(ticket) = taking.next() => self.taken(&ticket),
                Some(()) = telling.next() => {}
                _ = commit.tick() => {
                    self.begin();
                    self.commit();
                }
                _ = look.tick() => {
                    self.look(taking.len());
                    // What an earlier session could not tell, too.
                    if telling.is_empty() && let Some(bucket) = keeper.give_up() {
                        let keeper = Arc::clone(&keeper);
                        telling.push(async move { keeper.tell(&bucket).await });
                    }
                    if self.left() && stopping {
                        return End::Stopped;
                    }
                }
                // Also where there is nothing to take: it is how the group is heard.
                message = consumer.recv(), if room || self.paused || stopping => {
                    match self.receive(message.map(|message| message.detach())) {
                        Ok(Some(record)) => {
                            let keeper = Arc::clone(&keeper);
                            taking.push_back(async move { keeper.take(record).await });
                        }
                        Ok(None) => {}
                        Err(error) => return End::Failed(error),
                    }
                }
            }
            while let Some(event) = consumer.context().next_event() {
                self.heard(event);
            }
        }
    }

    /// A record to be taken, if it is one; an error if the client cannot go on.
    fn receive(
        &mut self,
        message: KafkaResult<OwnedMessage>,
    ) -> Result<Option<Incoming>, KafkaError> {
        let message = match message {
            Ok(message) => message,
            Err(
                error @ (KafkaError::MessageConsumptionFatal(_) | KafkaError::ClientCreation(_)),
            ) => {
                return Err(error);
            }
            Err(error) => {
                if let Some(code) = error.rdkafka_error_code() {
                    self.shared.trouble.complained(code, &error.to_string());
                }
                return Ok(None);
            }
        };
        let received_ms = clock::now_ms();
        self.shared.trouble.read(received_ms);
        let topic = self.topics.iter().position(|topic| topic == message.topic());
        let place = topic.map(|topic| TopicPartition { topic, partition: message.partition() });
        let bytes = message.payload().map_or(0, <[u8]>::len);
        let begin = |place| self.partitions.begin(place, message.offset(), bytes);
        let Some(ticket) = place.and_then(begin) else { return Ok(None) };
        self.bytes += bytes;
        Ok(Some(Incoming {
            ticket,
            key: wire::dirty_key(message.headers()),
            document: message.payload().map(<[u8]>::to_vec),
            received_ms,
        }))
    }

    fn taken(&mut self, ticket: &Ticket) {
        self.bytes = self.bytes.saturating_sub(ticket.bytes);
        self.partitions.taken(ticket);
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::Assigned(places) => self.assigned(&places),
            Event::Revoked { places, lost } => {
                tracing::info!(partitions = ?shown(&places), lost, "Partitions go to another process.");
                self.leave(places, true, lost);
            }
            Event::Begun(result) => {
                self.beginning = false;
                match result {
                    Ok(offsets) => self.partitions.begun(&offsets),
                    Err(error) => {
                        tracing::debug!(%error, "The committed offsets are not known yet; asking again.");
                    }
                }
            }
            Event::Committed(result) => {
                self.committing = false;
                match result {
                    Ok(offsets) => self.partitions.committed(&offsets),
                    Err(error) => {
                        tracing::debug!(%error, "Offsets were not committed; trying again.");
                    }
                }
            }
        }
    }

    fn assigned(&mut self, places: &[TopicPartition]) {
        if let Err(error) = self.consumer.incremental_assign(&self.list(places)) {
            tracing::error!(%error, "Partitions that the group assigned cannot be read.");
            return;
        }
        self.partitions.assign(places);
        self.begin();
        self.lingering.retain(|place| !places.contains(place));
        // The client remembers that a partition was paused when it left.
        if self.paused {
            self.pause();
        } else {
            self.resume();
        }
        self.shared.trouble.reads();
        self.keeper.owns(&self.places());
        tracing::info!(partitions = ?shown(places), "Partitions are read from now on.");
    }

    /// Asks where reading should have begun, on a thread of its own, like a commit.
    fn begin(&mut self) {
        let places = self.partitions.to_begin();
        if self.beginning || places.is_empty() {
            return;
        }
        self.beginning = true;
        let (consumer, topics) = (Arc::clone(&self.consumer), Arc::clone(&self.topics));
        std::thread::spawn(move || {
            let asked = client::list(places.into_iter().map(|place| (place, None)), &topics);
            let result = consumer.committed_offsets(asked, LAST_COMMIT);
            let offsets = result.map(|list| client::places(&list, &topics));
            consumer.context().push(Event::Begun(offsets));
        });
    }

    /// Commits what is done and was not committed. On a thread of its own, because the client waits for
    /// the answer, and the end of the process must not wait for brokers that are down.
    fn commit(&mut self) {
        let offsets = self.to_commit();
        if self.committing || offsets.is_empty() {
            return;
        }
        self.committing = true;
        let (consumer, topics) = (Arc::clone(&self.consumer), Arc::clone(&self.topics));
        std::thread::spawn(move || {
            let given = offsets.iter().map(|(place, offset)| (*place, Some(*offset)));
            let result = consumer.commit(&client::list(given, &topics), CommitMode::Sync);
            consumer.context().push(Event::Committed(result.map(|()| offsets)));
        });
    }

    fn to_commit(&self) -> Vec<(TopicPartition, i64)> {
        let lost = |place: &TopicPartition| {
            self.leaving.as_ref().is_some_and(|leaving| leaving.is_lost(*place))
        };
        let mut offsets = self.partitions.to_commit(|place| self.keeper.needed(place));
        offsets.retain(|(place, _)| !lost(place));
        offsets
    }

    /// Begins to give partitions up.
    fn leave(&mut self, places: Vec<TopicPartition>, revoked: bool, lost: bool) {
        self.partitions.leave(&places);
        let mut stay = self.places();
        stay.retain(|place| !places.contains(place));
        self.keeper.owns(&stay);
        if let Err(error) = self.consumer.pause(&self.list(&places)) {
            tracing::debug!(%error, "Partitions on their way out could not be paused.");
        }
        let none = Leaving::until(Instant::now() + self.drain_timeout);
        self.leaving.get_or_insert(none).add(places, revoked, lost);
    }

    /// Goes on giving up; true if nothing is on its way out any more.
    fn left(&mut self) -> bool {
        let Some(leaving) = &mut self.leaving else { return true };
        let now = Instant::now();
        if !leaving.drain(&mut self.partitions, &self.keeper, now) {
            return false;
        }
        let uncommitted = self.to_commit();
        if self.leaving.as_ref().is_some_and(|leaving| leaving.waits_for(&uncommitted, now)) {
            self.commit();
            return false;
        }
        self.give_back();
        true
    }

    fn give_back(&mut self) {
        let Some(leaving) = self.leaving.take() else { return };
        let (places, revoked) = leaving.into_places();
        self.shared.add_skipped(self.partitions.take_skipped());
        self.partitions.remove(&places);
        self.lingering.extend(places);
        if !revoked.is_empty()
            && let Err(error) = self.consumer.incremental_unassign(&self.list(&revoked))
        {
            tracing::error!(%error, "Partitions could not be given back to the group.");
        }
    }

    /// Tells the monitor where we are, forgets what lingers, and pauses or resumes.
    fn look(&mut self, taking: usize) {
        self.shared.set_positions(self.partitions.positions());
        self.shared.add_skipped(self.partitions.take_skipped());
        let keeper = &self.keeper;
        self.lingering.retain(|place| {
            keeper.forget(*place);
            keeper.needed(*place).is_some()
        });
        if !self.paused {
            let full = |since: Instant| since.elapsed() >= PAUSE_AFTER;
            if self.full_since.is_some_and(full) {
                self.pause();
            }
        } else if taking < WINDOW / 2 && self.keeper.room() >= self.keeper.enough_room() {
            self.resume();
        }
    }

    fn pause(&mut self) {
        self.paused = true;
        if let Err(error) = self.consumer.pause(&self.held()) {
            tracing::debug!(%error, "Partitions could not be paused.");
        }
    }

    fn resume(&mut self) {
        self.paused = false;
        self.full_since = None;
        if let Err(error) = self.consumer.resume(&self.held()) {
            tracing::debug!(%error, "Partitions could not be resumed.");
        }
    }

    /// The partitions that are not on their way out.
    fn held(&self) -> TopicPartitionList {
        let mut held = self.places();
        held.retain(|place| self.leaving.as_ref().is_none_or(|leaving| !leaving.has(*place)));
        self.list(&held)
    }

    fn places(&self) -> Vec<TopicPartition> {
        self.partitions.positions().into_iter().map(|(place, _)| place).collect()
    }

    fn list(&self, places: &[TopicPartition]) -> TopicPartitionList {
        client::list(places.iter().map(|place| (*place, None)), &self.topics)
    }
}

impl Drop for Session {
    /// Nothing is this consumer's any more, and what the group still asks is answered: the client would
    /// wait for the answer for ever.
    fn drop(&mut self) {
        self.consumer.context().close();
        let all = self.places();
        self.shared.add_skipped(self.partitions.take_skipped());
        self.partitions.remove(&all);
        for place in all {
            self.keeper.forget(place);
        }
        self.keeper.owns(&[]);
        self.shared.set_positions(Vec::new());
        let mut revoked =
            self.leaving.take().map_or_else(Vec::new, |leaving| leaving.into_places().1);
        while let Some(event) = self.consumer.context().next_event() {
            match event {
                Event::Assigned(places) => {
                    drop(self.consumer.incremental_assign(&self.list(&places)));
                }
                Event::Revoked { places, .. } => revoked.extend(places),
                Event::Begun(_) | Event::Committed(_) => {}
            }
        }
        if !revoked.is_empty() {
            drop(self.consumer.incremental_unassign(&self.list(&revoked)));
        }
    }
}
