//! May it be deleted at the target? The brake, and the deletes that wait: for a person, or for their time.
//!
//! [`held`] is the door: a worker that has a confirmed delete asks it, and what a person decides arrives
//! there. [`brake`] and [`verdict`] decide and are pure; [`delayed`] and [`discarded`] are state on disk;
//! [`decided`] is what a command that ends reads of a `run` beside it.

mod brake;
pub(crate) mod decided;
mod delayed;
mod discarded;
pub(crate) mod extras;
mod held;
mod known;
pub(crate) mod verdict;

pub(crate) use brake::Verdict;
pub(crate) use delayed::written_since;
pub use delayed::{DelayedDeletes, Delays};
pub use discarded::Discards;
pub use held::{Decision, DecisionError, HeldDeletes, HeldShelf, Hold};
