//! The two stores: how to reach them, and how objects are written to the target.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::config::units::hidden;

/// One S3-compatible store and how to reach it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// `http://host:port` or `https://host[:port]`, without a path.
    pub endpoint: String,
    /// The region used in signatures.
    #[serde(default = "default_region")]
    pub region: String,
    /// The access key; with `secret_key`. Without either, the AWS default chain is asked.
    #[serde(default, serialize_with = "hidden")]
    pub access_key: Option<SecretString>,
    /// The secret key.
    #[serde(default, serialize_with = "hidden")]
    pub secret_key: Option<SecretString>,
    /// A session token that belongs to temporary keys.
    #[serde(default, serialize_with = "hidden")]
    pub session_token: Option<SecretString>,
    /// A file that holds the access key (a mounted Secret); read at start.
    #[serde(default)]
    pub access_key_file: Option<PathBuf>,
    /// A file that holds the secret key.
    #[serde(default)]
    pub secret_key_file: Option<PathBuf>,
    /// `http://host/bucket/key` (true) or `http://bucket.host/key` (false).
    #[serde(default = "yes")]
    pub path_style: bool,
    /// PEM certificates to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// The target: a store, and how objects are written there.
///
/// The connection keys are repeated rather than flattened, because a flattened table loses the
/// line and the nearest name in error messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSettings {
    /// As in [`StoreSettings::endpoint`].
    pub endpoint: String,
    /// As in [`StoreSettings::region`].
    #[serde(default = "default_region")]
    pub region: String,
    /// As in [`StoreSettings::access_key`].
    #[serde(default, serialize_with = "hidden")]
    pub access_key: Option<SecretString>,
    /// As in [`StoreSettings::secret_key`].
    #[serde(default, serialize_with = "hidden")]
    pub secret_key: Option<SecretString>,
    /// As in [`StoreSettings::session_token`].
    #[serde(default, serialize_with = "hidden")]
    pub session_token: Option<SecretString>,
    /// As in [`StoreSettings::access_key_file`].
    #[serde(default)]
    pub access_key_file: Option<PathBuf>,
    /// As in [`StoreSettings::secret_key_file`].
    #[serde(default)]
    pub secret_key_file: Option<PathBuf>,
    /// As in [`StoreSettings::path_style`].
    #[serde(default = "yes")]
    pub path_style: bool,
    /// As in [`StoreSettings::ca_file`].
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// `x-amz-storage-class` of every object written (`STANDARD_IA`); the target's default if absent.
    #[serde(default)]
    pub storage_class: Option<String>,
    /// `x-amz-server-side-encryption` of every object written (`AES256` or `aws:kms`).
    #[serde(default)]
    pub server_side_encryption: Option<String>,
    /// The KMS key, with `server_side_encryption = "aws:kms"`.
    #[serde(default)]
    pub kms_key_id: Option<String>,
    /// Create target buckets that are missing, at start.
    #[serde(default = "yes")]
    pub create_buckets: bool,
}

impl TargetSettings {
    /// Whether writes ask for KMS, so that the target's tags are no digests of the content.
    pub fn encrypts_with_kms(&self) -> bool {
        self.server_side_encryption.as_deref().is_some_and(|e| e.starts_with("aws:kms"))
    }

    /// The connection part.
    pub fn store(&self) -> StoreSettings {
        StoreSettings {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key: self.access_key.clone(),
            secret_key: self.secret_key.clone(),
            session_token: self.session_token.clone(),
            access_key_file: self.access_key_file.clone(),
            secret_key_file: self.secret_key_file.clone(),
            path_style: self.path_style,
            ca_file: self.ca_file.clone(),
        }
    }
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

const fn yes() -> bool {
    true
}
