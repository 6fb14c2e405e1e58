//! `make bench-proxy`: the price of a request, beside bare pingora, nginx and HAProxy.

use crate::bench::{self, Common, Origin, Scratch};
use crate::peers::{ALL, Contestant, Limits, Shape};
use crate::report::{Better, Figure, Report, median, number, table};
use crate::workload::{TENANTS, any_tenant, tenant_ids};
use anyhow::{Context, Result, ensure};
use hub_testkit::load::{Report as LoadReport, Settings, closed};
use hub_testkit::process::usage_of_tree;
use serde::Serialize;
use std::io::BufRead;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Before each measurement, so that pools, caches and branch predictors are warm.
const WARM_UP: Duration = Duration::from_secs(1);

/// Arguments of `hub-loadtest proxy`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Rounds; each contestant is measured once in each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Measured seconds of each contestant in each round.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Keepalive connections of the client.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Measure these only (by name, such as hub_same_job); ratios to absent ones are not measured.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Args {
    pub(crate) fn time_max(&self) -> Duration {
        let measured = WARM_UP + Duration::from_secs(self.seconds);
        let each = measured + Duration::from_secs(6);
        each * (self.rounds * (ALL.len() as u32 + 1)) + Duration::from_secs(120)
    }
}

/// One contestant in one round.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    name: &'static str,
    round: u32,
    /// User and system time of all threads and processes, for each request.
    cpu_us_per_request: Option<f64>,
    /// Share of its CPU that the contestant used, 0 to 1.
    cpu_share: Option<f64>,
    requests: u64,
    requests_per_second: f64,
    p50_us: u64,
    p99_us: u64,
    rss_bytes: Option<u64>,
    switches_per_request: Option<f64>,
    /// Connections counted at the origin while it ran, warm-up included.
    origin_connections: u64,
    log_lines: Option<u64>,
    origin_requests: u64,
}

/// The client straight to the origin: what neither proxy can exceed.
const DIRECT: &str = "direct";

pub(crate) async fn run(args: Args) -> Result<()> {
    bench::prepare()?;
    let scratch = Scratch::new()?;
    let origin = Origin::start(&scratch).await?;
    let wanted =
        |one: &&Contestant| args.only.is_empty() || args.only.iter().any(|name| name == one.name());
    let contestants: Vec<Contestant> = ALL.iter().filter(wanted).copied().collect();
    ensure!(!contestants.is_empty(), "--only names nobody");
    for one in contestants.iter().filter(|one| one.shape == Shape::SameJob) {
        println!("proving the limits of {}", one.name());
        one.prove_limits(&args.common.bin_dir, &scratch, &origin)
            .await?;
    }
    let mut samples = Vec::new();
    for round in 0..args.rounds {
        samples.push(direct(&args, round, &origin).await?);
        // The order rotates, so that nobody always comes after the same neighbour.
        let first = round as usize % contestants.len();
        for step in 0..contestants.len() {
            let one = contestants[(first + step) % contestants.len()];
            let sample = measure(&args, round, one, &scratch, &origin).await?;
            println!(
                "round {}/{} {:<20} {:>7} us CPU a request, {:>6.0} requests/s, p99 {} us",
                round + 1,
                args.rounds,
                sample.name,
                sample.cpu_us_per_request.map_or("-".to_owned(), number),
                sample.requests_per_second,
                sample.p99_us
            );
            samples.push(sample);
        }
    }
    origin.end().await?;
    let report = Report::new(
        "bench-proxy",
        figures(&samples),
        serde_json::to_value(&samples).context("samples are plain values")?,
    );
    report.finish(&args.common.reports_dir, &overview(&samples))
}

fn settings(args: &Args, address: SocketAddr) -> Settings {
    Settings {
        connections: usize::from(args.connections),
        ..Settings::new(address)
    }
}

async fn direct(args: &Args, round: u32, origin: &Origin) -> Result<Sample> {
    let before = origin.stats().await?;
    let running = closed(
        settings(args, origin.address),
        any_tenant(tenant_ids(TENANTS)),
    );
    tokio::time::sleep(WARM_UP).await;
    running.take();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let report = running.take();
    running.stop().await;
    let after = origin.stats().await?;
    ensure!(
        report.counts.failed() == 0,
        "the origin itself failed: {}",
        report.counts.failures()
    );
    Ok(Sample {
        origin_connections: after.connections - before.connections,
        origin_requests: after.requests - before.requests,
        ..Sample::of(DIRECT, round, &report)
    })
}

