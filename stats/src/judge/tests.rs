//! The sequential judges by simulation. Seeds are fixed, so that a run says the same everywhere.

use super::errors::Errors;
use super::histogram::Histogram;
use super::latency::Latency;
use super::*;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// How traffic and its events come about.
#[derive(Clone, Copy, Debug)]
struct World {
    /// Share of failures on blue, and times as many on green.
    share: f64,
    times: f64,
    /// Latency on green, in parts of blue's.
    slower: f64,
    before_seconds: u32,
    seconds: u32,
    green: u32,
    beside: u32,
}

const WORLD: World = World {
    share: 0.02,
    times: 1.0,
    slower: 1.0,
    before_seconds: 60,
    seconds: 100,
    green: 50,
    beside: 200,
};

/// Tenants of the world: two with strata of their own, the last in the pool.
const TENANTS: u64 = 3;

fn strata() -> Strata {
    Strata::choose([(0, 1_000), (1, 900), (2, 3)], 100, 1)
}

fn events(rng: &mut SmallRng, requests: u32, share: f64) -> u32 {
    (0..requests).filter(|_| rng.random_bool(share)).count() as u32
}

fn latencies(rng: &mut SmallRng, requests: u32, factor: f64) -> Histogram {
    let mut histogram = Histogram::default();
    for _ in 0..requests {
        // The sum of six uniform variables is normal enough for a latency.
        let normal: f64 = (0..6).map(|_| rng.random::<f64>()).sum::<f64>() - 3.0;
        histogram.record_micros((30_000.0 * factor * (0.7 * normal).exp()) as u64);
    }
    histogram
}

/// Runs one deployment and asks at every second. True once any look said worse.
fn errors_say_worse(rng: &mut SmallRng, world: World, config: errors::Config) -> bool {
    let strata = strata();
    let mut judge = Errors::new(strata.len(), config);
    for second in 0..world.before_seconds + world.seconds {
        let after = second >= world.before_seconds;
        for tenant in 0..TENANTS {
            // Tenants differ, and so do seconds.
            let share =
                world.share * (1 + tenant) as f64 / 2.0 * (1.0 + 0.5 * f64::from(second).sin());
            let stratum = strata.of(tenant, 0);
            let requests = world.green / TENANTS as u32;
            let (arm, share) = match after {
                true => (Arm::Green, share * world.times),
                false => (Arm::Before, share),
            };
            judge.record(stratum, arm, requests, events(rng, requests, share));
        }
        let failed = events(
            rng,
            world.beside,
            world.share * (1.0 + 0.5 * f64::from(second).sin()),
        );
        judge.record(StratumId::POOL, Arm::Beside, world.beside, failed);
        judge.close();
        if judge.look().is_worse() {
            return true;
        }
    }
    false
}

fn latency_says_worse(rng: &mut SmallRng, world: World, config: latency::Config) -> Option<u32> {
    let strata = strata();
    let mut judge = Latency::new(strata.len(), config);
    for second in 0..world.before_seconds + world.seconds {
        let after = second >= world.before_seconds;
        for tenant in 0..TENANTS {
            let base = (1 + tenant) as f64;
            let (arm, factor) = match after {
                true => (Arm::Green, base * world.slower),
                false => (Arm::Before, base),
            };
            let requests = world.green / TENANTS as u32;
            judge.record(strata.of(tenant, 0), arm, &latencies(rng, requests, factor));
        }
        judge.record(
            StratumId::POOL,
            Arm::Beside,
            &latencies(rng, world.beside, 2.0),
        );
        judge.close();
        if judge.look().is_worse() {
            return Some(second.saturating_sub(world.before_seconds));
        }
    }
    None
}

/// A bound that is 5 %, so that a few hundred deployments show whether it holds, and nothing beside it
/// that could hide that it does not.
fn strict_errors() -> errors::Config {
    errors::Config {
        alpha: 0.05,
        tolerated: 1.0,
        share_min: 0.0,
        ..errors::Config::default()
    }
}

/// More false alarms than a chance of `alpha` gives in all but one of a million runs.
fn most(runs: usize, alpha: f64) -> usize {
    let mean = runs as f64 * alpha;
    (mean + 4.75 * (mean * (1.0 - alpha)).sqrt()).ceil() as usize
}

