//! A new claim of a snapshot: pure.

use serde_json::{Value, json};

use super::choose::Claim;
use super::{Snapshot, SnapshotState, quantity};
use crate::kubernetes::at;

/// How a snapshot is to be restored; what is not said is as it was in the claim it was taken of.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The name of the new claim.
    pub claim: String,
    /// Its storage class.
    pub storage_class: Option<String>,
    /// Its size (`10Gi`).
    pub size: Option<String>,
    /// Its access modes.
    pub access_modes: Vec<String>,
}

/// A snapshot cannot be restored as it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// There is none of this name.
    #[error("there is no snapshot {0}; `evermirror snapshot list` shows what there is")]
    NoSuchSnapshot(String),
    /// The newest one was asked for, and none can be restored.
    #[error(
        "no snapshot of evermirror's can be restored; `evermirror snapshot list` shows what there is"
    )]
    NoneUsable,
    /// It is not usable, or being deleted.
    #[error("the snapshot {name} cannot be restored: {reason}")]
    NotUsable {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The new claim's name is taken.
    #[error(
        "there is a PersistentVolumeClaim {0} already: choose another name, a restore never touches what is there"
    )]
    Exists(String),
    /// Neither the snapshot nor its claim tells something.
    #[error(
        "nothing tells the {what} of the volume that {snapshot} was taken of, whose claim is gone: give {option}"
    )]
    Unknown {
        /// The snapshot.
        snapshot: String,
        /// What is missing.
        what: &'static str,
        /// The option that tells it.
        option: &'static str,
    },
}

/// The snapshot of this name; the newest usable one of ours for `latest`.
pub(super) fn find<'a>(
    snapshots: &'a [Snapshot],
    name: &str,
) -> Result<&'a Snapshot, RestoreError> {
    // They come newest first.
    if name == "latest" {
        return snapshots.iter().find(|s| s.ours && s.usable()).ok_or(RestoreError::NoneUsable);
    }
    let found = snapshots.iter().find(|snapshot| snapshot.name == name);
    let snapshot = found.ok_or_else(|| RestoreError::NoSuchSnapshot(name.to_owned()))?;
    if snapshot.usable() {
        return Ok(snapshot);
    }
    let reason = match (&snapshot.error, snapshot.state) {
        (_, SnapshotState::Deleting) => "it is being deleted".to_owned(),
        (Some(error), _) => error.clone(),
        (None, _) => "it is not ready yet".to_owned(),
    };
    Err(RestoreError::NotUsable { name: name.to_owned(), reason })
}

/// The claim to make: as large as the snapshot needs, otherwise like the original.
pub(super) fn claim(
    snapshot: &Snapshot,
    original: Option<&Value>,
    options: &RestoreOptions,
    namespace: &str,
) -> Result<Value, RestoreError> {
    let read = original.map(Claim::read);
    let noted = &snapshot.origin;
    let unknown =
        |what, option| RestoreError::Unknown { snapshot: snapshot.name.clone(), what, option };
    let asked = original.and_then(|claim| quantity(at(claim, "/spec/resources/requests/storage")));
    let size = options.size.clone().or_else(|| snapshot.restore_size.clone()).or(asked);
    let size = size.ok_or_else(|| unknown("size", "--size"))?;
    let class = options
        .storage_class
        .clone()
        .or_else(|| noted.storage_class.clone())
        .or_else(|| read.as_ref().and_then(|claim| claim.storage_class.clone()))
        .ok_or_else(|| unknown("storage class", "--storage-class"))?;
    let modes = [
        Some(&options.access_modes),
        Some(&noted.access_modes),
        read.as_ref().map(|r| &r.access_modes),
    ];
    let modes = modes.into_iter().flatten().find(|modes| !modes.is_empty());
    let modes = modes.ok_or_else(|| unknown("access modes", "--access-mode"))?;
    let mode = noted.volume_mode.clone().or_else(|| read.as_ref().map(|r| r.volume_mode.clone()));
    Ok(json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": options.claim,
            "namespace": namespace,
            "annotations": { "evermirror/restored-from": snapshot.name },
        },
        "spec": {
            "storageClassName": class,
            "accessModes": modes,
            "volumeMode": mode.unwrap_or_else(|| "Filesystem".to_owned()),
            "resources": { "requests": { "storage": size } },
            "dataSource": {
                "apiGroup": "snapshot.storage.k8s.io",
                "kind": "VolumeSnapshot",
                "name": snapshot.name,
            },
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(ready: bool) -> Snapshot {
        Snapshot::read(&json!({
            "metadata": {
                "name": "s", "creationTimestamp": "2026-11-23T00:00:00Z",
                "labels": { "app.kubernetes.io/managed-by": "evermirror" },
                "annotations": {
                    "evermirror/storage-class": "fast", "evermirror/volume-mode": "Block",
                    "evermirror/access-modes": "ReadWriteOnce,ReadOnlyMany",
                },
            },
            "spec": { "source": { "persistentVolumeClaimName": "gone" } },
            "status": { "readyToUse": ready, "restoreSize": "12Gi" },
        }))
    }

    #[test]
    fn a_snapshot_is_restored_although_its_claim_is_gone() {
        let options = RestoreOptions { claim: "new".to_owned(), ..RestoreOptions::default() };
        let claim = claim(&taken(true), None, &options, "ns").unwrap();
        let spec = &claim["spec"];
        assert_eq!(spec["resources"]["requests"]["storage"], "12Gi");
        assert_eq!(spec["storageClassName"], "fast");
        assert_eq!(spec["accessModes"], json!(["ReadWriteOnce", "ReadOnlyMany"]));
        assert_eq!(spec["volumeMode"], "Block");
        assert_eq!(spec["dataSource"]["name"], "s");
    }

    #[test]
    fn what_nobody_tells_must_be_given() {
        let stranger = Snapshot { origin: super::super::Origin::default(), ..taken(true) };
        let options = RestoreOptions { claim: "new".to_owned(), ..RestoreOptions::default() };
        let error = claim(&stranger, None, &options, "ns").unwrap_err().to_string();
        assert!(error.ends_with("whose claim is gone: give --storage-class"), "{error}");
        let options = RestoreOptions {
            storage_class: Some("slow".to_owned()),
            access_modes: vec!["ReadWriteMany".to_owned()],
            ..options
        };
        let claim = claim(&stranger, None, &options, "ns").unwrap();
        assert_eq!(claim["spec"]["storageClassName"], "slow");
    }

    #[test]
    fn only_a_usable_snapshot_is_restored() {
        assert_eq!(find(&[taken(true)], "latest").unwrap().name, "s");
        assert_eq!(find(&[taken(false)], "latest").unwrap_err(), RestoreError::NoneUsable);
        let error = find(&[taken(false)], "s").unwrap_err().to_string();
        assert_eq!(error, "the snapshot s cannot be restored: it is not ready yet");
        assert!(matches!(find(&[], "s"), Err(RestoreError::NoSuchSnapshot(_))));
    }
}
