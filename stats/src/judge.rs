//! Judges of one colour beside the other: is green worse than blue?
//!
//! | judge | looks at | answers within | wrong how often |
//! |---|---|---|---|
//! | [`fast`] | totals of the last seconds, by thresholds | a second | as its thresholds are chosen |
//! | [`errors`] | failed requests, by a sequential test | thousands of requests | `alpha` for a whole deployment |
//! | [`latency`] | requests above quantiles of blue, by the same test | hundreds of requests | likewise |
//!
//! The sequential ones may be asked at every second of every step: their bound on false alarms covers
//! all looks together. What they compare and why that is valid stands in `docs/judges.md`.
//!
//! ```
//! use hub_stats::judge::{Arm, Strata, Verdict, errors::Errors};
//!
//! let strata = Strata::choose([(7, 90_000), (8, 12)], 1_000, 1);
//! let mut errors = Errors::new(strata.len(), Default::default());
//! for second in 0..200 {
//!     let arm = if second < 100 { Arm::Before } else { Arm::Green };
//!     let failed = if second < 100 { second % 20 / 19 } else { second % 2 };
//!     errors.record(strata.of(7, 0), arm, 50, failed);
//!     errors.record(strata.of(9, 0), Arm::Beside, 900, second % 2);
//!     errors.close();
//! }
//! let Verdict::Worse(finding) = errors.look() else { panic!("1 % of green's requests fail") };
//! assert!(finding.to_string().contains("50 of 5000"), "{finding}");
//! ```
//!
//! Invariant: state is bounded by the number of strata, which is at most [`STRATA_MAX`], whatever
//! tenants do; no sample, however odd, makes a judge panic or its evidence something else than a number.

pub mod errors;
pub mod fast;
pub mod histogram;
pub mod latency;
mod ledger;
mod odds;

use std::collections::BTreeMap;
use std::fmt;

/// Chance of rolling back a green that is no worse than blue, for one deployment, over all sequential
/// judges, looks and steps. [`errors::Config`] and [`latency::Config`] take half of it each.
pub const ALPHA_PER_DEPLOYMENT: f64 = 0.01;

/// Most strata of one deployment: [`POOLS_MAX`] pools, and tenants of their own.
pub const STRATA_MAX: usize = 40;

/// Most pools of one deployment.
pub const POOLS_MAX: usize = 8;

/// How green gets its share of the traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// Whole tenants move. They are compared with what they had before, and allowance is made for
    /// what has changed for those that stay.
    #[default]
    Tenants,
    /// Any request may go to either colour. Tenants are compared with themselves in the same second.
    Requests,
}

/// What a request says about green: who answered it, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Green answered.
    Green,
    /// Blue answered, for a tenant that this deployment moves to green in a coming step. Green is
    /// measured by what its tenants had before. With [`Split::Requests`] all that blue answers is of
    /// this arm.
    Before,
    /// Blue answered, for a tenant that stays. It tells a bad hour from a bad colour.
    Beside,
}

/// One of the groups that are compared with themselves: a tenant of much traffic, or a pool of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StratumId(u8);

impl StratumId {
    /// The pool of those that move in the first step.
    pub const POOL: Self = Self(0);

    /// Position among the strata of a deployment; pools come first.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for StratumId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stratum {}", self.0)
    }
}

/// Which tenant belongs to which stratum. Chosen once, before the first look, from traffic that went
/// before: strata chosen by what the judges have seen would void their bound.
#[derive(Clone, Debug)]
pub struct Strata {
    own: BTreeMap<u64, StratumId>,
    pools: u8,
}

impl Strata {
    /// Gives a stratum of its own to each tenant (any key of 64 bits) with at least `requests_min`
    /// requests, the busiest first, as long as there is room. The others are pooled with those that move
    /// in the same one of `steps` steps, so that a pool moves as one; steps past [`POOLS_MAX`] share the
    /// last pool. Holds no more than it keeps.
    pub fn choose(
        traffic: impl IntoIterator<Item = (u64, u64)>,
        requests_min: u64,
        steps: usize,
    ) -> Self {
        const OWN_MAX: usize = STRATA_MAX - POOLS_MAX;
        let mut busiest: Vec<(u64, u64)> = Vec::with_capacity(OWN_MAX);
        for (tenant, requests) in traffic {
            let place = busiest.partition_point(|&(other, _)| other >= requests);
            if requests < requests_min || place >= OWN_MAX {
                continue;
            }
            busiest.truncate(OWN_MAX - 1);
            busiest.insert(place, (requests, tenant));
        }
        let pools = u8::try_from(steps.clamp(1, POOLS_MAX)).unwrap_or(1);
        let ids = (pools..).map(StratumId);
        Self {
            own: busiest.into_iter().map(|(_, key)| key).zip(ids).collect(),
            pools,
        }
    }

