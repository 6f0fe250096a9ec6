//! What is asked of Kubernetes.

use std::time::Duration;

use super::Check;
use crate::config::settings::{LeaseSettings, SnapshotSettings};

impl Check {
    pub(super) fn lease(&mut self, lease: &LeaseSettings, shares_buckets: bool) {
        let (tick, longest) = (Duration::from_millis(100), Duration::from_mins(10));
        self.kubernetes_name("lease.name", &lease.name);
        if shares_buckets {
            self.report(
                "lease.name",
                "[lease] is not for `ack = \"replicated\"` in [intake.kafka], with which several processes work at once: remove it",
            );
        }
        self.duration("lease.duration", lease.duration, Duration::from_secs(2), longest);
        self.duration("lease.renew_deadline", lease.renew_deadline, tick, longest);
        self.duration("lease.retry_period", lease.retry_period, tick, longest);
        let show = humantime::format_duration;
        // The process that ends needs a moment for it.
        if lease.renew_deadline + Duration::from_secs(1) > lease.duration {
            let (deadline, duration) = (show(lease.renew_deadline), show(lease.duration));
            self.report(
                "lease.renew_deadline",
                format!("`renew_deadline` ({deadline}) must be at least 1s shorter than `duration` ({duration})"),
            );
        }
        if lease.retry_period * 2 > lease.renew_deadline {
            let (period, deadline) = (show(lease.retry_period), show(lease.renew_deadline));
            self.report(
                "lease.retry_period",
                format!("`retry_period` ({period}) must be at most half of `renew_deadline` ({deadline})"),
            );
        }
    }

    pub(super) fn snapshot(&mut self, snapshot: &SnapshotSettings) {
        let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
        if snapshot.selector.trim().is_empty() {
            self.report(
                "snapshot.selector",
                "`selector` must be the labels of one claim, such as \"app.kubernetes.io/name=rustfs\"",
            );
        }
        if !snapshot.interval.is_zero() {
            self.duration("snapshot.interval", snapshot.interval, second, 366 * day);
        }
        self.range("snapshot.retain", snapshot.retain, 1..=10_000);
        self.duration("snapshot.ready_timeout", snapshot.ready_timeout, second, day);
        self.duration("snapshot.quiesce", snapshot.quiesce, Duration::ZERO, day);
    }

    /// As the API server names objects (RFC 1123):
    /// <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
    fn kubernetes_name(&mut self, path: &str, name: &str) {
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let edge = |c: char| !matches!(c, '-' | '.');
        let edges = name.starts_with(edge) && name.ends_with(edge);
        if name.len() > 253 || !edges || !name.chars().all(allowed) {
            let shown = name.escape_debug();
            self.report(
                path,
                format!("\"{shown}\" is not a Kubernetes name: lower-case letters, digits, hyphens and dots, with a letter or digit at both ends"),
            );
        }
    }
}
