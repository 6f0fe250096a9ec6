//! What was measured, and whether the goals are met; also as JSON, whose shape the README describes.

use serde::Serialize;

use crate::facts::Facts;
use crate::stats::Summary;

/// What the JSON calls itself.
pub(crate) const FORMAT: &str = "evermirror-loadtest/compare";
/// Of the JSON's shape: one more whenever a reader of the former shape would misread it.
pub(crate) const VERSION: u32 = 1;

/// Everything one run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    format: &'static str,
    version: u32,
    pub(crate) facts: Facts,
    figures: Vec<Figure>,
    pub(crate) ratios: Vec<Ratio>,
    goals: Vec<Goal>,
    /// Not all subjects were asked for: what cannot be judged without the others is left out.
    #[serde(skip)]
    pub(crate) partial: bool,
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

/// How two subjects compare in one quantity: all that means something on another machine, too.
#[derive(Debug, Serialize)]
pub(crate) struct Ratio {
    /// The claim about it, or what is divided by what. No two ratios have the same.
    pub(crate) name: String,
    pub(crate) better: Direction,
    pub(crate) rounds: Vec<f64>,
    summary: Summary,
}

/// Which way a ratio is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    Lower,
    Higher,
}

impl Direction {
    /// Of our quantity over a peer's: a rate is to be high, a time, a cost or a size low.
    fn of(quantity: &str) -> Self {
        if quantity.ends_with("/s") { Self::Higher } else { Self::Lower }
    }
}

/// What a measured value must be.
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
    rounds: Vec<f64>,
    summary: Summary,
    met: bool,
}

impl Report {
    /// Nothing was measured yet.
    pub(crate) const fn new(facts: Facts) -> Self {
        Self {
            format: FORMAT,
            version: VERSION,
            facts,
            figures: Vec::new(),
            ratios: Vec::new(),
            goals: Vec::new(),
            partial: false,
        }
    }

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

    /// How many quantities were noted.
    pub(crate) fn size(&self) -> usize {
        self.figures.len()
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
        let ratios = self.quotients(workload, ours, theirs);
        self.judge_ratios(claim, bound, ratios);
    }

    /// Judges a claim about these ratios, one for each round.
    pub(crate) fn judge_ratios(&mut self, claim: &'static str, bound: Bound, rounds: Vec<f64>) {
        self.judge(claim, bound, &rounds);
        let better = match bound {
            Bound::AtMost(_) => Direction::Lower,
            Bound::AtLeast(_) => Direction::Higher,
        };
        self.push_ratio(claim.to_owned(), better, rounds);
    }

    /// Shows the ratio of a quantity of two subjects.
    pub(crate) fn relate(
        &mut self,
        workload: &'static str,
        quantity: &'static str,
        subjects: [&'static str; 2],
    ) {
        let [ours, theirs] = subjects.map(|subject| (subject, quantity));
        let rounds = self.quotients(workload, ours, theirs);
        let name = format!("{workload}: {quantity}, {} / {}", ours.0, theirs.0);
        self.push_ratio(name, Direction::of(quantity), rounds);
    }

    fn push_ratio(&mut self, name: String, better: Direction, rounds: Vec<f64>) {
        if rounds.is_empty() && self.partial {
            return;
        }
        let summary = Summary::of(&rounds);
        self.ratios.push(Ratio { name, better, rounds, summary });
    }

    fn quotients(&self, workload: &str, ours: (&str, &str), theirs: (&str, &str)) -> Vec<f64> {
        let ours = self.rounds(workload, ours.0, ours.1);
        let theirs = self.rounds(workload, theirs.0, theirs.1);
        ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
    }

    /// Judges a claim by these values, one for each round.
    pub(crate) fn judge(&mut self, claim: &'static str, bound: Bound, rounds: &[f64]) {
        if rounds.is_empty() && self.partial {
            return;
        }
        let summary = Summary::of(rounds);
        let met = !rounds.is_empty()
            && match bound {
                Bound::AtMost(limit) => summary.median <= limit,
                Bound::AtLeast(limit) => summary.median >= limit,
            };
        self.goals.push(Goal { claim, bound, rounds: rounds.to_vec(), summary, met });
    }

    /// Whether every claim that was judged holds.
    pub(crate) fn goals_met(&self) -> bool {
        self.goals.iter().all(|goal| goal.met)
    }

    /// Shows the tables on stdout.
    #[expect(clippy::print_stdout, reason = "the result of the program")]
    pub(crate) fn print(&self) {
        println!("{}", self.facts);
        println!();
        row(["workload", "subject", "quantity", "min", "median", "max"].map(str::to_owned));
        for figure in &self.figures {
            let [workload, subject, quantity] =
                [figure.workload, figure.subject, figure.quantity].map(str::to_owned);
            let [min, median, max] = figure.summary.show();
            row([workload, subject, quantity, min, median, max]);
        }
        println!();
        let claimed = |ratio: &&Ratio| self.goals.iter().any(|goal| goal.claim == ratio.name);
        for ratio in self.ratios.iter().filter(|ratio| !claimed(ratio)) {
            let [min, median, max] = ratio.summary.show();
            println!("{}: {median} ({min} to {max})", ratio.name);
        }
        println!();
        for goal in &self.goals {
            let (word, limit) = match goal.bound {
                Bound::AtMost(limit) => ("at most", limit),
                Bound::AtLeast(limit) => ("at least", limit),
            };
            let [min, median, max] = goal.summary.show();
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
