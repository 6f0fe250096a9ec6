//! The status, as `/api/v1/status` answers it. Times are milliseconds, sizes are bytes.

use serde::Serialize;

use crate::capture::CaptureStatus;
use crate::clock;
use crate::deletes::HeldDeletes;
use crate::gaps::Gap;
use crate::intake::IntakeHealth;
use crate::lease::LeaseStatus;
use crate::metrics::{LagSummary, Snapshot, Totals};
use crate::reconcile::BucketProgress;
use crate::snapshot::SnapshotStatus;

/// What evermirror is doing now.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// The running version.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Notifications are taken and replicated.
    pub ready: bool,
    /// A graceful stop is under way.
    pub stopping: bool,
    /// What would be lost if the source died now.
    pub at_risk: AtRisk,
    /// How many keys are in which state.
    pub keys: KeyCounts,
    /// The lag of the last 4,096 events.
    pub lag: LagSummary,
    /// What was done since the start, and what failed.
    pub replicated: Totals,
    /// The keys in memory by bucket, where there are any.
    pub buckets: Vec<BucketPending>,
    /// The journal.
    pub journal: JournalStatus,
    /// Where notifications arrive.
    pub intakes: Vec<IntakeStatus>,
    /// How far it is behind in Kafka; zeros without a Kafka intake.
    pub kafka: KafkaStatus,
    /// Buckets that have yet to be reconciled.
    pub gaps: Vec<Gap>,
    /// The first 100 parked keys.
    pub parked: Vec<ParkedKey>,
    /// Deletes that wait for approval.
    pub held: Vec<HeldDeletes>,
    /// The time between two passes over a bucket, in milliseconds; 0 if there are none but on demand.
    pub reconcile_interval_ms: u64,
    /// The passes over each bucket.
    pub reconcile: Vec<BucketProgress>,
    /// How the capturing of the source's settings goes; absent without `[capture]`, and where another
    /// process of a Kafka group does it.
    pub capture: Option<CaptureStatus>,
    /// Deletes that wait for their time.
    pub delayed: Vec<DelayedDeletes>,
    /// The source.
    pub source: StoreStatus,
    /// The target.
    pub target: StoreStatus,
    /// How much is done at once.
    pub concurrency: Concurrency,
    /// The Lease that this process holds; absent where there is none. A standby has no status.
    pub lease: Option<LeaseStatus>,
    /// The volume snapshots that `run` takes; absent without a schedule, and where another process of a
    /// Kafka group takes them.
    pub snapshots: Option<SnapshotStatus>,
}

/// How far this process is behind in Kafka, in records of its partitions.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct KafkaStatus {
    /// Behind the committed offsets: what would be read again after a crash.
    pub lag: u64,
    /// Not read yet.
    pub unread: u64,
}

impl Status {
    /// When the bucket that has waited longest was last compared whole; 0 if never.
    fn reconciled_ms(&self) -> u64 {
        let last = |bucket: &BucketProgress| bucket.last_complete_ms.unwrap_or(0);
        let oldest = self.reconcile.iter().map(last).min();
        u64::try_from(oldest.unwrap_or(0)).unwrap_or(0)
    }

    /// When the source's settings were last known to be captured whole; 0 if never since the start.
    fn captured_ms(&self) -> u64 {
        let checked = self.capture.as_ref().and_then(|capture| capture.checked_ms);
        u64::try_from(checked.unwrap_or(0)).unwrap_or(0)
    }

    /// When the last usable snapshot was asked for; 0 if there is none.
    fn snapshot_ms(&self) -> u64 {
        let last = self.snapshots.as_ref().and_then(|snapshots| snapshots.last_ms);
        u64::try_from(last.unwrap_or(0)).unwrap_or(0)
    }

    /// The same as numbers, for the metrics.
    pub fn snapshot(&self, dead_letters: u64) -> Snapshot {
        Snapshot {
            oldest_pending_age_ms: self.at_risk.oldest_pending_age_ms.unwrap_or(0),
            pending_keys: self.keys.pending,
            pending_bytes: self.at_risk.bytes,
            pending_unsized_keys: self.at_risk.unsized_keys,
            in_flight_keys: self.keys.in_flight,
            parked_keys: self.keys.parked,
            held_deletes: self.keys.held,
            delayed_deletes: self.keys.delayed,
            concurrency_limit: self.concurrency.limit,
            dead_letters,
            kafka_lag_records: self.kafka.lag,
            kafka_unread_records: self.kafka.unread,
            journal_bytes: self.journal.bytes,
            journal_max_bytes: self.journal.max_bytes,
            journal_damaged_segments: self.journal.damaged_segments,
            journal_segments: self.journal.segments,
            journal_next_lsn: self.journal.next_lsn,
            journal_trimmed_lsn: self.journal.trimmed_lsn,
            journal_full: self.journal.full,
            reconciled_ms: self.reconciled_ms(),
            reconcile_interval_ms: self.reconcile_interval_ms,
            snapshot_ms: self.snapshot_ms(),
            snapshot_interval_ms: self.snapshots.as_ref().map_or(0, |taken| taken.interval_ms),
            captured_ms: self.captured_ms(),
            capture_interval_ms: self.capture.as_ref().map_or(0, |capture| capture.interval_ms),
            source_up: self.source.up,
            target_up: self.target.up,
        }
    }
}

