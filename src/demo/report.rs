//! What the demo says: lines for people, one JSON object for programs.
//!
//! With `--json` standard output carries the JSON object and nothing else; all other text goes to
//! standard error. A reader that goes away (`| head`) is no reason to fail.

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::compare::Comparison;
use super::ledger::{Arrival, Totals};
use super::store::{EmbeddedStore, REGION};

/// Differences shown; the rest is counted.
const SHOWN: usize = 20;

/// Where text goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    /// Standard output belongs to the JSON object.
    pub json: bool,
}

/// The end of the story, as numbers.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Objects asked for.
    pub objects: usize,
    pub totals: Totals,
    pub comparison: Comparison,
}

impl Outcome {
    /// Whether nothing at all differs.
    pub(super) fn identical(&self) -> bool {
        self.comparison.differences.is_empty()
    }
}

impl Screen {
    /// One or more lines for people.
    pub(super) fn say(self, text: &str) {
        let written = if self.json {
            writeln!(io::stderr(), "{text}")
        } else {
            writeln!(io::stdout(), "{text}")
        };
        ignore_closed(written);
    }

    /// Where the stores are and how to talk to them.
    pub(super) fn welcome(
        self,
        dir: &Path,
        source: &EmbeddedStore,
        target: &EmbeddedStore,
        bucket: &str,
    ) {
        self.say(&format!(
            "evermirror demo: two embedded S3 stores and the real pipeline between them.\n\n  \
             source  {}  bucket {bucket}\n  target  {}  bucket {bucket}\n  files   {}\n\n\
             Try it from another terminal while it runs:\n\n  {} cp README.md s3://{bucket}/\n\n  \
             {} ls --recursive s3://{bucket}/\n",
            source.endpoint,
            target.endpoint,
            dir.display(),
            aws(source),
            aws(target),
        ));
    }

    /// The head of the table.
    pub(super) fn head(self) {
        self.say("     time   events  arrived  pending    lag p50    lag p99");
    }

    /// A row of the table.
    pub(super) fn row(self, seconds: f64, totals: &Totals) {
        let Totals { events, arrived, pending, lag_p50_ms, lag_p99_ms, .. } = totals;
        self.say(&format!(
            "{seconds:>7.1} s {events:>8} {arrived:>8} {pending:>8} {lag_p50_ms:>7} ms {lag_p99_ms:>7} ms"
        ));
    }

    /// One replicated object.
    pub(super) fn arrival(self, arrival: &Arrival) {
        let what =
            arrival.bytes.map_or_else(|| "deleted".to_owned(), |bytes| format!("{bytes} bytes"));
        self.say(&format!("  {}  {what}  lag {} ms", arrival.key, arrival.lag_ms));
    }

    /// The verdict, and with `--json` the object on standard output.
    pub(super) fn verdict(self, outcome: &Outcome) {
        let Outcome { objects, totals, comparison } = outcome;
        let differences = &comparison.differences;
        if outcome.identical() {
            self.say(&format!(
                "\nIdentical: {} objects on both sides, compared by key, size, ETag, bytes, headers, \
                 user metadata and tags.",
                comparison.objects
            ));
        } else {
            self.say(&format!("\nNOT identical: {} differences.", differences.len()));
            for difference in differences.iter().take(SHOWN) {
                self.say(&format!("  {difference}"));
            }
        }
        self.say(&format!(
            "{} source events, lag p50 {} ms, p99 {} ms (the time without a pipeline included), \
             {:.0} events/s.",
            totals.events, totals.lag_p50_ms, totals.lag_p99_ms, totals.per_second
        ));
        if self.json {
            let shown: Vec<_> = differences.iter().take(SHOWN).map(ToString::to_string).collect();
            let object = json!({
                "objects": objects,
                "compared": comparison.objects,
                "identical": outcome.identical(),
                "lag_ms_p50": totals.lag_p50_ms,
                "lag_ms_p99": totals.lag_p99_ms,
                "replicated_per_s": (totals.per_second * 10.0).round() / 10.0,
                "killed": 1,
                "differences": shown,
            });
            ignore_closed(writeln!(io::stdout(), "{object}"));
        }
    }
}

/// The AWS CLI with one store's credentials, ready to paste.
fn aws(store: &EmbeddedStore) -> String {
    format!(
        "AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={} AWS_DEFAULT_REGION={REGION} \\\n    \
         aws --endpoint-url {} s3",
        store.access_key, store.secret_key, store.endpoint
    )
}

fn ignore_closed(written: io::Result<()>) {
    if let Err(error) = written {
        tracing::debug!(%error, "The demo's output could not be written.");
    }
}
