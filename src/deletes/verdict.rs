//! What becomes of the objects that only the target has: pure.

use std::sync::Arc;

use super::brake::is_more;
use crate::config::settings::DeletePolicy;
use crate::reconcile::pass::PassReport;

/// So few deletes are never held for being a large share of a small bucket.
pub(crate) const FEW_DELETES: u64 = 20;

/// What is done with the extras of a complete pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They stay: the bucket is an archive, or the pass was not fit to delete by.
    Keep,
    /// Each is marked, and deleted if the source confirms that it is gone.
    Mark,
    /// A person decides.
    Hold(Arc<str>),
}

/// What the verdict rests on.
#[derive(Debug, Clone)]
pub(crate) struct Case<'a> {
    pub(crate) policy: DeletePolicy,
    /// Of a pass that compared every key of its bucket or prefix.
    pub(crate) report: &'a PassReport,
    /// How many extras there are to delete.
    pub(crate) extras: u64,
    /// How many of them came to the source while the pass ran: its two listings are not of one moment.
    pub(crate) came: u64,
    /// Only a prefix was walked, which may rightly be empty.
    pub(crate) prefix: bool,
    /// The bucket may be empty, too (`may_be_empty`).
    pub(crate) may_be_empty: bool,
    /// `deletes.max_delete_percent`.
    pub(crate) max_percent: u64,
    /// Why the brake is on already, if it is.
    pub(crate) brake: Option<Arc<str>>,
}

pub(crate) fn judge(case: &Case<'_>) -> Verdict {
    let (objects, extras) = (case.report.target_objects, case.extras.saturating_sub(case.came));
    if case.policy == DeletePolicy::Archive || extras == 0 || case.report.start_ignored {
        return Verdict::Keep;
    }
    let listed = case.report.source_objects.saturating_sub(case.report.own_objects);
    if listed == 0 && case.came == 0 && !case.prefix && !case.may_be_empty {
        return Verdict::Hold("the source's bucket lists no object, it looks wiped".into());
    }
    if let Some(reason) = &case.brake {
        return Verdict::Hold(Arc::clone(reason));
    }
    if extras > FEW_DELETES && is_more(extras, objects, case.max_percent) {
        let reason = format!(
            "a reconcile would delete {extras} of {objects} objects, more than {} % \
             (deletes.max_delete_percent)",
            case.max_percent
        );
        return Verdict::Hold(reason.into());
    }
    Verdict::Mark
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(
        source: u64,
        target: u64,
        extras: u64,
        change: impl FnOnce(&mut Case<'_>),
    ) -> Verdict {
        let report =
            PassReport { source_objects: source, target_objects: target, ..PassReport::default() };
        let mut case = case(&report, extras);
        change(&mut case);
        judge(&case)
    }

    #[test]
    fn a_source_that_lists_nothing_but_doctors_object_looks_wiped() {
        let report = PassReport {
            source_objects: 1,
            own_objects: 1,
            target_objects: 9,
            ..PassReport::default()
        };
        assert!(held(&judge(&case(&report, 8))));
    }

    fn case(report: &PassReport, extras: u64) -> Case<'_> {
        Case {
            policy: DeletePolicy::Mirror,
            report,
            extras,
            came: 0,
            prefix: false,
            may_be_empty: false,
            max_percent: 30,
            brake: None,
        }
    }

    fn held(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Hold(_))
    }

    #[test]
    fn a_pass_that_could_not_begin_where_it_asked_to_deletes_nothing() {
        let report = PassReport { start_ignored: true, ..PassReport::default() };
        assert_eq!(judge(&case(&report, 1)), Verdict::Keep);
    }

    #[test]
    fn an_empty_source_never_empties_the_target_however_small_it_is() {
        assert!(held(&verdict(0, 1, 1, |_| {})));
        assert!(held(&verdict(0, 1_000_000, 1_000_000, |_| {})));
    }

    #[test]
    fn more_than_the_share_is_held_and_a_few_are_not() {
        assert_eq!(verdict(70, 100, 30, |_| {}), Verdict::Mark);
        assert!(held(&verdict(69, 100, 31, |_| {})));
        assert_eq!(verdict(1, 21, 20, |_| {}), Verdict::Mark);
        assert!(held(&verdict(1, 22, 21, |_| {})));
        assert!(held(&verdict(1_000_000, 1_000_000, 21, |case| case.max_percent = 0)));
        assert_eq!(verdict(1, 1_000, 999, |case| case.max_percent = 100), Verdict::Mark);
    }

    #[test]
    fn what_came_between_the_listings_is_no_delete() {
        assert_eq!(verdict(69, 100, 31, |case| case.came = 1), Verdict::Mark);
        assert!(held(&verdict(60, 100, 40, |case| case.came = 1)));
        assert_eq!(verdict(0, 30, 30, |case| case.came = 20), Verdict::Mark, "it is not wiped");
        assert_eq!(verdict(0, 30, 30, |case| case.came = 30), Verdict::Keep);
    }

    #[test]
    fn a_bucket_that_may_be_empty_is_judged_by_its_share_too() {
        assert_eq!(verdict(0, 20, 20, |case| case.may_be_empty = true), Verdict::Mark);
        assert!(held(&verdict(0, 21, 21, |case| case.may_be_empty = true)));
    }

    #[test]
    fn an_emptied_prefix_is_judged_by_its_share() {
        assert_eq!(verdict(0, 20, 20, |case| case.prefix = true), Verdict::Mark);
        assert!(held(&verdict(0, 21, 21, |case| case.prefix = true)));
    }

    #[test]
    fn an_archive_keeps_everything_and_a_brake_that_is_on_holds_everything() {
        assert_eq!(verdict(0, 9, 9, |case| case.policy = DeletePolicy::Archive), Verdict::Keep);
        assert_eq!(verdict(9, 9, 0, |_| {}), Verdict::Keep);
        let reason: Arc<str> = "held before".into();
        let brake = Some(Arc::clone(&reason));
        assert_eq!(verdict(9, 10, 1, |case| case.brake = brake), Verdict::Hold(reason));
    }
}
