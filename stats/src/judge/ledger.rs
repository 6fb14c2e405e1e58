//! What both sequential judges share: which requests of green are compared with which of blue.
//!
//! Seconds are closed one by one. In each, and for each stratum, green's requests are compared with what
//! blue answered for the same tenants before they moved: tenants differ from each other far more than
//! colours do. Each request of blue is used once. Where a stratum has no such requests left, its green
//! requests join *the rest*, which is compared with what blue answers for others in the same second, and
//! is allowed to be above that by as much as the same tenants may have been above the others when all were
//! on blue. Where nothing is known of that, the rest says nothing. Where single requests are split, a
//! stratum's requests of the same second are all there is to compare.
//!
//! Evidence that green is worse is the mean of two bets: one on an odds ratio that all strata have in
//! common (the product over strata), and one on a single stratum (the mean over strata). A mean of bets
//! is a bet, whatever they have to do with each other. Half of the stake is laid at the beginning. The
//! other half is laid out over later starts, one every [`START_EVERY`] seconds, so that a green which
//! was good for an hour is not believed for another one after it has turned bad (the e-detector of
//! J. Shin, A. Ramdas, A. Rinaldo 2024 does the same with unbounded starts).
//!
//! Between what tenants had before and what they have now, the hour may have changed. That shows in those
//! who stay on blue: where their odds now are clearly above what they were while the reference was
//! gathered, green is allowed to be above it by as much (differences in differences). So a bad hour of
//! what both colours rely on is not held against green. This can only take evidence away.

mod bursts;
mod past;
mod start;

use self::bursts::Bursts;
use self::past::{Allowed, Past, Recent};
use self::start::{Most, Start, none};
use super::odds::{Grid, LogSum, Odds, Table, sane_odds};
use super::{Arm, Count, Finding, Split, StratumId, within};
use std::collections::VecDeque;

/// Seconds with requests of blue that a stratum keeps for comparison; the oldest go first.
const WAITING_MAX: usize = 256;
/// Of those that wait, green's second gets one in so many, so that they last for a few minutes.
const WAITING_SHARE: usize = 32;
/// Seconds between starts.
const START_EVERY: u32 = 30;
/// Later starts that are followed; the stake of older ones is given up.
const STARTS_MAX: usize = 4;
/// Requests of one arm and stratum in one second, and how many of them had each of `L` events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell<const L: usize> {
    pub(crate) requests: u32,
    pub(crate) events: [u32; L],
}

/// How the same requests count in each comparison.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample<const L: usize> {
    /// With the stratum itself; `None` where it cannot be compared yet.
    pub(crate) own: Option<Cell<L>>,
    /// With what others do in the same second.
    pub(crate) all: Cell<L>,
}

/// Bounds of a judgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) alpha: f64,
    pub(crate) promote_alpha: f64,
    pub(crate) tolerated: f64,
    pub(crate) margin: f64,
    pub(crate) split: Split,
}

/// All comparisons of one judge.
#[derive(Clone, Debug)]
pub(crate) struct Ledger<const L: usize> {
    rule: Rule,
    grid: Grid,
    strata: Vec<Stratum<L>>,
    /// The first one from the beginning, then later starts, the oldest first.
    starts: VecDeque<Start<L>>,
    /// Closed ones, from the first with green on.
    seconds: u32,
    /// What strata have in common, since the last step began.
    step: [Odds; L],
    /// Blue's requests of the second, for tenants that will move and for those that stay.
    movers: Cell<L>,
    others: Cell<L>,
    recent: Recent<L>,
    /// Logarithms of the changes of the hour that were allowed for in the last second with green.
    drift: [f64; L],
    bursts: [Bursts; L],
}

/// Requests of a stratum that are still to be compared.
#[derive(Clone, Debug)]
struct Stratum<const L: usize> {
    waiting: VecDeque<Cell<L>>,
    past: Past<L>,
    green: Cell<L>,
    /// The same requests as `green`, as the rest counts them.
    green_rest: Cell<L>,
    /// Of this second, before it waits; and as the rest counts it.
    before: Cell<L>,
    before_rest: Cell<L>,
}

// === impl Cell ===

impl<const L: usize> Default for Cell<L> {
    fn default() -> Self {
        Self {
            requests: 0,
            events: [0; L],
        }
    }
}

