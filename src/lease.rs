//! Active and standby: of several processes that share a pair of stores, the holder of a Kubernetes
//! Lease is the only one that works.
//!
//! **Promise.** A process acts (writes to the target, acknowledges a notification) only while its [`Fence`]
//! stands, and the fence falls before the Lease can be taken by another. A notification that one process
//! acknowledged was in its journal before its time was over, so the change behind it happened before
//! that, and the full reconcile with which the next holder begins finds it: nothing is lost although
//! each process has a journal of its own.
//! **On error** of the API server the holder tries again until its renew deadline, then the process ends
//! with a failure: no code of it goes on. A standby waits for as long as it takes. **On a stop** the Lease is given
//! back once all work has ended, so that the next one need not wait. **On crash** it waits for `duration`.
//!
//! What no client can exclude: a request that the kernel had already taken when a process was suspended
//! for longer than the Lease. It is the same as any late request to a store, and a reconcile mends it.

mod election;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::settings::LeaseSettings;
use crate::fence::Fence;
use crate::kubernetes::{Cluster, ConnectError, Failure, KubernetesError, LEASES, PODS};
use election::{Claim, Observer, Record};

/// The label of the pod whose process is active.
pub const ACTIVE_LABEL: &str = "evermirror/active";
/// How often the watchdog looks at the fence.
const WATCH: Duration = Duration::from_millis(50);
/// How long the last log line may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One contender for the Lease.
#[derive(Debug, Clone)]
pub struct Elector {
    cluster: Cluster,
    settings: LeaseSettings,
    me: String,
}

impl Elector {
    /// Finds the cluster and gives this process a name that no other has, nor had.
    pub async fn connect(settings: &LeaseSettings) -> Result<Self, ConnectError> {
        let cluster = Cluster::connect(settings.namespace.as_deref()).await?;
        // Two tries fit into the deadline.
        let cluster = cluster.limited(settings.renew_deadline / 2);
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let base = settings.pod.clone().unwrap_or_else(host);
        let me = format!("{base}_{:08x}", rand::random::<u32>());
        Ok(Self { cluster, settings: settings.clone(), me })
    }

    /// Waits until the Lease is this process's, and keeps renewing it. `state` tells what is waited for.
    pub async fn stand_by(&self, state: &watch::Sender<String>) -> Term {
        let mut observer = Observer::new(&self.me);
        let mut told = String::new();
        let mut labelled = Labelled::Unknown;
        loop {
            labelled.set(self, false).await;
            let looked = self.look(&mut observer).await;
            let now = match looked {
                Ok(Look::Won(term)) => return *term,
                Ok(Look::Held(by)) => format!("the lease {} is held by {by}", self.settings.name),
                Err(error) => error.to_string(),
            };
            if now != told {
                tracing::info!(reason = now, "Standing by.");
                state.send_replace(now.clone());
                told = now;
            }
            tokio::time::sleep(self.settings.retry_period).await;
        }
    }

