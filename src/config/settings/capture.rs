//! What is captured of the source beside its objects, and where it is kept.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::config::units::{duration, hidden};

/// Capturing the source's settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureSettings {
    /// From one check to the next, in `run`.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// The bucket of the target that keeps the documents, and nothing else.
    pub target_bucket: String,
    /// What their keys begin with.
    pub prefix: String,
    /// How many documents are kept.
    pub keep: usize,
    /// Whose settings are captured.
    pub buckets: CapturedBuckets,
    /// Users, groups and policies of MinIO and RustFS, too.
    pub iam: bool,
    /// Encrypts the documents; without one, secret keys are left out of them.
    #[serde(serialize_with = "hidden")]
    pub passphrase: Option<SecretString>,
    /// A file that holds the passphrase.
    pub passphrase_file: Option<PathBuf>,
}

/// Whose settings are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CapturedBuckets {
    /// Those of the buckets that are replicated.
    #[default]
    Configured,
    /// Those of every bucket of the source.
    All,
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_hours(1),
            target_bucket: "evermirror-captured".to_owned(),
            prefix: "settings/".to_owned(),
            keep: 30,
            buckets: CapturedBuckets::Configured,
            iam: true,
            passphrase: None,
            passphrase_file: None,
        }
    }
}
