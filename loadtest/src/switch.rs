//! `make bench-switch`: a hundred rollouts between two good colours under steady mixed traffic. Nobody
//! should notice any of them.

use crate::bench::{self, Common};
use crate::client::{Kind, Load, Outcome, Record, Settings, percentile};
use crate::report::{Better, Figure, Report, number, table};
use crate::site::{Site, Step, Wishes, plan};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Before the first rollout.
const WARM_UP: Duration = Duration::from_secs(3);
/// How often a rollout is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Longest rollout.
const LONGEST: Duration = Duration::from_secs(60);
/// Each rollout of so many goes by canary stages, the others move everyone at once.
const CANARY_EACH: u32 = 5;
/// How long the old colour is kept, in seconds.
const BAKE_S: f64 = 0.2;

/// Arguments of `hub-loadtest switch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Rollouts.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    switches: u32,
    /// Requests a second.
    #[arg(long, default_value_t = 1_100.0)]
    rate: f64,
}

impl Args {
    pub(crate) fn time_max(&self) -> Duration {
        Duration::from_secs(120) + Duration::from_secs(6) * self.switches
    }
}

/// One rollout.
#[derive(Clone, Debug, Serialize)]
struct Switch {
    canary: bool,
    /// How it ended, and why where not well.
    phase: String,
    why: Option<String>,
    /// From its first record to that of its bake: gate, flips, drain, and where there are any, stages.
    took_ms: Option<f64>,
    /// Until its gate was open, and from the last flip until the old colour was idle.
    gate_ms: Option<f64>,
    drain_ms: Option<f64>,
    /// By epoch: from the record on disk to the last request that could pick the colour that it takes
    /// clients from.
    flips_us: BTreeMap<u64, u64>,
    /// Changes of routing that were written down.
    epochs: usize,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    bench::prepare()?;
    let site = Site::start(&args.common.bin_dir, &Wishes::default()).await?;
    let load = Load::start(Settings {
        rate: args.rate,
        ..Settings::new(site.target.clone(), site.tenants.clone())
    });
    println!(
        "{} requests a second, {} rollouts, one of {CANARY_EACH} by stages of 10 and 50 %",
        args.rate, args.switches
    );
    tokio::time::sleep(WARM_UP).await;
    let (warm, failed) = load.so_far();
    ensure!(
        warm > 0 && failed == 0,
        "{failed} of {warm} requests failed before any rollout: {:?}",
        load.stop().await.why
    );
    let (cpu_before, since) = (site.hub.cpu_time()?, Instant::now());
    let mut switches = Vec::new();
    for number in 1..=args.switches {
        switches.push(switch(&site, number % CANARY_EACH == 0).await?);
        if number % 10 == 0 || number == args.switches {
            let (ended, failed) = load.so_far();
            println!(
                "{number:>4} switches in {:>3.0} s, {ended} requests, {failed} failed, flip max {} us",
                since.elapsed().as_secs_f64(),
                flips(&switches).into_iter().fold(0.0, f64::max),
            );
        }
    }
    let cpu = (site.hub.cpu_time()? - cpu_before).as_secs_f64() / since.elapsed().as_secs_f64();
    let seconds = load.began().elapsed().as_secs_f64();
    let record = load.stop().await;
    site.end().await?;
    let report = Report::new(
        "switch",
        figures(&record, &switches, seconds, cpu),
        raw(&record, &switches, &args),
    );
    report.finish(&args.common.reports_dir, &overview(&record))?;
    let missed = report.missed();
    ensure!(missed.is_empty(), "floors missed: {}", missed.join(", "));
    Ok(())
}

/// One rollout to the other colour, from its start to its end.
async fn switch(site: &Site, canary: bool) -> Result<Switch> {
    let stages: &[(f64, f64)] = if canary {
        &[(10.0, 0.2), (50.0, 0.2)]
    } else {
        &[]
    };
    site.start_rollout(&plan(stages, 0.2, 0.8, BAKE_S, 20))
        .await?;
    let mut flips_us = BTreeMap::new();
    let over = site
        .follow(LOOK, LONGEST, |rollout| {
            if let (Some(epoch), Some(flip)) =
                (rollout["epoch"].as_u64(), rollout["flip_us"].as_u64())
            {
                flips_us.insert(epoch, flip);
            }
        })
        .await?;
    let steps = site.steps(&over).await?;
    let first = steps.first().context("the rollout left no record")?;
    // The view also shows the flip of the rollout before.
    flips_us.retain(|epoch, _| *epoch > first.epoch);
    let at = |state: &str| steps.iter().find(|step| step.state == state);
    let between =
        |from: Option<&Step>, to: Option<&Step>| Some((to?.at_us - from?.at_us) as f64 / 1e3);
    let first_flip = steps.iter().find(|step| step.epoch > first.epoch);
    let mut epochs: Vec<u64> = steps.iter().map(|step| step.epoch).collect();
    epochs.dedup();
    Ok(Switch {
        canary,
        phase: over["phase"].as_str().unwrap_or("?").to_owned(),
        why: over["why"].as_str().map(str::to_owned),
        took_ms: between(Some(first), at("bake")),
        gate_ms: between(Some(first), first_flip),
        drain_ms: between(at("switched"), at("bake")),
        flips_us,
        epochs: epochs.len() - 1,
    })
}

