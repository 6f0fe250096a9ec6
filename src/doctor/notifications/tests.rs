use serde_json::json;

use super::*;
use crate::doctor::check::Level;
use crate::setup::dialect::{default_arns, wanted};

const EM: &str = "arn:minio:sqs::EM:webhook";

fn bucket(more: &str) -> BucketSettings {
    toml::from_str(&format!("source = 'b'\n{more}")).unwrap()
}

fn judged(kind: StoreKind, bucket: &BucketSettings, rules: &[NotificationRule]) -> Vec<Check> {
    let known = ArnList::Listed(vec![EM.into(), "arn:rustfs:sqs:us-east-1:em:webhook".into()]);
    let rules: Vec<_> = rules.iter().collect();
    super::rules(kind, bucket, &rules, &known, Duration::from_hours(1))
}

fn worst(checks: &[Check]) -> (Level, String) {
    let worst = checks.iter().max_by_key(|check| check.level).unwrap();
    (worst.level, worst.says.clone())
}

#[test]
fn what_setup_writes_is_found_complete() {
    for include in ["", "include = ['a/', 'b/']"] {
        let bucket = bucket(include);
        let rules = wanted(StoreKind::Minio, &bucket, &[EM.into()]);
        let checks = judged(StoreKind::Minio, &bucket, &rules);
        assert_eq!(worst(&checks).0, Level::Ok, "{checks:?}");
    }
}

#[test]
fn each_way_to_miss_a_change_is_told() {
    type Change<'a> = &'a dyn Fn(&mut NotificationRule);
    let minio = |change: Change<'_>| {
        let bucket = bucket("include = ['a/']");
        let mut rules = wanted(StoreKind::Minio, &bucket, &[EM.into()]);
        rules.iter_mut().for_each(change);
        worst(&judged(StoreKind::Minio, &bucket, &rules))
    };
    let cases: [(Change<'_>, Level, &str); 5] = [
        (&|rule| rule.events.truncate(1), Level::Problem, "s3:ObjectRemoved:*"),
        (&|rule| rule.events.truncate(2), Level::Warning, "Lifecycle"),
        (&|rule| rule.filters[0].1 = "b/".into(), Level::Problem, "under \"a/\""),
        (&|rule| rule.filters[0].0 = "suffix".into(), Level::Problem, "under \"a/\""),
        (&|rule| rule.arn = "arn:minio:sqs::GONE:webhook".into(), Level::Problem, "GONE"),
    ];
    for (change, level, says) in cases {
        let (found, said) = minio(change);
        assert_eq!(found, level, "{said}");
        assert!(said.contains(says), "{said}");
    }
    let (level, said) = worst(&judged(StoreKind::Minio, &bucket(""), &[]));
    assert_eq!(level, Level::Problem);
    assert!(said.contains("every 1h"), "{said}");
}

#[test]
fn an_arn_of_rustfs_in_capitals_is_told() {
    let rules = wanted(StoreKind::Rustfs, &bucket(""), &["arn:rustfs:sqs::EM:webhook".into()]);
    let (level, said) = worst(&judged(StoreKind::Rustfs, &bucket(""), &rules));
    assert_eq!(level, Level::Problem);
    assert!(said.contains("lower case"), "{said}");
}

#[test]
fn rules_of_others_are_not_taken_for_ours() {
    let config = NotificationConfig {
        rules: wanted(
            StoreKind::Minio,
            &bucket(""),
            &[EM.into(), "arn:minio:sqs::X:webhook".into()],
        ),
        ..NotificationConfig::default()
    };
    let arns = |given: &[String]| -> Vec<_> {
        ours(given, &default_arns(StoreKind::Minio), &config)
            .iter()
            .map(|rule| rule.arn.clone())
            .collect()
    };
    assert_eq!(arns(&[]), [EM]);
    assert_eq!(arns(&["arn:minio:sqs::X:webhook".into()]), ["arn:minio:sqs::X:webhook"]);
}

fn minio_says(variables: &[(&str, &str)]) -> Vec<Check> {
    let mut all = serde_json::Map::new();
    for (name, value) in [
        ("NOTIFY_WEBHOOK_ENDPOINT_EM", "http://em:8080/events"),
        ("NOTIFY_WEBHOOK_AUTH_TOKEN_EM", "right"),
        ("NOTIFY_WEBHOOK_QUEUE_DIR_EM", "/q"),
        ("API_SYNC_EVENTS", "on"),
    ]
    .iter()
    .chain(variables)
    {
        all.insert(format!("MINIO_{name}"), json!(value));
    }
    let webhook = toml::from_str("auth_token = 'right'").unwrap();
    minio(&json!({ "servers": [{ "minio_env_vars": all }] }), &webhook, &["EM"])
}

#[test]
fn each_known_trap_of_minio_is_told() {
    assert_eq!(worst(&minio_says(&[])).0, Level::Ok);
    for (variable, level, says) in [
        (("NOTIFY_WEBHOOK_QUEUE_DIR_EM", ""), Level::Warning, "no target has a queue"),
        (("API_SYNC_EVENTS", "off"), Level::Warning, "SYNC_EVENTS is off"),
        (("NOTIFY_WEBHOOK_AUTH_TOKEN_EM", "wrong"), Level::Problem, "401"),
        (
            ("NOTIFY_WEBHOOK_ENDPOINT_EM", "http://em:8080/"),
            Level::Problem,
            "path, which is /events",
        ),
    ] {
        let checks = minio_says(&[variable]);
        let (found, said) = worst(&checks);
        assert_eq!(found, level, "{said}");
        assert!(said.contains(says), "{said}");
        let shown = format!("{checks:?}");
        assert!(!shown.contains("right") && !shown.contains("wrong"), "a token: {shown}");
    }
}

#[test]
fn targets_that_the_environment_does_not_show_are_not_guessed_at() {
    let webhook = toml::from_str("").unwrap();
    let info = json!({ "servers": [{ "minio_env_vars": {"MINIO_API_SYNC_EVENTS": "on"} }] });
    let (level, said) = worst(&minio(&info, &webhook, &["EM"]));
    assert_eq!(level, Level::Warning);
    assert!(said.contains("cannot be seen"), "{said}");
}

#[test]
fn a_target_of_minio_that_is_offline_is_told() {
    let info = |status: &str| {
        json!({"services": {"notifications": [{"kafka": []},
            {"webhook": [{"X": {"status": "offline"}}, {"EM": {"status": status}}]}]}})
    };
    assert!(minio_reaches(&info("online"), &["EM"]).is_empty());
    let (level, said) = worst(&minio_reaches(&info("offline"), &["EM"]));
    assert_eq!(level, Level::Problem);
    assert!(said.contains("target EM"), "{said}");
}

#[test]
fn each_known_trap_of_rustfs_is_told() {
    let said = |value: Value| worst(&rustfs(&value, &["em"], true));
    let off = said(json!({"notify_enabled": false}));
    assert!(off.1.contains("module is off"), "{off:?}");
    let target = |status: &str| {
        json!({"notify_enabled": true, "notification_endpoints":
            [{"account_id": "em", "service": "webhook", "status": status, "health_reason": "why"}]})
    };
    assert_eq!(said(target("online")).0, Level::Warning);
    assert_eq!(said(target("offline")).0, Level::Problem);
}
