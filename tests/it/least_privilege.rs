//! The printed policies suffice, and with one permission less the failure names it.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::support::eventually::LATER;
use crate::support::mc::{USER_SECRET, user};
use crate::support::site::{Servers, Setup, Site};

/// The printed policy.
async fn printed(
    site: &Site,
    settings: &[(String, String)],
    whose: &str,
    purposes: &[&str],
) -> Value {
    let mut arguments = vec!["policy", whose];
    arguments.extend(purposes.iter().flat_map(|purpose| ["--for", purpose]));
    let (status, text, said) = run(site, &arguments, settings).await;
    assert_eq!(status, 0, "{said}");
    serde_json::from_str(&text).expect("a policy")
}

/// Runs a command with further settings; its status, its answer, and all that it said.
async fn run(
    site: &Site,
    arguments: &[&str],
    settings: &[(String, String)],
) -> (i32, String, String) {
    let mut command: Command = site.evermirror.process(arguments);
    command.envs(settings.iter().map(|(name, value)| (format!("EVERMIRROR__{name}"), value)));
    let ended = tokio::task::spawn_blocking(move || command.output());
    let output = ended.await.expect("no panic").expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = text(&output.stdout) + &text(&output.stderr);
    (output.status.code().expect("it ends"), text(&output.stdout), all)
}

/// Credentials of one side.
fn keys(side: &str, name: &str) -> [(String, String); 2] {
    let side = side.to_uppercase();
    [
        (format!("{side}__ACCESS_KEY"), name.to_owned()),
        (format!("{side}__SECRET_KEY"), USER_SECRET.to_owned()),
    ]
}

fn authority(servers: &Servers, side: &str) -> String {
    let server = if side == "source" { &servers.source } else { &servers.target };
    server.authority()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_policies_suffice_from_the_first_event_to_the_restore() {
    let servers = Servers::shared().await;
    let setting = |name: &'static str, value: &str| (name, value.to_owned());
    let settings = vec![
        setting("SOURCE__ACCESS_KEY", "least-source"),
        setting("SOURCE__SECRET_KEY", USER_SECRET),
        setting("TARGET__ACCESS_KEY", "least-target"),
        setting("TARGET__SECRET_KEY", USER_SECRET),
    ];
    let mut site = servers.prepare("least", Setup { settings, ..Setup::default() }).await;
    for side in ["source", "target"] {
        let policy = printed(&site, &[], side, &["run"]).await;
        user(&authority(servers, side), &format!("least-{side}"), &policy);
    }

    site.evermirror.start().await;
    site.put("plain", "text").await;
    site.put("empty", "").await;
    site.put("gone", "soon").await;
    site.put("tagged", "x").await;
    site.source.tag(&site.bucket, "tagged", &[("a", "1"), ("b", "2")]).await;
    let parts = [vec![1; 5 << 20], vec![2; 1]];
    site.source.put_parts(&site.bucket, "parts", parts).await;
    site.converges(LATER).await;
    site.delete("gone").await;
    let call = site.source.client.delete_object_tagging().bucket(&site.bucket).key("tagged");
    call.send().await.unwrap();
    site.converges(LATER).await;
    assert!(site.evermirror.terminate().await.success());

    site.put("later", "by sync").await;
    site.target.put(&site.target_bucket, "extra", "to go").await;
    for command in [&["sync"][..], &["verify", "--metadata", "--deep"]] {
        let (status, _, said) = run(&site, command, &[]).await;
        assert_eq!(status, 0, "{command:?}: {said}");
    }

    // The way back, with versions; the source's bucket is lost.
    site.target.enable_versioning(&site.target_bucket).await;
    site.target.put(&site.target_bucket, "plain", "text").await;
    let before = site.target.list(&site.target_bucket).await.unwrap();
    let now = jiff::Timestamp::now().to_string();
    let mut restorers = Vec::new();
    for side in ["source", "target"] {
        let (name, policy) =
            (format!("restore-{side}"), printed(&site, &[], side, &["restore"]).await);
        user(&authority(servers, side), &name, &policy);
        restorers.extend(keys(side, &name));
    }
    for key in site.source.list(&site.bucket).await.unwrap().into_keys() {
        site.delete(&key).await;
    }
    site.source.client.delete_bucket().bucket(&site.bucket).send().await.unwrap();
    for arguments in [&["restore", "--at", &*now][..], &["restore", "--into-non-empty"]] {
        let (status, _, said) = run(&site, arguments, &restorers).await;
        assert_eq!(status, 0, "{arguments:?}: {said}");
    }
    assert_eq!(site.source.list(&site.bucket).await.unwrap(), before);
}

/// An action that is taken away, and the command that then fails.
struct Row {
    side: &'static str,
    purpose: &'static str,
    action: &'static str,
    command: &'static [&'static str],
}

const fn row(
    side: &'static str,
    purpose: &'static str,
    action: &'static str,
    command: &'static [&'static str],
) -> Row {
    Row { side, purpose, action, command }
}

