//! What a check says.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but something would be better otherwise, or could not be looked at.
    Warning,
    /// Something does not work.
    Problem,
}

/// One check, done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: `source`, `target`, `notifications`, `evermirror`, `canary`.
    pub area: &'static str,
    /// The bucket by its name at the source, where it is about one.
    pub bucket: Option<String>,
    /// How bad it is.
    pub level: Level,
    /// What was found; a plain sentence without a full stop.
    pub says: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Check {
    /// As it should be.
    pub fn ok(area: &'static str, says: impl Into<String>) -> Self {
        Self { area, bucket: None, level: Level::Ok, says: says.into(), advice: None }
    }

    /// It works, but.
    pub fn warning(area: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, advice: Some(advice.into()), ..Self::ok(area, says) }
    }

    /// It does not work.
    pub fn problem(area: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Problem, ..Self::warning(area, says, advice) }
    }

    /// It is about this bucket.
    #[must_use]
    pub fn of(self, bucket: &str) -> Self {
        Self { bucket: Some(bucket.to_owned()), ..self }
    }
}
