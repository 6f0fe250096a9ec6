//! Finding what no event announced: both listings, side by side, in key order.
//!
//! [`pass::run`] is the common core of `reconcile`, `sync` and `verify`. It writes nothing: it gives
//! differences to its caller, who decides. Memory does not grow with the buckets: a range of keys
//! holds two pages of each side.
//!
//! [`Reconciler`] runs passes inside `run` and marks what they find, through the journal.
//!
//! On an error the pass ends; the ranges that it finished stay finished, and a later pass goes on
//! from there. Dropping a pass ends its requests. Nothing here outlives a crash but what the caller
//! kept: the finished ranges and the split points.

mod board;
mod checkpoint;
pub mod list;
pub mod merge;
pub mod pass;
mod progress;
pub mod ranges;
pub mod rate;
mod reconciler;
mod repairs;
mod schedule;
mod split;
mod walk;

pub use progress::{BucketProgress, Drift};
pub use reconciler::{Parts, Reconciler, UnknownBucket};
pub use schedule::Trigger;
