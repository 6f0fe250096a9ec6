//! What was measured, and whether the goals are met.

use serde::Serialize;

use crate::stats::Summary;

/// Everything one run found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Cores, rounds and versions: without them no figure means anything.
    pub(crate) setting: Vec<(String, String)>,
    figures: Vec<Figure>,
    relations: Vec<Relation>,
    goals: Vec<Goal>,
}

/// One quantity of one subject, over all rounds.
#[derive(Debug, Serialize)]
struct Figure {
    workload: &'static str,
    subject: &'static str,
    quantity: &'static str,
    rounds: Vec<f64>,
    summary: Summary,
}

/// How one subject compares with another in one quantity; nothing is claimed of it.
#[derive(Debug, Serialize)]
struct Relation {
    workload: &'static str,
    quantity: &'static str,
    subjects: [&'static str; 2],
    ratio: Summary,
}

/// What a ratio must be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A claim, and what became of it. The median over the rounds decides.
#[derive(Debug, Serialize)]
struct Goal {
    claim: &'static str,
    bound: Bound,
    measured: Summary,
    met: bool,
}

impl Report {
    /// Notes what a round gave.
    pub(crate) fn note(
        &mut self,
        workload: &'static str,
        subject: &'static str,
        quantity: &'static str,
        value: f64,
    ) {
        let known = self.figures.iter_mut().find(|figure| {
            (figure.workload, figure.subject, figure.quantity) == (workload, subject, quantity)
        });
        if let Some(figure) = known {
            figure.rounds.push(value);
            figure.summary = Summary::of(&figure.rounds);
            return;
        }
        let summary = Summary::of(&[value]);
        self.figures.push(Figure { workload, subject, quantity, rounds: vec![value], summary });
    }

    /// What the rounds gave for one quantity.
    pub(crate) fn rounds(&self, workload: &str, subject: &str, quantity: &str) -> &[f64] {
        let figure = self.figures.iter().find(|figure| {
            (figure.workload, figure.subject, figure.quantity) == (workload, subject, quantity)
        });
        figure.map_or(&[], |figure| &figure.rounds)
    }

    /// Judges a claim by the ratio of two quantities in each round.
    pub(crate) fn judge_ratio(
        &mut self,
        claim: &'static str,
        bound: Bound,
        workload: &str,
        ours: (&str, &str),
        theirs: (&str, &str),
    ) {
        let ratios = self.ratios(workload, ours, theirs);
        self.judge(claim, bound, &ratios);
    }

    /// Shows the ratio of a quantity of two subjects.
    pub(crate) fn relate(
        &mut self,
        workload: &'static str,
        quantity: &'static str,
        subjects: [&'static str; 2],
    ) {
        let [ours, theirs] = subjects.map(|subject| (subject, quantity));
        let ratio = Summary::of(&self.ratios(workload, ours, theirs));
        self.relations.push(Relation { workload, quantity, subjects, ratio });
    }

    fn ratios(&self, workload: &str, ours: (&str, &str), theirs: (&str, &str)) -> Vec<f64> {
        let ours = self.rounds(workload, ours.0, ours.1);
        let theirs = self.rounds(workload, theirs.0, theirs.1);
        ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
    }

    /// Judges a claim by these values, one for each round.
    pub(crate) fn judge(&mut self, claim: &'static str, bound: Bound, rounds: &[f64]) {
        let measured = Summary::of(rounds);
        let met = !rounds.is_empty()
            && match bound {
                Bound::AtMost(limit) => measured.median <= limit,
                Bound::AtLeast(limit) => measured.median >= limit,
            };
        self.goals.push(Goal { claim, bound, measured, met });
    }

    /// Whether every claim that was judged holds.
    pub(crate) fn goals_met(&self) -> bool {
        self.goals.iter().all(|goal| goal.met)
    }

    /// Shows the tables on stdout.
    #[expect(clippy::print_stdout, reason = "the result of the program")]
    pub(crate) fn print(&self) {
        for (name, value) in &self.setting {
            println!("{name}: {value}");
        }
        println!();
        row(["workload", "subject", "quantity", "min", "median", "max"].map(str::to_owned));
        for figure in &self.figures {
            let Summary { min, median, max } = figure.summary;
            let [workload, subject, quantity] =
                [figure.workload, figure.subject, figure.quantity].map(str::to_owned);
            row([workload, subject, quantity, show(min), show(median), show(max)]);
        }
        println!();
        for relation in &self.relations {
            let Relation { workload, quantity, subjects: [ours, theirs], ratio } = relation;
            let [min, median, max] = [ratio.min, ratio.median, ratio.max].map(show);
            println!("{workload}: {quantity}, {ours} / {theirs}: {median} ({min} to {max})");
        }
        println!();
        for goal in &self.goals {
            let (word, limit) = match goal.bound {
                Bound::AtMost(limit) => ("at most", limit),
                Bound::AtLeast(limit) => ("at least", limit),
            };
            let Summary { min, median, max } = goal.measured;
            let [min, median, max] = [min, median, max].map(show);
            let verdict = if goal.met { "met   " } else { "MISSED" };
            println!("{verdict}  {}: {median} ({min} to {max}); {word} {limit}", goal.claim);
        }
    }
}

/// Tells on stderr what is being done.
#[expect(clippy::print_stderr, reason = "progress for a person who waits minutes")]
pub(crate) fn progress(what: &str) {
    eprintln!("… {what}");
}

#[expect(clippy::print_stdout, reason = "the result of the program")]
fn row([workload, subject, quantity, min, median, max]: [String; 6]) {
    println!("{workload:<18} {subject:<12} {quantity:<30} {min:>10} {median:>10} {max:>10}");
}

fn show(value: f64) -> String {
    let digits = if value.abs() >= 100.0 { 0 } else { 2 };
    format!("{value:.digits$}")
}
