//! The judges of one rollout: samples in, verdicts out. Pure but for the clock that the caller brings.

use super::metrics::Cause;
use super::plan::{Plan, WHOLE};
use super::watch::{Ending, Sample};
use hub_stats::judge::errors::{self, Errors};
use hub_stats::judge::fast::{self, Bucket, Guard};
use hub_stats::judge::histogram::Histogram;
use hub_stats::judge::latency::{self, Latency};
use hub_stats::judge::{Arm, Strata, StratumId, Verdict};
use std::collections::BTreeMap;
use std::time::Duration;

/// Tenants with this many requests so far are compared with themselves.
const OWN_STRATUM_REQUESTS: u64 = 10_000;

/// Fewer missing requests than this may be chance.
const MISSED_MIN: f64 = 20.0;

/// What the judges say of the routing that they watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Nothing yet.
    Undecided,
    /// The new colour is not worse.
    Pass,
    /// It is, or nothing is known of it: which rule says so, and its numbers.
    Fail(Cause, String),
}

/// All judges of one rollout.
#[derive(Debug)]
pub struct Bench {
    strata: Strata,
    guard: Guard,
    errors: Errors,
    latency: Latency,
    /// Which second is open, and what came in it for the sequential judges.
    second: u64,
    open: BTreeMap<(StratumId, usize), Cell>,
    /// Both colours in the part of a second since the last look.
    judged: Bucket,
    other: Bucket,
    /// Requests of the new colour in this step, and the epoch of its routing.
    requests: u64,
    epoch: u64,
    /// Part of the tenants that is on the new colour in this step, in ten-thousandths.
    share: u16,
    /// Shares of the stages, in ten-thousandths.
    shares: Vec<u16>,
    judging: bool,
}

#[derive(Debug, Default)]
struct Cell {
    requests: u32,
    failed: u32,
    latency: Histogram,
}

impl Bench {
    /// Judges of a rollout that begins at second `now`. `traffic` is what each tenant (by
    /// [`Sample::who`]) asked before.
    pub fn new(plan: &Plan, traffic: impl IntoIterator<Item = (u64, u64)>, now: u64) -> Self {
        let shares: Vec<u16> = plan.stages.iter().map(|stage| stage.share).collect();
        let strata = Strata::choose(traffic, OWN_STRATUM_REQUESTS, shares.len() + 1);
        Self {
            guard: Guard::new(fast::Config::default(), now),
            errors: Errors::new(strata.len(), errors::Config::default()),
            latency: Latency::new(strata.len(), latency::Config::default()),
            strata,
            second: now,
            open: BTreeMap::new(),
            judged: Bucket::default(),
            other: Bucket::default(),
            requests: 0,
            epoch: 0,
            share: 0,
            shares,
            judging: false,
        }
    }

    /// A step begins at second `now`, with the routing of `epoch`, by which `share` of the tenants are on
    /// the new colour. What came before is to be heard before.
    pub fn begin_step(&mut self, epoch: u64, share: u16, now: u64) {
        self.close(now);
        self.epoch = epoch;
        self.share = share;
        self.guard = Guard::new(fast::Config::default(), now);
        self.errors.begin_step();
        self.latency.begin_step();
        self.requests = 0;
        self.judging = true;
    }

    /// Takes what came in since the last call. `now` is in seconds.
    pub fn hear(&mut self, samples: &[Sample], now: u64) {
        if now > self.second {
            self.close(now);
        }
        for sample in samples {
            let failed = sample.ending != Ending::Good;
            let latency = Duration::from_micros(sample.latency_us.into());
            let bucket = if sample.on_new {
                self.requests += u64::from(sample.epoch >= self.epoch);
                &mut self.judged
            } else {
                &mut self.other
            };
            bucket.requests += 1;
            match sample.ending {
                Ending::Good => {}
                Ending::ServerError => bucket.server_errors += 1,
                Ending::ConnectError => bucket.connect_errors += 1,
                Ending::Timeout => bucket.timeouts += 1,
            }
            let answered = matches!(sample.ending, Ending::Good | Ending::ServerError);
            if answered {
                bucket.latency.record(latency);
            }
            if sample.epoch < self.epoch {
                // It began before the step. The sequential tests compare what a step did, and such a
                // request had another routing, and met what a colour was before: for them it never was.
                continue;
            }
            // In which step it moves, by its place; those who only move at the end tell a bad hour from a
            // bad colour.
            let last = self.shares.len();
            let step = self.shares.iter().position(|share| sample.place < *share);
            let arm = match step {
                _ if sample.on_new => Arm::Green,
                None if last > 0 => Arm::Beside,
                _ => Arm::Before,
            };
            let stratum = self.strata.of(sample.who, step.unwrap_or(last));
            let cell = self.open.entry((stratum, arm_index(arm))).or_default();
            cell.requests += 1;
            cell.failed += u32::from(failed);
            if answered {
                cell.latency.record(latency);
            }
        }
        let (judged, other) = (
            std::mem::take(&mut self.judged),
            std::mem::take(&mut self.other),
        );
        self.guard.record(now, &judged, &other);
    }

