//! The real program, in release, as an operator runs it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::http;
use crate::process::{Process, Usage};
use crate::servers::{ACCESS_KEY, SECRET_KEY, TOKEN, until};

/// A configuration with a data directory that outlives each run of the program.
#[derive(Debug)]
pub(crate) struct Site {
    program: PathBuf,
    dir: PathBuf,
    pub(crate) webhook_port: u16,
    web_port: u16,
    /// Settings beside the file, by their variables.
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// Where a [`Site`] replicates from and to.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    pub(crate) source: (&'a str, &'a str),
    pub(crate) target: (&'a str, &'a str),
    pub(crate) webhook_port: u16,
    pub(crate) web_port: u16,
}

/// What `evermirror sync` did.
#[derive(Debug)]
pub(crate) struct Synced {
    pub(crate) took: Duration,
    pub(crate) usage: Usage,
    /// Its JSON.
    pub(crate) report: Value,
    /// Everything it printed, by lines.
    pub(crate) lines: Vec<String>,
}

impl Synced {
    /// A number of its report.
    pub(crate) fn count(&self, field: &str) -> anyhow::Result<usize> {
        let count = self.report.get(field).and_then(Value::as_u64);
        Ok(usize::try_from(count.with_context(|| format!("no {field} in {}", self.report))?)?)
    }
}

/// A run of the program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Evermirror {
    process: Process,
    web_port: u16,
}

impl Site {
    /// Writes the configuration into `dir`, which must be fresh, and starts nothing.
    pub(crate) fn new(program: &Path, dir: PathBuf, places: &Places<'_>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let &Places { source, target, webhook_port, web_port } = places;
        let store = |(endpoint, _): (&str, &str)| {
            format!(
                "endpoint = \"{endpoint}\"\naccess_key = \"{ACCESS_KEY}\"\nsecret_key = \"{SECRET_KEY}\"\n"
            )
        };
        let toml = format!(
            "data_dir = \"{}\"\n[source]\n{}[target]\n{}[[buckets]]\nsource = \"{}\"\ntarget = \"{}\"\n\
             [intake.webhook]\nlisten = \"127.0.0.1:{webhook_port}\"\nauth_token = \"{TOKEN}\"\n\
             [web]\nlisten = \"127.0.0.1:{web_port}\"\n",
            dir.join("data").display(),
            store(source),
            store(target),
            source.1,
            target.1,
        );
        std::fs::write(dir.join("evermirror.toml"), toml)?;
        let (program, environment) = (program.to_owned(), Vec::new());
        Ok(Self { program, dir, webhook_port, web_port, environment })
    }

    /// Adds tables to the configuration.
    pub(crate) fn add_settings(&self, toml: &str) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.dir.join("evermirror.toml"))?;
        Ok(file.write_all(toml.as_bytes())?)
    }

    /// Starts the program and waits for nothing.
    pub(crate) fn start(&self) -> anyhow::Result<Evermirror> {
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--config").arg(self.dir.join("evermirror.toml"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let process = Process::start(&mut command, &self.dir.join("log"))?;
        Ok(Evermirror { process, web_port: self.web_port })
    }

    /// Runs `evermirror sync` to its end, which must be a success.
    pub(crate) async fn sync(&self, options: &[&str]) -> anyhow::Result<Synced> {
        let log = self.dir.join("sync.log");
        let mut command = Command::new(&self.program);
        command.args(["sync", "--json"]).args(options);
        command.arg("--config").arg(self.dir.join("evermirror.toml"));
        let begun = Instant::now();
        let usage = Process::start(&mut command, &log)?.finished().await?;
        let took = begun.elapsed();
        let lines: Vec<_> = std::fs::read_to_string(&log)?.lines().map(str::to_owned).collect();
        let report = lines.iter().rev().find(|line| line.starts_with('{'));
        let report = serde_json::from_str(report.context("sync printed no report")?)?;
        Ok(Synced { took, usage, report, lines })
    }

    /// Starts the program and waits until it is ready.
    pub(crate) async fn start_ready(&self) -> anyhow::Result<Evermirror> {
        let evermirror = self.start()?;
        until("evermirror is ready", || async {
            if !evermirror.process.is_running()? {
                bail!("evermirror ended: {}", evermirror.process.last_words());
            }
            let ready = http::get(self.web_port, "/readyz").await;
            Ok(ready.is_ok_and(|(status, _)| status.is_success()))
        })
        .await?;
        Ok(evermirror)
    }
}

impl Evermirror {
    /// `/api/v1/status`.
    pub(crate) async fn status(&self) -> anyhow::Result<Value> {
        let (status, body) = http::get(self.web_port, "/api/v1/status").await?;
        if !status.is_success() {
            bail!("the status answers {status}");
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// A number of the status by its JSON pointer, as `/keys/pending`.
    pub(crate) async fn number(&self, pointer: &str) -> anyhow::Result<f64> {
        let status = self.status().await?;
        let number = status.pointer(pointer).and_then(Value::as_f64);
        number.with_context(|| format!("the status has no {pointer}: {status}"))
    }

    /// What the process has used since its start.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        self.process.usage()
    }

    /// A graceful stop.
    pub(crate) async fn terminate(self) -> anyhow::Result<Usage> {
        self.process.terminate().await
    }
}

/// Builds the program beside this one, so that what is measured is the source as it is.
pub(crate) async fn build() -> anyhow::Result<PathBuf> {
    if cfg!(debug_assertions) {
        bail!("an unoptimised build proves nothing: use cargo run --release");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // The whole workspace, so that its libraries are those that this program was built with.
    command.args(["build", "--release", "--quiet", "--workspace", "--bins"]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    // What `cargo run` tells this program of its own package is no business of that build: ring's build script
    // would run anew, and with it nearly everything would be built anew, there and again by the next `cargo run`.
    for (name, _) in std::env::vars_os() {
        let own =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(own) {
            command.env_remove(name);
        }
    }
    let status = tokio::task::spawn_blocking(move || command.status()).await??;
    if !status.success() {
        bail!("the build of evermirror ended with {status}");
    }
    let program = std::env::current_exe()?.with_file_name("evermirror");
    program.is_file().then_some(program).context("the built program is not beside this one")
}
