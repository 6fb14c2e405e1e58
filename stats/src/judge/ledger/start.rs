//! Bets from one second on, over all strata and levels.

use crate::judge::odds::{LogSum, Odds, log_mean};

/// Bets from one second on.
#[derive(Clone, Debug)]
pub(super) struct Start<const L: usize> {
    /// Logarithm of its part of the stake.
    pub(super) stake: f64,
    pub(super) common: [Odds; L],
    /// One for each stratum, then the rest.
    pub(super) strata: Vec<[Odds; L]>,
}

/// The odds that say most.
pub(super) struct Most<'a> {
    evidence: f64,
    pub(super) odds: &'a Odds,
    pub(super) level: usize,
    pub(super) stratum: Option<usize>,
}

impl<const L: usize> Start<L> {
    pub(super) fn new(strata: usize, stake: f64) -> Self {
        Self {
            stake: stake.ln(),
            common: none(),
            strata: std::iter::repeat_with(none).take(strata + 1).collect(),
        }
    }

    /// Logarithm of the evidence at one level. Keeps in `most` what says most.
    pub(super) fn evidence<'a>(
        &'a self,
        level: usize,
        tolerated: usize,
        most: &mut Most<'a>,
    ) -> f64 {
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
    pub(super) fn of<const L: usize>(start: &'a Start<L>) -> Self {
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

pub(super) fn none<const L: usize>() -> [Odds; L] {
    std::array::from_fn(|_| Odds::default())
}
