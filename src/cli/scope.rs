//! What the one-shot commands have in common on the command line.

use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::logging;
use crate::config;
use crate::oneshot::Scope;

/// Which configuration, which keys, and how the answer looks.
#[derive(Debug, Args)]
pub struct ScopeArgs {
    /// The TOML file of `run` (no intake is needed here); without one, everything comes from
    /// `EVERMIRROR__TABLE__KEY` variables
    #[arg(long, short, value_name = "FILE", env = "EVERMIRROR_CONFIG")]
    pub config: Option<PathBuf>,
    /// Only this source bucket; may be given several times [default: all that are configured]
    #[arg(long, value_name = "BUCKET")]
    pub bucket: Vec<String>,
    /// Only keys that start with this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub prefix: String,
    /// Print the answer as one JSON object on stdout, and everything else on stderr
    #[arg(long)]
    pub json: bool,
}

impl ScopeArgs {
    /// Loads the configuration, narrows it, and begins to log: warnings only, unless another level
    /// is configured.
    pub fn load(&self) -> anyhow::Result<Scope> {
        let settings = config::load_without_intake(self.config.as_deref(), config::environment())?;
        logging::init_quietly(&settings.log)?;
        Ok(Scope::new(settings, &self.bucket, &self.prefix, self.json)?)
    }
}

/// Resolves at the first SIGINT or SIGTERM; the second ends the process at once.
pub fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!(
            "Stopping: work in flight is finished first; a second signal ends it at once."
        );
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(1);
        });
    })
}
