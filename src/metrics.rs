//! Everything that is counted, in one place; Prometheus conventions.
//!
//! [`METRICS`] is the list that the README's table is checked against, and the only place where
//! names and help texts are written. Counting never blocks, except that the first error of a class
//! takes a lock once. State that has an owner elsewhere (pending keys, the journal) is not counted
//! here but read from a [`Snapshot`] when somebody scrapes.

mod labels;
mod lag;
mod table;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use serde::Serialize;

use crate::clock;
use crate::gaps::GapReason;
use crate::reconcile::merge::Finding;
pub use labels::{Action, EventOutcome, PassOutcome, RequestOutcome, Stage};
use labels::{DRIFT_KINDS, drift_kind};
pub use lag::LagSummary;
use lag::RecentLags;
pub use table::{ACTIVE, METRICS, MetricInfo, Snapshot};

/// The media type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The counters since the start, for the status page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Objects copied.
    pub copied: u64,
    /// Objects deleted on the target.
    pub deleted: u64,
    /// Objects whose tags alone were written.
    pub tagged: u64,
    /// Keys that agreed already.
    pub unchanged: u64,
    /// Objects gone from the source that an archive keeps.
    pub kept: u64,
    /// Objects that a listing named and that neither side has.
    pub ghosts: u64,
    /// Bytes of the objects copied.
    pub bytes: u64,
    /// Errors, by place and kind.
    pub errors: Vec<ErrorCount>,
}

/// How often one kind of error happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorCount {
    /// Where.
    pub stage: Stage,
    /// Which kind ([`crate::store::ErrorKind::name`] for calls to a store).
    pub class: &'static str,
    /// How often.
    pub count: u64,
}

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Value = Gauge<f64, AtomicU64>;

