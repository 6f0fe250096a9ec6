//! What a capture, or putting one back, has done: values without I/O.

use std::collections::BTreeMap;

use serde::Serialize;

/// What was captured.
#[derive(Debug, Clone, Default, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is an answer of its own")]
pub struct CaptureReport {
    /// The source's endpoint.
    pub source: String,
    /// Nothing was written, whatever is said here.
    pub dry_run: bool,
    /// The document's key, of the one written or of the one that says the same.
    pub document: Option<String>,
    /// The newest document says the same, so none was written.
    pub unchanged: bool,
    /// It is encrypted, secret keys included; else they are left out.
    pub encrypted: bool,
    /// How many settings each bucket has.
    pub buckets: BTreeMap<String, usize>,
    /// How many users, groups, policies and access keys there are.
    pub entities: usize,
    /// Whether the store told of its users.
    pub users: bool,
    /// What could not be read.
    pub problems: Vec<String>,
}

/// What was put back, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PutBackReport {
    /// The document's key.
    pub document: String,
    /// When it was captured.
    pub taken: String,
    /// The destination's endpoint.
    pub to: String,
    /// Nothing was changed.
    pub dry_run: bool,
    /// Nothing was changed, because of `conflicts`.
    pub refused: bool,
    /// Buckets, settings, users, groups and policies that came or, in a dry run, would.
    pub changes: Vec<String>,
    /// What is there and otherwise; overwritten if that was asked for.
    pub conflicts: Vec<String>,
    /// How many settings and entities were there already.
    pub same: usize,
    /// Users and access keys to be made by hand with new secrets, which the document does not hold.
    pub need_secrets: Vec<String>,
    /// What was left as it is, and why.
    pub notes: Vec<String>,
    /// What failed.
    pub problems: Vec<String>,
    /// What reads back otherwise than it was captured.
    pub not_equal: Vec<String>,
}

impl PutBackReport {
    /// Everything captured is there now, or would be.
    pub const fn succeeded(&self) -> bool {
        !self.refused
            && self.problems.is_empty()
            && self.not_equal.is_empty()
            && self.need_secrets.is_empty()
    }
}
