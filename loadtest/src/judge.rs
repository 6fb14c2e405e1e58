//! `make eval-judge`: how often the judges are wrong, and how soon they are right, on simulated deployments.
//! Kayenta's rule stands beside them, on the same draws.
//!
//! A deployment is a canary of 5 % at 1,000 requests a second, watched for 100 s (5,000 requests on
//! green) or 30 s. Every judge gets the same seconds; what it says counts at eight evenly spaced looks,
//! and, in a column of its own, at every second.

mod kayenta;
mod world;

use crate::report::{Better, Figure, Report, median, number, table};
use anyhow::{Result, ensure};
use hub_stats::judge::{Split, Verdict, errors, errors::Errors, fast, latency, latency::Latency};
use kayenta::Series;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use world::{Case, Green, Second, Trouble, World};

/// Looks of one deployment.
const LOOKS: u32 = 8;

/// Arguments of `hub-loadtest judge`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory that gets eval-judge.json.
    #[arg(long, default_value = "target/reports")]
    reports_dir: PathBuf,
    /// Seed of all draws.
    #[arg(long, default_value_t = 3)]
    seed: u64,
    /// Simulated deployments of each case.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    deployments: u32,
}

/// The cases, in the order of the table.
const CASES: &[Case] = &[
    Case::new("A/A"),
    Case {
        split: Split::Requests,
        ..Case::new("A/A, requests split")
    },
    Case {
        trouble: Trouble::Bursts,
        ..Case::new("A/A, errors in bursts")
    },
    Case {
        trouble: Trouble::Outage,
        ..Case::new("A/A, outage of both")
    },
    Case {
        seconds: 600,
        ..Case::new("A/A, ten minutes")
    },
    Case {
        green: Green::Slower(1.2),
        ..Case::new("20 % slower, tolerated")
    },
    Case {
        green: Green::Fails(0.01),
        ..Case::new("errors 1 %")
    },
    Case {
        green: Green::Fails(0.01),
        split: Split::Requests,
        ..Case::new("errors 1 %, requests split")
    },
    Case {
        green: Green::Tail {
            share: 0.03,
            times: 3.0,
        },
        seconds: 30,
        ..Case::new("p99 x3")
    },
    Case {
        green: Green::Tail {
            share: 0.03,
            times: 3.0,
        },
        split: Split::Requests,
        seconds: 30,
        ..Case::new("p99 x3, requests split")
    },
    Case {
        green: Green::Grows {
            millis_per_100: 5.0,
        },
        seconds: 30,
        ..Case::new("+5 ms per 100")
    },
];

/// When each of them said worse, in seconds of the deployment; a look's is that of the look.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    guard: Option<u32>,
    errors: Option<u32>,
    latency: Option<u32>,
    errors_look: Option<u32>,
    latency_look: Option<u32>,
    kayenta_errors: Option<u32>,
    kayenta_latency: Option<u32>,
    /// Both sequential judges said not worse at once.
    not_worse: Option<u32>,
}

/// Shares of the deployments of one case.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    case: &'static str,
    deployments: u32,
    /// Any of ours, at the looks.
    ours: f64,
    /// Any of ours, asked at every second.
    ours_every_second: f64,
    errors: f64,
    latency: f64,
    guard: f64,
    kayenta: f64,
    kayenta_errors: f64,
    kayenta_latency: f64,
    not_worse: f64,
    /// Of the deployments that were told worse, asked at every second.
    requests_median: Option<f64>,
    not_worse_requests_median: Option<f64>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    println!(
        "seed {}; {} deployments of each case",
        args.seed, args.deployments
    );
    let began = Instant::now();
    let mut outcomes = Vec::new();
    for (number, case) in (0_u64..).zip(CASES) {
        let at = Instant::now();
        let told: Vec<Told> = (0..args.deployments)
            .map(|deployment| {
                let mixed = (number << 32) | u64::from(deployment);
                let seed = args.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ mixed;
                deploy(case, &mut SmallRng::seed_from_u64(seed))
            })
            .collect();
        println!("{}: {:.1} s", case.name, at.elapsed().as_secs_f64());
        outcomes.push(Outcome::of(case, &told));
    }
    println!("{:.0} s in all", began.elapsed().as_secs_f64());
    ensure!(outcomes.len() == CASES.len(), "a case is missing");
    let report = Report::new(
        "eval-judge",
        figures(&outcomes),
        serde_json::json!({ "seed": args.seed, "cases": outcomes }),
    );
    report.finish(&args.reports_dir, &heading(&outcomes))
}

