//! evermirror (crate docs become ARCHITECTURE.md)
//!
//! Modules are declared in the order in which data flows.

pub mod clock;
pub mod config;
pub mod demo;
pub mod dirty;
pub mod object;
pub mod store;
