//! Volume snapshots of the source in Kubernetes: layer 1 of a backup, beside the live copy.
//!
//! **Promise.** Only snapshots that carry our label are ever deleted, only once there are more usable ones
//! than `retain`, and never the newest usable one. A snapshot carries what a restore needs to know of its
//! claim, which may be gone by then. **On error** nothing was changed but what the error names.
//! **On cancellation** a snapshot that was asked for is taken all the same; it counts when it is usable.
//!
//! A snapshot is crash-consistent: as if the store's machine had lost power. evermirror cannot stop
//! those who write to the store; see [`crate::config::settings::SnapshotSettings::quiesce`].

mod choose;
mod restore;
mod retention;
mod schedule;

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::clock;
use crate::config::settings::SnapshotSettings;
use crate::kubernetes::{
    CLAIMS, Cluster, ConnectError, Failure, KubernetesError, Resource, SNAPSHOT_CLASSES, SNAPSHOTS,
    STORAGE_CLASSES, at, text_at,
};
pub use choose::{ChooseError, Claim};
pub use restore::{RestoreError, RestoreOptions};
pub use schedule::{Schedule, SnapshotStatus};

/// Marks a snapshot as ours.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "evermirror");
/// What a restore needs to know of the claim.
const STORAGE_CLASS: &str = "evermirror/storage-class";
const ACCESS_MODES: &str = "evermirror/access-modes";
const VOLUME_MODE: &str = "evermirror/volume-mode";
/// Nothing was pending when it was taken.
const QUIESCED: &str = "evermirror/quiesced";
/// From one look at a snapshot that is not ready to the next.
const LOOK: Duration = Duration::from_millis(500);

/// A snapshot cannot be taken, listed or restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no cluster.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The API server refused, or did not answer.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    /// The cluster lacks something, or what is meant is not clear.
    #[error(transparent)]
    Choose(#[from] ChooseError),
    /// It cannot be restored as it was asked.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// It was taken, and cannot be used in time.
    #[error(
        "the snapshot {name} is not usable after {waited}: {reason}; it stays, and counts when it becomes usable"
    )]
    NotReady {
        /// Its name.
        name: String,
        /// How long it was waited for.
        waited: humantime::Duration,
        /// What its status says.
        reason: String,
    },
    /// It went away while it was waited for.
    #[error("the snapshot {0} was deleted while it was waited for; who else deletes snapshots?")]
    Vanished(String),
}

/// Whether a snapshot can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotState {
    /// It is being made.
    Pending,
    /// It can be restored.
    Ready,
    /// It is being deleted.
    Deleting,
}

/// One `VolumeSnapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// The claim it was taken of.
    pub claim: Option<String>,
    /// Its `VolumeSnapshotClass`.
    pub class: Option<String>,
    /// Whether it can be restored.
    pub state: SnapshotState,
    /// When it was asked for, as RFC 3339.
    pub asked_at: String,
    /// Of which moment it is, as RFC 3339; unknown until the driver has cut it.
    pub cut_at: Option<String>,
    /// The least size of a volume that it is restored into (`10Gi`).
    pub restore_size: Option<String>,
    /// What the driver complains of.
    pub error: Option<String>,
    /// evermirror has taken it, so that retention may delete it.
    pub ours: bool,
    /// Nothing was pending when it was taken.
    pub quiesced: bool,
    /// What the claim was, if the snapshot says so.
    #[serde(skip)]
    origin: Origin,
    #[serde(skip)]
    uid: String,
}

/// What a restored claim must be like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Origin {
    storage_class: Option<String>,
    access_modes: Vec<String>,
    volume_mode: Option<String>,
}

