//! Finding what no event announced: both listings, side by side, in key order.
//!
//! [`pass::run`] is the common core of `reconcile`, `sync` and `verify`. It writes nothing: it gives
//! differences to its caller, who decides. Memory does not grow with the buckets: a range of keys
//! holds two pages of each side.
//!
//! On an error the pass ends; the ranges that it finished stay finished, and a later pass goes on
//! from there. Dropping a pass ends its requests. Nothing here outlives a crash but what the caller
//! kept: the finished ranges and the split points.

mod board;
pub mod list;
pub mod merge;
pub mod pass;
pub mod ranges;
pub mod rate;
mod split;
