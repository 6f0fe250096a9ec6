//! A dirty key as a record of the topic: a notification for any reader, and for evermirror in a header
//! exactly what is known.

use rdkafka::message::{Header, Headers, OwnedHeaders};
use serde_json::json;

use crate::dirty::{Aspects, DirtyKey};

/// The header that holds [`DirtyKey::encode`].
const HEADER: &str = "evermirror-dirty-key";
/// The event source of our notifications.
const SOURCE: &str = "evermirror:s3";

/// The headers of a key's record.
pub(super) fn headers(dirty: &DirtyKey) -> OwnedHeaders {
    OwnedHeaders::new().insert(Header { key: HEADER, value: Some(&dirty.encode()) })
}

/// The key that an evermirror sent; `None` for what anybody else did.
pub(super) fn dirty_key(headers: Option<&impl Headers>) -> Option<DirtyKey> {
    let header = headers?.iter().find(|header| header.key == HEADER)?;
    DirtyKey::decode(header.value?).ok()
}

/// The document of a key's record.
pub(super) fn document(dirty: &DirtyKey) -> String {
    let key: String = form_urlencoded::byte_serialize(dirty.key.key.as_bytes()).collect();
    let removed = dirty.aspects.has(Aspects::REMOVED);
    let name = if removed { "s3:ObjectRemoved:Delete" } else { "s3:ObjectCreated:Put" };
    let time = jiff::Timestamp::from_millisecond(dirty.since_ms).unwrap_or_default();
    notification(name, &dirty.key.bucket, &time.to_string(), &json!({ "key": key }))
}

/// A document that leaves a whole bucket in doubt: whoever reads it reconciles the bucket.
pub(super) fn doubt(bucket: &str) -> String {
    notification(
        "s3:BucketDoubted:Reconcile",
        bucket,
        &jiff::Timestamp::now().to_string(),
        &json!({}),
    )
}

fn notification(name: &str, bucket: &str, time: &str, object: &serde_json::Value) -> String {
    let record = json!({
        "eventVersion": "2.0", "eventSource": SOURCE, "eventName": name, "eventTime": time,
        "s3": { "s3SchemaVersion": "1.0", "bucket": { "name": bucket }, "object": object },
    });
    json!({ "EventName": name, "Records": [record] }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dirty::Origin;
    use crate::event::{Channel, parse};
    use crate::object::ObjectKey;

    #[test]
    fn a_key_comes_back_as_it_was_sent_and_anybody_can_read_the_document() {
        let aspects = Aspects::REMOVED.with(Aspects::APPROVED);
        let key = ObjectKey::new("b", "dir a/réd +flower%20&?#.txt");
        let dirty = DirtyKey {
            key,
            aspects,
            origin: Origin::Repair,
            since_ms: 1_800_000_000_123,
            size: Some(7),
        };
        assert_eq!(dirty_key(Some(&headers(&dirty))), Some(dirty.clone()));
        let parsed = parse(document(&dirty).as_bytes(), Channel::Push);
        let keys: Vec<_> = parsed.events.iter().map(|event| &event.key).collect();
        assert_eq!(keys, [&dirty.key]);
        assert_eq!(parsed.events[0].at_ms, Some(dirty.since_ms));
        assert!(parsed.events[0].aspects.has(Aspects::REMOVED) && parsed.dirty_buckets.is_empty());
        let other = OwnedHeaders::new().insert(Header { key: HEADER, value: Some("junk") });
        assert_eq!(dirty_key(Some(&other)), None);
    }

    #[test]
    fn a_doubt_leaves_its_bucket_to_be_reconciled() {
        let parsed = parse(doubt("b").as_bytes(), Channel::Push);
        assert_eq!(parsed.dirty_buckets.len(), 1);
        assert!(parsed.events.is_empty() && parsed.unusable.is_empty());
    }
}
