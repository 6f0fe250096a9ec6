//! Credentials and permissions, by requests that need them: on the source only such as change nothing,
//! on the target under the canary's key.

use bytes::Bytes;
use http::HeaderMap;

use super::check::Check;
use crate::config::settings::{BucketSettings, DeletePolicy};
use crate::store::{
    ErrorKind, GetOptions, ListQuery, PutBody, Store, StoreError, Tags, Versioning,
};

/// Reading is asked of keys that are not there: a store decides about permission first.
fn allowed<T>(answer: Result<T, StoreError>) -> Result<(), StoreError> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What failed, as a check.
pub(super) fn failed(area: &'static str, bucket: &str, error: &StoreError) -> Check {
    let advice = match error.kind {
        ErrorKind::Denied if error.code.as_deref().is_none_or(|code| code == "AccessDenied") => {
            format!("allow it; `evermirror policy {area}` prints all that the {area} must allow")
        }
        ErrorKind::Denied => format!("check access_key, secret_key and region in [{area}]"),
        ErrorKind::NoSuchBucket => {
            format!("create the bucket at the {area}, or correct its name in [[buckets]]")
        }
        ErrorKind::Transient | ErrorKind::Throttled => {
            format!("look at the {area}'s own log, and try again")
        }
        ErrorKind::NotFound | ErrorKind::Changed | ErrorKind::Invalid | ErrorKind::Corrupt => {
            format!("check endpoint, region and path_style in [{area}]")
        }
    };
    Check::problem(area, error.to_string(), advice).of(bucket)
}

/// Everything that failed, or one line that all is well.
fn summary(
    area: &'static str,
    bucket: &str,
    well: &str,
    results: Vec<Result<(), StoreError>>,
) -> Vec<Check> {
    let problems: Vec<_> =
        results.into_iter().filter_map(Result::err).map(|e| failed(area, bucket, &e)).collect();
    if problems.is_empty() { vec![Check::ok(area, well).of(bucket)] } else { problems }
}

/// What `run` does at the source.
pub(super) async fn source(
    store: &Store,
    bucket: &BucketSettings,
    canary: &str,
    tags: bool,
) -> Vec<Check> {
    let name = &*bucket.source;
    let listed = store.list(name, &ListQuery { max_keys: 1, ..ListQuery::default() }).await;
    if let Err(error) = &listed
        && !(error.kind == ErrorKind::Denied && error.code.as_deref() == Some("AccessDenied"))
    {
        // With wrong keys, or no bucket, every other request would say the same again.
        return vec![failed("source", name, error)];
    }
    // MinIO decides about reading tags only for a key that is there.
    let first = listed.as_ref().ok().and_then(|page| page.objects.first()).map(|o| o.key.clone());
    let mut results = vec![allowed(listed)];
    results.push(allowed(store.get(name, canary, GetOptions::default()).await));
    results.push(allowed(store.head(name, canary).await));
    let mut well = "the credentials may list and read";
    if tags {
        results.push(allowed(store.get_tags(name, first.as_deref().unwrap_or(canary)).await));
        well = match first {
            Some(_) => "the credentials may list, read, and read tags",
            None => {
                "the credentials may list and read; the bucket is empty, so tags were not tried"
            }
        };
    }
    summary("source", name, well, results)
}

/// What `run` does at the target, done. Leaves nothing there that it may delete. What was written must
/// not show up at the source.
pub(super) async fn target(
    source: &Store,
    target: &Store,
    bucket: &BucketSettings,
    canary: &str,
    tags: bool,
    creates: bool,
) -> Vec<Check> {
    let (name, shown) = (bucket.target_name(), &*bucket.source);
    match target.list(name, &ListQuery { max_keys: 1, ..ListQuery::default() }).await {
        Ok(_) => {}
        Err(error) if error.kind == ErrorKind::NoSuchBucket && creates => {
            let says = format!("there is no bucket {name} yet; run creates it");
            let advice = "let `evermirror setup` create it, then ask doctor again";
            return vec![Check::warning("target", says, advice).of(shown)];
        }
        Err(error) => return vec![failed("target", shown, &error)],
    }
    let bytes = Bytes::from(format!("evermirror doctor {}", rand::random::<u64>()));
    let body = || PutBody::Bytes(bytes.clone());
    let written = match target.put(name, canary, &HeaderMap::new(), None, body()).await {
        Ok(written) => written,
        Err(error) => return vec![failed("target", shown, &error)],
    };
    let found = source.head(name, canary).await.ok().and_then(|head| head.etag);
    let mirror = found.is_some() && found == written.etag;
    let mut results = vec![
        allowed(target.head(name, canary).await),
        allowed(target.get(name, canary, GetOptions::default()).await),
    ];
    if tags {
        let some = Tags::from([("evermirror".to_owned(), "doctor".to_owned())]);
        results.push(target.put_tags(name, canary, &some).await);
        results.push(allowed(target.get_tags(name, canary).await));
        results.push(target.delete_tags(name, canary).await);
    }
    results.push(in_parts(target, name, canary, body()).await);
    let deleted = target.delete_many(name, &[canary]).await.into_iter().collect::<Result<(), _>>();
    let archive = bucket.deletes == DeletePolicy::Archive;
    let kept = archive && deleted.is_err();
    if !kept {
        results.push(deleted);
    }
    let well = match (kept, tags) {
        (true, _) => format!(
            "the credentials may write, and not delete, as befits an archive ({canary} stays there)"
        ),
        (false, true) => {
            "the credentials may list, read, write, tag, upload in parts, abort, delete".to_owned()
        }
        (false, false) => {
            "the credentials may list, read, write, upload in parts, abort, delete".to_owned()
        }
    };
    let mut checks = summary("target", shown, &well, results);
    checks.extend(mirror.then(|| same_store(bucket)));
    checks
}

