//! Every key can be overridden by a variable, and every wrong variable is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use toml::{Table, Value};

use super::{LEAST, error_of, load_text, variables};
use crate::config::kind::Kind;
use crate::config::schema::{self, KEYS, Key};
use crate::config::settings::BucketSettings;
use crate::config::{Loaded, load_with_origins, show};

/// A valid value of `key` that is not its default.
fn sample(key: &Key, dir: &Path) -> String {
    let value = match (key.path, key.kind) {
        ("capture.target_bucket", _) => "other-captured",
        ("buckets.*.may_be_empty", _) => "true",
        ("replicate.max_pending_keys", _) => "5000",
        ("journal.max_size", _) => "1GiB",
        ("intake.webhook.path", _) => "/other",
        ("intake.listen.max_silence" | "lease.duration", _) => "20s",
        ("log.filter", _) => "debug",
        ("target.server_side_encryption", _) => "aws:kms",
        ("intake.sqs.queue_url", _) => "http://other:1/0/queue",
        ("intake.sqs.visibility_timeout", _) => "6s",
        ("intake.kafka.brokers", _) => "other:9092",
        // With the other one, several processes work at once, which a lease excludes.
        ("intake.kafka.ack", _) => "durable",
        ("lease.renew_deadline", _) => "8s",
        (_, Kind::Text) => "other",
        ("target.endpoint", _) => "http://other-target:1",
        ("capture.interval", _) => "2h",
        ("web.listen", _) => "127.0.0.1:8",
        (_, Kind::Endpoint) => "http://other:1",
        (_, Kind::Secret) => "other-secret",
        (_, Kind::Flag) => "false",
        (_, Kind::Count) => "7",
        (_, Kind::Size) => "6MiB",
        (_, Kind::Duration) => "3s",
        (_, Kind::Address) => "127.0.0.1:7",
        (_, Kind::Word(words)) => words.last().unwrap(),
        (_, Kind::Prefixes) => "a/,b/",
        (_, Kind::Names) => "one",
        (_, Kind::Properties) => "client.rack=r,security.protocol=ssl",
        (path, Kind::Path) => {
            let file = dir.join(path);
            fs::write(&file, format!("content of {path}\n")).unwrap();
            return file.to_str().unwrap().to_owned();
        }
    };
    value.to_owned()
}

/// The keys that must be set for `path` to be valid.
fn companions(path: &str) -> Vec<String> {
    let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
    let names: &[&str] = match name {
        "access_key" | "access_key_file" => &["secret_key"],
        "secret_key" | "secret_key_file" => &["access_key"],
        "session_token" => &["access_key", "secret_key"],
        "kms_key_id" => &["server_side_encryption"],
        "read_without_token" => &["auth_token"],
        "cert_file" | "key_file" | "client_ca_file" => &["cert_file", "key_file"],
        _ if table == "lease" => &["name"],
        _ if table == "snapshot" => &["selector"],
        _ if table == "intake.kafka" => &["brokers", "topics"],
        _ => &[],
    };
    let queue = (table == "intake.sqs").then_some(&"queue_url");
    names.iter().chain(queue).map(|name| format!("{table}.{name}")).collect()
}

fn key(path: &str) -> &'static Key {
    KEYS.iter().find(|key| key.path == path).unwrap()
}

fn value_at(loaded: &Loaded, path: &str) -> Value {
    let table = Table::try_from(&loaded.settings).unwrap();
    let at = |value: Value, name: &str| match name {
        "*" => value[0].clone(),
        name => value.get(name).unwrap_or_else(|| panic!("{path} is set")).clone(),
    };
    path.split('.').fold(Value::Table(table), at)
}