impl<const L: usize> Cell<L> {
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        for (mine, theirs) in self.events.iter_mut().zip(&other.events) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    fn halve(&mut self) {
        self.requests /= 2;
        self.events = self.events.map(|events| events / 2);
    }

    fn count(&self, level: usize) -> Count {
        Count {
            requests: self.requests.into(),
            events: self.events[level].into(),
        }
    }
}

// === impl Ledger ===

impl<const L: usize> Ledger<L> {
    pub(crate) fn new(strata: usize, rule: Rule) -> Self {
        let strata = strata.clamp(1, super::STRATA_MAX);
        let rule = Rule {
            tolerated: sane_odds(rule.tolerated),
            margin: sane_odds(rule.margin),
            ..rule
        };
        Self {
            rule,
            grid: Grid::with(rule.tolerated, rule.margin),
            strata: vec![Stratum::default(); strata],
            starts: VecDeque::from([Start::new(strata, 0.5)]),
            seconds: 0,
            step: none(),
            movers: Cell::default(),
            others: Cell::default(),
            recent: Recent::default(),
            drift: [0.0; L],
            bursts: [Bursts::default(); L],
        }
    }

    /// Adds requests to the second that is open. A stratum that was never chosen is the pool.
    pub(crate) fn record(&mut self, stratum: StratumId, arm: Arm, sample: &Sample<L>) {
        let known = stratum.index() < self.strata.len();
        let stratum = &mut self.strata[if known { stratum.index() } else { 0 }];
        match arm {
            Arm::Green => {
                stratum.green_rest.add(&sample.all);
                if let Some(own) = &sample.own {
                    stratum.green.add(own);
                }
            }
            Arm::Before => {
                self.movers.add(&sample.all);
                stratum.before_rest.add(&sample.all);
                if let Some(own) = &sample.own {
                    stratum.before.add(own);
                }
            }
            Arm::Beside => self.others.add(&sample.all),
        }
    }

    /// Closes the second: everything in it is compared, and counts from the next look on.
    pub(crate) fn close(&mut self) {
        let others = std::mem::take(&mut self.others);
        self.recent.push(others);
        self.drift = [0.0; L];
        let mut rest = Cell::default();
        let mut rest_past = Past::default();
        let mut has_green = false;
        for index in 0..self.strata.len() {
            let stratum = &mut self.strata[index];
            let (green, green_rest) = stratum.open(self.rule.split, &others);
            has_green |= green.requests > 0 || green_rest.requests > 0;
            let taken = (green.requests > 0).then(|| stratum.take_waiting());
            let past = stratum.past;
            if let Some(reference) = taken.flatten() {
                let allowed = self.recent.since(&past.others);
                self.compare(&green, &reference, index, &allowed);
                for (shown, one) in self.drift.iter_mut().zip(allowed.worse) {
                    *shown = shown.max(one);
                }
            } else if green_rest.requests > 0 {
                rest.add(&green_rest);
                rest_past.add(&past);
            }
        }
        self.compare(&rest, &others, self.strata.len(), &rest_past.difference());
        let mut blue = std::mem::take(&mut self.movers);
        blue.add(&others);
        for (level, bursts) in self.bursts.iter_mut().enumerate() {
            bursts.observe(blue.count(level));
        }
        // Starts before green would be a waste of the stake.
        if self.seconds > 0 || has_green {
            self.seconds = self.seconds.saturating_add(1);
            if self.seconds.is_multiple_of(START_EVERY) {
                self.start();
            }
        }
    }

    /// Lays the next part of the second half of the stake: 1/2, 1/6, 1/12 and so on of it, all of which
    /// add up to the half.
    fn start(&mut self) {
        let number = f64::from(self.seconds / START_EVERY);
        if self.starts.len() > STARTS_MAX {
            self.starts.remove(1);
        }
        let stake = 0.5 / (number * (number + 1.0));
        self.starts.push_back(Start::new(self.strata.len(), stake));
    }

