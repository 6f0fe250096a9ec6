//! `evermirror policy`: what the credentials of one side must be allowed, and no more.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::config;
use crate::policy::{self, Purpose, Side};

/// Arguments of `policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Whose credentials: the source's or the target's
    #[arg(value_name = "SIDE")]
    side: SideArg,
    /// What they are used for; may be given several times. `run` is also for sync and verify
    #[arg(long = "for", value_name = "PURPOSE", default_value = "run")]
    purposes: Vec<PurposeArg>,
    /// The TOML file of `run`; without one, everything comes from `EVERMIRROR__TABLE__KEY` variables
    #[arg(long, short, value_name = "FILE", env = "EVERMIRROR_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SideArg {
    Source,
    Target,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PurposeArg {
    Run,
    Restore,
    Setup,
    Doctor,
    Capture,
}

/// Prints the policy as JSON, which `mc admin policy create` and AWS IAM take as it is.
pub fn execute(args: &PolicyArgs) -> anyhow::Result<ExitCode> {
    let settings = config::load_without_intake(args.config.as_deref(), config::environment())?;
    let side = match args.side {
        SideArg::Source => Side::Source,
        SideArg::Target => Side::Target,
    };
    let purpose = |purpose: &PurposeArg| match purpose {
        PurposeArg::Run => Purpose::Run,
        PurposeArg::Restore => Purpose::Restore,
        PurposeArg::Setup => Purpose::Setup,
        PurposeArg::Doctor => Purpose::Doctor,
        PurposeArg::Capture => Purpose::Capture,
    };
    let purposes: Vec<_> = args.purposes.iter().map(purpose).collect();
    let document = policy::policy(&settings, side, &purposes);
    writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(&document)?)?;
    Ok(ExitCode::SUCCESS)
}
