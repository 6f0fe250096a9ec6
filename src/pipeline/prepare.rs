//! What must be there before work begins: the target's buckets.
//!
//! A store that cannot be reached at start is no reason not to start: notifications must be taken
//! and kept from the first moment. So this tries until it succeeds, and says what is wrong.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::replicate::Stores;
use crate::store::{ErrorKind, Store, StoreError};

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LAST_WAIT: Duration = Duration::from_secs(15);

/// Waits until every bucket is there on both sides, or nothing more can be done about it here.
/// Returns early when cancelled.
pub(super) async fn prepare(settings: &Settings, stores: &Stores, stop: &CancellationToken) {
    for bucket in &settings.buckets {
        let target = bucket.target_name();
        let create = settings.target.create_buckets;
        let ready = async {
            until_answered("target", target, || ensure_target(&stores.target, target, create))
                .await;
            until_answered("source", &bucket.source, || stores.source.head_bucket(&bucket.source))
                .await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = ready => {}
        }
    }
}

/// Repeats a question while the store does not answer it at all. An answer that only a person can
/// mend is logged; the keys concerned will be parked and shown.
async fn until_answered<F: Future<Output = Result<(), StoreError>>>(
    store: &'static str,
    bucket: &str,
    ask: impl Fn() -> F,
) {
    let mut wait = FIRST_WAIT;
    let mut told = false;
    loop {
        let Err(error) = ask().await else { return };
        if !matches!(error.kind, ErrorKind::Transient | ErrorKind::Throttled) {
            tracing::error!(store, bucket, %error, advice = advice(store, error.kind), "A bucket cannot be used. Its keys will be parked until this is mended.");
            return;
        }
        if !told {
            tracing::warn!(store, bucket, %error, "The store does not answer. Notifications are taken and kept; work begins when it does.");
            told = true;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_WAIT);
    }
}

async fn ensure_target(target: &Store, bucket: &str, create: bool) -> Result<(), StoreError> {
    match target.head_bucket(bucket).await {
        Err(error) if error.kind == ErrorKind::NoSuchBucket && create => {
            target.create_bucket(bucket).await?;
            tracing::info!(bucket, "A missing bucket was created at the target.");
            Ok(())
        }
        answer => answer,
    }
}

fn advice(store: &str, kind: ErrorKind) -> String {
    match kind {
        ErrorKind::Denied => format!(
            "check access_key, secret_key and region in [{store}], and that their policy allows this bucket"
        ),
        ErrorKind::NoSuchBucket => {
            format!("create the bucket at the {store}, or correct its name in [[buckets]]")
        }
        ErrorKind::Transient
        | ErrorKind::Throttled
        | ErrorKind::NotFound
        | ErrorKind::Changed
        | ErrorKind::Invalid
        | ErrorKind::Corrupt => format!("check endpoint, region and path_style in [{store}]"),
    }
}
