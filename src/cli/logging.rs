//! Log lines go to stderr, so that stdout belongs to the command's answer.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::settings::{LogFormat, LogSettings};
use crate::oneshot::progress::Stderr;

/// Installs the subscriber, once per process. `RUST_LOG`, if set, replaces the configured filter.
pub fn init(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(&filter).map_err(|error| {
            anyhow::anyhow!("RUST_LOG=\"{filter}\" is not a log filter: {error}")
        })?,
        _ => EnvFilter::try_new(&settings.filter)?,
    };
    let lines = fmt().with_env_filter(filter).with_writer(|| Stderr);
    match settings.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).compact().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("failed to install the log subscriber: {error}"))
}

/// As [`init`], for a command that answers by itself: warnings only, unless another level is configured.
pub fn init_quietly(settings: &LogSettings) -> anyhow::Result<()> {
    let mut settings = settings.clone();
    if settings.filter == LogSettings::default().filter {
        "warn".clone_into(&mut settings.filter);
    }
    init(&settings)
}
