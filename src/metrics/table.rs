//! The metrics by name, and the state that is read at each scrape.

/// One metric, for documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricInfo {
    /// Its full name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`, and its labels.
    pub kind: &'static str,
    /// What it means, with its unit.
    pub help: &'static str,
}

const fn info(name: &'static str, kind: &'static str, help: &'static str) -> MetricInfo {
    MetricInfo { name, kind, help }
}

/// The one metric that a standby has, too.
pub const ACTIVE: &str = "evermirror_active";

/// Every metric there is.
pub const METRICS: &[MetricInfo] = &[
    info("process_start_time_seconds", "gauge", "Unix time at which the process started."),
    info(
        "evermirror_build_info",
        "gauge {version}",
        "Always 1; the running version of evermirror.",
    ),
    info(
        "evermirror_intake_requests_total",
        "counter {outcome}",
        "Requests and messages to the intakes: ok, unauthorized, too_large, unavailable (the journal did not take it: 503 and a gap, or a message that stays in its queue), invalid.",
    ),
    info(
        "evermirror_intake_events_total",
        "counter {outcome}",
        "Events received: accepted, duplicate, ignored, dead_letter.",
    ),
    info(
        "evermirror_intake_ack_seconds",
        "histogram",
        "Seconds from a notification's arrival until its keys were durable and it was acknowledged.",
    ),
    info(
        "evermirror_intake_up",
        "gauge {intake}",
        "1 while notifications arrive by this intake, else 0.",
    ),
    info(
        "evermirror_intake_last_event_timestamp_seconds",
        "gauge {intake}",
        "Unix time at which the last notification arrived by this intake; 0 if none has since the start.",
    ),
    info(
        "evermirror_intake_backlog",
        "gauge {intake}",
        "About how many notifications wait where this intake reads from, and are not durable here yet.",
    ),
    info(
        "evermirror_intake_backlog_age_seconds",
        "gauge {intake}",
        "About how many seconds the oldest of those has waited.",
    ),
    info(
        "evermirror_lag_seconds",
        "histogram",
        "Seconds from the source's event time to the target's acknowledgement.",
    ),
    info(
        "evermirror_replicated_total",
        "counter {action}",
        "Keys dealt with: copied, deleted, tagged, unchanged, kept (a delete that an archive ignores), ghost (listed, and there on neither side).",
    ),
    info(
        "evermirror_replicated_bytes_total",
        "counter",
        "Bytes of the objects copied to the target.",
    ),
    info(
        "evermirror_errors_total",
        "counter {stage, class}",
        "Errors by stage (intake, journal, source, target, reconcile) and class.",
    ),
    info(
        "evermirror_gaps_total",
        "counter {reason}",
        "Times at which events of a bucket may have been missed, so that it is reconciled.",
    ),
    info(
        "evermirror_reconcile_passes_total",
        "counter {outcome}",
        "Passes of the reconciler over a bucket or a prefix: complete, resumed, failed.",
    ),
    info(
        "evermirror_drift_total",
        "counter {kind}",
        "Differences the reconciler found: missing, extra, different, newer, unverifiable.",
    ),
    info(
        "evermirror_reconcile_keys_total",
        "counter",
        "Keys that the reconciler compared on both sides.",
    ),
    info(
        "evermirror_reconcile_last_success_timestamp_seconds",
        "gauge",
        "Unix time of the last complete pass of the bucket whose last one is oldest; 0 if one has none.",
    ),
    info(
        "evermirror_reconcile_interval_seconds",
        "gauge",
        "The configured time between two passes over a bucket; 0 if there are none but on demand.",
    ),
    info(
        "evermirror_oldest_pending_age_seconds",
        "gauge",
        "Seconds since the oldest change that is not yet on the target: the recovery point now.",
    ),
    info("evermirror_pending_keys", "gauge", "Keys that wait to be replicated, on disk included."),
    info(
        "evermirror_pending_bytes",
        "gauge",
        "Bytes of those keys' objects, as far as they are known: lost if the source died now.",
    ),
    info(
        "evermirror_pending_unsized_keys",
        "gauge",
        "Keys among them whose size is unknown: evermirror_pending_bytes is without them.",
    ),
    info("evermirror_in_flight_keys", "gauge", "Keys that are being replicated now."),
    info("evermirror_parked_keys", "gauge", "Keys that failed and wait for their next try."),
    info("evermirror_held_deletes", "gauge", "Deletes that wait for a person's approval."),
    info(
        "evermirror_delayed_deletes",
        "gauge",
        "Deletes that wait until their bucket's delete_delay is over.",
    ),
    info("evermirror_concurrency_limit", "gauge", "Keys that may be in flight at once, now."),
    info(
        "evermirror_gaps_open",
        "gauge {reason}",
        "Buckets that have yet to be reconciled after a gap, by its last reason.",
    ),
    info(
        "evermirror_dead_letters",
        "gauge",
        "Notifications in the dead-letter list (at most 1,000).",
    ),
    info(
        "evermirror_kafka_lag_records",
        "gauge",
        "Kafka records behind the committed offsets, over this process's partitions.",
    ),
    info(
        "evermirror_kafka_unread_records",
        "gauge",
        "Kafka records that were not read yet, over this process's partitions.",
    ),
    info("evermirror_journal_bytes", "gauge", "Bytes of the journal's segments on disk."),
    info(
        "evermirror_journal_max_bytes",
        "gauge",
        "The most bytes that the journal may take on disk (journal.max_size).",
    ),
    info("evermirror_journal_segments", "gauge", "Segment files that hold records of the journal."),
    info("evermirror_journal_next_lsn", "gauge", "The number that the journal's next record gets."),
    info(
        "evermirror_journal_trimmed_lsn",
        "gauge",
        "The number of the journal's lowest unfinished record.",
    ),
    info("evermirror_journal_full", "gauge", "1 while the journal refuses notifications, else 0."),
    info(
        "evermirror_journal_damaged_segments",
        "gauge",
        "Damaged segment files that were kept for examination, when the process started.",
    ),
    info(
        ACTIVE,
        "gauge",
        "1 while this process replicates; a standby answers 0, and nothing else.",
    ),
    info(
        "evermirror_snapshot_last_success_timestamp_seconds",
        "gauge",
        "Unix time of the last volume snapshot of evermirror's that can be restored; 0 if there is none.",
    ),
    info(
        "evermirror_snapshot_interval_seconds",
        "gauge",
        "Seconds from one volume snapshot to the next; 0 if this process takes none by itself.",
    ),
    info(
        "evermirror_snapshot_failures_total",
        "counter",
        "Tries to take a volume snapshot on its schedule that failed.",
    ),
    info(
        "evermirror_capture_last_success_timestamp_seconds",
        "gauge",
        "When the source's settings were last found to be captured whole, as Unix time; 0 if never since the start.",
    ),
    info(
        "evermirror_capture_interval_seconds",
        "gauge",
        "Seconds from one capture of the source's settings to the next; 0 if this process takes none.",
    ),
    info(
        "evermirror_capture_failures_total",
        "counter",
        "Captures that failed, or that could not read every setting.",
    ),
    info("evermirror_source_up", "gauge", "1 while the source answers, else 0."),
    info("evermirror_target_up", "gauge", "1 while the target answers, else 0."),
];

