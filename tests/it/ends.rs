//! How the commands that end do end: their exit status, and a report in every case.

use hyper::Method;
use serde_json::{Value, json};

use crate::support::fault_proxy::FaultProxy;
use crate::support::ports::free_port;
use crate::support::site::{Servers, Setup, Site};

const COMMANDS: [&str; 3] = ["sync", "verify", "restore"];

/// Runs each command: it cannot run, says why in one object on stdout and on stderr, and ends with 2.
async fn none_can_run(site: &Site, commands: &[&str], because: &str) {
    for command in commands {
        let output = site.evermirror.command(&[command, "--json"]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(said.contains("error: ") && said.contains(because), "{command}: {said}");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        let error = answer["errors"][0].as_str().expect("an error");
        assert!(error.contains(because), "{command}: {answer}");
        assert_eq!(answer["interrupted"], json!(false));
        // Without --json there is nothing on stdout that could be taken for an answer.
        let output = site.evermirror.command(&[command]).await;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_a_failure_with_a_report() {
    let servers = Servers::shared().await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let setup = Setup { target_endpoint: Some(nobody), ..Setup::default() };
    let site = servers.silent("ends-nobody", setup).await;
    none_can_run(&site, &COMMANDS, "connection refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_a_failure_with_a_report_that_says_what_to_mend() {
    let settings = vec![("TARGET__SECRET_KEY", "not-the-secret-key".to_owned())];
    let setup = Setup { settings, ..Setup::default() };
    let site = Servers::shared().await.silent("ends-denied", setup).await;
    none_can_run(&site, &COMMANDS, "secret_key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_missing_is_a_failure_with_a_report() {
    let site = Servers::shared().await.silent("ends-missing", Setup::default()).await;
    none_can_run(&site, &["verify", "restore"], "ends-missing-copy").await;
    site.source.client.delete_bucket().bucket(&site.bucket).send().await.unwrap();
    none_can_run(&site, &["sync", "verify"], "ends-missing").await;
    assert!(site.target.list(&site.target_bucket).await.is_err(), "a sync has made the bucket");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_json_every_command_that_fails_answers_one_object() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let settings = vec![("SOURCE__ENDPOINT", nobody)];
    let setup = Setup { settings, ..Setup::default() };
    let site = Servers::shared().await.silent("ends-json", setup).await;
    for (command, status, because) in [
        (&["setup"][..], 1, "check endpoint"),
        (&["capture"], 2, "check endpoint"),
        (&["deletes", "list"], 1, "no evermirror can be reached"),
        (&["snapshot", "list"], 2, "[snapshot]"),
        (&["sync", "--bucket", "other"], 2, "--bucket other"),
    ] {
        let arguments = [command, &["--json"]].concat();
        let output = site.evermirror.command(&arguments).await;
        assert_eq!(output.status.code(), Some(status), "{command:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        let error = answer["errors"][0].as_str().expect("an error");
        assert!(error.contains(because), "{command:?}: {error}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(because), "people are told as well: {command:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_command_reports_how_far_it_came() {
    let servers = Servers::shared().await;
    let proxy = FaultProxy::in_front_of(&servers.target.authority()).await;
    let setup = Setup {
        target_endpoint: Some(proxy.endpoint()),
        settings: vec![("REPLICATE__CONCURRENCY", "2".to_owned())],
        ..Setup::default()
    };
    let site = servers.silent("ends-stopped", setup).await;
    for number in 0..100 {
        site.put(&format!("{number}"), format!("value {number}")).await;
    }
    let endpoint = servers.source.endpoint();
    let away = ["restore", "--to-endpoint", &endpoint, "--map", "ends-stopped=ends-stopped-back"];
    for (arguments, progress) in [
        (&["sync"][..], Method::PUT),
        (&["verify", "--metadata"], Method::HEAD),
        (&away, Method::GET),
    ] {
        let method = progress.clone();
        proxy.hold_after(20, move |seen, uri| {
            let object = uri.path().matches('/').count() > 1 && uri.path().len() > 20;
            object && *seen == method
        });
        let stopped = site.evermirror.begin(&[arguments, &["--json"]].concat());
        proxy.holds_one().await;
        stopped.interrupt("INT").await;
        proxy.behave();
        let (status, answer) = stopped.ended().await;
        let answer = answer.expect("one JSON object");
        assert_eq!(status.code(), Some(1), "{answer}");
        assert_eq!((&answer["interrupted"], &answer["errors"]), (&json!(true), &json!([])));
        let key = if progress == Method::HEAD { "compared" } else { "copied" };
        assert!(answer[key].as_u64().unwrap() > 0, "{answer}");

        let (status, answer) = site.evermirror.once(arguments).await;
        assert_eq!((status, &answer["interrupted"]), (0, &json!(false)), "{answer}");
    }
}
