//! The files in `config/` are what they say they are.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{LEAST, load_text};
use crate::config::load_with_origins;
use crate::config::schema::KEYS;

fn config_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn reference() -> String {
    fs::read_to_string(config_dir().join("evermirror.toml")).unwrap()
}

fn collect_keys(path: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        // A key whose value is a table.
        Value::Table(_) if KEYS.iter().any(|key| key.path == path) => keys.push(path.to_owned()),
        Value::Table(table) => {
            for (name, value) in table {
                let dot = if path.is_empty() { "" } else { "." };
                collect_keys(&format!("{path}{dot}{name}"), value, keys);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            for item in items {
                collect_keys(&format!("{path}.*"), item, keys);
            }
        }
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_) => keys.push(path.to_owned()),
    }
}

/// Comments are `# text`; keys that are not set by default are `#key = value`.
#[test]
fn the_reference_file_lists_every_key_and_no_other() {
    let uncommented: String = reference()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let table: Table = uncommented.parse().unwrap();
    let mut listed = Vec::new();
    collect_keys("", &Value::Table(table), &mut listed);
    let mut keys: Vec<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    listed.sort();
    keys.sort();
    assert_eq!(listed, keys);
}

#[test]
fn the_reference_file_holds_the_defaults() {
    let reference = load_text(&reference(), &[]).unwrap().settings;
    let env = [
        ("EVERMIRROR__DATA_DIR", reference.data_dir.to_str().unwrap()),
        ("EVERMIRROR__SOURCE__ENDPOINT", &reference.source.endpoint),
        ("EVERMIRROR__TARGET__ENDPOINT", &reference.target.endpoint),
        ("EVERMIRROR__BUCKETS", &reference.buckets[0].source),
    ];
    let defaults = load_text(LEAST, &env).unwrap().settings;
    assert_eq!(Table::try_from(reference).unwrap(), Table::try_from(defaults).unwrap());
}

/// A table that something is required in is commented out, so its defaults are too.
#[test]
fn the_reference_file_shows_the_defaults_of_the_sqs_intake() {
    let text = format!("{LEAST}[intake.sqs]\nqueue_url = \"http://queue:1/0/events\"\n");
    let sqs = load_text(&text, &[]).unwrap().settings.intake.sqs.unwrap();
    let shown = humantime::format_duration;
    for line in [
        format!("#receivers = {}", sqs.receivers),
        format!("#wait_time = \"{}\"", shown(sqs.wait_time)),
        format!("#visibility_timeout = \"{}\"", shown(sqs.visibility_timeout)),
    ] {
        assert!(reference().lines().any(|l| l == line), "{line}");
    }
}

#[test]
fn every_example_is_valid() {
    let examples = fs::read_dir(config_dir().join("examples")).unwrap();
    let mut names = Vec::new();
    for example in examples {
        let path = example.unwrap().path();
        load_with_origins(Some(&path), std::iter::empty())
            .unwrap_or_else(|error| panic!("{error}"));
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["aws-sqs.toml", "aws-target.toml", "minio-webhook.toml", "sidecar.toml"]);
}

#[test]
fn what_check_config_prints_can_be_loaded_again() {
    let text = fs::read_to_string(config_dir().join("examples/sidecar.toml")).unwrap();
    let first = load_text(&text, &[("EVERMIRROR__REPLICATE__TAGS", "false")]).unwrap();
    let shown = crate::config::show(&first).unwrap();
    let second = load_text(&shown, &[]).unwrap();
    assert_eq!(Table::try_from(first.settings).unwrap(), Table::try_from(second.settings).unwrap());
}