    fn close(&mut self, now: u64) {
        for ((stratum, arm), cell) in std::mem::take(&mut self.open) {
            let arm = ARMS[arm];
            self.errors.record(stratum, arm, cell.requests, cell.failed);
            self.latency.record(stratum, arm, &cell.latency);
        }
        self.errors.close();
        self.latency.close();
        self.second = now;
    }

    /// What can be said at second `now`. With `enough` the judges have had all the time that they get:
    /// what is not shown to be worse then passes, if at least `requests_min` requests say so. `hangs`:
    /// requests are on the new colour now.
    pub fn rule(&self, now: u64, enough: bool, requests_min: u64, hangs: bool) -> Ruling {
        if !self.judging {
            return Ruling::Undecided;
        }
        match self.guard.verdict(now) {
            fast::Verdict::Ok => {}
            // Silence of a small share, or of the night, says nothing; a stage that stays silent ends by
            // its deadline.
            fast::Verdict::NoData {
                silent_seconds,
                other_requests,
                ..
            } if !hangs && self.expected(silent_seconds, other_requests) < MISSED_MIN => {
                return Ruling::Undecided;
            }
            bad @ fast::Verdict::Breach(breach) => {
                return Ruling::Fail(breach.rule.into(), bad.to_string());
            }
            bad @ fast::Verdict::NoData { .. } => {
                return Ruling::Fail(Cause::Silence, bad.to_string());
            }
        }
        let looks = [self.errors.look(), self.latency.look()];
        for (look, cause) in looks.iter().zip([Cause::Failures, Cause::Latency]) {
            if look.is_worse() {
                return Ruling::Fail(cause, look.to_string());
            }
        }
        let shown = looks
            .iter()
            .all(|look| matches!(look, Verdict::NotWorse(_)));
        if shown || enough && self.requests >= requests_min {
            Ruling::Pass
        } else {
            Ruling::Undecided
        }
    }

    /// Requests that the new colour should have had in so many seconds, going by what the other one had in
    /// the guard's window.
    fn expected(&self, seconds: u64, other_requests: u64) -> f64 {
        let share = f64::from(self.share) / f64::from(WHOLE);
        if share >= 1.0 {
            return 0.0;
        }
        let window = f64::from(fast::Config::default().window_seconds);
        other_requests as f64 / window * seconds as f64 * share / (1.0 - share)
    }

    /// The judges' numbers, for the operator.
    pub fn explain(&self, now: u64) -> Vec<String> {
        vec![
            format!("fast guard: {}", self.guard.verdict(now)),
            format!("failures: {}", self.errors.look()),
            format!("latency: {}", self.latency.look()),
        ]
    }
}

const ARMS: [Arm; 3] = [Arm::Green, Arm::Before, Arm::Beside];

