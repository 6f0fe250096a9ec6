//! What the web pages and the commands may ask of a running process.
//!
//! Nothing here waits for a store; what takes time is done by the stage that is asked.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::stages::Stages;
use super::status;
use crate::deletes::Decision;
use crate::gaps::GapReason;
use crate::web::{Acted, HeldKey, HeldKeys, Operations, Status};

impl Operations for Stages {
    fn status(&self) -> Status {
        status::status(self)
    }

    fn ready(&self) -> Result<(), String> {
        let ready = self.readiness();
        // Whoever routes notifications by this answer sends none meanwhile, so none is refused and recorded.
        let unheard = self.unready.swap(self.journal.stats().full, Ordering::Relaxed);
        if unheard && ready.is_ok() && self.settings.intake.webhook.is_some() {
            self.doubt_all_buckets(GapReason::JournalFull);
        }
        ready
    }

    fn reconcile(&self, bucket: Option<&str>, prefix: Option<&str>) -> Result<u64, String> {
        if !*self.leads.borrow() {
            return Err("another process of this Kafka group reconciles: ask the one that has partition 0, whose log says so".to_owned());
        }
        self.reconciler.request(bucket, prefix).map_err(|error| error.to_string())
    }

    fn held_keys<'a>(&'a self, bucket: &'a str, most: usize) -> HeldKeys<'a> {
        Box::pin(async move {
            let keys = self.hold.keys(bucket, most).await.map_err(|error| error.to_string())?;
            let held =
                |(key, since_ms): (Arc<str>, i64)| HeldKey { key: key.to_string(), since_ms };
            Ok(keys.into_iter().map(held).collect())
        })
    }

    fn decide<'a>(&'a self, bucket: &'a str, decision: Decision) -> Acted<'a> {
        Box::pin(async move {
            let configured = self.settings.buckets.iter().any(|known| known.source == bucket);
            // What was held of a bucket that is configured no more can still be decided on.
            if !configured && !self.hold.holds(bucket) {
                let bucket = bucket.escape_debug();
                return Err(format!(
                    "bucket {bucket} is not in the configuration, and no delete of it is held"
                ));
            }
            self.hold.decide(&self.journal, bucket, decision).await.map_err(|error| {
                let bucket = bucket.escape_debug();
                format!("failed to move the held deletes of {bucket}: {error}")
            })
        })
    }
}
