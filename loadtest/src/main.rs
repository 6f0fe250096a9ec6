//! `evermirror-loadtest`: every performance claim of evermirror, measured beside its peers.
//!
//! What is asserted, and how each figure is taken, is in this directory's README.

mod against;
mod bare;
mod bench;
mod copy_double;
mod data;
mod double;
mod existing;
mod facts;
mod growth;
mod http;
mod kafka;
mod live;
mod peers;
mod plot;
mod process;
mod queue;
mod receiver;
mod report;
mod serve;
mod servers;
mod site;
mod stats;
mod subject;
mod told;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::against::Baseline;
use crate::growth::GrowthArgs;
use crate::workloads::Workload;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(about = "Measures evermirror beside its peers, on real servers, in one run")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the workloads, print a table and the goals; exit status 1 if a goal is not met
    Compare(CompareArgs),
    /// Measure cost against number of objects, pending keys and object size; write plots and points
    Growth(GrowthArgs),
}

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// Only this workload; may be given several times
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) workload: Vec<Workload>,
    /// Only this subject, to look at it on servers that did nothing else; what needs the others is not judged;
    /// may be given several times
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(subject::NAMES))]
    pub(crate) subject: Vec<String>,
    /// How often each subject does each workload; the order alternates
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Write the figures of every round to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Compare the ratios with those of a former run, which wrote this file with --json; exit status 1
    /// if one is worse by more than the rounds vary by themselves
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
    /// A tenth of the work: to try the harness, not to quote
    #[arg(long)]
    pub(crate) quick: bool,
    /// Exit 0 even if a goal is not met
    #[arg(long)]
    pub(crate) no_assert: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let command = Cli::parse().command;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Dropping the future ends every process it started.
    let passed = tokio::select! {
        passed = run(&command) => passed?,
        _ = terminate.recv() => anyhow::bail!("ended by SIGTERM"),
        _ = interrupt.recv() => anyhow::bail!("ended by SIGINT"),
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(command: &Command) -> anyhow::Result<bool> {
    match command {
        Command::Compare(args) => compare(args).await,
        Command::Growth(args) => growth::run(args).await.map(|()| true),
    }
}

/// Whether everything that was to be asserted holds.
#[expect(clippy::print_stdout, reason = "the result of the program")]
async fn compare(args: &CompareArgs) -> anyhow::Result<bool> {
    // Before the minutes of measuring: it may be refused.
    let baseline = args.against.as_deref().map(|path| Baseline::read(path, args.quick));
    let baseline = baseline.transpose()?;
    let report = workloads::compare(args).await?;
    report.print();
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json + "\n").with_context(|| path.display().to_string())?;
    }
    let mut passed = args.no_assert || report.goals_met();
    if let Some(baseline) = baseline {
        let comparison = baseline.against(&report);
        println!("\n{comparison}");
        passed &= comparison.passed();
    }
    Ok(passed)
}