    fn compare(
        &mut self,
        green: &Cell<L>,
        reference: &Cell<L>,
        stratum: usize,
        allowed: &Allowed<L>,
    ) {
        if green.requests == 0 || reference.requests == 0 {
            return;
        }
        for level in 0..L {
            let table = table(green, reference, level);
            let weight = self.bursts[level].weight();
            let worse = allowed.worse[level];
            let likelihood = self.grid.likelihood(table, worse);
            for start in &mut self.starts {
                start.common[level].add(table, likelihood.as_ref(), weight, worse);
                start.strata[stratum][level].add(table, likelihood.as_ref(), weight, worse);
            }
            let not_worse = allowed.not_worse[level];
            let likelihood = match not_worse == worse {
                true => likelihood,
                false => self.grid.likelihood(table, not_worse),
            };
            self.step[level].add(table, likelihood.as_ref(), weight, not_worse);
        }
    }

    /// Begins a step: what is shown about green being no worse is to be shown anew.
    pub(crate) fn begin_step(&mut self) {
        self.step = none();
    }

    /// The evidence as it stands; `names` are those of the levels.
    pub(crate) fn finding(&self, names: [&'static str; L]) -> Finding {
        let tolerated = self.grid.point(self.rule.tolerated);
        let mut most = Most::of(&self.starts[0]);
        let mut total = LogSum::default();
        for start in &self.starts {
            for level in 0..L {
                total.add(start.stake + start.evidence(level, tolerated, &mut most));
            }
        }
        let alpha = bounded(self.rule.alpha);
        let levels = (L as f64).ln();
        Finding {
            what: names[most.level],
            // The rest is no group of tenants that a reader could look up.
            stratum: most
                .stratum
                .filter(|&index| index < self.strata.len())
                .and_then(|index| u8::try_from(index).ok())
                .map(StratumId),
            green: most.odds.green,
            reference: most.odds.reference,
            estimate: most.odds.estimate(),
            interval: most.odds.interval(&self.grid, -alpha.ln()),
            tolerated: self.rule.tolerated,
            evidence: exp(total.log() - levels),
            evidence_min: alpha.recip(),
            drift: self.drift[most.level].exp(),
            not_worse: 0.0,
            not_worse_min: bounded(self.rule.promote_alpha).recip(),
        }
    }

    /// Evidence that, in this step, green's odds ratio is below the margin.
    pub(crate) fn not_worse(&self, level: usize) -> f64 {
        exp(self.step[level].below(self.grid.point(self.rule.margin)))
    }

    /// The weight of the open second's bets. Known before its events are.
    pub(crate) fn weight(&self, level: usize) -> f64 {
        self.bursts[level].weight()
    }
}

/// A chance that can be divided by.
fn bounded(alpha: f64) -> f64 {
    within(alpha, 1e-12, 1.0)
}

/// `exp` that stays a number.
pub(crate) fn exp(log: f64) -> f64 {
    log.min(700.0).exp()
}

fn table<const L: usize>(green: &Cell<L>, reference: &Cell<L>, level: usize) -> Table {
    Table {
        green: green.count(level),
        reference: reference.count(level),
    }
}

// === impl Stratum ===

impl<const L: usize> Default for Stratum<L> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            past: Past::default(),
            green: Cell::default(),
            green_rest: Cell::default(),
            before: Cell::default(),
            before_rest: Cell::default(),
        }
    }
}

impl<const L: usize> Stratum<L> {
    /// Puts blue's requests of the second with those that wait, and gives green's.
    fn open(&mut self, split: Split, others: &Cell<L>) -> (Cell<L>, Cell<L>) {
        let before = std::mem::take(&mut self.before);
        let before_rest = std::mem::take(&mut self.before_rest);
        if split == Split::Requests {
            self.waiting.clear();
        }
        if before.requests > 0 {
            if self.waiting.len() == WAITING_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back(before);
        }
        self.past.push(&before_rest, others);
        (
            std::mem::take(&mut self.green),
            std::mem::take(&mut self.green_rest),
        )
    }

    /// The newest of those that wait; how many is decided by how many there are, not by what is in them.
    fn take_waiting(&mut self) -> Option<Cell<L>> {
        let mut taken = self.waiting.pop_back()?;
        for _ in 0..(self.waiting.len() / WAITING_SHARE) {
            if let Some(cell) = self.waiting.pop_back() {
                taken.add(&cell);
            }
        }
        Some(taken)
    }
}
