//! The one integration binary: the real program between real servers.
//!
//! One binary, because each would link everything again, and so that the tests can share servers.

// So that the lints know the functions that tests share as test code, too.
#![cfg(test)]

mod bad_input; // Whatever is posted to the webhook: the right answer, a count, and no harm.
mod bandwidth; // No more bytes a second and no more copies of a hot key than the settings say.
mod capture; // What a store holds beside objects, kept and put back.
mod check_config; // `evermirror check-config`, as an operator uses it.
mod config_errors; // A configuration that cannot work ends `run` with a useful message.
mod crash; // kill -9 at random moments under load.
mod dashboards; // Alerts and dashboard ask for metrics that exist.
mod deletes_cli; // `evermirror deletes` and `reconcile` against the running process.
mod doctor; // `evermirror doctor`: what is well is called well, and each trap by its name.
mod ends; // How `sync`, `verify` and `restore` end: status and report.
mod environment; // A container without a file: variables, secrets in files, buckets made by hand.
mod fairness; // One bucket that fails or hangs stops no other.
mod faults; // Stores and networks that fail.
mod full_disk; // No room for the journal: no acknowledgement, a recorded gap, and back by itself.
mod held; // The brake on deletes, and the person who decides.
mod journal_damage; // A sector of the journal is lost while evermirror is down.
mod kafka; // Notifications through Kafka, by one process and by several.
mod kms; // Stores that encrypt, where equal bytes have unequal ETags.
mod large; // Objects larger than memory.
mod lease; // Active and standby: one at a time, and nothing lost between them.
mod least_privilege; // The printed policies suffice; with one permission less the failure names it.
mod lies; // Duplicates, reorderings and false events.
mod listen; // Streams of events, of stores that were told nothing.
mod listings; // Listings that go wrong delete nothing.
mod main_job; // Every operation at a source arrives at the target.
mod observability; // Health, metrics and logs.
mod page; // The status page in real Chromium.
mod policies; // Archives, and deletes that wait for their time.
mod promises; // The README's guarantees, one test each.
mod reconcile; // What no event announced.
mod reconcile_asked; // A reconcile begins after a gap, and when a person asks for it.
mod reconcile_engine; // Two buckets compared by their listings.
mod restore; // The way back, and the disaster drill.
mod restore_unfinished; // A restore that is not finished: nothing is deleted at the target.
mod rustfs; // The webhook with RustFS, `setup` and `doctor`.
mod setup; // `evermirror setup`: what must change is changed, once, and nothing else.
mod snapshot; // Volume snapshots, on a real API server, with a played CSI driver.
mod sqs; // Notifications from a queue.
mod stop; // A graceful stop.
mod support; // The servers, the proxies, the comparison.
mod support_works; // The ground the other tests stand on, checked itself.
mod sync; // `evermirror sync`, as an operator uses it.
mod tidy; // Rules about the code that no lint knows.
mod tls; // HTTPS everywhere, and client certificates at the webhook.
mod traces; // The way of a key as spans, at a real OpenTelemetry collector.
mod verify; // `evermirror verify`: every planted difference is found, and no other.
