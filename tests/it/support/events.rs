//! Notifications that no store sent: for lies, and for more events than a store could send.

use serde_json::{Value, json};

/// The shape of a MinIO record, as captured in tests/fixtures; `name` as `ObjectCreated:Put`.
pub(crate) fn record(name: &str, bucket: &str, key: &str) -> Value {
    let key: String = form_urlencoded::byte_serialize(key.as_bytes()).collect();
    json!({
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "awsRegion": "",
        "eventTime": "2026-11-23T11:51:35.290Z",
        "eventName": format!("s3:{name}"),
        "s3": {
            "bucket": {"name": bucket, "arn": format!("arn:aws:s3:::{bucket}")},
            "object": {"key": key, "size": 1, "eTag": "9dd4e461268c8034f5c8564e155c67a6",
                       "sequencer": "18EAAA57BE11B989"},
        },
    })
}

/// A webhook body with these records.
pub(crate) fn body(records: &[Value]) -> String {
    json!({"EventName": "s3:ObjectCreated:Put", "Key": "", "Records": records}).to_string()
}

/// A webhook body with one record.
pub(crate) fn event(name: &str, bucket: &str, key: &str) -> String {
    let mut body = json!({"EventName": format!("s3:{name}"), "Key": format!("{bucket}/{key}")});
    body["Records"] = json!([record(name, bucket, key)]);
    body.to_string()
}
