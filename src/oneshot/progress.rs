//! How far a command is: a bar on a terminal, a plain line every few seconds elsewhere.
//!
//! Both go to standard error, and so do log lines, which [`Stderr`] writes above the bar. A reader that is
//! gone is no reason to fail.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::clock;

const REDRAW: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(10);

/// The bar that is on the terminal now.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn bar() -> MutexGuard<'static, Option<ProgressBar>> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes lines that must not run into a bar on the same terminal.
pub(super) fn above_the_bar<T>(write: impl FnOnce() -> T) -> T {
    match &*bar() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Standard error, for lines that must not run into a bar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        above_the_bar(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// How far it is, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// What is being done, and how far the part of it that is not counted in objects is.
    pub step: String,
    /// Objects dealt with.
    pub done: u64,
    /// Objects to be dealt with, as far as is known.
    pub total: u64,
    /// Their bytes that were read.
    pub bytes: u64,
    /// Keys that failed when they were last tried.
    pub failing: u64,
    /// More may be found: no end can be foretold.
    pub searching: bool,
}

/// Shows samples until it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    _task: AbortOnDropHandle<()>,
}

impl Progress {
    /// Begins to show what `sample` gives.
    pub(crate) fn show(sample: impl Fn() -> Sample + Send + 'static) -> Self {
        let shown = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} [{bar:12}] {wide_msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style.progress_chars("=> "))
        });
        bar().clone_from(&shown);
        let task = tokio::spawn(async move {
            let begin = Instant::now();
            let every = if shown.is_some() { REDRAW } else { LINE };
            let mut ticks = tokio::time::interval_at(begin + every, every);
            loop {
                ticks.tick().await;
                let sample = sample();
                let text = describe(&sample, begin.elapsed());
                if let Some(bar) = &shown {
                    bar.set_length(sample.total);
                    bar.set_position(sample.done);
                    bar.set_message(text);
                    bar.tick();
                } else {
                    drop(writeln!(io::stderr(), "{text}"));
                }
            }
        });
        Self { _task: AbortOnDropHandle::new(task) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = bar().take() {
            bar.finish_and_clear();
        }
    }
}

/// Objects, bytes, rates, and when it will end if it goes on like this.
fn describe(sample: &Sample, elapsed: Duration) -> String {
    let Sample { step, done, total, bytes, failing, searching } = sample;
    let (done, total, bytes) = (*done, *total, *bytes);
    let more = if *searching { "+" } else { "" };
    let ms = clock::millis(elapsed).max(1);
    let per_second = |n: u64| n.saturating_mul(1_000) / ms;
    let mut text = format!(
        "{}/{}{more} objects, {}, {}/s, {}/s",
        HumanCount(done),
        HumanCount(total),
        HumanBytes(bytes),
        HumanCount(per_second(done)),
        HumanBytes(per_second(bytes)),
    );
    if !searching && done > 0 && total > done {
        let left = Duration::from_millis((total - done).saturating_mul(ms) / done);
        text = format!("{text}, {:#} left", HumanDuration(left));
    }
    if *failing > 0 {
        text = format!("{text}, {} failing", HumanCount(*failing));
    }
    // Last, since a narrow terminal cuts the end.
    format!("{text}; {step}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_objects_bytes_rates_and_the_end() {
        let step = "5,000 compared".to_owned();
        let mut sample =
            Sample { step, done: 500, total: 2_000, bytes: 10 << 20, ..Sample::default() };
        assert_eq!(
            describe(&sample, Duration::from_secs(10)),
            "500/2,000 objects, 10.00 MiB, 50/s, 1.00 MiB/s, 30s left; 5,000 compared"
        );
        sample.failing = 3;
        assert!(describe(&sample, Duration::from_secs(10)).contains("30s left, 3 failing;"));
    }

    #[test]
    fn while_more_may_be_found_no_end_is_foretold() {
        let sample = Sample { done: 5, total: 9, searching: true, ..Sample::default() };
        let line = describe(&sample, Duration::from_secs(1));
        assert!(line.contains("5/9+") && !line.contains("left"), "{line}");
        assert!(describe(&Sample::default(), Duration::ZERO).contains("0/0 objects"));
    }
}
