//! What `verify` has found: counted, the first ones kept to be shown, all of them in the report file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::check::{KEPT, KINDS, Mismatch};
use crate::errors::told;
use crate::oneshot::{Ended, report};
use crate::reconcile::pass::PassReport;

/// So many differences are shown; the report file has all of them.
const SHOWN: usize = 50;

/// The answer of `verify`.
#[derive(Debug, Serialize)]
struct VerifyReport {
    /// Both sides were compared to the end.
    complete: bool,
    /// It was stopped before that.
    interrupted: bool,
    /// Buckets that it did not compare to their end, and where to go on.
    unfinished: Vec<Unfinished>,
    /// Keys up to this one, and it, were left out.
    start_after: Option<String>,
    /// What kept it from the end.
    errors: Vec<String>,
    /// Keys compared.
    compared: u64,
    /// Objects at the source, their bytes, and objects at the target.
    source_objects: u64,
    source_bytes: u64,
    target_objects: u64,
    /// Keys whose source object is newer than its copy, though the content is the same. Each was looked
    /// at, and differs only if it is counted below.
    newer: u64,
    /// Differences.
    differences: u64,
    /// The same by kind.
    by_kind: BTreeMap<&'static str, u64>,
    /// Objects that only the target has and that are to stay there: no differences.
    kept: u64,
    /// The first differences.
    first: Vec<Mismatch>,
    /// How long it took, in seconds.
    elapsed_s: f64,
}

/// A bucket that was not compared to its end.
#[derive(Debug, Serialize)]
pub(super) struct Unfinished {
    /// The source bucket.
    pub bucket: String,
    /// Every key up to this one was looked at; none can be named if there is none.
    pub start_after: Option<String>,
}

/// Takes differences as they are found.
#[derive(Debug)]
pub(super) struct Recorder {
    report: VerifyReport,
    file: Option<(PathBuf, BufWriter<File>)>,
    /// The first failure to write the file.
    unwritten: Option<std::io::Error>,
}

impl Recorder {
    /// Nothing was found yet; keys up to `start_after` are left out.
    pub(super) fn new(start_after: Option<String>) -> Self {
        let report = VerifyReport {
            complete: true,
            interrupted: false,
            unfinished: Vec::new(),
            start_after,
            errors: Vec::new(),
            compared: 0,
            source_objects: 0,
            source_bytes: 0,
            target_objects: 0,
            newer: 0,
            differences: 0,
            by_kind: KINDS.into_iter().map(|kind| (kind, 0)).collect(),
            kept: 0,
            first: Vec::new(),
            elapsed_s: 0.0,
        };
        Self { report, file: None, unwritten: None }
    }

    /// Begins a report file; an older one is replaced.
    pub(super) fn create_file(&mut self, path: &Path) -> anyhow::Result<()> {
        let file = File::create(path)
            .with_context(|| format!("failed to create the report {}", path.display()))?;
        self.file = Some((path.to_owned(), BufWriter::new(file)));
        Ok(())
    }

    /// Takes one difference, or an object that is kept.
    pub(super) fn record(&mut self, found: Mismatch) {
        if let Some((_, file)) = &mut self.file {
            let written = serde_json::to_writer(&mut *file, &found)
                .map_err(std::io::Error::from)
                .and_then(|()| file.write_all(b"\n"));
            self.unwritten = self.unwritten.take().or(written.err());
        }
        if found.finding == KEPT {
            self.report.kept += 1;
            return;
        }
        self.report.differences += 1;
        *self.report.by_kind.entry(found.finding).or_default() += 1;
        if self.report.first.len() < SHOWN {
            self.report.first.push(found);
        }
    }

    /// A bucket's listings were compared to their end.
    pub(super) fn compared(&mut self, pass: &PassReport) {
        self.report.source_objects += pass.source_objects;
        self.report.source_bytes += pass.source_bytes;
        self.report.target_objects += pass.target_objects;
        self.report.newer += pass.newer;
    }

    /// Something could not be compared to its end.
    pub(super) fn incomplete(&mut self, error: &anyhow::Error) {
        self.report.complete = false;
        self.report.errors.push(told(error));
    }

    /// It was told to stop.
    pub(super) const fn interrupted(&mut self) {
        (self.report.complete, self.report.interrupted) = (false, true);
    }

    /// These buckets were not compared to their end.
    pub(super) fn unfinished(&mut self, unfinished: Vec<Unfinished>) {
        self.report.unfinished = unfinished;
    }

    /// Prints the answer. A report file that cannot be written is an error.
    pub(super) fn finish(mut self, compared: u64, elapsed: Duration, json: bool) -> Ended {
        self.report.compared = compared;
        self.report.elapsed_s = elapsed.as_secs_f64();
        if let Some((path, mut file)) = self.file {
            let written = self.unwritten.map_or_else(|| file.flush(), Err);
            if let Err(error) = written {
                let path = path.display();
                self.report.errors.push(format!("failed to write the report {path}: {error}"));
            }
        }
        let VerifyReport { errors, differences, interrupted, .. } = &self.report;
        let ended = Ended::of(errors, *differences == 0 && !interrupted);
        report::print(json, &self.report, &self.report.text(), errors);
        ended
    }
}

