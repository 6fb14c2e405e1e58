//! Is green slower than blue? A sequential test of how often green is above quantiles of blue, valid at
//! every look.
//!
//! From a stratum's first requests on blue come reference latencies: their median, p95, p99, and twice
//! the p95. They do not move afterwards. Then requests are counted that are above them, and the counts
//! are compared as failures are in [`super::errors`]. A request of green counts only if it is above the
//! reference by more than the tolerance, so green may be slower by that at no risk: if green's
//! latencies are blue's times `1 + slower_ratio` plus `slower`, the counts come alike. This is a test on
//! ranks (Mood's median test, and the same for other quantiles, G. Brown and A. Mood 1951), so it does
//! not matter how latencies are distributed.

use super::histogram::{Edge, Histogram};
use super::ledger::{Cell, Ledger, Rule, Sample};
use super::{ALPHA_PER_DEPLOYMENT, Arm, Split, StratumId, Verdict, within};
use std::time::Duration;

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Chance of a false [`Verdict::Worse`] in the whole deployment. Above 0, at most 1. Default half of
    /// [`ALPHA_PER_DEPLOYMENT`].
    pub alpha: f64,
    /// Chance of a false [`Verdict::NotWorse`] in one step. Default 0.05.
    pub promote_alpha: f64,
    /// How green gets its share. Default [`Split::Tenants`].
    pub split: Split,
    /// Green may be slower by this part of blue's latency. Default 0.25.
    pub slower_ratio: f64,
    /// And by this much. Default 2 ms.
    pub slower: Duration,
    /// Odds ratio of being above a reference, tolerance included, that green must be shown to stay below
    /// to be held not worse. Above 1. Default 2.
    pub margin: f64,
    /// Fewest requests on blue that can give a stratum its references. At least 1. Default 100.
    pub reference_min: u64,
    /// That many are enough; with fewer, they are taken when green's first request arrives. Default 500.
    pub reference_max: u64,
}

/// The judge of latency, for one deployment.
#[derive(Clone, Debug)]
pub struct Latency {
    config: Config,
    ledger: Ledger<LEVELS>,
    own: Vec<Reference>,
    /// Of all blue's requests.
    all: Reference,
    /// Whether `all` was there when the second began.
    all_at: Option<Limits>,
}

const LEVELS: usize = 4;
const NAMES: [&str; LEVELS] = [
    "slower than blue's median",
    "slower than blue's p95",
    "slower than blue's p99",
    "slower than twice blue's p95",
];
/// Levels that have to be shown not worse. Twice the p95 is too rare to show anything there.
const PROMOTE: usize = 3;

/// Reference latencies, once there were enough requests.
#[derive(Clone, Debug)]
enum Reference {
    Learning(Box<Histogram>),
    Fixed(Limits),
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    blue: [Edge; LEVELS],
    /// With the tolerance.
    green: [Edge; LEVELS],
}

impl Default for Config {
    fn default() -> Self {
        Self {
            alpha: ALPHA_PER_DEPLOYMENT / 2.0,
            promote_alpha: 0.05,
            split: Split::Tenants,
            slower_ratio: 0.25,
            slower: Duration::from_millis(2),
            margin: 2.0,
            reference_min: 100,
            reference_max: 500,
        }
    }
}

impl Latency {
    /// A judge of a deployment with so many strata (see [`super::Strata::len`]).
    pub fn new(strata: usize, config: Config) -> Self {
        let strata = strata.clamp(1, super::STRATA_MAX);
        let rule = Rule {
            alpha: config.alpha,
            promote_alpha: config.promote_alpha,
            tolerated: 1.0,
            margin: config.margin,
            split: config.split,
        };
        Self {
            config,
            ledger: Ledger::new(strata, rule),
            own: vec![Reference::default(); strata],
            all: Reference::default(),
            all_at: None,
        }
    }

    /// Adds the latencies of answered requests to the open second. One call for each stratum and arm
    /// that had any is cheapest: a call costs about a microsecond, however much is in the histogram.
    pub fn record(&mut self, stratum: StratumId, arm: Arm, latencies: &Histogram) {
        let known = stratum.index() < self.own.len();
        let place = if known { stratum.index() } else { 0 };
        if arm == Arm::Green {
            self.own[place].fix(self.config.reference_min, &self.config);
        }
        let requests = u32::try_from(latencies.count()).unwrap_or(u32::MAX);
        let cell = |edges: &[Edge; LEVELS]| Cell {
            requests,
            events: edges
                .map(|edge| u32::try_from(latencies.count_above(edge)).unwrap_or(u32::MAX)),
        };
        let by = |limits: &Limits| match arm {
            Arm::Green => cell(&limits.green),
            Arm::Before | Arm::Beside => cell(&limits.blue),
        };
        // What teaches a reference is not counted against it as well.
        let own = match &self.own[place] {
            Reference::Fixed(limits) if arm != Arm::Beside => Some(by(limits)),
            Reference::Fixed(_) | Reference::Learning(_) => None,
        };
        let all = self.all_at.as_ref().map(by).unwrap_or_default();
        let sample = Sample { own, all };
        self.ledger.record(stratum, arm, &sample);
        if arm == Arm::Before {
            self.own[place].learn(latencies, &self.config);
        }
        if arm != Arm::Green {
            self.all.learn(latencies, &self.config);
        }
    }

    /// Closes the second. Call it once a second, also when nothing happened. Tens of microseconds.
    pub fn close(&mut self) {
        self.ledger.close();
        // Only between seconds, so that no second is counted in part.
        if let Reference::Fixed(limits) = &self.all {
            self.all_at = Some(*limits);
        }
    }

    /// Begins a step of the canary. Evidence that green is worse is kept, since its bound is for the
    /// whole deployment; that it is not worse has to be shown anew.
    pub fn begin_step(&mut self) {
        self.ledger.begin_step();
    }

    /// What can be said now. May be asked at any time, as often as wished.
    pub fn look(&self) -> Verdict {
        let mut finding = self.ledger.finding(NAMES);
        // All of them have to be shown, so none has to be shown more surely than by itself.
        let levels = (0..PROMOTE).map(|level| self.ledger.not_worse(level));
        finding.not_worse = levels.fold(f64::INFINITY, f64::min);
        finding.verdict(true)
    }
}

// === impl Reference ===

impl Default for Reference {
    fn default() -> Self {
        Self::Learning(Box::default())
    }
}

impl Reference {
    fn learn(&mut self, latencies: &Histogram, config: &Config) {
        if let Self::Learning(seen) = self {
            seen.merge(latencies);
        }
        self.fix(config.reference_max.max(config.reference_min), config);
    }

    /// Ends learning, if there were so many requests.
    fn fix(&mut self, requests_min: u64, config: &Config) {
        let Self::Learning(seen) = self else { return };
        if seen.count() < requests_min.max(1) {
            return;
        }
        if let Some(limits) = Limits::of(seen, config) {
            *self = Self::Fixed(limits);
        }
    }
}

impl Limits {
    fn of(seen: &Histogram, config: &Config) -> Option<Self> {
        let [median, p95, p99] = [0.5, 0.95, 0.99].map(|q| seen.quantile_edge(q));
        let (median, p95, p99) = (median?, p95?, p99?);
        let far = Edge::at_least(p95.latency() * 2);
        let blue = [median, p95, p99, far];
        let ratio = 1.0 + within(config.slower_ratio, 0.0, 1e3);
        Some(Self {
            blue,
            green: blue.map(|edge| {
                let scaled = edge.latency().mul_f64(ratio);
                Edge::at_least(scaled.saturating_add(config.slower))
            }),
        })
    }
}
