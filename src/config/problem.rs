//! What is wrong with the configuration, shown where it is wrong, without ever showing a secret.

use std::fmt::{self, Write as _};
use std::ops::Range;

use super::kind::Kind;
use super::schema::KEYS;
use super::units::HIDDEN;

/// The configuration cannot be used. Displays every problem that was found, each with its place and
/// what to do about it, as whole lines that begin with `error:`.
#[derive(thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct ConfigError {
    problems: Vec<String>,
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a problem is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// At these bytes of the file.
    Span(Range<usize>),
    /// In this environment variable.
    Variable(String),
    /// At a key, wherever it was set.
    Path(String),
    /// In what is not there.
    Nowhere,
}

/// One problem.
#[derive(Debug)]
pub(super) struct Problem {
    pub place: Location,
    pub message: String,
}

impl Problem {
    pub(super) fn at(place: Location, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }
}

/// The file, kept to quote from.
#[derive(Default)]
pub(super) struct Quotes {
    /// The path as the operator gave it; `None` without a file.
    pub name: Option<String>,
    pub text: String,
    /// Bytes that hold secrets, or may.
    pub masks: Vec<Range<usize>>,
    /// The file is not TOML, so where its secrets are is not known.
    pub unparsed: bool,
}

impl Quotes {
    /// Puts the problems into words, those in the file first and in its order.
    pub(super) fn error(&self, mut problems: Vec<Problem>) -> ConfigError {
        problems.sort_by_key(|problem| match &problem.place {
            Location::Span(span) => span.start,
            Location::Variable(_) | Location::Path(_) | Location::Nowhere => usize::MAX,
        });
        ConfigError { problems: problems.iter().map(|problem| self.describe(problem)).collect() }
    }

    fn describe(&self, Problem { place, message }: &Problem) -> String {
        let name = self.name.as_deref();
        match (place, name) {
            (Location::Span(span), Some(name)) => self.quote(name, span.start, message),
            (Location::Variable(variable), _) => format!("error: {variable}: {message}"),
            (_, Some(name)) => format!("error: {name}: {message}"),
            (_, None) => format!("error: {message}"),
        }
    }

    fn quote(&self, name: &str, at: usize, message: &str) -> String {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let number = before.matches('\n').count() + 1;
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        let mut out = format!("error: {name}:{number}:{column}: {message}");
        let line = self.text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        let shown =
            if self.unparsed { self.guess(line, start) } else { Some(self.mask(line, start)) };
        if let Some(shown) = shown.filter(|shown| !shown.trim().is_empty()) {
            let tame = |c: char| if c.is_control() { ' ' } else { c };
            let shown: String = shown.chars().map(tame).collect();
            let _always_fits = write!(out, "\n{number:>5} | {}", shown.trim_end());
        }
        out
    }

    /// The line with every masked stretch replaced.
    fn mask(&self, line: &str, start: usize) -> String {
        let mut out = String::new();
        let mut hidden = false;
        for (offset, c) in line.char_indices() {
            let masked = self.masks.iter().any(|mask| mask.contains(&(start + offset)));
            if !masked {
                out.push(c);
            } else if !hidden {
                out.push_str(HIDDEN);
            }
            hidden = masked;
        }
        out
    }

    /// What can be shown of a line in a file that did not parse: a table's header, or a key that is
    /// known not to be secret with its value, or the bare name of a known key.
    fn guess(&self, line: &str, start: usize) -> Option<String> {
        let before = self.text.get(..start)?;
        if before.contains("\"\"\"") || before.contains("'''") {
            return None;
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        let trimmed = line.trim();
        let word = trimmed.split(|c| !is_word(c)).next()?;
        let last = word.rsplit('.').next()?;
        if let Some(inside) = trimmed.strip_prefix('[') {
            let name = inside.trim_matches(['[', ']']);
            return name.chars().all(is_word).then(|| line.to_owned());
        }
        let known = KEYS.iter().find(|key| key.path.rsplit('.').next() == Some(last))?;
        let secrets = ["key", "token", "secret"];
        let rest = trimmed.strip_prefix(word)?;
        let plain = rest.matches('=').count() <= 1
            && !rest.contains(['{', '@'])
            && !secrets.iter().any(|secret| rest.contains(secret))
            && !matches!(known.kind, Kind::Secret);
        Some(if plain { line.to_owned() } else { format!("{word} …") })
    }
}
