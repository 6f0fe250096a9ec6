//! The environment: every key can be overridden, so that a container needs no file.
//!
//! `EVERMIRROR__` and the key's path in capitals, joined by two underscores:
//! `EVERMIRROR__SOURCE__ENDPOINT`, `EVERMIRROR__BUCKETS__0__INCLUDE` (lists by comma).
//! `EVERMIRROR__BUCKETS="a,b:target-b"` gives the whole list of buckets. A secret and its `_file`
//! twin replace each other, so that the environment can override either by either.

use toml::Value;

use super::draft::{Draft, Origin};
use super::problem::{Location, Problem};
use super::schema::{self, KEYS, Node, PREFIX};
use super::spelling;

/// The process's environment, for [`load`](super::load()). Bytes that are not UTF-8 become U+FFFD
/// and are refused there if the variable is one of ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    })
}

/// Lays the variables over the draft, and gives back the problems with them.
pub(super) fn overlay(
    draft: &mut Draft,
    env: impl Iterator<Item = (String, String)>,
) -> Vec<Problem> {
    let mut ours: Vec<_> = env.filter(|(name, _)| is_ours(name)).collect();
    // By name, so that EVERMIRROR__BUCKETS comes before EVERMIRROR__BUCKETS__0__SOURCE.
    ours.sort();
    ours.iter().filter_map(|(name, value)| set(draft, name, value).err()).collect()
}

/// One with the prefix, or a key's own variable written with single underscores. Not all that
/// begins with `EVERMIRROR_`: Kubernetes sets `EVERMIRROR_SERVICE_HOST` for a service of that name.
fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) || single_underscores(name).is_some()
}

/// The variable that was meant.
fn single_underscores(name: &str) -> Option<String> {
    let variables = KEYS.iter().map(|key| schema::variable(&key.path.replace('*', "0")));
    let mut variables = variables.chain([schema::variable("buckets")]);
    variables.find(|variable| variable != name && variable.replace("__", "_") == name)
}

fn set(draft: &mut Draft, name: &str, value: &str) -> Result<(), Problem> {
    let problem = |message: &str| Problem::at(Location::Variable(name.to_owned()), message);
    let Some(path) = name.strip_prefix(PREFIX) else {
        let meant = single_underscores(name).unwrap_or_default();
        return Err(problem(&format!("has no effect as it is written; did you mean {meant}?")));
    };
    let path = path.replace("__", ".");
    let lower = path.to_ascii_lowercase();
    let node = if path == path.to_ascii_uppercase() { schema::node(&lower) } else { None };
    let key = match node {
        Some(Node::Key(key)) => Some(key),
        Some(Node::List) => None,
        Some(Node::Table) => {
            return Err(problem(&format!(
                "names a table: set one of its keys, such as {}",
                first_key(&lower)
            )));
        }
        None => return Err(problem(&unknown(name, &lower))),
    };
    if value.is_empty() {
        return Err(problem("is empty: give it a value, or unset it"));
    }
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(problem("is not UTF-8"));
    }
    let origin = Origin::Variable(name.to_owned());
    let Some(key) = key else {
        return set_buckets(draft, &lower, value, &origin).map_err(|message| problem(&message));
    };
    replace_twin(draft, &lower);
    draft.put(&lower, key.kind.read_text(value), origin).map_or(Ok(()), Err)
}

fn first_key(table: &str) -> String {
    let name = schema::names_in(table).first().copied().unwrap_or_default();
    let path = format!("{table}.{name}");
    if matches!(schema::node(&path), Some(Node::Key(_))) {
        schema::variable(&path)
    } else {
        first_key(&path)
    }
}

fn replace_twin(draft: &mut Draft, path: &str) {
    let Some(twin) = schema::twin(path) else { return };
    if draft.entries.get(&twin).is_some_and(|entry| matches!(entry.origin, Origin::File(_))) {
        draft.entries.remove(&twin);
    }
}

/// `a,b:target-b`.
fn set_buckets(draft: &mut Draft, list: &str, value: &str, origin: &Origin) -> Result<(), String> {
    draft.clear(list);
    for (index, item) in value.split(',').enumerate() {
        let (source, target) = item.split_once(':').map_or((item, None), |(s, t)| (s, Some(t)));
        let names = [("source", Some(source)), ("target", target)];
        for (key, name) in names.into_iter().filter_map(|(key, name)| Some((key, name?.trim()))) {
            if name.is_empty() {
                draft.put(list, Ok(Value::Boolean(false)), origin.clone());
                return Err(format!(
                    "has an empty name in entry {}: write \"source\" or \"source:target\", \
                     entries separated by commas",
                    index + 1
                ));
            }
            let path = format!("{list}.{index}.{key}");
            draft.put(&path, Ok(Value::String(name.to_owned())), origin.clone());
        }
    }
    Ok(())
}

fn unknown(name: &str, path: &str) -> String {
    let index = path.split('.').find(|segment| segment.parse::<u16>().is_ok()).unwrap_or("0");
    let candidates = KEYS.iter().map(|key| key.path.replace('*', index));
    let nearest = spelling::nearest(path, candidates.chain(["buckets".to_owned()]));
    let meant = nearest.map(|path| schema::variable(&path)).filter(|meant| meant != name);
    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    format!("there is no such key{meant}")
}
