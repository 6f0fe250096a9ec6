//! The labels of the counters: closed sets, so that no hostile text becomes a time series.

use serde::Serialize;

use crate::reconcile::merge::Finding;

/// What became of a request to an intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Answered 2xx: everything in it is durable, or known to be of no use.
    Ok,
    /// No token, or a wrong one: 401.
    Unauthorized,
    /// Body over the limit: 413.
    TooLarge,
    /// Not durable in time: 503, and a gap.
    Unavailable,
    /// The body did not arrive whole or in time.
    Invalid,
}

impl RequestOutcome {
    pub(super) const ALL: [Self; 5] =
        [Self::Ok, Self::Unauthorized, Self::TooLarge, Self::Unavailable, Self::Invalid];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unauthorized => "unauthorized",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
        }
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOutcome {
    /// Its key is durable in the journal.
    Accepted,
    /// The same event was already durable.
    Duplicate,
    /// It concerns nothing that is replicated.
    Ignored,
    /// It is in the dead-letter list.
    DeadLetter,
}

impl EventOutcome {
    pub(super) const ALL: [Self; 4] =
        [Self::Accepted, Self::Duplicate, Self::Ignored, Self::DeadLetter];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// What was done to make the target agree with the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The object was copied.
    Copied,
    /// The object was deleted on the target.
    Deleted,
    /// Only its tags were written.
    Tagged,
    /// Nothing: the target agreed already.
    Unchanged,
    /// Nothing: the object is gone from the source and its bucket is an archive.
    Kept,
    /// Nothing: a listing named the object, and neither side has it.
    Ghost,
}

impl Action {
    pub(super) const ALL: [Self; 6] =
        [Self::Copied, Self::Deleted, Self::Tagged, Self::Unchanged, Self::Kept, Self::Ghost];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Deleted => "deleted",
            Self::Tagged => "tagged",
            Self::Unchanged => "unchanged",
            Self::Kept => "kept",
            Self::Ghost => "ghost",
        }
    }
}

/// How a pass of the reconciler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassOutcome {
    /// Every key was compared.
    Complete,
    /// What an interrupted pass had left was compared.
    Resumed,
    /// A listing or the journal failed.
    Failed,
}

impl PassOutcome {
    pub(super) const ALL: [Self; 3] = [Self::Complete, Self::Resumed, Self::Failed];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Resumed => "resumed",
            Self::Failed => "failed",
        }
    }
}

/// The kind of a difference that a listing shows.
pub(super) const fn drift_kind(finding: Finding) -> &'static str {
    match finding {
        Finding::Different(_) => "different",
        Finding::Same
        | Finding::Missing
        | Finding::Extra
        | Finding::Newer
        | Finding::Unverifiable => finding.name(),
    }
}

pub(super) const DRIFT_KINDS: [&str; 5] =
    ["missing", "extra", "different", "newer", "unverifiable"];

/// Where an error happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Taking notifications.
    Intake,
    /// The journal and the gap book.
    Journal,
    /// A call to the source.
    Source,
    /// A call to the target.
    Target,
    /// Reconciling.
    Reconcile,
}

impl Stage {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Journal => "journal",
            Self::Source => "source",
            Self::Target => "target",
            Self::Reconcile => "reconcile",
        }
    }
}
