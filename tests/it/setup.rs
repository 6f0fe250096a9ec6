//! `evermirror setup`, against real stores.

mod rustfs;

use aws_sdk_s3::types::{BucketVersioningStatus, Event, QueueConfiguration};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::eventually::{SOON, eventually};
use crate::support::http;
use crate::support::mc::{USER_SECRET, user};
use crate::support::minio::{Minio, Webhook};
use crate::support::ports::free_port;
use crate::support::process::{Process, peer};
use crate::support::s3::S3;
use crate::support::site::{Servers, Setup, Site};

/// Nobody listens to these; no site takes them.
const FOREIGN: &str = "arn:minio:sqs::F123:webhook";
const OURS: &str = "arn:minio:sqs::Q123:webhook";

async fn rules(store: &S3, bucket: &str) -> Vec<QueueConfiguration> {
    let call = store.client.get_bucket_notification_configuration().bucket(bucket);
    call.send().await.unwrap().queue_configurations().to_vec()
}

fn arns(rules: &[QueueConfiguration]) -> Vec<&str> {
    rules.iter().map(QueueConfiguration::queue_arn).collect()
}

async fn setup(site: &Site, arguments: &[&str]) -> Value {
    let (status, report) = site.evermirror.once(&[&["setup"], arguments].concat()).await;
    assert_eq!(status, 0, "{report}");
    report
}

