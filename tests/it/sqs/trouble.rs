//! A queue that is not there, that forbids, or that does not answer: shown, told with what to do, and
//! over by itself.

use serde_json::Value;

use super::{fill_the_journal, put_some, refuse_one, silent_site, target_lists};
use crate::support::elasticmq::ElasticMq;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::moto::Moto;
use crate::support::site::{Servers, Site};

/// The trouble of the SQS intake, once it has one that holds all these words; its log has an error with
/// the same, and its metric says 0.
async fn is_in_trouble(site: &Site, words: &[&str]) {
    eventually("the trouble is shown", SOON, async || {
        let status = site.evermirror.status().await?;
        let trouble = status["intakes"][1]["trouble"].as_str().unwrap_or_default();
        let shown = words.iter().all(|word| trouble.contains(word));
        shown.then_some(()).ok_or(format!("trouble: {trouble:?}"))
    })
    .await;
    let log = site.evermirror.log();
    let told = |line: &str| line.contains("ERROR") && words.iter().all(|word| line.contains(word));
    assert_eq!(log.lines().filter(|line| told(line)).count(), 1, "told once:\n{log}");
    let up = site.evermirror.metric("evermirror_intake_up{intake=\"sqs\"}").await;
    assert_eq!(up, Some(0.0));
}

async fn is_well(site: &Site) {
    eventually("the trouble is over", SOON, async || {
        let status = site.evermirror.status().await?;
        let trouble = &status["intakes"][1]["trouble"];
        (*trouble == Value::Null).then_some(()).ok_or(trouble.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_does_not_exist_yet_is_asked_until_it_does() {
    let client = ElasticMq::shared().await.client();
    let mut settings = client.queue("late-other").await.settings();
    settings[0].1 = settings[0].1.replace("late-other", "late");
    let (mut site, _proxy) = silent_site("sqs-late", settings).await;
    site.evermirror.start().await;
    is_in_trouble(&site, &["QueueDoesNotExist", "check queue_url and region in [intake.sqs]"])
        .await;
    let queue = client.queue("late").await;
    queue.send(&put_some(&site, 0..3).await).await;
    target_lists(&site, 3).await;
    is_well(&site).await;
    assert!(site.evermirror.log().contains("The queue gives messages again."));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_called_that() {
    let moto = Moto::locked().await;
    let url = format!("{}/123456789012/locked", moto.endpoint());
    let settings = vec![
        ("INTAKE__SQS__QUEUE_URL", url),
        ("INTAKE__SQS__ACCESS_KEY", "AKIAIOSFODNN7EXAMPLE".to_owned()),
        ("INTAKE__SQS__SECRET_KEY", "a-secret-that-nobody-may-see".to_owned()),
    ];
    let (mut site, _proxy) = silent_site("sqs-wrong-keys", settings).await;
    site.evermirror.start().await;
    let words = ["403", "check the credentials and region", "sqs:ReceiveMessage"];
    is_in_trouble(&site, &words).await;
    assert!(!site.evermirror.log().contains("a-secret-that-nobody-may-see"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_to_delete_that_is_missing_is_told_though_messages_arrive() {
    let server = ElasticMq::shared().await;
    let queue = server.client().queue("undeletable").await;
    let proxy = FaultProxy::in_front_of(&server.authority()).await;
    proxy.misbehave_on(|operation| {
        (operation == "DeleteMessageBatch").then_some(Fault::Answer(403, "AccessDenied"))
    });
    let settings = queue.settings_by(&proxy.endpoint());
    let (mut site, _source) = silent_site("sqs-undeletable", settings).await;
    queue.send(&put_some(&site, 0..5).await).await;
    site.evermirror.start().await;
    target_lists(&site, 5).await;
    is_in_trouble(&site, &["403", "sqs:DeleteMessage"]).await;
    assert_eq!(queue.holds().await, 5);
    proxy.behave();
    eventually("the queue is empty", SOON, async || queue.holds_exactly(0).await).await;
    is_well(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_does_not_answer_is_trouble_and_its_length_is_shown_when_it_does() {
    let mut server = ElasticMq::start().await;
    let queue = server.client().queue("silent").await;
    let (mut site, _source) = silent_site("sqs-unreachable", queue.settings()).await;
    server.stop();
    site.evermirror.start().await;
    is_in_trouble(&site, &["connection refused", "check queue_url and endpoint"]).await;
    let length = "evermirror_intake_backlog{intake=\"sqs\"}";
    assert_eq!(site.evermirror.metric(length).await, None, "a length that nobody knows");
    server.start_again().await;
    is_well(&site).await;
    eventually("the length is known", SOON, async || {
        let known = site.evermirror.metric(length).await;
        (known == Some(0.0)).then_some(()).ok_or(format!("{known:?}"))
    })
    .await;
}

/// Makes every answer to an extension say that the first message was not extended. (It was; a queue that
/// refuses one of several is not to be had.)
fn refuse_the_first(answer: &str) -> String {
    refuse_one(answer, |done| done.remove(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_fails_for_some_messages_is_counted_and_asked_again_and_loses_none() {
    const EVENTS: usize = 20;
    let server = ElasticMq::shared().await;
    let queue = server.client().queue("partial-extension").await;
    let proxy = FaultProxy::in_front_of(&server.authority()).await;
    proxy.misbehave_on(|operation| {
        (operation == "ChangeMessageVisibilityBatch").then_some(Fault::EditAnswer(refuse_the_first))
    });
    let target = FaultProxy::in_front_of(&Servers::shared().await.target.authority()).await;
    target.misbehave(|_, _| Some(Fault::Answer(503, "ServiceUnavailable")));
    let mut settings = queue.settings_by(&proxy.endpoint());
    settings.push(("TARGET__ENDPOINT", target.endpoint()));
    settings.push(("JOURNAL__SEGMENT_SIZE", "1MiB".to_owned()));
    settings.push(("JOURNAL__MAX_SIZE", "2MiB".to_owned()));
    settings.push(("INTAKE__WEBHOOK__MAX_WAIT", "1s".to_owned()));
    let (mut site, _source) = silent_site("sqs-extension", settings).await;
    let notifications = put_some(&site, 0..EVENTS).await;
    site.evermirror.start().await;
    fill_the_journal(&site).await;
    queue.send(&notifications).await;
    let class = "evermirror_errors_total{stage=\"intake\",class=\"sqs_extend\"}";
    eventually("refusals are counted, and it is asked again", LATER, async || {
        let refused = site.evermirror.metric(class).await;
        if refused >= Some(6.0) { Ok(()) } else { Err(format!("{refused:?}")) }
    })
    .await;
    assert_eq!(queue.holds().await, EVENTS as u64, "what is not durable stays in the queue");
    target.behave();
    eventually("the queue is empty", LATER, async || queue.holds_exactly(0).await).await;
    target_lists(&site, EVENTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_throttles_is_asked_less_and_loses_nothing() {
    let server = ElasticMq::shared().await;
    let queue = server.client().queue("throttled").await;
    let proxy = FaultProxy::in_front_of(&server.authority()).await;
    proxy.misbehave_on(|operation| {
        (operation == "ReceiveMessage").then_some(Fault::Answer(429, "RequestThrottled"))
    });
    let (mut site, _source) =
        silent_site("sqs-throttled", queue.settings_by(&proxy.endpoint())).await;
    queue.send(&put_some(&site, 0..5).await).await;
    site.evermirror.start().await;
    is_in_trouble(&site, &["429", "lower receivers in [intake.sqs]"]).await;
    proxy.behave();
    target_lists(&site, 5).await;
    is_well(&site).await;
}
