//! Does a larger share of requests fail on green than on blue? A sequential test, valid at every look.
//!
//! The failures are compared as odds ratios of two-by-two tables, second by second and stratum by
//! stratum; `docs/judges.md` says how. Green is worse if its odds of failure are shown to be more than
//! `tolerated` times those that its tenants had on blue, and if at least `share_min` of what was compared
//! failed. It is not worse if the odds are shown to be less
//! than `margin` times those on blue, or its share of failures less than `share_ok`, in the current step.

use super::ledger::{Cell, Ledger, Rule, Sample, exp};
use super::odds::log_mean;
use super::{ALPHA_PER_DEPLOYMENT, Arm, Split, StratumId, Verdict, within};

/// Bounds. Odds ratios and shares are plain numbers: 1.5 is one and a half times, 0.01 is one percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Chance of a false [`Verdict::Worse`] in the whole deployment. Above 0, at most 1. Default half of
    /// [`ALPHA_PER_DEPLOYMENT`].
    pub alpha: f64,
    /// Chance of a false [`Verdict::NotWorse`] in one step. Default 0.05.
    pub promote_alpha: f64,
    /// How green gets its share. Default [`Split::Tenants`].
    pub split: Split,
    /// Odds ratio up to which green is not held worse. At least 1. Default 1.5.
    pub tolerated: f64,
    /// Odds ratio that green must be shown to stay below to be held not worse. Above `tolerated`.
    /// Default 3.
    pub margin: f64,
    /// Below this share of failures green is never held worse. Default 0.002.
    pub share_min: f64,
    /// A share of failures that is fine whatever blue has. Default 0.005.
    pub share_ok: f64,
}

/// The judge of failures, for one deployment.
#[derive(Clone, Debug)]
pub struct Errors {
    config: Config,
    ledger: Ledger<1>,
    /// Of green, in the open second.
    green: Cell<1>,
    /// Logarithms of likelihood ratios of smaller shares to `share_ok`, in this step.
    fine: [f64; FINE.len()],
}

/// The shares that are bet on, as parts of `share_ok`.
const FINE: [f64; 4] = [0.01, 0.1, 0.25, 0.5];

impl Default for Config {
    fn default() -> Self {
        Self {
            alpha: ALPHA_PER_DEPLOYMENT / 2.0,
            promote_alpha: 0.05,
            split: Split::Tenants,
            tolerated: 1.5,
            margin: 3.0,
            share_min: 0.002,
            share_ok: 0.005,
        }
    }
}

impl Errors {
    /// A judge of a deployment with so many strata (see [`super::Strata::len`]).
    pub fn new(strata: usize, config: Config) -> Self {
        let rule = Rule {
            alpha: config.alpha,
            promote_alpha: config.promote_alpha,
            tolerated: config.tolerated,
            margin: config.margin,
            split: config.split,
        };
        Self {
            config,
            ledger: Ledger::new(strata, rule),
            green: Cell::default(),
            fine: [0.0; FINE.len()],
        }
    }

    /// Adds requests to the open second. `failed` counts answers of class 5xx, failures to connect and
    /// timeouts; what is above `requests` is left out.
    pub fn record(&mut self, stratum: StratumId, arm: Arm, requests: u32, failed: u32) {
        let cell = Cell {
            requests,
            events: [failed.min(requests)],
        };
        let sample = Sample {
            own: Some(cell),
            all: cell,
        };
        if arm == Arm::Green {
            self.green.add(&cell);
        }
        self.ledger.record(stratum, arm, &sample);
    }

    /// Closes the second. Call it once a second, also when nothing happened. Microseconds.
    pub fn close(&mut self) {
        let weight = self.ledger.weight(0);
        let green = std::mem::take(&mut self.green);
        let [failed] = green.events.map(f64::from);
        let share = within(self.config.share_ok, 1e-9, 0.999);
        for (log, part) in self.fine.iter_mut().zip(FINE) {
            let fewer = ((1.0 - share * part) / (1.0 - share)).ln();
            *log += weight * (failed * part.ln() + (f64::from(green.requests) - failed) * fewer);
        }
        self.ledger.close();
    }

    /// Begins a step of the canary. Evidence that green is worse is kept, since its bound is for the
    /// whole deployment; that it is not worse has to be shown anew.
    pub fn begin_step(&mut self) {
        self.fine = [0.0; FINE.len()];
        self.ledger.begin_step();
    }

    /// What can be said now. May be asked at any time, as often as wished.
    pub fn look(&self) -> Verdict {
        let mut finding = self.ledger.finding(["failed"]);
        let fine = exp(log_mean(self.fine.into_iter()));
        // Two ways to be fine: the mean of two bets, as one may not choose the luckier one afterwards.
        finding.not_worse = f64::midpoint(self.ledger.not_worse(0), fine);
        let matters = finding.green.share() >= self.config.share_min;
        finding.verdict(matters)
    }
}
