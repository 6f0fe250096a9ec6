//! Which snapshots may go: pure.

use super::Snapshot;

/// The snapshots of `claim` to delete, so that `retain` usable ones of ours stay. A failed one goes when a
/// newer one is usable or has failed, too. Nobody else's, none that is being made, never the newest usable one.
pub(super) fn expired<'a>(
    snapshots: &'a [Snapshot],
    claim: &str,
    retain: usize,
) -> Vec<&'a Snapshot> {
    let mut ours: Vec<_> =
        snapshots.iter().filter(|s| s.ours && s.claim.as_deref() == Some(claim)).collect();
    ours.sort_by(|a, b| (&b.asked_at, &b.name).cmp(&(&a.asked_at, &a.name)));
    let beyond = ours.iter().copied().filter(|s| s.usable()).skip(retain.max(1));
    let mut newer = false;
    let failed = ours.iter().copied().filter(move |s| {
        let superseded = newer;
        newer |= s.usable() || s.failed();
        superseded && s.failed()
    });
    beyond.chain(failed).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::{Origin, SnapshotState};

    fn snapshot(at: u32, ours: bool, ready: bool, failed: bool, claim: &str) -> Snapshot {
        Snapshot {
            name: format!("s{at}"),
            claim: Some(claim.to_owned()),
            class: None,
            state: if ready { SnapshotState::Ready } else { SnapshotState::Pending },
            asked_at: format!("2026-11-23T00:00:{at:02}Z"),
            cut_at: None,
            restore_size: None,
            error: failed.then(|| "no".to_owned()),
            ours,
            quiesced: false,
            origin: Origin::default(),
            uid: String::new(),
        }
    }

    fn names(snapshots: &[Snapshot], retain: usize) -> Vec<&str> {
        expired(snapshots, "c", retain).into_iter().map(|s| s.name.as_str()).collect()
    }

    #[test]
    fn as_many_usable_ones_stay_as_are_wanted() {
        let all: Vec<_> = (0..5).map(|at| snapshot(at, true, true, false, "c")).collect();
        assert_eq!(names(&all, 3), ["s1", "s0"]);
        assert_eq!(names(&all, 0), ["s3", "s2", "s1", "s0"]);
        assert!(names(&all, 5).is_empty());
    }

    #[test]
    fn of_those_that_failed_the_newest_stays_until_one_is_usable() {
        let mut all: Vec<_> = (0..3).map(|at| snapshot(at, true, false, true, "c")).collect();
        assert_eq!(names(&all, 9), ["s1", "s0"]);
        all.push(snapshot(3, true, true, false, "c"));
        assert_eq!(names(&all, 9), ["s2", "s1", "s0"]);
        // What is being made is not waited for, and not deleted.
        all.push(snapshot(4, true, false, false, "c"));
        assert_eq!(names(&all, 9), ["s2", "s1", "s0"]);
    }

    proptest! {
        #[test]
        fn neither_anothers_nor_the_last_good_one_is_ever_deleted(
            kinds in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 0..20),
            retain in 0_usize..5,
        ) {
            let all: Vec<_> = kinds.iter().zip(0..).map(|((ours, ready, failed, other), at)| {
                snapshot(at, *ours, *ready, *failed, if *other { "other" } else { "c" })
            }).collect();
            let gone = expired(&all, "c", retain);
            prop_assert!(gone.iter().all(|s| s.ours && s.claim.as_deref() == Some("c")));
            // Those being made stay.
            prop_assert!(gone.iter().all(|s| s.usable() || s.error.is_some()));
            let good = |s: &&Snapshot| s.ours && s.usable() && s.claim.as_deref() == Some("c");
            let kept = all.iter().filter(good).filter(|s| !gone.contains(s)).count();
            prop_assert_eq!(kept, all.iter().filter(good).count().min(retain.max(1)));
            if let Some(newest) = all.iter().rfind(good) {
                prop_assert!(!gone.contains(&newest));
            }
        }
    }
}
