//! Notifications from a Kafka topic.
//!
//! **Promise.** An offset is committed only when every record before it is done: with
//! `ack = "durable"` its keys are in the local journal, with `ack = "replicated"` they are at the target.
//! So a crash at any instant, or a partition that goes to another process, loses nothing; what was not
//! committed is read again. **On error** (brokers down, topic missing, login refused) nothing is lost
//! either: it tries for ever and tells why. **On a stop** what is in flight is finished and committed.
//!
//! With `ack = "replicated"` Kafka is the journal, and several processes share one bucket: records go
//! straight into the work queue, numbered by their place; the lowest number that a key still needs is
//! the offset that may be committed. A key's partition is the hash of its name, so one key has one
//! worker, wherever its event or its repair comes from. The process that has partition 0 reconciles, and
//! what it finds takes the way through the topic.
//!
//! rdkafka is named only here and below.

mod client;
mod consume;
mod given_up;
mod keep;
mod leave;
mod lsn;
mod monitor;
mod outbox;
mod partitions;
mod router;
mod trouble;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::client::Consumer;
use self::consume::{End, Session};
use self::given_up::GivenUp;
use self::keep::{Keeper, Queue};
use self::monitor::Shared;
use self::router::Router;
use self::trouble::Trouble;
use super::{Inlet, Intake, IntakeHealth};
use crate::config::settings::{KafkaAck, KafkaSettings};
use crate::workqueue::WorkQueue;

pub use monitor::ConsumerLag;
pub use outbox::Outbox;

/// How long until a client that failed for good is replaced.
const AGAIN: Duration = Duration::from_secs(5);
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(3);

/// What the intake shares with other stages.
#[derive(Debug)]
pub struct Parts {
    /// The door to the journal.
    pub inlet: Arc<Inlet>,
    /// Where records go with `ack = "replicated"`.
    pub queue: Arc<WorkQueue>,
    /// Told, in that case, whether this process reconciles.
    pub leads: watch::Sender<bool>,
    /// Told how far this process is behind.
    pub lag: Arc<ConsumerLag>,
}

/// The consumer and what it needs.
pub struct KafkaIntake {
    settings: KafkaSettings,
    topics: Arc<[String]>,
    /// The first client, built at once so that a wrong property ends the start.
    first: Option<Consumer>,
    keeper: Arc<Keeper>,
    shared: Arc<Shared>,
    health: Arc<IntakeHealth>,
}

impl fmt::Debug for KafkaIntake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaIntake").field("health", &self.health).finish_non_exhaustive()
    }
}

impl KafkaIntake {
    /// Builds the clients; nothing is asked of the brokers before [`Intake::run`]. With
    /// `ack = "replicated"` there is an [`Outbox`], which must take the place of the feeder.
    pub fn open(settings: &KafkaSettings, parts: Parts) -> anyhow::Result<(Self, Option<Outbox>)> {
        let address = format!("{} at {}", settings.topics.join(","), settings.brokers);
        let health = Arc::new(IntakeHealth::new("kafka", address));
        let trouble = Arc::new(Trouble::new(Arc::clone(&health)));
        let shared = Arc::new(Shared::new(trouble, Arc::clone(&parts.lag)));
        let topics: Arc<[String]> = settings.topics.clone().into();
        let wrong = "the Kafka client cannot be built from [intake.kafka] and its properties";
        let consumer = client::consumer(settings, Arc::clone(&topics), Arc::clone(&shared.trouble))
            .context(wrong)?;
        let (keeper, outbox) = match settings.ack {
            KafkaAck::Durable => (Keeper::Journal(parts.inlet, Arc::clone(&shared.trouble)), None),
            KafkaAck::Replicated => {
                let topic = settings.topics.first().cloned().unwrap_or_default();
                let partitions = shared.partitions.subscribe();
                let router = Arc::new(Router::new(settings, topic, partitions).context(wrong)?);
                let Parts { inlet, queue, leads, lag } = parts;
                let most_unread = queue.max_keys() as u64 / 2;
                let outbox = Outbox { router: Arc::clone(&router), lag, most_unread };
                let trouble = Arc::clone(&shared.trouble);
                let queue = Queue {
                    inlet,
                    work: queue,
                    router,
                    trouble,
                    leads,
                    given_up: GivenUp::default(),
                };
                (Keeper::Queue(queue), Some(outbox))
            }
        };
        let intake = Self {
            settings: settings.clone(),
            topics,
            first: Some(consumer),
            keeper: Arc::new(keeper),
            shared,
            health,
        };
        Ok((intake, outbox))
    }

    /// One client, from its subscription to its end.
    async fn session(&self, consumer: Consumer, stop: &CancellationToken) -> End {
        // First here, so that it is dropped last, also on cancellation.
        let (closing, closed) = Closing::of(Arc::new(consumer));
        let Some(consumer) = closing.consumer() else { return End::Stopped };
        let asking = CancellationToken::new();
        let asked = asking.clone().drop_guard();
        let monitor = tokio::spawn(monitor::run(
            Arc::clone(&consumer),
            Arc::clone(&self.topics),
            Arc::clone(&self.shared),
            Arc::clone(&self.keeper),
            asking.clone(),
        ));
        let session = Session::new(
            Arc::clone(&consumer),
            Arc::clone(&self.topics),
            Arc::clone(&self.keeper),
            Arc::clone(&self.shared),
            self.settings.drain_timeout,
        );
        let end = session.run(stop).await;
        drop(asked);
        drop(monitor.await);
        drop((consumer, closing));
        drop(tokio::time::timeout(LEAVE, closed).await);
        end
    }
}

/// Closes a client when it is dropped. Leaving the group takes an answer of the brokers, for which the
/// client waits: not on a thread of the runtime, because the end of the process must not wait for brokers
/// that are down.
struct Closing(Option<(Arc<Consumer>, oneshot::Sender<()>)>);

impl Closing {
    fn of(consumer: Arc<Consumer>) -> (Self, oneshot::Receiver<()>) {
        let (sender, closed) = oneshot::channel();
        (Self(Some((consumer, sender))), closed)
    }

    fn consumer(&self) -> Option<Arc<Consumer>> {
        self.0.as_ref().map(|(consumer, _)| Arc::clone(consumer))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let Some((consumer, closed)) = self.0.take() else { return };
        std::thread::spawn(move || {
            drop(consumer);
            // Nobody may be waiting any more.
            closed.send(()).ok();
        });
    }
}

#[async_trait::async_trait]
impl Intake for KafkaIntake {
    fn health(&self) -> Arc<IntakeHealth> {
        Arc::clone(&self.health)
    }

    async fn run(mut self: Box<Self>, stop: CancellationToken) {
        let mut next = self.first.take();
        loop {
            if let Some(consumer) = next.take()
                && let End::Failed(error) = self.session(consumer, &stop).await
            {
                tracing::error!(%error, "The Kafka client failed; another one takes its place. Records wait in Kafka.");
                self.health.set_trouble(error.to_string());
            }
            if stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
                return;
            }
            let (topics, trouble) = (Arc::clone(&self.topics), Arc::clone(&self.shared.trouble));
            match client::consumer(&self.settings, topics, trouble) {
                Ok(consumer) => next = Some(consumer),
                Err(error) => self.shared.trouble.failed(&error),
            }
        }
    }
}
