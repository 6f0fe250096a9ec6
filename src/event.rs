//! Notifications, understood: any store's dialect in, [`ObjectEvent`]s out.
//!
//! [`parse`] is pure and never fails: what cannot be used is listed with its reason, and the
//! buckets it leaves in doubt are named so that they are reconciled. An event is a hint that a key may
//! have changed; nothing here orders events or believes their verb, because stores send
//! `ObjectRemoved` for an object that came back, and `ObjectCreated` for a PUT that failed.
//!
//! Dialects: MinIO, RustFS (also its snake-case of 2025), AWS (SQS, inside SNS, EventBridge,
//! `s3:TestEvent`), Ceph, Scality, moto, LocalStack, and MinIO's and RustFS's listen streams. How
//! each writes keys is in `record`; captured documents are in `tests/fixtures/notifications`.

mod json;
mod name;
mod record;
#[cfg(test)]
mod tests;

use crate::dirty::Aspects;
use crate::gaps::GapReason;
use crate::object::ObjectKey;
use json::Json;
use record::Record;

/// The most records read from one document; AWS sends a handful, everybody else one.
pub const MAX_RECORDS: usize = 10_000;

/// How a document reached us, where that changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// A webhook or a queue.
    Push,
    /// The store's listen stream: MinIO does not encode keys there, and empty documents are pings.
    Listen,
}

/// An object that may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEvent {
    /// Which object, its key decoded.
    pub key: ObjectKey,
    /// What may have changed; [`Aspects::REMOVED`] is the store's opinion, not a fact.
    pub aspects: Aspects,
    /// The store's event time, milliseconds since the Unix epoch; not yet checked against our clock.
    pub at_ms: Option<i64>,
    /// The object's size in bytes, as the event says it.
    pub size: Option<u64>,
    /// The event's name as written, for people.
    pub name: String,
    /// Equal for two deliveries of one event, and only then; `None` if the store gives no means
    /// to tell, and then the event is never taken for a duplicate.
    pub identity: Option<u128>,
}

/// Why a document or a record could not be used, wholly or in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnusableReason {
    /// The body is not JSON.
    NotJson,
    /// JSON, but no dialect we know.
    UnknownShape,
    /// An empty or absent list of records.
    NoRecords,
    /// More than [`MAX_RECORDS`] records; those beyond were not read.
    TooManyRecords,
    /// A record names no bucket.
    NoBucket,
    /// A record names no key.
    NoKey,
    /// The key is not UTF-8 once decoded, or longer than S3 allows.
    BadKey,
    /// The event has a name we do not know. Its key is looked at all the same.
    UnknownEvent,
    /// The bucket is not one that is replicated (found by the intake, not by [`parse`]).
    OtherBucket,
    /// The document is over the intake's limit and was not read, or its keys are more than the
    /// journal takes at once (found by the intake).
    TooLarge,
}

impl UnusableReason {
    /// The name used in metrics, logs and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::UnknownShape => "unknown_shape",
            Self::NoRecords => "no_records",
            Self::TooManyRecords => "too_many_records",
            Self::NoBucket => "no_bucket",
            Self::NoKey => "no_key",
            Self::BadKey => "bad_key",
            Self::UnknownEvent => "unknown_event",
            Self::OtherBucket => "other_bucket",
            Self::TooLarge => "too_large",
        }
    }
}

/// A document or a record that could not be used, for the dead-letter list. Hostile input, unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Why.
    pub reason: UnusableReason,
    /// The bucket it names, if any.
    pub bucket: Option<String>,
    /// The key it names, as written there.
    pub key: Option<String>,
    /// The event name it carries.
    pub event: Option<String>,
}

/// What one document says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The keys to look at.
    pub events: Vec<ObjectEvent>,
    /// Buckets to reconcile, with the reason.
    pub dirty_buckets: Vec<(String, GapReason)>,
    /// Something changed and nobody can say in which bucket: reconcile all of them.
    pub all_buckets_dirty: bool,
    /// What could not be used.
    pub unusable: Vec<Unusable>,
    /// Records that change nothing a target should have (ACL, replication, test events, …).
    pub ignored: usize,
    /// The length of the document in bytes.
    pub body_bytes: usize,
}

