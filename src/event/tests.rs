//! Every fixture and what must be understood of it; properties over keys and bytes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The hostile key that the captures use.
const HOSTILE: &str = "dir a/réd +flower%20&?#.txt";
const CONTENT: Aspects = Aspects::CONTENT;
const REMOVED: Aspects = Aspects::CONTENT.with(Aspects::REMOVED);
const TAGS: Aspects = Aspects::TAGS;
const RETENTION: Aspects = Aspects::RETENTION;
const CHECK: Aspects = Aspects::CONTENT.with(Aspects::CHECK);

/// File (without `.json`), keys with their aspects. Files that say more have a test of their own.
const TABLE: &[(&str, &[(&str, Aspects)])] = &[
    ("captured/minio/accessed-get", &[]),
    ("captured/minio/bulk-delete-copied", &[("copied", REMOVED)]),
    ("captured/minio/bulk-delete-never-was", &[("never was", REMOVED)]),
    ("captured/minio/bulk-delete-with-a-refused-key-never-was", &[("never was", REMOVED)]),
    ("captured/minio/bulk-delete-with-a-refused-key-other", &[("other", REMOVED)]),
    ("captured/minio/copy", &[("copied", CONTENT)]),
    ("captured/minio/delete", &[(HOSTILE, REMOVED)]),
    ("captured/minio/delete-directory-marker", &[("dir/", REMOVED)]),
    ("captured/minio/delete-missing", &[("never was", REMOVED)]),
    ("captured/minio/legal-hold", &[("kept", RETENTION)]),
    ("captured/minio/listen-ping", &[]),
    ("captured/minio/listen-put", &[(HOSTILE, CONTENT)]),
    ("captured/minio/multipart-complete", &[("multi part", CONTENT)]),
    ("captured/minio/put", &[(HOSTILE, CONTENT)]),
    ("captured/minio/put-control-character", &[("ctl\u{1}\u{1f}\t\"\\<&>", CONTENT)]),
    ("captured/minio/put-directory-marker", &[("dir/", CONTENT)]),
    ("captured/minio/put-emoji", &[("🦀/日本語~*'()!", CONTENT)]),
    ("captured/minio/put-zero-byte", &[("empty", CONTENT)]),
    ("captured/minio/retention", &[("kept", RETENTION)]),
    ("captured/minio/tagging-delete", &[(HOSTILE, TAGS)]),
    ("captured/minio/tagging-put", &[(HOSTILE, TAGS)]),
    ("captured/minio/versioned-bulk-delete", &[("v", REMOVED)]),
    ("captured/minio/versioned-delete", &[("v", REMOVED)]),
    ("captured/minio/versioned-delete-old-version", &[("v", REMOVED)]),
    ("captured/minio/versioned-overwrite", &[("v", CONTENT)]),
    ("captured/minio/versioned-put", &[("v", CONTENT)]),
    ("captured/minio/versioned-undelete", &[("v", REMOVED)]),
    ("captured/moto/eventbridge-delete", &[(HOSTILE, REMOVED)]),
    ("captured/moto/eventbridge-put", &[(HOSTILE, CONTENT)]),
    ("captured/moto/eventbridge-put-tags", &[(HOSTILE, TAGS)]),
    ("captured/moto/eventbridge-tagging-put", &[(HOSTILE, TAGS)]),
    ("captured/moto/sns-put", &[(HOSTILE, CONTENT)]),
    ("captured/moto/sns-put-tags", &[(HOSTILE, TAGS)]),
    ("captured/moto/sns-test-event", &[]),
    ("captured/moto/sqs-copy", &[("copied", CONTENT)]),
    ("captured/moto/sqs-delete", &[(HOSTILE, REMOVED)]),
    ("captured/moto/sqs-put", &[(HOSTILE, CONTENT)]),
    ("captured/moto/sqs-put-tags", &[(HOSTILE, TAGS)]),
    ("captured/moto/sqs-put-zero-byte", &[("empty", CONTENT)]),
    ("captured/moto/sqs-put-zero-byte-tags", &[("empty", TAGS)]),
    ("captured/moto/sqs-tagging-delete", &[(HOSTILE, TAGS)]),
    ("captured/moto/sqs-tagging-put", &[(HOSTILE, TAGS)]),
    ("captured/moto/sqs-test-event", &[]),
    ("captured/rustfs/acl-put", &[]),
    ("captured/rustfs/bulk-delete-copied", &[("copied", REMOVED)]),
    ("captured/rustfs/bulk-delete-never-was", &[("never was", REMOVED)]),
    ("captured/rustfs/bulk-delete-with-a-refused-key-kept", &[("kept", REMOVED)]),
    ("captured/rustfs/bulk-delete-with-a-refused-key-never-was", &[("never was", REMOVED)]),
    ("captured/rustfs/bulk-delete-with-a-refused-key-other", &[("other", REMOVED)]),
    ("captured/rustfs/copy", &[("copied", CONTENT)]),
    ("captured/rustfs/delete", &[(HOSTILE, REMOVED)]),
    ("captured/rustfs/delete-directory-marker", &[("dir/", REMOVED)]),
    ("captured/rustfs/delete-missing", &[("never was", REMOVED)]),
    ("captured/rustfs/force-delete-prefix", &[("forced/", REMOVED)]),
    ("captured/rustfs/listen-ping", &[]),
    ("captured/rustfs/listen-put", &[(HOSTILE, CONTENT)]),
    ("captured/rustfs/multipart-complete", &[("multi part", CONTENT)]),
    ("captured/rustfs/put", &[(HOSTILE, CONTENT)]),
    ("captured/rustfs/put-control-character", &[("ctl\u{1}\u{1f}\t\"\\<&>", CONTENT)]),
    ("captured/rustfs/put-directory-marker", &[("dir/", CONTENT)]),
    ("captured/rustfs/put-emoji", &[("🦀/日本語~*'()!", CONTENT)]),
    ("captured/rustfs/put-zero-byte", &[("empty", CONTENT)]),
    ("captured/rustfs/tagging-delete", &[(HOSTILE, TAGS)]),
    ("captured/rustfs/tagging-put", &[(HOSTILE, TAGS)]),
    ("captured/rustfs/versioned-bulk-delete", &[("v", REMOVED)]),
    ("captured/rustfs/versioned-delete", &[("v", REMOVED)]),
    ("captured/rustfs/versioned-delete-old-version", &[("v", REMOVED)]),
    ("captured/rustfs/versioned-overwrite", &[("v", CONTENT)]),
    ("captured/rustfs/versioned-put", &[("v", CONTENT)]),
    ("captured/rustfs/versioned-undelete", &[("v", REMOVED)]),
    ("documented/aws-eventbridge-acl-updated", &[]),
    ("documented/aws-eventbridge-created", &[("dir/a +b%20", CONTENT)]),
    ("documented/aws-eventbridge-deleted", &[("gone", REMOVED)]),
    ("documented/aws-eventbridge-tags-added", &[("tagged", TAGS)]),
    ("documented/aws-sns-put", &[("photos/red flower.jpg", CONTENT)]),
    ("documented/aws-sqs-put", &[("photos/red flower+.jpg", CONTENT)]),
    ("documented/aws-sqs-restore-completed", &[("cold", CHECK)]),
    (
        "documented/aws-sqs-several-records",
        &[("a b", CONTENT), ("c", REMOVED), ("d", TAGS), ("dir/", REMOVED)],
    ),
    ("documented/aws-test-event", &[]),
    ("documented/ceph-lifecycle-expiration", &[("old", REMOVED)]),
    ("documented/ceph-put", &[("dir a/100% +é%20.txt", CONTENT)]),
    ("documented/ceph-size-as-text", &[("sized", CONTENT)]),
    ("documented/ceph-synced", &[("from elsewhere", CONTENT)]),
    ("documented/localstack-put", &[("dir a/réd +flower%20.txt", CONTENT)]),
    ("documented/rustfs-2025-empty-key", &[]),
    ("documented/rustfs-2025-put", &[("dir a", CONTENT)]),
    ("documented/scality-put", &[("dir a/100% +é", CONTENT)]),
    ("documented/seaweedfs-filer-create", &[]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/notifications")
}

fn read(name: &str) -> Parsed {
    let body = std::fs::read(root().join(format!("{name}.json"))).expect(name);
    let channel = if name.contains("listen") { Channel::Listen } else { Channel::Push };
    parse(&body, channel)
}

/// What is right for most documents: keys, nothing else.
fn is_clean(parsed: &Parsed) -> bool {
    parsed.unusable.is_empty() && parsed.dirty_buckets.is_empty() && !parsed.all_buckets_dirty
}

#[test]
fn every_fixture_is_understood() {
    const BUCKETS: [&str; 5] = ["plain", "versioned", "locked", "bysns", "byeb"];
    for (name, expected) in TABLE {
        let parsed = read(name);
        let keys: Vec<_> = parsed.events.iter().map(|e| (&*e.key.key, e.aspects)).collect();
        assert_eq!(keys, *expected, "{name}");
        for event in &parsed.events {
            assert!(BUCKETS.contains(&&*event.key.bucket), "{name}: {}", event.key);
            assert!(event.at_ms.is_some(), "{name} has an event time");
        }
    }
}

#[test]
fn only_what_is_strange_marks_buckets_and_becomes_a_dead_letter() {
    let strange = [
        ("captured/rustfs/delete-directory-marker", GapReason::PrefixRemoved, 0),
        ("captured/rustfs/force-delete-prefix", GapReason::PrefixRemoved, 0),
        ("documented/rustfs-2025-empty-key", GapReason::UnusableEvent, 1),
        ("documented/seaweedfs-filer-create", GapReason::UnusableEvent, 1),
    ];
    for (name, reason, letters) in strange {
        let parsed = read(name);
        assert_eq!(parsed.dirty_buckets, [("plain".to_owned(), reason)], "{name}");
        assert_eq!(parsed.unusable.len(), letters, "{name}");
        assert!(!parsed.all_buckets_dirty, "{name}");
    }
    for (name, _) in TABLE.iter().filter(|(name, _)| !strange.iter().any(|s| s.0 == *name)) {
        assert!(is_clean(&read(name)), "{name}: {:?}", read(name));
    }
}

#[test]
fn no_fixture_is_left_out_of_the_table() {
    let mut files = BTreeSet::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "json") {
                files.insert(path);
            }
        }
    }
    let named: BTreeSet<_> =
        TABLE.iter().map(|(name, _)| root().join(format!("{name}.json"))).collect();
    assert_eq!(files, named);
}

