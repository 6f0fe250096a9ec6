//! evermirror (crate docs become ARCHITECTURE.md)
//!
//! Modules are declared in the order in which data flows.

pub mod clock;
pub mod config;
pub mod dirty;
pub mod event;
pub mod gaps;
pub mod intake;
pub mod journal;
pub mod metrics;
pub mod object;
pub mod serve;
pub mod store;
pub mod web;
