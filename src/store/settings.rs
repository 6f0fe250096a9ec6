//! The settings of a bucket and the users of a store, each as the document in which the store tells it.
//!
//! **Promise.** What is read is kept as it was said, so that it can be put back without loss, also where
//! a store knows elements that no other does. [`means`] tells whether two documents say the same.
//! The calls are plain requests rather than the SDK's, whose types drop what they do not know.

use http::{HeaderValue, Method};
use serde_json::json;

use super::body::RequestBody;
use super::encode::Query;
use super::failure::CallSite;
use super::object::{MAX_DOCUMENT, md5, unreadable};
use super::request::Call;
use super::{ErrorKind, PutBody, Store, StoreError, StoreKind, xml};

/// The largest archive of users and policies that is taken.
const MAX_IAM: u64 = 64 << 20;

/// One kind of setting that a bucket has beside its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BucketSetting {
    /// Whether overwritten objects are kept.
    Versioning,
    /// Whether objects can be locked, and for how long by default.
    ObjectLock,
    /// How objects are encrypted by default.
    Encryption,
    /// The bucket's own tags.
    Tagging,
    /// When objects expire or move.
    Lifecycle,
    /// Which web pages may read it.
    Cors,
    /// Where events go.
    Notification,
    /// Who may do what. JSON; all others are XML.
    Policy,
}

impl BucketSetting {
    /// All of them, in the order in which they can be put back: a lock needs versions.
    pub const ALL: [Self; 8] = [
        Self::Versioning,
        Self::ObjectLock,
        Self::Encryption,
        Self::Tagging,
        Self::Lifecycle,
        Self::Cors,
        Self::Notification,
        Self::Policy,
    ];

    /// Its name in documents and for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Versioning => "versioning",
            Self::ObjectLock => "object-lock",
            Self::Encryption => "encryption",
            Self::Tagging => "tags",
            Self::Lifecycle => "lifecycle",
            Self::Cors => "cors",
            Self::Notification => "notification",
            Self::Policy => "policy",
        }
    }

    /// The query that addresses it; what GET, PUT and DELETE are called; what a store answers where
    /// there is none.
    const fn api(self) -> (&'static str, [&'static str; 3], &'static str) {
        match self {
            Self::Versioning => {
                ("versioning", ["GetBucketVersioning", "PutBucketVersioning", ""], "")
            }
            Self::ObjectLock => (
                "object-lock",
                ["GetObjectLockConfiguration", "PutObjectLockConfiguration", ""],
                "ObjectLockConfigurationNotFoundError",
            ),
            Self::Encryption => (
                "encryption",
                ["GetBucketEncryption", "PutBucketEncryption", "DeleteBucketEncryption"],
                "ServerSideEncryptionConfigurationNotFoundError",
            ),
            Self::Tagging => (
                "tagging",
                ["GetBucketTagging", "PutBucketTagging", "DeleteBucketTagging"],
                "NoSuchTagSet",
            ),
            Self::Lifecycle => (
                "lifecycle",
                [
                    "GetBucketLifecycleConfiguration",
                    "PutBucketLifecycleConfiguration",
                    "DeleteBucketLifecycle",
                ],
                "NoSuchLifecycleConfiguration",
            ),
            Self::Cors => (
                "cors",
                ["GetBucketCors", "PutBucketCors", "DeleteBucketCors"],
                "NoSuchCORSConfiguration",
            ),
            Self::Notification => (
                "notification",
                ["GetBucketNotificationConfiguration", "PutBucketNotificationConfiguration", ""],
                "",
            ),
            Self::Policy => (
                "policy",
                ["GetBucketPolicy", "PutBucketPolicy", "DeleteBucketPolicy"],
                "NoSuchBucketPolicy",
            ),
        }
    }

    /// What is written where the store has no call that takes the setting away.
    const fn nothing(self) -> Option<&'static str> {
        match self {
            Self::Versioning => Some(
                "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                 <Status>Suspended</Status></VersioningConfiguration>",
            ),
            Self::Notification => Some(
                "<NotificationConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>",
            ),
            Self::ObjectLock
            | Self::Encryption
            | Self::Tagging
            | Self::Lifecycle
            | Self::Cors
            | Self::Policy => None,
        }
    }
}

