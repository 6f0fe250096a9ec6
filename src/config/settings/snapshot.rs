//! Snapshots of the volume that the source keeps its data on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::units::duration;

/// Which volume is snapshotted in Kubernetes, how often, and how many snapshots stay.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSettings {
    /// The labels of the source's `PersistentVolumeClaim`, as kubectl's `-l` takes them
    /// (`app.kubernetes.io/name=rustfs`). Exactly one claim may have them.
    pub selector: String,
    /// The claim's namespace; without it, that of the pod, or of the current context of the kubeconfig.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The `VolumeSnapshotClass`; without it, the cluster's default one for the claim's driver, or the
    /// only one.
    #[serde(default)]
    pub class: Option<String>,
    /// From one snapshot that `run` takes to the next; zero for none.
    #[serde(default = "default_interval", with = "duration")]
    pub interval: Duration,
    /// How many usable snapshots of ours stay; older ones are deleted.
    #[serde(default = "default_retain")]
    pub retain: usize,
    /// How long a snapshot may take until it can be used.
    #[serde(default = "default_ready_timeout", with = "duration")]
    pub ready_timeout: Duration,
    /// How long `run` waits before a snapshot until nothing is pending, and then holds replication while
    /// the snapshot is cut, so that the target is as old as the snapshot; zero: it does not wait.
    #[serde(default, with = "duration")]
    pub quiesce: Duration,
}

const fn default_interval() -> Duration {
    Duration::from_hours(1)
}

const fn default_retain() -> usize {
    24
}

const fn default_ready_timeout() -> Duration {
    Duration::from_mins(10)
}
