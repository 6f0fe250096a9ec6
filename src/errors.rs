//! Errors in words, for people.

/// What was asked for cannot be tried as it was asked; a complete sentence for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// An error and its causes on one line, each told once: some name their cause in their own text.
pub fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.is_empty() => cause,
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to open the book: {source}")]
    struct NamesItsCause {
        source: io::Error,
    }

    #[test]
    fn a_cause_is_told_once_and_the_outermost_first() {
        let full = || io::Error::other("no space left");
        let twice = anyhow::Error::new(NamesItsCause { source: full() }).context("cannot start");
        assert_eq!(told(&twice), "cannot start: failed to open the book: no space left");
        assert_eq!(told(&anyhow::Error::new(full()).context("a")), "a: no space left");
    }
}
