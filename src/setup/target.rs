//! The target's buckets: there, and with versions if asked for.

use super::{BucketReport, SetupOptions};
use crate::config::Settings;
use crate::config::settings::BucketSettings;
use crate::store::{ErrorKind, Store, StoreError, Versioning};
use crate::stores::Unusable;

/// Prepares one bucket and tells what it did.
pub(super) async fn prepare(
    settings: &Settings,
    options: &SetupOptions,
    target: &Store,
    bucket: &BucketSettings,
    told: &mut BucketReport,
) {
    if let Err(error) = try_prepare(settings, options, target, bucket, told).await {
        told.problems.push(Unusable::of("target")(error).to_string());
    }
}

async fn try_prepare(
    settings: &Settings,
    options: &SetupOptions,
    target: &Store,
    bucket: &BucketSettings,
    told: &mut BucketReport,
) -> Result<(), StoreError> {
    let name = bucket.target_name();
    let mut missing = false;
    match target.head_bucket(name).await {
        Err(error) if error.kind == ErrorKind::NoSuchBucket && settings.target.create_buckets => {
            missing = true;
            if !options.dry_run {
                target.create_bucket(name).await?;
            }
            told.target_changes.push(format!("bucket {name} created"));
        }
        answer => answer?,
    }
    if !options.target_versioning {
        return Ok(());
    }
    let versioned = if missing && options.dry_run {
        Versioning::Never
    } else {
        target.versioning(name).await?
    };
    if versioned != Versioning::Enabled {
        if !options.dry_run {
            target.enable_versioning(name).await?;
        }
        told.target_changes.push(format!("bucket {name} keeps versions"));
    }
    Ok(())
}
