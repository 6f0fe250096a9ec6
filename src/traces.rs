//! Traces, for who wants them: the way of each changed key as OpenTelemetry spans, by OTLP over HTTP.
//!
//! ```text
//! change            the source's event ─────────────────▶ settled
//! ├─ receive        arrived ─▶ durable
//! ├─ replicate      picked up ─▶ settled or parked; one for each try
//! │  ├─ GetObject   one for each request to a store, until its answer's head
//! │  └─ PutObject
//! ```
//!
//! Deletes go to the target many at once, as part of one of their keys' tries.
//!
//! All of one change is in one trace: its id follows from bucket, key and time, so nothing of it is kept in
//! the journal. What becomes of a key that changes again while it waits, or that a reconcile finds meanwhile
//! (as the one after a start does), is in the trace of the oldest of these times.
//!
//! **Promise.** Replication neither waits for a span nor fails because of one: those for which there is no
//! room, or that the collector does not take, are lost, and the log says so. Bucket and key are told, and
//! errors; no header, no content. While no endpoint is set nothing is built, and a place that would record
//! something looks at one value. **On a stop** what was recorded is sent, within five seconds; **on a crash**
//! the last second is lost.

mod export;

use std::borrow::Cow;
use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use sha2::{Digest as _, Sha256};

use crate::clock;
use crate::dirty::DirtyKey;
use crate::object::ObjectKey;
use crate::store::StoreError;
use crate::workqueue::{Outcome, Work};
pub use export::Exporting;
use export::Sender;

/// Where spans go; set once, if at all.
static RECORDER: OnceLock<Recorder> = OnceLock::new();

tokio::task_local! {
    /// On whose behalf this task asks the stores.
    static ATTEMPT: Option<Attempt>;
}

/// Begins to record, once per process, if the environment names an endpoint
/// (`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`); else `None`. The other
/// variables of the OTLP exporter mean what its specification says; of the samplers, `always_on`,
/// `always_off`, `traceidratio` and their parent-based forms are known.
pub fn start() -> anyhow::Result<Option<Exporting>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let named = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let off = variable("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
    let Some(endpoint) = named.into_iter().find_map(variable).filter(|_| !off) else {
        return Ok(None);
    };
    let sampler = variable("OTEL_TRACES_SAMPLER");
    let share = share(sampler.as_deref(), variable("OTEL_TRACES_SAMPLER_ARG").as_deref());
    let (sender, exporting) = export::start(&endpoint)?;
    let scope =
        InstrumentationScope::builder("evermirror").with_version(env!("CARGO_PKG_VERSION")).build();
    drop(RECORDER.set(Recorder { sender, share, scope }));
    tracing::info!(endpoint, share, "Traces are exported.");
    Ok(Some(exporting))
}

/// The share of changes that are recorded.
fn share(sampler: Option<&str>, argument: Option<&str>) -> f64 {
    match sampler {
        Some("always_off" | "parentbased_always_off") => 0.0,
        Some("traceidratio" | "parentbased_traceidratio") => {
            let share = argument.and_then(|share| share.parse().ok()).unwrap_or(1.0_f64);
            share.clamp(0.0, 1.0)
        }
        Some(_) | None => 1.0,
    }
}

/// The keys of one notification, which arrived at `received_ms` (milliseconds since the Unix epoch), are
/// durable now.
pub fn received(keys: &[DirtyKey], received_ms: i64) {
    let Some(recorder) = RECORDER.get() else { return };
    for dirty in keys {
        if let Some(change) = recorder.change(&dirty.key, dirty.since_ms) {
            recorder.ended(Span {
                change,
                id: new_id(),
                parent: change.root,
                kind: SpanKind::Consumer,
                name: "receive",
                began: at(received_ms),
                attributes: object(&dirty.key),
                failed: None,
            });
        }
    }
}

/// A worker's try of one key.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    change: Change,
    id: SpanId,
    began: SystemTime,
}

/// A try begins; `None` if it is not recorded.
pub fn attempt(work: &Work) -> Option<Attempt> {
    let change = RECORDER.get()?.change(&work.key, work.pending.since_ms)?;
    Some(Attempt { change, id: new_id(), began: clock::now() })
}

/// What `work` asks of the stores belongs to this try.
pub fn within<F: Future>(attempt: Option<Attempt>, work: F) -> impl Future<Output = F::Output> {
    ATTEMPT.scope(attempt, work)
}

impl Attempt {
    /// The try is over.
    pub fn end(self, work: &Work, outcome: &Outcome) {
        let Some(recorder) = RECORDER.get() else { return };
        let mut attributes = object(&work.key);
        attributes.push(KeyValue::new("evermirror.tries", i64::from(work.pending.attempts) + 1));
        let (settled, failed) = match outcome {
            Outcome::Settled => (true, None),
            Outcome::Large | Outcome::Unseen(_) => (false, None),
            Outcome::Retry { class, reason, .. } => {
                attributes.push(KeyValue::new("error.type", *class));
                (false, Some(reason.to_string()))
            }
        };
        let (change, parent) = (self.change, self.change.root);
        let replicate = Span {
            change,
            id: self.id,
            parent,
            kind: SpanKind::Internal,
            name: "replicate",
            began: self.began,
            attributes,
            failed,
        };
        recorder.ended(replicate);
        if settled {
            // A repair may be of an object that is years old; it began when it was found.
            let live = work.pending.origin.is_live();
            recorder.ended(Span {
                change,
                id: change.root,
                parent: SpanId::INVALID,
                kind: SpanKind::Internal,
                name: "change",
                began: if live { at(work.pending.since_ms) } else { self.began },
                attributes: object(&work.key),
                failed: None,
            });
        }
    }
}

