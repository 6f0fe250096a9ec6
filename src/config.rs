//! Configuration: a TOML file, overridden by environment, validated into [`Settings`].

pub mod settings;
pub mod units;

pub use settings::Settings;
