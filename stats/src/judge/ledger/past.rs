//! What is allowed for because hours and tenants differ.

use super::Cell;
use crate::judge::Count;
use std::collections::VecDeque;

/// Seconds of the past that are remembered; then older ones lose half of their weight.
const SECONDS_MAX: u32 = 256;
/// Seconds in which a change of the hour is looked for, in all of them and in the last one.
const RECENT_MAX: usize = 5;
/// So many standard errors above what was is a clear change.
const CLEAR: f64 = 2.0;
/// A change by more than this counts as this: the logarithm of a million.
const DRIFT_MAX: f64 = 13.8;

/// What a stratum and those that stay had while all were on blue, in the same seconds, the older ones
/// with less weight. Used ones stay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past<const L: usize> {
    stratum: Cell<L>,
    pub(super) others: Cell<L>,
    seconds: u32,
}

/// The last seconds of those that stay, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent<const L: usize> {
    seconds: VecDeque<Cell<L>>,
}

/// Logarithms of odds ratios that are allowed for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed<const L: usize> {
    /// When green is to be shown worse, and when it is to be shown not worse.
    pub(super) worse: [f64; L],
    pub(super) not_worse: [f64; L],
}

impl<const L: usize> Past<L> {
    /// Adds a second, if both had requests in it.
    pub(super) fn push(&mut self, stratum: &Cell<L>, others: &Cell<L>) {
        if stratum.requests == 0 || others.requests == 0 {
            return;
        }
        if self.seconds == SECONDS_MAX {
            self.stratum.halve();
            self.others.halve();
            self.seconds /= 2;
        }
        self.stratum.add(stratum);
        self.others.add(others);
        self.seconds += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.stratum.add(&other.stratum);
        self.others.add(&other.others);
    }

    /// By how much the stratum was above the others: at most, to be shown worse than that; about, to be
    /// shown not worse.
    pub(super) fn difference(&self) -> Allowed<L> {
        let mut allowed = Allowed::nothing();
        for level in 0..L {
            let (stratum, others) = (self.stratum.count(level), self.others.count(level));
            let was = log_odds(others, 0.0);
            let most = CLEAR * (stratum.events as f64 + 1.0).sqrt() + CLEAR;
            let known = stratum.requests > 0 && others.requests > 0;
            allowed.worse[level] = match known {
                true => (log_odds(stratum, most) - was).clamp(-DRIFT_MAX, DRIFT_MAX),
                false => DRIFT_MAX,
            };
            if known {
                allowed.not_worse[level] = log_odds(stratum, 0.0) - was;
            }
        }
        allowed
    }
}

impl<const L: usize> Recent<L> {
    pub(super) fn push(&mut self, second: Cell<L>) {
        if self.seconds.len() == RECENT_MAX {
            self.seconds.pop_front();
        }
        self.seconds.push_back(second);
    }

    /// The odds of those that stay, now to those of `hour`, as far as they are clearly higher.
    pub(super) fn since(&self, hour: &Cell<L>) -> Allowed<L> {
        let mut allowed = Allowed::nothing();
        if hour.requests == 0 {
            return allowed;
        }
        let mut recent = Cell::default();
        let mut windows = [Cell::default(); 2];
        for (age, cell) in self.seconds.iter().rev().enumerate() {
            recent.add(cell);
            windows[usize::from(age > 0)] = recent;
        }
        for (level, drift) in allowed.worse.iter_mut().enumerate() {
            let was = log_odds(hour.count(level), 0.0);
            for now in windows.map(|cell| cell.count(level)) {
                let events = now.events as f64;
                let least = events - CLEAR * events.sqrt();
                let odds = least / (now.requests as f64 - least + 0.5);
                if odds > 0.0 {
                    *drift = drift.max((odds.ln() - was).min(DRIFT_MAX));
                }
            }
        }
        allowed
    }
}

impl<const L: usize> Allowed<L> {
    pub(super) fn nothing() -> Self {
        Self {
            worse: [0.0; L],
            not_worse: [0.0; L],
        }
    }
}

/// Logarithm of the odds, as if there had been so many more events.
fn log_odds(count: Count, more: f64) -> f64 {
    let requests = count.requests as f64;
    let events = (count.events as f64 + more).clamp(0.0, requests);
    ((events + 0.5) / (requests - events + 0.5)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(requests: u32, events: u32) -> Cell<1> {
        Cell {
            requests,
            events: [events],
        }
    }

    #[test]
    fn a_rise_is_allowed_for_at_once_where_it_is_clear_and_noise_is_not() {
        let hour = cell(200_000, 200);
        let mut recent = Recent::default();
        for events in [1, 3, 0, 2, 1] {
            recent.push(cell(950, events));
        }
        assert_eq!(recent.since(&hour).worse, [0.0]);
        recent.push(cell(950, 40));
        let [rise] = recent.since(&hour).worse.map(f64::exp);
        assert!(rise > 20.0 && rise < 42.0, "{rise}");
        assert_eq!(recent.since(&hour).not_worse, [0.0]);
        assert_eq!(recent.since(&cell(0, 0)).worse, [0.0]);
    }

    #[test]
    fn a_difference_is_taken_for_as_large_as_it_may_be() {
        let mut past = Past::default();
        for second in 0..10_000 {
            past.push(&cell(50, u32::from(second % 10 == 0)), &cell(950, 1));
        }
        let Allowed { worse, not_worse } = past.difference();
        let about = 0.002 / 0.00105;
        assert!((not_worse[0].exp() / about - 1.0).abs() < 0.2);
        assert!(worse[0].exp() > 1.4 * about && worse[0].exp() < 3.0 * about);
        // Of what is not known, all is possible.
        assert_eq!(Past::<1>::default().difference().worse, [DRIFT_MAX]);
    }
}