#[test]
fn sizes_and_times_are_read_where_they_are_given() {
    let sized = |name| read(name).events.remove(0).size;
    assert_eq!(sized("captured/minio/put"), Some(1));
    assert_eq!(sized("captured/minio/put-zero-byte"), None, "MinIO omits a size of zero");
    assert_eq!(sized("captured/rustfs/put-zero-byte"), Some(0));
    assert_eq!(sized("documented/ceph-size-as-text"), Some(1024));
    assert_eq!(sized("documented/scality-put"), Some(1024));
    let time = |name| read(name).events.remove(0).at_ms;
    assert_eq!(time("documented/ceph-put"), Some(1_574_430_455_124), "microseconds");
    assert_eq!(time("documented/aws-eventbridge-created"), Some(1_636_675_200_000), "seconds");
    assert_eq!(time("documented/rustfs-2025-put"), Some(1_764_583_200_123), "nanoseconds");
}

#[test]
fn an_identity_is_that_of_one_event_only() {
    let identified: Vec<_> = TABLE
        .iter()
        .filter(|(name, _)| !name.contains("/moto/") && !name.starts_with("documented"))
        .flat_map(|(name, _)| read(name).events)
        .map(|event| event.identity.expect("MinIO and RustFS give every event a request id"))
        .collect();
    assert_eq!(identified.iter().collect::<BTreeSet<_>>().len(), identified.len());
    assert_eq!(read("captured/minio/put"), read("captured/minio/put"));
    for (name, _) in TABLE.iter().filter(|(n, _)| n.contains("moto") || n.starts_with("doc")) {
        assert!(read(name).events.iter().all(|event| event.identity.is_none()), "{name}");
    }
}