impl Snapshot {
    fn read(object: &Value) -> Self {
        let (labels, notes) = (at(object, "/metadata/labels"), at(object, "/metadata/annotations"));
        let note =
            |name: &str| notes[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let modes = note(ACCESS_MODES).unwrap_or_default();
        Self {
            name: text_at(object, "/metadata/name").unwrap_or_default(),
            claim: text_at(object, "/spec/source/persistentVolumeClaimName"),
            class: text_at(object, "/spec/volumeSnapshotClassName"),
            state: if at(object, "/metadata/deletionTimestamp").is_string() {
                SnapshotState::Deleting
            } else if *at(object, "/status/readyToUse") == true {
                SnapshotState::Ready
            } else {
                SnapshotState::Pending
            },
            asked_at: text_at(object, "/metadata/creationTimestamp").unwrap_or_default(),
            cut_at: text_at(object, "/status/creationTime"),
            restore_size: quantity(at(object, "/status/restoreSize")),
            error: text_at(object, "/status/error/message"),
            ours: labels[LABEL.0] == LABEL.1,
            quiesced: notes[QUIESCED] == "true",
            origin: Origin {
                storage_class: note(STORAGE_CLASS),
                access_modes: modes.split_terminator(',').map(str::to_owned).collect(),
                volume_mode: note(VOLUME_MODE),
            },
            uid: text_at(object, "/metadata/uid").unwrap_or_default(),
        }
    }

    /// It can be restored.
    pub fn usable(&self) -> bool {
        self.state == SnapshotState::Ready
    }

    /// It cannot be restored, and its driver has complained.
    pub fn failed(&self) -> bool {
        self.state == SnapshotState::Pending && self.error.is_some()
    }

    /// When it was asked for, in milliseconds since the Unix epoch.
    pub fn asked_ms(&self) -> Option<i64> {
        Some(self.asked_at.parse::<jiff::Timestamp>().ok()?.as_millisecond())
    }
}

/// A quantity is a string, or a number.
fn quantity(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

/// What a snapshot will be taken of, and how: everything that can be checked beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The claim.
    pub claim: Claim,
    /// The `VolumeSnapshotClass`.
    pub class: String,
    /// The namespace of both.
    pub namespace: String,
}

/// The snapshots of one source in one cluster.
#[derive(Debug, Clone)]
pub struct Snapshots {
    cluster: Cluster,
    settings: SnapshotSettings,
}

impl Snapshots {
    /// Finds the cluster; asks it nothing yet.
    pub async fn connect(settings: &SnapshotSettings) -> Result<Self, SnapshotError> {
        let cluster = Cluster::connect(settings.namespace.as_deref()).await?;
        Ok(Self { cluster, settings: settings.clone() })
    }

    /// Whether a snapshot can be taken, and of what.
    pub async fn plan(&self) -> Result<Plan, SnapshotError> {
        let (selector, namespace) = (&self.settings.selector, self.cluster.namespace());
        let claims = self.cluster.list(CLAIMS, selector).await?;
        let claim = choose::claim(&claims, selector, namespace)?;
        let classes = self.need(SNAPSHOT_CLASSES).await?;
        let driver = match &claim.storage_class {
            Some(name) => match self.cluster.get(STORAGE_CLASSES, name).await? {
                Some(class) => text_at(&class, "/provisioner"),
                None => None,
            },
            None => None,
        };
        let wanted = self.settings.class.as_deref();
        let class = choose::class(&classes, &claim, driver.as_deref(), wanted)?;
        Ok(Plan { claim, class, namespace: namespace.to_owned() })
    }

