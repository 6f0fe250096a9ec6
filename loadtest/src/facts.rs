//! What a figure means nothing without: the machine, the versions, the code and the day.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use evermirror::clock;
use serde::{Deserialize, Serialize};

use crate::servers::peers_dir;

/// The programs whose versions are told, where they are installed.
const PEERS: [&str; 5] = ["minio-listen", "mc", "rclone", "elasticmq", "kafka"];

/// Of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// When it began, in UTC.
    pub(crate) date: String,
    /// What was measured, with `-dirty` if the files differ from it; none outside a clone.
    pub(crate) commit: Option<String>,
    pub(crate) rounds: u32,
    /// A tenth of the work.
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    /// Of the peers and servers, by their names, as tests/peers/install noted them.
    pub(crate) versions: BTreeMap<String, String>,
}

/// What it ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) processor: String,
    pub(crate) kernel: String,
}

impl Facts {
    /// Of this moment and this machine.
    pub(crate) fn gather(rounds: u32, quick: bool) -> anyhow::Result<Self> {
        let now = Duration::from_millis(u64::try_from(clock::now_ms())?);
        let stamps = peers_dir()?.join("stamps");
        let versions = PEERS.into_iter().filter_map(|name| {
            let version = fs::read_to_string(stamps.join(name)).ok()?;
            Some((name.to_owned(), version.trim().to_owned()))
        });
        Ok(Self {
            date: humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + now).to_string(),
            commit: commit(),
            rounds,
            quick,
            machine: Machine::here()?,
            versions: versions.collect(),
        })
    }

    /// Why ratios of these two runs may differ though the code does not, each as a sentence.
    pub(crate) fn differences(&self, now: &Self) -> Vec<String> {
        let (was, is) = (&self.machine, &now.machine);
        let facts = [
            ("cores", was.cores.to_string(), is.cores.to_string()),
            ("GiB of memory", was.memory_gib.to_string(), is.memory_gib.to_string()),
            ("the processor", was.processor.clone(), is.processor.clone()),
            ("the kernel", was.kernel.clone(), is.kernel.clone()),
        ];
        let names = self.versions.keys().chain(now.versions.keys());
        let names: std::collections::BTreeSet<_> = names.collect();
        let versions = names.into_iter().map(|name| {
            let version = |facts: &Self| facts.versions.get(name).map_or("none", |v| v).to_owned();
            (name.as_str(), version(self), version(now))
        });
        let all = facts.into_iter().chain(versions);
        let different = all.filter(|(_, was, is)| was != is);
        different.map(|(what, was, is)| format!("{what}: {was} then, {is} now")).collect()
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cores, memory_gib, processor, kernel } = &self.machine;
        let quick = if self.quick { ", a tenth of the work" } else { "" };
        writeln!(f, "{}, {} rounds{quick}", self.date, self.rounds)?;
        writeln!(f, "{cores} cores ({processor}), {memory_gib} GiB, Linux {kernel}")?;
        write!(f, "evermirror {}", self.commit.as_deref().unwrap_or("of an unknown commit"))?;
        self.versions.values().try_for_each(|version| write!(f, "\n{version}"))
    }
}

impl Machine {
    fn here() -> anyhow::Result<Self> {
        let memory = fs::read_to_string("/proc/meminfo")?;
        let memory_kib: u64 = field(&memory, "MemTotal").trim_end_matches(" kB").parse()?;
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            // Rounded up: the kernel keeps a little of what is built in.
            memory_gib: memory_kib.div_ceil(1 << 20),
            processor: field(&processors, "model name").to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

/// The value of the first line `NAME: VALUE`; nothing where there is none.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut found = lines.filter(|(key, _)| key.trim() == name);
    found.next().map_or("", |(_, value)| value.trim())
}

fn commit() -> Option<String> {
    let mut command = Command::new("git");
    command.args(["describe", "--always", "--exclude=*", "--dirty", "--abbrev=12"]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// For tests of what is done with facts.
    pub(crate) fn facts() -> Facts {
        let machine = Machine {
            cores: 4,
            memory_gib: 16,
            processor: "a processor".to_owned(),
            kernel: "6.1".to_owned(),
        };
        let versions = BTreeMap::from([("minio".to_owned(), "minio@1".to_owned())]);
        let (date, commit) = ("2026-11-23T00:00:00Z".to_owned(), Some("abc".to_owned()));
        Facts { date, commit, rounds: 3, quick: false, machine, versions }
    }

    #[test]
    fn this_machine_is_told() {
        let machine = Machine::here().unwrap();
        assert!(machine.cores > 0 && machine.memory_gib > 0 && !machine.kernel.is_empty());
    }

    #[test]
    fn another_machine_and_another_server_are_told_and_another_day_is_not() {
        let then = facts();
        let mut now = Facts { date: "2027-01-01T00:00:00Z".to_owned(), commit: None, ..facts() };
        assert!(then.differences(&now).is_empty());
        now.machine.cores = 8;
        now.versions = BTreeMap::from([("mc".to_owned(), "mc@1".to_owned())]);
        assert_eq!(
            then.differences(&now),
            ["cores: 4 then, 8 now", "mc: none then, mc@1 now", "minio: minio@1 then, none now"]
        );
    }
}
