//! `evermirror sync`: makes the target agree with the source once, and ends.

use std::process::ExitCode;

use clap::Args;

use crate::cli::scope::{self, ScopeArgs};
use crate::oneshot::sync::{self, SyncOptions};

/// Arguments of `sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Print what would be done, and write nothing anywhere
    #[arg(long)]
    dry_run: bool,
    /// Delete nothing at the target: an archive that only grows
    #[arg(long, conflicts_with = "approve_deletes")]
    no_delete: bool,
    /// Carry out deletes that would be held, because the source looks wiped or too many are gone
    #[arg(long)]
    approve_deletes: bool,
}

/// Status 0: both sides agree. 1: keys failed, deletes are held, or it was interrupted.
pub async fn execute(args: SyncArgs) -> anyhow::Result<ExitCode> {
    let scope = match args.scope.load()? {
        Ok(scope) => scope,
        Err(error) => return Ok(scope::refuse(&error)),
    };
    let options = SyncOptions {
        dry_run: args.dry_run,
        no_delete: args.no_delete,
        approve_deletes: args.approve_deletes,
    };
    let agrees = Box::pin(sync::run(scope, options, scope::stopped()?)).await?;
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
