//! What is snapshotted, and by which class: pure.

use serde::Serialize;
use serde_json::Value;

use crate::kubernetes::{at, text_at};

/// Marks the default class of its driver:
/// <https://kubernetes.io/docs/concepts/storage/volume-snapshot-classes/>.
const DEFAULT: &str = "snapshot.storage.kubernetes.io/is-default-class";
/// A name may have 253 characters.
const MOST_OF_A_NAME: usize = 220;

/// What the cluster lacks, or what is not clear.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// The CRDs are not installed.
    #[error(
        "the cluster has no volume snapshots (snapshot.storage.k8s.io/v1): install the CRDs and the controller of \
         kubernetes-csi/external-snapshotter, and a VolumeSnapshotClass for the CSI driver"
    )]
    NoSnapshots,
    /// No claim has the labels.
    #[error(
        "no PersistentVolumeClaim in namespace {namespace} has the labels {selector}: correct `selector` or `namespace` in \
         [snapshot]; `kubectl -n {namespace} get pvc --show-labels` shows what is there"
    )]
    NoClaim {
        /// What was looked for.
        selector: String,
        /// Where.
        namespace: String,
    },
    /// Several claims have the labels.
    #[error(
        "{count} PersistentVolumeClaims in namespace {namespace} have the labels {selector}: {names}. Volumes that belong together \
         cannot be snapshotted at one moment; set `selector` in [snapshot] to labels that one claim has",
        count = .names.split(", ").count()
    )]
    SeveralClaims {
        /// What was looked for.
        selector: String,
        /// Where.
        namespace: String,
        /// Which were found.
        names: String,
    },
    /// The claim has no volume yet.
    #[error("the claim {0} is not bound to a volume yet, so there is nothing to snapshot")]
    NotBound(String),
    /// The claim's storage class tells no driver.
    #[error(
        "nothing tells which driver the volume of claim {claim} has: its storage class {class} is not there; set `class` in [snapshot] \
         to the VolumeSnapshotClass of its driver"
    )]
    NoDriver {
        /// The claim.
        claim: String,
        /// The name of its storage class.
        class: String,
    },
    /// The cluster has no class at all.
    #[error(
        "the cluster has no VolumeSnapshotClass: make one with `driver: {driver}`, if that driver can take snapshots (`kubectl get csidrivers` \
         shows which are installed)"
    )]
    NoClasses {
        /// The claim's driver.
        driver: String,
    },
    /// There are classes, and none is for this driver.
    #[error(
        "no VolumeSnapshotClass is for the driver {driver} of claim {claim}; there are {classes}. Make one with `driver: {driver}`, if that driver can \
         take snapshots"
    )]
    NoClassForDriver {
        /// The claim.
        claim: String,
        /// The claim's driver.
        driver: String,
        /// Every class with its driver.
        classes: String,
    },
    /// The configured class is not there.
    #[error(
        "there is no VolumeSnapshotClass {name}; there are {classes}. Correct `class` in [snapshot]"
    )]
    NoSuchClass {
        /// Its name.
        name: String,
        /// Every class with its driver.
        classes: String,
    },
    /// The configured class is another driver's.
    #[error(
        "the VolumeSnapshotClass {name} is for the driver {its}, and the volume of claim {claim} has the driver {driver}: correct `class` in [snapshot]"
    )]
    OtherDriver {
        /// Its name.
        name: String,
        /// Its driver.
        its: String,
        /// The claim.
        claim: String,
        /// The claim's driver.
        driver: String,
    },
    /// Several classes fit.
    #[error(
        "several VolumeSnapshotClasses are for the driver {driver}, and not exactly one of them is the default: {classes}. Set `class` in [snapshot] to one of them"
    )]
    SeveralClasses {
        /// The claim's driver.
        driver: String,
        /// Those that fit.
        classes: String,
    },
}

/// The volume claim of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// Its storage class.
    pub storage_class: Option<String>,
    /// `ReadWriteOnce` and the like.
    pub access_modes: Vec<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: String,
}

impl Claim {
    pub(super) fn read(object: &Value) -> Self {
        let modes = at(object, "/spec/accessModes").as_array().into_iter().flatten();
        let mode = text_at(object, "/spec/volumeMode");
        Self {
            name: name_of(object),
            storage_class: text_at(object, "/spec/storageClassName"),
            access_modes: modes.filter_map(Value::as_str).map(str::to_owned).collect(),
            volume_mode: mode.unwrap_or_else(|| "Filesystem".to_owned()),
        }
    }
}

/// The one claim among those that have the labels.
pub(super) fn claim(
    claims: &[Value],
    selector: &str,
    namespace: &str,
) -> Result<Claim, ChooseError> {
    let (selector, namespace) = (selector.to_owned(), namespace.to_owned());
    match claims {
        [] => Err(ChooseError::NoClaim { selector, namespace }),
        [one] if *at(one, "/status/phase") != "Bound" => Err(ChooseError::NotBound(name_of(one))),
        [one] => Ok(Claim::read(one)),
        several => {
            let names: Vec<_> = several.iter().map(name_of).collect();
            Err(ChooseError::SeveralClaims { selector, namespace, names: names.join(", ") })
        }
    }
}

