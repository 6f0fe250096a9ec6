//! May it be deleted at the target? The brake, and the deletes that wait: for a person, or for their time.
//!
//! Pure: `may_go` is the rule for one key, `brake` counts, `verdict` judges what a pass found. `gate` looks at
//! the source for a batch of confirmed deletes and asks the brake; `held` is the brake with the deletes that
//! wait for a person, and `decision` what that person decides. On disk: `delayed`, `discarded`,
//! `book`, by the clock of `steady`; `decided` is what a command that ends reads of a `run` beside it.
//!
//! **Promise.** Nothing is deleted at the target unless the source has answered 404 for that very key, its bucket is
//! there and lists something, and neither the policy, the brake nor a person's decision keeps it; for every
//! origin alike. In doubt it stays.

mod book;
mod brake;
pub(crate) mod decided;
mod decision;
mod delayed;
mod discarded;
pub(crate) mod extras;
mod gate;
mod held;
mod known;
mod may_go;
mod steady;
mod under_way;
pub(crate) mod verdict;

pub use book::BrakeBook;
pub(crate) use brake::Admission;
pub use decision::{Deciding, Decision, DecisionError};
pub(crate) use delayed::written_since;
pub use delayed::{DelayedDeletes, Delays};
pub use discarded::Discards;
pub(crate) use gate::{Confirmed, Gate};
pub use held::{Aside, HeldDeletes, HeldShelf, Hold};
pub(crate) use may_go::{Case, Step, may_go};
pub use steady::SteadyClock;
