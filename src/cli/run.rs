//! `evermirror run`: the service.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::logging;
use crate::config;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The TOML file; without one, everything comes from `EVERMIRROR__TABLE__KEY` variables, which
    /// override the file too
    #[arg(long, short, value_name = "FILE", env = "EVERMIRROR_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Replicates until the process is told to stop.
#[expect(clippy::unused_async, reason = "the pipeline that is awaited here is not wired yet")]
pub async fn execute(args: RunArgs) -> anyhow::Result<ExitCode> {
    let settings = config::load(args.config.as_deref(), config::environment())?;
    logging::init(&settings.log)?;
    anyhow::bail!("the pipeline is not wired to `run` yet")
}
