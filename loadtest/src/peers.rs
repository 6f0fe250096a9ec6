//! The programs that people use for this today, run as their manuals say.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use crate::process::{Process, Usage};
use crate::servers::{ACCESS_KEY, Minio, SECRET_KEY, SEEN, peer};

/// The two servers, by the names `source` and `target`, for `mc` and `rclone`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peers<'a> {
    pub(crate) source: &'a Minio,
    pub(crate) target: &'a Minio,
    /// For logs and for `mc`'s own state.
    pub(crate) dir: &'a Path,
}

impl Peers<'_> {
    /// `rclone`, with a subcommand and its options.
    pub(crate) async fn rclone(
        &self,
        options: &[&str],
        from: &str,
        to: &str,
    ) -> anyhow::Result<(Duration, Usage)> {
        let mut command = Command::new(peer("rclone")?);
        command.args(options).args(["--config", "/dev/null"]);
        command.args([format!("source:{from}"), format!("target:{to}")]);
        for (name, server) in [("SOURCE", self.source), ("TARGET", self.target)] {
            for (option, value) in [
                ("TYPE", "s3"),
                ("PROVIDER", "Minio"),
                ("ENDPOINT", &server.endpoint()),
                ("ACCESS_KEY_ID", ACCESS_KEY),
                ("SECRET_ACCESS_KEY", SECRET_KEY),
            ] {
                command.env(format!("RCLONE_CONFIG_{name}_{option}"), value);
            }
        }
        self.time(command, "rclone.log").await
    }

    /// `mc mirror`.
    pub(crate) async fn mc(&self, from: &str, to: &str) -> anyhow::Result<(Duration, Usage)> {
        let (from, to) = (format!("source/{from}"), format!("target/{to}"));
        self.time(self.mc_command(&["mirror", "--quiet", &from, &to])?, "mc.log").await
    }

    /// `mc mirror --watch` between two buckets of one name; it runs until it is dropped.
    pub(crate) fn mc_watch(&self, bucket: &str) -> anyhow::Result<Process> {
        let (from, to) = (format!("source/{bucket}"), format!("target/{bucket}"));
        let options = ["mirror", "--quiet", "--watch", "--overwrite", "--remove", &from, &to];
        Process::start(&mut self.mc_command(&options)?, &self.dir.join("mc-watch.log"))
    }

    /// Has MinIO itself replicate the source's bucket to the target's of the same name: what is put, and
    /// `also` (as `delete,delete-marker`). Both keep versions. The source tells the stop-watch of what is
    /// replicated, since of replicas the target tells nobody.
    pub(crate) async fn replicate(&self, bucket: &str, also: &str) -> anyhow::Result<()> {
        let (from, port) = (format!("source/{bucket}"), self.target.port);
        let to = format!("http://{ACCESS_KEY}:{SECRET_KEY}@127.0.0.1:{port}/{bucket}");
        let options = ["--remote-bucket", &to, "--replicate", also];
        let command = self.mc_command(&[&["replicate", "add", &from], &options[..]].concat())?;
        self.time(command, "mc.log").await?;
        self.notify(("source", bucket), SEEN, "replica").await
    }

    /// The name that MinIO gave to where the source's bucket is replicated to.
    pub(crate) async fn replication_arn(&self, bucket: &str) -> anyhow::Result<String> {
        let from = format!("source/{bucket}");
        let mut list = self.mc_command(&["replicate", "ls", "--json", &from])?;
        let listed = tokio::task::spawn_blocking(move || list.output()).await??;
        let rule: Value = serde_json::from_slice(&listed.stdout)?;
        let arn = rule.pointer("/rule/Destination/Bucket").and_then(Value::as_str);
        Ok(arn.with_context(|| format!("{from} is not replicated: {rule}"))?.to_owned())
    }

    /// Asks MinIO to replicate what the source's bucket has already.
    pub(crate) async fn resync(&self, bucket: &str, arn: &str) -> anyhow::Result<()> {
        let from = format!("source/{bucket}");
        let start = ["replicate", "resync", "start", &from, "--remote-bucket", arn];
        self.time(self.mc_command(&start)?, "mc.log").await.map(drop)
    }

    /// Deletes a bucket of `server` (`source` or `target`) with all versions of all that is in it.
    pub(crate) async fn remove_bucket(&self, server: &str, bucket: &str) -> anyhow::Result<()> {
        let place = format!("{server}/{bucket}");
        self.time(self.mc_command(&["rb", "--force", &place])?, "mc.log").await.map(drop)
    }

    /// Has `server` (`source` or `target`) tell a webhook of these events in `bucket`.
    pub(crate) async fn notify(
        &self,
        (server, bucket): (&str, &str),
        webhook: &str,
        events: &str,
    ) -> anyhow::Result<()> {
        let (place, arn) =
            (format!("{server}/{bucket}"), format!("arn:minio:sqs::{webhook}:webhook"));
        let command = self.mc_command(&["event", "add", &place, &arn, "--event", events])?;
        self.time(command, "mc.log").await.map(drop)
    }

    /// Lets a bucket of `server` (`source` or `target`) grow no further than `size` (`1KiB`).
    pub(crate) async fn quota(&self, server: &str, bucket: &str, size: &str) -> anyhow::Result<()> {
        let place = format!("{server}/{bucket}");
        let command = self.mc_command(&["quota", "set", &place, "--size", size])?;
        self.time(command, "mc.log").await.map(drop)
    }

    fn mc_command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(peer("mc")?);
        command.arg("--config-dir").arg(self.dir.join("mc")).args(arguments);
        for (name, server) in [("source", self.source), ("target", self.target)] {
            let url = format!("http://{ACCESS_KEY}:{SECRET_KEY}@127.0.0.1:{}", server.port);
            command.env(format!("MC_HOST_{name}"), url);
        }
        Ok(command)
    }

    async fn time(&self, mut command: Command, log: &str) -> anyhow::Result<(Duration, Usage)> {
        let begun = Instant::now();
        let usage = Process::start(&mut command, &self.dir.join(log))?.finished().await?;
        Ok((begun.elapsed(), usage))
    }
}
