//! Evidence about an odds ratio from a sequence of two-by-two tables, valid at every look.
//!
//! A table has the requests of green and of a reference, and how many of each had an event. Given its
//! margins (both numbers of requests, and the number of events in all) green's events follow Fisher's
//! noncentral hypergeometric distribution, which depends on the odds ratio alone: how frequent events
//! are, and how that changes from one table to the next, drops out (R. A. Fisher 1935; J. Cornfield 1956).
//!
//! For an odds ratio `t0` and a larger one `t1` the likelihood ratio of `t1` to `t0` is, on average, 1 if
//! `t0` is true, and less if the truth is below `t0`, because the ratio grows with green's events and
//! they grow with the odds ratio. So its product over tables, and any average of such products over
//! several `t1` (a mixture, H. Robbins 1970), is a bet that nobody can win in the long run while green's
//! odds ratio is at most `t0`. By Ville's inequality it ever reaches `1/alpha` with a chance of at most
//! `alpha`, however often one looks (A. Ramdas, P. Grünwald, V. Vovk, G. Shafer 2023, "Game-theoretic
//! statistics and safe anytime-valid inference"; R. Turner, A. Ly, P. Grünwald 2024, "Generic E-variables
//! for exact sequential k-sample tests that allow for optional stopping", do the same without margins).
//! The same in the other direction shows that green is within a margin, and all `t0` that are not
//! refuted are an interval.

use super::Count;

/// Points of the grid.
pub(crate) const POINTS: usize = 23;
/// The grid goes in half powers of two from 2^-3 to 2^7, and has two points of the caller's.
const HALVES: std::ops::RangeInclusive<i32> = -6..=14;
/// More requests or events than this in one table are scaled down, which takes evidence away.
const EVENTS_MAX: u64 = 512;
const REQUESTS_MAX: u64 = 1 << 24;

/// Odds ratios for which likelihoods are kept, in ascending order.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    log: [f64; POINTS],
}

/// Green beside a reference, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) green: Count,
    pub(crate) reference: Count,
}

/// Logarithms of the likelihoods of all points, up to a constant.
pub(crate) type Likelihood = [f64; POINTS];

/// What the tables so far say.
#[derive(Clone, Debug)]
pub(crate) struct Odds {
    likelihood: Likelihood,
    says_something: bool,
    /// Numerator and denominator of the estimate of Mantel and Haenszel.
    both: (f64, f64),
    pub(crate) green: Count,
    pub(crate) reference: Count,
}

impl Default for Odds {
    fn default() -> Self {
        Self {
            likelihood: [0.0; POINTS],
            says_something: false,
            both: (0.0, 0.0),
            green: Count::default(),
            reference: Count::default(),
        }
    }
}

// === impl Grid ===

impl Grid {
    /// A grid that has `first` and `second` among its points.
    pub(crate) fn with(first: f64, second: f64) -> Self {
        let mut log = [0.0; POINTS];
        let own = [first, second].map(|odds| sane_odds(odds).ln());
        let halves = HALVES.map(|half| f64::from(half) * 0.5 * std::f64::consts::LN_2);
        for (place, value) in log.iter_mut().zip(own.into_iter().chain(halves)) {
            *place = value;
        }
        log.sort_unstable_by(f64::total_cmp);
        Self { log }
    }

    /// The point of an odds ratio that [`Grid::with`] was given, or the one next to it.
    pub(crate) fn point(&self, odds: f64) -> usize {
        let wanted = sane_odds(odds).ln();
        let above = self.log.partition_point(|&log| log < wanted);
        above.min(POINTS - 1)
    }

