//! `compare --against`: what became of each ratio since a former run.
//!
//! Times of two runs are not comparable, ratios within a run are. Whether one has moved is judged by how
//! much it moved from round to round within each run: [`judge`] is the rule, and it is pure.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::facts::Facts;
use crate::report::{Direction, FORMAT, Report, VERSION};
use crate::stats::Summary;

/// Fewer say nothing about how much a ratio varies by itself.
const FEWEST_ROUNDS: usize = 3;
/// The least tolerance, as a factor: three rounds that happen to agree do not make a ratio exact.
const LEAST_TOLERANCE: f64 = 1.05;

/// What a former run wrote with `--json`: the part of it that is compared.
#[derive(Debug, Deserialize)]
pub(crate) struct Baseline {
    facts: Facts,
    ratios: Vec<FormerRatio>,
}

#[derive(Debug, Deserialize)]
struct FormerRatio {
    name: String,
    /// What is not a number, as after a division by zero, is written as null.
    rounds: Vec<Option<f64>>,
}

/// What became of a ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    /// Two medians, and the factor by which they may differ.
    Compared { word: Word, then: f64, now: f64, tolerance: f64 },
    /// A run has too few rounds, or a value that is no ratio.
    Undecided(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Better,
    Same,
    Worse,
}

/// Every ratio of two runs.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// Why they may differ though the code does not.
    warnings: Vec<String>,
    verdicts: Vec<(String, Verdict)>,
    /// In one of the runs only.
    alone: Vec<(String, &'static str)>,
}

impl Baseline {
    /// Reads it, and refuses it where it cannot be compared with a run that is `quick` or not: before
    /// that run begins.
    pub(crate) fn read(path: &Path, quick: bool) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("failed to read {}", path.display()))?;
        Self::parse(&text, quick).with_context(|| format!("{} is no baseline", path.display()))
    }

    fn parse(text: &str, quick: bool) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            bail!("it does not say \"format\": \"{FORMAT}\", as what `compare --json` writes does");
        }
        let version = value.get("version").and_then(Value::as_u64);
        if version != Some(VERSION.into()) {
            let version = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
            bail!(
                "its shape has version {version}, and this program knows {VERSION}: make a new one, or \
                 compare with the program that wrote it"
            );
        }
        let baseline: Self = serde_json::from_value(value)?;
        let work = |quick| if quick { "a tenth of the work" } else { "all of the work" };
        if baseline.facts.quick != quick {
            bail!("it did {}, and this run does {}", work(!quick), work(quick));
        }
        Ok(baseline)
    }

    /// What became of each ratio.
    pub(crate) fn against(&self, report: &Report) -> Comparison {
        let (mut verdicts, mut alone) = (Vec::new(), Vec::new());
        for ratio in &report.ratios {
            let Some(former) = self.ratios.iter().find(|former| former.name == ratio.name) else {
                alone.push((ratio.name.clone(), "not in the baseline"));
                continue;
            };
            let then: Vec<_> =
                former.rounds.iter().map(|round| round.unwrap_or(f64::NAN)).collect();
            verdicts.push((ratio.name.clone(), judge(ratio.better, &then, &ratio.rounds)));
        }
        let now: BTreeSet<_> = report.ratios.iter().map(|ratio| &ratio.name).collect();
        let gone = self.ratios.iter().filter(|former| !now.contains(&former.name));
        alone.extend(gone.map(|former| (former.name.clone(), "not measured now")));
        Comparison { warnings: self.facts.differences(&report.facts), verdicts, alone }
    }
}

/// The rule. A ratio has moved if the medians of the two runs differ by a larger factor than the largest
/// and the smallest round of either run do, and by more than 1.05. With fewer than three rounds in a
/// run, nothing is known of how much it varies by itself, and nothing is said.
fn judge(better: Direction, then: &[f64], now: &[f64]) -> Verdict {
    if then.len() < FEWEST_ROUNDS || now.len() < FEWEST_ROUNDS {
        return Verdict::Undecided("fewer than three rounds");
    }
    if !then.iter().chain(now).all(|ratio| ratio.is_finite() && *ratio > 0.0) {
        return Verdict::Undecided("a round gave no ratio");
    }
    let [before, after] = [then, now].map(Summary::of);
    let spread = |summary: Summary| summary.max / summary.min;
    let tolerance = spread(before).max(spread(after)).max(LEAST_TOLERANCE);
    let rise = after.median / before.median;
    let worsening = if better == Direction::Lower { rise } else { rise.recip() };
    let word = if worsening > tolerance {
        Word::Worse
    } else if worsening < tolerance.recip() {
        Word::Better
    } else {
        Word::Same
    };
    Verdict::Compared { word, then: before.median, now: after.median, tolerance }
}

impl Comparison {
    /// Whether something could be compared, and nothing of it is worse.
    pub(crate) fn passed(&self) -> bool {
        self.words().next().is_some() && self.words().all(|word| word != Word::Worse)
    }

