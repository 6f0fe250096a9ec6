//! The types a value can have: read from TOML, or from the text of an environment variable.
//!
//! A message never repeats the value of a secret, nor of an endpoint (it may hold a password).

use std::net::SocketAddr;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{spelling, units::ByteSize};

/// What values a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Endpoint,
    Secret,
    Path,
    Flag,
    Count,
    Size,
    Duration,
    Address,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// A list of strings.
    Prefixes,
    /// A list of names.
    Names,
    /// A table of strings under any names, which may hold dots.
    Properties,
}

impl Kind {
    /// Whether its values are hidden wherever they would be shown.
    pub(super) const fn is_secret(self) -> bool {
        matches!(self, Self::Secret)
    }

    /// Whether it takes a list.
    pub(super) const fn is_list(self) -> bool {
        matches!(self, Self::Prefixes | Self::Names)
    }

    /// Whether `text` may be shown: a URL can carry a user and a password.
    pub(super) fn may_show(self, text: &str) -> bool {
        let may_hide_a_secret = matches!(self, Self::Endpoint) && text.contains('@');
        !self.is_secret() && !may_hide_a_secret
    }

    /// Reads a value of a TOML document.
    pub(super) fn read_toml(self, value: &DeValue<'_>) -> Result<Value, String> {
        match (self, value) {
            (Self::Flag, DeValue::Boolean(flag)) => Ok(Value::Boolean(*flag)),
            (Self::Count | Self::Size, DeValue::Integer(number)) => {
                let digits = number.as_str();
                let number = i64::from_str_radix(digits, number.radix());
                number
                    .ok()
                    .filter(|n| *n >= 0)
                    .map(Value::Integer)
                    .ok_or_else(|| format!("must be between 0 and {}, not {digits}", i64::MAX))
            }
            (Self::Prefixes, DeValue::Array(items)) => {
                let texts = items.iter().map(|item| {
                    let wrong =
                        || format!("must be a list of strings, not of {}", plural(item.get_ref()));
                    item.get_ref().as_str().ok_or_else(wrong).and_then(prefix)
                });
                texts.collect::<Result<_, _>>().map(Value::Array)
            }
            (Self::Names, DeValue::Array(items)) => {
                let texts = items.iter().map(|item| {
                    let wrong =
                        || format!("must be a list of strings, not of {}", plural(item.get_ref()));
                    item.get_ref().as_str().ok_or_else(wrong).and_then(name)
                });
                texts.collect::<Result<_, _>>().map(Value::Array)
            }
            (Self::Properties, DeValue::Table(table)) => {
                let mut properties = Table::new();
                flatten("", table, &mut properties)?;
                Ok(Value::Table(properties))
            }
            (Self::Flag | Self::Count | Self::Prefixes | Self::Names | Self::Properties, _) => {
                Err(self.wants(value))
            }
            (_, DeValue::String(text)) => self.read_text(text),
            _ => Err(self.wants(value)),
        }
    }