    /// How likely the table is under each point, where all odds ratios are `exp(shift)` times what the
    /// grid says; `None` if it says nothing: no events, or nothing else.
    pub(crate) fn likelihood(&self, table: Table, shift: f64) -> Option<Likelihood> {
        let table = table.scaled();
        let (n, m) = (table.green.requests, table.reference.requests);
        let events = table.green.events + table.reference.events;
        let low = events.saturating_sub(m);
        let high = events.min(n);
        if high <= low {
            return None;
        }
        // Logarithms of the number of ways in which green has `low + i` of the events, less that of
        // the first; and the ratio of each to the one before.
        let steps = (high - low).min(EVENTS_MAX) as usize;
        let mut ratios = [0.0; EVENTS_MAX as usize + 1];
        let mut ways = [0.0; EVENTS_MAX as usize + 1];
        for step in 0..steps {
            let x = low + step as u64;
            let ratio = ((n - x) as f64 * (events - x) as f64)
                / ((x + 1) as f64 * (m + x + 1 - events) as f64);
            ratios[step + 1] = ratio;
            ways[step + 1] = ways[step] + ratio.ln();
        }
        let seen = (table.green.events - low) as f64;
        let mut likelihood = [0.0; POINTS];
        let mut peak = 0;
        for (place, log) in likelihood.iter_mut().zip(self.log) {
            let log = log + shift;
            let odds = log.exp();
            // The peak moves up with the odds ratio, so the search goes on from the last one.
            while peak < steps && ratios[peak + 1] * odds > 1.0 {
                peak += 1;
            }
            let mut sum = 1.0;
            let mut term = 1.0;
            for ratio in &ratios[peak + 1..=steps] {
                term *= ratio * odds;
                sum += term;
                if term < 1e-18 {
                    break;
                }
            }
            term = 1.0;
            for ratio in ratios[1..=peak].iter().rev() {
                term /= ratio * odds;
                sum += term;
                if term < 1e-18 {
                    break;
                }
            }
            let total = ways[peak] + peak as f64 * log + sum.ln();
            *place = seen * log - total;
        }
        Some(likelihood)
    }
}

/// An odds ratio that can be worked with: what is not a number above 0 counts as 1.
pub(crate) fn sane_odds(odds: f64) -> f64 {
    if odds > 0.0 && odds.is_finite() {
        odds
    } else {
        1.0
    }
}

// === impl Table ===

impl Table {
    /// The table with counts small enough to be summed over. Shares are kept, green's events are
    /// rounded down and the reference's up, and fewer requests say less, so evidence against green is
    /// only ever lost.
    fn scaled(self) -> Self {
        let clean = |count: Count| Count {
            events: count.events.min(count.requests),
            ..count
        };
        let (green, reference) = (clean(self.green), clean(self.reference));
        let events = green.events.saturating_add(reference.events);
        let requests = green.requests.saturating_add(reference.requests);
        let others = requests - events;
        // What is summed over is at most the smallest of the four margins.
        let span = green
            .requests
            .min(reference.requests)
            .min(events)
            .min(others);
        let divisor = (requests / REQUESTS_MAX).max(span / EVENTS_MAX) + 1;
        if divisor == 1 {
            return Self { green, reference };
        }
        let reference_events = reference.events.div_ceil(divisor);
        Self {
            green: Count {
                requests: green.requests / divisor,
                events: green.events / divisor,
            },
            reference: Count {
                requests: (reference.requests / divisor).max(reference_events),
                events: reference_events,
            },
        }
    }
}

// === impl Odds ===

impl Odds {
    /// Adds a table and its likelihood. `weight`, from 0 to 1 and chosen without knowledge of this
    /// table, makes it count for less: a bet to a power of at most 1 is still one nobody can win. `shift`
    /// is that of the likelihood.
    pub(crate) fn add(
        &mut self,
        table: Table,
        likelihood: Option<&Likelihood>,
        weight: f64,
        shift: f64,
    ) {
        let Table { green, reference } = table;
        self.green.add(green);
        self.reference.add(reference);
        let (a, n) = (green.events as f64, green.requests as f64);
        let (c, m) = (reference.events as f64, reference.requests as f64);
        if n + m > 0.0 {
            self.both.0 += a * (m - c).max(0.0) / (n + m);
            self.both.1 += shift.exp() * c * (n - a).max(0.0) / (n + m);
        }
        if let Some(likelihood) = likelihood {
            self.says_something = true;
            for (sum, one) in self.likelihood.iter_mut().zip(likelihood) {
                *sum += weight * one;
            }
        }
    }

    /// Logarithm of the evidence that the odds ratio is above the point.
    pub(crate) fn above(&self, point: usize) -> f64 {
        // Most strata of most deployments.
        if !self.says_something {
            return 0.0;
        }
        let at = self.likelihood[point];
        log_mean(self.likelihood.iter().skip(point + 1).map(|one| one - at))
    }

