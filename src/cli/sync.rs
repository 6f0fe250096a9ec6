//! `evermirror sync`: makes the target agree with the source once, and ends.

use std::process::ExitCode;

use clap::Args;

use crate::cli::scope::{self, ScopeArgs};
use crate::oneshot::sync::{self, SyncOptions};

/// Arguments of `sync`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 done, both sides agree (or the dry run is through); 1 not yet: keys \
failed, deletes are held, or it was interrupted, and the same command goes on; 2 it could not run, or not to its \
end: the command line, the configuration, a store or a bucket."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct SyncArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Print what would be done, and write nothing anywhere
    #[arg(long)]
    dry_run: bool,
    /// Delete nothing at the target: an archive that only grows
    #[arg(long, conflicts_with = "approve_deletes")]
    no_delete: bool,
    /// Compare headers, user metadata and tags of every object as well, by a HEAD on both sides (what it would
    /// mend is told by `verify --metadata`)
    #[arg(long, conflicts_with = "dry_run")]
    metadata: bool,
    /// Carry out deletes that would be held, because the source looks wiped or too many are gone
    #[arg(long)]
    approve_deletes: bool,
}

/// The status is an [`crate::oneshot::Ended`].
pub async fn execute(args: SyncArgs) -> anyhow::Result<ExitCode> {
    let scope = args.scope.load()?;
    let options = SyncOptions {
        dry_run: args.dry_run,
        no_delete: args.no_delete,
        approve_deletes: args.approve_deletes,
        metadata: args.metadata,
    };
    Ok(Box::pin(sync::run(scope, options, scope::stopped()?)).await.into())
}
