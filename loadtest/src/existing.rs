//! MinIO's own replication of objects that are there already: both buckets keep versions, the rule is made
//! after the objects were put, and then a resync is asked for.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::bench::Bench;
use crate::live::PATIENCE;

/// Fills a bucket at the source by `put`, and has MinIO replicate its objects, so many, to the target's bucket
/// of the same name, which is there and empty. The time is from the request until the source has told of
/// the last of them.
pub(crate) async fn replicate(
    bench: &Bench,
    bucket: &str,
    objects: usize,
    put: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Duration> {
    bench.source_bucket(bucket).await?;
    bench.keep_versions(bucket).await?;
    put.await?;
    bench.peers().replicate(bucket, "existing-objects").await?;
    let arn = bench.peers().replication_arn(bucket).await?;
    bench.receiver.clear();
    bench.settle().await?;

    let begun = Instant::now();
    bench.peers().resync(bucket, &arn).await?;
    let seen = bench.receiver.wait(objects, PATIENCE).await;
    let done = seen.at.len();
    ensure!(done == objects, "MinIO has replicated {done} of {objects} objects of {bucket}");
    Ok(seen.at.values().max().copied().unwrap_or(begun) - begun)
}

/// Removes both buckets with all versions of what is in them.
pub(crate) async fn remove(bench: &Bench, bucket: &str) -> anyhow::Result<()> {
    bench.peers().remove_bucket("source", bucket).await?;
    bench.peers().remove_bucket("target", bucket).await
}
