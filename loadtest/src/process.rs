//! A program that is measured: started, watched through /proc, and never left behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a process is looked at while one waits for its end: fine enough for runs of seconds.
const LOOK: Duration = Duration::from_millis(5);

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time of all its threads.
    pub(crate) cpu_s: f64,
    /// The most memory it ever had resident.
    pub(crate) peak_mib: f64,
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = File::options().create(true).append(true).open(log)?;
        let command = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("failed to start {name}"))?;
        Ok(Self { child, name, log: log.to_owned() })
    }

    /// What it has used so far; after its end, until it is dropped, the processor time of its whole
    /// life but no memory.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        usage(&self.child.id().to_string())
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&self) -> anyhow::Result<bool> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        Ok(fields(&stat).next() != Some("Z"))
    }

    /// The end of its log, for an error message: the log itself goes with the run's directory.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Waits for its end, which must be a success, and tells what it used.
    pub(crate) async fn finished(mut self) -> anyhow::Result<Usage> {
        let mut peak_mib = 0.0_f64;
        // Not collected until its figures are read: a zombie keeps its processor time, but no memory.
        while self.is_running()? {
            peak_mib = peak_mib.max(self.usage()?.peak_mib);
            tokio::time::sleep(LOOK).await;
        }
        let cpu_s = self.usage()?.cpu_s;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} ended with {status}: {}", self.name, self.last_words());
        }
        Ok(Usage { cpu_s, peak_mib })
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    pub(crate) async fn terminate(self) -> anyhow::Result<Usage> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a pid")?, Signal::TERM)?;
        self.finished().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and there is nothing else to be done about a failure.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What this very process has used so far.
pub(crate) fn own_usage() -> anyhow::Result<Usage> {
    usage("self")
}

fn usage(pid: &str) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15 of proc(5), counted from the state, which is the third.
    let ticks: Vec<u32> = fields(&stat).skip(11).take(2).flat_map(str::parse).collect();
    let &[user, system] = ticks.as_slice() else { bail!("/proc/{pid}/stat is not readable") };
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u32 = peak.map_or(Ok(0), |kib| kib.trim().trim_end_matches(" kB").parse())?;
    Ok(Usage {
        cpu_s: (f64::from(user) + f64::from(system)) / f64::from(per_second),
        peak_mib: f64::from(kib) / 1024.0,
    })
}

/// The fields behind the command's name, which may hold anything but ends with the last bracket.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_its_own_use() {
        let usage = own_usage().unwrap();
        assert!(usage.peak_mib > 0.0);
    }

    #[tokio::test]
    async fn a_failed_program_is_not_a_result() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let fails = Process::start(&mut Command::new("false"), log.path()).unwrap();
        assert!(fails.finished().await.is_err());
        let succeeds = Process::start(&mut Command::new("true"), log.path()).unwrap();
        succeeds.finished().await.unwrap();
    }
}
