//! What must be there before work begins: the target's buckets.
//!
//! A store that cannot be reached at start is no reason not to start: notifications must be taken
//! and kept from the first moment. So this tries until it succeeds, and says what is wrong.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Stores;
use crate::config::Settings;
use crate::retry::{RetryPolicy, Waits};
use crate::store::{ErrorKind, Store, StoreError};

/// A store that does not answer.
const AWAY: RetryPolicy =
    RetryPolicy { initial: Duration::from_millis(250), max: Duration::from_secs(15) };
/// How long the first bucket that is ready waits for the others.
const GRACE: Duration = Duration::from_secs(5);

/// Waits until every bucket is there on both sides, or nothing more can be done about it here. Once one
/// is ready the others have [`GRACE`] left: a bucket that does not answer must not stop the rest, and is
/// asked on in the background. Returns early when cancelled.
pub(crate) async fn prepare(settings: &Settings, stores: &Stores, stop: &CancellationToken) {
    let mut buckets = JoinSet::new();
    for bucket in &settings.buckets {
        let (source, target) = (stores.source.clone(), stores.target.clone());
        let (bucket, create) = (bucket.clone(), settings.target.create_buckets);
        let ready = async move {
            let name = bucket.target_name();
            until_answered("target", name, || ensure_target(&target, name, create)).await;
            until_answered("source", &bucket.source, || source.head_bucket(&bucket.source)).await;
        };
        buckets.spawn(stop.clone().run_until_cancelled_owned(ready));
    }
    // On a stop all of them end at once.
    buckets.join_next().await;
    let rest = async { while buckets.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        buckets.detach_all();
    }
}

/// Repeats a question while the store does not answer it at all. An answer that only a person can
/// mend is logged; the keys concerned will be parked and shown.
async fn until_answered<F: Future<Output = Result<(), StoreError>>>(
    store: &'static str,
    bucket: &str,
    ask: impl Fn() -> F,
) {
    let mut waits = Waits::new(AWAY);
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
        tokio::time::sleep(waits.next()).await;
    }
}

/// Whether the bucket is there; makes it, if `create` says so.
pub(crate) async fn ensure_target(
    target: &Store,
    bucket: &str,
    create: bool,
) -> Result<(), StoreError> {
    match target.head_bucket(bucket).await {
        Err(error) if error.kind == ErrorKind::NoSuchBucket && create => {
            target.create_bucket(bucket).await?;
            tracing::info!(bucket, "A missing bucket was created at the target.");
            Ok(())
        }
        answer => answer,
    }
}

/// What an operator can do about a bucket of `source` or `target` that cannot be used.
pub(crate) fn advice(store: &str, kind: ErrorKind) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Side;
    use futures_util::FutureExt as _;
    use http::{StatusCode, Uri};

    async fn store(answer: impl Fn(&Uri) -> StatusCode + Clone + Send + Sync + 'static) -> Store {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(async move |uri: Uri| answer(&uri));
        tokio::spawn(async { axum::serve(listener, router).await });
        let text =
            format!("endpoint = 'http://{address}'\naccess_key = 'a'\nsecret_key = 'bbbbbbbb'");
        Store::connect(Side::Source, &toml::from_str(&text).unwrap(), Duration::from_secs(5))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_bucket_that_does_not_answer_does_not_stop_the_others() {
        let settings = toml::from_str(
            "data_dir = '/nowhere'\n[source]\nendpoint = 'http://h:1'\n\
             [target]\nendpoint = 'http://h:2'\n[[buckets]]\nsource = 'bad'\n[[buckets]]\nsource = 'good'",
        )
        .unwrap();
        let good = async || store(|_| StatusCode::OK).await;
        let sick = store(|uri| match uri.path().trim_matches('/') {
            "bad" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::OK,
        });
        let stores = Stores { source: good().await, target: sick.await };
        prepare(&settings, &stores, &CancellationToken::new()).await;

        // When no bucket answers, the stores are down, and only a stop ends the wait.
        let down = store(|_| StatusCode::INTERNAL_SERVER_ERROR).await;
        let stores = Stores { source: good().await, target: down };
        let stop = CancellationToken::new();
        let preparing = prepare(&settings, &stores, &stop);
        tokio::pin!(preparing);
        assert!(preparing.as_mut().now_or_never().is_none());
        stop.cancel();
        preparing.await;
    }
}
