//! The command line: what can be asked of `evermirror`, and where the answer comes from.
//!
//! Exit status: 0 success, 1 a failure while running, 2 a wrong command line or configuration. The commands
//! that compare both sides say more by it: [`crate::oneshot::Ended`].

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub mod capture;
pub mod check_config;
pub mod deletes;
pub mod demo;
pub mod doctor;
pub mod logging;
mod paint;
pub mod policy;
pub mod reconcile;
pub mod restore;
pub mod run;
pub mod scope;
pub mod setup;
pub mod snapshot;
pub mod sync;
pub mod verify;

/// The status of a wrong command line (clap's own) and of a configuration that cannot be used.
pub const USAGE: u8 = 2;

const ABOUT: &str = "\
Keeps an external S3 target a live copy of an S3 source.

The source's bucket notifications tell evermirror which objects may have changed. It writes each one \
to a durable journal before it acknowledges it, then reads the object from the source and makes the \
target agree: usually within milliseconds, and after a crash from where it stopped.";

const EXAMPLES: &str = "\
Examples:
  evermirror demo                                  see it work; needs nothing but this program
  evermirror check-config /etc/evermirror.toml     validate, and print the settings in force
  evermirror setup --dry-run                       what the source's notifications lack
  evermirror doctor                                is all well, and what to do if not
  evermirror run --config /etc/evermirror.toml     replicate until SIGTERM
  evermirror deletes list                          which deletes wait for a person, and why
  evermirror restore --config /etc/evermirror.toml --dry-run
                                                   what would come back, and what stands in the way
  evermirror snapshot create --config /etc/evermirror.toml --dry-run
                                                   can the cluster snapshot the source's volume
  EVERMIRROR__SOURCE__ENDPOINT=http://minio:9000 … evermirror run
                                                   without a file: every key has a variable";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "evermirror", version, long_about = ABOUT, after_help = EXAMPLES)]
#[command(about = "Keeps an external S3 target a live copy of an S3 source")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replicate until told to stop (SIGTERM or Ctrl-C)
    Run(run::RunArgs),
    /// Make the target agree with the source once, and end; what `mc mirror --remove` does, with tags
    Sync(sync::SyncArgs),
    /// Compare both sides, write nothing, and end with status 1 if they differ
    Verify(verify::VerifyArgs),
    /// Bring the target's objects back into the source, or into another store
    Restore(Box<restore::RestoreArgs>),
    /// Set up notifications at the source and buckets at the target; change only what must change
    Setup(setup::SetupArgs),
    /// Check both stores and the way of an event between them, by real requests, and say what to do
    Doctor(doctor::DoctorArgs),
    /// Keep the source's bucket settings, users and policies at the target, once
    Capture(capture::CaptureArgs),
    /// Print the least that the credentials of one side must be allowed
    Policy(policy::PolicyArgs),
    /// Validate the configuration and print the settings in force, secrets hidden
    CheckConfig(check_config::CheckConfigArgs),
    /// Show, approve or discard the deletes that the running evermirror holds
    Deletes(deletes::DeletesArgs),
    /// Have the running evermirror compare both sides now, and repair what differs
    Reconcile(reconcile::ReconcileArgs),
    /// Volume snapshots of the source in Kubernetes: take, list, restore
    Snapshot(snapshot::SnapshotArgs),
    /// Show it working: two embedded stores, the real pipeline, a crash in the middle, a comparison
    Demo(demo::DemoArgs),
}

impl Cli {
    /// Reads the command line, and whether the answer is to be JSON: then a command that fails before it has
    /// one still owes one object. A wrong command line ends the process here, with words only.
    pub fn parse_and_see_json() -> (Self, bool) {
        let matches = Self::command().get_matches();
        let json = asks_for_json(&matches);
        (Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()), json)
    }

    /// Does what was asked.
    pub async fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => Box::pin(run::execute(args)).await,
            Command::Sync(args) => sync::execute(args).await,
            Command::Verify(args) => verify::execute(args).await,
            Command::Restore(args) => restore::execute(*args).await,
            Command::Setup(args) => setup::execute(args).await,
            Command::Doctor(args) => doctor::execute(args).await,
            Command::Capture(args) => capture::execute(&args).await,
            Command::Policy(args) => policy::execute(&args),
            Command::CheckConfig(args) => check_config::execute(&args),
            Command::Deletes(args) => deletes::execute(args).await,
            Command::Reconcile(args) => reconcile::execute(args).await,
            Command::Snapshot(args) => snapshot::execute(args).await,
            Command::Demo(args) => demo::execute(args).await,
        }
    }
}

/// Whether `--json` was given to the innermost subcommand.
fn asks_for_json(matches: &ArgMatches) -> bool {
    match matches.subcommand() {
        Some((_, matches)) => asks_for_json(matches),
        None => matches!(matches.try_get_one::<bool>("json"), Ok(Some(true))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_seen_wherever_a_command_takes_it() {
        let json = |line: &str| {
            let matches = Cli::command().try_get_matches_from(line.split(' ')).unwrap();
            asks_for_json(&matches)
        };
        for command in [
            "sync",
            "verify",
            "restore",
            "setup",
            "doctor",
            "capture",
            "reconcile",
            "deletes list",
            "deletes approve",
            "snapshot list",
            "snapshot create",
            "demo --once",
        ] {
            assert!(json(&format!("evermirror {command} --json")), "{command}");
            assert!(!json(&format!("evermirror {command}")), "{command}");
        }
        assert!(!json("evermirror check-config") && !json("evermirror policy source"));
        assert!(!json("evermirror sync --prefix=--json"));
    }
}
