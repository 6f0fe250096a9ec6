//! What is wrong with an intake of several parts: each part reports and clears its own trouble, so that
//! one that works does not hide another that does not.

use std::sync::{Arc, Mutex, PoisonError};

use crate::intake::IntakeHealth;

/// What can fail by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Getting messages.
    Receive,
    /// Making them durable.
    Journal,
    /// Deleting them.
    Delete,
}

/// The troubles of one intake, shown in its [`IntakeHealth`].
#[derive(Debug)]
pub(super) struct Troubles {
    health: Arc<IntakeHealth>,
    parts: Mutex<[Option<String>; 3]>,
}

impl Troubles {
    pub(super) fn new(health: Arc<IntakeHealth>) -> Self {
        Self { health, parts: Mutex::default() }
    }

    /// A message was received at this time (milliseconds since the Unix epoch).
    pub(super) fn heard(&self, at_ms: i64) {
        self.health.heard(at_ms);
    }

    /// `part` fails; returns whether that is news.
    pub(super) fn report(&self, part: Part, reason: &str) -> bool {
        self.set(part, Some(reason.to_owned()))
    }

    /// `part` works; returns whether that is news.
    pub(super) fn clear(&self, part: Part) -> bool {
        self.set(part, None)
    }

    fn set(&self, part: Part, trouble: Option<String>) -> bool {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match (part, &mut *parts) {
            (Part::Receive, [slot, _, _])
            | (Part::Journal, [_, slot, _])
            | (Part::Delete, [_, _, slot]) => slot,
        };
        // The reason may change in its details while the trouble lasts; that is no news.
        let news = slot.is_some() != trouble.is_some();
        *slot = trouble;
        match parts.iter().flatten().next() {
            Some(reason) => self.health.set_trouble(reason.as_str()),
            None => self.health.set_well(),
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_works_does_not_hide_one_that_does_not() {
        let health = Arc::new(IntakeHealth::new("sqs", String::new()));
        let troubles = Troubles::new(Arc::clone(&health));
        assert!(!troubles.clear(Part::Receive));
        assert!(troubles.report(Part::Delete, "delete"));
        assert!(!troubles.clear(Part::Receive));
        assert_eq!(health.trouble().as_deref(), Some("delete"));
        assert!(troubles.report(Part::Receive, "receive"));
        assert!(!troubles.report(Part::Receive, "receive again"));
        assert_eq!(health.trouble().as_deref(), Some("receive again"));
        assert!(troubles.clear(Part::Receive));
        assert_eq!(health.trouble().as_deref(), Some("delete"));
        assert!(troubles.clear(Part::Delete));
        assert_eq!(health.trouble(), None);
    }
}
