//! Commands that end: `sync` makes both sides agree once, `verify` tells whether they do.
//!
//! Both stand on the comparison of [`crate::reconcile`]; `sync` copies and deletes through the same
//! journal, work queue and replicator as `run`, with state of its own in `data_dir/sync`, so that both
//! can be used side by side. Standard output carries the answer and nothing else; progress and log
//! lines go to standard error.
//!
//! On an error of one key the others go on, and the command ends as [`Ended::Differs`]; so does a signal,
//! which ends it at once and in good order. Whatever keeps a command from its end is in its report, which
//! is printed in every case. After a crash, `sync` goes on with what its journal holds.

mod compare;
pub(crate) mod engine;
pub(crate) mod progress;
pub(crate) mod report;
pub mod restore;
pub mod sync;
mod sync_queue;
pub mod verify;

use std::process::ExitCode;
use std::sync::Arc;

use crate::config::Settings;
use crate::config::settings::BucketSettings;
use crate::errors::UsageError;

/// How a command ended; the exit status of `sync`, `verify` and `restore`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All that was asked for is done, and both sides agree.
    Agrees,
    /// It did what it could, and they do not agree: differences, failed keys, held deletes; or it was
    /// interrupted, and its report says how to go on.
    Differs,
    /// It could not run, or not to its end: refused, or a store, a bucket or `data_dir` cannot be used.
    Failed,
}

impl Ended {
    /// As a report tells it: nothing may be said of what was not looked at.
    pub(crate) const fn of(errors: &[String], agrees: bool) -> Self {
        match (errors.is_empty(), agrees) {
            (false, _) => Self::Failed,
            (true, false) => Self::Differs,
            (true, true) => Self::Agrees,
        }
    }
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Agrees => Self::SUCCESS,
            Ended::Differs => Self::FAILURE,
            Ended::Failed => Self::from(2),
        }
    }
}

/// What a one-shot command works on.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The settings of `run`; `buckets` holds only the chosen ones.
    pub settings: Settings,
    /// Only keys that start with this; empty for all.
    pub prefix: Arc<str>,
    /// Standard output carries one JSON object.
    pub json: bool,
}

impl Scope {
    /// Narrows the settings to the source buckets named; to all if none is.
    pub fn new(
        mut settings: Settings,
        buckets: &[String],
        prefix: &str,
        json: bool,
    ) -> Result<Self, UsageError> {
        let known = |name: &String| settings.buckets.iter().any(|bucket| bucket.source == *name);
        if let Some(bucket) = buckets.iter().find(|name| !known(name)) {
            let configured: Vec<_> = settings.buckets.iter().map(|b| b.source.as_str()).collect();
            return Err(UsageError(format!(
                "--bucket {bucket}: no [[buckets]] entry has this source; configured are {}",
                configured.join(", ")
            )));
        }
        settings
            .buckets
            .retain(|b: &BucketSettings| buckets.is_empty() || buckets.contains(&b.source));
        Ok(Self { settings, prefix: prefix.into(), json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        toml::from_str(
            "data_dir = '/nowhere'\n[source]\nendpoint = 'http://h:1'\n\
             [target]\nendpoint = 'http://h:2'\n[[buckets]]\nsource = 'one'\n[[buckets]]\nsource = 'two'",
        )
        .unwrap()
    }

    #[test]
    fn a_bucket_that_is_not_configured_is_refused_and_none_means_all() {
        let names = |chosen: &[&str]| {
            let chosen: Vec<String> = chosen.iter().map(ToString::to_string).collect();
            Scope::new(settings(), &chosen, "", false)
                .map(|scope| scope.settings.buckets.into_iter().map(|b| b.source).collect())
                .map_err(|error| error.to_string())
        };
        assert_eq!(names(&[]), Ok(vec!["one".to_owned(), "two".to_owned()]));
        assert_eq!(names(&["two"]), Ok(vec!["two".to_owned()]));
        let error = names(&["two", "three"]).unwrap_err();
        assert!(error.contains("--bucket three") && error.contains("one, two"), "{error}");
    }
}
