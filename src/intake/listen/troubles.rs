//! The troubles of many streams, shown as the one of their intake.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::intake::IntakeHealth;

/// So many buckets are named; the others are counted.
const NAMED: usize = 3;

/// What is wrong with which bucket's stream.
#[derive(Debug)]
pub(super) struct Troubles<'a> {
    health: &'a IntakeHealth,
    by_bucket: Mutex<BTreeMap<String, String>>,
}

impl<'a> Troubles<'a> {
    pub(super) fn new(health: &'a IntakeHealth) -> Self {
        Self { health, by_bucket: Mutex::default() }
    }

    /// Shows this trouble; returns whether it is news.
    pub(super) fn set(&self, bucket: &str, reason: &str) -> bool {
        self.change(|all| all.insert(bucket.to_owned(), reason.to_owned())).as_deref()
            != Some(reason)
    }

    /// This bucket's stream works; returns whether that is news.
    pub(super) fn clear(&self, bucket: &str) -> bool {
        self.change(|all| all.remove(bucket)).is_some()
    }

    fn change(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, String>) -> Option<String>,
    ) -> Option<String> {
        let mut all = self.by_bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let before = change(&mut all);
        if all.is_empty() {
            self.health.set_well();
        } else {
            self.health.set_trouble(text(&all));
        }
        before
    }
}

fn text(all: &BTreeMap<String, String>) -> String {
    let named = all.iter().take(NAMED).map(|(bucket, reason)| format!("{bucket}: {reason}"));
    let others = all.len().saturating_sub(NAMED);
    let counted = (others > 0).then(|| format!("and {others} more"));
    named.chain(counted).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intake_is_well_when_all_its_streams_are() {
        let health = IntakeHealth::new("listen", String::new());
        let troubles = Troubles::new(&health);
        for bucket in ["a", "b", "c", "d"] {
            assert!(troubles.set(bucket, "refused"));
            assert!(!troubles.set(bucket, "refused"), "it is no news");
        }
        let shown = health.trouble().unwrap();
        assert_eq!(shown, "a: refused; b: refused; c: refused; and 1 more");
        for bucket in ["a", "b", "c", "d"] {
            assert!(troubles.clear(bucket));
        }
        assert_eq!(health.trouble(), None);
        assert!(!troubles.clear("a"));
    }
}
