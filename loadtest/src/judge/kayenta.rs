//! Kayenta's rule, for comparison: a Mann-Whitney test on values of a metric over time.
//!
//! After `MannWhitneyClassifier.scala` and `MannWhitney.scala` of spinnaker/kayenta, which follow R's
//! `wilcox.test` (asymptotic, two samples, with correction for continuity and ties). A metric is *High* if
//! the lower end of the confidence interval of the shift is above 0.25 times the shift's estimate. The
//! metrics here are the share of failures and the mean latency, each second a value, all since the
//! deployment began; worse is High for either. Roots are found by bisection, not by Brent's method.

use super::world::Second;

/// The quantile of the normal distribution for a confidence of 0.98, two-sided.
const Z: f64 = 2.326_347_874_040_841;
const TOLERANCE: f64 = 0.25;
/// Halvings of the range in which a root lies.
const HALVINGS: u32 = 40;

/// Values of each metric so far: failures in percent, latency in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Series {
    green: [Vec<f64>; 2],
    blue: [Vec<f64>; 2],
}

impl Series {
    pub(super) fn push(&mut self, second: &Second) {
        let [green, blue] = second.metrics();
        for metric in 0..2 {
            // Kept in order, which is all that the test needs of them.
            insert(&mut self.green[metric], green[metric]);
            insert(&mut self.blue[metric], blue[metric]);
        }
    }

    /// Whether each metric is High.
    pub(super) fn judge(&self) -> [bool; 2] {
        [0, 1].map(|metric| is_high(&self.green[metric], &self.blue[metric]))
    }
}

fn insert(values: &mut Vec<f64>, value: f64) {
    let place = values.partition_point(|&other| other < value);
    values.insert(place, value);
}

/// Both in ascending order.
fn is_high(experiment: &[f64], control: &[f64]) -> bool {
    let root = |quantile| root(experiment, control, quantile);
    match (root(Z), root(0.0)) {
        (Some(low), Some(estimate)) => low > TOLERANCE * estimate.abs(),
        // All values are the same; Kayenta has no answer then.
        _ => false,
    }
}

/// The shift of `x` at which the test's statistic is `quantile`.
fn root(x: &[f64], y: &[f64], quantile: f64) -> Option<f64> {
    let (mut low, mut high) = (x.first()? - y.last()?, x.last()? - y.first()?);
    if statistic(x, y, low)? <= quantile {
        return Some(low);
    }
    if statistic(x, y, high)? >= quantile {
        return Some(high);
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if statistic(x, y, middle)? > quantile {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(f64::midpoint(low, high))
}

/// The standardised rank sum of `x - shift` among both; `None` if all are tied.
fn statistic(x: &[f64], y: &[f64], shift: f64) -> Option<f64> {
    let (n, m) = (x.len() as f64, y.len() as f64);
    let (mut i, mut j) = (0, 0);
    let (mut ranks, mut ties, mut before) = (0.0, 0.0, 0.0);
    while i < x.len() || j < y.len() {
        let next = match (x.get(i), y.get(j)) {
            (Some(x), Some(y)) => (x - shift).min(*y),
            (Some(x), None) => x - shift,
            (None, Some(y)) => *y,
            (None, None) => break,
        };
        let of_x = x[i..].iter().take_while(|&&x| x - shift <= next).count();
        let of_y = y[j..].iter().take_while(|&&y| y <= next).count();
        let tied = (of_x + of_y) as f64;
        ranks += of_x as f64 * (before + (tied + 1.0) / 2.0);
        ties += tied.powi(3) - tied;
        before += tied;
        (i, j) = (i + of_x, j + of_y);
    }
    let difference = ranks - n * (n + 1.0) / 2.0 - n * m / 2.0;
    let correction = match difference {
        0.0 => 0.0,
        _ => 0.5 * difference.signum(),
    };
    let sigma = (n * m / 12.0 * ((n + m + 1.0) - ties / ((n + m) * (n + m - 1.0)))).sqrt();
    (sigma > 0.0).then(|| (difference - correction) / sigma)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of R 4.2's documentation example of `wilcox.test` (Hollander and Wolfe, permeability).
    #[test]
    fn the_statistic_is_the_rank_sum() {
        let x = [0.73, 0.80, 0.83, 1.04, 1.38, 1.45, 1.46, 1.64, 1.89, 1.91];
        let y = [0.74, 0.88, 0.90, 1.15, 1.21];
        // W = 35 of 50, so the difference from the middle is 10, and sigma is sqrt(50 / 12 * 16).
        let expected = 9.5 / (50.0_f64 / 12.0 * 16.0).sqrt();
        assert!((statistic(&x, &y, 0.0).unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn a_clear_shift_is_high_and_none_is_not() {
        let blue: Vec<f64> = (0..40).map(|i| f64::from(i * 7 % 40)).collect();
        let series = |shift: f64| {
            let mut values: Vec<f64> = blue.iter().map(|one| one + shift).collect();
            values.sort_unstable_by(f64::total_cmp);
            values
        };
        assert!(is_high(&series(30.0), &series(0.0)));
        assert!(!is_high(&series(0.0), &series(0.0)));
        assert!(!is_high(&series(-30.0), &series(0.0)));
        assert!(!is_high(&[1.0, 1.0], &[1.0, 1.0, 1.0]));
        let shift = root(&series(30.0), &series(0.0), 0.0).unwrap();
        assert!((shift - 30.0).abs() < 1.0, "{shift}");
    }
}