    /// Logarithm of the evidence that the odds ratio is below the point.
    pub(crate) fn below(&self, point: usize) -> f64 {
        let at = self.likelihood[point];
        log_mean(self.likelihood.iter().take(point).map(|one| one - at))
    }

    /// The odds ratio of Mantel and Haenszel: 1 without events, infinite if the reference has none.
    pub(crate) fn estimate(&self) -> f64 {
        match self.both {
            (0.0, 0.0) => 1.0,
            (top, bottom) => top / bottom,
        }
    }

    /// The points between which the odds ratio lies, at every look at once, with a chance of at most
    /// twice `exp(-needed)` of being wrong; 0 or infinity where the grid has no end to show.
    pub(crate) fn interval(&self, grid: &Grid, needed: f64) -> (f64, f64) {
        let low = (0..POINTS).rev().find(|&point| self.above(point) >= needed);
        let high = (0..POINTS).find(|&point| self.below(point) >= needed);
        (
            low.map_or(0.0, |point| grid.log[point].exp()),
            high.map_or(f64::INFINITY, |point| grid.log[point].exp()),
        )
    }
}

impl Count {
    pub(crate) fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.events = self.events.saturating_add(other.events);
    }
}

/// A sum of what is given by logarithms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogSum {
    /// The largest so far, and the sum in parts of it.
    top: f64,
    sum: f64,
}

impl Default for LogSum {
    fn default() -> Self {
        Self {
            top: f64::NEG_INFINITY,
            sum: 0.0,
        }
    }
}

impl LogSum {
    pub(crate) fn add(&mut self, log: f64) {
        if log > self.top {
            self.sum = self.sum * (self.top - log).exp() + 1.0;
            self.top = log;
        } else if log - self.top > LEAST {
            self.sum += (log - self.top).exp();
        }
    }

    /// Logarithm of the sum.
    pub(crate) fn log(self) -> f64 {
        self.top + self.sum.ln()
    }
}

/// Logarithm of a part that no longer changes a sum.
const LEAST: f64 = -40.0;

