//! `evermirror snapshot`: volume snapshots of the source, taken, listed and restored by hand.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::config;
use crate::errors::UsageError;
use crate::kubernetes::text_at;
use crate::snapshot::{Plan, RestoreOptions, Snapshot, SnapshotState, Snapshots};

/// Arguments of `snapshot`.
#[derive(Debug, Args)]
#[command(
    after_help = "The cluster is the one of KUBECONFIG or ~/.kube/config, or that of the pod. Exit status: 0 done; 1 it could not \
be done, and the message says what is missing; 2 the command line or the configuration."
)]
pub struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Take a snapshot, wait until it can be restored, and delete those beyond `retain`
    Create(CreateArgs),
    /// Show the snapshots of the namespace, the newest first
    List(CommonArgs),
    /// Make a new volume claim of a snapshot; nothing that is there is touched
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// The TOML file of `run`, of which the table `snapshot` is used
    #[arg(long, short, value_name = "FILE", env = "EVERMIRROR_CONFIG")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CreateArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Check that it could be taken, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct RestoreArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// The snapshot; `latest` for the newest of evermirror's that can be restored
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// The name of the new claim
    #[arg(long, value_name = "NAME")]
    claim: String,
    /// Its storage class, if not that of the claim which the snapshot was taken of
    #[arg(long, value_name = "NAME")]
    storage_class: Option<String>,
    /// Its size, if not the least one that the snapshot fits into
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// An access mode, if not those of the claim which the snapshot was taken of; may be given several times
    #[arg(long = "access-mode", value_name = "MODE")]
    access_modes: Vec<String>,
    /// Have the API server check the claim, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Asks the cluster.
pub async fn execute(args: SnapshotArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        SnapshotCommand::Create(args) => create(&args).await?,
        SnapshotCommand::List(args) => list(&args).await?,
        SnapshotCommand::Restore(args) => restore(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn connect(args: &CommonArgs) -> anyhow::Result<Snapshots> {
    let settings = config::load_without_intake(args.config.as_deref(), config::environment())?;
    let settings = settings.snapshot.ok_or_else(|| {
        UsageError(
            "the configuration has no table [snapshot]: add one with `selector`, the labels of the store's \
             PersistentVolumeClaim"
                .to_owned(),
        )
    })?;
    Ok(Snapshots::connect(&settings).await?)
}

async fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let snapshots = connect(&args.common).await?;
    let plan = snapshots.plan().await?;
    let asked = snapshots.create(&plan, false, args.dry_run).await?;
    let Plan { claim, class, namespace } = &plan;
    if !args.common.json && !args.dry_run {
        writeln!(
            io::stderr(),
            "snapshot {} of claim {} in namespace {namespace} is being taken by class {class}",
            asked.name,
            claim.name
        )?;
    }
    let snapshot = if args.dry_run { asked } else { snapshots.wait_ready(&asked.name).await? };
    let deleted = snapshots.expire(&claim.name, args.dry_run).await?;
    let mut out = io::stdout().lock();
    if args.common.json {
        let answer = json!({
            "dry_run": args.dry_run, "plan": plan, "snapshot": snapshot, "deleted": deleted,
        });
        return Ok(writeln!(out, "{answer}")?);
    }
    if args.dry_run {
        writeln!(
            out,
            "a snapshot of claim {} in namespace {namespace} can be taken by class {class}; nothing was changed",
            claim.name
        )?;
    } else {
        let at = snapshot.cut_at.as_deref().unwrap_or(&snapshot.asked_at);
        writeln!(out, "{} is as of {at} and can be restored", snapshot.name)?;
    }
    let verb = if args.dry_run { "would be deleted" } else { "deleted" };
    for name in deleted {
        writeln!(out, "{verb}: {name}, beyond `retain`")?;
    }
    Ok(())
}

async fn list(args: &CommonArgs) -> anyhow::Result<()> {
    let snapshots = connect(args).await?.list().await?;
    let mut out = io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", json!({ "snapshots": snapshots }))?);
    }
    if snapshots.is_empty() {
        writeln!(out, "there is no snapshot")?;
    }
    for snapshot in &snapshots {
        writeln!(out, "{}", line(snapshot))?;
    }
    Ok(())
}

fn line(snapshot: &Snapshot) -> String {
    let state = match snapshot.state {
        SnapshotState::Pending => "pending",
        SnapshotState::Ready => "ready",
        SnapshotState::Deleting => "deleting",
    };
    let at = snapshot.cut_at.as_deref().unwrap_or(&snapshot.asked_at);
    let size = snapshot.restore_size.as_deref().unwrap_or("-");
    let claim = snapshot.claim.as_deref().unwrap_or("-");
    let error = snapshot.error.as_ref().map(|error| format!(": {}", error.escape_debug()));
    let mut line = format!("{state:<8}  {at:<20}  {size:>8}  {}  of {claim}", snapshot.name);
    if !snapshot.ours {
        line.push_str(", not evermirror's");
    }
    if snapshot.quiesced {
        line.push_str(", quiesced");
    }
    line.push_str(&error.unwrap_or_default());
    line
}

async fn restore(args: RestoreArgs) -> anyhow::Result<()> {
    let snapshots = connect(&args.common).await?;
    let options = RestoreOptions {
        claim: args.claim,
        storage_class: args.storage_class,
        size: args.size,
        access_modes: args.access_modes,
    };
    let claim = snapshots.restore(&args.snapshot, &options, args.dry_run).await?;
    let mut out = io::stdout().lock();
    if args.common.json {
        let answer = json!({ "dry_run": args.dry_run, "claim": claim });
        return Ok(writeln!(out, "{answer}")?);
    }
    let part = |pointer| text_at(&claim, pointer).unwrap_or_default();
    let (name, from) = (part("/metadata/name"), part("/spec/dataSource/name"));
    let (size, class) = (part("/spec/resources/requests/storage"), part("/spec/storageClassName"));
    let modes = claim.pointer("/spec/accessModes").and_then(Value::as_array);
    let modes: Vec<_> = modes.into_iter().flatten().filter_map(Value::as_str).collect();
    let modes = modes.join(", ");
    if args.dry_run {
        writeln!(
            out,
            "claim {name} ({size}, {class}, {modes}) could be made of {from}; nothing was changed"
        )?;
        return Ok(());
    }
    writeln!(
        out,
        "claim {name} ({size}, {class}, {modes}) was made of {from}. It is filled at once or when a pod first uses it, \
         as its storage class says.\n\
         To put it in the store's place: stop evermirror, scale the store to zero, have its pod use claim {name}, scale it up, \
         start evermirror; its reconcile then makes the target agree, and holds deletes that look like a disaster."
    )?;
    Ok(())
}
