//! What becomes of one record: into the journal, or straight into the work queue.
//!
//! **Promise.** When [`Keeper::take`] returns, the record is done, or [`Keeper::needed`] names its offset
//! until it is: its keys are durable in the journal (`ack = "durable"`), or in the work queue under the
//! record's own number (`ack = "replicated"`); and every bucket it leaves in doubt is in a gap book, or
//! in the topic for the process that reconciles. Nothing makes it give up: it tries again for ever, and
//! the record waits. Content is never a reason to: junk goes to the dead-letter list.

use std::sync::Arc;
use std::time::Duration;

use super::given_up::GivenUp;
use super::lsn::{self, TopicPartition};
use super::partitions::Ticket;
use super::router::Router;
use super::trouble::{Stuck, Trouble};
use crate::clock;
use crate::dirty::DirtyKey;
use crate::event::{self, Channel, Parsed};
use crate::gaps::GapReason;
use crate::intake::Inlet;
use crate::intake::sort::{self, Doubts, Sorted};
use crate::workqueue::WorkQueue;
use tokio::sync::watch;

/// How long a record waits before it is offered again.
const AGAIN: Duration = Duration::from_secs(1);
/// Whoever has this partition reconciles.
const LEADS: TopicPartition = TopicPartition { topic: 0, partition: 0 };

/// One record.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) ticket: Ticket,
    /// What an evermirror sent.
    pub(super) key: Option<DirtyKey>,
    /// `None`: a tombstone.
    pub(super) document: Option<Vec<u8>>,
    pub(super) received_ms: i64,
}

/// Where records go.
#[derive(Debug)]
pub(super) enum Keeper {
    /// To the local journal; what keeps it from there is told.
    Journal(Arc<Inlet>, Arc<Trouble>),
    /// To the work queue; Kafka is the journal.
    Queue(Queue),
}

/// What `ack = "replicated"` needs.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) inlet: Arc<Inlet>,
    pub(super) work: Arc<WorkQueue>,
    pub(super) router: Arc<Router>,
    pub(super) trouble: Arc<Trouble>,
    /// Told whether this process reconciles.
    pub(super) leads: watch::Sender<bool>,
    /// A bucket whose failing keys were forgotten.
    pub(super) given_up: GivenUp,
}

impl Keeper {
    /// Takes one record, however long that takes.
    pub(super) async fn take(&self, record: Incoming) -> Ticket {
        match self {
            Self::Journal(inlet, trouble) => {
                let parsed = parse(&record);
                let mut again = Again::new(trouble);
                while let Err(error) = inlet.accept_kept(parsed.clone(), record.received_ms).await {
                    again.wait(&error).await;
                }
            }
            Self::Queue(queue) => queue.take(&record).await,
        }
        record.ticket
    }

    /// Records of every bucket may have been missed.
    pub(super) async fn doubt_all(&self) {
        let inlet = match self {
            Self::Journal(inlet, _) => inlet,
            Self::Queue(queue) => &queue.inlet,
        };
        let doubts: Doubts =
            inlet.buckets.keys().map(|name| (name.clone(), GapReason::RecordsExpired)).collect();
        match self {
            Self::Journal(inlet, trouble) => mark(inlet, trouble, &doubts).await,
            Self::Queue(queue) => queue.doubt(&doubts, false).await,
        }
    }

    /// For how many more keys there is room.
    pub(super) fn room(&self) -> usize {
        match self {
            Self::Journal(..) => usize::MAX,
            Self::Queue(queue) => queue.work.room_now(),
        }
    }

    /// With so much room, reading goes on after a pause.
    pub(super) fn enough_room(&self) -> usize {
        match self {
            Self::Journal(..) => 0,
            Self::Queue(queue) => queue.work.max_keys() / 8,
        }
    }

    /// The oldest offset of the partition that a key here still needs.
    pub(super) fn needed(&self, place: TopicPartition) -> Option<i64> {
        match self {
            Self::Journal(..) => None,
            Self::Queue(queue) => {
                let lowest = queue.work.lowest_in(lsn::lsns(place.partition)).map(lsn::offset);
                lowest.into_iter().chain(queue.given_up.needed(place.partition)).min()
            }
        }
    }