fn arm_index(arm: Arm) -> usize {
    match arm {
        Arm::Green => 0,
        Arm::Before => 1,
        Arm::Beside => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    fn sample(number: u64, on_new: bool, ending: Ending) -> Sample {
        // Exponential with a mean of 10 ms.
        let share: f64 = SmallRng::seed_from_u64(number).random();
        Sample {
            who: number % 50,
            latency_us: 500 + (-(1.0 - share).ln() * 10_000.0) as u32,
            epoch: 1,
            place: if on_new {
                100
            } else {
                (number * 31 % 10_000) as u16
            },
            on_new,
            ending,
        }
    }

    /// A bench that has seen some seconds of 950 requests of the old colour and 50 of the new one, of
    /// which each `nth` ends so.
    fn bench(seconds: u64, nth: u64, ending: Ending) -> Bench {
        let mut bench = Bench::new(&Plan::default(), [], 0);
        let mut number = 0;
        for second in 0..60 + seconds {
            if second == 60 {
                bench.begin_step(1, 500, second);
            }
            let samples: Vec<Sample> = (0..1_000)
                .map(|request| {
                    number += 1;
                    let on_new = second >= 60 && request % 20 == 0;
                    let ends = if on_new && number / 20 % nth == 0 {
                        ending
                    } else {
                        Ending::Good
                    };
                    sample(number, on_new, ends)
                })
                .collect();
            bench.hear(&samples, second);
        }
        bench
    }

    #[test]
    fn a_colour_that_fails_outright_is_found_within_two_seconds() {
        for ending in [Ending::ServerError, Ending::ConnectError, Ending::Timeout] {
            let bench = bench(2, 1, ending);
            let Ruling::Fail(_, why) = bench.rule(61, false, 0, false) else {
                panic!("{ending:?}: {:?}", bench.explain(61));
            };
            assert!(why.contains("100"), "{why}");
        }
    }

    #[test]
    fn a_colour_that_is_as_good_passes() {
        let bench = bench(120, u64::MAX, Ending::Good);
        assert_eq!(
            bench.rule(179, false, 0, false),
            Ruling::Pass,
            "{:?}",
            bench.explain(179)
        );
    }

    #[test]
    fn a_small_share_of_failures_is_found_by_the_sequential_judge() {
        // 2 %: below the thresholds of the fast guard.
        let bench = bench(100, 50, Ending::ServerError);
        let Ruling::Fail(_, why) = bench.rule(159, false, 0, false) else {
            panic!("{:?}", bench.explain(159));
        };
        assert!(why.starts_with("worse: "), "{why}");
    }

    /// A bench that has heard so many requests a second on the old colour, and none on the new one.
    fn silent(old: u64) -> Bench {
        let mut bench = Bench::new(&Plan::default(), [], 0);
        bench.begin_step(1, 500, 0);
        for second in 0..12 {
            let samples: Vec<Sample> = (0..old)
                .map(|number| sample(number, false, Ending::Good))
                .collect();
            bench.hear(&samples, second);
        }
        bench
    }

    #[test]
    fn a_colour_that_should_be_heard_of_and_is_not_fails() {
        let ruling = silent(1_000).rule(11, true, 0, false);
        assert!(matches!(ruling, Ruling::Fail(..)), "{ruling:?}");
    }

    #[test]
    fn silence_where_little_was_to_be_heard_says_nothing_unless_requests_hang() {
        assert_eq!(silent(1).rule(11, true, 1, false), Ruling::Undecided);
        assert!(matches!(
            silent(1).rule(11, true, 1, true),
            Ruling::Fail(..)
        ));
    }

    #[test]
    fn requests_that_began_before_a_step_say_nothing_of_it() {
        // 2 % failures and ten times the latency, all of them begun before: below the fast guard.
        let judged = |epoch: u64| {
            let mut bench = bench(1, u64::MAX, Ending::Good);
            bench.begin_step(2, 2_500, 61);
            let mut number = 100_000;
            for second in 61..100 {
                let samples: Vec<Sample> = (0..1_000)
                    .map(|request| {
                        number += 1;
                        let on_new = request % 20 == 0;
                        let fails = on_new && number / 20 % 50 == 0;
                        let ends = if fails {
                            Ending::ServerError
                        } else {
                            Ending::Good
                        };
                        let began = if on_new { epoch } else { 2 };
                        Sample {
                            epoch: began,
                            ..sample(number, on_new, ends)
                        }
                    })
                    .collect();
                bench.hear(&samples, second);
            }
            bench.rule(99, false, 0, false)
        };
        assert!(matches!(judged(2), Ruling::Fail(Cause::Failures, _)));
        assert_eq!(judged(1), Ruling::Undecided);
    }

    #[test]
    fn too_few_requests_pass_nothing() {
        let mut bench = Bench::new(&Plan::default(), [], 0);
        bench.begin_step(1, 500, 0);
        for second in 0..8 {
            bench.hear(&[sample(second, true, Ending::Good)], second);
        }
        assert_eq!(bench.rule(7, true, 20, false), Ruling::Undecided);
        assert_eq!(bench.rule(7, true, 8, false), Ruling::Pass);
    }
}