const DOCTOR: &[&str] = &["doctor", "--no-canary"];
const DEEP: &[&str] = &["verify", "--metadata"];
/// As of now: a second ago, the bucket may not have been there.
const BACK: &[&str] = &["restore", "--at", "0s ago"];
const SETUP: &[&str] = &["setup", "--arn", "arn:minio:sqs::Q123:webhook", "--target-versioning"];

/// MinIO does not ask for `s3:ListBucketVersions` where `s3:ListBucket` is allowed, for
/// `s3:GetObjectVersion…` where `s3:GetObject…` is, or for `s3:PutObjectTagging` of the tags of a PUT;
/// AWS does. So those are in the policies and not in this table.
const ROWS: [Row; 21] = [
    row("source", "run", "s3:ListBucket", &["sync"]),
    row("source", "run", "s3:GetObject", &["sync"]),
    row("source", "run", "s3:GetObjectTagging", DEEP),
    row("target", "run", "s3:ListBucket", &["sync"]),
    row("target", "run", "s3:CreateBucket", &["sync"]),
    row("target", "run", "s3:GetObject", DEEP),
    row("target", "run", "s3:PutObject", &["sync"]),
    row("target", "run", "s3:GetObjectTagging", DEEP),
    row("target", "run", "s3:DeleteObject", &["sync"]),
    row("source", "run", "s3:GetObject", DOCTOR),
    row("source", "run", "s3:GetObjectTagging", DOCTOR),
    row("target", "run", "s3:PutObject", DOCTOR),
    row("target", "run", "s3:PutObjectTagging", DOCTOR),
    row("target", "run", "s3:DeleteObjectTagging", DOCTOR),
    row("target", "run", "s3:AbortMultipartUpload", DOCTOR),
    row("target", "run", "s3:DeleteObject", DOCTOR),
    row("target", "restore", "s3:GetBucketVersioning", BACK),
    row("source", "restore", "s3:PutObject", BACK),
    row("source", "setup", "s3:GetBucketNotification", SETUP),
    row("source", "setup", "s3:PutBucketNotification", SETUP),
    row("target", "setup", "s3:PutBucketVersioning", SETUP),
];

/// The policy without one action.
fn without(policy: &Value, action: &str) -> Value {
    let mut policy = policy.clone();
    let mut found = 0;
    for statement in policy["Statement"].as_array_mut().unwrap() {
        let actions = statement["Action"].as_array_mut().unwrap();
        let before = actions.len();
        actions.retain(|one| one != action);
        found += before - actions.len();
    }
    assert!(found > 0, "{action} is not in the policy");
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements
        .retain(|statement| statement["Action"].as_array().is_some_and(|all| !all.is_empty()));
    policy
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_permission_less_the_failure_names_it() {
    let servers = Servers::shared().await;
    let site = servers.silent("less", Setup::default()).await;
    for number in 0..10 {
        site.put(&format!("base/{number}"), "old").await;
    }
    let mut wrong = BTreeMap::new();
    for (number, row) in ROWS.iter().enumerate() {
        if let Err(said) = fails_and_names_it(servers, &site, number, row).await {
            wrong.insert(format!("{} {} {:?}", row.side, row.action, row.command), said);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn fails_and_names_it(
    servers: &Servers,
    site: &Site,
    number: usize,
    row: &Row,
) -> Result<(), String> {
    let (source, target) = (site.bucket.clone(), format!("less-{number}"));
    let data = site.evermirror.data_dir().join(number.to_string());
    let base = vec![
        ("BUCKETS".to_owned(), format!("{source}:{target}")),
        ("DATA_DIR".to_owned(), data.display().to_string()),
    ];
    if row.action != "s3:CreateBucket" {
        site.target.create_bucket(&target).await;
        if row.purpose == "restore" {
            site.target.enable_versioning(&target).await;
        }
        let (status, _, said) = run(site, &["sync"], &base).await;
        assert_eq!(status, 0, "{said}");
        site.target.put(&target, "extra", "to be deleted").await;
    }
    site.put(&format!("fresh/{number}"), "new").await;
    site.put("tagged", number.to_string()).await;
    site.source.tag(&source, "tagged", &[("row", &number.to_string())]).await;

    // Restores go to a bucket of their own.
    let mut settings = base;
    let there = format!("less-back-{number}");
    if row.purpose == "restore" {
        site.source.create_bucket(&there).await;
        settings[0].1 = format!("{there}:{target}");
    }
    let policy = without(&printed(site, &settings, row.side, &[row.purpose]).await, row.action);
    let name = format!("less-{number}");
    user(&authority(servers, row.side), &name, &policy);
    settings.extend(keys(row.side, &name));
    let (status, _, said) = run(site, row.command, &settings).await;
    // 1 for what failed on the way, 2 for what could not begin.
    if !(1..=2).contains(&status) {
        return Err(format!("status {status}: {said}"));
    }
    if said.contains(row.action) { Ok(()) } else { Err(format!("not named: {said}")) }
}
