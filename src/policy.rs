//! The least that the credentials of each side must be allowed, as AWS IAM and MinIO's policies write it.
//!
//! Exact for the configuration: its buckets and included prefixes, whether tags are copied, whether
//! target buckets are created, no delete where every delete is ignored. Each purpose stands for itself,
//! so that `run` need not be allowed what `setup` does once. A test runs every command with these
//! policies against a real MinIO, and again with each action taken away.

use serde::Serialize;

use crate::config::Settings;
use crate::config::settings::{BucketSettings, CapturedBuckets, DeletePolicy};

/// The key of what doctor writes, behind the first included prefix of the bucket: its credentials need it,
/// too.
pub const CANARY: &str = ".evermirror/doctor";

/// Whose credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Those of `[source]`.
    Source,
    /// Those of `[target]`.
    Target,
}

/// What they are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `run`, `sync` and `verify`.
    Run,
    /// `restore`: writes to the source, reads the target and its older versions.
    Restore,
    /// `setup`.
    Setup,
    /// `doctor`, beside what [`Purpose::Run`] allows.
    Doctor,
    /// `capture`, by itself or in `run`.
    Capture,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::Run => "Run",
            Self::Restore => "Restore",
            Self::Setup => "Setup",
            Self::Doctor => "Doctor",
            Self::Capture => "Capture",
        }
    }
}

/// A policy document.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    /// Of the policy language.
    pub version: &'static str,
    /// What is allowed.
    pub statement: Vec<Statement>,
}

/// One statement of a policy.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// Its name, letters and digits.
    pub sid: String,
    /// Always `Allow`.
    pub effect: &'static str,
    /// What may be done.
    pub action: Vec<&'static str>,
    /// On what.
    pub resource: Vec<String>,
}

/// The policy for one side, for all of `purposes`.
pub fn policy(settings: &Settings, side: Side, purposes: &[Purpose]) -> Policy {
    let names = Names::new(settings, side);
    let statements = purposes.iter().flat_map(|purpose| names.statements(settings, side, *purpose));
    let says =
        |statement: &Statement| !statement.action.is_empty() && !statement.resource.is_empty();
    Policy { version: "2012-10-17", statement: statements.filter(says).collect() }
}

/// How the resources of one side are called.
struct Names {
    /// `aws`, `aws-cn` or `aws-us-gov`.
    partition: &'static str,
    buckets: Vec<String>,
    objects: Vec<String>,
    /// Objects of buckets from which something may be deleted.
    deletable: Vec<String>,
    canaries: Vec<String>,
}

