//! `evermirror reconcile`: has the running process compare both sides now.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::web::client::{Api, ApiArgs};

/// Arguments of `reconcile`.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// Only this bucket, by its name at the source
    #[arg(long, value_name = "BUCKET")]
    bucket: Option<String>,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

/// Asks the running process, and does not wait for the passes to end.
pub async fn execute(args: ReconcileArgs) -> anyhow::Result<ExitCode> {
    let asked = json!({ "bucket": args.bucket, "prefix": args.prefix });
    let answer = Api::actor(&args.api)?.post("/api/v1/reconcile", Some(&asked)).await?;
    let mut out = io::stdout().lock();
    if args.api.json {
        writeln!(out, "{answer}")?;
    } else {
        let count = answer.get("buckets").and_then(serde_json::Value::as_u64).unwrap_or_default();
        let buckets = if count == 1 { "bucket is" } else { "buckets are" };
        writeln!(
            out,
            "{count} {buckets} reconciled as soon as possible; `reconcile` in /api/v1/status and \
             the log tell what is found"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