#[test]
fn every_key_can_be_overridden_by_its_variable() {
    let dir = TempDir::new().unwrap();
    let before = load_text(LEAST, &[]).unwrap();
    let before = Table::try_from(&before.settings).unwrap();
    for key_under_test in KEYS {
        let path = key_under_test.path;
        let mut env: BTreeMap<String, String> = companions(path)
            .iter()
            .map(|other| (schema::variable(other), sample(key(other), dir.path())))
            .collect();
        let (variable, given) =
            (schema::variable(&path.replace('*', "0")), sample(key_under_test, dir.path()));
        env.insert(variable.clone(), given.clone());
        let env: Vec<_> = env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let loaded = load_text(LEAST, &env).unwrap_or_else(|error| panic!("{path}: {error}"));

        let expected = match key_under_test.kind {
            Kind::Secret => Value::from("<hidden>"),
            Kind::Flag => Value::from(given == "true"),
            Kind::Count => Value::from(given.parse::<i64>().unwrap()),
            Kind::Prefixes => Value::from(vec!["a/", "b/"]),
            Kind::Names => Value::from(vec!["one"]),
            Kind::Properties => Value::Table(
                [("client.rack", "r"), ("security.protocol", "ssl")]
                    .map(|(name, value)| (name.to_owned(), Value::from(value)))
                    .into_iter()
                    .collect(),
            ),
            Kind::Text
            | Kind::Endpoint
            | Kind::Path
            | Kind::Size
            | Kind::Duration
            | Kind::Address
            | Kind::Word(_) => Value::from(given),
        };
        assert_eq!(value_at(&loaded, path), expected, "{path}");
        assert_ne!(Table::try_from(&loaded.settings).unwrap(), before, "{path} changed nothing");
        let shown = show(&loaded).unwrap();
        assert!(shown.contains(&format!(" # from {variable}\n")), "{path} is not marked:\n{shown}");
    }
}

/// `Debug` prints every field, also those that are not set, so it tells which fields there are.
#[test]
fn the_schema_and_the_structs_have_the_same_keys() {
    let dir = TempDir::new().unwrap();
    let env: Vec<(String, String)> = KEYS
        .iter()
        .filter(|key| schema::twin(key.path).is_none_or(|_| key.path.ends_with("_file")))
        .map(|key| (schema::variable(&key.path.replace('*', "0")), sample(key, dir.path())))
        .collect();
    let settings = load_with_origins(None, env.into_iter()).unwrap().settings;

    let mut fields: Vec<String> = Vec::new();
    let mut stack: Vec<(usize, String)> = Vec::new();
    for line in format!("{settings:#?}").lines() {
        let field = line.trim_start();
        let indent = line.len() - field.len();
        let Some((name, _)) = field.split_once(": ") else { continue };
        stack.retain(|(outer, _)| *outer < indent);
        stack.push((indent, name.to_owned()));
        fields.push(stack.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join("."));
    }
    let is_table = |path: &String| fields.iter().any(|f| f.starts_with(&format!("{path}.")));
    let mut leaves: Vec<String> = fields.iter().filter(|path| !is_table(path)).cloned().collect();
    let mut keys: Vec<String> = KEYS.iter().map(|key| key.path.replace(".*", "")).collect();
    leaves.sort();
    keys.sort();
    assert_eq!(leaves, keys);
}