/// State that other stages own, as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Snapshot {
    /// Age of the oldest change not yet on the target; 0 if there is none.
    pub oldest_pending_age_ms: u64,
    /// Keys that wait, on disk included.
    pub pending_keys: u64,
    /// The bytes of their objects, as far as they are known.
    pub pending_bytes: u64,
    /// Those of unknown size.
    pub pending_unsized_keys: u64,
    /// Keys being replicated.
    pub in_flight_keys: u64,
    /// Keys waiting for their next try.
    pub parked_keys: u64,
    /// Deletes waiting for approval.
    pub held_deletes: u64,
    /// Deletes waiting for their time.
    pub delayed_deletes: u64,
    /// How many keys may be in flight.
    pub concurrency_limit: u64,
    /// Entries in the dead-letter list.
    pub dead_letters: u64,
    /// Kafka records behind the committed offsets.
    pub kafka_lag_records: u64,
    /// Kafka records that were not read yet.
    pub kafka_unread_records: u64,
    /// Bytes of the journal on disk.
    pub journal_bytes: u64,
    /// The most it may take there.
    pub journal_max_bytes: u64,
    /// Damaged segments kept aside.
    pub journal_damaged_segments: u64,
    /// Segments that hold records.
    pub journal_segments: u64,
    /// The next record's number.
    pub journal_next_lsn: u64,
    /// The lowest unfinished record's number.
    pub journal_trimmed_lsn: u64,
    /// The journal refuses appends.
    pub journal_full: bool,
    /// When the bucket that has waited longest was last compared whole, in milliseconds since the Unix
    /// epoch; 0 if never.
    pub reconciled_ms: u64,
    /// The time between two passes, in milliseconds; 0 if there are none but on demand.
    pub reconcile_interval_ms: u64,
    /// When the last usable snapshot was asked for, in milliseconds since the Unix epoch; 0 if never.
    pub snapshot_ms: u64,
    /// From one snapshot to the next; 0 if there is none.
    pub snapshot_interval_ms: u64,
    /// When the source's settings were last captured whole, in milliseconds since the Unix epoch; 0 if
    /// never.
    pub captured_ms: u64,
    /// From one capture to the next; 0 if there is none.
    pub capture_interval_ms: u64,
    /// The source answers.
    pub source_up: bool,
    /// The target answers.
    pub target_up: bool,
}

