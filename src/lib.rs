//! evermirror (crate docs become ARCHITECTURE.md)
//!
//! Modules are declared in the order in which data flows.

pub mod dirty;
pub mod object;

pub mod gaps;
pub mod journal;
pub mod replicate;
pub mod shelf;
pub mod store;
pub mod workqueue;

pub mod clock;
pub mod config;
pub mod metrics;