async fn measure(
    args: &Args,
    round: u32,
    one: Contestant,
    scratch: &Scratch,
    origin: &Origin,
) -> Result<Sample> {
    let serving = one
        .start(&args.common.bin_dir, scratch, origin, Limits::WIDE)
        .await?;
    one.check(serving.address).await?;
    let before = origin.stats().await?;
    let running = closed(
        settings(args, serving.address),
        any_tenant(tenant_ids(TENANTS)),
    );
    tokio::time::sleep(WARM_UP).await;
    let usage_before = usage_of_tree(serving.pid()).context("the contestant has no figures")?;
    let warm_up = running.take();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let usage = usage_of_tree(serving.pid()).context("the contestant has no figures")?;
    let report = running.take();
    let rest = running.stop().await;
    let after = origin.stats().await?;
    let log = serving.log.clone();
    // Before its log is read, so that everything it had buffered is written.
    serving.end().await?;

    let name = one.name();
    let mut all = warm_up.counts;
    all.add(&report.counts);
    all.add(&rest.counts);
    ensure!(
        all.failed() == 0,
        "{name} failed {} of {} requests: {}",
        all.failed(),
        all.all(),
        all.failures()
    );
    ensure!(report.counts.ok() > 0, "{name} answered nothing");
    // Neither answered without asking, nor asked twice.
    let origin_requests = after.requests - before.requests;
    ensure!(
        origin_requests == all.all(),
        "{name} answered {} requests, and the origin saw {origin_requests}",
        all.all()
    );
    let origin_connections = after.connections - before.connections;
    // A pool may open a few more than the client has while it fills; one a request is no pool.
    ensure!(
        origin_connections <= 8 * u64::from(args.connections),
        "{name} made {origin_connections} connections to the origin for {} requests: no keepalive",
        all.all()
    );
    let log_lines = log.as_deref().map(count_lines).transpose()?;
    if let Some(lines) = log_lines {
        ensure!(
            lines as f64 >= 0.99 * all.all() as f64,
            "{name} logged {lines} of {} requests",
            all.all()
        );
    }
    let requests = report.counts.all() as f64;
    let cpu_us = (usage.cpu_us - usage_before.cpu_us) as f64;
    let switches = |usage: &hub_testkit::process::Usage| {
        (usage.switches_voluntary + usage.switches_involuntary) as f64
    };
    Ok(Sample {
        cpu_us_per_request: Some(cpu_us / requests),
        cpu_share: Some(cpu_us / report.elapsed.as_micros() as f64),
        rss_bytes: Some(usage.rss_bytes),
        switches_per_request: Some((switches(&usage) - switches(&usage_before)) / requests),
        origin_connections,
        origin_requests,
        log_lines,
        ..Sample::of(name, round, &report)
    })
}

fn count_lines(path: &Path) -> Result<u64> {
    let file =
        std::fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut reader = std::io::BufReader::with_capacity(1 << 20, file);
    let mut lines = 0;
    loop {
        let bytes = reader.fill_buf().context("an access log cannot be read")?;
        if bytes.is_empty() {
            return Ok(lines);
        }
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let length = bytes.len();
        reader.consume(length);
    }
}

impl Sample {
    fn of(name: &'static str, round: u32, report: &LoadReport) -> Self {
        Self {
            name,
            round,
            cpu_us_per_request: None,
            cpu_share: None,
            requests: report.counts.all(),
            requests_per_second: report.ok_per_second(),
            p50_us: report.percentile_us(50.0),
            p99_us: report.percentile_us(99.0),
            rss_bytes: None,
            switches_per_request: None,
            origin_connections: 0,
            log_lines: None,
            origin_requests: 0,
        }
    }
}

