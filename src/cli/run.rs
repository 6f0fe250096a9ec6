//! `evermirror run`: the service.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::logging;
use crate::config;
use crate::config::Settings;
use crate::config::settings::LeaseSettings;
use crate::lease::{Elector, Term};
use crate::pipeline::Pipeline;
use crate::traces;
use crate::web::Standby;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The TOML file; without one, everything comes from `EVERMIRROR__TABLE__KEY` variables, which
    /// override the file too
    #[arg(long, short, value_name = "FILE", env = "EVERMIRROR_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Replicates until the process is told to stop (SIGTERM, SIGINT); a second signal ends it at once.
pub async fn execute(args: RunArgs) -> anyhow::Result<ExitCode> {
    let settings = config::load(args.config.as_deref(), config::environment())?;
    logging::init(&settings.log)?;
    let traces = traces::start()?;
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (term, pipeline) = tokio::select! {
        started = start(settings) => started?,
        // Nothing was taken yet, so nothing has to be finished.
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        webhook = pipeline.webhook_address().map(tracing::field::display),
        web = %pipeline.web_address(),
        "Evermirror is running."
    );
    tokio::select! {
        reason = pipeline.broken() => {
            tracing::error!(reason, "A stage cannot go on. Nothing more is acknowledged; the next start recovers.");
            return Ok(ExitCode::FAILURE);
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("Stopping: work in flight is finished first; a second signal ends it at once.");
    tokio::select! {
        drained = pipeline.stop() => {
            if let Some(term) = term.filter(|_| drained) {
                term.release().await;
            }
            if drained {
                tracing::info!("Stopped. What is pending is in the journal.");
            } else {
                tracing::warn!("Stopped with work in flight cut off; it is in the journal and is done after the next start.");
            }
            if let Some(traces) = traces {
                traces.finish().await;
            }
            Ok(ExitCode::SUCCESS)
        }
        _ = terminate.recv() => Ok(ExitCode::FAILURE),
        _ = interrupt.recv() => Ok(ExitCode::FAILURE),
    }
}

/// Starts at once, or when the lease is this process's.
async fn start(settings: Settings) -> anyhow::Result<(Option<Term>, Pipeline)> {
    let term = match &settings.lease {
        Some(lease) => Some(stand_by(&settings, lease).await?),
        None => None,
    };
    let pipeline = Pipeline::start(settings, term.as_ref()).await?;
    if let Some(term) = &term {
        term.serving();
    }
    Ok((term, pipeline))
}

async fn stand_by(settings: &Settings, lease: &LeaseSettings) -> anyhow::Result<Term> {
    let elector = Elector::connect(lease).await?;
    let (tell, state) = watch::channel("it has not seen the lease yet".to_owned());
    let standby = Standby::open(settings.web.listen, state).await?;
    let term = elector.stand_by(&tell).await;
    term.watch().context("failed to start the thread that watches the lease")?;
    standby.close().await;
    Ok(term)
}