/// The class to use: the `wanted` one, the default one of the driver, or its only one.
pub(super) fn class(
    classes: &[Value],
    claim: &Claim,
    driver: Option<&str>,
    wanted: Option<&str>,
) -> Result<String, ChooseError> {
    let is_for = |class: &Value, driver: &str| *at(class, "/driver") == driver;
    let owned = || driver.unwrap_or("DRIVER").to_owned();
    if classes.is_empty() {
        return Err(ChooseError::NoClasses { driver: owned() });
    }
    if let Some(wanted) = wanted {
        let Some(class) = classes.iter().find(|class| name_of(class) == wanted) else {
            return Err(ChooseError::NoSuchClass {
                name: wanted.to_owned(),
                classes: show(classes),
            });
        };
        if driver.is_some_and(|driver| !is_for(class, driver)) {
            return Err(ChooseError::OtherDriver {
                name: wanted.to_owned(),
                its: driver_of(class),
                claim: claim.name.clone(),
                driver: owned(),
            });
        }
        return Ok(wanted.to_owned());
    }
    let Some(driver) = driver else {
        let class = claim.storage_class.clone().unwrap_or_else(|| "(none)".to_owned());
        return Err(ChooseError::NoDriver { claim: claim.name.clone(), class });
    };
    let fitting: Vec<_> = classes.iter().filter(|class| is_for(class, driver)).collect();
    let default = |class: &&Value| at(class, "/metadata/annotations")[DEFAULT] == "true";
    let defaults: Vec<_> = fitting.iter().copied().filter(default).collect();
    match (defaults.as_slice(), fitting.as_slice()) {
        ([one], _) | ([], [one]) => Ok(name_of(one)),
        (_, []) => Err(ChooseError::NoClassForDriver {
            claim: claim.name.clone(),
            driver: driver.to_owned(),
            classes: show(classes),
        }),
        _ => Err(ChooseError::SeveralClasses { driver: driver.to_owned(), classes: show(fitting) }),
    }
}

/// A new snapshot's name: the claim and the second.
pub(super) fn name(claim: &str, now_ms: i64) -> String {
    let now = jiff::Timestamp::from_millisecond(now_ms).unwrap_or_default();
    let claim = claim.get(..MOST_OF_A_NAME).unwrap_or(claim).trim_end_matches(['-', '.']);
    format!("{claim}-{}", now.strftime("%Y%m%d-%H%M%S"))
}

fn show<'a>(classes: impl IntoIterator<Item = &'a Value>) -> String {
    let one = |class: &Value| format!("{} (driver {})", name_of(class), driver_of(class));
    classes.into_iter().map(one).collect::<Vec<_>>().join(", ")
}

fn name_of(object: &Value) -> String {
    text_at(object, "/metadata/name").unwrap_or_default()
}

fn driver_of(class: &Value) -> String {
    text_at(class, "/driver").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pvc(name: &str, phase: &str) -> Value {
        json!({
            "metadata": { "name": name }, "status": { "phase": phase },
            "spec": { "storageClassName": "fast", "accessModes": ["ReadWriteOnce"] },
        })
    }

    fn vsc(name: &str, driver: &str, default: bool) -> Value {
        let default = default.to_string();
        json!({ "driver": driver, "metadata": { "name": name, "annotations": { DEFAULT: default } } })
    }

    #[test]
    fn exactly_one_bound_claim_is_meant() {
        let chosen = |claims: &[Value]| claim(claims, "app=x", "ns").map(|claim| claim.name);
        assert_eq!(chosen(&[pvc("a", "Bound")]), Ok("a".to_owned()));
        assert_eq!(chosen(&[pvc("a", "Pending")]), Err(ChooseError::NotBound("a".to_owned())));
        assert!(chosen(&[]).unwrap_err().to_string().starts_with(
            "no PersistentVolumeClaim in namespace ns has the labels app=x: correct `selector`"
        ));
        assert!(
            chosen(&[pvc("a", "Bound"), pvc("b", "Bound")]).unwrap_err().to_string().starts_with(
                "2 PersistentVolumeClaims in namespace ns have the labels app=x: a, b. "
            )
        );
    }

    #[test]
    fn the_class_is_the_wanted_one_the_default_one_or_the_only_one_of_the_driver() {
        let claim = Claim::read(&pvc("a", "Bound"));
        let chosen = |classes: &[Value], wanted| class(classes, &claim, Some("d"), wanted);
        let (one, other) = (vsc("one", "d", false), vsc("other", "e", true));
        assert_eq!(chosen(&[other.clone(), one.clone()], None).as_deref(), Ok("one"));
        let default = vsc("default", "d", true);
        assert_eq!(chosen(&[one.clone(), default.clone()], None).as_deref(), Ok("default"));
        assert_eq!(chosen(&[one.clone(), default], Some("one")).as_deref(), Ok("one"));

        let says = |classes: &[Value], wanted, part: &str| {
            let error = chosen(classes, wanted).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        says(&[], None, "no VolumeSnapshotClass: make one with `driver: d`");
        says(
            std::slice::from_ref(&other),
            None,
            "is for the driver d of claim a; there are other (driver e)",
        );
        says(
            &[one.clone(), vsc("two", "d", false)],
            None,
            "one (driver d), two (driver d). Set `class`",
        );
        says(
            std::slice::from_ref(&one),
            Some("gone"),
            "no VolumeSnapshotClass gone; there are one (driver d)",
        );
        says(&[one.clone(), other], Some("other"), "other is for the driver e, and");
        let error = class(&[one], &claim, None, None).unwrap_err().to_string();
        assert!(error.contains("its storage class fast is not there"), "{error}");
    }

    #[test]
    fn a_name_says_what_and_when_and_is_never_too_long() {
        assert_eq!(name("data-minio-0", 1_795_469_405_000), "data-minio-0-20261123-213005");
        assert!(name(&"x".repeat(253), 0).len() <= 253);
    }
}
