//! What the stores' import of users does not do by itself.

use serde_json::{Value, json};

use super::{SEALED, VAULT, admin, done, people, run};
use crate::support::mc::USER_SECRET;
use crate::support::s3::S3;
use crate::support::server::{Pair, on_every_pair};
use crate::support::site::Setup;

on_every_pair![a_group_comes_back_with_its_members_alone_and_switched_off_if_it_was];

async fn a_group_comes_back_with_its_members_alone_and_switched_off_if_it_was(pair: Pair) {
    let mut servers = pair.own().await;
    let site = servers.silent("group", Setup::default()).await;
    let authority = servers.source.authority();
    people(&authority, "group");
    admin(&authority, &["group", "disable", "it", "team"]);
    let captured = done(&site, &["capture"], &[SEALED]).await;

    // A stranger came in, and it is in force.
    admin(&authority, &["group", "add", "it", "team", "bob"]);
    admin(&authority, &["group", "enable", "it", "team"]);
    let (status, refused, _) = run(&site, &["restore", "--settings"], &[SEALED]).await;
    assert_eq!((status, &refused["conflicts"]), (2, &json!(["group team"])));
    let forced = done(&site, &["restore", "--settings", "--force"], &[SEALED]).await;
    assert_eq!(forced["not_equal"], json!([]));
    let again = done(&site, &["capture"], &[SEALED]).await;
    assert_eq!(again["document"], captured["document"], "{again:#}");

    servers.source.lose_everything().await;
    let restored = done(&site, &["restore", "--settings"], &[SEALED]).await;
    assert_eq!(restored["not_equal"], json!([]));
    let nothing = done(&site, &["restore", "--settings", "--dry-run"], &[SEALED]).await;
    assert_eq!((&nothing["changes"], &nothing["conflicts"]), (&json!([]), &json!([])));
    // Who is in a group that is switched off may do nothing, whatever else allows it.
    let alice = S3::with_keys(&servers.source.endpoint(), "alice", USER_SECRET);
    assert!(alice.list("group").await.is_err());
    admin(&authority, &["group", "enable", "it", "team"]);
    alice.list("group").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_the_store_does_not_understand_is_named_and_stops_nothing_else() {
    let servers = Pair::MINIO.own().await;
    let site = servers.silent("odd-policy", Setup::default()).await;
    done(&site, &["capture"], &[]).await;
    let policy = |resource: &str| json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [resource]}]});
    let user = json!({"secretKey": USER_SECRET, "status": "enabled"});
    let files = json!({
        "policies.json": {"good": policy("arn:aws:s3:::*"), "odd": policy("no-arn")},
        "users.json": {"carol": user},
        "user_mappings.json": {"carol": {"version": 1, "policy": "good"}},
    });
    let document = json!({
        "format": "evermirror-capture", "version": 1, "taken": "2026-01-01T00:00:00Z", "evermirror": "0.1.0",
        "source": "http://elsewhere:9000", "kind": "MinIO", "redacted": false, "buckets": {},
        "iam": {"state": "set", "document": files},
    });
    site.target.put(VAULT, "settings/by-hand.json", document.to_string()).await;
    let back = ["restore", "--settings", "--from", "settings/by-hand.json"];
    let (status, report, _) = run(&site, &back, &[]).await;
    assert_eq!((status, &report["not_equal"]), (1, &json!(["policy odd"])), "{report:#}");
    let problems: Vec<_> =
        report["problems"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert!(problems.len() == 1 && problems[0].contains("policy odd"), "{problems:?}");
    let carol = S3::with_keys(&servers.source.endpoint(), "carol", USER_SECRET);
    assert!(carol.list("odd-policy").await.is_ok());
}
