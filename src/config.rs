//! Configuration: a TOML file, overridden by environment, validated into [`Settings`].
//!
//! Promised: a key that does not exist, or a value that cannot be meant, is refused with its place
//! and the nearest right name, never ignored; a secret is never shown, neither in a message nor by
//! `Debug` nor in a quoted line. On error nothing is half loaded. Reading happens once, at start;
//! nothing is written.
//!
//! `schema` lists the keys, `document` and `env` read them into a `draft`, `files` reads secrets,
//! `validate` judges the whole, `show` prints it, `problem` words what is wrong, `spelling` guesses what was meant.

mod document;
mod draft;
mod env;
mod files;
mod kind;
mod load;
mod problem;
mod schema;
pub mod settings;
mod show;
mod spelling;
#[cfg(test)]
mod tests;
pub mod units;
mod validate;

pub use env::environment;
pub use load::{Loaded, load, load_with_origins, load_without_intake};
pub use problem::ConfigError;
pub use settings::Settings;
pub use show::show;