/// Logarithm of the mean of what the values are logarithms of; 0, which is no evidence, of none.
pub(crate) fn log_mean(logs: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (LogSum::default(), 0_u32);
    for log in logs {
        sum.add(log);
        count += 1;
    }
    match count {
        0 => 0.0,
        _ => sum.log() - f64::from(count).ln(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(requests: u64, events: u64) -> Count {
        Count { requests, events }
    }

    fn table(green: (u64, u64), reference: (u64, u64)) -> Table {
        Table {
            green: count(green.0, green.1),
            reference: count(reference.0, reference.1),
        }
    }

    /// Chances of each number of green's events, by the textbook.
    fn chances(n: u64, m: u64, events: u64, odds: f64) -> Vec<(u64, f64)> {
        let choose = |n: u64, k: u64| {
            (0..k)
                .map(|i| (n - i) as f64 / (i + 1) as f64)
                .product::<f64>()
        };
        let range = events.saturating_sub(m)..=events.min(n);
        let ways: Vec<(u64, f64)> = range
            .map(|x| {
                (
                    x,
                    choose(n, x) * choose(m, events - x) * odds.powi(x as i32),
                )
            })
            .collect();
        let total: f64 = ways.iter().map(|(_, ways)| ways).sum();
        ways.into_iter()
            .map(|(x, ways)| (x, ways / total))
            .collect()
    }

    #[test]
    fn likelihoods_are_those_of_the_textbook() {
        let grid = Grid::with(1.5, 3.0);
        for (n, m, events) in [
            (5, 20, 4),
            (50, 10, 30),
            (3, 3, 3),
            (1, 100, 1),
            (40, 40, 79),
        ] {
            for (point, log) in grid.log.iter().enumerate() {
                for (x, chance) in chances(n, m, events, log.exp()) {
                    let likelihood = grid
                        .likelihood(table((n, x), (m, events - x)), 0.0)
                        .unwrap();
                    // Of the constant that was left out: the ways in which this table can come about.
                    let constant = chances(n, m, events, 1.0)
                        .iter()
                        .find(|(other, _)| *other == x)
                        .map(|(_, chance)| chance.ln())
                        .unwrap();
                    let at_one = grid.point(1.0);
                    let shown = likelihood[point] - likelihood[at_one] + constant;
                    assert!((shown - chance.ln()).abs() < 1e-9, "{n} {m} {events} {x}");
                }
            }
        }
    }

    #[test]
    fn a_bet_against_a_tolerable_green_pays_at_most_one_on_average() {
        let grid = Grid::with(1.5, 3.0);
        for (n, m, events) in [(5, 20, 4), (50, 950, 3), (50, 10, 30), (7, 7, 9)] {
            for (point, bound) in grid.log.iter().enumerate().take(POINTS - 1) {
                for truth in [0.01, 0.5, 1.0].map(|part| part * bound.exp()) {
                    let mean = |bet: &dyn Fn(&Odds) -> f64, truth: f64| -> f64 {
                        let all = chances(n, m, events, truth);
                        let one = |x| {
                            let table = table((n, x), (m, events - x));
                            let mut odds = Odds::default();
                            odds.add(table, grid.likelihood(table, 0.0).as_ref(), 1.0, 0.0);
                            bet(&odds).exp()
                        };
                        all.into_iter().map(|(x, chance)| chance * one(x)).sum()
                    };
                    let above = mean(&|odds| odds.above(point), truth);
                    assert!(above <= 1.0 + 1e-9, "{n} {m} {events}, {truth}: {above}");
                    let below = mean(&|odds| odds.below(point), bound.exp().powi(2) / truth);
                    assert!(below <= 1.0 + 1e-9, "{n} {m} {events}, {truth}: {below}");
                }
            }
        }
    }

    #[test]
    fn a_table_without_a_choice_says_nothing() {
        let grid = Grid::with(1.5, 3.0);
        for (green, reference) in [
            ((5, 0), (9, 0)),
            ((5, 5), (9, 9)),
            ((0, 0), (9, 3)),
            ((5, 2), (0, 0)),
        ] {
            assert!(grid.likelihood(table(green, reference), 0.0).is_none());
        }
    }

    #[test]
    fn the_estimate_and_its_interval_hold_the_truth_of_a_clear_case() {
        let grid = Grid::with(1.5, 3.0);
        let mut odds = Odds::default();
        for _ in 0..100 {
            let table = table((1_000, 40), (1_000, 10));
            odds.add(table, grid.likelihood(table, 0.0).as_ref(), 1.0, 0.0);
        }
        let truth = (40.0 / 960.0) / (10.0 / 990.0);
        assert!((odds.estimate() / truth - 1.0).abs() < 1e-9);
        let (low, high) = odds.interval(&grid, 200_f64.ln());
        assert!(
            low > 2.0 && low <= truth && truth <= high && high < 8.0,
            "{low} {high}"
        );
    }

    proptest! {
        #[test]
        fn any_table_gives_numbers(
            a: u64, n: u64, c: u64, m: u64,
            shifts in (0_u32..64, 0_u32..64, 0_u32..64, 0_u32..64),
            weight in 0.0..=1.0_f64,
        ) {
            let grid = Grid::with(f64::NAN, 1e300);
            let table = table((n >> shifts.0, a >> shifts.1), (m >> shifts.2, c >> shifts.3));
            let mut odds = Odds::default();
            let likelihood = grid.likelihood(table, 0.0);
            for _ in 0..3 {
                odds.add(table, likelihood.as_ref(), weight, 0.0);
            }
            for point in 0..POINTS {
                prop_assert!(odds.above(point).is_finite());
                prop_assert!(odds.below(point).is_finite());
            }
            prop_assert!(!odds.estimate().is_nan());
        }

        #[test]
        fn more_events_on_green_never_speak_for_green(
            n in 1_u64..200, m in 1_u64..200, events in 1_u64..100,
        ) {
            let grid = Grid::with(1.5, 3.0);
            let mut last = f64::NEG_INFINITY;
            for x in events.saturating_sub(m)..=events.min(n) {
                let table = table((n, x), (m, events.min(n + m) - x));
                let mut odds = Odds::default();
                odds.add(table, grid.likelihood(table, 0.0).as_ref(), 1.0, 0.0);
                let now = odds.above(grid.point(1.5));
                prop_assert!(now >= last - 1e-9);
                last = now;
            }
        }
    }
}
