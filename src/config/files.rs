//! The files that settings name: secrets are read, certificates are seen to be readable.
//!
//! A secret's file may end in one newline, which is not part of the secret.

use std::fs::File;
use std::io::{self, Read as _};

use toml::Value;

use super::draft::Draft;
use super::problem::Problem;
use super::schema::{self, Node};

/// No secret is larger; a path that leads to `/dev/zero` must not fill the memory.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// Reads every `*_file` twin into its secret, and gives back the problems with files.
pub(super) fn resolve(draft: &mut Draft) -> Vec<Problem> {
    let named: Vec<(String, String)> = draft
        .entries
        .iter()
        .filter(|(path, _)| path.ends_with("_file"))
        .filter_map(|(path, entry)| {
            Some((path.clone(), entry.value.as_ref()?.as_str()?.to_owned()))
        })
        .collect();
    named.iter().filter_map(|(path, file)| resolve_one(draft, path, file).err()).collect()
}

fn resolve_one(draft: &mut Draft, path: &str, file: &str) -> Result<(), Problem> {
    let (name, table) = schema::name_and_table(path);
    let place = draft.place(path);
    let shown = file.escape_debug();
    let problem = |message: String| Problem::at(place.clone(), message);
    let unreadable =
        |error: io::Error| problem(format!("`{name}` in {table}: cannot read {shown}: {error}"));
    let Some(twin) = schema::twin(path) else {
        return File::open(file).map(drop).map_err(unreadable);
    };
    if draft.entries.contains_key(&twin) {
        let (secret, _) = schema::name_and_table(&twin);
        return Err(problem(format!("`{secret}` and `{name}` are both set in {table}: keep one")));
    }
    let mut text = String::new();
    File::open(file)
        .and_then(|file| file.take(MAX_SECRET_BYTES).read_to_string(&mut text))
        .map_err(unreadable)?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
    let Some(Node::Key(key)) = schema::node(&twin) else { return Ok(()) };
    let value: Value = key.kind.read_text(text).map_err(|message| {
        problem(format!("`{name}` in {table}: the content of {shown} {message}"))
    })?;
    let Some(origin) = draft.entries.get(path).map(|entry| entry.origin.clone()) else {
        return Ok(());
    };
    draft.put(&twin, Ok(value), origin).map_or(Ok(()), Err)
}