/// If the source died now, changes up to this old, to this many keys, would not be on the target.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct AtRisk {
    /// The age of the oldest change that is not on the target; absent if there is none. Changes that
    /// were not yet read back from disk are newer than those in memory, and do not count here. Where parked
    /// keys are set aside on disk, it may be that of a key which was settled since then.
    pub oldest_pending_age_ms: Option<u64>,
    /// Keys whose last change is not on the target ([`KeyCounts::pending`]).
    pub keys: u64,
    /// The bytes of those whose size is known, as an event or a listing told it; the size of a key that
    /// is gone from the source is 0. If [`AtRisk::unsized_keys`] is not 0, it is at least so much.
    pub bytes: u64,
    /// Those of unknown size: the store's event told none, or the record was not read back from disk yet
    /// or comes from a build that kept none.
    pub unsized_keys: u64,
    /// Buckets in which events may have been missed, so that more may be at risk.
    pub buckets_in_doubt: u64,
}

/// What waits in one bucket, of the keys in memory: neither what was not yet read back from disk nor
/// what was set aside there.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BucketPending {
    /// The source's bucket.
    pub bucket: String,
    /// Keys whose last change is not on the target.
    pub pending: u64,
    /// Those being replicated.
    pub in_flight: u64,
    /// Those that failed and wait for their next try.
    pub parked: u64,
    /// The bytes of those whose size is known.
    pub bytes: u64,
    /// Those of unknown size.
    pub unsized_keys: u64,
    /// The age of the oldest change.
    pub oldest_pending_age_ms: Option<u64>,
    /// Why the bucket backs off, so that its keys are tried one at a time; absent while it is healthy.
    pub unhealthy: Option<String>,
}

/// Keys by state.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct KeyCounts {
    /// All whose last change is not on the target: those in flight and parked, and the records not
    /// yet read back from disk (a key with several of those counts several times).
    pub pending: u64,
    /// Being replicated.
    pub in_flight: u64,
    /// Failed, waiting for their next try.
    pub parked: u64,
    /// Deletes waiting for approval.
    pub held: u64,
    /// Deletes waiting for their time.
    pub delayed: u64,
}

/// The journal's state.
#[derive(Debug, Clone, Default, Serialize)]
pub struct JournalStatus {
    /// The number that the next record gets.
    pub next_lsn: u64,
    /// The lowest unfinished record.
    pub trimmed_lsn: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// The most it may take there (`journal.max_size`).
    pub max_bytes: u64,
    /// Segment files that hold records.
    pub segments: u64,
    /// Damaged segments, also of what is set aside, that were kept at the start for people to examine
    /// (`*.damaged` below `data_dir`).
    pub damaged_segments: u64,
    /// It refuses notifications for want of space.
    pub full: bool,
    /// Why it failed for good; the process exits and must be restarted.
    pub failed: Option<String>,
}

/// One intake.
#[derive(Debug, Clone, Default, Serialize)]
pub struct IntakeStatus {
    /// `webhook`, `sqs`, `kafka` or `listen`.
    pub name: &'static str,
    /// Where it listens or what it reads from.
    pub address: String,
    /// Why no notification arrives through it, if so.
    pub trouble: Option<String>,
    /// When the last notification arrived through it, milliseconds since the Unix epoch; absent if none has
    /// since the start.
    pub last_event_ms: Option<i64>,
    /// About how many notifications wait where it reads from, if it can know.
    pub backlog: Option<u64>,
    /// About how long the oldest of them has waited, if there is one.
    pub backlog_age_ms: Option<u64>,
}

impl From<&IntakeHealth> for IntakeStatus {
    fn from(health: &IntakeHealth) -> Self {
        let backlog = health.backlog();
        let age = |since: i64| u64::try_from(clock::now_ms() - since).unwrap_or_default();
        Self {
            name: health.name,
            address: health.address.clone(),
            trouble: health.trouble(),
            last_event_ms: health.last_event_ms(),
            backlog: backlog.map(|backlog| backlog.messages),
            backlog_age_ms: backlog.and_then(|backlog| backlog.oldest_ms).map(age),
        }
    }
}

/// A key that could not be replicated yet.
#[derive(Debug, Clone, Serialize)]
pub struct ParkedKey {
    /// The source's bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Why it failed last.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again.
    pub next_try_in_ms: u64,
}

/// One held delete.
#[derive(Debug, Clone, Serialize)]
pub struct HeldKey {
    /// The key.
    pub key: String,
    /// Since when the source has not had it, as far as is known; milliseconds since the Unix epoch.
    pub since_ms: i64,
}

/// The delayed deletes of one bucket.
#[derive(Debug, Clone, Serialize)]
pub struct DelayedDeletes {
    /// The source's bucket.
    pub bucket: String,
    /// How many.
    pub count: u64,
    /// When the next one is due; absent for a moment after a start.
    pub next_due_in_ms: Option<u64>,
}

/// One of the two stores.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StoreStatus {
    /// Scheme, host and port.
    pub endpoint: String,
    /// It answers.
    pub up: bool,
    /// How long it has been so.
    pub for_ms: u64,
    /// The last error of a call to it.
    pub last_error: Option<String>,
}

/// The limit in force, which adapts to what the target bears.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Concurrency {
    /// Keys that may be in flight now.
    pub limit: u64,
    /// Keys in flight.
    pub in_use: u64,
}
