//! The `evermirror` command.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use evermirror::cli::{Cli, USAGE, UsageError};
use evermirror::config::ConfigError;

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(Cli::parse().execute()).await {
        Ok(code) => code,
        Err(error) => report(&error),
    }
}

/// A configuration's problems are whole lines already; any other error is shown with its causes.
fn report(error: &anyhow::Error) -> ExitCode {
    let mut stderr = io::stderr().lock();
    let (written, code) = match error.downcast_ref::<ConfigError>() {
        Some(problems) => (writeln!(stderr, "{problems}"), ExitCode::from(USAGE)),
        None if error.is::<UsageError>() => {
            (writeln!(stderr, "error: {error:#}"), ExitCode::from(USAGE))
        }
        None => (writeln!(stderr, "error: {error:#}"), ExitCode::FAILURE),
    };
    // With stderr closed there is nobody left to tell but the exit status.
    drop(written);
    code
}
