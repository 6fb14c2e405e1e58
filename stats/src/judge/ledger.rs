//! What both sequential judges share: which requests of green are compared with which of blue.
//!
//! Seconds are closed one by one. In each, and for each stratum, green's requests are compared with what
//! blue answered for the same tenants before they moved: tenants differ from each other far more than
//! colours do. Each request of blue is used once. Where a stratum has no such requests left, its green
//! requests join *the rest*, which is compared with what blue answers for others in the same second, and
//! is allowed to be above that by as much as the same tenants may have been above the others when all were
//! on blue. Where nothing is known of that, the rest says nothing. Where single requests are split, a stratum's requests of the same second are all there is to compare.
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

use super::odds::{Grid, LogSum, Odds, Table, log_mean, sane_odds};
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
/// Seconds in which a change of the hour is looked for, in all of them and in the last one.
const RECENT_MAX: usize = 5;
/// So many standard errors above what was is a clear change.
const CLEAR: f64 = 2.0;
/// A change by more than this counts as this: the logarithm of a million.
const DRIFT_MAX: f64 = 13.8;

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
    /// The last seconds of those that stay, the newest last.
    recent: VecDeque<Cell<L>>,
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

/// What a stratum and those that stay had while all were on blue, in the same seconds, the older ones
/// with less weight. Used ones stay.
#[derive(Clone, Copy, Debug, Default)]
struct Past<const L: usize> {
    stratum: Cell<L>,
    others: Cell<L>,
    seconds: usize,
}

/// Logarithms of odds ratios that are allowed for.
#[derive(Clone, Copy, Debug)]
struct Allowed<const L: usize> {
    /// When green is to be shown worse, and when it is to be shown not worse.
    worse: [f64; L],
    not_worse: [f64; L],
}

/// Bets from one second on.
#[derive(Clone, Debug)]
struct Start<const L: usize> {
    /// Logarithm of its part of the stake.
    stake: f64,
    common: [Odds; L],
    /// One for each stratum, then the rest.
    strata: Vec<[Odds; L]>,
}

/// How much more the events of blue vary from second to second than if they came independently.
#[derive(Clone, Copy, Debug, Default)]
struct Bursts {
    last: Count,
    all: Count,
    seconds: u32,
    observed: f64,
    expected: f64,
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
            recent: VecDeque::new(),
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
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(others);
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
                let allowed = self.drift_since(&past.others);
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

    /// The odds of those that stay, now to those of `hour`, as far as they are clearly higher.
    fn drift_since(&self, hour: &Cell<L>) -> Allowed<L> {
        let mut allowed = Allowed::nothing();
        if self.rule.split == Split::Requests || hour.requests == 0 {
            return allowed;
        }
        let mut recent = Cell::default();
        let mut windows = [Cell::default(); 2];
        for (age, cell) in self.recent.iter().rev().enumerate() {
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

fn none<const L: usize>() -> [Odds; L] {
    std::array::from_fn(|_| Odds::default())
}

/// A chance that can be divided by.
fn bounded(alpha: f64) -> f64 {
    within(alpha, 1e-12, 1.0)
}

// === impl Start ===

/// The odds that say most.
struct Most<'a> {
    evidence: f64,
    odds: &'a Odds,
    level: usize,
    stratum: Option<usize>,
}

impl<const L: usize> Start<L> {
    fn new(strata: usize, stake: f64) -> Self {
        Self {
            stake: stake.ln(),
            common: none(),
            strata: std::iter::repeat_with(none).take(strata + 1).collect(),
        }
    }

    /// Logarithm of the evidence at one level. Keeps in `most` what says most.
    fn evidence<'a>(&'a self, level: usize, tolerated: usize, most: &mut Most<'a>) -> f64 {
        let common = self.common[level].above(tolerated);
        most.consider(self.stake + common, &self.common[level], level, None);
        let slots = (self.strata.len() as f64).ln();
        let mut single = LogSum::default();
        for (index, odds) in self.strata.iter().enumerate() {
            let evidence = odds[level].above(tolerated);
            single.add(evidence - slots);
            most.consider(self.stake + evidence, &odds[level], level, Some(index));
        }
        log_mean([common, single.log()].into_iter())
    }
}

impl<'a> Most<'a> {
    fn of<const L: usize>(start: &'a Start<L>) -> Self {
        Self {
            evidence: f64::NEG_INFINITY,
            odds: &start.common[0],
            level: 0,
            stratum: None,
        }
    }

    fn consider(&mut self, evidence: f64, odds: &'a Odds, level: usize, stratum: Option<usize>) {
        // A stratum that says all there is to say is named.
        let more = match stratum {
            None => evidence > self.evidence,
            Some(_) => evidence >= self.evidence && evidence > 0.0,
        };
        if more && odds.green.requests > 0 {
            (self.evidence, self.odds) = (evidence, odds);
            (self.level, self.stratum) = (level, stratum);
        }
    }
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
        if before_rest.requests > 0 {
            self.past.push(&before_rest, others);
        }
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

// === impl Past ===

impl<const L: usize> Past<L> {
    fn push(&mut self, stratum: &Cell<L>, others: &Cell<L>) {
        if self.seconds == WAITING_MAX {
            self.stratum.halve();
            self.others.halve();
            self.seconds /= 2;
        }
        self.stratum.add(stratum);
        self.others.add(others);
        self.seconds += 1;
    }

    fn add(&mut self, other: &Self) {
        self.stratum.add(&other.stratum);
        self.others.add(&other.others);
    }

    /// By how much the stratum was above the others: at most, to be shown worse than that; about, to be
    /// shown not worse.
    fn difference(&self) -> Allowed<L> {
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

impl<const L: usize> Allowed<L> {
    fn nothing() -> Self {
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

// === impl Bursts ===

impl Bursts {
    /// Seconds before the variation is believed.
    const SECONDS_MIN: u32 = 20;
    /// Errors that come ten at a time count for one; more than that is not discounted.
    const MOST: f64 = 10.0;

    /// Compares with the second before, so that a rate that changes slowly is no burst (J. von Neumann
    /// 1941: mean square successive difference).
    fn observe(&mut self, now: Count) {
        if now.requests == 0 {
            return;
        }
        self.all.add(now);
        let (last, share) = (self.last, self.all.share());
        if last.requests > 0 {
            let inverse = (now.requests as f64).recip() + (last.requests as f64).recip();
            let variance = share * (1.0 - share).max(0.0);
            // A second in which hardly an event is expected says hardly anything.
            let events = share / inverse;
            let trust = events / (1.0 + events);
            self.observed += trust * (now.share() - last.share()).powi(2) / inverse;
            self.expected += trust * variance;
            self.seconds = self.seconds.saturating_add(1);
        }
        self.last = now;
    }

    /// One over the index of dispersion: what evidence is worth where events come in bursts (a
    /// quasi-likelihood, R. Wedderburn 1974). Never above 1.
    fn weight(&self) -> f64 {
        if self.seconds < Self::SECONDS_MIN || self.expected <= 0.0 {
            return 1.0;
        }
        (self.observed / self.expected)
            .clamp(1.0, Self::MOST)
            .recip()
    }
}
