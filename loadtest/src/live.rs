//! Those who replicate while objects change, all by one interface.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::bench::Bench;
use crate::data;
use crate::process::{Process, Usage};
use crate::servers::{LIVE, SEEN};
use crate::site::Evermirror;
use crate::subject::Subject;
use crate::told::Told;

/// How long a workload waits for the last of its objects.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);
/// Between looks that are requests to what is measured.
const LOOK: Duration = Duration::from_millis(100);
const CANARY_SIZE: usize = 1;

/// Who replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Live {
    /// evermirror with a webhook.
    Evermirror,
    /// evermirror with a listen stream, as `mc mirror --watch` has.
    Listen,
    /// This process, which knows what it has done at the source and repeats it at the target.
    Bare,
    /// This process, which is told by the source what to repeat.
    Told,
    /// `mc mirror --watch`.
    McWatch,
    /// MinIO's own bucket replication.
    Minio,
}

/// All of them.
pub(crate) const ALL: [Live; 6] =
    [Live::Evermirror, Live::Listen, Live::Bare, Live::Told, Live::McWatch, Live::Minio];

/// One of them at work. Dropping it kills its process, if it has one.
#[derive(Debug)]
pub(crate) enum Running {
    Evermirror(Evermirror),
    McWatch(Process),
    Told(Told),
    /// In this process, or in the source itself.
    Elsewhere,
}

impl Live {
    /// Whether it is somebody else's, of whom nothing is claimed: what it leaves undone is a finding.
    pub(crate) const fn is_peer(self) -> bool {
        matches!(self, Self::McWatch | Self::Minio)
    }

    /// Makes a bucket on both sides, as it wants them.
    pub(crate) async fn buckets(self, bench: &Bench, bucket: &str) -> anyhow::Result<()> {
        bench.source_bucket(bucket).await?;
        bench.target_bucket(bucket).await?;
        if self == Self::Minio {
            bench.keep_versions(bucket).await?;
        }
        Ok(())
    }

    /// Starts it between two equal buckets of this name, and waits until it has replicated something.
    pub(crate) async fn start(self, bench: &Bench, bucket: &str) -> anyhow::Result<Running> {
        let (source, target) = (("source", bucket), ("target", bucket));
        let running = match self {
            Self::Evermirror | Self::Listen => {
                if self == Self::Evermirror {
                    bench.peers().notify(source, LIVE, "put,delete").await?;
                }
                let mut site = bench.site(bucket, bucket, bucket)?;
                // Thousands of deletes are what is measured, not a disaster.
                for (name, value) in [
                    ("EVERMIRROR__DELETES__MAX_DELETES", "1000000"),
                    ("EVERMIRROR__DELETES__MAX_DELETE_PERCENT", "100"),
                    ("EVERMIRROR__BUCKETS__0__MAY_BE_EMPTY", "true"),
                ] {
                    site.environment.push((name, value.to_owned()));
                }
                if self == Self::Listen {
                    site.add_settings("[intake.listen]\n")?;
                }
                Running::Evermirror(site.start_ready().await?)
            }
            Self::McWatch => Running::McWatch(bench.peers().mc_watch(bucket)?),
            Self::Bare => Running::Elsewhere,
            Self::Told => {
                bench.peers().notify(source, LIVE, "put,delete").await?;
                let route = bench.route(bucket, bucket);
                Running::Told(Told::start(bench.webhook_port, route).await?)
            }
            Self::Minio => {
                bench.peers().replicate(bucket, "delete,delete-marker").await?;
                Running::Elsewhere
            }
        };
        if self != Self::Minio {
            bench.peers().notify(target, SEEN, "put,delete").await?;
        }
        if self != Self::Bare {
            canary(bench, bucket).await?;
        }
        bench.receiver.clear();
        Ok(running)
    }
}

impl Subject for Live {
    fn name(self) -> &'static str {
        match self {
            Self::Evermirror => "evermirror",
            Self::Listen => "evermirror-listen",
            Self::Bare => "bare",
            Self::Told => "bare-told",
            Self::McWatch => "mc --watch",
            Self::Minio => "MinIO",
        }
    }
}

impl Running {
    /// What its process has used so far; nothing is known of one that has none of its own.
    pub(crate) fn usage(&self) -> anyhow::Result<Option<Usage>> {
        match self {
            Self::Evermirror(evermirror) => evermirror.usage().map(Some),
            Self::McWatch(process) => process.usage().map(Some),
            Self::Told(_) | Self::Elsewhere => Ok(None),
        }
    }

    /// Notes what its process has used for so many objects since `before`.
    pub(crate) fn note_usage(
        &self,
        bench: &mut Bench,
        (workload, subject): (&'static str, Live),
        before: Option<Usage>,
        objects: usize,
    ) -> anyhow::Result<()> {
        if let (Some(before), Some(after)) = (before, self.usage()?) {
            let usage = Usage { cpu_s: after.cpu_s - before.cpu_s, ..after };
            bench.note_usage(workload, subject.name(), usage, objects);
        }
        Ok(())
    }

    /// Ends it; evermirror's end must be a success.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Evermirror(evermirror) => evermirror.terminate().await.map(drop),
            Self::Told(told) => told.stop().await,
            Self::McWatch(_) | Self::Elsewhere => Ok(()),
        }
    }
}

/// Puts objects at the source until one is at the target: one that was put too early may never be.
async fn canary(bench: &Bench, bucket: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    for number in 0.. {
        let key = format!("canary/{number}");
        let content = data::content(number, CANARY_SIZE);
        data::put_at(&bench.source_store, bucket, &key, content).await?;
        tokio::time::sleep(LOOK).await;
        if bench.target_store.head(bucket, &key).await.is_ok() {
            break;
        }
        if begun.elapsed() > PATIENCE {
            bail!("nothing is replicated to {bucket}");
        }
    }
    Ok(())
}