/// What a store says of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingAnswer {
    /// Its document.
    Set(String),
    /// There is none.
    Nothing,
    /// The store does not know the call.
    Unsupported,
}

impl Store {
    /// The names of all buckets that the credentials see.
    pub async fn buckets(&self) -> Result<Vec<String>, StoreError> {
        let answer = self.inner().send(Call::new("ListBuckets", Method::GET, "", "")).await?;
        let origin = answer.origin.clone();
        let document = answer.document(MAX_IAM).await?;
        let mut names = Vec::new();
        xml::read(&document, |path, text| {
            if path == "ListAllMyBucketsResult/Buckets/Bucket/Name" {
                names.push(text);
            }
        })
        .map_err(|error| garbled(&origin, &error))?;
        Ok(names)
    }

    /// Reads one setting of a bucket that is there.
    pub async fn bucket_setting(
        &self,
        bucket: &str,
        setting: BucketSetting,
    ) -> Result<SettingAnswer, StoreError> {
        let (query, [get, ..], absent) = setting.api();
        let call = Call::new(get, Method::GET, bucket, "").query(Query::flag(query));
        let answer = match self.inner().send(call).await {
            Err(error) if error.code.as_deref().is_some_and(|code| code == absent) => {
                return Ok(SettingAnswer::Nothing);
            }
            Err(error) if is_unknown(&error) => return Ok(SettingAnswer::Unsupported),
            answer => answer?,
        };
        let origin = answer.origin.clone();
        let document = answer.document(MAX_DOCUMENT).await?;
        let text = String::from_utf8(document.to_vec())
            .map_err(|_| garbled(&origin, &xml::XmlError::Encoding))?;
        if setting == BucketSetting::Policy {
            return Ok(SettingAnswer::Set(text));
        }
        let meaning = xml::canonical(&document).map_err(|error| garbled(&origin, &error))?;
        let says_nothing = meaning.is_empty() || meaning.ends_with("()");
        Ok(if says_nothing { SettingAnswer::Nothing } else { SettingAnswer::Set(text) })
    }

    /// Replaces one setting of a bucket.
    pub async fn put_bucket_setting(
        &self,
        bucket: &str,
        setting: BucketSetting,
        document: &str,
    ) -> Result<(), StoreError> {
        let (query, [_, put, _], _) = setting.api();
        let call = Call::new(put, Method::PUT, bucket, "")
            .query(Query::flag(query))
            .content_md5(Some(md5(document.as_bytes())))
            .document(document.to_owned());
        self.inner().send(call).await?.finish().await.map(drop)
    }

    /// Takes one setting away. Versions are suspended, since a bucket that has some can never have none;
    /// an object lock stays for ever, and trying to take it away is an error.
    pub async fn delete_bucket_setting(
        &self,
        bucket: &str,
        setting: BucketSetting,
    ) -> Result<(), StoreError> {
        let (query, [_, put, delete], _) = setting.api();
        if let Some(nothing) = setting.nothing() {
            return self.put_bucket_setting(bucket, setting, nothing).await;
        }
        if delete.is_empty() {
            let message = "an object lock cannot be taken away; make another bucket";
            return Err(self.inner().origin(put, bucket, "").error(ErrorKind::Invalid, message));
        }
        let call = Call::new(delete, Method::DELETE, bucket, "").query(Query::flag(query));
        self.inner().send(call).await?.finish().await.map(drop)
    }