impl Snapshot {
    /// Each value under its metric's name, in seconds and bytes.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
    pub(super) fn values(&self) -> [(&'static str, f64); 28] {
        [
            (
                "evermirror_oldest_pending_age_seconds",
                std::time::Duration::from_millis(self.oldest_pending_age_ms).as_secs_f64(),
            ),
            ("evermirror_pending_keys", self.pending_keys as f64),
            ("evermirror_pending_bytes", self.pending_bytes as f64),
            ("evermirror_pending_unsized_keys", self.pending_unsized_keys as f64),
            ("evermirror_in_flight_keys", self.in_flight_keys as f64),
            ("evermirror_parked_keys", self.parked_keys as f64),
            ("evermirror_held_deletes", self.held_deletes as f64),
            ("evermirror_delayed_deletes", self.delayed_deletes as f64),
            ("evermirror_concurrency_limit", self.concurrency_limit as f64),
            ("evermirror_dead_letters", self.dead_letters as f64),
            ("evermirror_kafka_lag_records", self.kafka_lag_records as f64),
            ("evermirror_kafka_unread_records", self.kafka_unread_records as f64),
            ("evermirror_journal_bytes", self.journal_bytes as f64),
            ("evermirror_journal_max_bytes", self.journal_max_bytes as f64),
            ("evermirror_journal_damaged_segments", self.journal_damaged_segments as f64),
            ("evermirror_journal_segments", self.journal_segments as f64),
            ("evermirror_journal_next_lsn", self.journal_next_lsn as f64),
            ("evermirror_journal_trimmed_lsn", self.journal_trimmed_lsn as f64),
            ("evermirror_journal_full", f64::from(u8::from(self.journal_full))),
            (
                "evermirror_reconcile_last_success_timestamp_seconds",
                std::time::Duration::from_millis(self.reconciled_ms).as_secs_f64(),
            ),
            (
                "evermirror_reconcile_interval_seconds",
                std::time::Duration::from_millis(self.reconcile_interval_ms).as_secs_f64(),
            ),
            (ACTIVE, 1.0),
            (
                "evermirror_snapshot_last_success_timestamp_seconds",
                std::time::Duration::from_millis(self.snapshot_ms).as_secs_f64(),
            ),
            (
                "evermirror_snapshot_interval_seconds",
                std::time::Duration::from_millis(self.snapshot_interval_ms).as_secs_f64(),
            ),
            (
                "evermirror_capture_last_success_timestamp_seconds",
                std::time::Duration::from_millis(self.captured_ms).as_secs_f64(),
            ),
            (
                "evermirror_capture_interval_seconds",
                std::time::Duration::from_millis(self.capture_interval_ms).as_secs_f64(),
            ),
            ("evermirror_source_up", f64::from(u8::from(self.source_up))),
            ("evermirror_target_up", f64::from(u8::from(self.target_up))),
        ]
    }
}
