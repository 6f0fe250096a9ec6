#![doc = include_str!("ARCHITECTURE.md")]

// What is spoken of everywhere.
pub mod dirty;
pub mod event;
pub mod object;

// The path of a change, from its notification to the target.
pub mod gaps;
pub mod intake;
pub mod journal;
pub mod reconcile;
pub mod replicate;
pub mod shelf;
pub mod workqueue;

// May it be deleted at the target?
pub mod deletes;
pub mod remembered;

// The two stores.
pub mod store;
pub mod stores;

// `run`, which joins all of this, and who may run.
pub mod fence;
pub mod lease;
pub mod pipeline;
pub mod state;

// Commands that end.
pub mod capture;
pub mod demo;
pub mod doctor;
pub mod oneshot;
pub mod policy;
pub mod setup;
pub mod snapshot;

// Around it: what is configured, asked and shown.
pub mod cli;
pub mod clock;
pub mod config;
mod data_dir;
pub mod errors;
pub mod kubernetes;
pub mod metrics;
mod retry;
pub mod serve;
pub mod traces;
pub mod web;
