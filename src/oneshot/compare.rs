//! The comparison's options, as both commands use them.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Scope;
use crate::config::settings::BucketSettings;
use crate::reconcile::merge::NoPairs;
use crate::reconcile::pass::PassOptions;
use crate::replicate::{self, Stores};

/// One bucket of `scope`; `compared` counts the keys as they go by.
///
/// No pair is remembered here: where the tags cannot agree, the target's own metadata is asked.
pub(super) fn options(
    scope: &Scope,
    stores: &Stores,
    bucket: &BucketSettings,
    compared: &Arc<AtomicU64>,
) -> PassOptions {
    let (wanted, compared) = (bucket.clone(), Arc::clone(compared));
    let reconcile = &scope.settings.reconcile;
    let rate = reconcile.requests_per_second.and_then(|rate| u32::try_from(rate).ok());
    PassOptions {
        source: (stores.source.clone(), bucket.source.as_str().into()),
        target: (stores.target.clone(), bucket.target_name().into()),
        prefix: Arc::clone(&scope.prefix),
        filter: Arc::new(move |key| {
            let counts = wanted.wants(key);
            compared.fetch_add(u64::from(counts), Ordering::Relaxed);
            counts
        }),
        skew_ms: 0,
        opaque: replicate::expects_kms(&scope.settings),
        pairs: Arc::new(NoPairs),
        parallel: NonZeroUsize::new(reconcile.parallel).unwrap_or(NonZeroUsize::MIN),
        split_points: Vec::new(),
        done: Vec::new(),
        requests_per_second: rate.and_then(NonZeroU32::new),
    }
}