/// What was written at the target was found at the source.
fn same_store(bucket: &BucketSettings) -> Check {
    let check = if bucket.source == bucket.target_name() {
        Check::problem(
            "target",
            "source and target are the same bucket of the same store",
            "give the target another endpoint, or the bucket another `target` name",
        )
    } else {
        Check::warning(
            "target",
            "source and target are buckets of the same store, so they are lost together",
            "use a store that does not share disks, power and administrators with the source",
        )
    };
    check.of(&bucket.source)
}

/// An upload in parts that is given up.
async fn in_parts(
    target: &Store,
    bucket: &str,
    key: &str,
    body: PutBody,
) -> Result<(), StoreError> {
    let upload = target.create_multipart(bucket, key, &HeaderMap::new()).await?;
    let part = target.upload_part(bucket, key, &upload, 1, None, body).await;
    target.abort_multipart(bucket, key, &upload).await?;
    part.map(drop)
}

/// Versioning and object lock of a target bucket.
pub(super) async fn keeps(target: &Store, bucket: &BucketSettings) -> Vec<Check> {
    let (name, shown) = (bucket.target_name(), &*bucket.source);
    let versioning = match target.versioning(name).await {
        Ok(Versioning::Enabled) => Check::ok("target", "the target keeps versions"),
        Ok(Versioning::Suspended | Versioning::Never) => Check::warning(
            "target",
            "the target keeps no versions: what is overwritten or deleted at the source cannot be brought back",
            "turn it on: evermirror setup --target-versioning",
        ),
        Err(error) => unseen("whether the target keeps versions", &error),
    };
    let lock = match target.object_lock(name).await {
        Ok(None) => None,
        Ok(Some(lock)) => Some(Check::ok(
            "target",
            match lock.retention {
                Some(retention) => format!("object lock is on: versions stay, {retention}"),
                None => "object lock is on, without a default retention".to_owned(),
            },
        )),
        // A store without object lock says so in many ways.
        Err(error) if error.kind != ErrorKind::Denied => None,
        Err(error) => Some(unseen("whether the target has object lock", &error)),
    };
    std::iter::once(versioning).chain(lock).map(|check| check.of(shown)).collect()
}

/// What these credentials do not show, and `run` does not need.
pub(super) fn unseen(what: &str, error: &StoreError) -> Check {
    Check::warning(
        "target",
        format!("{what} cannot be seen: {}", error.message),
        "run does not need it; `evermirror policy target --for doctor` prints what doctor does",
    )
}

/// How far a store's clock is from ours.
pub(super) fn clock(area: &'static str, store: &Store) -> Check {
    judge_clock(area, store.clock_ahead_ms())
}

/// Signatures are good for 15 minutes, and the lag is shown from the source's clock to ours.
fn judge_clock(area: &'static str, ahead_ms: i64) -> Check {
    let seconds = ahead_ms.unsigned_abs().div_ceil(1_000);
    let way = if ahead_ms < 0 { "behind" } else { "ahead of" };
    match ahead_ms.unsigned_abs() {
        0..=2_000 => Check::ok(area, "its clock agrees with ours"),
        2_001..300_000 => Check::warning(
            area,
            format!(
                "its clock is {seconds} s {way} ours, and the lag that is shown is off by that"
            ),
            "run a time service (NTP) on both machines",
        ),
        _ => Check::problem(
            area,
            format!(
                "its clock is {seconds} s {way} ours; stores refuse signatures from 15 minutes on"
            ),
            "run a time service (NTP) on both machines",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Level;

    #[test]
    fn a_clock_is_judged_by_how_far_it_is_off_either_way() {
        for (ahead_ms, level) in [
            (0, Level::Ok),
            (-1_900, Level::Ok),
            (3_000, Level::Warning),
            (-60_000, Level::Warning),
            (400_000, Level::Problem),
            (-400_000, Level::Problem),
        ] {
            assert_eq!(judge_clock("source", ahead_ms).level, level, "{ahead_ms}");
        }
        assert!(judge_clock("source", -60_000).says.contains("60 s behind ours"));
    }
}
