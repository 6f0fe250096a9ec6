//! A bucket's notification configuration, read whole and written whole, as S3 wants it.
//!
//! **Promise.** What is read and written back without a change means the same to the store: every
//! destination, event and filter is kept, and what this version does not understand is listed in
//! [`NotificationConfig::unknown`], so that nobody writes over it unawares.

use http::Method;
use quick_xml::escape::escape;

use super::encode::Query;
use super::object::{MAX_DOCUMENT, md5, unreadable};
use super::request::Call;
use super::{Store, StoreError, xml};

/// Which kind of destination an ARN names. MinIO knows queues only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// `QueueConfiguration`: an SQS queue, and every target of MinIO and RustFS.
    Queue,
    /// `TopicConfiguration`: SNS, and every target of Ceph.
    Topic,
    /// `CloudFunctionConfiguration`: Lambda.
    Function,
}

impl Destination {
    const ALL: [Self; 3] = [Self::Queue, Self::Topic, Self::Function];

    /// The names of its element and of the ARN's element in it.
    const fn elements(self) -> (&'static str, &'static str) {
        match self {
            Self::Queue => ("QueueConfiguration", "Queue"),
            Self::Topic => ("TopicConfiguration", "Topic"),
            Self::Function => ("CloudFunctionConfiguration", "CloudFunction"),
        }
    }
}

/// Events of some keys go to one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationRule {
    /// Queue, topic or function.
    pub destination: Destination,
    /// Its name, unique in the bucket; the store invents one if absent.
    pub id: Option<String>,
    /// Where the events go.
    pub arn: String,
    /// Which events (`s3:ObjectCreated:*`).
    pub events: Vec<String>,
    /// `prefix` or `suffix`, and its value, as the store spells them.
    pub filters: Vec<(String, String)>,
}

/// All notifications of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotificationConfig {
    /// The rules, in the store's order.
    pub rules: Vec<NotificationRule>,
    /// Amazon EventBridge gets all events, too.
    pub event_bridge: bool,
    /// Elements that this version does not know, and could not write back.
    pub unknown: Vec<String>,
}

impl Store {
    /// `GetBucketNotificationConfiguration`.
    pub async fn notification(&self, bucket: &str) -> Result<NotificationConfig, StoreError> {
        let call = Call::new("GetBucketNotificationConfiguration", Method::GET, bucket, "");
        let answer = self.inner().send(call.query(Query::flag("notification"))).await?;
        let origin = answer.origin.clone();
        let document = answer.document(MAX_DOCUMENT).await?;
        parse(&document).map_err(|error| unreadable(&origin, &error))
    }

    /// `PutBucketNotificationConfiguration`: replaces all of it.
    pub async fn put_notification(
        &self,
        bucket: &str,
        config: &NotificationConfig,
    ) -> Result<(), StoreError> {
        let document = write(config);
        let call = Call::new("PutBucketNotificationConfiguration", Method::PUT, bucket, "")
            .query(Query::flag("notification"))
            .content_md5(Some(md5(document.as_bytes())))
            .document(document);
        self.inner().send(call).await?.finish().await.map(drop)
    }
}

const ROOT: &str = "NotificationConfiguration";

fn parse(document: &[u8]) -> Result<NotificationConfig, xml::XmlError> {
    let mut config = NotificationConfig::default();
    let mut rule = empty(Destination::Queue);
    let mut filter = (String::new(), String::new());
    xml::read(document, |path, text| {
        // The root has another name at some stores (moto).
        let Some((_root, path)) = path.split_once('/') else { return };
        if path == "EventBridgeConfiguration" {
            config.event_bridge = true;
            return;
        }
        let known = Destination::ALL.into_iter().find_map(|destination| {
            let (element, arn) = destination.elements();
            path.strip_prefix(element).map(|rest| (destination, arn, rest.trim_start_matches('/')))
        });
        let Some((destination, arn, rest)) = known else { return config.unknown.push(path.into()) };
        match rest {
            "" => {
                rule.destination = destination;
                config.rules.push(std::mem::replace(&mut rule, empty(destination)));
            }
            "Id" => rule.id = Some(text),
            "Event" => rule.events.push(text),
            "Filter/S3Key/FilterRule/Name" => filter.0 = text,
            "Filter/S3Key/FilterRule/Value" => filter.1 = text,
            "Filter/S3Key/FilterRule" => rule.filters.push(std::mem::take(&mut filter)),
            "Filter/S3Key" | "Filter" => {}
            rest if rest == arn => rule.arn = text,
            _ => config.unknown.push(path.to_owned()),
        }
    })?;
    Ok(config)
}

const fn empty(destination: Destination) -> NotificationRule {
    NotificationRule {
        destination,
        id: None,
        arn: String::new(),
        events: Vec::new(),
        filters: Vec::new(),
    }
}

fn write(config: &NotificationConfig) -> String {
    let leaf = |name: &str, value: &str| format!("<{name}>{}</{name}>", escape(value));
    let filter = |(name, value): &(String, String)| {
        format!("<FilterRule>{}{}</FilterRule>", leaf("Name", name), leaf("Value", value))
    };
    let rule = |rule: &NotificationRule| {
        let (element, arn) = rule.destination.elements();
        let id = rule.id.as_deref().map(|id| leaf("Id", id)).unwrap_or_default();
        let arn = leaf(arn, &rule.arn);
        let events: String = rule.events.iter().map(|event| leaf("Event", event)).collect();
        let mut filters: String = rule.filters.iter().map(filter).collect();
        if !filters.is_empty() {
            filters = format!("<Filter><S3Key>{filters}</S3Key></Filter>");
        }
        format!("<{element}>{id}{arn}{events}{filters}</{element}>")
    };
    let rules: String = config.rules.iter().map(rule).collect();
    let bridge = if config.event_bridge { "<EventBridgeConfiguration/>" } else { "" };
    format!("<{ROOT} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{rules}{bridge}</{ROOT}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(destination: Destination, arn: &str) -> NotificationRule {
        NotificationRule {
            destination,
            id: Some(format!("id of <{arn}>")),
            arn: arn.to_owned(),
            events: vec!["s3:ObjectCreated:*".into(), "s3:ObjectRemoved:*".into()],
            filters: vec![("prefix".into(), "a & b/".into()), ("suffix".into(), ".csv".into())],
        }
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let config = NotificationConfig {
            rules: Destination::ALL.map(|kind| rule(kind, "arn:x:y::z")).to_vec(),
            event_bridge: true,
            unknown: Vec::new(),
        };
        assert_eq!(parse(write(&config).as_bytes()).unwrap(), config);
        let nothing = NotificationConfig::default();
        assert_eq!(parse(write(&nothing).as_bytes()).unwrap(), nothing);
    }

    #[test]
    fn what_is_not_understood_is_told() {
        let text = "<NotificationConfiguration><QueueConfiguration><Queue>a</Queue><Colour>red</Colour>\
                    </QueueConfiguration><New><X>1</X></New></NotificationConfiguration>";
        let config = parse(text.as_bytes()).unwrap();
        assert_eq!(config.rules.len(), 1);
        assert_eq!(config.unknown, ["QueueConfiguration/Colour", "New/X", "New"]);
    }
}
