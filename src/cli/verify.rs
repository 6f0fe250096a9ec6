//! `evermirror verify`: whether both sides agree.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::scope::{self, ScopeArgs};
use crate::oneshot::verify::{self, VerifyOptions};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Compare headers, user metadata and tags of every object, too (a HEAD of both sides)
    #[arg(long)]
    metadata: bool,
    /// Read and hash the bytes of every object on both sides
    #[arg(long)]
    deep: bool,
    /// Write every difference to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Status 0: both sides agree. 1: they differ, or could not be compared to the end.
pub async fn execute(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let scope = match args.scope.load()? {
        Ok(scope) => scope,
        Err(error) => return Ok(scope::refuse(&error)),
    };
    let options = VerifyOptions { metadata: args.metadata, deep: args.deep, report: args.report };
    let agrees = Box::pin(verify::run(scope, options, scope::stopped()?)).await?;
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
