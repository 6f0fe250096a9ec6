//! Before the first object: are the buckets there, and is there room for what they hold?

use super::order::order_class;
use super::{Report, RestoreError, RestoreOptions, Way};
use crate::reconcile::list::Listing;
use crate::reconcile::ranges::KeyRange;
use crate::store::{ErrorKind, Store, StoreError, Versioning};
use crate::stores::{Unusable, patiently};

/// Looks at every bucket of both sides before anything is changed, then creates what is missing.
/// Returns whether all destinations are empty.
pub(super) async fn buckets(
    way: &Way,
    options: &RestoreOptions,
    resumed: bool,
    report: &mut Report,
) -> Result<bool, RestoreError> {
    let mut all_empty = true;
    let destination = if options.to.is_some() { "destination" } else { "source" };
    for (bucket, told) in way.settings.buckets.iter().zip(&mut report.buckets) {
        let here = || way.from.head_bucket(&bucket.source);
        patiently(here).await.map_err(Unusable::of("target"))?;
        if options.at.is_some() {
            remembers(&way.from, &bucket.source).await?;
        }
        let empty = patiently(|| is_empty(&way.to, bucket.target_name()));
        match empty.await.map_err(Unusable::of(destination))? {
            None => told.created = true,
            Some(true) => {}
            Some(false) if options.into_non_empty || resumed => all_empty = false,
            Some(false) => {
                let refusal = format!(
                    "the destination bucket {:?} on {} is not empty; \
                     --into-non-empty restores into it, overwriting what differs and deleting nothing",
                    bucket.target_name(),
                    way.to.endpoint()
                );
                if !options.dry_run {
                    return Err(RestoreError::Refused(refusal));
                }
                report.conflicts.push(refusal);
            }
        }
    }
    let missing = report.buckets.iter().filter(|bucket| bucket.created && !options.dry_run);
    for bucket in missing {
        way.to.create_bucket(&bucket.to).await.map_err(Unusable::of(destination))?;
        tracing::info!(bucket = bucket.to, "A missing bucket was created at the destination.");
    }
    Ok(all_empty)
}

/// A bucket without versions has no past, and would come back full of holes.
async fn remembers(store: &Store, bucket: &str) -> Result<(), RestoreError> {
    match store.versioning(bucket).await.map_err(Unusable::of("target"))? {
        Versioning::Enabled => Ok(()),
        Versioning::Suspended => {
            tracing::warn!(
                bucket,
                "Versioning is suspended: what was written since then replaced what was there, and cannot be gone back behind."
            );
            Ok(())
        }
        Versioning::Never => Err(RestoreError::Refused(format!(
            "the bucket {bucket:?} on {} keeps no versions, so --at cannot be answered: \
             what was overwritten or deleted there is gone. Restore without --at, and enable versioning on the target for the next time",
            store.endpoint()
        ))),
    }
}

/// `None` if there is no such bucket.
async fn is_empty(store: &Store, bucket: &str) -> Result<Option<bool>, StoreError> {
    match store.is_empty(bucket).await {
        Ok(empty) => Ok(Some(empty)),
        Err(error) if error.kind == ErrorKind::NoSuchBucket => Ok(None),
        Err(error) => Err(error),
    }
}

/// Counts what would be restored.
pub(super) async fn count(way: &Way, report: &mut Report) -> Result<(), RestoreError> {
    for (bucket, told) in way.settings.buckets.iter().zip(&mut report.buckets) {
        let mut listing = Listing::new(way.side(bucket), KeyRange::ALL);
        while let Some(object) = listing.next().await? {
            if bucket.wants(&object.key) {
                told.objects += 1;
                told.bytes += object.size;
                told.table_files += u64::from(order_class(&object.key) > 0);
            }
        }
    }
    Ok(())
}