/// A request to a store, on behalf of a try that is recorded.
#[derive(Debug)]
pub struct Request {
    attempt: Attempt,
    operation: &'static str,
    began: SystemTime,
}

/// A request begins; `None` if it is not recorded.
pub fn request(operation: &'static str) -> Option<Request> {
    let attempt = ATTEMPT.try_with(|attempt| *attempt).ok()??;
    Some(Request { attempt, operation, began: clock::now() })
}

impl Request {
    /// The head of the answer is here, with this status, or there will be none.
    pub fn end(self, endpoint: &str, answer: Result<u16, &StoreError>) {
        let Some(recorder) = RECORDER.get() else { return };
        let mut attributes = vec![KeyValue::new("server.address", endpoint.to_owned())];
        let status = answer.map_or_else(|error| error.status, Some);
        let status =
            status.map(|status| KeyValue::new("http.response.status_code", i64::from(status)));
        attributes.extend(status);
        attributes.extend(answer.err().map(|error| KeyValue::new("error.type", error.kind.name())));
        recorder.ended(Span {
            change: self.attempt.change,
            id: new_id(),
            parent: self.attempt.id,
            kind: SpanKind::Client,
            name: self.operation,
            began: self.began,
            attributes,
            failed: answer.err().map(ToString::to_string),
        });
    }
}

/// One change of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    trace: TraceId,
    root: SpanId,
}

impl Change {
    fn of(key: &ObjectKey, since_ms: i64) -> Self {
        let mut hash = Sha256::new();
        hash.update(since_ms.to_le_bytes());
        hash.update(key.bucket.as_bytes());
        hash.update([0]);
        hash.update(key.key.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        Self {
            trace: TraceId::from_bytes(digest.first_chunk().copied().unwrap_or_default()),
            root: SpanId::from_bytes(digest.last_chunk().copied().unwrap_or_default()),
        }
    }

    /// Whether it belongs to this share of all changes. Every part of a change answers alike.
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    fn is_in(self, share: f64) -> bool {
        let low = self.trace.to_bytes().last_chunk().copied().unwrap_or_default();
        let place = u64::from_be_bytes(low) as f64 / u64::MAX as f64;
        share >= 1.0 || place < share
    }
}

/// A span that is over.
struct Span {
    change: Change,
    id: SpanId,
    parent: SpanId,
    kind: SpanKind,
    name: &'static str,
    began: SystemTime,
    attributes: Vec<KeyValue>,
    failed: Option<String>,
}

#[derive(Debug)]
struct Recorder {
    sender: Sender,
    share: f64,
    scope: InstrumentationScope,
}

impl Recorder {
    fn change(&self, key: &ObjectKey, since_ms: i64) -> Option<Change> {
        Some(Change::of(key, since_ms)).filter(|change| change.is_in(self.share))
    }

    fn ended(&self, span: Span) {
        let Span { change, id, parent, kind, name, began, attributes, failed } = span;
        let end_time = clock::now();
        self.sender.send(SpanData {
            span_context: SpanContext::new(
                change.trace,
                id,
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: kind,
            name: Cow::Borrowed(name),
            // Clocks of two machines differ.
            start_time: began.min(end_time),
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: failed.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        });
    }
}

/// The names that OpenTelemetry's conventions give them.
fn object(key: &ObjectKey) -> Vec<KeyValue> {
    vec![
        KeyValue::new("aws.s3.bucket", key.bucket.to_string()),
        KeyValue::new("aws.s3.key", key.key.to_string()),
    ]
}

fn new_id() -> SpanId {
    SpanId::from_bytes(rand::random())
}

fn at(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_the_same_trace_in_every_process_and_another_change_another_one() {
        let key = ObjectKey::new("lake", "a/b");
        let change = Change::of(&key, 7);
        assert_eq!(change, Change::of(&ObjectKey::new("lake", "a/b"), 7));
        for other in [Change::of(&key, 8), Change::of(&ObjectKey::new("lak", "ea/b"), 7)] {
            assert!(other.trace != change.trace && other.root != change.root);
        }
    }

    #[test]
    fn a_sampler_keeps_its_share_of_the_changes() {
        let kept = |share| {
            (0..10_000).filter(|at| Change::of(&ObjectKey::new("b", "k"), *at).is_in(share)).count()
        };
        assert_eq!((kept(share(None, None)), kept(share(Some("always_off"), None))), (10_000, 0));
        assert_eq!(kept(share(Some("traceidratio"), Some("no number"))), 10_000);
        let tenth = kept(share(Some("parentbased_traceidratio"), Some("0.1")));
        assert!((800..1_200).contains(&tenth), "{tenth}");
    }

    #[test]
    fn without_an_endpoint_nothing_is_recorded() {
        assert!(request("GetObject").is_none());
        received(&[], 0);
    }
}
