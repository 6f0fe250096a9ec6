//! A canary in the place of every secret: it must never come out, whatever is wrong.

use std::fs;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::{LEAST, error_of, load_text};
use crate::config::schema::{self, KEYS, Key};
use crate::config::show;

const CANARY: &str = "CANARY";
/// A table of which a secret alone does not make a configuration, and what it needs besides.
const KAFKA_TABLE: &str = "[intake.kafka]";
const KAFKA_NEEDS: &str = "brokers = \"kafka:9092\"\ntopics = [\"events\"]";

fn secrets() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.kind.is_secret())
}

/// [`LEAST`] with `lines` in the table of `key`.
fn with(key: &Key, lines: &str) -> String {
    let (_, table) = schema::name_and_table(key.path);
    let needs = if table == KAFKA_TABLE { KAFKA_NEEDS } else { "" };
    let lines = format!("{lines}\n{needs}");
    if LEAST.contains(&table) {
        return LEAST.replace(&table, &format!("{table}\n{lines}"));
    }
    format!("{LEAST}{table}\n{lines}\n")
}

#[test]
fn settings_with_every_secret_are_shown_without_any() {
    let kafka = [("brokers", "kafka:9092"), ("topics", "events")]
        .map(|(name, value)| (schema::variable(&format!("intake.kafka.{name}")), value));
    let properties = schema::variable("intake.kafka.properties");
    let env: Vec<(String, &str)> = secrets()
        .map(|key| (schema::variable(key.path), CANARY))
        .chain(kafka)
        .chain([(properties, "ssl.key.password=CANARY")])
        .collect();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let loaded = load_text(LEAST, &env).unwrap();
    let secret = loaded.settings.target.secret_key.as_ref().unwrap();
    assert_eq!(secret.expose_secret(), CANARY);
    for text in [
        format!("{loaded:?}"),
        format!("{:#?}", loaded.settings),
        format!("{:?}", loaded.settings.target.store()),
        show(&loaded).unwrap(),
    ] {
        assert!(!text.contains(CANARY), "{text}");
    }
    let hidden = show(&loaded).unwrap().matches("\"<hidden>\"").count();
    assert_eq!(hidden, secrets().count() + 1, "and one property");
}

#[test]
fn no_error_quotes_a_secret() {
    let broken = [
        "NAME = [\"CANARY\"]",
        "NAME = { inner = \"CANARY\" }",
        "NAME = { inner = [\"CANARY\"] } # wrong",
        "NAME = \"CANARY\\u0007\"",
        "NAME = \"CANARY",
        "NAME = 'CANARY",
        "NAME = CANARY",
        "NAME: CANARY",
        "NAME CANARY",
        "NAME =\n  CANARY",
        "NAME = [\n  CANARY",
        "NAME = \"\\q CANARY\"",
        "NAME = \"CANARY\" \"CANARY\"",
        "NAME = \"x\"\nNAME = \"CANARY\"",
        "NAME = \"\"\"\nCANARY = \\q CANARY\n\"\"\"",
        "NAME = '''\nCANARY\nregion = \"CANARY",
        "\"NAME\" = \"CANARY",
        "NAME.x = \"CANARY\"",
        "xNAME = \"CANARY\"",
        "NAMEs.x.y = \"CANARY\"",
        "zzz = { NAME = \"CANARY\" }",
        "region = { NAME = \"CANARY\" }",
        "region = \"x\" NAME = \"CANARY\"",
        "zzz = [{ NAME = \"CANARY\" }]",
        "endpoint = \"http://user:CANARY@host:1/path\"",
        "path_style = 3 NAME = \"CANARY",
    ];
    for key in secrets() {
        let (name, _) = schema::name_and_table(key.path);
        for lines in broken {
            // A table must not name its endpoint twice.
            let lines = lines.replace("NAME", name);
            let mut text = with(key, &lines);
            if lines.starts_with("endpoint") {
                text = text.replace("endpoint = \"http://source:9000\"", "");
                text = text.replace("endpoint = \"http://target:9000\"", "");
            }
            let error = error_of(&text, &[]);
            assert!(!error.contains(CANARY), "{lines}\n{error}");
        }
        let variable = schema::variable(key.path);
        for (name, value) in [
            (variable.clone(), "CANARY\n"),
            (format!("{variable}S"), "CANARY"),
            (variable.replace("__", "_"), "CANARY"),
        ] {
            let error = error_of(LEAST, &[(&name, value)]);
            assert!(error.contains(&name) && !error.contains(CANARY), "{error}");
        }
    }
    for name in ["EVERMIRROR__SOURCE__ENDPOINT", "EVERMIRROR__TARGET__ENDPOINT"] {
        let error = error_of(LEAST, &[(name, "http://user:CANARY@host:x")]);
        assert!(error.contains(name) && !error.contains(CANARY), "{error}");
    }
}

