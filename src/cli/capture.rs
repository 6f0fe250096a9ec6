//! `evermirror capture`, and `evermirror restore --settings`, its way back.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::logging;
use super::paint::plain;
use crate::capture::{self, CaptureReport, PutBackOptions, PutBackReport};
use crate::config;
use crate::errors::UsageError;
use crate::oneshot::report::print;
use crate::stores;

/// Arguments of `capture`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 everything was captured; 1 something could not be read, and is named; \
2 nothing was captured: the command line, the configuration, or a store that does not answer. What was \
captured comes back by `evermirror restore --settings`."
)]
pub struct CaptureArgs {
    /// The TOML file of `run`; without one, everything comes from `EVERMIRROR__TABLE__KEY` variables
    #[arg(long, short, value_name = "FILE", env = "EVERMIRROR_CONFIG")]
    config: Option<PathBuf>,
    /// Read everything, and write nothing to the target
    #[arg(long)]
    dry_run: bool,
    /// Write the document to this file, too, as it is kept at the target; it must not exist
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the answer as one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Captures once.
pub async fn execute(args: &CaptureArgs) -> anyhow::Result<ExitCode> {
    let settings = config::load_without_intake(args.config.as_deref(), config::environment())?;
    logging::init_quietly(&settings.log)?;
    let stores = stores::connect(&settings).await?;
    let capturing = Box::pin(capture::capture(&stores, &settings, args.dry_run)).await;
    let (report, text) = match capturing {
        Ok(captured) => captured,
        Err(error) => return Err(UsageError(error.to_string()).into()),
    };
    if let Some(path) = &args.out {
        save(path, &text)?;
    }
    let problems = report.problems.clone();
    let bucket = settings.capture.unwrap_or_default().target_bucket;
    print(args.json, &report, &captured(&report, &bucket)?, &problems);
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For the owner alone: a policy tells who may do what.
fn save(path: &std::path::Path, text: &[u8]) -> Result<(), UsageError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text))
        .map_err(|error| UsageError(format!("failed to write {}: {error}", path.display())))
}

fn captured(report: &CaptureReport, bucket: &str) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    for (bucket, settings) in &report.buckets {
        writeln!(out, "{bucket}: {settings} settings")?;
    }
    if report.users {
        writeln!(out, "{} users, groups, policies and access keys", report.entities)?;
        if !report.encrypted {
            writeln!(
                out,
                "their secret keys are left out: set `passphrase` in [capture] to keep them"
            )?;
        }
    } else if report.problems.iter().any(|problem| problem.starts_with("users and policies")) {
        writeln!(out, "no users and policies: they could not be read")?;
    } else {
        writeln!(out, "no users and policies: the store does not tell them, or was not asked")?;
    }
    match &report.document {
        None => writeln!(out, "nothing was written (--dry-run)")?,
        Some(key) if report.unchanged => writeln!(out, "unchanged since {bucket}/{key}")?,
        Some(key) => writeln!(out, "written to {bucket}/{key} at the target")?,
    }
    Ok(out)
}

/// Puts captured settings back, for `restore --settings`.
pub(super) async fn put_back(
    settings: &config::Settings,
    options: &PutBackOptions,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let report = match Box::pin(capture::put_back(settings, options)).await {
        Ok(report) => report,
        Err(error) => return Err(UsageError(error.to_string()).into()),
    };
    print(json, &report, &put_back_text(&report)?, &report.problems);
    Ok(match (report.refused, report.succeeded()) {
        (true, _) => ExitCode::from(2),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

fn put_back_text(report: &PutBackReport) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "{} of {} -> {}", report.document, report.taken, report.to)?;
    let mut list = |title: &str, lines: &[String]| -> std::fmt::Result {
        for line in lines {
            writeln!(out, "  {title} {}", plain(line))?;
        }
        Ok(())
    };
    list("+", &report.changes)?;
    list(if report.refused { "differs:" } else { "~" }, &report.conflicts)?;
    list("needs a new secret:", &report.need_secrets)?;
    list("note:", &report.notes)?;
    list("reads back otherwise:", &report.not_equal)?;
    let changes = report.changes.len() + report.conflicts.len();
    let words = if report.refused {
        "nothing was changed: what differs is overwritten with --force alone".to_owned()
    } else if report.dry_run {
        format!("{changes} changes to make, {} there already; nothing was changed", report.same)
    } else if report.succeeded() {
        format!("{changes} changes made, {} there already; read back and equal", report.same)
    } else {
        "NOT all as it was captured; the same command tries again".to_owned()
    };
    writeln!(out, "{words}")?;
    Ok(out)
}
