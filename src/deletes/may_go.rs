//! May it be deleted at the target? The rule, on plain values, for every origin of a delete: an event, a pass, a
//! delay that is over, a person's approval, `sync`, Kafka.

use crate::config::settings::DeletePolicy;
use crate::dirty::{Aspects, Origin};

/// What is known of a key whose absence at the source was confirmed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// The bucket's policy.
    pub(crate) policy: DeletePolicy,
    /// What was marked of the key.
    pub(crate) aspects: Aspects,
    /// Whether an event or a pass told of it.
    pub(crate) origin: Origin,
    /// A person discarded this delete, or wants the object to stay.
    pub(crate) kept: bool,
    /// A delete of the key is delayed already.
    pub(crate) delayed: bool,
}

/// What is to be done with the object at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It stays.
    Keep,
    /// Its delete waits already.
    Wait,
    /// Its delete waits for the bucket's delay, if the brake lets it pass.
    Delay,
    /// It is deleted if the brake is off, which has counted this delete when it was delayed.
    DeleteDue,
    /// It is deleted, if the brake lets it pass.
    Delete,
}

/// Decides. What a person discarded stays until the source has the object again, whatever tells of its removal, also
/// if it was approved before; an approval that comes later takes the discard back first.
pub(crate) const fn may_go(case: Case) -> Step {
    if case.kept {
        return Step::Keep;
    }
    match case.policy {
        DeletePolicy::Archive => Step::Keep,
        DeletePolicy::Mirror => Step::Delete,
        DeletePolicy::Delay if case.aspects.has(Aspects::DUE) => Step::DeleteDue,
        // The reconciler finds the object again in every pass until its time has come.
        DeletePolicy::Delay if case.delayed && matches!(case.origin, Origin::Repair) => Step::Wait,
        DeletePolicy::Delay => Step::Delay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Case = Case {
        policy: DeletePolicy::Mirror,
        aspects: Aspects::REMOVED,
        origin: Origin::Live,
        kept: false,
        delayed: false,
    };

    #[test]
    fn what_a_person_discarded_stays_whatever_tells_of_its_removal() {
        let approved = Aspects::REMOVED.with(Aspects::APPROVED);
        for policy in [DeletePolicy::Mirror, DeletePolicy::Delay, DeletePolicy::Archive] {
            for origin in [Origin::Live, Origin::Repair] {
                for aspects in [Aspects::REMOVED, Aspects::CONTENT, Aspects::DUE, approved] {
                    let case = Case { policy, origin, aspects, kept: true, ..CASE };
                    assert_eq!(may_go(case), Step::Keep);
                }
            }
        }
    }

    #[test]
    fn a_policy_decides_on_all_other_deletes() {
        assert_eq!(may_go(CASE), Step::Delete);
        let approved = Aspects::REMOVED.with(Aspects::APPROVED);
        let archive = Case { policy: DeletePolicy::Archive, aspects: approved, ..CASE };
        assert_eq!(may_go(archive), Step::Keep);
        let delay = Case { policy: DeletePolicy::Delay, ..CASE };
        assert_eq!(may_go(delay), Step::Delay);
        assert_eq!(may_go(Case { delayed: true, ..delay }), Step::Delay, "deleted once more");
        let found = Case { delayed: true, origin: Origin::Repair, ..delay };
        assert_eq!(may_go(found), Step::Wait);
        let due = Case { aspects: Aspects::REMOVED.with(Aspects::DUE), ..delay };
        assert_eq!(may_go(due), Step::DeleteDue);
    }
}
