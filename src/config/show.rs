//! The settings in force, as TOML that could be loaded again but for its hidden secrets.

use std::fmt::{self, Write as _};

use toml::{Table, Value};

use super::load::Loaded;
use super::schema::{self, Node};

/// What is not set is left out; what the environment gave is marked with its variable; a secret is
/// shown as `"<hidden>"`, or by the name of the file it was read from.
pub fn show(loaded: &Loaded) -> Result<String, toml::ser::Error> {
    let table = Table::try_from(&loaded.settings)?;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _infallible: fmt::Result = write_table(&mut out, loaded, "", &table);
    Ok(out)
}

fn write_table(out: &mut String, loaded: &Loaded, path: &str, table: &Table) -> fmt::Result {
    // A table's own keys come before its tables, or they would belong to the last of these.
    for name in schema::names_in(path) {
        let child = join(path, name);
        match table.get(name) {
            Some(Value::Table(_)) | None => {}
            Some(Value::Array(items)) if items.iter().any(Value::is_table) => {}
            Some(_) if is_read_from_file(table, path, name) => {}
            Some(value) => {
                write!(out, "{name} = {value}")?;
                if let Some(variable) = loaded.variables.get(&child) {
                    write!(out, " # from {variable}")?;
                }
                out.push('\n');
            }
        }
    }
    for name in schema::names_in(path) {
        let child = join(path, name);
        match table.get(name) {
            Some(Value::Table(inner)) if matches!(schema::node(&child), Some(Node::Key(_))) => {
                if !inner.is_empty() {
                    write!(out, "\n[{child}]")?;
                    if let Some(variable) = loaded.variables.get(&child) {
                        write!(out, " # from {variable}")?;
                    }
                    out.push('\n');
                }
                for (name, value) in inner {
                    writeln!(out, "{} = {value}", Value::String(name.clone()))?;
                }
            }
            Some(Value::Table(inner)) => {
                if inner.values().any(|value| !value.is_table()) {
                    write!(out, "\n[{child}]\n")?;
                }
                write_table(out, loaded, &child, inner)?;
            }
            Some(Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    if let Value::Table(inner) = item {
                        write!(out, "\n[[{child}]]\n")?;
                        write_table(out, loaded, &format!("{child}.{index}"), inner)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_read_from_file(table: &Table, path: &str, name: &str) -> bool {
    let twin = schema::twin(&join(path, name)).filter(|twin| twin.ends_with("_file"));
    twin.is_some_and(|twin| table.contains_key(schema::name_and_table(&twin).0))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
