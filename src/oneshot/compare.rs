//! The comparison's options, as both commands use them.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Scope;
use crate::config::settings::BucketSettings;
use crate::reconcile::merge::Pairs;
use crate::reconcile::pass::PassOptions;
use crate::replicate::Stores;
use crate::store::{ListQuery, Store, StoreError};

/// One bucket of `scope`; `compared` counts the keys as they go by. Asks both sides for one key, to
/// learn how far their clocks are apart.
pub(super) async fn options(
    scope: &Scope,
    stores: &Stores,
    bucket: &BucketSettings,
    compared: &Arc<AtomicU64>,
    pairs: Arc<dyn Pairs>,
) -> Result<PassOptions, StoreError> {
    let (wanted, compared) = (bucket.clone(), Arc::clone(compared));
    let reconcile = &scope.settings.reconcile;
    let rate = reconcile.requests_per_second.and_then(|rate| u32::try_from(rate).ok());
    let (source, target) = tokio::try_join!(
        clock(&stores.source, &bucket.source),
        clock(&stores.target, bucket.target_name()),
    )?;
    Ok(PassOptions {
        source: (stores.source.clone(), bucket.source.as_str().into()),
        target: (stores.target.clone(), bucket.target_name().into()),
        prefix: Arc::clone(&scope.prefix),
        filter: Arc::new(move |key| {
            let counts = wanted.wants(key);
            compared.fetch_add(u64::from(counts), Ordering::Relaxed);
            counts
        }),
        skew_ms: source - target,
        opaque: scope.settings.target.encrypts_with_kms(),
        pairs,
        parallel: NonZeroUsize::new(reconcile.parallel).unwrap_or(NonZeroUsize::MIN),
        split_points: Vec::new(),
        done: Vec::new(),
        requests_per_second: rate.and_then(NonZeroU32::new),
    })
}

async fn clock(store: &Store, bucket: &str) -> Result<i64, StoreError> {
    store.list(bucket, &ListQuery { max_keys: 1, ..ListQuery::default() }).await?;
    Ok(store.clock_ahead_ms())
}
