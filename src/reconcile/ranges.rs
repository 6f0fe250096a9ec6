//! Ranges of keys, which together tile the key space: pure.

use serde::{Deserialize, Serialize};

/// The keys behind `start`, up to `end` and with it, in UTF-8 byte order.
///
/// A range begins behind a key because that is how a listing can begin.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct KeyRange {
    /// The key before the first; none at the beginning of the key space.
    pub start: Option<String>,
    /// The last key; none at the end of the key space.
    pub end: Option<String>,
}

impl KeyRange {
    /// All keys.
    pub const ALL: Self = Self { start: None, end: None };

    /// Whether `key` is in this range.
    pub fn contains(&self, key: &str) -> bool {
        self.start.as_deref().is_none_or(|start| key > start)
            && self.end.as_deref().is_none_or(|end| key <= end)
    }
}
