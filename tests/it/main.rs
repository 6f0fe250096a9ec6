//! The one integration binary: the real program between real servers.
//!
//! One binary, because each would link everything again, and so that the tests can share servers.

// So that the lints know the functions that tests share as test code, too.
#![cfg(test)]

mod bad_input; // Whatever is posted to the webhook: the right answer, a count, and no harm.
mod check_config; // `evermirror check-config`, as an operator uses it.
mod config_errors; // A configuration that cannot work ends `run` with a useful message.
mod crash; // kill -9 at random moments under load.
mod faults; // Stores and networks that fail.
mod large; // Objects larger than memory.
mod lies; // Duplicates, reorderings and false events.
mod main_job; // Every operation at a source arrives at the target.
mod observability; // Health, metrics and logs.
mod promises; // The README's guarantees, one test each.
mod stop; // A graceful stop.
mod support; // The servers, the proxies, the comparison.
mod support_works; // The ground the other tests stand on, checked itself.
mod tidy; // Rules about the code that no lint knows.
