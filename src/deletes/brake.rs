//! The brake on deletes: pure counting, no I/O.
//!
//! A burst of confirmed deletes that looks like a disaster is held for a person to approve. Once a
//! bucket's brake is on, every further delete in it is held until someone approves or discards.

use std::collections::HashMap;
use std::sync::Arc;

use super::verdict::FEW_DELETES;
use crate::clock;
use crate::config::settings::DeleteSettings;

/// After so many deletes in the window the source is asked whether it still lists anything at all: a
/// bucket that looks wiped costs no more of its copy than these. Fewer are everyday work, also in a
/// small bucket whose last object goes; a pass judges by as many.
const LOOK_AFTER: u64 = FEW_DELETES;
/// A look is not repeated sooner than this.
const LOOK_EVERY_MS: i64 = 1_000;
const SLOTS: i64 = 10;

/// What to do with a delete that the source has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Carry it out.
    Allow,
    /// Ask the source for a listing first: if it is empty, pull the brake. Nobody else passes until
    /// this look has ended.
    Look,
    /// Someone is looking; come back in a moment.
    Wait,
    /// Hold it.
    Hold(Arc<str>),
}

#[derive(Debug, Default)]
struct Brake {
    /// Deletes per tenth of the window, by number of the tenth since the epoch.
    slots: HashMap<i64, u64>,
    looked_ms: Option<i64>,
    looking: bool,
    on: Option<Arc<str>>,
}

/// The brakes of all buckets.
#[derive(Debug)]
pub(crate) struct Guard {
    max_deletes: u64,
    slot_ms: i64,
    brakes: HashMap<Arc<str>, Brake>,
}

impl Guard {
    pub(crate) fn new(settings: &DeleteSettings) -> Self {
        let window_ms = clock::signed_millis(settings.window);
        Self {
            max_deletes: settings.max_deletes,
            slot_ms: (window_ms / SLOTS).max(1),
            brakes: HashMap::new(),
        }
    }

    /// Decides on one confirmed delete, and counts it if it is allowed.
    pub(crate) fn admit(&mut self, bucket: &Arc<str>, now_ms: i64) -> Verdict {
        let brake = self.brakes.entry(Arc::clone(bucket)).or_default();
        if let Some(reason) = &brake.on {
            return Verdict::Hold(Arc::clone(reason));
        }
        let slot = now_ms / self.slot_ms;
        brake.slots.retain(|at, _| *at > slot - SLOTS);
        let recent: u64 = brake.slots.values().sum();
        if recent >= self.max_deletes {
            let reason: Arc<str> = format!(
                "more than {} deletes in {} s (deletes.max_deletes, deletes.window)",
                self.max_deletes,
                self.slot_ms * SLOTS / 1_000
            )
            .into();
            brake.on = Some(Arc::clone(&reason));
            return Verdict::Hold(reason);
        }
        let looked_lately = brake.looked_ms.is_some_and(|at| now_ms - at < LOOK_EVERY_MS);
        if recent >= LOOK_AFTER && !looked_lately {
            let taken = std::mem::replace(&mut brake.looking, true);
            return if taken { Verdict::Wait } else { Verdict::Look };
        }
        *brake.slots.entry(slot).or_default() += 1;
        Verdict::Allow
    }

    /// The source was asked and still lists objects.
    pub(crate) fn looked(&mut self, bucket: &Arc<str>, now_ms: i64) {
        self.brakes.entry(Arc::clone(bucket)).or_default().looked_ms = Some(now_ms);
    }

    /// The look has ended, whatever came of it: if it failed, the next delete looks.
    pub(crate) fn look_ended(&mut self, bucket: &str) {
        if let Some(brake) = self.brakes.get_mut(bucket) {
            brake.looking = false;
        }
    }

    /// Holds all further deletes in the bucket.
    pub(crate) fn pull(&mut self, bucket: &Arc<str>, reason: Arc<str>) {
        self.brakes.entry(Arc::clone(bucket)).or_default().on = Some(reason);
    }

    /// Someone decided on the held deletes: start counting afresh.
    pub(crate) fn release(&mut self, bucket: &str) {
        self.brakes.remove(bucket);
    }

    /// Why the bucket's brake is on, if it is.
    pub(crate) fn reason(&self, bucket: &str) -> Option<Arc<str>> {
        self.brakes.get(bucket)?.on.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn guard(max_deletes: u64) -> (Guard, Arc<str>) {
        let settings = DeleteSettings {
            max_deletes,
            window: Duration::from_secs(10),
            ..DeleteSettings::default()
        };
        (Guard::new(&settings), "b".into())
    }

    #[test]
    fn deletes_beyond_the_maximum_in_a_window_are_held_until_released() {
        let (mut guard, bucket) = guard(3);
        for _ in 0..3 {
            assert_eq!(guard.admit(&bucket, 1_000), Verdict::Allow);
        }
        assert!(matches!(guard.admit(&bucket, 1_000), Verdict::Hold(_)));
        // The brake stays on although the window has passed.
        assert!(matches!(guard.admit(&bucket, 100_000), Verdict::Hold(_)));
        guard.release("b");
        assert_eq!(guard.admit(&bucket, 100_000), Verdict::Allow);
    }

    #[test]
    fn a_steady_trickle_is_never_held() {
        let (mut guard, bucket) = guard(3);
        for second in 0..100 {
            assert_eq!(guard.admit(&bucket, second * 5_000), Verdict::Allow);
        }
    }

    #[test]
    fn in_a_burst_nobody_passes_until_one_has_looked_at_the_source_within_a_second() {
        let (mut guard, bucket) = guard(1_000);
        for _ in 0..LOOK_AFTER {
            assert_eq!(guard.admit(&bucket, 5), Verdict::Allow);
        }
        // The first look fails, and the next delete looks again.
        for _ in 0..2 {
            assert_eq!(guard.admit(&bucket, 5), Verdict::Look);
            assert_eq!(guard.admit(&bucket, 5), Verdict::Wait);
            guard.look_ended(&bucket);
        }
        assert_eq!(guard.admit(&bucket, 5), Verdict::Look);
        guard.looked(&bucket, 6);
        guard.look_ended(&bucket);
        assert_eq!(guard.admit(&bucket, 6), Verdict::Allow);
        assert_eq!(guard.admit(&bucket, 1_500), Verdict::Look);
        assert_eq!(guard.admit(&bucket, 1_500), Verdict::Wait);
    }

    #[test]
    fn one_buckets_brake_does_not_hold_another_bucket() {
        let (mut guard, bucket) = guard(3);
        guard.pull(&bucket, "its listing is empty".into());
        assert!(matches!(guard.admit(&bucket, 5), Verdict::Hold(_)));
        assert_eq!(guard.admit(&"other".into(), 5), Verdict::Allow);
    }
}
