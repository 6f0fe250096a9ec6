//! The pair of stores: how both are connected, prepared, and asked while a person waits.
//!
//! Nothing here outlives a request: on cancellation or a crash there is nothing to clean up.

mod patience;
mod prepare;

pub use patience::Unusable;
pub(crate) use patience::patiently;
pub(crate) use prepare::{ensure_target, prepare};

use crate::config::Settings;
use crate::store::{Side, Store};

/// The stores a replicator works between.
#[derive(Debug, Clone)]
pub struct Stores {
    /// The store that is protected.
    pub source: Store,
    /// The store that holds the live copy.
    pub target: Store,
}

/// Clients of both stores, which are not asked anything yet.
pub(crate) async fn connect(settings: &Settings) -> anyhow::Result<Stores> {
    let timeout = settings.replicate.request_timeout;
    let refused = |table: &str, error: &dyn std::fmt::Display| {
        anyhow::anyhow!("the client of the {table} cannot be built from [{table}]: {error}")
    };
    Ok(Stores {
        source: Store::connect(Side::Source, &settings.source, timeout)
            .await
            .map_err(|error| refused("source", &error))?,
        target: Store::connect(Side::Target, &settings.target.store(), timeout)
            .await
            .map_err(|error| refused("target", &error))?,
    })
}
