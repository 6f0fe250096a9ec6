//! The Lease by which several processes agree on the one that is active.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::units::duration;

/// Active and standby, in the words of Kubernetes' leader election.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseSettings {
    /// The Lease's name. All processes of one pair of stores share it, and no others.
    pub name: String,
    /// Its namespace; without it, that of the pod, or of the current context of the kubeconfig.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The pod that this process runs in. While it is active the pod has the label
    /// `evermirror/active: "true"`, so that a Service can select it; without it nothing is labelled.
    #[serde(default)]
    pub pod: Option<String>,
    /// How long a standby waits after the last renewal that it has seen.
    #[serde(default = "default_duration", with = "duration")]
    pub duration: Duration,
    /// The active process ends when it could not renew for so long; below `duration`.
    #[serde(default = "default_renew_deadline", with = "duration")]
    pub renew_deadline: Duration,
    /// From one renewal, or one look at the Lease, to the next.
    #[serde(default = "default_retry_period", with = "duration")]
    pub retry_period: Duration,
}

// The defaults of client-go's leader election.
const fn default_duration() -> Duration {
    Duration::from_secs(15)
}

const fn default_renew_deadline() -> Duration {
    Duration::from_secs(10)
}

const fn default_retry_period() -> Duration {
    Duration::from_secs(2)
}