#[test]
fn a_green_like_blue_is_held_worse_as_seldom_as_stated_looking_at_every_second() {
    const RUNS: usize = 400;
    for seed in 0..3 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let world = World {
            seconds: 60,
            ..WORLD
        };
        let worse = (0..RUNS)
            .filter(|_| errors_say_worse(&mut rng, world, strict_errors()))
            .count();
        println!("seed {seed}: errors, {worse} of {RUNS} at 5 %");
        assert!(worse <= most(RUNS, 0.05), "seed {seed}: {worse} of {RUNS}");
    }
}

#[test]
fn a_green_as_bad_as_is_tolerated_is_held_worse_as_seldom_as_stated() {
    const RUNS: usize = 400;
    let mut rng = SmallRng::seed_from_u64(11);
    // For events as rare as these, odds are shares.
    let world = World {
        share: 0.004,
        times: 2.0,
        seconds: 60,
        ..WORLD
    };
    let config = errors::Config {
        tolerated: 2.0,
        ..strict_errors()
    };
    let worse = (0..RUNS)
        .filter(|_| errors_say_worse(&mut rng, world, config))
        .count();
    println!("seed 11: errors at the bound, {worse} of {RUNS} at 5 %");
    assert!(worse <= most(RUNS, 0.05), "{worse} of {RUNS}");
}

#[test]
fn a_green_as_slow_as_is_tolerated_is_held_worse_as_seldom_as_stated() {
    const RUNS: usize = 150;
    for (seed, slower_ratio, slower) in [(1, 0.0, 1.0), (2, 0.25, 1.25)] {
        let mut rng = SmallRng::seed_from_u64(seed);
        let config = latency::Config {
            alpha: 0.05,
            slower_ratio,
            slower: std::time::Duration::ZERO,
            ..latency::Config::default()
        };
        let world = World {
            slower,
            seconds: 40,
            ..WORLD
        };
        let worse = (0..RUNS)
            .filter(|_| latency_says_worse(&mut rng, world, config).is_some())
            .count();
        println!("seed {seed}: latency, {worse} of {RUNS} at 5 %");
        assert!(worse <= most(RUNS, 0.05), "seed {seed}: {worse} of {RUNS}");
    }
}

#[test]
fn ten_times_the_errors_are_found_within_5000_requests() {
    let mut rng = SmallRng::seed_from_u64(5);
    let world = World {
        share: 0.001,
        times: 10.0,
        before_seconds: 256,
        ..WORLD
    };
    let found = (0..100)
        .filter(|_| errors_say_worse(&mut rng, world, errors::Config::default()))
        .count();
    assert!(found >= 95, "{found} of 100");
}

#[test]
fn twice_as_slow_is_found_in_half_a_minute_and_ten_percent_are_not() {
    let mut rng = SmallRng::seed_from_u64(6);
    for _ in 0..20 {
        let world = World {
            slower: 2.0,
            seconds: 30,
            ..WORLD
        };
        assert!(latency_says_worse(&mut rng, world, latency::Config::default()).is_some());
        let world = World {
            slower: 1.1,
            ..world
        };
        assert!(latency_says_worse(&mut rng, world, latency::Config::default()).is_none());
    }
}

#[test]
fn trouble_that_both_colours_have_is_not_held_against_green() {
    let mut judge = Errors::new(1, errors::Config::default());
    for second in 0..300 {
        let bad = second >= 110;
        let arm = if second >= 100 {
            Arm::Green
        } else {
            Arm::Before
        };
        judge.record(StratumId::POOL, arm, 50, if bad { 5 } else { 0 });
        judge.record(StratumId::POOL, Arm::Beside, 950, if bad { 95 } else { 0 });
        judge.close();
        let verdict = judge.look();
        assert!(!verdict.is_worse(), "{second}: {verdict}");
        if second == 115 {
            assert!(verdict.finding().drift > 10.0, "{verdict}");
        }
    }
}

