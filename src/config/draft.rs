//! The settings while they are gathered: one flat map from path to value, file first, environment
//! over it; in the end folded into [`Settings`].
//!
//! Values are plain text here, secrets included, so nothing in this file is ever shown.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::{Table, Value};

use super::problem::{Location, Problem};
use super::schema::{self, KEYS, Node};
use super::settings::Settings;

/// Where a value came from.
#[derive(Clone)]
pub(super) enum Origin {
    /// These bytes of the file.
    File(Range<usize>),
    /// This variable.
    Variable(String),
}

impl Origin {
    pub(super) fn place(&self) -> Location {
        match self {
            Self::File(span) => Location::Span(span.clone()),
            Self::Variable(name) => Location::Variable(name.clone()),
        }
    }
}

/// One key's value.
pub(super) struct Entry {
    /// `None`: a problem with it has been reported already.
    pub value: Option<Value>,
    pub origin: Origin,
}

/// All that was given.
#[derive(Default)]
pub(super) struct Draft {
    /// By path, indices written as numbers.
    pub entries: BTreeMap<String, Entry>,
    /// The tables of the file, with or without keys: an empty `[intake.webhook]` means something.
    pub tables: BTreeMap<String, Range<usize>>,
}

impl Draft {
    /// Keeps what was read for `path`; gives the problem back if it could not be read.
    pub(super) fn put(
        &mut self,
        path: &str,
        read: Result<Value, String>,
        origin: Origin,
    ) -> Option<Problem> {
        let (value, problem) = match read {
            Ok(value) => (Some(value), None),
            Err(message) => {
                let (name, _) = schema::name_and_table(path);
                (None, Some(Problem::at(origin.place(), format!("`{name}` {message}"))))
            }
        };
        self.entries.insert(path.to_owned(), Entry { value, origin });
        problem
    }

    /// Forgets everything under `table`.
    pub(super) fn clear(&mut self, table: &str) {
        let outside = |path: &String| !is_in(path, table);
        self.entries.retain(|path, _| outside(path));
        self.tables.retain(|path, _| outside(path));
    }

    /// The place where a problem with `path` is shown: the value, or the table it is missing from.
    pub(super) fn place(&self, path: &str) -> Location {
        if let Some(entry) = self.entries.get(path) {
            return entry.origin.place();
        }
        if let Some(span) = self.tables.get(path) {
            return Location::Span(span.clone());
        }
        path.rsplit_once('.').map_or(Location::Nowhere, |(table, _)| self.place(table))
    }

    /// What must be given and was not.
    pub(super) fn missing(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for key in KEYS.iter().filter(|key| key.required && !key.path.contains('*')) {
            let table = key.path.rsplit_once('.').map_or("", |(table, _)| table);
            if self.is_present(table) || matches!(table, "" | "source" | "target") {
                problems.extend(self.missing_key(key.path));
            }
        }
        let buckets = self.length("buckets");
        problems
            .extend((0..buckets).find_map(|n| self.missing_key(&format!("buckets.{n}.source"))));
        if buckets == 0 && !self.entries.contains_key("buckets") {
            problems.push(Problem::at(
                Location::Nowhere,
                "no bucket is given: write a [[buckets]] table with `source = \"NAME\"`, \
                 or set EVERMIRROR__BUCKETS=\"NAME,NAME\"",
            ));
        }
        problems
    }

    /// That there is no intake, if there is none.
    pub(super) fn missing_intake(&self) -> Option<Problem> {
        let given = ["intake.webhook", "intake.sqs", "intake.kafka", "intake.listen"]
            .iter()
            .any(|table| self.is_present(table));
        (!given).then(|| {
            Problem::at(
                Location::Nowhere,
                "no intake is given, so no notification could arrive: write an [intake.webhook] \
                 table (it may be empty), or set EVERMIRROR__INTAKE__WEBHOOK__LISTEN=0.0.0.0:8080, or \
                 write an [intake.sqs] table",
            )
        })
    }

    fn missing_key(&self, path: &str) -> Option<Problem> {
        let (name, table) = schema::name_and_table(path);
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        // A table that is no table has been reported, and is enough to mend at once.
        if self.entries.contains_key(path) || self.entries.contains_key(parent) {
            return None;
        }
        let variable = schema::variable(path);
        let message = if table.is_empty() {
            format!("`{name}` is missing: add it, or set {variable}")
        } else if table.starts_with("[[") && !self.is_present(parent) {
            format!(
                "{variable} is missing, but a later entry of {table} is set: number entries without gaps"
            )
        } else {
            format!("`{name}` is missing in {table}: add it, or set {variable}")
        };
        Some(Problem::at(self.place(path), message))
    }

    fn is_present(&self, table: &str) -> bool {
        self.tables.contains_key(table) || self.entries.keys().any(|path| is_in(path, table))
    }

    /// One more than the highest index used in `list`.
    fn length(&self, list: &str) -> usize {
        let index = |path: &String| {
            let index = path.strip_prefix(list)?.strip_prefix('.')?.split('.').next()?;
            index.parse::<usize>().ok()
        };
        let used = self.entries.keys().chain(self.tables.keys()).filter_map(index);
        used.map(|index| index + 1).max().unwrap_or(0)
    }

    /// The settings; call it only when no problem was found.
    pub(super) fn settings(&self) -> Result<Settings, Problem> {
        Settings::deserialize(self.table("")).map_err(|_| {
            // Serde's message may quote a value, and a value may be a secret.
            Problem::at(
                Location::Nowhere,
                "the settings do not fit together; this is a defect of evermirror",
            )
        })
    }

    fn table(&self, path: &str) -> Table {
        let mut table = Table::new();
        for name in schema::names_in(path) {
            let child = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let value = match schema::node(&child) {
                Some(Node::Key(_)) => self.entries.get(&child).and_then(|e| e.value.clone()),
                Some(Node::Table) => {
                    self.is_present(&child).then(|| Value::Table(self.table(&child)))
                }
                Some(Node::List) => {
                    let entries = 0..self.length(&child);
                    let table = |n| Value::Table(self.table(&format!("{child}.{n}")));
                    Some(Value::Array(entries.map(table).collect()))
                }
                None => None,
            };
            table.extend(value.map(|value| (name.to_owned(), value)));
        }
        table
    }
}

fn is_in(path: &str, table: &str) -> bool {
    path.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
