//! What must change in a bucket's notification configuration, and nothing else.
//!
//! A rule is ours if it goes to one of our ARNs; every other rule stays as it is, also that of another
//! evermirror. A rule of ours that means the same as a wanted one stays, whatever its name.

use super::dialect::same_arn;
use crate::store::{Destination, NotificationConfig, NotificationRule};

/// The way from one configuration to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// What is to be written.
    pub(super) after: NotificationConfig,
    /// Rules that come.
    pub(super) added: Vec<NotificationRule>,
    /// Rules of ours that go.
    pub(super) removed: Vec<NotificationRule>,
}

impl Change {
    /// There is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// Makes `wanted` the only rules in `current` that go to one of `arns`.
pub(super) fn merge(
    current: &NotificationConfig,
    arns: &[String],
    wanted: &[NotificationRule],
) -> Change {
    let ours = |rule: &NotificationRule| {
        rule.destination == Destination::Queue && arns.iter().any(|arn| same_arn(arn, &rule.arn))
    };
    let mut added = wanted.to_vec();
    let (mut removed, mut rules) = (Vec::new(), Vec::new());
    for rule in &current.rules {
        if !ours(rule) {
            rules.push(rule.clone());
        } else if let Some(same) = added.iter().position(|wanted| means_the_same(wanted, rule)) {
            added.remove(same);
            rules.push(rule.clone());
        } else {
            removed.push(rule.clone());
        }
    }
    for rule in &mut added {
        let taken = |id: &Option<String>| rules.iter().any(|rule| rule.id == *id);
        while taken(&rule.id) {
            rule.id = rule.id.as_deref().map(|id| format!("{id}+"));
        }
        rules.push(rule.clone());
    }
    let after = NotificationConfig { rules, ..current.clone() };
    Change { after, added, removed }
}

/// Whether both send the same events of the same keys to the same place. Stores order events and
/// spell the names of filters as they like.
pub fn means_the_same(one: &NotificationRule, other: &NotificationRule) -> bool {
    let sorted = |texts: &[String]| {
        let mut texts = texts.to_vec();
        texts.sort_unstable();
        texts.dedup();
        texts
    };
    let filters = |rule: &NotificationRule| {
        let spelled: Vec<_> = rule
            .filters
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{}={value}", name.to_lowercase()))
            .collect();
        sorted(&spelled)
    };
    one.destination == other.destination
        && same_arn(&one.arn, &other.arn)
        && sorted(&one.events) == sorted(&other.events)
        && filters(one) == filters(other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: &str = "arn:minio:sqs::EM:webhook";

    fn rule(id: &str, arn: &str, events: &[&str]) -> NotificationRule {
        NotificationRule {
            destination: Destination::Queue,
            id: Some(id.to_owned()),
            arn: arn.to_owned(),
            events: events.iter().map(ToString::to_string).collect(),
            filters: Vec::new(),
        }
    }

    fn config(rules: Vec<NotificationRule>) -> NotificationConfig {
        NotificationConfig { rules, event_bridge: true, unknown: Vec::new() }
    }

    #[test]
    fn a_rule_made_by_hand_that_says_the_same_is_left_alone() {
        let wanted = [rule("evermirror-EM", OURS, &["a", "b"])];
        let by_hand = rule("1", "arn:minio:sqs:us-east-1:EM:webhook", &["b", "a"]);
        let current = config(vec![by_hand]);
        let change = merge(&current, &[OURS.into()], &wanted);
        assert!(change.is_empty());
        assert_eq!(change.after, current);
    }

    #[test]
    fn an_incomplete_rule_of_ours_is_replaced_and_a_foreign_one_stays() {
        let foreign = rule("evermirror-EM", "arn:minio:sqs::OTHER:webhook", &["a"]);
        let current = config(vec![rule("1", OURS, &["a"]), foreign.clone()]);
        let change = merge(&current, &[OURS.into()], &[rule("evermirror-EM", OURS, &["a", "b"])]);
        assert_eq!(change.removed, [rule("1", OURS, &["a"])]);
        assert_eq!(change.added[0].id.as_deref(), Some("evermirror-EM+"), "names must differ");
        assert_eq!(change.after.rules[0], foreign);
        assert!(change.after.event_bridge);
    }

    #[test]
    fn removing_leaves_what_is_not_ours() {
        let foreign = rule("2", "arn:minio:sqs::em:webhook", &["a"]);
        let current = config(vec![rule("1", OURS, &["a"]), foreign.clone()]);
        assert_eq!(merge(&current, &[OURS.into()], &[]).after.rules, [foreign]);
    }

    fn any_rule() -> impl Strategy<Value = NotificationRule> {
        let arn =
            prop::sample::select(vec![OURS, "arn:minio:sqs::OTHER:webhook", "arn:aws:sns:r:1:t"]);
        let events = prop::sample::subsequence(vec!["a", "b", "c"], 1..=3);
        let kind = prop::sample::select(vec![Destination::Queue, Destination::Topic]);
        (0..4_u8, arn, events, kind).prop_map(|(id, arn, events, destination)| NotificationRule {
            destination,
            ..rule(&id.to_string(), arn, &events)
        })
    }

    proptest! {
        #[test]
        fn merging_keeps_every_foreign_rule_and_is_done_after_once(
            rules in prop::collection::vec(any_rule(), 0..6),
            wanted in prop::collection::vec(any_rule(), 0..3),
        ) {
            let arns = [OURS.to_owned()];
            let wanted: Vec<_> = wanted
                .into_iter()
                .map(|rule| NotificationRule { destination: Destination::Queue, arn: OURS.into(), ..rule })
                .collect();
            let current = config(rules);
            let change = merge(&current, &arns, &wanted);
            let foreign = |config: &NotificationConfig| {
                let is = |rule: &&NotificationRule| {
                    rule.arn != OURS || rule.destination != Destination::Queue
                };
                config.rules.iter().filter(is).cloned().collect::<Vec<_>>()
            };
            prop_assert_eq!(foreign(&change.after), foreign(&current));
            let again = merge(&change.after, &arns, &wanted);
            prop_assert!(again.is_empty());
            prop_assert_eq!(again.after, change.after);
        }
    }
}