impl VerifyReport {
    fn text(&self) -> String {
        if !self.errors.is_empty() && self.compared == 0 {
            return String::new();
        }
        let mut lines = Vec::new();
        for found in &self.first {
            let key = format!("{}/{}", found.bucket, found.key);
            let detail = found.detail.iter().map(|detail| format!(": {detail}"));
            let detail: String = detail.collect();
            lines.push(format!("{} {}{detail}", found.finding, key.escape_debug()));
        }
        let more = self.differences - self.first.len() as u64;
        if more > 0 {
            lines.push(format!("and {} more; --report FILE has all of them", HumanCount(more)));
        }
        lines.push(format!(
            "{} keys compared ({} at the source, {}; {} at the target): {} difference{}, in {:.1} s",
            HumanCount(self.compared),
            HumanCount(self.source_objects),
            HumanBytes(self.source_bytes),
            HumanCount(self.target_objects),
            HumanCount(self.differences),
            if self.differences == 1 { "" } else { "s" },
            self.elapsed_s,
        ));
        if self.kept > 0 {
            lines.push(format!(
                "{} more are only at the target and stay there: their bucket keeps or delays deletes, or a \
                 person discarded theirs",
                HumanCount(self.kept)
            ));
        }
        let of = |kind| self.by_kind.get(kind).copied().unwrap_or_default();
        if of("metadata") + of("tags") > 0 {
            lines.push("headers and tags are mended by `evermirror sync --metadata`".to_owned());
        }
        if !self.complete {
            let why = if self.interrupted { "INTERRUPTED" } else { "NOT COMPLETE" };
            lines.push(format!("{why}: there may be more differences"));
        }
        if let Some(key) = &self.start_after {
            lines.push(format!("keys up to {key:?} were left out (--start-after)"));
        }
        for Unfinished { bucket, start_after } in &self.unfinished {
            lines.push(match start_after {
                Some(key) => format!(
                    "bucket {bucket}: every key up to {key:?} was compared; go on with --bucket {bucket} \
                     --start-after {}",
                    quoted(key)
                ),
                None => format!("bucket {bucket}: go on with --bucket {bucket}, from its beginning"),
            });
        }
        lines.join("\n")
    }
}

/// The key as one word of a shell's command line.
fn quoted(key: &str) -> String {
    if key.chars().any(char::is_control) {
        let escape = |char: char| match char {
            '\'' | '\\' => format!("\\{char}"),
            _ if char.is_ascii_control() => format!("\\x{:02x}", u32::from(char)),
            _ if char.is_control() => format!("\\u{:04x}", u32::from(char)),
            _ => char.to_string(),
        };
        return format!("$'{}'", key.chars().map(escape).collect::<String>());
    }
    format!("'{}'", key.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mismatch(number: usize) -> Mismatch {
        Mismatch {
            bucket: "b".into(),
            key: format!("key\n{number}"),
            finding: "missing",
            detail: None,
            source: None,
            target: None,
        }
    }

    #[test]
    fn every_difference_is_a_line_of_the_file_and_the_first_ones_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        let mut recorder = Recorder::new(None);
        recorder.create_file(&path).unwrap();
        (0..SHOWN + 3).for_each(|number| recorder.record(mismatch(number)));
        let text = recorder.report.text();
        assert!(text.contains("missing b/key\\n0\n") && text.contains("and 3 more"), "{text}");
        assert_eq!(recorder.finish(60, Duration::ZERO, false), Ended::Differs);
        let file = std::fs::read_to_string(path).unwrap();
        assert_eq!(file.lines().count(), SHOWN + 3);
        let line: serde_json::Value = serde_json::from_str(file.lines().next().unwrap()).unwrap();
        assert_eq!((&line["finding"], &line["key"]), (&"missing".into(), &"key\n0".into()));
    }

    #[test]
    fn what_is_kept_is_counted_and_written_down_and_no_difference() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        let mut recorder = Recorder::new(None);
        recorder.create_file(&path).unwrap();
        recorder.record(Mismatch { finding: KEPT, ..mismatch(1) });
        let text = recorder.report.text();
        assert!(text.contains("0 differences") && text.contains("1 more are only at"), "{text}");
        assert_eq!(recorder.finish(60, Duration::ZERO, false), Ended::Agrees);
        assert!(std::fs::read_to_string(path).unwrap().contains(r#""finding":"kept""#));
    }

    #[test]
    fn what_no_listing_shows_comes_with_the_command_that_mends_it() {
        let mut recorder = Recorder::new(None);
        recorder.record(mismatch(1));
        assert!(!recorder.report.text().contains("sync --metadata"), "a sync finds that by itself");
        recorder.record(Mismatch { finding: "tags", ..mismatch(2) });
        let text = recorder.report.text();
        assert!(text.contains("2 differences") && text.contains("sync --metadata"), "{text}");
    }

    #[test]
    fn an_incomplete_comparison_is_no_agreement() {
        let finish = |recorder: Recorder| recorder.finish(1, Duration::ZERO, false);
        assert_eq!(finish(Recorder::new(None)), Ended::Agrees);
        let mut recorder = Recorder::new(None);
        recorder.interrupted();
        assert_eq!(finish(recorder), Ended::Differs);
        let mut recorder = Recorder::new(None);
        recorder.record(mismatch(1));
        recorder.incomplete(&anyhow::anyhow!("the listing failed"));
        assert_eq!(finish(recorder), Ended::Failed);
    }

    #[test]
    fn where_to_go_on_is_told_as_options_that_can_be_pasted_into_a_shell() {
        let mut recorder = Recorder::new(Some("a".to_owned()));
        recorder.interrupted();
        let place = |key: Option<&str>| Unfinished {
            bucket: "b".to_owned(),
            start_after: key.map(str::to_owned),
        };
        recorder.unfinished(vec![place(Some("it's $x")), place(Some("a\nb'\\")), place(None)]);
        let text = recorder.report.text();
        for told in [
            "up to \"a\" were left out",
            r"--bucket b --start-after 'it'\''s $x'",
            r"--start-after $'a\x0ab\'\\'",
            "go on with --bucket b, from its beginning",
        ] {
            assert!(text.contains(told), "{told}: {text}");
        }
    }
}
