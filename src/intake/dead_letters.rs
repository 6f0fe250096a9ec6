//! What arrived and could not be used: the last 1,000, for people. Never the body, which may hold
//! what nobody should read (RustFS sends request headers along).

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::event::{Unusable, UnusableReason};

/// The most letters kept; the oldest goes first.
pub const MAX_LETTERS: usize = 1000;
/// The most characters shown of a name that somebody else chose.
const MAX_SHOWN: usize = 256;

/// One document or record that could not be used. Names are escaped and cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// When it arrived, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Why it could not be used ([`UnusableReason::name`]).
    pub reason: &'static str,
    /// The bucket it names.
    pub bucket: Option<String>,
    /// The key it names.
    pub key: Option<String>,
    /// The event's name.
    pub event: Option<String>,
    /// The length of the whole document in bytes.
    pub body_bytes: usize,
}

/// The bounded list; in memory only.
#[derive(Debug, Default)]
pub struct DeadLetters(Mutex<VecDeque<DeadLetter>>);

impl DeadLetters {
    /// Adds one.
    pub fn push(&self, unusable: &Unusable, body_bytes: usize, at_ms: i64) {
        let letter = DeadLetter {
            at_ms,
            reason: UnusableReason::name(unusable.reason),
            bucket: unusable.bucket.as_deref().map(shown),
            key: unusable.key.as_deref().map(shown),
            event: unusable.event.as_deref().map(shown),
            body_bytes,
        };
        let mut letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if letters.len() == MAX_LETTERS {
            letters.pop_front();
        }
        letters.push_back(letter);
    }

    /// All of them, newest first.
    pub fn list(&self) -> Vec<DeadLetter> {
        let letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        letters.iter().rev().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn shown(hostile: &str) -> String {
    let cut = hostile.char_indices().nth(MAX_SHOWN).and_then(|(at, _)| hostile.get(..at));
    let mut text = cut.unwrap_or(hostile).escape_debug().to_string();
    if cut.is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_bounded_escaped_and_cut() {
        let letters = DeadLetters::default();
        let key = Some(format!("\u{1b}[2J{}", "é".repeat(5000)));
        let reason = UnusableReason::BadKey;
        for at_ms in 0..=1000 {
            let unusable = Unusable { reason, bucket: None, key: key.clone(), event: None };
            letters.push(&unusable, 9, at_ms);
        }
        let list = letters.list();
        assert_eq!((list.len(), list[0].at_ms, list[999].at_ms), (MAX_LETTERS, 1000, 1));
        let shown = list[0].key.as_ref().unwrap();
        assert!(shown.starts_with("\\u{1b}[2J") && shown.ends_with('…'));
        assert!(shown.chars().count() < 300);
    }
}
