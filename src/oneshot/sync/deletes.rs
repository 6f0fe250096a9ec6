//! The brake of a comparison: pure. What a whole listing says can be judged before a single delete.

use crate::reconcile::pass::PassReport;

/// So few deletes are never held for being a large share of a small bucket.
const FEW: u64 = 20;

/// Why the deletes that this comparison asks for must wait for a person, if they must. Below a `prefix`
/// it may be right that nothing is left.
pub(super) fn hold(pass: &PassReport, prefix: &str, max_percent: u64) -> Option<String> {
    let (objects, extra) = (pass.target_objects, pass.extra);
    if extra > 0 && pass.source_objects == 0 && prefix.is_empty() {
        return Some("the source lists no object at all, it looks wiped".to_owned());
    }
    let share = u128::from(extra) * 100;
    (extra > FEW && share > u128::from(max_percent) * u128::from(objects)).then(|| {
        format!(
            "{extra} of the target's {objects} objects would be deleted, more than {max_percent} % \
             (deletes.max_delete_percent)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(source_objects: u64, target_objects: u64, extra: u64) -> Option<String> {
        let pass = PassReport { source_objects, target_objects, extra, ..PassReport::default() };
        hold(&pass, "", 30)
    }

    #[test]
    fn a_source_that_lists_nothing_deletes_nothing_however_small_the_target_is() {
        assert!(held(0, 1, 1).unwrap().contains("wiped"));
        assert_eq!(held(0, 0, 0), None);
        let below_prefix = PassReport { target_objects: 1, extra: 1, ..PassReport::default() };
        assert_eq!(hold(&below_prefix, "logs/", 30), None);
    }

    #[test]
    fn more_than_the_share_is_held_and_just_the_share_or_a_few_are_not() {
        assert_eq!(held(70, 100, 30), None);
        assert!(held(69, 100, 31).unwrap().contains("max_delete_percent"));
        assert_eq!(held(1, 21, 20), None);
        assert!(held(1, 22, 21).is_some());
        assert!(held(1, u64::MAX, u64::MAX).is_some());
    }
}
