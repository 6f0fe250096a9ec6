//! The SQS intake: S3's notifications from a queue, directly or by way of SNS or EventBridge.
//!
//! **Promise.** A message is deleted only when everything in it is durable (or known to be of no use),
//! and it stays invisible to other consumers while it waits for that. Each receiver holds at most one
//! batch of ten, so memory is bounded. **On error** the queue keeps the message; the trouble is shown,
//! logged once, and the call repeated with growing waits; the intake never ends by itself. **On
//! cancellation** what was received and is not durable within two seconds comes back after its
//! visibility timeout. **On crash** likewise. A message that comes twice does no harm.
//!
//! A message of which nothing can be used is kept in the dead-letter list, once, and its buckets are
//! reconciled. If the queue has a redrive policy it is not deleted, so that the queue itself moves it
//! to its dead-letter queue after some more deliveries, which are passed over here. If the queue has
//! none the message is deleted, since it would come back until its retention ends.

mod fault;
mod queue;
mod receiver;
mod troubles;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::queue::Queue;
use self::receiver::Receiver;
use super::{Backlog, Inlet, Intake, IntakeHealth};
use crate::clock;
use crate::config::settings::SqsSettings;
use crate::metrics::{Metrics, Stage};

/// How often the queue is asked for its length and its redrive policy.
const LOOK: Duration = Duration::from_secs(15);

/// One queue and all that is taken from it.
#[derive(Debug)]
pub struct SqsIntake {
    receiver: Arc<Receiver>,
    receivers: usize,
    health: Arc<IntakeHealth>,
    metrics: Metrics,
}

impl SqsIntake {
    /// An intake that has not asked the queue anything yet; an error is one of the settings.
    pub async fn connect(
        settings: &SqsSettings,
        inlet: Arc<Inlet>,
        metrics: Metrics,
    ) -> Result<Self, String> {
        let queue = Queue::connect(settings).await?;
        let health = Arc::new(IntakeHealth::new("sqs", queue.url().to_owned()));
        let receiver = Arc::new(Receiver::new(
            queue,
            settings.visibility_timeout,
            inlet,
            Arc::clone(&health),
            metrics.clone(),
        ));
        Ok(Self { receiver, receivers: settings.receivers, health, metrics })
    }

    /// Looks at the queue from time to time, until dropped.
    async fn watch(receiver: Arc<Receiver>, health: Arc<IntakeHealth>, metrics: Metrics) {
        let mut told = false;
        loop {
            match receiver.queue.attributes().await {
                Ok(attributes) => {
                    told = false;
                    receiver.set_redrives(attributes.redrives);
                    let (before, sent) = (health.backlog(), receiver.last_sent_ms());
                    let messages = attributes.messages;
                    let oldest_ms = oldest(before, messages, sent, clock::now_ms());
                    health.set_backlog(Some(Backlog { messages, oldest_ms }));
                }
                Err(failure) => {
                    health.set_backlog(None);
                    metrics.error(Stage::Intake, failure.kind.class());
                    if !told {
                        tracing::warn!(queue = receiver.queue.url(), error = %failure, advice = failure.advice(),
                            "The queue's attributes cannot be read: its length is not known, and messages that \
                             cannot be used are left in it.");
                        told = true;
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[async_trait::async_trait]
impl Intake for SqsIntake {
    fn health(&self) -> Arc<IntakeHealth> {
        Arc::clone(&self.health)
    }

    async fn run(self: Box<Self>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for _ in 0..self.receivers {
            tasks.spawn(Arc::clone(&self.receiver).run(stop.clone()));
        }
        let watch = Self::watch(self.receiver, self.health, self.metrics);
        let watch = stop.run_until_cancelled_owned(watch);
        tasks.spawn(async { watch.await.unwrap_or_default() });
        while let Some(ended) = tasks.join_next().await {
            // The pipeline must hear of a panic; nobody aborts these tasks.
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// About when the oldest message in a queue of `messages` was sent: queues are roughly in order, so
/// about when the one that was received last was (`sent`, since the last look); if none was, the
/// oldest is still what it was; and if the queue was empty, it cannot be older than about now.
fn oldest(before: Option<Backlog>, messages: u64, sent: Option<i64>, now_ms: i64) -> Option<i64> {
    let before = before.and_then(|backlog| backlog.oldest_ms);
    (messages > 0).then(|| sent.or(before).unwrap_or(now_ms))
}

#[cfg(test)]
mod age_tests {
    use super::*;

    #[test]
    fn the_age_of_a_queue_is_that_of_what_was_received_last_while_there_is_more() {
        let backlog = |oldest_ms| Some(Backlog { messages: 1, oldest_ms });
        for (before, messages, sent, expected) in [
            (None, 0, None, None),
            (None, 0, Some(50), None),
            (None, 7, None, Some(100)),
            (None, 7, Some(50), Some(50)),
            (backlog(Some(50)), 7, None, Some(50)),
            (backlog(Some(50)), 7, Some(60), Some(60)),
            (backlog(None), 7, None, Some(100)),
            (backlog(Some(50)), 0, None, None),
        ] {
            assert_eq!(
                oldest(before, messages, sent, 100),
                expected,
                "{before:?} {messages} {sent:?}"
            );
        }
    }
}
