#![doc = include_str!("ARCHITECTURE.md")]

pub mod dirty;
pub mod object;

pub mod event;
pub mod gaps;
pub mod intake;
pub mod journal;
pub mod reconcile;
pub mod replicate;
pub mod shelf;
pub mod store;
pub mod workqueue;

pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod kubernetes;
pub mod lease;
pub mod metrics;
pub mod oneshot;
pub mod pipeline;
pub mod policy;
pub mod restore;
pub mod serve;
pub mod setup;
pub mod snapshot;
pub mod traces;
pub mod web;
pub mod words;
