//! The one integration binary: the real program between real servers.
//!
//! One binary, because each would link everything again, and so that the tests can share servers.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test fails by panicking, in the functions that tests share too"
)]

mod bad_input; // Whatever is posted to the webhook: the right answer, a count, and no harm.
mod config_errors; // A configuration that cannot work ends the program with a useful message.
mod crash; // kill -9 at random moments under load.
mod faults; // Stores and networks that fail.
mod large; // Objects larger than memory.
mod lies; // Duplicates, reorderings and false events.
mod main_job; // Every operation at a source arrives at the target.
mod promises; // The README's guarantees, one test each.
mod stop; // A graceful stop.
mod support; // The servers, the proxies, the comparison.
mod support_works; // The ground the other tests stand on, checked itself.
mod tidy; // Rules about the code that no lint knows.
