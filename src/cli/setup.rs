//! `evermirror setup`: notifications at the source, buckets at the target.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::logging;
use super::paint::{Paint, plain};
use crate::config;
use crate::oneshot::Scope;
use crate::setup::{self, BucketReport, RuleReport, SetupOptions, SetupReport};
use crate::store::StoreKind;

/// Arguments of `setup`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct SetupArgs {
    /// The TOML file of `run`; without one, everything comes from `EVERMIRROR__TABLE__KEY` variables
    #[arg(long, short, value_name = "FILE", env = "EVERMIRROR_CONFIG")]
    config: Option<PathBuf>,
    /// Only this source bucket; may be given several times [default: all that are configured]
    #[arg(long, value_name = "BUCKET")]
    bucket: Vec<String>,
    /// Send events here; may be given several times [default: the targets EM and EMFAST of the source]
    #[arg(long, value_name = "ARN")]
    arn: Vec<String>,
    /// Whose software the source runs [default: found out]
    #[arg(long, value_name = "KIND")]
    store: Option<Kind>,
    /// Turn versioning on in the target's buckets
    #[arg(long, conflicts_with = "remove")]
    target_versioning: bool,
    /// Take evermirror's rules out of the source's buckets again
    #[arg(long)]
    remove: bool,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the answer as one JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Minio,
    Rustfs,
    Aws,
    Other,
}

impl From<Kind> for StoreKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Minio => Self::Minio,
            Kind::Rustfs => Self::Rustfs,
            Kind::Aws => Self::Aws,
            Kind::Other => Self::Other,
        }
    }
}

/// Status 0: everything is as it should be. 1: something could not be done.
pub async fn execute(args: SetupArgs) -> anyhow::Result<ExitCode> {
    let settings = config::load_without_intake(args.config.as_deref(), config::environment())?;
    logging::init_quietly(&settings.log)?;
    let scope = Scope::new(settings, &args.bucket, "", args.json)?;
    let options = SetupOptions {
        dry_run: args.dry_run,
        remove: args.remove,
        target_versioning: args.target_versioning,
        arns: args.arn,
        kind: args.store.map(StoreKind::from),
    };
    let report = Box::pin(setup::run(&scope.settings, &options)).await?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        let paint = Paint::on(out.is_terminal());
        show(&mut out, &report, paint)?;
    }
    Ok(if report.succeeded() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(out: &mut impl Write, report: &SetupReport, paint: Paint) -> io::Result<()> {
    writeln!(out, "source {} ({})", report.source, report.kind)?;
    for bucket in &report.buckets {
        show_bucket(out, bucket, paint)?;
    }
    for note in &report.notes {
        writeln!(out, "{} {note}", paint.yellow("note:"))?;
    }
    let changes = report.changes();
    let word = if changes == 1 { "change" } else { "changes" };
    if !report.succeeded() {
        writeln!(out, "{}", paint.red("Not everything could be set up; see above."))
    } else if changes == 0 {
        writeln!(out, "Nothing to do.")
    } else if report.dry_run {
        writeln!(out, "{changes} {word} to make; nothing was changed (--dry-run).")
    } else {
        writeln!(out, "{changes} {word} made, and read back.")
    }
}

fn show_bucket(out: &mut impl Write, bucket: &BucketReport, paint: Paint) -> io::Result<()> {
    writeln!(out, "\n{} -> {}", paint.bold(&bucket.bucket), bucket.target)?;
    for rule in &bucket.kept {
        writeln!(out, "    {}", line(rule))?;
    }
    for rule in &bucket.removed {
        writeln!(out, "  {}", paint.red(&format!("- {}", line(rule))))?;
    }
    for rule in &bucket.added {
        writeln!(out, "  {}", paint.green(&format!("+ {}", line(rule))))?;
    }
    for change in &bucket.target_changes {
        writeln!(out, "  {}", paint.green(&format!("+ target: {change}")))?;
    }
    for problem in &bucket.problems {
        writeln!(out, "  {} {problem}", paint.red("problem:"))?;
    }
    Ok(())
}

/// The ARN and its filters, and on a line of their own the events.
fn line(rule: &RuleReport) -> String {
    let shorten = |event: &String| event.strip_prefix("s3:").unwrap_or(event).to_owned();
    let events: Vec<_> = rule.events.iter().map(shorten).collect();
    let lines: Vec<_> = events.chunks(3).map(|some| plain(&some.join("  "))).collect();
    let place = plain(&format!("{}  {}", rule.arn, rule.filters.join("  ")));
    format!("{}\n        {}", place.trim_end(), lines.join("\n        "))
}
