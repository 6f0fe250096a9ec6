//! `evermirror demo`: a newcomer's first minute, with nothing but this program.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Write the workload, compare both sides and exit: 0 only if they are identical
    #[arg(long)]
    pub once: bool,
    /// How many objects the workload writes
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub objects: u32,
    /// Print the result as one JSON object on stdout, and everything else on stderr
    #[arg(long, requires = "once")]
    pub json: bool,
    /// Where the two stores and the journal live
    #[arg(long, value_name = "DIR", default_value = "demo-data")]
    pub data_dir: PathBuf,
}

/// Runs the demonstration.
#[expect(clippy::unused_async, reason = "the pipeline that is awaited here is not wired yet")]
pub async fn execute(args: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the pipeline is not wired to `demo` yet (asked for {} objects)", args.objects)
}
