//! `evermirror restore`: the way back, in one command.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::capture::PutBackOptions;
use crate::cli::logging;
use crate::cli::scope::{self, ScopeArgs};
use crate::config::settings::StoreSettings;
use crate::errors::UsageError;
use crate::oneshot::Scope;
use crate::oneshot::report::print;
use crate::oneshot::restore::{Outcome, Report, RestoreOptions, restore, when};
use crate::{clock, config};

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(
    after_help = "Exit status: 0 everything is back, by the listings of both sides (or the dry run is \
through); 1 not yet: keys failed, or it was interrupted, and the same command goes on; 2 it could not run, or not to \
its end: refused, the command line, the configuration, a store or a bucket."
)]
pub struct RestoreArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Restore a bucket under another name; may be given more than once
    #[arg(long = "map", value_name = "FROM=TO", value_parser = mapping)]
    pub map: Vec<(String, String)>,
    /// Restore into this store instead of the configured source
    #[arg(long, value_name = "URL")]
    pub to_endpoint: Option<String>,
    /// A file that holds its access key; by default it takes the source's keys
    #[arg(long, value_name = "FILE", requires_all = ["to_endpoint", "to_secret_key_file"])]
    pub to_access_key_file: Option<PathBuf>,
    /// A file that holds its secret key
    #[arg(long, value_name = "FILE", requires = "to_access_key_file")]
    pub to_secret_key_file: Option<PathBuf>,
    /// Its region; by default the source's
    #[arg(long, value_name = "REGION", requires = "to_endpoint")]
    pub to_region: Option<String>,
    /// PEM certificates to trust there besides the system's
    #[arg(long, value_name = "FILE", requires = "to_endpoint")]
    pub to_ca_file: Option<PathBuf>,
    /// Each key as of the newest version written at or before this time: an RFC 3339 time, or how
    /// long ago it was (`90m`, `2h ago`). The target's buckets must keep versions
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Restore into buckets that hold objects: what differs is overwritten, nothing is deleted
    #[arg(long)]
    pub into_non_empty: bool,
    /// Instead of objects, put back what `capture` has kept: bucket settings, and unless --bucket is
    /// given users, groups and policies; missing buckets are created
    #[arg(long, conflicts_with_all = ["map", "at", "into_non_empty", "keep_going", "prefix"])]
    pub settings: bool,
    /// With --settings, the key of a captured document instead of the newest
    #[arg(
        long,
        value_name = "KEY",
        requires = "settings",
        default_value = "latest",
        hide_default_value = true
    )]
    pub from: String,
    /// Say what would be restored, and what stands in the way; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Restore table commits although keys before them failed
    #[arg(long)]
    pub keep_going: bool,
    /// Restore into the configured source although `run` is at work on it; with --settings, overwrite
    /// settings, users and policies that are there and otherwise
    #[arg(long)]
    pub force: bool,
}

/// Restores until everything is back or it is told to stop (SIGTERM, Ctrl-C); a second signal ends it
/// at once. Either way the same command goes on.
pub async fn execute(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    if args.settings {
        return put_back(&args).await;
    }
    let scope = args.scope.load()?;
    let options = options(&args, &scope)?;
    let (stop, stopped) = (CancellationToken::new(), scope::stopped()?);
    let told = stop.clone();
    tokio::spawn(async move {
        stopped.await;
        told.cancel();
    });
    let report = Box::pin(restore(&scope.settings, &options, &stop)).await;
    print(scope.json, &report, &text(&report)?, &report.errors);
    Ok(report.ended().into())
}

fn options(args: &RestoreArgs, scope: &Scope) -> Result<RestoreOptions, UsageError> {
    let to = destination(args, &scope.settings.source)?;
    let at = match &args.at {
        None => None,
        Some(text) => {
            let at_ms = when::parse(text, clock::now_ms())
                .map_err(|why| UsageError(format!("--at: {why}")))?;
            Some((text.clone(), at_ms))
        }
    };
    Ok(RestoreOptions {
        prefix: scope.prefix.to_string(),
        map: args.map.iter().cloned().collect::<BTreeMap<_, _>>(),
        to,
        at,
        into_non_empty: args.into_non_empty,
        dry_run: args.dry_run,
        force: args.force,
        keep_going: args.keep_going,
    })
}

/// `restore --settings`: everything the document holds may be chosen, configured or not.
async fn put_back(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let of = &args.scope;
    let settings = config::load_without_intake(of.config.as_deref(), config::environment())?;
    logging::init_quietly(&settings.log)?;
    let options = PutBackOptions {
        from: Some(args.from.clone()).filter(|from| from != "latest"),
        buckets: of.bucket.clone(),
        to: destination(args, &settings.source)?,
        dry_run: args.dry_run,
        force: args.force,
    };
    super::capture::put_back(&settings, &options, of.json).await
}

