//! Who does the same work beside whom, by the names that the figures and `--subject` call them.

use std::time::Duration;

use crate::process::Usage;

/// One of those who are compared.
pub(crate) trait Subject: Copy {
    /// Its name in the figures.
    fn name(self) -> &'static str;
}

/// The names of all of them.
pub(crate) const NAMES: [&str; 9] = [
    "evermirror",
    "evermirror-listen",
    "bare",
    "bare-told",
    "mc",
    "mc --watch",
    "MinIO",
    "rclone",
    "listing",
];

/// What it cost one of them to do all of the work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) time: Duration,
    /// Nothing is known of one that has no process of its own.
    pub(crate) usage: Option<Usage>,
}

impl From<(Duration, Usage)> for Cost {
    fn from((time, usage): (Duration, Usage)) -> Self {
        Self { time, usage: Some(usage) }
    }
}

impl From<Duration> for Cost {
    fn from(time: Duration) -> Self {
        Self { time, usage: None }
    }
}

/// Who copies what one bucket has into another, to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copier {
    Evermirror,
    Rclone,
    Mc,
    /// MinIO's own bucket replication, asked for the objects that are there already.
    Minio,
    /// This process, which knows the keys.
    Bare,
}

impl Copier {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Evermirror, Self::Rclone, Self::Mc, Self::Minio, Self::Bare];
    /// Those that people could use instead.
    pub(crate) const PEERS: [&'static str; 3] = ["rclone", "mc", "MinIO"];
}

impl Subject for Copier {
    fn name(self) -> &'static str {
        match self {
            Self::Evermirror => "evermirror",
            Self::Rclone => "rclone",
            Self::Mc => "mc",
            Self::Minio => "MinIO",
            Self::Bare => "bare",
        }
    }
}
