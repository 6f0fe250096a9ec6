//! From a file and an environment to [`Settings`]: file, then variables over it, then files of
//! secrets, then validation. Every problem of a stage is reported, not only the first.

use std::collections::BTreeMap;
use std::path::Path;

use super::document::{self, Document};
use super::draft::{Draft, Origin};
use super::problem::{ConfigError, Location, Problem, Quotes};
use super::settings::Settings;
use super::{env, files, validate::validate};

/// Settings, and which of them the environment gave.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Path to variable, for [`show`](super::show()).
    pub(super) variables: BTreeMap<String, String>,
}

/// Reads the file at `path`, if any, and lays the variables of `env` over it.
///
/// Secrets in files are resolved: `access_key` holds the content of `access_key_file`.
pub fn load(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Settings, ConfigError> {
    load_with_origins(path, env).map(|loaded| loaded.settings)
}

/// As [`load`], for a command that takes no notifications: no intake need be given.
pub fn load_without_intake(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Settings, ConfigError> {
    parse(read(path)?, env, false).map(|loaded| loaded.settings)
}

/// As [`load`], and remembers what came from the environment.
pub fn load_with_origins(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    parse(read(path)?, env, true)
}

/// The text of the file.
fn read(path: Option<&Path>) -> Result<Quotes, ConfigError> {
    let mut quotes =
        Quotes { name: path.map(|path| path.display().to_string()), ..Quotes::default() };
    if let Some(path) = path {
        quotes.text = std::fs::read_to_string(path).map_err(|error| {
            quotes.error(vec![Problem::at(
                Location::Nowhere,
                format!("cannot read this file: {error}"),
            )])
        })?;
    }
    Ok(quotes)
}

/// The text of no file is empty.
pub(super) fn parse(
    mut quotes: Quotes,
    env: impl Iterator<Item = (String, String)>,
    needs_intake: bool,
) -> Result<Loaded, ConfigError> {
    let Document { mut draft, mut problems, masks } = match document::read(&quotes.text) {
        Ok(document) => document,
        Err(problem) => {
            quotes.unparsed = true;
            return Err(quotes.error(vec![problem]));
        }
    };
    quotes.masks = masks;
    problems.extend(env::overlay(&mut draft, env));
    problems.extend(draft.missing());
    problems.extend(draft.missing_intake().filter(|_| needs_intake));
    problems.extend(files::resolve(&mut draft));
    if !problems.is_empty() {
        return Err(quotes.error(problems));
    }
    let settings = draft.settings().map_err(|problem| quotes.error(vec![problem]))?;
    let mut problems = validate(&settings);
    if problems.is_empty() {
        return Ok(Loaded { settings, variables: variables(&draft) });
    }
    for problem in &mut problems {
        if let Location::Path(path) = &problem.place {
            problem.place = draft.place(path);
        }
    }
    Err(quotes.error(problems))
}

fn variables(draft: &Draft) -> BTreeMap<String, String> {
    let from_environment = draft.entries.iter().filter_map(|(path, entry)| match &entry.origin {
        Origin::Variable(name) => Some((path.clone(), name.clone())),
        Origin::File(_) => None,
    });
    from_environment.collect()
}
