//! `evermirror check-config`: would `run` start with this configuration, and with which settings?

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config;

/// Arguments of `check-config`.
#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// The TOML file; without one, everything comes from `EVERMIRROR__TABLE__KEY` variables
    #[arg(value_name = "FILE", env = "EVERMIRROR_CONFIG")]
    pub file: Option<PathBuf>,
}

/// Prints the settings in force to stdout. An invalid configuration is the error.
pub fn execute(args: &CheckConfigArgs) -> anyhow::Result<ExitCode> {
    let loaded = config::load_with_origins(args.file.as_deref(), config::environment())?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}\nconfiguration is valid", config::show(&loaded)?)?;
    Ok(ExitCode::SUCCESS)
}
