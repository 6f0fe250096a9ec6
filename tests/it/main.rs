//! The one integration binary: the real program between real servers.
//!
//! One binary, because each would link everything again, and so that the tests can share servers.

mod support;
mod support_works; // The servers, the proxies and the comparison do what the tests rely on.
