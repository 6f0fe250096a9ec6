//! The settings of one kind of store put back into the other kind, as after a move.

use serde_json::{Value, json};

use super::{
    ACCOUNT_SECRET, ALL, SEALED, USER_SECRET, admin, done, fill, people, run, servers, settings_of,
};
use crate::support::minio::{ACCESS_KEY, SECRET_KEY};
use crate::support::s3::S3;
use crate::support::server::Pair;
use crate::support::site::{Setup, Site};

/// Puts the newest document back into another store; the status, the report, and what was said.
async fn put_back_into(site: &Site, endpoint: &str) -> (i32, Value, String) {
    let room = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, secret: &str| {
        let path = room.path().join(name).display().to_string();
        std::fs::write(&path, secret).expect("a file");
        path
    };
    let (access, secret) = (file("access", ACCESS_KEY), file("secret", SECRET_KEY));
    let back = ["restore", "--settings", "--to-endpoint", endpoint];
    let keys = ["--to-access-key-file", &access, "--to-secret-key-file", &secret];
    run(site, &[&back[..], &keys].concat(), &[SEALED, ALL]).await
}

/// Captures a store, with users and a group that is switched off, and puts everything into one of the other kind;
/// the status and the report.
async fn moved(pair: Pair) -> (i32, Value) {
    let servers = servers(pair).await;
    let site = servers.site("moved", Setup::default()).await;
    fill(&site.source, pair.source, "moved", "moved-locked").await;
    let authority = servers.source.authority();
    people(&authority, "moved");
    // Who is in a group that is switched off may do nothing, so alice is in none of that kind.
    admin(&authority, &["group", "add", "it", "off", "bob"]);
    admin(&authority, &["group", "disable", "it", "off"]);
    let captured = done(&site, &["capture"], &[SEALED, ALL]).await;
    assert_eq!(captured["problems"], json!([]));

    let endpoint = servers.target.endpoint();
    let (status, report, said) = put_back_into(&site, &endpoint).await;
    println!("{said}");
    let note = report["notes"][0].as_str().unwrap_or_default();
    assert!(note.starts_with("bucket moved: notification: its rules name targets of "), "{report}");
    for bucket in ["moved", "moved-locked"] {
        let before = settings_of(&site.source, bucket).await;
        let after = settings_of(&site.target, bucket).await;
        for setting in ["versioning", "object lock", "encryption", "tags", "lifecycle"] {
            assert_eq!(after[setting], before[setting], "{bucket}: {setting}");
        }
    }
    for (name, secret) in [("alice", USER_SECRET), ("ALICESKEY", ACCOUNT_SECRET)] {
        let listed = S3::with_keys(&endpoint, name, secret).list("moved").await;
        assert!(listed.is_ok(), "{name}: {listed:?}");
    }
    let bob = S3::with_keys(&endpoint, "bob", USER_SECRET).list("moved").await;
    assert!(bob.is_err(), "who was switched off stays so");
    let (_, again, _) = put_back_into(&site, &endpoint).await;
    assert_eq!(again["conflicts"], json!([]), "its own policies and names are no conflict");
    (status, report)
}

mod rustfs {
    use serde_json::json;

    use super::moved;
    use crate::support::server::Pair;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_minio_had_comes_into_a_rustfs() {
        let (status, report) = moved(Pair::TO_RUSTFS).await;
        assert_eq!((status, &report["not_equal"]), (0, &json!([])), "{report:#}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_rustfs_had_comes_into_a_minio_but_for_cors_which_is_named() {
        let (status, report) = moved(Pair::FROM_RUSTFS).await;
        assert_eq!(
            (status, &report["not_equal"]),
            (1, &json!(["bucket moved: cors"])),
            "{report:#}"
        );
        assert_eq!(report["problems"].as_array().unwrap().len(), 1, "{report:#}");
    }
}