    /// Reads the value of an environment variable, or a TOML string.
    pub(super) fn read_text(self, text: &str) -> Result<Value, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        let shown = text.escape_debug();
        match self {
            Self::Endpoint => Ok(Value::String(text.strip_suffix('/').unwrap_or(text).to_owned())),
            Self::Secret if text.chars().any(char::is_control) => {
                Err("must be one line without control characters".to_owned())
            }
            Self::Text | Self::Path | Self::Secret => Ok(Value::String(text.to_owned())),
            Self::Flag => text
                .parse()
                .map(Value::Boolean)
                .map_err(|_| format!("must be true or false, not \"{shown}\"")),
            Self::Count => text
                .parse::<i64>()
                .ok()
                .filter(|n| *n >= 0)
                .map(Value::Integer)
                .ok_or_else(|| format!("must be a whole number, 0 or more, not \"{shown}\"")),
            Self::Size => text
                .parse::<ByteSize>()
                .map(|size| Value::String(size.to_string()))
                .map_err(|error| error.to_string()),
            Self::Duration => match humantime::parse_duration(text) {
                Ok(_) => Ok(Value::String(text.to_owned())),
                Err(_) => Err(format!(
                    "must be a duration such as \"30s\", \"250ms\" or \"1h\", not \"{shown}\""
                )),
            },
            Self::Address => {
                text.parse::<SocketAddr>().map(|a| Value::String(a.to_string())).map_err(|_| {
                    format!(
                        "must be an IP address and a port such as \"0.0.0.0:8080\", not \"{shown}\""
                    )
                })
            }
            Self::Word(words) if words.contains(&text) => Ok(Value::String(text.to_owned())),
            Self::Word(words) => {
                Err(format!("must be {}, not \"{shown}\"{}", or(words), meant(text, words)))
            }
            Self::Names => {
                text.split(',').map(|n| name(n.trim())).collect::<Result<_, _>>().map(Value::Array)
            }
            Self::Properties => {
                let pairs = text.split(',').map(|pair| match pair.split_once('=') {
                    Some((name, value)) if !name.trim().is_empty() => {
                        Ok((name.trim().to_owned(), Value::String(value.to_owned())))
                    }
                    _ => Err("must be NAME=VALUE, several with commas".to_owned()),
                });
                pairs.collect::<Result<Table, _>>().map(Value::Table)
            }
            Self::Prefixes => text
                .split(',')
                .map(|p| prefix(p.trim()))
                .collect::<Result<_, _>>()
                .map(Value::Array),
        }
    }

    fn wants(self, value: &DeValue<'_>) -> String {
        let wanted = match self {
            Self::Text | Self::Endpoint | Self::Secret | Self::Path | Self::Word(_) => "a string",
            Self::Flag => "true or false, without quotes",
            Self::Count => "a whole number, without quotes",
            Self::Size => "a size such as 67108864 or \"64MiB\"",
            Self::Duration => "a duration in quotes such as \"30s\"",
            Self::Address => "an IP address and a port in quotes such as \"0.0.0.0:8080\"",
            Self::Prefixes => "a list of strings such as [\"raw/\", \"tables/\"]",
            Self::Names => "a list of names such as [\"minio-events\"]",
            Self::Properties => "a table of strings",
        };
        format!("must be {wanted}, not {}", one(value))
    }
}

fn prefix(text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Err("must not hold an empty prefix (it would match every key)".to_owned());
    }
    Ok(Value::String(text.to_owned()))
}

fn name(text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Err("must not hold an empty name".to_owned());
    }
    Ok(Value::String(text.to_owned()))
}

/// Names may be quoted or not: without quotes TOML takes `a.b = "c"` for a table in a table.
fn flatten(prefix: &str, table: &DeTable<'_>, into: &mut Table) -> Result<(), String> {
    for (name, value) in table {
        let name = format!("{prefix}{}", name.get_ref());
        let text = match value.get_ref() {
            DeValue::Table(inner) => {
                flatten(&format!("{name}."), inner, into)?;
                continue;
            }
            DeValue::String(text) => text.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            other @ (DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_)) => {
                let name = name.escape_debug();
                return Err(format!("must hold strings, but `{name}` is {}", one(other)));
            }
        };
        into.insert(name, Value::String(text));
    }
    Ok(())
}

fn meant(text: &str, words: &[&'static str]) -> String {
    spelling::nearest(text, words).map_or_else(String::new, |w| format!("; did you mean \"{w}\"?"))
}

/// `"a", "b" or "c"`.
fn or(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// The type of a value that was not expected.
pub(super) const fn one(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a floating-point number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The type of the entries of a list that were not expected.
pub(super) const fn plural(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "strings",
        DeValue::Integer(_) => "integers",
        DeValue::Float(_) => "floating-point numbers",
        DeValue::Boolean(_) => "booleans",
        DeValue::Datetime(_) => "dates",
        DeValue::Array(_) => "lists",
        DeValue::Table(_) => "tables",
    }
}