#[test]
fn a_green_that_turns_bad_after_an_hour_is_found_within_half_a_minute() {
    let mut rng = SmallRng::seed_from_u64(8);
    let mut judge = Errors::new(1, errors::Config::default());
    let mut second = |judge: &mut Errors, arm, share| {
        judge.record(StratumId::POOL, arm, 50, events(&mut rng, 50, share));
        judge.record(
            StratumId::POOL,
            Arm::Beside,
            950,
            events(&mut rng, 950, 0.001),
        );
        judge.close();
        judge.look()
    };
    for _ in 0..256 {
        second(&mut judge, Arm::Before, 0.001);
    }
    for _ in 0..3_600 {
        assert!(!second(&mut judge, Arm::Green, 0.001).is_worse());
    }
    let seconds = (1..=60).find(|_| second(&mut judge, Arm::Green, 0.02).is_worse());
    assert!(seconds.is_some_and(|seconds| seconds <= 30), "{seconds:?}");
}

#[test]
fn a_green_bad_for_one_tenant_is_found_and_the_tenant_named() {
    let strata = strata();
    let mut judge = Errors::new(strata.len(), errors::Config::default());
    let mut worse = None;
    for second in 0..200_u32 {
        let arm = if second < 100 {
            Arm::Before
        } else {
            Arm::Green
        };
        judge.record(strata.of(0, 0), arm, 40, u32::from(second % 20 == 10));
        let failed = if arm == Arm::Green { 1 } else { 0 };
        judge.record(strata.of(1, 0), arm, 5, failed);
        judge.record(StratumId::POOL, Arm::Beside, 950, 1);
        judge.close();
        if worse.is_none() && judge.look().is_worse() {
            worse = Some((second, judge.look()));
        }
    }
    let (second, verdict) = worse.expect("20 % of one tenant's requests fail");
    assert!(second < 130, "{second}: {verdict}");
    let stratum = verdict
        .finding()
        .stratum
        .unwrap_or_else(|| panic!("{verdict}"));
    assert_eq!(strata.tenant(stratum), Some(1));
}

#[test]
fn a_healthy_green_is_shown_to_be_not_worse_in_each_step_anew() {
    let mut rng = SmallRng::seed_from_u64(9);
    let mut judge = Errors::new(1, errors::Config::default());
    let mut slow = Latency::new(1, latency::Config::default());
    for step in 0..3 {
        judge.begin_step();
        slow.begin_step();
        assert!(!matches!(judge.look(), Verdict::NotWorse(_)));
        for _ in 0..100 {
            judge.record(StratumId::POOL, Arm::Green, 50, events(&mut rng, 50, 0.001));
            judge.record(
                StratumId::POOL,
                Arm::Beside,
                950,
                events(&mut rng, 950, 0.001),
            );
            judge.close();
            slow.record(StratumId::POOL, Arm::Green, &latencies(&mut rng, 50, 1.0));
            slow.record(StratumId::POOL, Arm::Beside, &latencies(&mut rng, 950, 1.0));
            slow.close();
        }
        assert!(
            matches!(judge.look(), Verdict::NotWorse(_)),
            "{step}: {}",
            judge.look()
        );
        assert!(
            matches!(slow.look(), Verdict::NotWorse(_)),
            "{step}: {}",
            slow.look()
        );
    }
}

#[test]
fn without_blue_green_is_measured_by_what_its_tenants_had() {
    let mut judge = Errors::new(1, errors::Config::default());
    for second in 0..200 {
        let after = second >= 100;
        let arm = if after { Arm::Green } else { Arm::Before };
        judge.record(StratumId::POOL, arm, 50, if after { 2 } else { 0 });
        judge.close();
    }
    let Verdict::Worse(finding) = judge.look() else {
        panic!("{}", judge.look())
    };
    assert_eq!(finding.drift, 1.0);
    assert_eq!(finding.estimate, f64::INFINITY);
}

