//! The two stores and which bucket goes where.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;

use super::Check;
use crate::config::settings::{
    BucketSettings, CaptureSettings, Settings, StoreSettings, TargetSettings,
};

impl Check {
    pub(super) fn store(&mut self, table: &str, store: &StoreSettings) {
        if let Err(message) = place_of(&store.endpoint) {
            self.report(format!("{table}.endpoint"), format!("`endpoint` {message}"));
        }
        let keys = [&store.access_key, &store.secret_key, &store.session_token];
        self.credentials(table, keys.map(Option::is_some));
    }

    /// Whether the access key, the secret key and the session token are set.
    pub(super) fn credentials(
        &mut self,
        table: &str,
        [access_key, secret_key, session_token]: [bool; 3],
    ) {
        let half = match [access_key, secret_key] {
            [true, false] => Some(("access_key", "secret_key")),
            [false, true] => Some(("secret_key", "access_key")),
            _ => None,
        };
        if let Some((set, missing)) = half {
            self.report(
                format!("{table}.{set}"),
                format!("`{set}` is set in [{table}] without `{missing}`: set both, or neither to use the AWS default chain"),
            );
        }
        if session_token && !access_key && !secret_key {
            self.report(
                format!("{table}.session_token"),
                format!("`session_token` is set in [{table}] without the `access_key` and `secret_key` it belongs to"),
            );
        }
    }

    pub(super) fn encryption(&mut self, target: &TargetSettings) {
        let kms =
            target.server_side_encryption.as_deref().is_some_and(|s| s.starts_with("aws:kms"));
        if target.kms_key_id.is_some() && !kms {
            self.report(
                "target.kms_key_id",
                "`kms_key_id` needs `server_side_encryption = \"aws:kms\"` in [target]",
            );
        }
    }

    pub(super) fn buckets(&mut self, buckets: &[BucketSettings]) {
        let mut sources = BTreeMap::new();
        let mut targets = BTreeMap::new();
        for (index, bucket) in buckets.iter().enumerate() {
            let source = format!("buckets.{index}.source");
            let target = match bucket.target {
                Some(_) => format!("buckets.{index}.target"),
                None => source.clone(),
            };
            self.bucket_name(&source, &bucket.source);
            if bucket.target.is_some() {
                self.bucket_name(&target, bucket.target_name());
            }
            if sources.insert(bucket.source.as_str(), index).is_some() {
                let name = &bucket.source;
                self.report(
                    source,
                    format!("source bucket \"{name}\" is listed twice: give all its prefixes in one entry"),
                );
            } else if let Some(other) = targets.insert(bucket.target_name(), bucket.source.as_str())
            {
                let (from, to) = (&bucket.source, bucket.target_name());
                self.report(
                    target,
                    format!("source buckets \"{other}\" and \"{from}\" would both be written to target bucket \"{to}\": give one of them another `target`"),
                );
            }
        }
    }

    /// A target bucket that is also a source bucket would feed itself, or another one.
    pub(super) fn same_place(&mut self, settings: &Settings) {
        let source = place_of(&settings.source.endpoint);
        let Ok(endpoint) = source.as_ref() else { return };
        if Ok(endpoint) != place_of(&settings.target.endpoint).as_ref() {
            return;
        }
        for (index, bucket) in settings.buckets.iter().enumerate() {
            if settings.buckets.iter().any(|other| other.source == bucket.target_name()) {
                let key = if bucket.target.is_some() { "target" } else { "source" };
                let name = bucket.target_name();
                self.report(
                    format!("buckets.{index}.{key}"),
                    format!("bucket \"{name}\" on {endpoint} is both source and target: give the entry another `target`, or [target] another `endpoint`"),
                );
            }
        }
    }

    /// The documents are in nobody's way: replication would take them for objects that the source lost.
    pub(super) fn capture(&mut self, capture: &CaptureSettings, settings: &Settings) {
        let (minute, month) = (Duration::from_mins(1), Duration::from_hours(24 * 31));
        self.duration("capture.interval", capture.interval, minute, month);
        self.range("capture.keep", capture.keep, 1..=10_000);
        self.bucket_name("capture.target_bucket", &capture.target_bucket);
        let one_store = place_of(&settings.source.endpoint) == place_of(&settings.target.endpoint);
        let taken = settings.buckets.iter().any(|bucket| {
            bucket.target_name() == capture.target_bucket
                || one_store && bucket.source == capture.target_bucket
        });
        if taken {
            let name = &capture.target_bucket;
            self.report(
                "capture.target_bucket",
                format!(
                    "bucket \"{name}\" is one of [[buckets]]: the documents need one of their own"
                ),
            );
        }
    }

    /// Wider than today's naming rules, because older buckets may have longer names with capitals
    /// and underscores: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>.
    fn bucket_name(&mut self, path: &str, name: &str) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !(3..=255).contains(&name.len()) || !starts || !name.chars().all(allowed) {
            let shown = name.escape_debug();
            self.report(
                path,
                format!("\"{shown}\" is not a bucket name: 3 to 255 letters, digits, dots, hyphens and underscores, beginning with a letter or digit"),
            );
        }
    }
}

/// Scheme, host and port of an endpoint, so that two spellings of one place compare equal.
pub(super) fn place_of(endpoint: &str) -> Result<String, &'static str> {
    const SHAPE: &str = "must be http://HOST[:PORT] or https://HOST[:PORT], without a path";
    let uri: Uri = endpoint.parse().map_err(|_| SHAPE)?;
    let port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return Err(SHAPE),
    };
    let authority = uri.authority().ok_or(SHAPE)?;
    if authority.as_str().contains('@') {
        return Err(
            "must not hold a user or password: write them as `access_key` and `secret_key`",
        );
    }
    if uri.path_and_query().is_some_and(|path| path != "/") || authority.host().is_empty() {
        return Err(SHAPE);
    }
    if authority.port().is_some() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("must have a port between 1 and 65535");
    }
    let (scheme, host) =
        (uri.scheme_str().unwrap_or_default(), authority.host().to_ascii_lowercase());
    Ok(format!("{scheme}://{host}:{}", authority.port_u16().unwrap_or(port)))
}