impl Parsed {
    /// Adds what another document says.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.events.extend(other.events);
        self.dirty_buckets.extend(other.dirty_buckets);
        self.all_buckets_dirty |= other.all_buckets_dirty;
        self.unusable.extend(other.unusable);
        self.ignored += other.ignored;
        self.body_bytes += other.body_bytes;
    }

    fn doubt(&mut self, bucket: &str, unusable: Unusable) {
        self.dirty_buckets.push((bucket.to_owned(), GapReason::UnusableEvent));
        self.unusable.push(unusable);
    }

    fn doubt_all(&mut self, reason: UnusableReason) {
        self.all_buckets_dirty = true;
        self.unusable.push(Unusable { reason, bucket: None, key: None, event: None });
    }
}

/// Reads one document: the body of a POST, of a queue message, or a line of a listen stream.
pub fn parse(body: &[u8], channel: Channel) -> Parsed {
    let mut parsed = Parsed { body_bytes: body.len(), ..Parsed::default() };
    match Json::read(body) {
        None => parsed.doubt_all(UnusableReason::NotJson),
        Some(document) => match sns_message(&document).map(|inner| Json::read(inner.as_bytes())) {
            None => read_document(&document, channel, &mut parsed),
            Some(Some(inner)) => read_document(&inner, channel, &mut parsed),
            Some(None) => parsed.doubt_all(UnusableReason::NotJson),
        },
    }
    parsed
}

/// SNS puts the notification, as a string, into its own envelope.
fn sns_message<'a>(document: &'a Json<'_>) -> Option<&'a str> {
    (document.text(&["Type"])? == "Notification").then(|| document.text(&["Message"]))?
}

fn read_document(document: &Json<'_>, channel: Channel, parsed: &mut Parsed) {
    if let Some(records) = document.field(&["Records", "records"]) {
        read_records(document, records, channel, parsed);
    } else if document.text(&["Event"]) == Some("s3:TestEvent") {
        parsed.ignored += 1;
    } else if document.field(&["detail-type"]).is_some() && document.field(&["detail"]).is_some() {
        Record::of_event_bridge(document).read_into(channel, parsed);
    } else if let Some(bucket) = filer_bucket(document) {
        let reason = UnusableReason::UnknownShape;
        let event = document.text(&["event_type"]).map(str::to_owned);
        let key = document.text(&["key"]).map(str::to_owned);
        parsed.doubt(bucket, Unusable { reason, bucket: Some(bucket.to_owned()), key, event });
    } else {
        parsed.doubt_all(UnusableReason::UnknownShape);
    }
}

fn read_records(document: &Json<'_>, records: &Json<'_>, channel: Channel, parsed: &mut Parsed) {
    let name = document.text(&["EventName", "event_name"]);
    match records {
        Json::List(records) if !records.is_empty() => {
            for record in records.iter().take(MAX_RECORDS) {
                Record::of_notification(record, name).read_into(channel, parsed);
            }
            if records.len() > MAX_RECORDS {
                parsed.doubt_all(UnusableReason::TooManyRecords);
            }
        }
        Json::List(_) | Json::Other if channel == Channel::Listen => {}
        Json::List(_) | Json::Other | Json::Map(_) | Json::Text(_) | Json::Number(_) => {
            parsed.doubt_all(UnusableReason::NoRecords);
        }
    }
}

/// SeaweedFS's filer tells of paths (`/buckets/BUCKET/…`), renames and directories in its own
/// format. It is not read, but the bucket that it concerns is known.
fn filer_bucket<'a>(document: &'a Json<'_>) -> Option<&'a str> {
    document.field(&["event_type"])?;
    document.text(&["key"])?.strip_prefix("/buckets/")?.split('/').next().filter(|b| !b.is_empty())
}