impl Names {
    fn new(settings: &Settings, side: Side) -> Self {
        let region = match side {
            Side::Source => &settings.source.region,
            Side::Target => &settings.target.region,
        };
        let partition = match region.split('-').next() {
            Some("cn") => "aws-cn",
            Some("us") if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        let name = |bucket: &BucketSettings| match side {
            Side::Source => bucket.source.clone(),
            Side::Target => bucket.target_name().to_owned(),
        };
        let arn = |resource: &str| format!("arn:{partition}:s3:::{resource}");
        let objects = |bucket: &BucketSettings| -> Vec<String> {
            let name = name(bucket);
            prefixes(bucket).iter().map(|prefix| arn(&format!("{name}/{prefix}*"))).collect()
        };
        let buckets = &settings.buckets;
        let deletes = |bucket: &&BucketSettings| bucket.deletes != DeletePolicy::Archive;
        let canaries = |bucket: &BucketSettings| -> Vec<String> {
            let name = name(bucket);
            prefixes(bucket).iter().map(|p| arn(&format!("{name}/{p}{CANARY}"))).collect()
        };
        Self {
            partition,
            buckets: buckets.iter().map(|bucket| arn(&name(bucket))).collect(),
            objects: buckets.iter().flat_map(objects).collect(),
            deletable: buckets.iter().filter(deletes).flat_map(objects).collect(),
            canaries: buckets.iter().flat_map(canaries).collect(),
        }
    }

    fn statements(&self, settings: &Settings, side: Side, purpose: Purpose) -> Vec<Statement> {
        let tags = settings.replicate.tags;
        let on = |what, resources: &[String], actions: &[&'static str]| {
            allow(purpose, what, actions, resources.to_vec())
        };
        let if_tags = |actions: &[&'static str]| if tags { actions.to_vec() } else { Vec::new() };
        let create = if settings.target.create_buckets { &["s3:CreateBucket"][..] } else { &[] };
        match (side, purpose) {
            (Side::Source, Purpose::Run) => vec![
                on("Buckets", &self.buckets, &["s3:ListBucket"]),
                on("Objects", &self.objects, &["s3:GetObject"]),
                on("Tags", &self.objects, &if_tags(&["s3:GetObjectTagging"])),
            ],
            (Side::Target, Purpose::Run) => vec![
                on("Buckets", &self.buckets, &[&["s3:ListBucket"], create].concat()),
                on("Objects", &self.objects, &WRITE),
                on("Tags", &self.objects, &if_tags(&TAG)),
                on("Deletes", &self.deletable, &["s3:DeleteObject"]),
                self.kms(settings),
            ],
            (Side::Source, Purpose::Restore) => vec![
                on("Buckets", &self.buckets, &["s3:ListBucket", "s3:CreateBucket"]),
                on("Objects", &self.objects, &WRITE),
                on("Tags", &self.objects, &if_tags(&TAG)),
            ],
            (Side::Target, Purpose::Restore) => vec![
                on("Buckets", &self.buckets, &READ_BUCKET_VERSIONS),
                on("Objects", &self.objects, &["s3:GetObject", "s3:GetObjectVersion"]),
                on(
                    "Tags",
                    &self.objects,
                    &if_tags(&["s3:GetObjectTagging", "s3:GetObjectVersionTagging"]),
                ),
            ],
            (Side::Source, Purpose::Setup) => {
                let actions =
                    ["s3:ListBucket", "s3:GetBucketNotification", "s3:PutBucketNotification"];
                vec![on("Buckets", &self.buckets, &actions)]
            }
            (Side::Target, Purpose::Setup) => {
                let versioning = ["s3:GetBucketVersioning", "s3:PutBucketVersioning"];
                let actions = [&["s3:ListBucket"], create, &versioning].concat();
                vec![on("Buckets", &self.buckets, &actions)]
            }
            (Side::Source, Purpose::Doctor) => vec![
                on("Buckets", &self.buckets, &["s3:GetBucketNotification"]),
                on("Canary", &self.canaries, &["s3:PutObject", "s3:DeleteObject"]),
            ],
            (Side::Source, Purpose::Capture) => self.captured(settings),
            (Side::Target, Purpose::Capture) => {
                let of = settings.capture.clone().unwrap_or_default();
                let bucket = format!("arn:{}:s3:::{}", self.partition, of.target_bucket);
                let objects = format!("{bucket}/{}*", of.prefix);
                let actions = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"];
                vec![
                    on("Bucket", &[bucket], &[&["s3:ListBucket"], create].concat()),
                    on("Documents", &[objects], &actions),
                ]
            }
            (Side::Target, Purpose::Doctor) => {
                let actions = ["s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration"];
                vec![
                    on("Buckets", &self.buckets, &actions),
                    on("Canary", &self.canaries, &["s3:DeleteObject"]),
                ]
            }
        }
    }

    /// Reading every setting, and the users where they are captured.
    fn captured(&self, settings: &Settings) -> Vec<Statement> {
        let of = settings.capture.clone().unwrap_or_default();
        let every = format!("arn:{}:s3:::*", self.partition);
        let all = of.buckets == CapturedBuckets::All;
        let buckets = if all { vec![every.clone()] } else { self.buckets.clone() };
        let list = if all { vec!["s3:ListAllMyBuckets"] } else { Vec::new() };
        let users = if of.iam { vec!["admin:ExportIAM"] } else { Vec::new() };
        vec![
            allow(Purpose::Capture, "Settings", &READ_SETTINGS, buckets),
            allow(Purpose::Capture, "List", &list, vec![every.clone()]),
            allow(Purpose::Capture, "Users", &users, vec![every]),
        ]
    }

    /// Writing with a key of one's own needs the key's permission, too.
    fn kms(&self, settings: &Settings) -> Statement {
        let key = settings.target.kms_key_id.as_deref().unwrap_or_default();
        let named = key.starts_with(&format!("arn:{}:kms:", self.partition));
        let keys = if named { vec![key.to_owned()] } else { Vec::new() };
        allow(Purpose::Run, "Key", &["kms:GenerateDataKey", "kms:Decrypt"], keys)
    }
}

fn allow(
    purpose: Purpose,
    what: &str,
    actions: &[&'static str],
    resource: Vec<String>,
) -> Statement {
    let sid = format!("Evermirror{}{what}", purpose.name());
    Statement { sid, effect: "Allow", action: actions.to_vec(), resource }
}

/// Replication reads what it wrote, to compare.
const WRITE: [&str; 3] = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"];
const TAG: [&str; 3] = ["s3:GetObjectTagging", "s3:PutObjectTagging", "s3:DeleteObjectTagging"];
const READ_BUCKET_VERSIONS: [&str; 3] =
    ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning"];

const READ_SETTINGS: [&str; 9] = [
    "s3:ListBucket",
    "s3:GetBucketVersioning",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetEncryptionConfiguration",
    "s3:GetBucketTagging",
    "s3:GetLifecycleConfiguration",
    "s3:GetBucketCors",
    "s3:GetBucketNotification",
    "s3:GetBucketPolicy",
];

/// The included prefixes; one empty one if all keys are, or if a prefix has characters that mean
/// something in a policy.
fn prefixes(bucket: &BucketSettings) -> Vec<&str> {
    let special = |prefix: &String| prefix.contains(['*', '?', '$']);
    if bucket.include.is_empty() || bucket.include.iter().any(special) {
        return vec![""];
    }
    bucket.include.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &str) -> Settings {
        let text = format!(
            "data_dir = '/nowhere'\n[source]\nendpoint = 'http://h:1'\n[target]\nendpoint = 'http://h:2'\n\
             region = 'cn-north-1'\n[[buckets]]\nsource = 'one'\ntarget = 'copy'\n{more}"
        );
        toml::from_str(&text).unwrap()
    }

    fn text(settings: &Settings, side: Side, purpose: Purpose) -> String {
        serde_json::to_string(&policy(settings, side, &[purpose])).unwrap()
    }

    #[test]
    fn an_archive_may_delete_nothing() {
        let mirror = text(&settings(""), Side::Target, Purpose::Run);
        assert!(mirror.contains("s3:DeleteObject\""), "{mirror}");
        let archive = text(&settings("deletes = 'archive'"), Side::Target, Purpose::Run);
        assert!(!archive.contains("s3:DeleteObject\""), "{archive}");
    }

    #[test]
    fn a_policy_names_the_configured_buckets_prefixes_and_partition_only() {
        let settings = settings("include = ['a/', 'b/']");
        let target = text(&settings, Side::Target, Purpose::Run);
        assert!(target.contains("\"arn:aws-cn:s3:::copy/a/*\",\"arn:aws-cn:s3:::copy/b/*\""));
        assert!(!target.contains("copy/*"), "{target}");
        let source = text(&settings, Side::Source, Purpose::Doctor);
        assert!(source.contains("arn:aws:s3:::one/a/.evermirror/doctor"), "{source}");
    }

    #[test]
    fn without_tags_no_permission_on_tags_is_asked_for() {
        let settings = settings("[replicate]\ntags = false");
        for side in [Side::Source, Side::Target] {
            for purpose in [Purpose::Run, Purpose::Restore] {
                assert!(!text(&settings, side, purpose).contains("Tagging"));
            }
        }
    }

    #[test]
    fn no_side_of_run_may_change_settings_and_the_source_may_not_be_written() {
        let source = text(&settings(""), Side::Source, Purpose::Run);
        for action in ["Put", "Delete", "Create"] {
            assert!(!source.contains(&format!("s3:{action}")), "{source}");
        }
        assert!(!text(&settings(""), Side::Target, Purpose::Run).contains("PutBucket"));
    }
}