/// One deployment from the time before it to its last look.
fn deploy(case: &Case, rng: &mut SmallRng) -> Told {
    let mut world = World::new(case, rng);
    let strata = world.strata();
    let split = case.split;
    let mut errors = Errors::new(
        strata,
        errors::Config {
            split,
            ..Default::default()
        },
    );
    let mut latency = Latency::new(
        strata,
        latency::Config {
            split,
            ..Default::default()
        },
    );
    let mut guard = fast::Guard::new(fast::Config::default(), 0);
    let mut told = Told::default();
    let mut series = Series::default();
    for _ in 0..case.before_seconds() {
        feed(world.before(rng), &mut errors, &mut latency);
    }
    errors.begin_step();
    latency.begin_step();
    let looks: Vec<u32> = (1..=LOOKS)
        .map(|look| (case.seconds * look).div_ceil(LOOKS))
        .collect();
    for second in 1..=case.seconds {
        let drawn = world.next(rng);
        let [green, blue] = drawn.buckets();
        guard.record(u64::from(second), green, blue);
        series.push(drawn);
        feed(drawn, &mut errors, &mut latency);
        if told.guard.is_none() && guard.verdict(u64::from(second)) != fast::Verdict::Ok {
            told.guard = Some(second);
        }
        let look = looks.contains(&second);
        let mut fine = 0;
        for (verdict, every, at_look) in [
            (errors.look(), &mut told.errors, &mut told.errors_look),
            (latency.look(), &mut told.latency, &mut told.latency_look),
        ] {
            match verdict {
                Verdict::Worse(_) => {
                    every.get_or_insert(second);
                    if look {
                        at_look.get_or_insert(second);
                    }
                }
                Verdict::NotWorse(_) => fine += 1,
                Verdict::Continue(_) => {}
            }
        }
        if fine == 2 {
            told.not_worse.get_or_insert(second);
        }
        if look {
            let [by_errors, by_latency] = series.judge();
            if by_errors {
                told.kayenta_errors.get_or_insert(second);
            }
            if by_latency {
                told.kayenta_latency.get_or_insert(second);
            }
        }
    }
    if case.name == "p99 x3" && told.latency.is_none() {
        eprintln!("{}", latency.look());
    }
    told
}

fn feed(second: &Second, errors: &mut Errors, latency: &mut Latency) {
    for group in second.groups() {
        errors.record(group.stratum, group.arm, group.requests, group.failed);
        latency.record(group.stratum, group.arm, &group.latency);
    }
    errors.close();
    latency.close();
}

// === impl Outcome ===

impl Outcome {
    fn of(case: &Case, told: &[Told]) -> Self {
        let share = |says: &dyn Fn(&Told) -> bool| {
            told.iter().filter(|one| says(one)).count() as f64 / told.len() as f64
        };
        let first = |one: &Told| {
            [one.guard, one.errors, one.latency]
                .into_iter()
                .flatten()
                .min()
        };
        let requests = |seconds: u32| f64::from(seconds * world::GREEN_PER_SECOND);
        Self {
            case: case.name,
            deployments: u32::try_from(told.len()).unwrap_or(u32::MAX),
            ours: share(&|one| one.guard.or(one.errors_look).or(one.latency_look).is_some()),
            ours_every_second: share(&|one| first(one).is_some()),
            errors: share(&|one| one.errors_look.is_some()),
            latency: share(&|one| one.latency_look.is_some()),
            guard: share(&|one| one.guard.is_some()),
            kayenta: share(&|one| one.kayenta_errors.or(one.kayenta_latency).is_some()),
            kayenta_errors: share(&|one| one.kayenta_errors.is_some()),
            kayenta_latency: share(&|one| one.kayenta_latency.is_some()),
            not_worse: share(&|one| one.not_worse.is_some()),
            requests_median: median(told.iter().filter_map(first).map(requests)),
            not_worse_requests_median: median(
                told.iter().filter_map(|one| one.not_worse).map(requests),
            ),
        }
    }
}