#[test]
fn what_cannot_be_used_is_named_and_leaves_its_buckets_in_doubt() {
    let record = |name, bucket: serde_json::Value, key: serde_json::Value| {
        json!({"Records": [{"eventSource": "minio:s3", "eventName": name,
            "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]})
        .to_string()
    };
    let put = "s3:ObjectCreated:Put";
    for (body, reason, all) in [
        (String::new(), UnusableReason::NotJson, true),
        ("{".to_owned(), UnusableReason::NotJson, true),
        ("[".repeat(100_000), UnusableReason::NotJson, true),
        ("{}".to_owned(), UnusableReason::UnknownShape, true),
        ("[1]".to_owned(), UnusableReason::UnknownShape, true),
        (r#"{"Records":null}"#.to_owned(), UnusableReason::NoRecords, true),
        (r#"{"Records":[]}"#.to_owned(), UnusableReason::NoRecords, true),
        (r#"{"Records":"x"}"#.to_owned(), UnusableReason::NoRecords, true),
        (r#"{"Records":[null]}"#.to_owned(), UnusableReason::NoBucket, true),
        (r#"{"Type":"Notification","Message":"?"}"#.to_owned(), UnusableReason::NotJson, true),
        (record(put, json!(""), json!("k")), UnusableReason::NoBucket, true),
        (record(put, json!(5), json!("k")), UnusableReason::NoBucket, true),
        (record(put, json!("b"), json!("")), UnusableReason::NoKey, false),
        (record(put, json!("b"), json!(null)), UnusableReason::NoKey, false),
        (record(put, json!("b"), json!(["k"])), UnusableReason::NoKey, false),
        (record(put, json!("b"), json!("%ff")), UnusableReason::BadKey, false),
        (record(put, json!("b"), json!("k".repeat(1025))), UnusableReason::BadKey, false),
    ] {
        let parsed = parse(body.as_bytes(), Channel::Push);
        let shown = body.get(..body.len().min(200)).unwrap();
        assert_eq!(parsed.events, [], "{shown}");
        assert_eq!(parsed.unusable.first().map(|u| u.reason), Some(reason), "{shown}");
        assert_eq!(parsed.all_buckets_dirty, all, "{shown}");
        let expected = if all { vec![] } else { vec![("b".to_owned(), GapReason::UnusableEvent)] };
        assert_eq!(parsed.dirty_buckets, expected, "{shown}");
    }
    let unknown = parse(record("s3:New:Thing", json!("b"), json!("k")).as_bytes(), Channel::Push);
    assert_eq!(unknown.events.first().unwrap().aspects, CHECK, "its key is looked at");
    assert_eq!(unknown.unusable.first().unwrap().reason, UnusableReason::UnknownEvent);
    let bucket =
        parse(record("s3:BucketRemoved:*", json!("b"), json!("")).as_bytes(), Channel::Push);
    assert_eq!(bucket.dirty_buckets, [("b".to_owned(), GapReason::BucketEvent)]);
}

#[test]
fn records_beyond_the_limit_are_not_read_and_not_forgotten() {
    let record = r#"{"eventSource":"aws:s3","s3":{"bucket":{"name":"b"},"object":{"key":"k"}},"eventName":"ObjectCreated:Put"}"#;
    let body = format!(r#"{{"Records":[{}{record}]}}"#, format!("{record},").repeat(MAX_RECORDS));
    let parsed = parse(body.as_bytes(), Channel::Push);
    assert_eq!(parsed.events.len(), MAX_RECORDS);
    assert!(parsed.all_buckets_dirty);
    assert_eq!(parsed.unusable.last().unwrap().reason, UnusableReason::TooManyRecords);
}

/// `key` as the store of `dialect` would announce it.
fn announce(dialect: &str, key: &str) -> Vec<u8> {
    let form: String = form_urlencoded::byte_serialize(key.as_bytes()).collect();
    let percent = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
    let record = |source: &str, key: &str| {
        json!({"Records": [{"eventSource": source, "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "b"}, "object": {"key": key}}}]})
    };
    match dialect {
        "aws, slashes kept" => record("aws:s3", &form.replace("%2F", "/")),
        "sns" => json!({"Type": "Notification", "Message": record("aws:s3", &form).to_string()}),
        "localstack" => record("aws:s3", &percent.to_string().replace("%2F", "/")),
        "eventbridge" => json!({"detail-type": "Object Created",
            "detail": {"bucket": {"name": "b"}, "object": {"key": key}}}),
        "ceph:s3" | "scality:s3" | "listen" => {
            record(if dialect == "listen" { "minio:s3" } else { dialect }, key)
        }
        source => record(source, &form),
    }
    .to_string()
    .into_bytes()
}

proptest! {
    #[test]
    fn any_key_survives_the_encoding_of_every_dialect(key in "\\PC{1,200}|[ +%/&?#.\\x00-\\x1f]{1,40}") {
        for dialect in [
            "minio:s3", "rustfs:s3", "aws:s3", "aws, slashes kept", "sns", "localstack",
            "eventbridge", "ceph:s3", "scality:s3", "listen", "somebody:s3",
        ] {
            let channel = if dialect == "listen" { Channel::Listen } else { Channel::Push };
            let parsed = parse(&announce(dialect, &key), channel);
            let found = parsed.events.iter().any(|event| *event.key.key == *key);
            prop_assert!(found || key.len() > 1024, "{}: {:?}", dialect, parsed);
            prop_assert!(parsed.events.len() == 1 || dialect == "somebody:s3", "{}", dialect);
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..256)) {
        let parsed = parse(&body, Channel::Push);
        prop_assert_eq!(parsed.body_bytes, body.len());
        prop_assert!(!parsed.unusable.is_empty() || !parsed.events.is_empty() || parsed.ignored > 0);
    }

    /// Cutting a field out of, or putting rubbish into, a real document never panics and is
    /// never silent.
    #[test]
    fn a_damaged_document_is_never_passed_over(at in 0.0..1.0_f64, patch in "[\\[\\]{}\":,a-z0-9]{0,6}") {
        let mut body = std::fs::read(root().join("captured/minio/put.json")).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
            reason = "a position in a small file")]
        let start = (at * body.len() as f64) as usize;
        let end = (start + 5).min(body.len());
        body.splice(start..end, patch.bytes());
        let parsed = parse(&body, Channel::Push);
        prop_assert!(!parsed.unusable.is_empty() || !parsed.events.is_empty() || parsed.ignored > 0);
    }
}
