//! Whether settings make sense together; pure, without I/O.

mod intakes;
mod kubernetes;
mod stores;

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::{Location, Problem};
use super::settings::{
    DeleteSettings, JournalSettings, LogSettings, ReconcileSettings, ReplicateSettings, Settings,
    WebSettings,
};
use super::units::ByteSize;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every rule that is broken, by the path of the key to change.
pub(super) fn validate(settings: &Settings) -> Vec<Problem> {
    let mut check = Check::default();
    check.store("source", &settings.source);
    check.store("target", &settings.target.store());
    check.encryption(&settings.target);
    check.buckets(&settings.buckets);
    check.same_place(settings);
    check.listeners(settings);
    check.intakes(&settings.intake);
    check.web(&settings.web);
    if let Some(capture) = &settings.capture {
        check.capture(capture, settings);
    }
    check.journal(&settings.journal);
    check.replicate(&settings.replicate);
    check.deletes(&settings.deletes);
    check.reconcile(&settings.reconcile);
    if let Some(lease) = &settings.lease {
        check.lease(lease, settings.intake.shares_buckets());
    }
    if let Some(snapshot) = &settings.snapshot {
        check.snapshot(snapshot);
    }
    check.log(&settings.log);
    check.problems
}

#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn report(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::at(Location::Path(path.into()), message));
    }

    fn range<T: PartialOrd + Display + Copy>(
        &mut self,
        path: &str,
        value: T,
        limits: RangeInclusive<T>,
    ) {
        if !limits.contains(&value) {
            let name = path.rsplit('.').next().unwrap_or(path);
            let (low, high) = limits.into_inner();
            self.report(path, format!("`{name}` must be between {low} and {high}, not {value}"));
        }
    }

    fn size(&mut self, path: &str, value: ByteSize, low: u64, high: u64) {
        self.range(path, value, ByteSize(low)..=ByteSize(high));
    }

    fn duration(&mut self, path: &str, value: Duration, low: Duration, high: Duration) {
        let show = humantime::format_duration;
        if value < low || value > high {
            let name = path.rsplit('.').next().unwrap_or(path);
            let (low, high, value) = (show(low), show(high), show(value));
            self.report(path, format!("`{name}` must be between {low} and {high}, not {value}"));
        }
    }

    fn web(&mut self, web: &WebSettings) {
        if !web.read_without_token && web.auth_token.is_none() {
            self.report(
                "web.read_without_token",
                "`read_without_token = false` needs a token: set `auth_token` or `auth_token_file` in [web]",
            );
        }
    }

    fn journal(&mut self, journal: &JournalSettings) {
        self.size("journal.segment_size", journal.segment_size, MIB, GIB);
        let least = ByteSize(journal.segment_size.0.saturating_mul(2));
        if journal.max_size < least {
            let (size, segment) = (journal.max_size, journal.segment_size);
            self.report(
                "journal.max_size",
                format!("`max_size` must hold at least two segments ({least} with `segment_size` {segment}), not {size}"),
            );
        }
    }

    fn replicate(&mut self, replicate: &ReplicateSettings) {
        let r = replicate;
        let (zero, hour) = (Duration::ZERO, Duration::from_hours(1));
        let tick = Duration::from_millis(1);
        self.range("replicate.concurrency", r.concurrency, 1..=1024);
        self.range("replicate.large_concurrency", r.large_concurrency, 1..=1024);
        self.range("replicate.part_concurrency", r.part_concurrency, 1..=64);
        self.size("replicate.large_size", r.large_size, KIB, 5 * GIB);
        self.size("replicate.multipart_threshold", r.multipart_threshold, 5 * MIB, 5 * GIB);
        if let Some(bandwidth) = r.bandwidth {
            self.size("replicate.bandwidth", bandwidth, 64 * KIB, 1 << 40);
        }
        self.duration("replicate.min_interval", r.min_interval, zero, hour);
        self.duration("replicate.retry_initial", r.retry_initial, tick, hour);
        self.duration("replicate.retry_max", r.retry_max, tick, hour * 24);
        if r.retry_initial > r.retry_max {
            let show = humantime::format_duration;
            let (first, longest) = (show(r.retry_initial), show(r.retry_max));
            self.report(
                "replicate.retry_max",
                format!("`retry_max` ({longest}) is shorter than `retry_initial` ({first})"),
            );
        }
        self.range("replicate.max_pending_keys", r.max_pending_keys, 1_000..=10_000_000);
        self.duration("replicate.request_timeout", r.request_timeout, Duration::from_secs(1), hour);
        self.duration("replicate.drain_timeout", r.drain_timeout, zero, hour);
    }

    fn deletes(&mut self, deletes: &DeleteSettings) {
        let day = Duration::from_hours(24);
        self.duration("deletes.window", deletes.window, Duration::from_secs(1), day);
        self.range("deletes.max_delete_percent", deletes.max_delete_percent, 0..=100);
    }

    fn reconcile(&mut self, reconcile: &ReconcileSettings) {
        self.range("reconcile.parallel", reconcile.parallel, 1..=64);
        if let Some(rate) = reconcile.requests_per_second {
            self.range("reconcile.requests_per_second", rate, 1..=100_000);
        }
    }

    fn log(&mut self, log: &LogSettings) {
        if let Err(error) = log.filter.parse::<tracing_subscriber::EnvFilter>() {
            self.report(
                "log.filter",
                format!("`filter` must be a level such as \"info\", or levels by module such as \"info,evermirror::replicate=debug\": {error}"),
            );
        }
    }
}