    /// Objects of a kind that a cluster may lack.
    async fn need(&self, resource: Resource) -> Result<Vec<Value>, SnapshotError> {
        match self.cluster.list(resource, "").await {
            Ok(objects) => Ok(objects),
            Err(error) if error.failure == Failure::NoSuchKind => {
                Err(ChooseError::NoSnapshots.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks for a snapshot, or with `dry_run` has the server check the request only.
    pub async fn create(
        &self,
        plan: &Plan,
        quiesced: bool,
        dry_run: bool,
    ) -> Result<Snapshot, SnapshotError> {
        let claim = &plan.claim;
        let annotations = json!({
            STORAGE_CLASS: claim.storage_class.as_deref().unwrap_or_default(),
            ACCESS_MODES: claim.access_modes.join(","),
            VOLUME_MODE: claim.volume_mode,
            QUIESCED: quiesced.to_string(),
        });
        let object = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": {
                "name": choose::name(&claim.name, clock::now_ms()),
                "namespace": plan.namespace,
                "labels": { LABEL.0: LABEL.1 },
                "annotations": annotations,
            },
            "spec": {
                "volumeSnapshotClassName": plan.class,
                "source": { "persistentVolumeClaimName": claim.name },
            },
        });
        Ok(Snapshot::read(&self.cluster.create(SNAPSHOTS, &object, dry_run).await?))
    }

    /// Waits until `done` is true of a snapshot.
    pub async fn wait(
        &self,
        name: &str,
        limit: Duration,
        done: impl Fn(&Snapshot) -> bool,
    ) -> Result<Snapshot, SnapshotError> {
        let mut last = None;
        let looking = async {
            loop {
                let found = self.cluster.get(SNAPSHOTS, name).await?;
                let snapshot = found.as_ref().map(Snapshot::read);
                let snapshot = snapshot.ok_or_else(|| SnapshotError::Vanished(name.to_owned()))?;
                if done(&snapshot) {
                    return Ok(snapshot);
                }
                last = snapshot.error;
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(limit, looking).await {
            Ok(ended) => ended,
            Err(_) => Err(SnapshotError::NotReady {
                name: name.to_owned(),
                waited: limit.into(),
                reason: last.unwrap_or_else(|| {
                    "its status tells no reason; do the snapshot controller and the driver's snapshotter run?".to_owned()
                }),
            }),
        }
    }

    /// As [`Snapshots::wait`], until it can be restored, for `ready_timeout`.
    pub async fn wait_ready(&self, name: &str) -> Result<Snapshot, SnapshotError> {
        self.wait(name, self.settings.ready_timeout, Snapshot::usable).await
    }

    /// All snapshots of the namespace, the newest first.
    pub async fn list(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let objects = self.need(SNAPSHOTS).await?;
        let mut snapshots: Vec<_> = objects.iter().map(Snapshot::read).collect();
        snapshots.sort_by(|a, b| (&b.asked_at, &b.name).cmp(&(&a.asked_at, &a.name)));
        Ok(snapshots)
    }

    /// Which snapshots of `claim` retention deletes now; deletes them unless `dry_run`. Returns their names.
    pub async fn expire(&self, claim: &str, dry_run: bool) -> Result<Vec<String>, SnapshotError> {
        let mut gone = Vec::new();
        let snapshots = self.list().await?;
        for snapshot in retention::expired(&snapshots, claim, self.settings.retain) {
            let deleted =
                dry_run || self.cluster.delete(SNAPSHOTS, &snapshot.name, &snapshot.uid).await?;
            if deleted {
                gone.push(snapshot.name.clone());
            }
        }
        Ok(gone)
    }

    /// Makes a new claim of a snapshot; returns it as the server keeps it, or with `dry_run` would keep it.
    pub async fn restore(
        &self,
        snapshot: &str,
        options: &RestoreOptions,
        dry_run: bool,
    ) -> Result<Value, SnapshotError> {
        let snapshots = self.list().await?;
        let snapshot = restore::find(&snapshots, snapshot)?;
        let original = match &snapshot.claim {
            Some(name) => self.cluster.get(CLAIMS, name).await?,
            None => None,
        };
        let namespace = self.cluster.namespace();
        let claim = restore::claim(snapshot, original.as_ref(), options, namespace)?;
        if self.cluster.get(CLAIMS, &options.claim).await?.is_some() {
            return Err(RestoreError::Exists(options.claim.clone()).into());
        }
        Ok(self.cluster.create(CLAIMS, &claim, dry_run).await?)
    }
}