/// All metrics of the process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Family<Labels<1>, Counter>,
    events: Family<Labels<1>, Counter>,
    ack: Histogram,
    lag: Histogram,
    replicated: Family<Labels<1>, Counter>,
    bytes: Counter,
    errors: Family<Labels<2>, Counter>,
    error_classes: Mutex<BTreeMap<(Stage, &'static str), Counter>>,
    gaps: Family<Labels<1>, Counter>,
    gaps_open: Family<Labels<1>, Value>,
    passes: Family<Labels<1>, Counter>,
    drift: Family<Labels<1>, Counter>,
    compared: Counter,
    snapshot_failures: Counter,
    capture_failures: Counter,
    intake_up: Family<Labels<1>, Value>,
    intake_last_event: Family<Labels<1>, Value>,
    intake_backlog: Family<Labels<1>, Value>,
    intake_backlog_age: Family<Labels<1>, Value>,
    state: BTreeMap<&'static str, Value>,
    recent_lags: RecentLags,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero. Once per process.
    pub fn new() -> Self {
        let mut all = Registry::default();
        // As every client library names it, so that alerts need to know no program.
        let began = register(&mut all, "process_start_time_seconds", Value::default());
        began.set(seconds(clock::now_ms()));
        let registry = all.sub_registry_with_prefix("evermirror");
        let build: Family<Labels<1>, Gauge> =
            register(registry, "evermirror_build_info", Family::default());
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        let requests = family("outcome", RequestOutcome::ALL.map(RequestOutcome::name));
        let events = family("outcome", EventOutcome::ALL.map(EventOutcome::name));
        let replicated = family("action", Action::ALL.map(Action::name));
        let passes = family("outcome", PassOutcome::ALL.map(PassOutcome::name));
        let drift = family("kind", DRIFT_KINDS);
        let state: BTreeMap<_, _> =
            Snapshot::default().values().map(|(name, _)| (name, Value::default())).into();
        for (name, value) in &state {
            register(registry, name, value.clone());
        }
        let inner = Inner {
            requests: register(registry, "evermirror_intake_requests_total", requests),
            events: register(registry, "evermirror_intake_events_total", events),
            ack: register(registry, "evermirror_intake_ack_seconds", Histogram::new(ACK)),
            intake_up: register(registry, "evermirror_intake_up", Family::default()),
            intake_last_event: register(
                registry,
                "evermirror_intake_last_event_timestamp_seconds",
                Family::default(),
            ),
            intake_backlog: register(registry, "evermirror_intake_backlog", Family::default()),
            intake_backlog_age: register(
                registry,
                "evermirror_intake_backlog_age_seconds",
                Family::default(),
            ),
            lag: register(registry, "evermirror_lag_seconds", Histogram::new(LAG)),
            replicated: register(registry, "evermirror_replicated_total", replicated),
            bytes: register(registry, "evermirror_replicated_bytes_total", Counter::default()),
            errors: register(registry, "evermirror_errors_total", Family::default()),
            gaps: register(registry, "evermirror_gaps_total", Family::default()),
            gaps_open: register(registry, "evermirror_gaps_open", Family::default()),
            passes: register(registry, "evermirror_reconcile_passes_total", passes),
            drift: register(registry, "evermirror_drift_total", drift),
            compared: register(registry, "evermirror_reconcile_keys_total", Counter::default()),
            snapshot_failures: register(
                registry,
                "evermirror_snapshot_failures_total",
                Counter::default(),
            ),
            capture_failures: register(
                registry,
                "evermirror_capture_failures_total",
                Counter::default(),
            ),
            error_classes: Mutex::default(),
            state,
            recent_lags: RecentLags::default(),
            registry: all,
        };
        Self(Arc::new(inner))
    }

    /// A request to an intake was answered.
    pub fn intake_request(&self, outcome: RequestOutcome) {
        self.0.requests.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    /// `count` events met this outcome.
    pub fn intake_events(&self, outcome: EventOutcome, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.0.events.get_or_create(&[("outcome", outcome.name())]).inc_by(count);
    }

    /// From the arrival of a notification until it was acknowledged.
    pub fn intake_acknowledged(&self, took: Duration) {
        self.0.ack.observe(took.as_secs_f64());
    }

    /// How an intake is: whether notifications arrive by it, and if it can be known how many wait where
    /// it reads from and for how long.
    pub fn intake_state(&self, name: &'static str, up: bool, backlog: Option<(u64, Duration)>) {
        let labels = [("intake", name)];
        self.0.intake_up.get_or_create(&labels).set(f64::from(u8::from(up)));
        if let Some((messages, age)) = backlog {
            #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
            self.0.intake_backlog.get_or_create(&labels).set(messages as f64);
            self.0.intake_backlog_age.get_or_create(&labels).set(age.as_secs_f64());
        } else {
            // No number rather than a wrong one.
            self.0.intake_backlog.remove(&labels);
            self.0.intake_backlog_age.remove(&labels);
        }
    }

    /// When the last notification arrived by an intake (milliseconds since the Unix epoch); 0 if none has.
    pub fn intake_heard(&self, name: &'static str, at_ms: i64) {
        self.0.intake_last_event.get_or_create(&[("intake", name)]).set(seconds(at_ms));
    }

    /// The reasons of the gaps that are open, one for each bucket.
    pub fn gaps_open(&self, reasons: impl IntoIterator<Item = GapReason>) {
        let reasons: Vec<_> = reasons.into_iter().collect();
        for reason in GapReason::ALL {
            let open = reasons.iter().filter(|open| **open == reason).count();
            let open = u32::try_from(open).unwrap_or(u32::MAX);
            self.0.gaps_open.get_or_create(&[("reason", reason.name())]).set(f64::from(open));
        }
    }

    /// An object of `bytes` was copied.
    pub fn copied(&self, bytes: u64) {
        self.replicated(Action::Copied);
        self.0.bytes.inc_by(bytes);
    }

    /// A key was dealt with. Copies are counted by [`Metrics::copied`].
    pub fn replicated(&self, action: Action) {
        self.0.replicated.get_or_create(&[("action", action.name())]).inc();
    }

    /// From the source's event time to the target's acknowledgement. A clock that runs behind the
    /// source's can make it negative; that counts as none.
    pub fn lag(&self, lag_ms: i64) {
        let lag = Duration::from_millis(u64::try_from(lag_ms).unwrap_or(0));
        self.0.lag.observe(lag.as_secs_f64());
        self.0.recent_lags.record(lag);
    }

    /// Something failed.
    pub fn error(&self, stage: Stage, class: &'static str) {
        let mut classes = self.0.error_classes.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = [("stage", stage.name()), ("class", class)];
        classes
            .entry((stage, class))
            .or_insert_with(|| self.0.errors.get_or_create_owned(&labels))
            .inc();
    }

    /// A gap was recorded.
    pub fn gap(&self, reason: GapReason) {
        self.0.gaps.get_or_create(&[("reason", reason.name())]).inc();
    }

    /// A pass of the reconciler ended.
    pub fn reconcile_pass(&self, outcome: PassOutcome) {
        self.0.passes.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    /// The reconciler found a difference.
    pub fn drift(&self, finding: Finding) {
        self.0.drift.get_or_create(&[("kind", drift_kind(finding))]).inc();
    }

    /// The reconciler compared so many keys.
    pub fn keys_compared(&self, count: u64) {
        self.0.compared.inc_by(count);
    }

    /// A volume snapshot that was due could not be taken.
    pub fn snapshot_failed(&self) {
        self.0.snapshot_failures.inc();
    }

    /// The source's settings could not be captured, or not all.
    pub fn capture_failed(&self) {
        self.0.capture_failures.inc();
    }

    /// The lags of the last 4,096 replicated events.
    pub fn lag_summary(&self) -> LagSummary {
        self.0.recent_lags.summary()
    }

    /// The counters.
    pub fn totals(&self) -> Totals {
        let of =
            |action: Action| self.0.replicated.get_or_create(&[("action", action.name())]).get();
        let classes = self.0.error_classes.lock().unwrap_or_else(PoisonError::into_inner);
        Totals {
            copied: of(Action::Copied),
            deleted: of(Action::Deleted),
            tagged: of(Action::Tagged),
            unchanged: of(Action::Unchanged),
            kept: of(Action::Kept),
            ghosts: of(Action::Ghost),
            bytes: self.0.bytes.get(),
            errors: classes
                .iter()
                .map(|(&(stage, class), count)| ErrorCount { stage, class, count: count.get() })
                .collect(),
        }
    }

    /// All metrics as text ([`CONTENT_TYPE`]), with the state at this moment.
    pub fn encode(&self, state: &Snapshot) -> Result<String, std::fmt::Error> {
        for (name, value) in state.values() {
            if let Some(gauge) = self.0.state.get(name) {
                gauge.set(value);
            }
        }
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

/// Registers under the help text of [`METRICS`]; the exposition adds prefix and suffix again.
fn register<M: Metric + Clone>(registry: &mut Registry, name: &'static str, metric: M) -> M {
    let help = METRICS.iter().find(|info| info.name == name).map_or("", |info| info.help);
    let short = name.trim_start_matches("evermirror_");
    let short = short.trim_end_matches("_total");
    registry.register(short, help.trim_end_matches('.'), metric.clone());
    metric
}

/// A counter for each value of a label, all of them shown from the start.
fn family(
    label: &'static str,
    values: impl IntoIterator<Item = &'static str>,
) -> Family<Labels<1>, Counter> {
    let counters = Family::default();
    for value in values {
        drop(counters.get_or_create_owned(&[(label, value)]));
    }
    counters
}

/// A time in milliseconds as Prometheus wants it.
fn seconds(at_ms: i64) -> f64 {
    Duration::from_millis(u64::try_from(at_ms).unwrap_or(0)).as_secs_f64()
}

/// Seconds: an acknowledgement is one fsync, or up to `intake.webhook.max_wait`.
const ACK: [f64; 14] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0, 20.0];

/// Seconds: milliseconds when all is well, minutes behind a target that was down.
const LAG: [f64; 22] = [
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_is_in_the_table_with_a_help_text_and_no_other_is_exposed() {
        let metrics = Metrics::new();
        metrics.copied(7);
        metrics.error(Stage::Target, "throttled");
        metrics.gap(GapReason::JournalFull);
        metrics.intake_state("sqs", true, Some((1, Duration::from_secs(2))));
        metrics.intake_heard("sqs", 5);
        metrics.gaps_open([]);
        let text = metrics.encode(&Snapshot::default()).unwrap();
        let exposed: BTreeSet<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .map(
                |(name, kind)| {
                    if kind == "counter" { format!("{name}_total") } else { name.to_owned() }
                },
            )
            .collect();
        let listed: BTreeSet<_> = METRICS.iter().map(|info| info.name.to_owned()).collect();
        assert_eq!(exposed, listed);
        assert!(METRICS.iter().all(|info| info.help.ends_with('.') && info.help.len() > 20));
        assert_eq!(METRICS.len(), listed.len(), "no name twice");
        for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            assert!(line.split_once(' ').is_some_and(|(_, help)| help.len() > 20), "{line}");
        }
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        metrics.copied(1000);
        metrics.copied(24);
        metrics.replicated(Action::Deleted);
        metrics.error(Stage::Source, "denied");
        metrics.error(Stage::Source, "denied");
        metrics.lag(12);
        metrics.lag(-5);
        metrics.gap(GapReason::JournalFull);
        metrics.intake_events(EventOutcome::Duplicate, 3);
        metrics.intake_state("webhook", false, None);
        metrics.intake_heard("webhook", 1_800_000_000_500);
        metrics.gaps_open([GapReason::JournalFull, GapReason::DeadLetter, GapReason::JournalFull]);
        let before = clock::now_ms();
        metrics.intake_state("sqs", true, Some((9, Duration::from_millis(2500))));
        let text = metrics.encode(&Snapshot { pending_keys: 5, ..Snapshot::default() }).unwrap();
        for line in [
            "evermirror_replicated_total{action=\"copied\"} 2",
            "evermirror_replicated_total{action=\"tagged\"} 0",
            "evermirror_replicated_bytes_total 1024",
            "evermirror_errors_total{stage=\"source\",class=\"denied\"} 2",
            "evermirror_gaps_total{reason=\"journal_full\"} 1",
            "evermirror_gaps_open{reason=\"journal_full\"} 2.0",
            "evermirror_gaps_open{reason=\"dead_letter\"} 1.0",
            "evermirror_gaps_open{reason=\"journal_damaged\"} 0.0",
            "evermirror_intake_last_event_timestamp_seconds{intake=\"webhook\"} 1800000000.5",
            "evermirror_intake_events_total{outcome=\"duplicate\"} 3",
            "evermirror_intake_up{intake=\"webhook\"} 0.0",
            "evermirror_intake_up{intake=\"sqs\"} 1.0",
            "evermirror_intake_backlog{intake=\"sqs\"} 9.0",
            "evermirror_intake_backlog_age_seconds{intake=\"sqs\"} 2.5",
            "evermirror_lag_seconds_bucket{le=\"0.015\"} 2",
            "evermirror_lag_seconds_bucket{le=\"0.01\"} 1",
            "evermirror_pending_keys 5.0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        let began = text.lines().find_map(|line| line.strip_prefix("process_start_time_seconds "));
        let ago = seconds(before) - began.unwrap().parse::<f64>().unwrap();
        assert!((0.0..3600.0).contains(&ago), "began {ago} s ago");
        let denied = ErrorCount { stage: Stage::Source, class: "denied", count: 2 };
        let expected = Totals {
            copied: 2,
            deleted: 1,
            bytes: 1024,
            errors: vec![denied],
            ..Totals::default()
        };
        assert_eq!(metrics.totals(), expected);
        assert!(!text.contains("backlog{intake=\"webhook\"}"), "a backlog that nobody knows");
    }
}
