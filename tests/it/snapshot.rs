//! Volume snapshots, asked of a real Kubernetes API server with the CRDs of external-snapshotter.
//!
//! No CSI driver can run here, so a loop in the test plays the snapshot controller and the driver: it says
//! of each snapshot that it is ready. Everything else, names, labels, rights and validation, is real.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use crate::support::browser::{Browser, Scheme};
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::evermirror::Evermirror;
use crate::support::kubernetes::{ADMINISTRATOR, EVERMIRROR, Kubernetes};
use crate::support::site::{Servers, Setup, Site};

const SNAPSHOTS: &str = "volumesnapshots.snapshot.storage.k8s.io";
const CRDS: &str = "github.com/kubernetes-csi/external-snapshotter/client/v8@v8.7.0";

/// The API server, which knows volume snapshots.
async fn cluster() -> &'static Kubernetes {
    static READY: OnceCell<()> = OnceCell::const_new();
    let kubernetes = Kubernetes::shared().await;
    READY
        .get_or_init(async || {
            let module = Command::new("go").args(["mod", "download", "-json", CRDS]).output();
            let module: Value = serde_json::from_slice(&module.expect("go").stdout).expect("JSON");
            let folder = module["Dir"].as_str().expect("the module is there");
            for kind in ["volumesnapshots", "volumesnapshotclasses", "volumesnapshotcontents"] {
                let file = format!("{folder}/config/crd/snapshot.storage.k8s.io_{kind}.yaml");
                kubernetes.kubectl(&["apply", "--server-side", "-f", &file]).await.unwrap();
            }
            eventually("the API server serves snapshots", SOON, async || {
                kubernetes.kubectl(&["get", SNAPSHOTS, "-A"]).await.map(drop)
            })
            .await;
        })
        .await;
    kubernetes
}

/// A namespace with one bound claim of the store, whose storage class has this provisioner.
async fn store(namespace: &str, provisioner: &str) -> &'static Kubernetes {
    let kubernetes = cluster().await;
    kubernetes.namespace(namespace).await;
    kubernetes.apply(&json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": namespace },
        "provisioner": provisioner,
    })).await;
    claim(kubernetes, namespace, "data-minio-0", "Bound").await;
    kubernetes
}

async fn claim(kubernetes: &Kubernetes, namespace: &str, name: &str, phase: &str) {
    kubernetes.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": "minio" } },
        "spec": {
            "storageClassName": namespace, "accessModes": ["ReadWriteOncePod"], "volumeName": format!("pv-{name}"),
            "resources": { "requests": { "storage": "10Gi" } },
        },
    })).await;
    // As the volume controller would.
    let status = json!({ "status": { "phase": phase } }).to_string();
    let arguments =
        ["-n", namespace, "patch", "pvc", name, "--subresource=status", "--type=merge", "-p"];
    kubernetes.kubectl(&[&arguments[..], &[&status]].concat()).await.unwrap();
}

async fn snapshot_class(kubernetes: &Kubernetes, name: &str, driver: &str) {
    kubernetes
        .apply(&json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
            "metadata": { "name": name }, "driver": driver, "deletionPolicy": "Delete",
        }))
        .await;
}

/// What the snapshot controller and a CSI driver would say of the snapshots of a namespace.
struct PlayedControllerAndDriver(JoinHandle<()>);

