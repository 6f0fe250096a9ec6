//! Wires the stages of `run`: each is built here, given what it shares with others, and ended.
//!
//! **Start.** State on disk is recovered first, then work begins, and the webhook opens last, so that
//! nothing is taken before it can be kept. Stores that do not answer do not prevent a start.
//! **Stop** runs in the order data flows: no more notifications, no more keys taken, work in flight
//! finished within `drain_timeout`, the journal trimmed and closed. **On crash** none of this
//! happens, and the next start recovers.

mod chores;
mod intakes;
mod operations;
mod stages;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::fence::Fence;
use crate::gaps::GapReason;
use crate::intake::Intake;
use crate::intake::kafka::Outbox;
use crate::journal::Cursor;
use crate::lease::Term;
use crate::metrics::Metrics;
use crate::replicate::{Direction, Replicator};
use crate::serve::{self, BearerToken, Limits};
use crate::shelf::Taken;
use crate::state;
use crate::stores::{self, Stores};
use crate::web::{self, History, Latest, Web};
use crate::workqueue::feeder::{Failing, FeedError, Feeder};
use intakes::{Listeners, Opened};
use stages::Stages;

/// Readers of status and metrics.
const WEB_LIMITS: Limits = Limits::connections(256);

/// How long, at a stop, clients may take for the requests that they have begun, and the stages for
/// what they are doing. What is cut off then was not acknowledged, or is in the journal.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running evermirror.
#[derive(Debug)]
pub struct Pipeline {
    stages: Arc<Stages>,
    stops: Stops,
    tasks: TaskTracker,
    web_tasks: TaskTracker,
    /// Set to the reason when a stage cannot go on.
    broken: watch::Receiver<Option<String>>,
    webhook_address: Option<SocketAddr>,
    web_address: SocketAddr,
}

/// What ends the stages, in the order in which they end.
#[derive(Debug, Default)]
struct Stops {
    intake: CancellationToken,
    feed: CancellationToken,
    web: CancellationToken,
}

impl Pipeline {
    /// Recovers, connects and opens the listeners. An error here means that nothing was taken. With a
    /// `term`, nothing is written or acknowledged after its fence has fallen.
    pub async fn start(settings: Settings, term: Option<&Term>) -> anyhow::Result<Self> {
        let settings = Arc::new(settings);
        let web = serve::bind(settings.web.listen, "web.listen").await?;
        let listeners = Listeners::bind(&settings.intake).await?;
        let (web_address, webhook_address) = (web.local_addr()?, listeners.webhook_address()?);
        let metrics = Metrics::new();
        let (state, cursor) = state::open(&settings, &metrics).await?;
        let stores = stores::connect(&settings).await?;
        let lease = term.map(Term::status);
        let mut stages = Stages::new(settings, metrics, state, lease);
        if let Some(term) = term {
            stores.source.fence(term.fence());
            stores.target.fence(term.fence());
            stages.doubt_since(term.doubt_since_ms());
        }
        let (stops, tasks, web_tasks) = (Stops::default(), TaskTracker::new(), TaskTracker::new());
        let (break_down, broken) = watch::channel(None);

        let fence = term.map_or_else(|| Arc::new(Fence::alone()), |term| Arc::clone(term.fence()));
        let inlet = Arc::new(stages.inlet().fenced(fence));
        let Opened { intakes, outbox } =
            intakes::open(listeners, &stages, &stores.source, &inlet).await?;
        stages.intakes = intakes.iter().map(|intake| intake.health()).collect();
        let stages = Arc::new(stages);
        let feeding = Feeding { cursor, outbox, stages: Arc::clone(&stages) };
        tasks.spawn(feed(feeding, stops.feed.clone(), break_down.clone()));
        tasks.spawn(reconcile(
            stores.clone(),
            Arc::clone(&stages),
            stops.intake.clone(),
            break_down.clone(),
        ));
        if stages.capture.is_some() {
            tasks.spawn(chores::capture(stores.clone(), Arc::clone(&stages), stops.feed.clone()));
        }
        tasks.spawn(work(stores, Arc::clone(&stages), stops.feed.clone(), break_down.clone()));
        tasks.spawn(delay(Arc::clone(&stages), stops.feed.clone(), break_down.clone()));
        if stages.snapshots.is_some() {
            tasks.spawn(chores::snapshots(Arc::clone(&stages), stops.intake.clone()));
        }
        for intake in intakes {
            tasks.spawn(take(intake, stops.intake.clone(), break_down.clone()));
        }
        let history = History::default();
        let router = web::router(Web {
            operations: Arc::clone(&stages) as _,
            metrics: stages.metrics.clone(),
            dead_letters: Arc::clone(inlet.dead_letters()),
            token: stages.settings.web.auth_token.as_ref().map(BearerToken::new),
            read_without_token: stages.settings.web.read_without_token,
            history: history.clone(),
            latest: Latest::default(),
            stop: stops.web.clone(),
        });
        web_tasks.spawn(history.record(Arc::clone(&stages) as _, stops.web.clone()));
        web_tasks.spawn(serve::run(web, None, router, WEB_LIMITS, stops.web.clone()));
        Ok(Self { stages, stops, tasks, web_tasks, broken, webhook_address, web_address })
    }

