use super::*;

fn bucket(include: &[&str]) -> BucketSettings {
    let list: Vec<_> = include.iter().map(|prefix| format!("{prefix:?}")).collect();
    toml::from_str(&format!("source = 'b'\ninclude = [{}]", list.join(","))).unwrap()
}

fn prefixes(include: &[&str]) -> Vec<String> {
    let rules = wanted(StoreKind::Minio, &bucket(include), &["arn:minio:sqs::EM:webhook".into()]);
    rules.into_iter().flat_map(|rule| rule.filters).map(|(_, value)| value).collect()
}

#[test]
fn filters_never_leave_out_an_included_key() {
    assert_eq!(prefixes(&["b/", "a/"]), ["a/", "b/"]);
    assert_eq!(prefixes(&["a/b/", "a/", "a/c"]), ["a/"], "overlapping rules are refused by S3");
    for whole in [&[][..], &["a/", ""], &["a b/"], &["a*"], &["é/"]] {
        let rules = wanted(StoreKind::Aws, &bucket(whole), &["arn:aws:sqs:r:1:q".into()]);
        assert_eq!(rules.len(), 1, "{whole:?}");
        assert!(rules[0].filters.is_empty(), "{whole:?}");
    }
}

#[test]
fn every_rule_of_a_bucket_has_a_name_of_its_own() {
    let arns = default_arns(StoreKind::Rustfs);
    let rules = wanted(StoreKind::Rustfs, &bucket(&["a/", "b/"]), &arns);
    let mut ids: Vec<_> = rules.iter().map(|rule| rule.id.clone().unwrap()).collect();
    assert_eq!(ids.len(), 4);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "{ids:?}");
}

#[test]
fn an_arn_is_recognised_with_and_without_its_region() {
    assert!(same_arn("arn:rustfs:sqs:us-east-1:em:webhook", "arn:rustfs:sqs::em:webhook"));
    assert!(!same_arn("arn:rustfs:sqs::em:webhook", "arn:rustfs:sqs::em:kafka"));
    assert!(!same_arn("arn:minio:sqs::EM:webhook", "arn:minio:sqs::em:webhook"));
    assert!(!same_arn("arn:aws:sqs:eu:1:q", "arn:aws:sqs:us:1:q"));
}

#[test]
fn an_arn_that_would_never_deliver_is_objected_to() {
    let says = |kind, arn| objection(kind, arn).unwrap_or_default();
    assert!(says(StoreKind::Rustfs, "arn:rustfs:sqs::EM:webhook").contains("sqs::em:webhook"));
    assert!(says(StoreKind::Rustfs, "arn:minio:sqs::em:webhook").contains("arn:rustfs:"));
    assert!(says(StoreKind::Aws, "queue").contains("is no ARN"));
    assert_eq!(says(StoreKind::Minio, "arn:minio:sqs::EM:webhook"), "");
}

#[test]
fn what_no_rule_tells_of_is_found() {
    let mut rule = wanted(StoreKind::Minio, &bucket(&[]), &["arn:minio:sqs::EM:webhook".into()]);
    let mut rule = rule.remove(0);
    assert!(missing_events(StoreKind::Minio, &[&rule]).is_empty());
    rule.events = vec!["s3:ObjectRemoved:*".into(), "s3:ObjectCreated:Put".into()];
    let missing = missing_events(StoreKind::Minio, &[&rule]);
    assert_eq!(missing[0], "s3:ObjectCreated:*");
    assert!(!missing.contains(&"s3:ObjectRemoved:*".to_owned()));
    rule.events = ["Put", "Post", "Copy", "CompleteMultipartUpload"]
        .map(|event| format!("s3:ObjectCreated:{event}"))
        .to_vec();
    assert_eq!(missing_events(StoreKind::Other, &[&rule]), ["s3:ObjectRemoved:*"]);
}

#[test]
fn the_variables_for_the_store_hold_no_secret() {
    let webhook: WebhookSettings =
        toml::from_str("listen = '0.0.0.0:8080'\nauth_token = 's3cret'").unwrap();
    for kind in [StoreKind::Minio, StoreKind::Rustfs] {
        let text = environment(kind, &webhook).join("\n");
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("QUEUE_DIR_EM=") && text.contains("EVERMIRROR-HOST:8080/events"));
    }
    let rustfs = environment(StoreKind::Rustfs, &webhook);
    assert_eq!(rustfs.last().unwrap(), "RUSTFS_OUTBOUND_ALLOW_ORIGINS=http://EVERMIRROR-HOST:8080");
}

#[test]
fn the_arns_that_are_looked_for_are_those_of_the_intakes() {
    let arns = |tables: &str, kind| usual_arns(&toml::from_str(tables).unwrap(), kind);
    let kafka = "[kafka]\nbrokers = 'k:9092'\ntopics = ['t']";
    let sqs = |url: &str| format!("[sqs]\nqueue_url = '{url}'");
    assert_eq!(arns("", StoreKind::Minio), default_arns(StoreKind::Minio));
    assert_eq!(arns(kafka, StoreKind::Minio), ["arn:minio:sqs::EM:kafka"]);
    assert_eq!(arns(kafka, StoreKind::Rustfs), ["arn:rustfs:sqs::em:kafka"]);
    assert_eq!(arns(&format!("[webhook]\n{kafka}"), StoreKind::Minio).len(), 3);
    let queue = sqs("https://sqs.eu-central-1.amazonaws.com/111122223333/s3-events");
    let arn = "arn:aws:sqs:eu-central-1:111122223333:s3-events";
    assert_eq!(arns(&queue, StoreKind::Aws), [arn]);
    let chinese = sqs("https://sqs.cn-north-1.amazonaws.com.cn/111122223333/q");
    assert_eq!(arns(&chinese, StoreKind::Aws), ["arn:aws-cn:sqs:cn-north-1:111122223333:q"]);
    assert!(arns(&sqs("http://127.0.0.1:9324/000000000000/q"), StoreKind::Aws).is_empty());
    assert!(needs_no_rules(&toml::from_str("[listen]").unwrap()));
    assert!(!needs_no_rules(&toml::from_str("[listen]\n[webhook]").unwrap()));
}