impl PlayedControllerAndDriver {
    fn start(kubernetes: &'static Kubernetes, namespace: &'static str) -> Self {
        Self(tokio::spawn(async move {
            loop {
                let list = kubernetes.get(&["-n", namespace, SNAPSHOTS]).await.unwrap_or_default();
                for snapshot in list["items"].as_array().into_iter().flatten() {
                    if snapshot["status"].is_null() {
                        let cut = snapshot["metadata"]["creationTimestamp"].clone();
                        let status = json!({
                            "readyToUse": true, "restoreSize": "12Gi", "creationTime": cut,
                            "boundVolumeSnapshotContentName": "played",
                        });
                        let name = snapshot["metadata"]["name"].as_str().unwrap();
                        set_status(kubernetes, namespace, name, &status).await;
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }))
    }
}

impl Drop for PlayedControllerAndDriver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn set_status(kubernetes: &Kubernetes, namespace: &str, name: &str, status: &Value) {
    let status = json!({ "status": status }).to_string();
    let arguments =
        ["-n", namespace, "patch", SNAPSHOTS, name, "--subresource=status", "--type=merge", "-p"];
    // It may have been deleted meanwhile.
    drop(kubernetes.kubectl(&[&arguments[..], &[&status]].concat()).await);
}

/// A snapshot that someone else has taken, or that evermirror took long ago.
async fn taken(kubernetes: &Kubernetes, namespace: &str, name: &str, ours: bool) {
    let labels =
        if ours { json!({ "app.kubernetes.io/managed-by": "evermirror" }) } else { json!({}) };
    kubernetes.apply(&json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "spec": { "volumeSnapshotClassName": namespace, "source": { "persistentVolumeClaimName": "data-minio-0" } },
    })).await;
}

async fn names(kubernetes: &Kubernetes, namespace: &str) -> BTreeSet<String> {
    let list = kubernetes.get(&["-n", namespace, SNAPSHOTS]).await.unwrap();
    let name = |snapshot: &Value| snapshot["metadata"]["name"].as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().map(name).collect()
}

fn settings() -> Vec<(&'static str, String)> {
    [
        ("SNAPSHOT__SELECTOR", "app=minio"),
        ("SNAPSHOT__INTERVAL", "0s"),
        ("SNAPSHOT__RETAIN", "2"),
        ("SNAPSHOT__READY_TIMEOUT", "1m"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

/// A site whose evermirror is not started, and asks the cluster as this user.
async fn site(kubernetes: &Kubernetes, namespace: &str, user: &str) -> Site {
    let setup = Setup { settings: settings(), ..Setup::default() };
    let mut site = Servers::shared().await.prepare(namespace, setup).await;
    site.evermirror.set_kubeconfig(kubernetes.direct(user, namespace));
    site
}

/// The status and the message of a command that fails.
async fn refused(evermirror: &Evermirror, arguments: &[&str]) -> (i32, String) {
    let output = evermirror.command(arguments).await;
    let code = output.status.code().unwrap();
    (code, String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_kept_and_restored_although_its_claim_is_gone() {
    let namespace = "snapshot-life";
    let kubernetes = store(namespace, "life.csi.example").await;
    snapshot_class(kubernetes, namespace, "life.csi.example").await;
    let site = site(kubernetes, namespace, ADMINISTRATOR).await;
    let _played = PlayedControllerAndDriver::start(kubernetes, namespace);

    let (status, answer) = site.evermirror.once(&["snapshot", "create", "--dry-run"]).await;
    assert_eq!((status, &answer["plan"]["class"]), (0, &json!(namespace)), "{answer}");
    assert!(names(kubernetes, namespace).await.is_empty());

    // Others' stay for ever; of ours, two usable ones, and those that fail go when a newer one is usable.
    taken(kubernetes, namespace, "others", false).await;
    for old in ["data-minio-0-20260101-000000", "data-minio-0-20260102-000000"] {
        taken(kubernetes, namespace, old, true).await;
    }
    eventually("they are ready", SOON, async || {
        let (_, list) = site.evermirror.once(&["snapshot", "list"]).await;
        let ready =
            list["snapshots"].as_array().unwrap().iter().filter(|s| s["state"] == "ready").count();
        if ready == 3 { Ok(()) } else { Err(list.to_string()) }
    })
    .await;
    let (status, made) = site.evermirror.once(&["snapshot", "create"]).await;
    assert_eq!(status, 0, "{made}");
    let name = made["snapshot"]["name"].as_str().unwrap();
    assert!(name.starts_with("data-minio-0-"), "{made}");
    assert_eq!(made["snapshot"]["restore_size"], "12Gi");
    assert_eq!(made["deleted"], json!(["data-minio-0-20260101-000000"]));
    let expected = ["data-minio-0-20260102-000000", "others", name].map(str::to_owned).into();
    assert_eq!(names(kubernetes, namespace).await, expected);

    // The disaster: the claim is gone.
    kubernetes
        .kubectl(&[
            "-n",
            namespace,
            "patch",
            "pvc",
            "data-minio-0",
            "-p",
            r#"{"metadata":{"finalizers":null}}"#,
        ])
        .await
        .unwrap();
    kubernetes.kubectl(&["-n", namespace, "delete", "pvc", "data-minio-0"]).await.unwrap();
    let restore = ["snapshot", "restore", "latest", "--claim", "restored"];
    let (status, tried) = site.evermirror.once(&[&restore[..], &["--dry-run"]].concat()).await;
    assert_eq!((status, &tried["dry_run"]), (0, &json!(true)), "{tried}");
    kubernetes.kubectl(&["-n", namespace, "get", "pvc", "restored"]).await.unwrap_err();
    let (status, answer) = site.evermirror.once(&restore).await;
    assert_eq!(status, 0, "{answer}");
    let restored = kubernetes.get(&["-n", namespace, "pvc", "restored"]).await.unwrap();
    let spec = &restored["spec"];
    assert_eq!(spec["dataSource"]["kind"], "VolumeSnapshot");
    assert_eq!(spec["dataSource"]["name"], name);
    assert_eq!(spec["resources"]["requests"]["storage"], "12Gi");
    assert_eq!(spec["storageClassName"], namespace);
    assert_eq!(spec["accessModes"], json!(["ReadWriteOncePod"]));
    // A second time nothing is touched.
    let (status, message) = refused(&site.evermirror, &restore).await;
    assert_eq!(status, 1);
    assert!(message.contains("there is a PersistentVolumeClaim restored already"), "{message}");
    let (status, message) =
        refused(&site.evermirror, &["snapshot", "restore", "none", "--claim", "x"]).await;
    assert_eq!(status, 1);
    assert!(message.contains("there is no snapshot none"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_lacks_is_said() {
    let namespace = "snapshot-lacks";
    let kubernetes = store(namespace, "lacks.csi.example").await;
    snapshot_class(kubernetes, "lacks-other", "other.csi.example").await;
    let mut site = site(kubernetes, namespace, ADMINISTRATOR).await;
    let create = ["snapshot", "create"];
    let says = async |evermirror: &Evermirror, part: &str| {
        let (status, message) = refused(evermirror, &create).await;
        assert_eq!(status, 1, "{message}");
        assert!(message.contains(part), "{message}");
    };
    says(&site.evermirror, "no VolumeSnapshotClass is for the driver lacks.csi.example of claim data-minio-0; there are ").await;
    site.evermirror.set("SNAPSHOT__CLASS", "lacks-other");
    says(
        &site.evermirror,
        "the VolumeSnapshotClass lacks-other is for the driver other.csi.example, and",
    )
    .await;
    site.evermirror.set("SNAPSHOT__CLASS", "lacks-none");
    says(&site.evermirror, "there is no VolumeSnapshotClass lacks-none; there are ").await;
    claim(kubernetes, namespace, "data-minio-1", "Bound").await;
    says(&site.evermirror, "2 PersistentVolumeClaims in namespace snapshot-lacks have the labels app=minio: data-minio-0, data-minio-1").await;
    site.evermirror.set("SNAPSHOT__SELECTOR", "app=nothing");
    says(
        &site.evermirror,
        "no PersistentVolumeClaim in namespace snapshot-lacks has the labels app=nothing",
    )
    .await;
    // A class is there now, and nobody makes the snapshot: it stays, and the message says what to look for.
    kubernetes.kubectl(&["-n", namespace, "label", "pvc", "data-minio-1", "app-"]).await.unwrap();
    snapshot_class(kubernetes, namespace, "lacks.csi.example").await;
    site.evermirror.set("SNAPSHOT__SELECTOR", "app=minio");
    site.evermirror.set("SNAPSHOT__CLASS", namespace);
    site.evermirror.set("SNAPSHOT__READY_TIMEOUT", "1s");
    says(
        &site.evermirror,
        "is not usable after 1s: its status tells no reason; do the snapshot controller",
    )
    .await;
    assert_eq!(names(kubernetes, namespace).await.len(), 1);

    let mut without = site.evermirror.twin();
    without.configure_nothing_of("SNAPSHOT__");
    let (status, message) = refused(&without, &create).await;
    assert_eq!(status, 2);
    assert!(message.contains("the configuration has no table [snapshot]"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_learns_the_missing_verb() {
    let namespace = "snapshot-forbidden";
    let kubernetes = store(namespace, "forbidden.csi.example").await;
    let site = site(kubernetes, namespace, EVERMIRROR).await;
    let (status, message) = refused(&site.evermirror, &["snapshot", "create"]).await;
    assert_eq!(status, 1);
    let expected = "failed to list persistentvolumeclaims in namespace snapshot-forbidden: the credentials may not. \
        Add to a Role in namespace snapshot-forbidden: {apiGroups: [\"\"], resources: [persistentvolumeclaims], verbs: [list]}";
    assert!(message.contains(expected), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_takes_snapshots_on_schedule_of_a_target_that_is_as_old() {
    let namespace = "snapshot-schedule";
    let kubernetes = store(namespace, "schedule.csi.example").await;
    snapshot_class(kubernetes, namespace, "schedule.csi.example").await;
    let mut site = site(kubernetes, namespace, ADMINISTRATOR).await;
    site.evermirror.set("SNAPSHOT__INTERVAL", "2s");
    site.evermirror.set("SNAPSHOT__QUIESCE", "30s");
    taken(kubernetes, namespace, "others", false).await;
    let played = PlayedControllerAndDriver::start(kubernetes, namespace);
    site.put("before", "1").await;
    site.evermirror.start().await;
    eventually("retention has begun", LATER, async || {
        if site
            .evermirror
            .log()
            .contains("Snapshots beyond `retain`, or that failed, were deleted.")
        {
            return Ok(());
        }
        Err(format!("{:?}", names(kubernetes, namespace).await))
    })
    .await;
    let list = kubernetes.get(&["-n", namespace, SNAPSHOTS]).await.unwrap();
    let ours = |s: &&Value| s["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "evermirror";
    let items = list["items"].as_array().unwrap();
    assert!(items.iter().any(|s| s["metadata"]["name"] == "others"));
    let quiesced = |s: &Value| s["metadata"]["annotations"]["evermirror/quiesced"] == "true";
    assert!(items.iter().filter(ours).all(quiesced), "{list}");
    let newest = site.evermirror.metric("evermirror_snapshot_last_success_timestamp_seconds").await;
    assert!(newest.is_some_and(|seconds| seconds > 1.0), "{newest:?}");
    // Replication went on after each of them.
    site.put("after", "2").await;
    site.converges(LATER).await;

    // Nobody makes snapshots any more: it is told, and the last good ones stay.
    drop(played);
    site.evermirror.terminate().await;
    site.evermirror.set("SNAPSHOT__READY_TIMEOUT", "1s");
    let good = names(kubernetes, namespace).await;
    site.evermirror.start().await;
    eventually("the trouble is shown", LATER, async || {
        let status = site.evermirror.status().await?;
        let trouble = status["snapshots"]["last_error"].as_str().unwrap_or_default();
        if trouble.contains("is not usable after 1s") {
            Ok(())
        } else {
            Err(status["snapshots"].to_string())
        }
    })
    .await;
    let left = names(kubernetes, namespace).await;
    assert!(good.is_subset(&left));
    let metric = async |name: &str| site.evermirror.metric(name).await;
    assert_eq!(metric("evermirror_snapshot_interval_seconds").await, Some(2.0));
    assert!(metric("evermirror_snapshot_failures_total").await >= Some(1.0));
    let browser = Browser::start(Scheme::Light).await;
    browser.open(&site.evermirror.web("/")).await;
    browser.shows("#problems", "No volume snapshot could be taken").await;
    browser.shows("#stores", "since the start").await;
    assert!(browser.text("#stores").await.contains("every 2.0 s\ttaken "));
    browser.keep_picture("page-snapshots").await;
    assert!(left.len() <= good.len() + 1, "what nobody makes piles up: {left:?}");
}