    async fn look(&self, observer: &mut Observer) -> Result<Look, KubernetesError> {
        let name = &self.settings.name;
        let lease = self.cluster.get(LEASES, name).await?;
        let found = lease.as_ref().map(Record::read);
        let claim = observer.judge(found.as_ref(), clock::since_boot());
        let before = found.unwrap_or_default();
        if let Claim::Wait(holder) = claim {
            let since = before.acquired.and_then(|at| at.parse::<jiff::Timestamp>().ok());
            let since = since.map_or_else(String::new, |at| format!(" since {at:.0}"));
            return Ok(Look::Held(holder + &since));
        }
        let began = clock::since_boot();
        let wanted = self.renewed(&Record {
            acquired: Some(timestamp()),
            transitions: before.transitions + i64::from(claim == Claim::Take),
            ..before.clone()
        });
        match self.write(&wanted, claim == Claim::Create).await {
            Ok(record) => Ok(Look::Won(Box::new(self.begin(record, &before, began)))),
            Err(KubernetesError { failure: Failure::Conflict | Failure::Exists, .. }) => {
                Ok(Look::Held("another one, which was faster".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    fn begin(&self, record: Record, before: &Record, began: Duration) -> Term {
        let fence = Arc::new(Fence::until(began + self.settings.renew_deadline));
        tracing::info!(
            lease = self.settings.name,
            holder = self.me,
            after = before.holder,
            "This process is active: it holds the lease."
        );
        let renewed = before.renewed.as_deref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let (serving, served) = watch::channel(false);
        let stop = CancellationToken::new();
        let keeper = Keeper { elector: self.clone(), record, fence: Arc::clone(&fence), served };
        let keeping = tokio::spawn(keeper.run(stop.clone()));
        Term {
            fence,
            doubt_since_ms: renewed.map(jiff::Timestamp::as_millisecond),
            since_ms: clock::now_ms(),
            elector: self.clone(),
            serving,
            stop,
            keeping,
        }
    }

    /// As this record is when we hold it and renew it now.
    fn renewed(&self, record: &Record) -> Record {
        Record {
            holder: Some(self.me.clone()),
            duration: self.settings.duration,
            renewed: Some(timestamp()),
            ..record.clone()
        }
    }

    async fn write(&self, record: &Record, create: bool) -> Result<Record, KubernetesError> {
        let name = &self.settings.name;
        let lease = record.write(name, self.cluster.namespace());
        let written = if create {
            self.cluster.create(LEASES, &lease, false).await
        } else {
            self.cluster.replace(LEASES, name, &lease).await
        };
        written.map(|lease| Record::read(&lease))
    }
}

enum Look {
    Won(Box<Term>),
    Held(String),
}

/// The Lease that makes this process the active one, for the status.
#[derive(Debug, Clone, Serialize)]
pub struct LeaseStatus {
    /// The Lease's name.
    pub name: String,
    /// The name by which it knows this process.
    pub holder: String,
    /// Since when it does, in milliseconds since the Unix epoch.
    pub since_ms: i64,
}

/// The time during which this process is the active one.
#[derive(Debug)]
pub struct Term {
    fence: Arc<Fence>,
    doubt_since_ms: Option<i64>,
    since_ms: i64,
    elector: Elector,
    serving: watch::Sender<bool>,
    stop: CancellationToken,
    keeping: JoinHandle<Record>,
}

impl Term {
    /// Until when this process may act.
    pub fn fence(&self) -> &Arc<Fence> {
        &self.fence
    }

    /// When the holder before was last known to work; what happened since then nobody may have seen.
    /// Milliseconds since the Unix epoch, `None` for the first holder ever.
    pub const fn doubt_since_ms(&self) -> Option<i64> {
        self.doubt_since_ms
    }

    /// The Lease, and by what name and since when it is this process's.
    pub fn status(&self) -> LeaseStatus {
        LeaseStatus {
            name: self.elector.settings.name.clone(),
            holder: self.elector.me.clone(),
            since_ms: self.since_ms,
        }
    }

    /// Everything runs: notifications may be sent here.
    pub fn serving(&self) {
        self.serving.send_replace(true);
    }

    /// Ends the process, with a failure, when the fence falls, from a thread that waits for nothing else.
    pub fn watch(&self) -> io::Result<()> {
        let (fence, stop, name) =
            (Arc::clone(&self.fence), self.stop.clone(), self.elector.settings.name.clone());
        let watch = move || {
            while fence.holds() {
                std::thread::sleep(WATCH);
            }
            if stop.is_cancelled() {
                return;
            }
            // A log that nobody reads must not keep this process from ending.
            let last_words = std::thread::spawn(move || {
                tracing::error!(
                    lease = name,
                    "The lease could not be renewed in time, or is another's. This process has stopped copying and acknowledging, and ends; its next start stands by."
                );
            });
            let began = Instant::now();
            while !last_words.is_finished() && began.elapsed() < LAST_WORDS {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::process::exit(1);
        };
        std::thread::Builder::new().name("lease".to_owned()).spawn(watch).map(drop)
    }

    /// Gives the Lease back. Only when nothing acts any more: the next holder begins at once.
    pub async fn release(self) {
        self.stop.cancel();
        let held = self.fence.holds();
        self.fence.fall();
        let Ok(record) = self.keeping.await else { return };
        if !held {
            return;
        }
        let free = Record { holder: None, renewed: Some(timestamp()), ..record };
        match self.elector.write(&free, false).await {
            Ok(_) => {
                tracing::info!(lease = self.elector.settings.name, "The lease was given back.");
            }
            Err(error) => {
                tracing::warn!(%error, "The lease could not be given back; a standby waits until it expires.");
            }
        }
    }
}

/// Renews the Lease while its process is active.
struct Keeper {
    elector: Elector,
    record: Record,
    fence: Arc<Fence>,
    served: watch::Receiver<bool>,
}

impl Keeper {
    /// Until stopped, or until the fence has fallen.
    async fn run(mut self, stop: CancellationToken) -> Record {
        let mut labelled = Labelled::Unknown;
        let mut failing = false;
        loop {
            if *self.served.borrow_and_update() {
                labelled.set(&self.elector, true).await;
            }
            tokio::select! {
                () = stop.cancelled() => return self.record,
                () = tokio::time::sleep(self.elector.settings.retry_period) => {}
                // An error says that the term is over; then the token says so, too.
                Ok(()) = self.served.changed() => {}
            }
            match self.renew().await {
                Ok(()) if failing => {
                    tracing::info!("The lease is renewed again.");
                    failing = false;
                }
                Ok(()) => {}
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, deadline = ?self.elector.settings.renew_deadline, "The lease could not be renewed; trying again until the deadline.");
                    }
                    failing = true;
                }
            }
            if !self.fence.holds() {
                return self.record;
            }
        }
    }

    async fn renew(&mut self) -> Result<(), KubernetesError> {
        let began = clock::since_boot();
        let wanted = self.elector.renewed(&self.record);
        let written = match self.elector.write(&wanted, wanted.version.is_empty()).await {
            Err(error) => match error.failure {
                Failure::Conflict | Failure::Exists | Failure::NotFound => {
                    return self.look_again().await;
                }
                Failure::Forbidden
                | Failure::Unauthorized
                | Failure::NoSuchKind
                | Failure::Refused
                | Failure::Unreachable => return Err(error),
            },
            Ok(record) => record,
        };
        self.record = written;
        self.fence.extend(clock::since_boot(), began + self.elector.settings.renew_deadline);
        Ok(())
    }

    /// The Lease is not as it was left: an answer was lost, someone touched it, or it is another's.
    async fn look_again(&mut self) -> Result<(), KubernetesError> {
        let elector = &self.elector;
        let lease = elector.cluster.get(LEASES, &elector.settings.name).await?;
        match lease.as_ref().map(Record::read) {
            Some(record) if record.holder.as_deref() == Some(&*elector.me) => self.record = record,
            // Someone deleted it; it is made again with the next renewal.
            None => self.record.version.clear(),
            Some(record) => {
                tracing::error!(
                    lease = elector.settings.name,
                    holder = record.holder,
                    "Another process has taken the lease."
                );
                self.fence.fall();
            }
        }
        Ok(())
    }
}

/// What the label of the pod says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Labelled {
    Unknown,
    As(bool),
    /// It could not be changed, and that was said.
    Failed,
}

impl Labelled {
    /// Labels the pod as active or not, unless it is so already.
    async fn set(&mut self, elector: &Elector, active: bool) {
        let Some(pod) = &elector.settings.pod else { return };
        if *self == Self::As(active) {
            return;
        }
        let value = active.then_some("true");
        let patch = json!({ "metadata": { "labels": { ACTIVE_LABEL: value } } });
        match elector.cluster.patch(PODS, pod, &patch).await {
            Ok(_) => *self = Self::As(active),
            Err(error) => {
                if *self != Self::Failed {
                    tracing::warn!(%error, active, "The pod's label could not be set, so a Service may not find the active process; trying again.");
                }
                *self = Self::Failed;
            }
        }
    }
}

/// The wall clock's time, as a Lease has it.
fn timestamp() -> String {
    let now = jiff::Timestamp::from_millisecond(clock::now_ms()).unwrap_or_default();
    format!("{now:.6}")
}