    /// Where the webhook listens.
    pub const fn webhook_address(&self) -> Option<SocketAddr> {
        self.webhook_address
    }

    /// Where status and metrics are.
    pub const fn web_address(&self) -> SocketAddr {
        self.web_address
    }

    /// Resolves with the reason when a stage cannot go on; the process must then exit non-zero.
    pub async fn broken(&self) -> String {
        let mut broken = self.broken.clone();
        tokio::select! {
            error = self.stages.journal.failed() => error.to_string(),
            // A closed channel means that both stages ended as they were told to.
            Ok(reason) = broken.wait_for(Option::is_some) => reason.clone().unwrap_or_default(),
            else => std::future::pending().await,
        }
    }

    /// Stops in the order data flows. Returns whether everything in flight was finished in time; what
    /// was not is in the journal.
    pub async fn stop(self) -> bool {
        self.stages.set_stopping();
        self.stops.intake.cancel();
        let drained = match self.stages.replicator.get() {
            Some(replicator) => {
                let limit = self.stages.settings.replicate.drain_timeout;
                tokio::time::timeout(limit, replicator.drain()).await.is_ok()
            }
            None => true,
        };
        self.stops.feed.cancel();
        let ended = end(&self.tasks).await;
        self.stages.close().await;
        self.stops.web.cancel();
        // A reader that takes no answer loses nothing.
        let _ = end(&self.web_tasks).await;
        drained && ended
    }
}

/// Waits a bounded time for tasks that were told to end; returns whether they did.
async fn end(tasks: &TaskTracker) -> bool {
    tasks.close();
    tokio::time::timeout(STOP_LIMIT, tasks.wait()).await.is_ok()
}

const PANICKED: &str = "a stage panicked; please report the panic in the log";

/// Breaks the pipeline when the stage that owns it panics: without it nothing would be replicated, and
/// nobody told.
struct BreakOnPanic(watch::Sender<Option<String>>);

impl Drop for BreakOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send_replace(Some(PANICKED.to_owned()));
        }
    }
}

/// What reads the journal, and for whom.
struct Feeding {
    cursor: Cursor,
    /// There if what is read goes to Kafka.
    outbox: Option<Outbox>,
    stages: Arc<Stages>,
}

