//! A source that sends its own notifications: moto's S3 to SQS, by SNS, and by EventBridge.

use aws_sdk_s3::types::{
    Event, EventBridgeConfiguration, NotificationConfiguration, QueueConfiguration,
    TopicConfiguration,
};
use serde_json::json;

use crate::support::compare::compare;
use crate::support::eventually::{SOON, eventually};
use crate::support::evermirror::{Config, Evermirror};
use crate::support::moto::Moto;
use crate::support::ports::free_port;
use crate::support::s3::S3;
use crate::support::site::Servers;
use crate::support::sqs::Queue;

/// The ways from a bucket to the queue, which are the buckets' names.
const WAYS: [&str; 4] = ["by-sqs", "by-sns", "by-raw-sns", "by-eventbridge"];

async fn notify(s3: &S3, bucket: &str, configuration: NotificationConfiguration) {
    let call = s3.client.put_bucket_notification_configuration().bucket(bucket);
    call.notification_configuration(configuration).send().await.unwrap();
}

fn events() -> [Event; 2] {
    ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"].map(Event::from)
}

/// Makes a topic that passes on to the queue what it is told.
async fn topic(moto: &Moto, name: &str, queue: &Queue, raw: bool) -> String {
    let made = moto.form("sns", &[("Action", "CreateTopic"), ("Name", name)]).await;
    let arn = made.split("TopicArn>").nth(1).unwrap().trim_end_matches("</").to_owned();
    let mut subscribe = vec![
        ("Action", "Subscribe"),
        ("TopicArn", &arn),
        ("Protocol", "sqs"),
        ("Endpoint", &queue.arn),
    ];
    if raw {
        subscribe.push(("Attributes.entry.1.key", "RawMessageDelivery"));
        subscribe.push(("Attributes.entry.1.value", "true"));
    }
    moto.form("sns", &subscribe).await;
    arn
}

/// Four buckets, each with its own way to the queue.
async fn set_up(moto: &Moto, queue: &Queue) {
    let s3 = moto.s3();
    for bucket in WAYS {
        s3.create_bucket(bucket).await;
    }
    let to_queue = QueueConfiguration::builder().queue_arn(&queue.arn);
    let to_queue = to_queue.set_events(Some(events().into())).build().unwrap();
    notify(
        &s3,
        "by-sqs",
        NotificationConfiguration::builder().queue_configurations(to_queue).build(),
    )
    .await;
    for (bucket, raw) in [("by-sns", false), ("by-raw-sns", true)] {
        let arn = topic(moto, bucket, queue, raw).await;
        let to_topic = TopicConfiguration::builder().topic_arn(arn);
        let to_topic = to_topic.set_events(Some(events().into())).build().unwrap();
        let configuration = NotificationConfiguration::builder().topic_configurations(to_topic);
        notify(&s3, bucket, configuration.build()).await;
    }
    let pattern = json!({"source": ["aws.s3"]}).to_string();
    let rule = json!({"Name": "s3", "EventPattern": pattern, "State": "ENABLED"});
    moto.json("events", "AWSEvents.PutRule", &rule).await;
    let targets = json!({"Rule": "s3", "Targets": [{"Id": "queue", "Arn": queue.arn}]});
    moto.json("events", "AWSEvents.PutTargets", &targets).await;
    let to_bridge = EventBridgeConfiguration::builder().build();
    let configuration = NotificationConfiguration::builder().event_bridge_configuration(to_bridge);
    notify(&s3, "by-eventbridge", configuration.build()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_s3_sends_by_itself_is_followed_on_every_way_to_the_queue() {
    let moto = Moto::start().await;
    let queue = moto.sqs().queue("s3-events").await;
    set_up(&moto, &queue).await;
    let target = &Servers::shared().await.target;
    let buckets = WAYS.map(|way| format!("{way}:sqs-moto-{way}")).join(",");
    let mut settings = queue.settings();
    settings.push(("BUCKETS", buckets));
    let mut evermirror = Evermirror::configure(Config {
        source_endpoint: moto.endpoint(),
        target_endpoint: target.endpoint(),
        bucket: ("unused".to_owned(), "unused".to_owned()),
        webhook_port: free_port(),
        settings: settings.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
    });
    evermirror.start().await;
    eventually("the first reconcile is over", SOON, async || {
        let passes = evermirror.metric("evermirror_reconcile_passes_total{outcome=\"complete\"}");
        let passes = passes.await;
        (passes >= Some(4.0)).then_some(()).ok_or(format!("{passes:?} passes"))
    })
    .await;
    let (source, target) = (moto.s3(), target.client());
    let same = async |way: &str| {
        let copy = format!("sqs-moto-{way}");
        eventually("both sides are the same", SOON, async || {
            let differences = compare((&source, way), (&target, &copy)).await?;
            if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
        })
        .await;
    };
    for way in WAYS {
        for key in ["plain", "dir a/réd +flower%20.txt", "overwritten", "deleted"] {
            source.put(way, key, format!("{way} {key}")).await;
        }
        same(way).await;
        source.put(way, "overwritten", "another value").await;
        source.delete(way, "deleted").await;
        same(way).await;
        assert_eq!(target.list(&format!("sqs-moto-{way}")).await.unwrap().len(), 3, "{way}");
    }
    eventually("the queue is empty", SOON, async || queue.holds_exactly(0).await).await;
    let letters =
        evermirror.metric("evermirror_intake_events_total{outcome=\"dead_letter\"}").await;
    assert_eq!(letters, Some(0.0));
    let passes = evermirror.metric("evermirror_reconcile_passes_total{outcome=\"complete\"}").await;
    assert_eq!(passes, Some(4.0), "no reconcile had to help");
}
