//! The first contact with both sides of a bucket, and the options of their comparison.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Scope;
use crate::config::settings::BucketSettings;
use crate::reconcile::merge::Pairs;
use crate::reconcile::pass::PassOptions;
use crate::store::Store;
use crate::stores::{Stores, Unusable, ensure_target, patiently};

/// Makes the target's bucket where `run` would make it.
pub(super) async fn create_target(
    scope: &Scope,
    stores: &Stores,
    bucket: &BucketSettings,
) -> Result<(), Unusable> {
    let (name, create) = (bucket.target_name(), scope.settings.target.create_buckets);
    // A mistyped source is no reason to make a bucket.
    clock("source", &stores.source, &bucket.source).await?;
    patiently(|| ensure_target(&stores.target, name, create)).await.map_err(Unusable::of("target"))
}

/// One bucket of `scope`; `compared` counts the keys as they go by. Asks both sides for the
/// time, to learn how far their clocks are apart.
pub(super) async fn options(
    scope: &Scope,
    stores: &Stores,
    bucket: &BucketSettings,
    compared: &Arc<AtomicU64>,
    pairs: Arc<dyn Pairs>,
) -> Result<PassOptions, Unusable> {
    let (wanted, compared) = (bucket.clone(), Arc::clone(compared));
    let reconcile = &scope.settings.reconcile;
    let (source, target) = tokio::try_join!(
        clock("source", &stores.source, &bucket.source),
        clock("target", &stores.target, bucket.target_name()),
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
        closer: false,
        looked_until_ms: None,
        pairs,
        parallel: NonZeroUsize::new(reconcile.parallel).unwrap_or(NonZeroUsize::MIN),
        split_points: Vec::new(),
        done: Vec::new(),
        requests_per_second: scope.settings.reconcile.rate(),
    })
}

/// How far the store's clock is ahead of ours; whether it answers, too.
async fn clock(side: &'static str, store: &Store, bucket: &str) -> Result<i64, Unusable> {
    patiently(|| store.clock(bucket)).await.map_err(Unusable::of(side))
}