    /// Users, groups and policies of a MinIO or RustFS with all secrets, as a zip archive
    /// (`admin:ExportIAM`); `None` if the store has no such call.
    pub async fn export_iam(&self, kind: StoreKind) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(base) = admin_path(kind) else { return Ok(None) };
        let path = format!("{base}/export-iam");
        let answer = match self.inner().send(Call::new("ExportIAM", Method::GET, "", &path)).await {
            Err(error) if is_unknown(&error) || error.status == Some(404) => return Ok(None),
            answer => answer?,
        };
        answer.document(MAX_IAM).await.map(|archive| Some(archive.to_vec()))
    }

    /// Puts the users, groups and policies of such an archive beside those that are there
    /// (`admin:ImportIAM`). What the store could not take is only seen by reading it back.
    pub async fn import_iam(&self, kind: StoreKind, archive: Vec<u8>) -> Result<(), StoreError> {
        let Some(base) = admin_path(kind) else {
            let message = "this store has no users that could be put back";
            return Err(self
                .inner()
                .origin("ImportIAM", "", "")
                .error(ErrorKind::Invalid, message));
        };
        let path = format!("{base}/import-iam-v2");
        let call = Call::new("ImportIAM", Method::PUT, "", &path)
            .header(http::header::CONTENT_TYPE, HeaderValue::from_static("application/zip"))
            .data(RequestBody::of(PutBody::Bytes(archive.into())));
        self.inner().send(call).await?.document(MAX_IAM).await.map(drop)
    }

    /// Switches a group on or off (`admin:EnableGroup`), which [`Store::import_iam`] does not.
    pub async fn set_group_status(
        &self,
        kind: StoreKind,
        group: &str,
        enabled: bool,
    ) -> Result<(), StoreError> {
        let status = if enabled { "enabled" } else { "disabled" };
        let path = format!("{}/set-group-status", admin_path(kind).unwrap_or_default());
        let call = Call::new("SetGroupStatus", Method::PUT, "", &path)
            .query(Query::default().with("group", group).with("status", status));
        self.inner().send(call).await?.document(MAX_DOCUMENT).await.map(drop)
    }

    /// Takes users out of a group (`admin:AddUserToGroup`), which [`Store::import_iam`] does not.
    pub async fn remove_from_group(
        &self,
        kind: StoreKind,
        group: &str,
        members: &[String],
    ) -> Result<(), StoreError> {
        let path = format!("{}/update-group-members", admin_path(kind).unwrap_or_default());
        // RustFS wants a status, and heeds it as little as MinIO.
        let body = json!({
            "group": group, "members": members, "isRemove": true, "groupStatus": "enabled",
        });
        let call =
            Call::new("UpdateGroupMembers", Method::PUT, "", &path).document(body.to_string());
        self.inner().send(call).await?.document(MAX_DOCUMENT).await.map(drop)
    }
}

const fn admin_path(kind: StoreKind) -> Option<&'static str> {
    match kind {
        StoreKind::Minio => Some("minio/admin/v3"),
        StoreKind::Rustfs => Some("rustfs/admin/v3"),
        StoreKind::Aws | StoreKind::Other => None,
    }
}

/// The store answered, if with nonsense: unlike silence, that concerns one setting alone.
fn garbled(origin: &CallSite, error: &xml::XmlError) -> StoreError {
    StoreError { status: Some(200), ..unreadable(origin, error) }
}

/// The store does not know the call at all.
fn is_unknown(error: &StoreError) -> bool {
    error.status == Some(501)
        || matches!(error.code.as_deref(), Some("NotImplemented" | "MethodNotAllowed"))
}

/// What a document means, to be compared: the same whatever the order of its elements and whatever its
/// white space. A document that cannot be read means itself.
pub(crate) fn means(document: &str) -> String {
    xml::canonical(document.as_bytes()).unwrap_or_else(|_| document.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_that_differ_in_order_and_spelling_alone_mean_the_same() {
        let one = "<T><S><Tag><Key>a</Key><Value>1</Value></Tag><Tag><Key>b</Key><Value>2</Value></Tag></S></T>";
        let other = "<?xml version=\"1.0\"?>\n<T xmlns=\"x\">\n <S><Tag><Value>2</Value><Key>b</Key></Tag>\
                     <Tag><Key>a</Key><Value>1</Value></Tag></S></T>";
        assert_eq!(means(one), means(other));
        let swapped = one.replace(">1<", ">3<").replace(">2<", ">1<").replace(">3<", ">2<");
        assert_ne!(means(one), means(&swapped), "a value belongs to its key");
    }
}
