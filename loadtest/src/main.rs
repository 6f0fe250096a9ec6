//! `evermirror-loadtest`: every performance claim of evermirror, measured beside its peers.
//!
//! What is asserted, and how each figure is taken, is in this directory's README.

mod bare;
mod bench;
mod data;
mod double;
mod http;
mod kafka;
mod live;
mod peers;
mod process;
mod queue;
mod receiver;
mod report;
mod servers;
mod site;
mod stats;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

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
}

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// Only this workload; may be given several times
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) workload: Vec<Workload>,
    /// How often each subject does each workload; the order alternates
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Write the figures of every round to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A tenth of the work: to try the harness, not to quote
    #[arg(long)]
    pub(crate) quick: bool,
    /// Exit 0 even if a goal is not met
    #[arg(long)]
    pub(crate) no_assert: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Command::Compare(args) = Cli::parse().command;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Dropping the future ends every process it started.
    let report = tokio::select! {
        report = workloads::compare(&args) => report?,
        _ = terminate.recv() => anyhow::bail!("ended by SIGTERM"),
        _ = interrupt.recv() => anyhow::bail!("ended by SIGINT"),
    };
    report.print();
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json + "\n").with_context(|| path.display().to_string())?;
    }
    let passed = args.no_assert || report.goals_met();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