/// The store to restore into, if it is not the source.
fn destination(
    args: &RestoreArgs,
    source: &StoreSettings,
) -> Result<Option<StoreSettings>, UsageError> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path)
            .map_err(|error| UsageError(format!("failed to read {}: {error}", path.display())))?;
        Ok::<_, UsageError>(SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()))
    };
    let mut to = None;
    if let Some(endpoint) = &args.to_endpoint {
        let mut store = StoreSettings { endpoint: endpoint.clone(), ..source.clone() };
        if let (Some(access), Some(secret)) = (&args.to_access_key_file, &args.to_secret_key_file) {
            (store.access_key, store.secret_key) = (Some(read(access)?), Some(read(secret)?));
            store.session_token = None;
        }
        store.region = args.to_region.clone().unwrap_or(store.region);
        store.ca_file = args.to_ca_file.clone().or(store.ca_file);
        to = Some(store);
    }
    Ok(to)
}

fn mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => {
            Ok((from.to_owned(), to.to_owned()))
        }
        _ => Err("it must be FROM=TO".to_owned()),
    }
}

/// The report for people.
fn text(report: &Report) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    if report.outcome == Outcome::Failed && report.copied + report.unchanged == 0 {
        return Ok(out);
    }
    let at = report.at.as_ref().map_or_else(String::new, |at| format!(" as of {at}"));
    let verb = if report.outcome == Outcome::Planned { "would restore" } else { "restored" };
    for bucket in &report.buckets {
        write!(out, "{} -> {}", bucket.from, bucket.to)?;
        if bucket.created {
            write!(out, " (new)")?;
        }
        if report.outcome == Outcome::Planned {
            let (files, bytes) = (bucket.table_files, size(bucket.bytes));
            writeln!(
                out,
                ": {} objects, {bytes}; {files} of them metadata of tables",
                bucket.objects
            )?;
            continue;
        }
        if !matches!(report.outcome, Outcome::Restored | Outcome::Differs) {
            writeln!(out, ": not compared yet")?;
            continue;
        }
        writeln!(
            out,
            ": {} objects, {}; missing {}, different {}, not comparable by listing {}, only there {}",
            bucket.objects,
            size(bucket.bytes),
            bucket.missing,
            bucket.different,
            bucket.unverifiable,
            bucket.extra
        )?;
        for example in &bucket.examples {
            writeln!(out, "  {example}")?;
        }
    }
    for failed in &report.failed {
        writeln!(out, "failed: {}: {}", failed.key, failed.reason)?;
    }
    for conflict in &report.conflicts {
        writeln!(out, "conflict: {conflict}")?;
    }
    writeln!(out, "{verb}{at} from {} into {}", report.from, report.to)?;
    if report.outcome != Outcome::Planned {
        let (bytes, seconds) = (size(report.bytes), report.elapsed_ms / 1_000);
        let (copied, unchanged) = (report.copied, report.unchanged);
        writeln!(out, "{copied} objects ({bytes}) copied, {unchanged} there already, {seconds} s")?;
    }
    writeln!(out, "{}", verdict(report))?;
    Ok(out)
}

fn verdict(report: &Report) -> String {
    let told = match report.outcome {
        Outcome::Restored => "verified: both sides list the same objects",
        Outcome::Planned => "nothing was changed",
        Outcome::Differs => "NOT verified: not everything is there; the same command tries again",
        Outcome::Incomplete => {
            "INCOMPLETE: keys failed, and what must come after them was not begun; \
             the same command goes on, --keep-going goes on without them"
        }
        Outcome::Failed => {
            "NOT COMPLETE: mend what the error names, and run the same command again"
        }
        Outcome::Interrupted => "stopped; the same command goes on from here",
    };
    match report.buckets.iter().map(|bucket| bucket.unverifiable).sum::<u64>() {
        0 => told.to_owned(),
        count => format!(
            "{told}; {count} objects were compared by name and size only (encrypted with KMS, or of other part sizes)"
        ),
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let mut unit = 0;
    while unit < 4 && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    let name = ["B", "KiB", "MiB", "GiB", "TiB"].get(unit).copied().unwrap_or("TiB");
    if unit == 0 { format!("{bytes} B") } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oneshot::restore::BucketReport;

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(1 << 40), "1.0 TiB");
        assert_eq!(size(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn the_last_line_tells_how_many_objects_no_listing_could_compare() {
        let last = |unverifiable: &[u64]| {
            let bucket = |&unverifiable| BucketReport { unverifiable, ..BucketReport::default() };
            let buckets = unverifiable.iter().map(bucket).collect();
            let report = Report { outcome: Outcome::Restored, buckets, ..Report::default() };
            text(&report).unwrap().lines().last().unwrap().to_owned()
        };
        assert_eq!(last(&[0, 0]), "verified: both sides list the same objects");
        let said = last(&[2, 3]);
        assert!(
            said.starts_with("verified: ") && said.contains("; 5 objects were compared by name"),
            "{said}"
        );
    }

    #[test]
    fn a_mapping_names_two_buckets() {
        assert_eq!(mapping("a=b"), Ok(("a".to_owned(), "b".to_owned())));
        assert!(mapping("a").is_err() && mapping("=b").is_err() && mapping("a=").is_err());
    }
}