/// The median over the rounds of one contestant.
fn median_of(
    samples: &[Sample],
    name: &str,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Option<f64> {
    median(
        samples
            .iter()
            .filter(|one| one.name == name)
            .filter_map(value),
    )
}

/// The median over the rounds of one contestant's CPU per request divided by another's in the same
/// round: what drifts from round to round drops out.
fn ratio(samples: &[Sample], upper: &str, lower: &str) -> Option<f64> {
    let cpu = |name: &str, round: u32| {
        let sample = samples
            .iter()
            .find(|one| one.name == name && one.round == round)?;
        sample.cpu_us_per_request
    };
    let rounds = samples.iter().map(|one| one.round).max()?;
    median((0..=rounds).filter_map(|round| Some(cpu(upper, round)? / cpu(lower, round)?)))
}

fn figures(samples: &[Sample]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let same_job = "hub_same_job";
    let ratios = [
        (same_job, "bare_pingora_plain"),
        (same_job, "nginx_same_job"),
        (same_job, "haproxy_same_job"),
        (same_job, "hub_plain"),
        ("hub_plain", "bare_pingora_plain"),
        ("hub_plain", "nginx_plain"),
        ("hub_plain", "haproxy_plain"),
    ];
    for (upper, lower) in ratios {
        let name = format!("cpu_{upper}_over_{lower}");
        let value = ratio(samples, upper, lower);
        let figure = Figure::new(name, value, "ratio", Better::Lower).shown();
        let figure = if lower == "bare_pingora_plain" && upper == same_job {
            figure.floor(1.15)
        } else {
            figure
        };
        figures.push(match value {
            Some(_) => figure.note("CPU per request, median of the ratios within each round"),
            None => figure.note("one of the two was left out"),
        });
    }
    let names = ALL.iter().map(|one| one.name()).chain([DIRECT]);
    for name in names.filter(|name| samples.iter().any(|one| one.name == *name)) {
        let mut add = |what: &str, unit, better, value: &dyn Fn(&Sample) -> Option<f64>| {
            let value = median_of(samples, name, value);
            if value.is_some() {
                figures.push(
                    Figure::new(format!("{name}_{what}"), value, unit, better)
                        .note("median of the rounds"),
                );
            }
        };
        add("cpu_per_request", "us", Better::Lower, &|one| {
            one.cpu_us_per_request
        });
        add("cpu_share", "ratio", Better::Lower, &|one| one.cpu_share);
        add("throughput", "requests/s", Better::Higher, &|one| {
            Some(one.requests_per_second)
        });
        add("p50", "us", Better::Lower, &|one| Some(one.p50_us as f64));
        add("p99", "us", Better::Lower, &|one| Some(one.p99_us as f64));
        add("rss", "bytes", Better::Lower, &|one| {
            Some(one.rss_bytes? as f64)
        });
        add("origin_connections", "connections", Better::Lower, &|one| {
            Some(one.origin_connections as f64)
        });
    }
    figures
}

/// One line for each contestant.
fn overview(samples: &[Sample]) -> String {
    let head = [
        "median of rounds",
        "CPU us/req",
        "CPU share",
        "req/s",
        "p50 us",
        "p99 us",
        "RSS MB",
        "origin conns",
        "errors",
    ];
    let mut rows = Vec::new();
    let names = ALL.iter().map(|one| one.name()).chain([DIRECT]);
    for name in names.filter(|name| samples.iter().any(|one| one.name == *name)) {
        let show = |value: &dyn Fn(&Sample) -> Option<f64>| {
            median_of(samples, name, value).map_or("-".to_owned(), number)
        };
        rows.push(vec![
            name.to_owned(),
            show(&|one| one.cpu_us_per_request),
            show(&|one| one.cpu_share),
            show(&|one| Some(one.requests_per_second)),
            show(&|one| Some(one.p50_us as f64)),
            show(&|one| Some(one.p99_us as f64)),
            show(&|one| Some(one.rss_bytes? as f64 / 1e6)),
            show(&|one| Some(one.origin_connections as f64)),
            // A run with an error ends the bench, so there is nothing else that could stand here.
            "0".to_owned(),
        ]);
    }
    format!("{}\n", table(&head, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &'static str, round: u32, cpu: f64) -> Sample {
        Sample {
            name,
            round,
            cpu_us_per_request: Some(cpu),
            cpu_share: Some(0.9),
            requests: 1,
            requests_per_second: 1.0,
            p50_us: 1,
            p99_us: 1,
            rss_bytes: Some(1),
            switches_per_request: Some(0.0),
            origin_connections: 1,
            log_lines: None,
            origin_requests: 1,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was twice as slow in the second round; the ratio must not see it.
        let samples = [
            sample("hub_same_job", 0, 22.0),
            sample("bare_pingora_plain", 0, 20.0),
            sample("hub_same_job", 1, 44.0),
            sample("bare_pingora_plain", 1, 40.0),
            sample("hub_same_job", 2, 22.0),
            sample("bare_pingora_plain", 2, 20.0),
        ];
        let value = ratio(&samples, "hub_same_job", "bare_pingora_plain").unwrap();
        assert!((value - 1.1).abs() < 1e-9, "{value}");
    }

    #[test]
    fn a_contestant_that_was_left_out_is_reported_as_not_measured() {
        let samples = [sample("hub_same_job", 0, 22.0)];
        let figures = serde_json::to_value(figures(&samples)).unwrap();
        let ratio = &figures[0];
        assert_eq!(ratio["name"], "cpu_hub_same_job_over_bare_pingora_plain");
        assert_eq!(ratio["value"], serde_json::Value::Null);
        assert_eq!(ratio["floor"], 1.15);
        assert_ne!(ratio["note"], "");
    }

    #[test]
    fn lines_of_a_log_are_counted() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.write("log", "a\nb\nc").unwrap();
        assert_eq!(count_lines(&path).unwrap(), 2);
    }
}