#[test]
fn explanations_of_findings_hold_the_numbers() {
    let finding = Finding {
        what: "failed",
        stratum: Some(StratumId(3)),
        green: Count {
            requests: 5_000,
            events: 50,
        },
        reference: Count {
            requests: 20_000,
            events: 20,
        },
        estimate: 10.09,
        interval: (4.0, f64::INFINITY),
        tolerated: 1.5,
        evidence: 12_345.0,
        evidence_min: 200.0,
        drift: 1.25,
        not_worse: 0.001,
        not_worse_min: 20.0,
    };
    assert_eq!(
        Verdict::Worse(finding).to_string(),
        "worse: failed for stratum 3: 50 of 5000 (1.000 %) on green, 20 of 20000 (0.100 %) on blue; \
         odds ratio 10.09 (4.00 to inf), tolerated 1.50; evidence 1.234e4 of 200, \
         allowing for 1.25 times the odds of before on blue; not worse 1.000e-3 of 20"
    );
}

proptest! {
    #[test]
    fn strata_are_bounded_and_the_busiest_are_among_them(
        traffic in prop::collection::btree_map(any::<u64>(), 0_u64..1_000, 0..200),
        requests_min in 0_u64..1_000,
        steps in 0_usize..20,
    ) {
        let strata = Strata::choose(traffic.clone(), requests_min, steps);
        prop_assert!(strata.len() <= STRATA_MAX);
        let own = |tenant: &u64| strata.tenant(strata.of(*tenant, 0)).is_some();
        let least = traffic.iter().filter(|(tenant, _)| own(tenant)).map(|(_, &requests)| requests).min();
        for (tenant, &requests) in &traffic {
            if own(tenant) {
                prop_assert!(requests >= requests_min);
                prop_assert_eq!(strata.tenant(strata.of(*tenant, 0)), Some(*tenant));
            } else if requests >= requests_min {
                prop_assert_eq!(strata.len(), STRATA_MAX - POOLS_MAX + steps.clamp(1, POOLS_MAX));
                prop_assert!(requests <= least.unwrap());
            }
        }
    }

    #[test]
    fn no_sample_makes_a_judge_panic_or_its_evidence_no_number(
        steps in prop::collection::vec((any::<u8>(), 0_u8..3, any::<u32>(), any::<u32>(), 0_u32..32, any::<bool>()), 0..120),
        odd in prop::sample::select(vec![0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 0.5]),
        split in prop::sample::select(vec![Split::Tenants, Split::Requests]),
    ) {
        let errors = errors::Config {
            alpha: odd, promote_alpha: odd,
            tolerated: odd, margin: odd, share_min: odd, share_ok: odd, split,
        };
        let latency = latency::Config {
            alpha: odd, promote_alpha: odd, slower_ratio: odd, margin: odd, split,
            slower: std::time::Duration::MAX, reference_min: 0, reference_max: 0,
        };
        let mut errors = Errors::new(2, errors);
        let mut latency = Latency::new(2, latency);
        for (stratum, arm, requests, failed, shift, close) in steps {
            let arm = [Arm::Green, Arm::Before, Arm::Beside][usize::from(arm)];
            errors.record(StratumId(stratum), arm, requests >> shift, failed >> shift);
            let mut histogram = Histogram::default();
            histogram.record_micros(u64::from(requests) << shift);
            latency.record(StratumId(stratum), arm, &histogram);
            if close {
                errors.close();
                latency.close();
            }
            for verdict in [errors.look(), latency.look()] {
                let finding = verdict.finding();
                prop_assert!(finding.evidence.is_finite() && finding.evidence >= 0.0);
                prop_assert!(!finding.estimate.is_nan() && !finding.not_worse.is_nan());
                prop_assert!(finding.drift.is_finite() && finding.drift >= 1.0);
                prop_assert!(!verdict.to_string().contains("NaN"));
            }
        }
    }

    #[test]
    fn a_second_recorded_in_parts_is_the_same_second(
        parts in prop::collection::vec((0_u32..50, 0_u32..5), 1..10),
    ) {
        let total = parts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1.min(part.0)));
        let run = |parts: &[(u32, u32)]| {
            let mut judge = Errors::new(1, errors::Config::default());
            judge.record(StratumId::POOL, Arm::Beside, 900, 2);
            for &(requests, failed) in parts {
                judge.record(StratumId::POOL, Arm::Green, requests, failed);
            }
            judge.close();
            judge.look()
        };
        prop_assert_eq!(run(&parts), run(&[total]));
    }
}
