//! Who does the same work beside whom, by the names that the figures and `--subject` call them.

/// One of those who are compared.
pub(crate) trait Subject: Copy {
    /// Its name in the figures.
    fn name(self) -> &'static str;
}

/// The names of all of them.
pub(crate) const NAMES: [&str; 7] =
    ["evermirror", "bare", "mc", "mc --watch", "MinIO", "rclone", "listing"];

/// Who copies what one bucket has into another, to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copier {
    Evermirror,
    Rclone,
    Mc,
    /// This process, which knows the keys.
    Bare,
}

impl Copier {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Evermirror, Self::Rclone, Self::Mc, Self::Bare];
}

impl Subject for Copier {
    fn name(self) -> &'static str {
        match self {
            Self::Evermirror => "evermirror",
            Self::Rclone => "rclone",
            Self::Mc => "mc",
            Self::Bare => "bare",
        }
    }
}
