//! `evermirror deletes`: what waits to be deleted, and a person's decision about what is held.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::errors::told;
use crate::web::client::{Api, ApiArgs, segment};

/// Arguments of `deletes`.
#[derive(Debug, Args)]
pub struct DeletesArgs {
    #[command(subcommand)]
    command: DeletesCommand,
}

#[derive(Debug, Subcommand)]
enum DeletesCommand {
    /// Show which deletes are held, and why, and which are delayed
    List(ListArgs),
    /// Let held deletes go ahead, each after the source has confirmed it once more
    Approve(BucketArgs),
    /// Forget held deletes: their objects stay at the target
    Discard(BucketArgs),
}

#[derive(Debug, Args)]
struct BucketArgs {
    /// Only this bucket, by its name at the source
    #[arg(long, value_name = "BUCKET")]
    bucket: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    of: BucketArgs,
    /// Show the keys of held deletes, too: so many of each bucket, those held longest first
    #[arg(long, value_name = "MOST", num_args = 0..=1, default_missing_value = "100")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    keys: Option<u32>,
}

/// Asks the running process.
pub async fn execute(args: DeletesArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        DeletesCommand::List(args) => list(&args).await.map(|()| ExitCode::SUCCESS),
        DeletesCommand::Approve(args) => decide(&args, "approve", "approved").await,
        DeletesCommand::Discard(args) => decide(&args, "discard", "discarded").await,
    }
}

async fn list(ListArgs { of: args, keys }: &ListArgs) -> anyhow::Result<()> {
    let api = Api::reader(&args.api)?;
    let mut answer = api.get("/api/v1/deletes").await?;
    if let Some(bucket) = &args.bucket {
        for list in ["held", "delayed"] {
            if let Some(Value::Array(entries)) = answer.get_mut(list) {
                entries.retain(|entry| entry["bucket"] == **bucket);
            }
        }
    }
    if let (Some(most), Some(Value::Array(held))) = (keys, answer.get_mut("held")) {
        for entry in held {
            let bucket = segment(text(entry, "bucket"));
            let mut shown = api.get(&format!("/api/v1/deletes/{bucket}?limit={most}")).await?;
            let shown = shown.get_mut("keys").map(Value::take).unwrap_or_default();
            drop(entry.as_object_mut().map(|entry| entry.insert("keys".to_owned(), shown)));
        }
    }
    let mut out = io::stdout().lock();
    if args.api.json {
        return Ok(writeln!(out, "{answer}")?);
    }
    let (held, delayed) = (entries(&answer, "held"), entries(&answer, "delayed"));
    if held.is_empty() && delayed.is_empty() {
        writeln!(out, "no delete is held or delayed")?;
    }
    for entry in held {
        writeln!(
            out,
            "held     {:>10}  {}: {}",
            count(entry),
            text(entry, "bucket"),
            text(entry, "reason")
        )?;
        let shown = entries(entry, "keys");
        for held in shown {
            // A key may hold line ends, and whatever else.
            writeln!(out, "                     {}", text(held, "key").escape_debug())?;
        }
        let more = count(entry).saturating_sub(shown.len() as u64);
        if keys.is_some() && more > 0 {
            writeln!(out, "                     … and {more} more")?;
        }
    }
    for entry in delayed {
        let next = match entry["next_due_in_ms"].as_u64() {
            Some(ms) => format!("the next is due in {} s", ms.div_ceil(1_000)),
            None => "the next one's time is being read".to_owned(),
        };
        writeln!(out, "delayed  {:>10}  {}: {next}", count(entry), text(entry, "bucket"))?;
    }
    Ok(())
}

/// Decides bucket by bucket; what was done before an error is shown.
async fn decide(args: &BucketArgs, verb: &str, done: &str) -> anyhow::Result<ExitCode> {
    let api = Api::actor(&args.api)?;
    let buckets = if let Some(bucket) = &args.bucket {
        vec![bucket.clone()]
    } else {
        let answer = api.get("/api/v1/deletes").await?;
        entries(&answer, "held").iter().map(|entry| text(entry, "bucket").to_owned()).collect()
    };
    let mut counts = Map::new();
    let mut failed = None;
    for bucket in buckets {
        match api.post(&format!("/api/v1/deletes/{}/{verb}", segment(&bucket)), None).await {
            Ok(answer) => {
                drop(counts.insert(bucket, answer.get(done).cloned().unwrap_or_default()));
            }
            Err(error) => {
                let what = format!("failed to {verb} the held deletes of {bucket}");
                failed = Some(told(&error.context(what)));
                break;
            }
        }
    }
    let mut out = io::stdout().lock();
    if args.api.json {
        let answer = match &failed {
            None => json!({ done: counts }),
            Some(error) => json!({ done: counts, "errors": [error] }),
        };
        writeln!(out, "{answer}")?;
    } else if counts.is_empty() && failed.is_none() {
        writeln!(out, "no delete is held")?;
    } else {
        for (bucket, count) in counts {
            writeln!(out, "{done} {count} deletes of {bucket}")?;
        }
    }
    Ok(match failed {
        None => ExitCode::SUCCESS,
        Some(error) => {
            writeln!(io::stderr(), "error: {error}")?;
            ExitCode::FAILURE
        }
    })
}

fn entries<'a>(answer: &'a Value, list: &str) -> &'a [Value] {
    answer.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn count(entry: &Value) -> u64 {
    entry["count"].as_u64().unwrap_or_default()
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry.get(field).and_then(Value::as_str).unwrap_or_default()
}
