//! The brake of a comparison: pure. What a whole listing says can be judged before a single delete.

use crate::reconcile::pass::PassReport;

/// Why the deletes that this comparison asks for must wait for a person, if they must.
pub(super) fn hold(pass: &PassReport, max_percent: u64) -> Option<String> {
    if pass.extra == 0 {
        return None;
    }
    if pass.source_objects == 0 {
        return Some("the source lists no object at all, it looks wiped".to_owned());
    }
    let (share, limit) =
        (u128::from(pass.extra) * 100, u128::from(max_percent) * u128::from(pass.target_objects));
    (share > limit).then(|| {
        format!(
            "{} of the target's {} objects would be deleted, more than deletes.max_delete_percent = \
             {max_percent}",
            pass.extra, pass.target_objects
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(source_objects: u64, target_objects: u64, extra: u64) -> PassReport {
        PassReport { source_objects, target_objects, extra, ..PassReport::default() }
    }

    #[test]
    fn a_source_that_lists_nothing_deletes_nothing_whatever_the_limit() {
        assert!(hold(&pass(0, 1, 1), 100).unwrap().contains("wiped"));
        assert_eq!(hold(&pass(0, 0, 0), 0), None);
    }

    #[test]
    fn more_than_the_share_is_held_and_just_the_share_is_not() {
        assert_eq!(hold(&pass(70, 100, 30), 30), None);
        assert!(hold(&pass(69, 100, 31), 30).unwrap().contains("max_delete_percent"));
        assert!(hold(&pass(99, 100, 1), 0).is_some(), "zero percent is no delete at all");
        assert_eq!(hold(&pass(1, u64::MAX, 1), 30), None);
    }
}