    /// The stratum of a tenant that moves in step `step`, counted from 0. A look-up among few.
    pub fn of(&self, tenant: u64, step: usize) -> StratumId {
        let pool = step.min(usize::from(self.pools) - 1);
        let pool = StratumId(u8::try_from(pool).unwrap_or(0));
        self.own.get(&tenant).copied().unwrap_or(pool)
    }

    /// The tenant that has `stratum` to itself; `None` for a pool.
    pub fn tenant(&self, stratum: StratumId) -> Option<u64> {
        let mut own = self.own.iter();
        own.find_map(|(tenant, id)| (*id == stratum).then_some(*tenant))
    }

    /// Strata, pools included: 1 to [`STRATA_MAX`].
    #[expect(clippy::len_without_is_empty, reason = "there is always a pool")]
    pub fn len(&self) -> usize {
        self.own.len() + usize::from(self.pools)
    }
}

/// What a sequential judge says at a look.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Neither is shown yet.
    Continue(Finding),
    /// Green is worse than what is tolerated: roll back.
    Worse(Finding),
    /// Green is shown to be within the margin in this step, and not half suspected of being worse: it
    /// may have more traffic.
    NotWorse(Finding),
}

/// The numbers behind a [`Verdict`].
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What was counted, such as `failed` or `slower than blue's p99`.
    pub what: &'static str,
    /// The stratum that says most, if it says more than all of them together.
    pub stratum: Option<StratumId>,
    /// Green's requests that were compared.
    pub green: Count,
    /// Blue's requests that they were compared with.
    pub reference: Count,
    /// Estimated odds of the event on green over those on blue (Mantel and Haenszel); infinite where
    /// blue had none.
    pub estimate: f64,
    /// Odds ratios that the data do not refute, at every look at once.
    pub interval: (f64, f64),
    /// Up to this odds ratio green is tolerated.
    pub tolerated: f64,
    /// Evidence that green is worse: a bet that pays this much, and on average no more than 1 if green
    /// is tolerable.
    pub evidence: f64,
    /// The evidence at which green is judged worse.
    pub evidence_min: f64,
    /// Times by which the odds of those that stay on blue have clearly risen since green's tenants were
    /// on blue; allowed for. 1 if they have not.
    pub drift: f64,
    /// Evidence that green is within the margin, in this step.
    pub not_worse: f64,
    /// The evidence at which it is believed.
    pub not_worse_min: f64,
}

/// Requests, and those with the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All requests.
    pub requests: u64,
    /// Requests with the event.
    pub events: u64,
}

// === impl Verdict ===

impl Verdict {
    /// The numbers, whatever the verdict.
    pub fn finding(&self) -> &Finding {
        match self {
            Self::Continue(finding) | Self::Worse(finding) | Self::NotWorse(finding) => finding,
        }
    }

    /// Whether green has to go.
    pub fn is_worse(&self) -> bool {
        matches!(self, Self::Worse(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Continue(_) => "undecided",
            Self::Worse(_) => "worse",
            Self::NotWorse(_) => "not worse",
        };
        write!(f, "{word}: {}", self.finding())
    }
}

// === impl Count ===

impl Count {
    /// Share of requests with the event; 0 of none.
    pub fn share(self) -> f64 {
        if self.requests == 0 {
            return 0.0;
        }
        self.events as f64 / self.requests as f64
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.share() * 100.0;
        write!(f, "{} of {} ({percent:.3} %)", self.events, self.requests)
    }
}

impl Finding {
    /// The verdict that follows; `matters` is whether green may be held worse at all.
    fn verdict(self, matters: bool) -> Verdict {
        if matters && self.evidence >= self.evidence_min {
            Verdict::Worse(self)
        } else if self.not_worse >= self.not_worse_min && self.evidence < self.evidence_min.sqrt() {
            // Half way to being worse is no time for more traffic.
            Verdict::NotWorse(self)
        } else {
            Verdict::Continue(self)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.interval;
        write!(f, "{}", self.what)?;
        if let Some(stratum) = self.stratum {
            write!(f, " for {stratum}")?;
        }
        write!(
            f,
            ": {} on green, {} on blue; odds ratio {:.2} ({low:.2} to {high:.2}), tolerated {:.2}; \
             evidence {:.3e} of {:.0}",
            self.green,
            self.reference,
            self.estimate,
            self.tolerated,
            self.evidence,
            self.evidence_min,
        )?;
        if self.drift > 1.0 {
            write!(
                f,
                ", allowing for {:.2} times the odds of before on blue",
                self.drift
            )?;
        }
        write!(
            f,
            "; not worse {:.3e} of {:.0}",
            self.not_worse, self.not_worse_min
        )
    }
}

/// The value, or the nearest of the bounds; the lower one for what is not a number.
fn within(value: f64, low: f64, high: f64) -> f64 {
    if value > low { value.min(high) } else { low }
}

#[cfg(test)]
mod tests;
