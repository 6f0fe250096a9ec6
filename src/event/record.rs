//! One record of a notification: where its fields are, and how its key is written.

use std::borrow::Cow;

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use super::json::Json;
use super::name::{Meaning, meaning};
use super::{Channel, ObjectEvent, Parsed, Unusable, UnusableReason};
use crate::dirty::Aspects;
use crate::gaps::GapReason;
use crate::object::ObjectKey;

/// The longest key S3 allows, in bytes of UTF-8.
const MAX_KEY: usize = 1024;

/// The fields of a record that matter, from whichever place its dialect keeps them.
pub(super) struct Record<'a> {
    pub(super) source: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) time: Option<&'a str>,
    pub(super) bucket: Option<&'a str>,
    /// As written by the store.
    pub(super) key: Option<&'a str>,
    pub(super) size: Option<u64>,
    pub(super) version: Option<&'a str>,
    pub(super) sequencer: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) deployment: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// An element of `Records`; `name` stands in for a record that does not carry its own.
    pub(super) fn of_notification(record: &'a Json<'_>, name: Option<&'a str>) -> Self {
        let s3 = record.field(&["s3"]).unwrap_or(&Json::Other);
        let bucket = s3.field(&["bucket"]).unwrap_or(&Json::Other);
        let object = s3.field(&["object"]).unwrap_or(&Json::Other);
        let answer =
            record.field(&["responseElements", "response_elements"]).unwrap_or(&Json::Other);
        Self {
            source: record.text(&["eventSource", "event_source"]).unwrap_or(""),
            name: record.text(&["eventName", "event_name"]).or(name),
            time: record.text(&["eventTime", "event_time"]),
            bucket: bucket.text(&["name"]),
            key: object.text(&["key"]),
            size: object.number(&["size"]),
            version: object.text(&["versionId", "version_id"]),
            sequencer: object.text(&["sequencer"]),
            request_id: answer.text(&["x-amz-request-id"]),
            deployment: answer.text(&["x-minio-deployment-id", "x-rustfs-deployment-id"]),
        }
    }

    /// An EventBridge event: `detail-type` names it, `detail` holds the rest.
    pub(super) fn of_event_bridge(event: &'a Json<'_>) -> Self {
        let detail = event.field(&["detail"]).unwrap_or(&Json::Other);
        let object = detail.field(&["object"]).unwrap_or(&Json::Other);
        Self {
            source: EVENT_BRIDGE,
            name: event.text(&["detail-type"]),
            time: event.text(&["time"]),
            bucket: detail.field(&["bucket"]).and_then(|bucket| bucket.text(&["name"])),
            key: object.text(&["key"]),
            size: object.number(&["size"]),
            version: object.text(&["version-id"]),
            sequencer: object.text(&["sequencer"]),
            request_id: detail.text(&["request-id"]),
            deployment: None,
        }
    }

    /// Adds what this record says to `parsed`.
    pub(super) fn read_into(&self, channel: Channel, parsed: &mut Parsed) {
        let meaning = meaning(self.name.unwrap_or(""));
        if meaning == Meaning::Nothing {
            parsed.ignored += 1;
            return;
        }
        let Some(bucket) = self.bucket else {
            parsed.unusable.push(self.unusable(UnusableReason::NoBucket));
            parsed.all_buckets_dirty = true;
            return;
        };
        let aspects = match meaning {
            Meaning::Touch(aspects) => aspects,
            Meaning::Bucket => {
                parsed.dirty_buckets.push((bucket.to_owned(), GapReason::BucketEvent));
                return;
            }
            Meaning::Unknown | Meaning::Nothing => {
                parsed.doubt(bucket, self.unusable(UnusableReason::UnknownEvent));
                Aspects::CONTENT.with(Aspects::CHECK)
            }
        };
        let Some(written) = self.key else {
            parsed.doubt(bucket, self.unusable(UnusableReason::NoKey));
            return;
        };
        for key in self.spellings(written, channel) {
            match key {
                Some(key) if key.len() <= MAX_KEY => {
                    if self.may_be_a_prefix(aspects, &key) {
                        parsed.dirty_buckets.push((bucket.to_owned(), GapReason::PrefixRemoved));
                    }
                    parsed.events.push(self.event(ObjectKey::new(bucket, key), aspects));
                }
                Some(_) | None => parsed.doubt(bucket, self.unusable(UnusableReason::BadKey)),
            }
        }
    }

    /// RustFS tells the forced delete of everything below a prefix as one delete of that prefix.
    /// MinIO sends nothing for it, and AWS and Ceph have no such call: there, a deleted `dir/` is
    /// just the marker of that name.
    fn may_be_a_prefix(&self, aspects: Aspects, key: &str) -> bool {
        let tells = !matches!(self.source, "minio:s3" | "aws:s3" | "ceph:s3" | OURS | EVENT_BRIDGE);
        tells && aspects.has(Aspects::REMOVED) && key.ends_with('/')
    }

    fn event(&self, key: ObjectKey, aspects: Aspects) -> ObjectEvent {
        ObjectEvent {
            identity: self.identity(&key),
            key,
            aspects,
            at_ms: self.time.and_then(|t| t.parse().ok()).map(Timestamp::as_millisecond),
            size: self.size,
            name: self.name.unwrap_or("").to_owned(),
        }
    }

    /// The key, decoded as this source encodes it; both spellings where the source is not known,
    /// since looking at a key that does not exist does no harm. `None` stands for one that is not
    /// UTF-8.
    fn spellings<'k>(
        &self,
        written: &'k str,
        channel: Channel,
    ) -> impl Iterator<Item = Option<Cow<'k, str>>> {
        let raw = Some(Cow::Borrowed(written));
        let (first, second) = match (self.source, channel) {
            ("minio:s3", Channel::Listen) | ("ceph:s3" | EVENT_BRIDGE, _) => (raw, None),
            ("minio:s3" | "rustfs:s3" | "aws:s3" | OURS, _) => (form_decode(written), None),
            (source, _) if source.starts_with("scality") => (raw, None),
            _ => (raw, Some(form_decode(written)).filter(|k| k.as_deref() != Some(written))),
        };
        std::iter::once(first).chain(second)
    }

    /// A digest that only a second delivery of this very event shares. Only for the stores that can be
    /// given two webhook targets, and whose request ids are known to be unique: moto sends one
    /// constant id, and some stores none.
    fn identity(&self, key: &ObjectKey) -> Option<u128> {
        if !matches!(self.source, "minio:s3" | "rustfs:s3") {
            return None;
        }
        let (request_id, sequencer) = (self.request_id?, self.sequencer?);
        let mut digest = Sha256::new();
        for part in [
            Some(&*key.bucket),
            Some(&*key.key),
            self.name,
            self.version,
            Some(sequencer),
            self.time,
            Some(request_id),
            self.deployment,
        ] {
            let part = part.unwrap_or("");
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        digest.finalize().first_chunk().copied().map(u128::from_le_bytes)
    }

    fn unusable(&self, reason: UnusableReason) -> Unusable {
        Unusable {
            reason,
            bucket: self.bucket.map(str::to_owned),
            key: self.key.map(str::to_owned),
            event: self.name.map(str::to_owned),
        }
    }
}

/// The source of a notification that an evermirror sent through Kafka.
const OURS: &str = "evermirror:s3";
/// Our name for the source of an EventBridge event, whose keys are not encoded.
const EVENT_BRIDGE: &str = "aws.s3";

/// `+` is a space and `%XX` a byte; `None` if the bytes are not UTF-8.
fn form_decode(written: &str) -> Option<Cow<'_, str>> {
    if !written.contains(['+', '%']) {
        return Some(Cow::Borrowed(written));
    }
    let spaced = written.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|key| Cow::Owned(key.into_owned()))
}
