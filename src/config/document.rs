//! The TOML file: parsed with the place of every value, walked against the schema.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::draft::{Draft, Origin};
use super::kind;
use super::problem::{Location, Problem};
use super::schema::{self, Key, Node};
use super::spelling;

/// What a file gave.
#[derive(Default)]
pub(super) struct Document {
    pub draft: Draft,
    pub problems: Vec<Problem>,
    /// Where secrets are, or may be: the values of secret keys and of keys that do not exist.
    pub masks: Vec<Range<usize>>,
}

/// Reads `text`; the error is the one problem of a text that is not TOML.
pub(super) fn read(text: &str) -> Result<Document, Problem> {
    let root = DeTable::parse(text).map_err(|error| {
        let place = error.span().map_or(Location::Nowhere, Location::Span);
        Problem::at(place, format!("invalid TOML: {}", error.message()))
    })?;
    let mut document = Document::default();
    document.table("", root.get_ref());
    Ok(document)
}

impl Document {
    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let dot = if path.is_empty() { "" } else { "." };
            let child = format!("{path}{dot}{}", name.get_ref());
            // A quoted name may hold a dot, which would be taken for a path.
            let node = if name.get_ref().contains('.') { None } else { schema::node(&child) };
            match (node, value.get_ref()) {
                (Some(Node::Key(key)), _) => self.key(key, &child, value),
                (Some(Node::Table), DeValue::Table(table)) => {
                    self.draft.tables.insert(child.clone(), name.span());
                    self.table(&child, table);
                }
                (Some(Node::List), DeValue::Array(items)) => self.list(&child, items),
                (Some(node), other) => {
                    self.mask(value);
                    let wanted = match node {
                        Node::List => format!("[[{child}]] tables, one for each entry"),
                        Node::Table | Node::Key(_) => format!("a table: [{child}]"),
                    };
                    let message = format!("`{child}` must be {wanted}, not {}", kind::one(other));
                    let origin = Origin::File(name.span());
                    self.draft.entries.insert(child, super::draft::Entry { value: None, origin });
                    self.report(name.span(), message);
                }
                (None, _) => {
                    self.mask(value);
                    self.report(name.span(), unknown(path, name.get_ref(), value.get_ref()));
                }
            }
        }
    }

    fn list(&mut self, path: &str, items: &DeArray<'_>) {
        for (index, item) in items.iter().enumerate() {
            let child = format!("{path}.{index}");
            match (schema::node(&child), item.get_ref()) {
                (None, _) => {
                    self.report(item.span(), format!("[[{path}]] has more than 10000 entries"));
                    return;
                }
                (_, DeValue::Table(table)) => {
                    self.draft.tables.insert(child.clone(), item.span());
                    self.table(&child, table);
                }
                (_, other) => {
                    self.mask(item);
                    let message = format!(
                        "`{path}` must be [[{path}]] tables, one for each entry, not a list of {}",
                        kind::plural(other)
                    );
                    let origin = Origin::File(item.span());
                    self.draft
                        .entries
                        .insert(path.to_owned(), super::draft::Entry { value: None, origin });
                    self.report(item.span(), message);
                    return;
                }
            }
        }
    }

    fn key(&mut self, key: &Key, path: &str, value: &Spanned<DeValue<'_>>) {
        let read = key.kind.read_toml(value.get_ref());
        let shown = match value.get_ref() {
            DeValue::String(text) => key.kind.may_show(text),
            DeValue::Array(_) => key.kind.is_list(),
            DeValue::Table(_) => false,
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => !key.kind.is_secret(),
        };
        if !shown {
            self.mask(value);
        }
        self.problems.extend(self.draft.put(path, read, Origin::File(value.span())));
    }

    fn report(&mut self, span: Range<usize>, message: String) {
        self.problems.push(Problem::at(Location::Span(span), message));
    }

    /// Hides a value and everything in it: the span of a table is that of its header only.
    fn mask(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => table.iter().for_each(|(_, inner)| self.mask(inner)),
            DeValue::Array(items) => items.iter().for_each(|inner| self.mask(inner)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => self.masks.push(value.span()),
        }
    }
}

fn unknown(table: &str, name: &str, value: &DeValue<'_>) -> String {
    let shown = name.escape_debug();
    let dot = if table.is_empty() { "" } else { "." };
    if value.is_table() {
        let tables = schema::tables_in(table);
        let path = format!("{table}{dot}{name}");
        let meant = match spelling::nearest(&path, &tables) {
            Some(path) => format!("; did you mean {}?", bracketed(path)),
            None if tables.is_empty() => String::new(),
            None => format!("; there {}", listed(&tables)),
        };
        return format!("unknown table [{table}{dot}{shown}]{meant}");
    }
    let nearest = spelling::nearest(name, schema::names_in(table));
    let inside = if table.is_empty() {
        "at the top level".to_owned()
    } else {
        format!("in {}", schema::header(table))
    };
    let meant = nearest.map_or_else(|| elsewhere(name), |name| format!("; did you mean `{name}`?"));
    format!("unknown key `{shown}` {inside}{meant}")
}

/// The right name in the wrong table.
fn elsewhere(name: &str) -> String {
    let found: Vec<String> = schema::KEYS
        .iter()
        .filter_map(|key| {
            let (table, last) = key.path.rsplit_once('.')?;
            (last == name).then(|| match table.strip_suffix(".*") {
                Some(parent) => format!("[[{parent}]]"),
                None => format!("[{table}]"),
            })
        })
        .collect();
    if found.is_empty() { String::new() } else { format!("; it belongs in {}", found.join(" or ")) }
}

fn bracketed(path: &str) -> String {
    match schema::node(path) {
        Some(Node::List) => format!("[[{path}]]"),
        Some(Node::Table | Node::Key(_)) | None => format!("[{path}]"),
    }
}

fn listed(tables: &[String]) -> String {
    let names: Vec<_> = tables.iter().map(|path| bracketed(path)).collect();
    if names.len() == 1 {
        format!("is only {}", names.concat())
    } else {
        format!("are {}", names.join(", "))
    }
}