    /// Forgets the partition's keys, but for those in flight; the oldest offset so forgotten.
    pub(super) fn forget(&self, place: TopicPartition) -> Option<i64> {
        match self {
            Self::Journal(..) => None,
            Self::Queue(queue) => queue.work.forget(&lsn::lsns(place.partition)).map(lsn::offset),
        }
    }

    /// A bucket that has so many failing keys that they take the others' room: they are forgotten, and nothing
    /// behind their records is committed before [`Keeper::tell`] has told that the bucket must be reconciled. One at
    /// a time; it is given until it is told.
    pub(super) fn give_up(&self) -> Option<Arc<str>> {
        match self {
            Self::Journal(..) => None,
            Self::Queue(queue) => queue.given_up.next(&queue.work),
        }
    }

    /// Tells that the bucket that was given up must be reconciled, however long that takes.
    pub(super) async fn tell(&self, given_up: &str) {
        if let Self::Queue(queue) = self {
            queue.router.doubt(given_up).await;
            queue.given_up.told();
        }
    }

    /// These partitions are this process's own now.
    pub(super) fn owns(&self, places: &[TopicPartition]) {
        if let Self::Queue(queue) = self {
            let leads = places.contains(&LEADS);
            if queue.leads.send_if_modified(|now| std::mem::replace(now, leads) != leads) && leads {
                tracing::info!("This process has partition 0 and reconciles from now on.");
            }
        }
    }
}

impl Queue {
    /// No memory of recent events here: one that was seen before may have been forgotten together with
    /// its partition, and then it must be seen again.
    async fn take(&self, record: &Incoming) {
        let sorted = match &record.key {
            Some(dirty) => self.own(dirty),
            None => sort::sort(parse(record), record.received_ms, &self.inlet.buckets, |_| false),
        };
        let place = record.ticket.place;
        if !sorted.doubts.is_empty() {
            self.doubt(&sorted.doubts, place == LEADS).await;
        }
        for dirty in &sorted.keys {
            // What an evermirror sent was sent here on purpose.
            if record.key.is_some() || self.router.home(&dirty.key).await == place.partition {
                if record.ticket.is_ours() {
                    let lsn = lsn::lsn(place.partition, record.ticket.offset);
                    self.work.mark(dirty, lsn);
                }
            } else {
                self.router.send(dirty).await;
            }
        }
        if record.ticket.is_ours() {
            self.inlet.count(&sorted, record.received_ms);
        }
    }

    /// A key that an evermirror sent, if it is still wanted.
    fn own(&self, dirty: &DirtyKey) -> Sorted {
        let bucket = self.inlet.buckets.get(&*dirty.key.bucket);
        let wanted = bucket.is_some_and(|bucket| bucket.wants(&dirty.key.key));
        Sorted {
            keys: if wanted { vec![dirty.clone()] } else { Vec::new() },
            ignored: usize::from(!wanted),
            ..Sorted::default()
        }
    }

    /// Tells the process that reconciles, which may be this one.
    async fn doubt(&self, doubts: &Doubts, here: bool) {
        if here {
            return mark(&self.inlet, &self.trouble, doubts).await;
        }
        for (bucket, _) in doubts {
            self.router.doubt(bucket).await;
        }
    }
}

/// A tombstone says nothing that a notification would not have said.
fn parse(record: &Incoming) -> Parsed {
    match &record.document {
        Some(document) => event::parse(document, Channel::Push),
        None => Parsed { ignored: 1, ..Parsed::default() },
    }
}

async fn mark(inlet: &Inlet, trouble: &Trouble, doubts: &Doubts) {
    let mut again = Again::new(trouble);
    while let Err(error) = inlet.mark(doubts, clock::now_ms()).await {
        again.wait(&error).await;
    }
}

/// The waits of one record between two tries.
struct Again<'a> {
    trouble: &'a Trouble,
    stuck: Option<Stuck<'a>>,
}

impl<'a> Again<'a> {
    const fn new(trouble: &'a Trouble) -> Self {
        Self { trouble, stuck: None }
    }

    async fn wait(&mut self, error: &(dyn std::error::Error + Sync)) {
        if self.stuck.is_none() {
            self.stuck = Some(self.trouble.stuck(error));
        }
        tokio::time::sleep(AGAIN).await;
    }
}
