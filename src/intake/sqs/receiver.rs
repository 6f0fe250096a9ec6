//! One receiver: a batch from the queue, into the journal, and out of the queue.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fault::Failure;
use super::queue::{Message, Queue};
use super::troubles::{Part, Troubles};
use crate::clock;
use crate::event::{self, Channel, Parsed};
use crate::intake::recent::Recent;
use crate::intake::{Inlet, IntakeHealth, Refused};
use crate::metrics::{Metrics, RequestOutcome, Stage};
use crate::retry::{RetryPolicy, Waits};

/// How long, at a stop, a batch that was received may still take. Below the pipeline's own patience.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// After the queue or the journal has failed.
const RETRY: RetryPolicy =
    RetryPolicy { initial: Duration::from_millis(250), max: Duration::from_secs(15) };
/// How often a message that could not be deleted is tried before it is left to come back.
const DELETE_TRIES: usize = 4;

/// What all receivers of one queue share.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) queue: Queue,
    visibility: Duration,
    inlet: Arc<Inlet>,
    troubles: Troubles,
    metrics: Metrics,
    /// Messages that are in the dead-letter list already and stay in the queue.
    recorded: Recent,
    /// Until the queue has said otherwise, it is taken to have a redrive policy: nothing is deleted that
    /// should not be.
    redrives: AtomicBool,
    /// When the last message received was sent; taken by who looks.
    last_sent_ms: AtomicI64,
}

/// What becomes of a message in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delete,
    /// It stays, and becomes visible again by itself.
    Leave,
}

/// The receipts of the messages in hand that have to stay invisible.
type Held = Mutex<BTreeMap<usize, String>>;

impl Receiver {
    pub(super) fn new(
        queue: Queue,
        visibility: Duration,
        inlet: Arc<Inlet>,
        health: Arc<IntakeHealth>,
        metrics: Metrics,
    ) -> Self {
        Self {
            queue,
            visibility,
            inlet,
            troubles: Troubles::new(health),
            metrics,
            recorded: Recent::default(),
            redrives: AtomicBool::new(true),
            last_sent_ms: AtomicI64::new(0),
        }
    }

    /// Whether the queue moves what is received too often to a dead-letter queue.
    pub(super) fn set_redrives(&self, redrives: bool) {
        self.redrives.store(redrives, Ordering::Relaxed);
    }

    /// When the message that was received last was sent, if one was since the last call.
    pub(super) fn last_sent_ms(&self) -> Option<i64> {
        Some(self.last_sent_ms.swap(0, Ordering::Relaxed)).filter(|ms| *ms > 0)
    }

