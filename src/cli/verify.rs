//! `evermirror verify`: whether both sides agree.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::scope::{self, ScopeArgs};
use crate::errors::UsageError;
use crate::oneshot::verify::{self, VerifyOptions};

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 both sides agree; 1 they differ, or it was interrupted, and its report says how to go on; 2 it could not run, \
or not to its end: the command line, the configuration, a store or a bucket."
)]
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
    /// Leave out all keys up to this one, and it: the place that the report of an interrupted one names; only for
    /// one bucket
    #[arg(long, value_name = "KEY")]
    start_after: Option<String>,
}

/// The status is an [`crate::oneshot::Ended`].
pub async fn execute(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let scope = args.scope.load()?;
    let buckets = &scope.settings.buckets;
    if args.start_after.is_some() && buckets.len() != 1 {
        let names: Vec<_> = buckets.iter().map(|bucket| &*bucket.source).collect();
        return Err(UsageError(format!(
            "--start-after is a place in one bucket: name it with --bucket; chosen are {}",
            names.join(", ")
        ))
        .into());
    }
    let options = VerifyOptions {
        metadata: args.metadata,
        deep: args.deep,
        report: args.report,
        start_after: args.start_after,
    };
    Ok(Box::pin(verify::run(scope, options, scope::stopped()?)).await.into())
}