#[test]
fn a_container_needs_no_file() {
    let env = [
        ("EVERMIRROR__DATA_DIR", "/data"),
        ("EVERMIRROR__SOURCE__ENDPOINT", "http://source:9000"),
        ("EVERMIRROR__TARGET__ENDPOINT", "https://target/"),
        ("EVERMIRROR__BUCKETS", "files, data:data-copy"),
        ("EVERMIRROR__BUCKETS__1__EXCLUDE", "tmp/, logs/"),
        ("EVERMIRROR__INTAKE__WEBHOOK__LISTEN", "0.0.0.0:8080"),
        ("EVERMIRROR_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let settings = load_with_origins(None, variables(&env)).unwrap().settings;
    let names: Vec<_> =
        settings.buckets.iter().map(|b| (b.source.as_str(), b.target_name())).collect();
    assert_eq!(names, [("files", "files"), ("data", "data-copy")]);
    assert_eq!(settings.buckets[1].exclude, ["tmp/", "logs/"]);
    assert_eq!(settings.target.endpoint, "https://target");
    assert_eq!(settings.intake.webhook.unwrap().listen.port(), 8080);
}

#[test]
fn a_list_of_buckets_in_the_environment_replaces_the_files() {
    let text = format!("{LEAST}\n[[buckets]]\nsource = \"second\"\ninclude = [\"x/\"]\n");
    let loaded = load_text(&text, &[("EVERMIRROR__BUCKETS", "third")]).unwrap();
    let buckets = &loaded.settings.buckets;
    assert_eq!(buckets.len(), 1);
    assert_eq!((buckets[0].source.as_str(), buckets[0].include.len()), ("third", 0));
}

#[test]
fn an_entry_of_the_list_can_be_changed_or_added() {
    let env = [
        ("EVERMIRROR__BUCKETS__0__TARGET", "files-copy"),
        ("EVERMIRROR__BUCKETS__1__SOURCE", "second"),
    ];
    let loaded = load_text(LEAST, &env).unwrap();
    let names: Vec<_> = loaded.settings.buckets.iter().map(BucketSettings::target_name).collect();
    assert_eq!(names, ["files-copy", "second"]);
}

#[test]
fn a_secret_in_the_environment_replaces_the_files_twin() {
    let text = LEAST
        .replace("[target]", "access_key_file = \"/does/not/exist\"\nsecret_key = \"s\"\n[target]");
    let loaded = load_text(&text, &[("EVERMIRROR__SOURCE__ACCESS_KEY", "mine")]).unwrap();
    assert_eq!(loaded.settings.source.access_key.unwrap().expose_secret(), "mine");
    assert_eq!(loaded.settings.source.access_key_file, None);
}

#[test]
fn a_wrong_variable_is_refused_by_name() {
    let cases = [
        (
            "EVERMIRROR__SOURCE__ENDPIONT",
            "http://x",
            "there is no such key; did you mean EVERMIRROR__SOURCE__ENDPOINT?",
        ),
        (
            "EVERMIRROR__BUCKETS__0__SORCE",
            "x",
            "there is no such key; did you mean EVERMIRROR__BUCKETS__0__SOURCE?",
        ),
        (
            "EVERMIRROR__source__region",
            "x",
            "there is no such key; did you mean EVERMIRROR__SOURCE__REGION?",
        ),
        ("EVERMIRROR__QQQQQQQQ", "x", "there is no such key"),
        ("EVERMIRROR__", "x", "there is no such key"),
        (
            "EVERMIRROR_REPLICATE_TAGS",
            "false",
            "has no effect as it is written; did you mean EVERMIRROR__REPLICATE__TAGS?",
        ),
        (
            "EVERMIRROR__INTAKE",
            "x",
            "names a table: set one of its keys, such as EVERMIRROR__INTAKE__WEBHOOK__LISTEN",
        ),
        ("EVERMIRROR__SOURCE__REGION", "", "is empty: give it a value, or unset it"),
        ("EVERMIRROR__SOURCE__REGION", "\u{fffd}", "is not UTF-8"),
        ("EVERMIRROR__REPLICATE__TAGS", "yes", "`tags` must be true or false, not \"yes\""),
        (
            "EVERMIRROR__REPLICATE__CONCURRENCY",
            "many",
            "`concurrency` must be a whole number, 0 or more, not \"many\"",
        ),
        (
            "EVERMIRROR__REPLICATE__CONCURRENCY",
            "1025",
            "`concurrency` must be between 1 and 1024, not 1025",
        ),
        (
            "EVERMIRROR__BUCKETS",
            "a,,b",
            "has an empty name in entry 2: write \"source\" or \"source:target\", entries separated by commas",
        ),
    ];
    for (name, value, message) in cases {
        assert_eq!(error_of(LEAST, &[(name, value)]), format!("error: {name}: {message}"));
    }
}

#[test]
fn a_gap_in_the_list_of_buckets_is_refused() {
    assert_eq!(
        error_of(LEAST, &[("EVERMIRROR__BUCKETS__9999__SOURCE", "files")]),
        "error: evermirror.toml: EVERMIRROR__BUCKETS__1__SOURCE is missing, but a later entry of \
         [[buckets]] is set: number entries without gaps",
    );
}

#[test]
fn a_command_that_takes_no_notifications_needs_no_intake() {
    let env = [
        ("EVERMIRROR__DATA_DIR", "/nowhere"),
        ("EVERMIRROR__SOURCE__ENDPOINT", "http://a:1"),
        ("EVERMIRROR__TARGET__ENDPOINT", "http://b:2"),
        ("EVERMIRROR__BUCKETS", "one"),
    ];
    let error = load_with_origins(None, variables(&env)).unwrap_err().to_string();
    assert!(error.contains("no intake is given"), "{error}");
    assert!(crate::config::load_without_intake(None, variables(&env)).is_ok());
}
