//! What every workload works with: two servers, their clients, a directory, and the figures so far.

use std::path::PathBuf;

use evermirror::store::Store;
use tempfile::TempDir;

use crate::bare::Route;
use crate::facts::Facts;
use crate::peers::Peers;
use crate::process::Usage;
use crate::receiver::Receiver;
use crate::report::{Bound, Report, progress};
use crate::servers::{LIVE, Minio, SEEN, free_port};
use crate::site::{self, Places, Site};
use crate::stats::float;
use crate::subject::{Cost, Subject};

/// Objects per second, from the begin of the work until the target has them all.
pub(crate) const RATE: &str = "objects/s";
/// Of the replicating process.
pub(crate) const CPU: &str = "CPU per 10,000 objects, s";
/// Of the replicating process.
pub(crate) const PEAK: &str = "peak memory, MiB";

/// One run of `compare`.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) report: Report,
    pub(crate) rounds: u32,
    /// The most memory that evermirror had, of every [`Self::note_peak`].
    peaks: Vec<f64>,
    quick: bool,
    /// Only these subjects; all if there are none.
    only: Vec<String>,
    program: PathBuf,
    pub(crate) webhook_port: u16,
    web_port: u16,
    pub(crate) source: Minio,
    pub(crate) target: Minio,
    pub(crate) source_store: Store,
    pub(crate) target_store: Store,
    /// Takes the notifications of what has become of the objects.
    pub(crate) receiver: Receiver,
    // The last field: everything that writes there has ended before it is removed.
    dir: TempDir,
}

impl Bench {
    /// Builds evermirror and starts the servers.
    pub(crate) async fn start(rounds: u32, quick: bool, only: &[String]) -> anyhow::Result<Self> {
        progress("Building evermirror and starting two MinIO servers.");
        let program = site::build().await?;
        // Beside the program, because the temporary directory may be memory, where a sync is free.
        let dir = tempfile::Builder::new()
            .prefix("loadtest-")
            .tempdir_in(program.parent().unwrap_or(&program))?;
        let (webhook_port, web_port) = (free_port()?, free_port()?);
        let receiver = Receiver::start().await?;
        let webhook = |name, port: u16| (name, format!("http://127.0.0.1:{port}/events"));
        let (live, seen) = (webhook(LIVE, webhook_port), webhook(SEEN, receiver.port));
        let (source, target) = tokio::try_join!(
            Minio::start(dir.path().join("source"), vec![live, seen.clone()]),
            Minio::start(dir.path().join("target"), vec![seen]),
        )?;
        let (source_store, target_store) = (source.store().await?, target.store().await?);
        let mut report = Report::new(Facts::gather(rounds, quick)?);
        report.partial = !only.is_empty();
        Ok(Self {
            report,
            rounds,
            peaks: Vec::new(),
            quick,
            only: only.to_vec(),
            program,
            webhook_port,
            web_port,
            source,
            target,
            source_store,
            target_store,
            receiver,
            dir,
        })
    }

    /// So many, or a tenth of it in a quick run.
    pub(crate) const fn scaled(&self, count: usize) -> usize {
        if self.quick { count / 10 } else { count }
    }

    /// The subjects that were asked for, in this round's order: every other round the other way about.
    pub(crate) fn order<T: Subject>(&self, round: u32, subjects: &[T]) -> Vec<T> {
        let wanted =
            |subject: &T| self.only.is_empty() || self.only.iter().any(|o| *o == subject.name());
        let mut subjects: Vec<_> = subjects.iter().copied().filter(wanted).collect();
        if round % 2 == 1 {
            subjects.reverse();
        }
        subjects
    }

    /// Notes the most memory that evermirror had.
    pub(crate) fn note_peak(&mut self, workload: &'static str, peak_mib: f64) {
        self.report.note(workload, "evermirror", PEAK, peak_mib);
        self.peaks.push(peak_mib);
    }

    /// Notes how fast so many objects were copied, and at which cost.
    pub(crate) fn note_cost(
        &mut self,
        workload: &'static str,
        subject: &'static str,
        cost: Cost,
        objects: usize,
    ) {
        self.report.note(workload, subject, RATE, float(objects) / cost.time.as_secs_f64());
        if let Some(usage) = cost.usage {
            self.note_usage(workload, subject, usage, objects);
        }
    }

    /// Notes what the replicating process used for so many objects.
    pub(crate) fn note_usage(
        &mut self,
        workload: &'static str,
        subject: &'static str,
        usage: Usage,
        objects: usize,
    ) {
        self.report.note(workload, subject, CPU, usage.cpu_s * 1e4 / float(objects));
        match subject {
            "evermirror" => self.note_peak(workload, usage.peak_mib),
            // It would be this program's own.
            "bare" => {}
            _ => self.report.note(workload, subject, PEAK, usage.peak_mib),
        }
    }

