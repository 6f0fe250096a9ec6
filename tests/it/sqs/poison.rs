//! Messages that nobody can use.

use serde_json::{Value, json};

use super::{of_aws, silent_site};
use crate::support::elasticmq::ElasticMq;
use crate::support::eventually::{LATER, SOON, eventually};
use crate::support::http;
use crate::support::site::Site;
use crate::support::sqs::Queue;

const RUBBISH: &str = "this is not a notification";

/// A good message, rubbish, and a good one; the good ones are done.
async fn send_poison(site: &mut Site, queue: &Queue) {
    site.evermirror.start().await;
    for key in ["before", "after"] {
        site.put(key, "value").await;
    }
    let created = |key| of_aws("ObjectCreated:Put", &site.bucket, key).to_string();
    queue.send(&[created("before"), RUBBISH.to_owned(), created("after")]).await;
    eventually("the good ones are done", SOON, async || {
        let there = site.target.list(&site.target_bucket).await?.len();
        (there == 2).then_some(()).ok_or(format!("{there} objects"))
    })
    .await;
}

/// The reasons in the dead-letter list, and the buckets in doubt.
async fn told(site: &Site) -> (Vec<Value>, Value) {
    let letters = http::get(&site.evermirror.web("/api/v1/dead-letters")).await.unwrap();
    let letters: Value = serde_json::from_slice(&letters.body).unwrap();
    let list = letters["dead_letters"].as_array().unwrap();
    let reasons = list.iter().map(|letter| letter["reason"].clone()).collect();
    (reasons, site.evermirror.status().await.unwrap()["gaps"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_left_to_the_queues_redrive_policy_and_told_of_once() {
    let client = ElasticMq::shared().await.client();
    let dead = client.queue("poison-dead").await;
    let queue = client.queue_with_redrive("poison", 3, &dead).await;
    let (mut site, _proxy) = silent_site("sqs-poison", queue.settings()).await;
    send_poison(&mut site, &queue).await;
    eventually("the queue has moved it", LATER, async || {
        queue.holds_exactly(0).await?;
        dead.holds_exactly(1).await
    })
    .await;
    assert_eq!(dead.receive().await, [RUBBISH]);
    let (letters, gaps) = told(&site).await;
    assert_eq!(letters, ["not_json"], "delivered three times, told of once");
    assert_eq!(gaps[0]["bucket"], *site.bucket, "{gaps}");
    let marked = site.evermirror.metric("evermirror_gaps_total{reason=\"dead_letter\"}").await;
    assert_eq!(marked, Some(1.0), "and in doubt once");
    let log = site.evermirror.log();
    assert_eq!(log.matches("A message in the queue cannot be used").count(), 1, "{log}");
    assert!(!log.contains(RUBBISH), "the log never shows what was in it");
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_in_a_queue_without_a_redrive_policy_is_told_of_and_deleted() {
    let queue = ElasticMq::shared().await.client().queue("poison-alone").await;
    let (mut site, _proxy) = silent_site("sqs-poison-alone", queue.settings()).await;
    send_poison(&mut site, &queue).await;
    eventually("the queue is empty", SOON, async || queue.holds_exactly(0).await).await;
    let (letters, gaps) = told(&site).await;
    assert_eq!(letters, ["not_json"]);
    assert_eq!(
        (&gaps[0]["bucket"], &gaps[0]["reason"]),
        (&json!(site.bucket), &json!("dead_letter"))
    );
}
