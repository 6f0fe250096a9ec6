//! The bare ceiling: GET and PUT with evermirror's own S3 client, and no replication logic at all.

use std::time::{Duration, Instant};

use evermirror::config::settings::ReplicateSettings;
use evermirror::store::{GetOptions, Store};
use http::HeaderMap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::data::{self, Numbers};
use crate::process::{Usage, own_usage};

/// As many as evermirror's.
pub(crate) fn workers() -> usize {
    ReplicateSettings::default().concurrency
}

/// A bucket to copy from and one to copy to.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) source: Store,
    pub(crate) source_bucket: String,
    pub(crate) target: Store,
    pub(crate) target_bucket: String,
}

impl Route {
    /// Copies an object: one GET, one PUT of the streamed body.
    pub(crate) async fn copy(&self, key: &str) -> anyhow::Result<()> {
        let object = self.source.get(&self.source_bucket, key, GetOptions::default()).await?;
        let mut headers = HeaderMap::new();
        if let Some(kind) = object.head.headers.get(http::header::CONTENT_TYPE) {
            headers.insert(http::header::CONTENT_TYPE, kind.clone());
        }
        let md5 = object.head.etag.as_ref().and_then(evermirror::object::ETag::md5);
        self.target.put(&self.target_bucket, key, &headers, md5, object.into_put()).await?;
        Ok(())
    }

    /// Copies the objects below `count` with this many workers, in this process.
    pub(crate) async fn copy_all(
        &self,
        count: usize,
        workers: usize,
    ) -> anyhow::Result<(Duration, Usage)> {
        let (begun, before) = (Instant::now(), own_usage()?);
        let numbers = Numbers::below(count);
        data::crew(workers, || {
            let (route, numbers) = (self.clone(), numbers.clone());
            async move {
                for number in numbers {
                    route.copy(&data::key(number)).await?;
                }
                Ok(())
            }
        })
        .await?;
        let (took, after) = (begun.elapsed(), own_usage()?);
        Ok((took, Usage { cpu_s: after.cpu_s - before.cpu_s, peak_mib: after.peak_mib }))
    }
}

/// Does `work` for everything that it is told of, so much of it at once, until there is nobody to tell it.
pub(crate) async fn follow<T, F>(
    mut told: mpsc::Receiver<T>,
    at_once: usize,
    work: impl Fn(T) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    while let Some(item) = told.recv().await {
        if tasks.len() == at_once
            && let Some(done) = tasks.join_next().await
        {
            done??;
        }
        tasks.spawn(work(item));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
