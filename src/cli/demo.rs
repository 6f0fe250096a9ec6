//! `evermirror demo`: a newcomer's first minute, with nothing but this program.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::logging;
use crate::config::settings::{LogFormat, LogSettings};
use crate::demo::{self, DemoOptions};

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Write the workload, compare both sides and exit: 0 only if they are identical
    #[arg(long)]
    pub once: bool,
    /// How many objects the workload writes
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub objects: u32,
    /// Print the result as one JSON object on stdout, and everything else on stderr
    #[arg(long, requires = "once")]
    pub json: bool,
    /// Where the two stores and the journal live [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Runs the demonstration.
pub async fn execute(args: DemoArgs) -> anyhow::Result<ExitCode> {
    // The embedded stores log each refused request as an error; the demo says what matters itself.
    let filter = "warn,s3s=off,s3s_fs=off".to_owned();
    logging::init(&LogSettings { format: LogFormat::Text, filter })?;
    let identical = demo::run(DemoOptions {
        once: args.once,
        objects: usize::try_from(args.objects)?,
        json: args.json,
        data_dir: args.data_dir,
    })
    .await?;
    Ok(if identical { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