/// One wrong character anywhere in a file full of secrets.
#[test]
fn no_slip_of_the_pen_makes_an_error_quote_a_secret() {
    let text = secrets().fold(LEAST.to_owned(), |text, key| {
        let (name, table) = schema::name_and_table(key.path);
        let line = format!("{table}\n{name} = \"CANARYCANARY\"\n");
        if text.contains(&table) { text.replace(&table, line.trim_end()) } else { text + &line }
    });
    let text = text.replace(KAFKA_TABLE, &format!("{KAFKA_TABLE}\n{KAFKA_NEEDS}"));
    load_text(&text, &[]).unwrap();
    let mut refused = 0;
    for at in 0..text.len() {
        let (before, after) = text.split_at(at);
        for slip in ["", "x", "\"", "'", "=", "\n", "[", "#", ".", " ", "\\"] {
            let kept = usize::from(slip.is_empty());
            let rest = after.get(kept..).unwrap();
            if let Err(error) = load_text(&format!("{before}{slip}{rest}"), &[]) {
                refused += 1;
                assert!(!error.to_string().contains(CANARY), "{slip:?} at {at}: {error}");
            }
        }
    }
    assert!(refused > text.len());
}

#[test]
fn a_secret_is_read_from_its_file_without_the_last_newline() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("key");
    for (content, secret) in [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), (" a ", " a ")]
    {
        fs::write(&file, content).unwrap();
        let env = [("EVERMIRROR__INTAKE__WEBHOOK__AUTH_TOKEN_FILE", file.to_str().unwrap())];
        let loaded = load_text(LEAST, &env).unwrap();
        let webhook = loaded.settings.intake.webhook.clone().unwrap();
        assert_eq!(webhook.auth_token.unwrap().expose_secret(), secret);
        let shown = show(&loaded).unwrap();
        assert!(shown.contains("auth_token_file = ") && !shown.contains("<hidden>"), "{shown}");
    }
}

#[test]
fn a_secrets_file_that_cannot_be_used_is_refused_by_key_and_path() {
    let dir = TempDir::new().unwrap();
    let cases: [(&str, Option<&[u8]>, &str); 4] = [
        ("missing", None, "cannot read"),
        ("empty", Some(b"\n"), "must not be empty"),
        ("lines", Some(b"CANARY\nCANARY\n"), "must be one line without control characters"),
        ("binary", Some(b"CANARY\xff"), "cannot read"),
    ];
    for (name, content, message) in cases {
        let file = dir.path().join(name);
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let path = file.to_str().unwrap();
        let error = error_of(LEAST, &[("EVERMIRROR__WEB__AUTH_TOKEN_FILE", path)]);
        let begin = "error: EVERMIRROR__WEB__AUTH_TOKEN_FILE: `auth_token_file` in [web]: ";
        assert!(error.starts_with(begin), "{error}");
        assert!(
            error.contains(path) && error.contains(message) && !error.contains(CANARY),
            "{error}"
        );
    }
}

#[test]
fn a_secret_given_in_both_ways_is_refused() {
    for key in secrets() {
        let Some(twin) = schema::twin(key.path) else { continue };
        let ((name, table), (twin, _)) =
            (schema::name_and_table(key.path), schema::name_and_table(&twin));
        let error = error_of(&with(key, &format!("{name} = \"CANARY\"\n{twin} = \"/x\"")), &[]);
        assert!(
            error.contains(&format!("`{name}` and `{twin}` are both set in {table}: keep one")),
            "{error}"
        );
        assert!(!error.contains(CANARY), "{error}");
    }
}
