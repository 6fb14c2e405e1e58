//! `make bench-upgrade`: the gateway's binary is replaced again and again under steady mixed traffic, and by
//! clients who open a connection for each request. Nobody should notice any of it.

use crate::bench::{self, Common};
use crate::client::{Kind, Load, Outcome, Record, Settings, percentile};
use crate::report::{Better, Figure, Report};
use crate::site::{Site, Wishes};
use anyhow::{Context, Result, bail, ensure};
use hub_testkit::hub::wait_gone;
use hub_testkit::load::{Ask, Body, Outcome as ShortOutcome, Report as ShortReport, open};
use hub_testkit::process::Adopted;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Before the first upgrade.
const WARM_UP: Duration = Duration::from_secs(3);
/// How often an upgrade is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Longest upgrade.
const LONGEST: Duration = Duration::from_secs(40);
/// How long an old process may take to end after its grace.
const LATE: Duration = Duration::from_secs(15);
/// How long the last process may take to drain.
const END: Duration = Duration::from_secs(15);

/// Arguments of `hub-loadtest upgrade`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Upgrades.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    upgrades: u32,
    /// Requests a second of the mixed load.
    #[arg(long, default_value_t = 700.0)]
    rate: f64,
    /// Requests a second that have a connection each.
    #[arg(long, default_value_t = 300.0)]
    short_rate: f64,
    /// Seconds of pause between the end of an old process and the next upgrade.
    #[arg(long, default_value_t = 0.5)]
    pause: f64,
    /// Seconds that each old process has for connections whose clients do not ask any more; a pool that is
    /// larger than it need be holds such.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    grace: u64,
}

impl Args {
    pub(crate) fn time_max(&self) -> Duration {
        Duration::from_secs(120) + Duration::from_secs(self.grace + 10) * self.upgrades
    }
}

/// One upgrade.
#[derive(Clone, Debug, Serialize)]
struct Upgrade {
    /// Process ids.
    from: u32,
    to: u32,
    /// From the order until its outcome is known.
    took_ms: f64,
    /// From there until the old process has ended.
    drained_ms: f64,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    bench::prepare()?;
    let site = Site::start(&args.common.bin_dir, &Wishes::default()).await?;
    let load = Load::start(Settings {
        rate: args.rate,
        ..Settings::new(site.target.clone(), site.tenants.clone())
    });
    let short = short_lived(&site, args.short_rate);
    println!(
        "{} requests a second of all kinds, {} on connections of their own, {} upgrades",
        args.rate, args.short_rate, args.upgrades
    );
    tokio::time::sleep(WARM_UP).await;
    let (warm, failed) = load.so_far();
    ensure!(
        warm > 0 && failed == 0,
        "{failed} of {warm} requests failed before any upgrade: {:?}",
        load.stop().await.why
    );
    let since = Instant::now();
    let mut upgrades: Vec<Upgrade> = Vec::new();
    let mut serves: Option<Adopted> = None;
    for number in 1..=args.upgrades {
        let (upgrade, next) = upgrade(&site, Duration::from_secs(args.grace)).await?;
        // The one before has ended.
        drop(serves.replace(next));
        upgrades.push(upgrade);
        if number % 10 == 0 || number == args.upgrades {
            let (ended, failed) = load.so_far();
            println!(
                "{number:>4} upgrades in {:>3.0} s, {ended} mixed requests, {failed} failed",
                since.elapsed().as_secs_f64(),
            );
        }
        tokio::time::sleep(Duration::from_secs_f64(args.pause)).await;
    }
    let seconds = load.began().elapsed().as_secs_f64();
    let record = load.stop().await;
    let short = short.stop().await;
    if let (Some(serves), Some(last)) = (serves, upgrades.last()) {
        serves.terminate();
        let gone = tokio::time::timeout(END, wait_gone(last.to)).await;
        gone.context("the last process does not end")?;
    }
    site.end().await?;
    let report = Report::new(
        "upgrade",
        figures(&record, &short, &upgrades, seconds),
        json!({
            "rate": args.rate,
            "short_rate": args.short_rate,
            "upgrades": upgrades,
            "failures": record.why,
            "forgotten": record.forgotten,
        }),
    );
    report.finish(&args.common.reports_dir, "")?;
    let missed = report.missed();
    ensure!(missed.is_empty(), "floors missed: {}", missed.join(", "));
    Ok(())
}

/// Requests on connections of their own, due at this rate.
fn short_lived(site: &Site, rate: f64) -> hub_testkit::load::Running {
    let settings = hub_testkit::load::Settings {
        duration_max: Duration::from_secs(3_600),
        ..hub_testkit::load::Settings::new(site.target.plain)
    };
    let tenants = site.tenants.clone();
    open(settings, rate, move |number, request| {
        let count = tenants.len() as u64;
        let tenant = &tenants[usize::try_from(number % count).expect("a small number")];
        let text = format!(
            "GET /items/0 HTTP/1.1\r\nHost: bench\r\nX-Location-Id: {tenant}\r\nConnection: close\r\n\r\n"
        );
        request.extend_from_slice(text.as_bytes());
        Ask {
            class: 0,
            status: 200,
            body: Body::Any,
        }
    })
}