    /// Takes batch after batch until stopped.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut waits = Waits::new(RETRY);
        while let Some(received) = stop.run_until_cancelled(self.queue.receive()).await {
            match received {
                Ok(batch) => {
                    waits.reset();
                    if self.troubles.clear(Part::Receive) {
                        tracing::info!(queue = self.queue.url(), "The queue gives messages again.");
                    }
                    self.within_grace(&stop, Box::pin(self.settle(&batch))).await;
                }
                Err(failure) => {
                    self.failed(
                        Part::Receive,
                        &failure,
                        "No notification arrives through the queue; it is asked again and again.",
                    );
                    let wait = tokio::time::sleep(waits.next());
                    if stop.run_until_cancelled(wait).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Lets `work` end, but not longer than [`GRACE`] once stopped.
    async fn within_grace(&self, stop: &CancellationToken, work: impl Future<Output = ()>) {
        let too_late = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = work => {}
            () = too_late => {}
        }
    }

    /// Makes a batch durable and deletes it, however long that takes; meanwhile it stays invisible.
    async fn settle(&self, batch: &[Message]) {
        if let Some(sent_ms) = batch.iter().filter_map(|message| message.sent_ms).max() {
            self.last_sent_ms.store(sent_ms, Ordering::Relaxed);
        }
        let receipts = batch.iter().map(|message| message.receipt.clone());
        let held: Held = Mutex::new(receipts.enumerate().collect());
        tokio::select! {
            () = self.take_all(batch, &held) => {}
            () = self.keep_invisible(&held) => {}
        }
    }

    async fn take_all(&self, batch: &[Message], held: &Held) {
        let began = Instant::now();
        let mut left: Vec<(usize, &Message)> = batch.iter().enumerate().collect();
        let mut waits = Waits::new(RETRY);
        while !left.is_empty() {
            // Together, so that the journal makes them durable with one sync.
            let taken = join_all(left.iter().map(|(_, message)| self.take(message))).await;
            let (mut refused, mut done) = (Vec::new(), Vec::new());
            let mut reason = None;
            for (&(index, message), taken) in left.iter().zip(taken) {
                match taken {
                    Ok(Fate::Delete) => done.push((index, message)),
                    Ok(Fate::Leave) => release(held, index),
                    Err(error) => {
                        reason = Some(error);
                        refused.push((index, message));
                    }
                }
            }
            self.delete(&done, held, began).await;
            match reason {
                Some(error) => {
                    self.refused(&error);
                    tokio::time::sleep(waits.next()).await;
                }
                None if self.troubles.clear(Part::Journal) => {
                    tracing::info!(
                        queue = self.queue.url(),
                        "Notifications from the queue are taken again."
                    );
                }
                None => {}
            }
            left = refused;
        }
    }

    /// One message into the journal, or into the dead-letter list.
    async fn take(&self, message: &Message) -> Result<Fate, Refused> {
        let received_ms = clock::now_ms();
        self.troubles.heard(received_ms);
        let parsed = event::parse(message.body.as_bytes(), Channel::Push);
        if !is_poison(&parsed) {
            self.inlet.accept_kept(parsed, received_ms).await?;
            return Ok(Fate::Delete);
        }
        let identity = identity(&message.id);
        if !self.recorded.knows(identity) {
            self.inlet.accept_kept(parsed, received_ms).await?;
            self.recorded.remember([identity]);
            let stays = self.redrives.load(Ordering::Relaxed);
            tracing::warn!(
                queue = self.queue.url(),
                message = message.id.escape_debug().to_string(),
                stays,
                "A message in the queue cannot be used. It is in the dead-letter list, and the buckets \
                 that it may concern will be reconciled."
            );
        }
        Ok(if self.redrives.load(Ordering::Relaxed) { Fate::Leave } else { Fate::Delete })
    }

    /// Deletes messages that are durable. One that cannot be deleted comes back and does no harm.
    async fn delete(&self, done: &[(usize, &Message)], held: &Held, began: Instant) {
        let mut left = done.to_vec();
        for _ in 0..DELETE_TRIES {
            if left.is_empty() {
                break;
            }
            let receipts: Vec<&str> = left.iter().map(|(_, m)| m.receipt.as_str()).collect();
            let refusals = match self.queue.delete(&receipts).await {
                Ok(refusals) => refusals,
                Err(failure) => {
                    self.failed(Part::Delete, &failure, "Messages that are durable here cannot be deleted from the queue; they will come again.");
                    break;
                }
            };
            for refusal in &refusals {
                self.metrics.error(Stage::Intake, "sqs_delete");
                tracing::debug!(
                    queue = self.queue.url(),
                    reason = refusal.reason,
                    "A message was not deleted."
                );
            }
            if refusals.len() < left.len() && self.troubles.clear(Part::Delete) {
                tracing::info!(
                    queue = self.queue.url(),
                    "Messages are deleted from the queue again."
                );
            }
            let again = |at: &usize| refusals.iter().any(|r| r.index == *at && !r.is_final);
            let mut at = 0_usize..;
            left.retain(|_| at.next().is_some_and(|at| again(&at)));
        }
        for (index, _) in done {
            release(held, *index);
        }
        for _ in left.len()..done.len() {
            self.metrics.intake_request(RequestOutcome::Ok);
            self.metrics.intake_acknowledged(began.elapsed());
        }
    }

    /// Extends what is held, again and again, each time long before it would become visible.
    async fn keep_invisible(&self, held: &Held) {
        loop {
            tokio::time::sleep(self.visibility / 3).await;
            let receipts: Vec<String> =
                held.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            let receipts: Vec<&str> = receipts.iter().map(String::as_str).collect();
            if receipts.is_empty() {
                continue;
            }
            match self.queue.extend(&receipts).await {
                Ok(refusals) => {
                    for refusal in refusals {
                        self.metrics.error(Stage::Intake, "sqs_extend");
                        tracing::debug!(
                            queue = self.queue.url(),
                            reason = refusal.reason,
                            "A message was not kept invisible and will come twice."
                        );
                    }
                }
                Err(failure) => {
                    self.metrics.error(Stage::Intake, failure.kind.class());
                    tracing::warn!(queue = self.queue.url(), error = %failure, advice = failure.advice(),
                        "Messages that wait could not be kept invisible and will come twice.");
                }
            }
        }
    }

    fn failed(&self, part: Part, failure: &Failure, effect: &'static str) {
        self.metrics.error(Stage::Intake, failure.kind.class());
        let advice = failure.advice();
        if self.troubles.report(part, &format!("{failure}; {advice}")) {
            tracing::error!(queue = self.queue.url(), error = %failure, advice, "{effect}");
        }
    }

    fn refused(&self, error: &Refused) {
        self.metrics.intake_request(RequestOutcome::Unavailable);
        if self.troubles.report(Part::Journal, &error.to_string()) {
            tracing::error!(queue = self.queue.url(), %error,
                "Notifications from the queue cannot be made durable; they stay in the queue, and nothing is lost.");
        }
    }
}

fn release(held: &Held, index: usize) {
    held.lock().unwrap_or_else(PoisonError::into_inner).remove(&index);
}

/// Nothing in the message could be used. Where something could, the rest is in the dead-letter list and
/// its buckets are in doubt, as with every other intake.
fn is_poison(parsed: &Parsed) -> bool {
    parsed.events.is_empty() && parsed.ignored == 0 && !parsed.unusable.is_empty()
}

/// A message's id as a number, the same at each delivery.
fn identity(id: &str) -> u128 {
    let digest = Sha256::digest(id);
    digest.first_chunk().copied().map_or(0, u128::from_le_bytes)
}