    fn words(&self) -> impl Iterator<Item = Word> {
        self.verdicts.iter().filter_map(|(_, verdict)| match verdict {
            Verdict::Compared { word, .. } => Some(*word),
            Verdict::Undecided(_) => None,
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Against the baseline:")?;
        for warning in &self.warnings {
            writeln!(f, "WARNING  {warning}")?;
        }
        for (name, verdict) in &self.verdicts {
            match verdict {
                Verdict::Compared { word, then, now, tolerance } => {
                    let word = match word {
                        Word::Better => "better",
                        Word::Same => "same  ",
                        Word::Worse => "WORSE ",
                    };
                    let tolerance = format!("within a factor of {tolerance:.2} is the same");
                    writeln!(f, "{word}   {name}: {then:.2} then, {now:.2} now; {tolerance}")?;
                }
                Verdict::Undecided(why) => writeln!(f, "unknown  {name}: {why}")?,
            }
        }
        for (name, where_from) in &self.alone {
            writeln!(f, "alone    {name}: {where_from}")?;
        }
        let worse = self.words().filter(|word| *word == Word::Worse).count();
        match (worse, self.words().count()) {
            (_, 0) => write!(f, "Nothing could be compared."),
            (0, all) => write!(f, "None of {all} ratios is worse."),
            (worse, all) => write!(f, "{worse} of {all} ratios are worse."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::facts;
    use crate::report::Bound;

    const LOWER: Direction = Direction::Lower;
    const HIGHER: Direction = Direction::Higher;

    fn word(better: Direction, then: &[f64], now: &[f64]) -> Option<Word> {
        match judge(better, then, now) {
            Verdict::Compared { word, .. } => Some(word),
            Verdict::Undecided(_) => None,
        }
    }

    /// A report with one ratio, and what it writes.
    fn report(claim: &'static str, rounds: &[f64]) -> (Report, String) {
        let mut report = Report::new(facts());
        report.judge_ratios(claim, Bound::AtMost(2.0), rounds.to_vec());
        let json = serde_json::to_string(&report).unwrap();
        (report, json)
    }

    #[test]
    fn a_ratio_beyond_what_the_rounds_vary_by_is_worse_and_which_way_depends() {
        let (low, high) = ([1.0, 1.05, 1.1], [1.3, 1.35, 1.4]);
        assert_eq!(word(LOWER, &low, &high), Some(Word::Worse));
        assert_eq!(word(LOWER, &high, &low), Some(Word::Better));
        assert_eq!(word(HIGHER, &low, &high), Some(Word::Better));
        assert_eq!(word(HIGHER, &high, &low), Some(Word::Worse));
    }

    #[test]
    fn what_either_run_varies_by_itself_is_no_difference() {
        let (steady, noisy) = ([1.0, 1.0, 1.0], [0.8, 1.2, 1.4]);
        assert_eq!(word(LOWER, &steady, &noisy), Some(Word::Same));
        assert_eq!(word(LOWER, &noisy, &steady), Some(Word::Same));
        assert_eq!(word(HIGHER, &steady, &noisy), Some(Word::Same));
    }

    #[test]
    fn rounds_that_agree_by_chance_leave_five_percent() {
        assert_eq!(word(LOWER, &[1.0; 3], &[1.04; 3]), Some(Word::Same));
        assert_eq!(word(LOWER, &[1.0; 3], &[1.06; 3]), Some(Word::Worse));
        assert_eq!(word(LOWER, &[1.0; 3], &[0.94; 3]), Some(Word::Better));
    }

    #[test]
    fn two_rounds_and_a_division_by_zero_decide_nothing() {
        assert_eq!(word(LOWER, &[1.0; 3], &[9.0; 2]), None);
        assert_eq!(word(LOWER, &[1.0; 2], &[9.0; 3]), None);
        assert_eq!(word(LOWER, &[1.0; 3], &[1.0, f64::INFINITY, 1.0]), None);
        assert_eq!(word(LOWER, &[1.0, 0.0, 1.0], &[9.0; 3]), None);
    }

    #[test]
    fn a_run_that_is_worse_than_what_a_former_one_wrote_fails() {
        let (_, json) = report("lag", &[1.2, 1.25, 1.3]);
        let baseline = Baseline::parse(&json, false).unwrap();
        let compare = |rounds: &[f64]| baseline.against(&report("lag", rounds).0);
        assert!(compare(&[1.2, 1.25, 1.3]).passed());
        assert!(compare(&[1.0, 1.0, 1.0]).passed());
        let worse = compare(&[1.5, 1.5, 1.6]);
        assert!(!worse.passed());
        let text = worse.to_string();
        assert!(text.contains("WORSE    lag: 1.25 then, 1.50 now"), "{text}");
        assert!(text.ends_with("1 of 1 ratios are worse."), "{text}");
    }

    #[test]
    fn a_comparison_of_nothing_fails_and_names_what_is_alone() {
        let baseline = Baseline::parse(&report("lag", &[1.0; 3]).1, false).unwrap();
        let nothing = baseline.against(&report("backlog", &[1.0; 3]).0);
        assert!(!nothing.passed());
        let text = nothing.to_string();
        assert!(text.contains("backlog: not in the baseline"), "{text}");
        assert!(text.contains("lag: not measured now"), "{text}");
        assert!(!baseline.against(&report("lag", &[1.0; 2]).0).passed());
    }

    #[test]
    fn a_division_by_zero_in_a_former_run_can_be_read() {
        let baseline = Baseline::parse(&report("lag", &[1.0, f64::NAN, 1.0]).1, false).unwrap();
        let comparison = baseline.against(&report("lag", &[1.0; 3]).0);
        assert!(comparison.to_string().contains("a round gave no ratio"), "{comparison}");
    }

    #[test]
    fn another_shape_or_another_amount_of_work_is_refused_and_another_machine_is_told() {
        let json = report("lag", &[1.0; 3]).1;
        let error = |json: &str, quick| Baseline::parse(json, quick).unwrap_err().to_string();
        assert!(error("{}", false).contains("format"));
        let later = json.replace("\"version\":1", "\"version\":99");
        assert!(error(&later, false).contains("version 99"));
        assert!(error(&json, true).contains("all of the work"));
        let elsewhere = json.replace("\"cores\":4", "\"cores\":64");
        let baseline = Baseline::parse(&elsewhere, false).unwrap();
        let comparison = baseline.against(&report("lag", &[1.0; 3]).0);
        assert!(comparison.passed());
        assert!(comparison.to_string().contains("WARNING  cores: 64 then, 4 now"));
    }
}
