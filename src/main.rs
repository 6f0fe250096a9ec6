//! The `evermirror` command.

use std::io::{self, Write as _};
use std::process::ExitCode;

use evermirror::cli::{Cli, USAGE};
use evermirror::config::ConfigError;
use evermirror::errors::{UsageError, told};

#[tokio::main]
async fn main() -> ExitCode {
    let (cli, json) = Cli::parse_and_see_json();
    match Box::pin(cli.execute()).await {
        Ok(code) => code,
        Err(error) => {
            if json {
                let object = serde_json::json!({ "errors": [told(&error)] });
                drop(writeln!(io::stdout(), "{object}"));
            }
            report(&error)
        }
    }
}

/// A configuration's problems are whole lines already; any other error is shown with its causes.
fn report(error: &anyhow::Error) -> ExitCode {
    let mut stderr = io::stderr().lock();
    let (written, code) = match error.downcast_ref::<ConfigError>() {
        Some(problems) => (writeln!(stderr, "{problems}"), ExitCode::from(USAGE)),
        None if error.is::<UsageError>() => {
            (writeln!(stderr, "error: {}", told(error)), ExitCode::from(USAGE))
        }
        None => (writeln!(stderr, "error: {}", told(error)), ExitCode::FAILURE),
    };
    // With stderr closed there is nobody left to tell but the exit status.
    drop(written);
    code
}
