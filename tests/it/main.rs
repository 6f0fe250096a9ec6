//! The one integration binary: the real program between real servers.
//!
//! One binary, because each would link everything again, and so that the tests can share servers.

// So that the lints know the functions that tests share as test code, too.
#![cfg(test)]

mod bad_input; // Whatever is posted to the webhook: the right answer, a count, and no harm.
mod bandwidth; // No more bytes a second and no more copies of a hot key than the settings say.
mod check_config; // `evermirror check-config`, as an operator uses it.
mod config_errors; // A configuration that cannot work ends `run` with a useful message.
mod crash; // kill -9 at random moments under load.
mod dashboards; // Alerts and dashboard ask for metrics that exist.
mod deletes_cli; // `evermirror deletes` and `reconcile` against the running process.
mod environment; // A container without a file: variables, secrets in files, buckets made by hand.
mod faults; // Stores and networks that fail.
mod full_disk; // No room for the journal: no acknowledgement, a recorded gap, and back by itself.
mod held; // The brake on deletes, and the person who decides.
mod journal_damage; // A sector of the journal is lost while evermirror is down.
mod kms; // Stores that encrypt, where equal bytes have unequal ETags.
mod large; // Objects larger than memory.
mod lies; // Duplicates, reorderings and false events.
mod main_job; // Every operation at a source arrives at the target.
mod observability; // Health, metrics and logs.
mod policies; // Archives, and deletes that wait for their time.
mod promises; // The README's guarantees, one test each.
mod reconcile; // What no event announced.
mod reconcile_engine; // Two buckets compared by their listings.
mod restore; // The way back, and the disaster drill.
mod stop; // A graceful stop.
mod support; // The servers, the proxies, the comparison.
mod support_works; // The ground the other tests stand on, checked itself.
mod sync; // `evermirror sync`, as an operator uses it.
mod tidy; // Rules about the code that no lint knows.
mod tls; // HTTPS everywhere, and client certificates at the webhook.
mod verify; // `evermirror verify`: every planted difference is found, and no other.