/// Reads the journal until stopped, into the work queue or into Kafka; a failure breaks the pipeline.
async fn feed(
    Feeding { cursor, outbox, stages }: Feeding,
    stop: CancellationToken,
    break_down: watch::Sender<Option<String>>,
) {
    let _guard = BreakOnPanic(break_down.clone());
    let undecodable = |_| stages.doubt_all_buckets(GapReason::JournalDamaged);
    let (journal, position) = (stages.journal.clone(), Arc::clone(&stages.position));
    let fed = if let Some(outbox) = outbox {
        // Left by an earlier run in which the journal was a local one.
        if let Err(error) = stages.deferred.drain(&journal, u64::MAX, Taken::Back).await {
            tracing::error!(%error, "Keys that were set aside cannot be taken back; reconcile all buckets.");
        }
        outbox.run(journal, cursor, position, stop, undecodable).await
    } else {
        let doubting = Arc::clone(&stages);
        let failing = move |bucket: &str| doubting.doubt_bucket(bucket, GapReason::BucketFailing);
        let feeder = Feeder {
            failing: Some(Failing::new(failing)),
            hold: Some(stages.hold.clone()),
            journal,
            cursor,
            queue: Arc::clone(&stages.queue),
            deferred: Arc::clone(&stages.deferred),
            position,
            retry_deferred: stages.settings.replicate.retry_max,
        };
        feeder.run(stop, undecodable).await.map_err(|FeedError::Journal(error)| error)
    };
    if let Err(error) = fed {
        break_down.send_replace(Some(error.to_string()));
    }
}

/// Walks both sides, once they answer, until stopped; with several processes, while this one is the one
/// that does so.
async fn reconcile(
    stores: Stores,
    stages: Arc<Stages>,
    stop: CancellationToken,
    break_down: watch::Sender<Option<String>>,
) {
    let _guard = BreakOnPanic(break_down);
    if stop.run_until_cancelled(stages.replicator.wait()).await.is_none() {
        return;
    }
    let mut leads = stages.leads.subscribe();
    // Its errors say that the sender is gone; the stages keep it.
    let mut becomes = async |value: bool| drop(leads.wait_for(|leads| *leads == value).await);
    while stop.run_until_cancelled(becomes(true)).await.is_some() {
        let term = stop.child_token();
        let running = Arc::clone(&stages.reconciler).run(stores.clone(), term.clone());
        tokio::pin!(running);
        tokio::select! {
            () = &mut running => {}
            () = becomes(false) => {
                term.cancel();
                running.await;
            }
        }
    }
}

/// Brings delayed deletes back when they are due, and forgets held ones whose objects are back, until
/// stopped.
async fn delay(
    stages: Arc<Stages>,
    stop: CancellationToken,
    break_down: watch::Sender<Option<String>>,
) {
    let _guard = BreakOnPanic(break_down);
    let (delays, hold) = (&stages.delays, &stages.hold);
    let both = async { tokio::join!(delays.run(&stages.journal), hold.run(&stages.journal)) };
    stop.run_until_cancelled(both).await;
}

/// Prepares the buckets, then replicates until stopped.
async fn work(
    stores: Stores,
    stages: Arc<Stages>,
    stop: CancellationToken,
    break_down: watch::Sender<Option<String>>,
) {
    let _guard = BreakOnPanic(break_down.clone());
    stores::prepare(&stages.settings, &stores, &stop).await;
    if stop.is_cancelled() {
        return;
    }
    let started = Replicator::start(
        &stages.settings,
        stores,
        Arc::clone(&stages.queue),
        Direction::Forth(stages.hold.clone(), Arc::clone(&stages.delays)),
        stages.metrics.clone(),
    );
    match started.await {
        Ok(replicator) => {
            // Nobody else sets it.
            drop(stages.replicator.set(replicator));
            let replicator = stages.replicator.wait().await;
            if stop.run_until_cancelled(replicator.panicked()).await.is_some() {
                break_down.send_replace(Some(PANICKED.to_owned()));
            }
        }
        Err(error) => {
            let path = DataDir::at(&stages.settings.data_dir).uploads();
            let reason = format!("failed to use {}: {error}", path.display());
            break_down.send_replace(Some(reason));
        }
    }
}

/// Takes notifications until stopped.
async fn take(
    intake: Box<dyn Intake>,
    stop: CancellationToken,
    break_down: watch::Sender<Option<String>>,
) {
    let _guard = BreakOnPanic(break_down);
    intake.run(stop).await;
}
