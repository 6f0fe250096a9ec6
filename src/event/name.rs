//! What an event's name says about its key.
//!
//! Names are read by family, so that a new member of a known family (`ObjectCreated:Something`) is
//! understood. With or without `s3:`, with or without the inner colon (RustFS before 2026 wrote
//! `ObjectCreatedPut`).

use crate::dirty::Aspects;

/// What to do about an event of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The object may have changed in these aspects.
    Touch(Aspects),
    /// Nothing that is replicated has changed.
    Nothing,
    /// The bucket itself appeared or went away.
    Bucket,
    /// No name we know: look at the object.
    Unknown,
}

const REMOVED: Aspects = Aspects::CONTENT.with(Aspects::REMOVED);

/// Reads a notification's event name, or an EventBridge detail type (`Object Created`).
pub(super) fn meaning(name: &str) -> Meaning {
    let name = name.strip_prefix("s3:").unwrap_or(name);
    let is = |family: &str| name.starts_with(family);
    if is("ObjectCreated") {
        Meaning::Touch(created(name))
    } else if is("ObjectRemoved")
        || is("LifecycleExpiration")
        || is("LifecycleDelMarkerExpiration")
        || is("ObjectLifecycle:Expiration")
        || is("ObjectSynced:Delet")
        || is("Object Deleted")
    {
        Meaning::Touch(REMOVED)
    } else if is("ObjectTagging") || is("Object Tags") {
        Meaning::Touch(Aspects::TAGS)
    } else if is("Object Created") || is("ObjectSynced") {
        Meaning::Touch(Aspects::CONTENT)
    } else if matches!(
        name,
        "ObjectRestore:Completed" | "ObjectRestoreCompleted" | "Object Restore Completed"
    ) {
        Meaning::Touch(Aspects::CONTENT.with(Aspects::CHECK))
    } else if is("Bucket") {
        Meaning::Bucket
    } else if HARMLESS.iter().any(|family| is(family)) {
        Meaning::Nothing
    } else {
        Meaning::Unknown
    }
}

/// MinIO counts tagging, retention and legal hold among the creations.
fn created(name: &str) -> Aspects {
    if name.ends_with("Tagging") {
        Aspects::TAGS
    } else if name.ends_with("Retention") || name.ends_with("LegalHold") {
        Aspects::RETENTION
    } else {
        Aspects::CONTENT
    }
}

/// Families that change nothing a target should have.
const HARMLESS: [&str; 17] = [
    "ObjectAccessed",
    "ObjectAcl",
    "ObjectLifecycle:Transition",
    "ObjectRestore",
    "ObjectTransition",
    "IntelligentTiering",
    "LifecycleTransition",
    "ReducedRedundancyLostObject",
    "Replication",
    "Scanner",
    "TestEvent",
    "Object Access Tier Changed",
    "Object ACL Updated",
    "Object Restore Expired",
    "Object Restore Initiated",
    "Object Storage Class Changed",
    "ObjectReplication",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_by_family_in_every_spelling() {
        for (name, expected) in [
            ("s3:ObjectCreated:Put", Meaning::Touch(Aspects::CONTENT)),
            ("ObjectCreated:CompleteMultipartUpload", Meaning::Touch(Aspects::CONTENT)),
            ("ObjectCreatedPut", Meaning::Touch(Aspects::CONTENT)),
            ("s3:ObjectCreated:SomethingNew", Meaning::Touch(Aspects::CONTENT)),
            ("s3:ObjectCreated:PutTagging", Meaning::Touch(Aspects::TAGS)),
            ("s3:ObjectCreated:DeleteTagging", Meaning::Touch(Aspects::TAGS)),
            ("ObjectTagging:Put", Meaning::Touch(Aspects::TAGS)),
            ("Object Tags Deleted", Meaning::Touch(Aspects::TAGS)),
            ("s3:ObjectCreated:PutRetention", Meaning::Touch(Aspects::RETENTION)),
            ("s3:ObjectCreated:PutLegalHold", Meaning::Touch(Aspects::RETENTION)),
            ("s3:ObjectRemoved:NoOP", Meaning::Touch(REMOVED)),
            ("ObjectRemovedDeleteMarkerCreated", Meaning::Touch(REMOVED)),
            ("s3:LifecycleExpiration:DeleteMarkerCreated", Meaning::Touch(REMOVED)),
            ("s3:LifecycleDelMarkerExpiration:Delete", Meaning::Touch(REMOVED)),
            ("ObjectLifecycle:Expiration:Current", Meaning::Touch(REMOVED)),
            ("ObjectSynced:Create", Meaning::Touch(Aspects::CONTENT)),
            ("s3:ObjectRestore:Completed", Meaning::Touch(Aspects::CONTENT.with(Aspects::CHECK))),
            ("s3:ObjectRestore:Post", Meaning::Nothing),
            ("s3:ObjectAcl:Put", Meaning::Nothing),
            ("s3:Scanner:ManyVersions", Meaning::Nothing),
            ("s3:Replication:OperationFailedReplication", Meaning::Nothing),
            ("s3:ObjectTransition:Complete", Meaning::Nothing),
            ("s3:BucketRemoved:*", Meaning::Bucket),
            ("s3:ObjectTeleported:Far", Meaning::Unknown),
            ("", Meaning::Unknown),
        ] {
            assert_eq!(meaning(name), expected, "{name}");
        }
    }
}
