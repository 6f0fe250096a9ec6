//! Minimum, median, maximum and percentiles.

use std::time::Duration;

use serde::Serialize;

/// What several rounds gave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// Of `values`; all zero if there are none.
    pub(crate) fn of(values: &[f64]) -> Self {
        let sorted = sorted(values);
        let last = sorted.len().saturating_sub(1);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
        Self {
            min: at(0),
            median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            max: at(last),
        }
    }

    /// Minimum, median and maximum, for a table.
    pub(crate) fn show(self) -> [String; 3] {
        [self.min, self.median, self.max].map(|value| {
            let digits = if value.abs() >= 100.0 { 0 } else { 2 };
            format!("{value:.digits$}")
        })
    }
}

/// Nearest rank: the smallest value that `percent` of all values do not exceed.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let sorted = sorted(values);
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or(0.0)
}

/// In milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Counts are far below 2⁵³ here.
#[expect(clippy::cast_precision_loss, reason = "counts of objects and bytes, below 2^53")]
pub(crate) fn float(count: usize) -> f64 {
    count as f64
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]), Summary { min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(Summary::of(&[4.0, 1.0]), Summary { min: 1.0, median: 2.5, max: 4.0 });
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 50).to_bits(), 100.0_f64.to_bits());
        assert_eq!(percentile(&values, 99).to_bits(), 198.0_f64.to_bits());
    }
}