fn count(report: &Value, what: &str) -> usize {
    report["buckets"][0][what].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_changes_what_must_change_once_and_nothing_else() {
    let site = Servers::shared().await.silent("setup-merge", Setup::default()).await;
    site.source.notify(&site.bucket, &[FOREIGN.to_owned()]).await;
    let foreign = rules(&site.source, &site.bucket).await;

    let arguments = ["--arn", OURS, "--target-versioning"];
    let dry = setup(&site, &[&arguments[..], &["--dry-run"]].concat()).await;
    assert_eq!((count(&dry, "added"), count(&dry, "target_changes")), (1, 2), "{dry}");
    assert_eq!(rules(&site.source, &site.bucket).await, foreign, "a dry run changes nothing");
    assert!(site.target.list(&site.target_bucket).await.is_err(), "a dry run creates nothing");

    setup(&site, &arguments).await;
    let after = rules(&site.source, &site.bucket).await;
    assert_eq!(after[0], foreign[0], "what is not ours stays as it was");
    assert_eq!(arns(&after), [FOREIGN, OURS]);
    let events: Vec<_> = after[1].events().iter().map(Event::as_str).collect();
    assert!(events.contains(&"s3:ObjectCreated:*") && events.contains(&"s3:ObjectRemoved:*"));
    assert!(events.contains(&"s3:LifecycleDelMarkerExpiration:Delete"), "{events:?}");
    let call = site.target.client.get_bucket_versioning().bucket(&site.target_bucket);
    let status = call.send().await.unwrap().status().cloned();
    assert_eq!(status, Some(BucketVersioningStatus::Enabled));

    let again = setup(&site, &arguments).await;
    let counts = ["added", "removed", "target_changes"].map(|what| count(&again, what));
    assert_eq!(counts, [0, 0, 0], "{again}");

    setup(&site, &["--arn", OURS, "--remove"]).await;
    assert_eq!(rules(&site.source, &site.bucket).await, foreign);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_rule_of_ours_is_completed() {
    let site = Servers::shared().await.silent("setup-complete", Setup::default()).await;
    site.source.notify(&site.bucket, &[OURS.to_owned()]).await;
    let report = setup(&site, &["--arn", OURS]).await;
    assert_eq!((count(&report, "added"), count(&report, "removed")), (1, 1), "{report}");
    assert_eq!(arns(&rules(&site.source, &site.bucket).await), [OURS]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_target_is_refused_with_the_variables_that_the_store_needs() {
    let site = Servers::shared().await.silent("setup-unknown", Setup::default()).await;
    let output =
        site.evermirror.command(&["setup", "--arn", "arn:minio:sqs::NOBODY:webhook"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in ["NOBODY", "MINIO_NOTIFY_WEBHOOK_ENABLE_EM=on", "_QUEUE_DIR_EM=", "_AUTH_TOKEN_EM="]
    {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    assert!(rules(&site.source, &site.bucket).await.is_empty());
}

/// A source with the targets that setup looks for by itself.
async fn source_with_targets(port: u16) -> Minio {
    let webhook = |id: &str, queue| Webhook { id: id.to_owned(), port, queue, tls: false };
    Minio::source(&[webhook("EM", true), webhook("EMFAST", false)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_setup_and_run_an_object_arrives_without_another_step() {
    let port = free_port();
    let source = source_with_targets(port).await;
    let servers = Servers::shared().await;
    let settings = vec![("INTAKE__WEBHOOK__LISTEN", format!("127.0.0.1:{port}"))];
    let setup_ = Setup { source_endpoint: Some(source.endpoint()), settings, ..Setup::default() };
    let mut site = servers.silent("setup-arrives", setup_).await;
    site.source = source.client();
    site.source.create_bucket(&site.bucket).await;

    setup(&site, &[]).await;
    let both = ["arn:minio:sqs::EMFAST:webhook", "arn:minio:sqs::EM:webhook"];
    assert_eq!(arns(&rules(&site.source, &site.bucket).await), both);
    site.evermirror.start().await;
    site.put("first", "object").await;
    site.converges(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_administrators_rights_the_targets_are_found_by_trying() {
    let webhook = Webhook { id: "EM".into(), port: free_port(), queue: true, tls: false };
    let source = Minio::source(&[webhook]).await;
    let setup_ = Setup {
        source_endpoint: Some(source.endpoint()),
        settings: vec![
            ("SOURCE__ACCESS_KEY", "setup-only".to_owned()),
            ("SOURCE__SECRET_KEY", USER_SECRET.to_owned()),
        ],
        ..Setup::default()
    };
    let mut site = Servers::shared().await.silent("setup-tries", setup_).await;
    site.source = source.client();
    site.source.create_bucket(&site.bucket).await;
    let policy = site.evermirror.command(&["policy", "source", "--for", "setup"]).await;
    let policy = serde_json::from_slice(&policy.stdout).unwrap();
    user(&source.authority(), "setup-only", &policy);

    let report = setup(&site, &[]).await;
    assert!(report["notes"][0].as_str().unwrap().contains("cannot be seen"), "{report}");
    assert_eq!(arns(&rules(&site.source, &site.bucket).await), ["arn:minio:sqs::EM:webhook"]);
    let again = setup(&site, &[]).await;
    assert_eq!((count(&again, "added"), count(&again, "removed")), (0, 0), "{again}");
}

/// S3 that sends to SQS, as AWS does.
async fn moto() -> (Process, String, TempDir) {
    let room = tempfile::tempdir().expect("a temporary directory");
    let port = free_port();
    let arguments = ["-H", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned);
    let process = Process::start(&peer("moto_server"), &arguments, &[], room.path());
    let endpoint = format!("http://127.0.0.1:{port}");
    eventually("moto serves", SOON, async || http::get(&endpoint).await.map(drop)).await;
    (process, endpoint, room)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_aws_the_queue_is_named_and_prefixes_become_filters() {
    let (_process, endpoint, _room) = moto().await;
    let setup_ = Setup { source_endpoint: Some(endpoint.clone()), ..Setup::default() };
    let mut site = Servers::shared().await.silent("setup-aws", setup_).await;
    site.source = S3::new(&endpoint);
    site.source.create_bucket(&site.bucket).await;

    let output = site.evermirror.command(&["setup", "--store", "aws"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--arn"), "{said}");

    let query = "/?Action=CreateQueue&QueueName=events&Version=2012-11-05";
    assert!(http::get(&format!("{endpoint}{query}")).await.unwrap().status.is_success());
    let queue = "arn:aws:sqs:us-east-1:123456789012:events";
    let mut command = site.evermirror.process(&["setup", "--store", "aws", "--arn", queue]);
    command.env("EVERMIRROR__BUCKETS__0__INCLUDE", "a/,b/");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let there = rules(&site.source, &site.bucket).await;
    assert_eq!(arns(&there), [queue, queue]);
    for rule in there {
        let events: Vec<_> = rule.events().iter().map(Event::as_str).collect();
        assert!(events.contains(&"s3:ObjectTagging:*"), "{events:?}");
        assert!(events.contains(&"s3:LifecycleExpiration:*"), "{events:?}");
        assert!(rule.filter().is_some(), "{rule:?}");
    }
}
