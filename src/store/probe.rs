//! What kind of store this is, and what its own interfaces beside S3 tell of its notifications.
//!
//! Everything here is asked rarely, by `setup` and `doctor`. A store that does not answer these
//! questions is no worse for it: then less is known, and that is said.

use http::Method;
use serde_json::Value;

use super::encode::Query;
use super::object::{MAX_DOCUMENT, unreadable};
use super::request::Call;
use super::{Store, StoreError, xml};

/// A MinIO of many drives tells of each.
const MAX_INFO: u64 = 16 << 20;

/// Whose software a store runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// MinIO or a fork of it.
    Minio,
    /// RustFS.
    Rustfs,
    /// Amazon S3 itself.
    Aws,
    /// Something else that speaks S3.
    Other,
}

impl StoreKind {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minio => "MinIO",
            Self::Rustfs => "RustFS",
            Self::Aws => "Amazon S3",
            Self::Other => "an S3-compatible store",
        }
    }
}

/// The default retention of a bucket with object lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectLock {
    /// Such as `COMPLIANCE for 30 days`; `None` where objects say themselves how long they are kept.
    pub retention: Option<String>,
}

impl Store {
    /// Whose software this is: by the `Server` header of the answers so far, and where that says
    /// nothing, by the health page of RustFS, which needs no permission.
    pub async fn kind(&self) -> StoreKind {
        if let Some(kind) = self.kind_by_header() {
            return kind;
        }
        let health = self.document("health").await;
        // Where nothing was asked before, this answer tells.
        if let Some(kind) = self.kind_by_header() {
            return kind;
        }
        match health {
            Ok(health)
                if health
                    .get("service")
                    .and_then(Value::as_str)
                    .is_some_and(|name| name.starts_with("rustfs")) =>
            {
                StoreKind::Rustfs
            }
            Ok(_) | Err(_) => StoreKind::Other,
        }
    }

    fn kind_by_header(&self) -> Option<StoreKind> {
        let server = self.server().unwrap_or_default();
        let known = [("MinIO", StoreKind::Minio), ("AmazonS3", StoreKind::Aws)];
        known.into_iter().find(|(name, _)| server.starts_with(name)).map(|(_, kind)| kind)
    }

    /// What a MinIO tells its administrators of itself (`admin:ServerInfo`): the ARNs it knows
    /// (`sqsARN`), and the environment of its servers, notification targets and their tokens
    /// included. Never to be shown as it is.
    pub async fn minio_info(&self) -> Result<Value, StoreError> {
        self.document("minio/admin/v3/info").await
    }

    /// The ARNs that a RustFS tells its administrators of; an error while a target cannot be started.
    pub async fn rustfs_arns(&self) -> Result<Value, StoreError> {
        self.document("rustfs/admin/v3/target/arns").await
    }

    /// Whether a RustFS sends notifications (`notify_enabled`), and what it says of each target's
    /// health (`notification_endpoints`).
    pub async fn rustfs_targets(&self) -> Result<Value, StoreError> {
        self.document("rustfs/admin/v3/target/list").await
    }

    /// `GetObjectLockConfiguration`; `None` if objects can be deleted at any time.
    pub async fn object_lock(&self, bucket: &str) -> Result<Option<ObjectLock>, StoreError> {
        let call = Call::new("GetObjectLockConfiguration", Method::GET, bucket, "");
        let answer = match self.inner().send(call.query(Query::flag("object-lock"))).await {
            Err(error) if error.code.as_deref() == Some("ObjectLockConfigurationNotFoundError") => {
                return Ok(None);
            }
            answer => answer?,
        };
        let origin = answer.origin.clone();
        let document = answer.document(MAX_DOCUMENT).await?;
        let text = |path: &str| {
            let path = format!("ObjectLockConfiguration/{path}");
            xml::text_of(&document, &path).map_err(|error| unreadable(&origin, &error))
        };
        if text("ObjectLockEnabled")?.as_deref() != Some("Enabled") {
            return Ok(None);
        }
        let retention = match (
            text("Rule/DefaultRetention/Mode")?,
            text("Rule/DefaultRetention/Days")?,
            text("Rule/DefaultRetention/Years")?,
        ) {
            (Some(mode), Some(days), _) => Some(format!("{mode} for {days} days")),
            (Some(mode), None, Some(years)) => Some(format!("{mode} for {years} years")),
            _ => None,
        };
        Ok(Some(ObjectLock { retention }))
    }

    /// A JSON document of the store itself.
    async fn document(&self, path: &str) -> Result<Value, StoreError> {
        let answer = self.inner().send(Call::new("GET", Method::GET, "", path)).await?;
        let origin = answer.origin.clone();
        let document = answer.document(MAX_INFO).await?;
        serde_json::from_slice(&document).map_err(|error| {
            origin.error(super::ErrorKind::Invalid, format!("the answer is not readable: {error}"))
        })
    }
}