    /// Judges a rate of evermirror's by that of the fastest of these peers in each round.
    pub(crate) fn judge_ahead(
        &mut self,
        claim: &'static str,
        workload: &str,
        rate: &str,
        peers: &[&str],
    ) {
        let ours = self.report.rounds(workload, "evermirror", rate);
        let theirs = peers.iter().map(|peer| self.report.rounds(workload, peer, rate).to_vec());
        let best = theirs.reduce(|best, other| {
            best.iter().zip(other).map(|(best, other)| best.max(other)).collect()
        });
        let best = best.unwrap_or_default();
        let ratios = ours.iter().zip(best).map(|(ours, best)| ours / best).collect();
        self.report.judge_ratios(claim, Bound::AtLeast(1.0), ratios);
    }

    /// Judges the most memory that evermirror had in any workload; one round too much is too much.
    pub(crate) fn judge_memory(&mut self) {
        if let Some(most) = self.peaks.iter().copied().max_by(f64::total_cmp) {
            let claim = "most resident memory in any of these workloads, MiB";
            self.report.judge(claim, Bound::AtMost(150.0), &[most]);
        }
    }

    /// Makes a bucket at the source.
    pub(crate) async fn source_bucket(&self, bucket: &str) -> anyhow::Result<()> {
        Ok(self.source_store.create_bucket(bucket).await?)
    }

    /// Makes a bucket at the target.
    pub(crate) async fn target_bucket(&self, bucket: &str) -> anyhow::Result<()> {
        Ok(self.target_store.create_bucket(bucket).await?)
    }

    /// Has both sides keep versions in a bucket, without which MinIO replicates nothing.
    pub(crate) async fn keep_versions(&self, bucket: &str) -> anyhow::Result<()> {
        self.source_store.enable_versioning(bucket).await?;
        Ok(self.target_store.enable_versioning(bucket).await?)
    }

    /// An evermirror with a fresh data directory between these buckets.
    pub(crate) fn site(&self, name: &str, source: &str, target: &str) -> anyhow::Result<Site> {
        let (from, to) = (self.source.endpoint(), self.target.endpoint());
        self.site_at(name, (&from, source), (&to, target))
    }

    /// The same between these endpoints and buckets.
    pub(crate) fn site_at(
        &self,
        name: &str,
        source: (&str, &str),
        target: (&str, &str),
    ) -> anyhow::Result<Site> {
        let (webhook_port, web_port) = (self.webhook_port, self.web_port);
        let places = Places { source, target, webhook_port, web_port };
        Site::new(&self.program, self.dir.path().join(name), &places)
    }

    /// One of several evermirrors that run at once, with ports and a data directory of its own.
    pub(crate) fn another_site(
        &self,
        name: &str,
        source: &str,
        target: &str,
    ) -> anyhow::Result<Site> {
        let (webhook_port, web_port) = (free_port()?, free_port()?);
        let places = Places {
            source: (&self.source.endpoint(), source),
            target: (&self.target.endpoint(), target),
            webhook_port,
            web_port,
        };
        Site::new(&self.program, self.dir.path().join(format!("{name}-{web_port}")), &places)
    }

    /// Fills a bucket of the target with what the source has under the same name, file by file: writing
    /// every object twice would take longer than what is measured. The target is restarted.
    pub(crate) async fn copy_disk(&mut self, bucket: &str) -> anyhow::Result<()> {
        self.target.stop();
        self.target.take_files(&self.source, bucket).await?;
        self.target.start_again().await
    }

    /// Gives both sides this many objects in a bucket that both have, by copying the file of the source's first
    /// one, number 0: to write each would take many times as long as what is measured. Both are restarted.
    pub(crate) async fn multiply(
        &mut self,
        bucket: &str,
        count: usize,
        key: fn(usize) -> String,
    ) -> anyhow::Result<()> {
        self.source.stop();
        self.target.stop();
        let content = std::fs::read(self.source.object_file(bucket, &key(0)))?;
        let sides = [&self.source, &self.target];
        let files: Vec<_> = (0..count)
            .flat_map(|number| sides.map(|side| side.object_file(bucket, &key(number))))
            .collect();
        tokio::task::spawn_blocking(move || {
            files.iter().try_for_each(|file| {
                file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                std::fs::write(file, &content)
            })
        })
        .await??;
        tokio::try_join!(self.source.start_again(), self.target.start_again())?;
        Ok(())
    }

    /// Waits until everything written so far is on the disk, so that nobody pays for another's writes.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        Ok(tokio::task::spawn_blocking(rustix::fs::sync).await?)
    }

    /// The bare loop between these buckets.
    pub(crate) fn route(&self, source: &str, target: &str) -> Route {
        Route {
            source: self.source_store.clone(),
            source_bucket: source.to_owned(),
            target: self.target_store.clone(),
            target_bucket: target.to_owned(),
        }
    }

    /// `mc` and `rclone`.
    pub(crate) fn peers(&self) -> Peers<'_> {
        Peers { source: &self.source, target: &self.target, dir: self.dir.path() }
    }

    /// A directory on the disk that everything is on.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}