fn flips(switches: &[Switch]) -> Vec<f64> {
    let all = switches.iter().flat_map(|one| one.flips_us.values());
    all.map(|us| *us as f64).collect()
}

fn figures(record: &Record, switches: &[Switch], seconds: f64, cpu: f64) -> Vec<Figure> {
    let (lower, higher) = (Better::Lower, Better::Higher);
    let committed = switches.iter().filter(|one| one.phase == "committed");
    let why: Vec<&str> = switches
        .iter()
        .filter_map(|one| one.why.as_deref())
        .collect();
    let failed = record.failed() + record.unsent;
    let words: Vec<String> = record
        .why
        .iter()
        .map(|(why, n)| format!("{why} ({n})"))
        .collect();
    let mut figures = vec![
        Figure::new(
            "switches",
            Some(committed.count() as f64),
            "rollouts",
            higher,
        )
        .floor(100.0)
        .note(why.join("; ")),
        Figure::new(
            "requests_per_second",
            Some(record.ended() as f64 / seconds),
            "requests/s",
            higher,
        )
        .floor(1_000.0)
        .note("ended, over the whole time of the load"),
        Figure::new("failed_requests", Some(failed as f64), "requests", lower)
            .floor(0.0)
            .note(format!(
                "of {}, unsent ones included; {}",
                record.ended(),
                words.join("; ")
            )),
    ];
    for outcome in Outcome::FAILURES {
        let count = record.count(outcome) as f64;
        figures.push(Figure::new(outcome.as_str(), Some(count), "requests", lower).floor(0.0));
    }
    let flips = flips(switches);
    let flip = |percent| percentile(flips.clone(), percent).map(|us| us / 1e3);
    let expected: usize = switches.iter().map(|one| one.epochs).sum();
    let took = |of: fn(&Switch) -> Option<f64>| switches.iter().filter_map(of).map(|ms| ms / 1e3);
    figures.extend([
        Figure::new("unsent", Some(record.unsent as f64), "requests", lower)
            .floor(0.0)
            .note("due while the most that may be in flight were"),
        Figure::new("late", Some(record.late as f64), "requests", lower)
            .note("sent more than 10 ms after they were due; their latency counts from then"),
        Figure::new("resent", Some(record.resent as f64), "requests", lower)
            .note("over HTTP/2, where the gateway had closed the connection before it took them"),
        Figure::new("unasked", Some(record.unasked as f64), "connections", lower)
            .note("kept ones, on which bytes came that no request had asked for"),
        Figure::new("flip_p50", flip(50.0), "ms", lower),
        Figure::new("flip_p99", flip(99.0), "ms", lower).floor(1.0).note(format!(
            "from the record on disk to the last request that could pick the old colour; {} of {expected} flips were seen",
            flips.len()
        )),
        Figure::new("flip_max", flip(100.0), "ms", lower),
        Figure::new("switch_time_max", took(|one| one.took_ms).reduce(f64::max), "s", lower)
            .floor(30.0)
            .note("gate, flips, stages, drain"),
        Figure::new("gate_time_max", took(|one| one.gate_ms).reduce(f64::max), "s", lower),
        Figure::new("drain_time_max", took(|one| one.drain_ms).reduce(f64::max), "s", lower),
        Figure::new("latency_p99", record.percentile_ms(Some(Kind::Get1), 99.0), "ms", lower)
            .note("HTTP/1.1 GET, from when a request was due; 16 ms of it are the application's"),
        Figure::new("gateway_cpu_share", Some(cpu), "CPUs", lower),
    ]);
    figures
}

/// Every kind of request beside every way to fail.
fn overview(record: &Record) -> String {
    let mut head = vec!["requests", "ended"];
    head.extend(Outcome::FAILURES.iter().map(|outcome| outcome.as_str()));
    head.extend(["p50 ms", "p99 ms", "max ms"]);
    let row = |kind: Kind| {
        let own = || record.done.iter().filter(move |one| one.kind == kind);
        let mut row = vec![kind.as_str().to_owned(), own().count().to_string()];
        for outcome in Outcome::FAILURES {
            row.push(
                own()
                    .filter(|one| one.outcome == outcome)
                    .count()
                    .to_string(),
            );
        }
        for percent in [50.0, 99.0, 100.0] {
            let value = record.percentile_ms(Some(kind), percent);
            row.push(value.map_or_else(|| "-".to_owned(), number));
        }
        row
    };
    let sent = |kind: &Kind| record.done.iter().any(|one| one.kind == *kind);
    let kinds = Kind::ALL.into_iter().filter(sent);
    table(&head, &kinds.map(row).collect::<Vec<_>>()) + "\n"
}

fn raw(record: &Record, switches: &[Switch], args: &Args) -> Value {
    json!({
        "rate": args.rate,
        "switches": switches,
        "failures": record.why,
        "forgotten": record.forgotten,
    })
}
