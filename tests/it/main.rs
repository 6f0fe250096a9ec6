//! The one integration binary.

// Under `cfg(test)` so that the lints know helper functions as test code, too.
#[cfg(test)]
mod check_config;