fn figures(outcomes: &[Outcome]) -> Vec<Figure> {
    let of = |case: &str, value: &dyn Fn(&Outcome) -> Option<f64>| {
        outcomes.iter().find(|one| one.case == case).and_then(value)
    };
    let lower = |name: &str, case: &str, value: &dyn Fn(&Outcome) -> Option<f64>| {
        Figure::new(name, of(case, value), "share", Better::Lower).shown()
    };
    let higher = |name: &str, case: &str, value: &dyn Fn(&Outcome) -> Option<f64>| {
        Figure::new(name, of(case, value), "share", Better::Higher).shown()
    };
    let ours = |one: &Outcome| Some(one.ours);
    let kayenta = |one: &Outcome| Some(one.kayenta);
    let mut figures = vec![
        lower("false_rollback_aa", "A/A", &ours)
            .floor(0.01)
            .note("guard, errors or latency at 8 looks"),
        lower("false_rollback_aa_every_second", "A/A", &|one| {
            Some(one.ours_every_second)
        }),
        lower(
            "false_rollback_aa_requests_split",
            "A/A, requests split",
            &ours,
        ),
        lower("false_rollback_aa_bursts", "A/A, errors in bursts", &ours)
            .note("errors come three at a time on average"),
        lower("false_rollback_aa_outage", "A/A, outage of both", &ours)
            .note("20 s of 2 % errors and half as much latency again, on both colours"),
        higher("power_errors_within_5000", "errors 1 %", &|one| {
            Some(one.errors)
        })
        .floor(0.95)
        .note("by the judge of errors alone, at 8 looks"),
        higher("power_p99_x3_within_1500", "p99 x3", &|one| {
            Some(one.latency)
        })
        .goal(0.95)
        .note("3 % of green's requests take three times blue's p99; 8 looks in 30 s"),
        higher("power_growing_within_1500", "+5 ms per 100", &|one| {
            Some(one.latency)
        })
        .goal(0.95),
    ];
    for (name, case) in [
        ("requests_to_errors", "errors 1 %"),
        ("requests_to_p99_x3", "p99 x3"),
        ("requests_to_growing", "+5 ms per 100"),
    ] {
        let value = of(case, &|one| one.requests_median);
        figures.push(
            Figure::new(name, value, "requests", Better::Lower)
                .note("on green, median, asked at every second")
                .shown(),
        );
    }
    figures.extend([
        lower("kayenta_false_rollback_aa", "A/A", &kayenta).note("either metric"),
        lower(
            "kayenta_false_rollback_aa_requests_split",
            "A/A, requests split",
            &kayenta,
        ),
        higher("kayenta_power_errors", "errors 1 %", &|one| {
            Some(one.kayenta_errors)
        }),
        higher("kayenta_power_p99_x3", "p99 x3", &|one| {
            Some(one.kayenta_latency)
        }),
        higher(
            "kayenta_power_p99_x3_requests_split",
            "p99 x3, requests split",
            &|one| Some(one.kayenta_latency),
        ),
    ]);
    figures
}

/// The table of all cases: shares of deployments that were told worse.
fn heading(outcomes: &[Outcome]) -> String {
    let head = [
        "told worse, share",
        "ours",
        "each second",
        "errors",
        "latency",
        "guard",
        "Kayenta",
        "its errors",
        "its latency",
        "requests",
        "not worse",
        "requests",
    ];
    let share = |value: f64| format!("{value:.4}");
    let requests = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    let rows: Vec<Vec<String>> = outcomes
        .iter()
        .map(|one| {
            vec![
                one.case.to_owned(),
                share(one.ours),
                share(one.ours_every_second),
                share(one.errors),
                share(one.latency),
                share(one.guard),
                share(one.kayenta),
                share(one.kayenta_errors),
                share(one.kayenta_latency),
                requests(one.requests_median),
                share(one.not_worse),
                requests(one.not_worse_requests_median),
            ]
        })
        .collect();
    format!("{}\n", table(&head, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_tells_the_same() {
        let case = &CASES[CASES.len() - 1];
        let run = || deploy(case, &mut SmallRng::seed_from_u64(1));
        assert_eq!(format!("{:?}", run()), format!("{:?}", run()));
    }

    #[test]
    fn every_figure_finds_its_case() {
        let outcomes: Vec<Outcome> = CASES
            .iter()
            .map(|case| {
                Outcome::of(
                    case,
                    &[Told {
                        guard: Some(1),
                        ..Told::default()
                    }],
                )
            })
            .collect();
        for figure in figures(&outcomes) {
            let json = serde_json::to_value(&figure).unwrap();
            assert!(json["value"].is_number(), "{json}");
        }
    }
}