/// One upgrade to the same binary, until the old process has ended.
async fn upgrade(site: &Site, grace: Duration) -> Result<(Upgrade, Adopted)> {
    let began = Instant::now();
    let order = json!({"grace_ms": grace.as_millis() as u64}).to_string();
    let begun = site.hub.ask("POST", "/v1/upgrade", &order).await?;
    let id = &begun["id"];
    ensure!(id.is_string(), "no upgrade begins: {begun}");
    let last = loop {
        let shown = site.hub.ask("GET", "/v1/upgrade", "").await?;
        let last = &shown["last"];
        ensure!(
            last["id"] == *id,
            "another upgrade is the last one: {shown}"
        );
        if last["state"] != "under_way" {
            break last.clone();
        }
        ensure!(began.elapsed() < LONGEST, "an upgrade does not end: {last}");
        tokio::time::sleep(LOOK).await;
    };
    let took = began.elapsed();
    if last["state"] != "committed" {
        bail!("an upgrade came to nothing: {last}");
    }
    let pid = |value: &Value| {
        let pid = value["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        pid.context("an upgrade without process ids")
    };
    let (from, to) = (pid(&last["from"])?, pid(&last["to"])?);
    let next = Adopted::open(to).context("the new process has ended")?;
    let committed = Instant::now();
    loop {
        let shown = site.hub.ask("GET", "/v1/upgrade", "").await?;
        let draining = shown["draining"].as_array().context("nobody is listed")?;
        if !draining.contains(&json!(from)) {
            break;
        }
        ensure!(
            committed.elapsed() < grace + LATE,
            "an old process does not end: {shown}"
        );
        tokio::time::sleep(LOOK).await;
    }
    let upgrade = Upgrade {
        from,
        to,
        took_ms: took.as_secs_f64() * 1e3,
        drained_ms: committed.elapsed().as_secs_f64() * 1e3,
    };
    Ok((upgrade, next))
}

fn figures(
    record: &Record,
    short: &ShortReport,
    upgrades: &[Upgrade],
    seconds: f64,
) -> Vec<Figure> {
    let (lower, higher) = (Better::Lower, Better::Higher);
    let words: Vec<String> = record
        .why
        .iter()
        .map(|(why, n)| format!("{why} ({n})"))
        .collect();
    let of_short = |outcome: ShortOutcome| short.counts.get(outcome) as f64;
    let of_mixed = |outcome: Outcome| record.count(outcome) as f64;
    let failed = record.failed() + record.unsent + short.counts.failed() + short.unsent;
    let ended = record.ended() + short.counts.all();
    let took = |percent| percentile(upgrades.iter().map(|one| one.took_ms).collect(), percent);
    let drained = |percent| {
        let times = upgrades.iter().map(|one| one.drained_ms);
        percentile(times.collect(), percent)
    };
    vec![
        Figure::new("upgrades", Some(upgrades.len() as f64), "upgrades", higher).floor(50.0),
        Figure::new(
            "refused",
            Some(of_mixed(Outcome::Refused) + of_short(ShortOutcome::Refused)),
            "connections",
            lower,
        )
        .floor(0.0),
        Figure::new(
            "reset",
            Some(of_mixed(Outcome::Reset) + of_short(ShortOutcome::Reset)),
            "connections",
            lower,
        )
        .floor(0.0)
        .note("or closed before the answer was whole"),
        Figure::new("failed_requests", Some(failed as f64), "requests", lower)
            .floor(0.0)
            .note(format!(
                "of {ended}, in any way, unsent ones included; {} {}",
                words.join("; "),
                short.counts.failures()
            )),
        Figure::new(
            "requests_per_second",
            Some(ended as f64 / seconds),
            "requests/s",
            higher,
        ),
        Figure::new(
            "connections",
            Some(short.connects as f64),
            "connections",
            higher,
        )
        .note("opened for one request each, all the time"),
        Figure::new("resent", Some(record.resent as f64), "requests", lower)
            .note("over HTTP/2, where the gateway had said that it would not take them"),
        Figure::new("unasked", Some(record.unasked as f64), "connections", lower)
            .note("kept ones, on which bytes came that no request had asked for"),
        Figure::new("upgrade_time_p50", took(50.0), "ms", lower)
            .note("from the order until the new process serves alone"),
        Figure::new("upgrade_time_max", took(100.0), "ms", lower),
        Figure::new("drain_time_p50", drained(50.0), "ms", lower)
            .note("from there until the old process has ended"),
        Figure::new("drain_time_max", drained(100.0), "ms", lower),
        Figure::new(
            "latency_p99",
            record.percentile_ms(Some(Kind::Get1), 99.0),
            "ms",
            lower,
        )
        .note("HTTP/1.1 GET, from when a request was due; 16 ms of it are the application's"),
        Figure::new(
            "short_latency_p99",
            Some(short.latency_us.value_at_quantile(0.99) as f64 / 1e3),
            "ms",
            lower,
        )
        .note("requests with a connection of their own, connecting included"),
    ]
}
