//! `make bench-isolation`: what well-behaved tenants notice of one that sends ten times its quota.

use crate::bench::{self, Common, Origin, Scratch};
use crate::hub::Hub;
use crate::report::{Better, Figure, Report, median};
use crate::workload::{expect_origin, tenant_id, write_request};
use anyhow::{Result, ensure};
use hub_testkit::load::{Outcome, Report as LoadReport, Settings, open};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Between two phases, so that the queues of one are empty in the next.
const SETTLE: Duration = Duration::from_secs(1);
/// How many times its quota the noisy tenant sends.
const NOISE: f64 = 10.0;
/// Which share of the others' requests may be sent late: from there on the client makes their p99.
const LATE_MAX: f64 = 0.01;
/// Which share of their quota the others send.
const STEADY: f64 = 0.6;

/// Arguments of `hub-loadtest isolation`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Quota of every tenant, in requests a second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    quota: u32,
    /// Well-behaved tenants.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    tenants: u16,
    /// Pairs of a quiet and a noisy phase.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    pairs: u32,
    /// Seconds of a phase.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

impl Args {
    pub(crate) fn time_max(&self) -> Duration {
        let phase = SETTLE * 2 + Duration::from_secs(self.seconds + 6);
        phase * (2 * self.pairs) + Duration::from_secs(60)
    }
}

/// One phase, as the well-behaved tenants saw it.
#[derive(Clone, Debug, Serialize)]
struct Phase {
    noisy: bool,
    seconds: f64,
    ok_per_second: f64,
    /// Of the tenant that got least.
    ok_per_second_worst: f64,
    p50_us: u64,
    p99_us: u64,
    failed: u64,
    failures: String,
    unsent: u64,
    late: u64,
    /// CPU time of the gateway for each second.
    gateway_cpu_share: f64,
    /// What the noisy tenant got, and what it was refused.
    noisy_ok_per_second: Option<f64>,
    noisy_refused_per_second: Option<f64>,
    noisy_other: Option<String>,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    bench::prepare()?;
    let scratch = Scratch::new()?;
    let origin = Origin::start(&scratch).await?;
    let config = scratch.write("hub.toml", &config(&args, &scratch, &origin))?;
    let cpus = bench::server_cpus();
    let hub = Hub::start(&args.common.bin_dir, &scratch, &config, &cpus).await?;
    let tenants: Vec<String> = (0..u64::from(args.tenants)).map(tenant_id).collect();
    let offered = f64::from(args.quota) * STEADY * f64::from(args.tenants);
    println!(
        "{} tenants send {offered:.0} requests/s in all; the noisy one {:.0} at a quota of {}",
        args.tenants,
        NOISE * f64::from(args.quota),
        args.quota
    );
    let time = Duration::from_secs(args.seconds);
    let mut phases = Vec::new();
    for number in 0..2 * args.pairs {
        let noisy = number % 2 == 1;
        let phase = measure(&args, &hub, &tenants, offered, noisy, time).await?;
        println!(
            "phase {}/{} {}: {:.0} requests/s, p99 {} us",
            number + 1,
            2 * args.pairs,
            if noisy { "noisy" } else { "quiet" },
            phase.ok_per_second,
            phase.p99_us
        );
        phases.push(phase);
    }
    bench::end(hub.guard).await?;
    origin.end().await?;
    check(&phases, f64::from(args.quota))?;
    let raw = serde_json::json!({ "phases": phases });
    let report = Report::new("bench-isolation", figures(&phases), raw);
    report.finish(&args.common.reports_dir, "")
}

async fn measure(
    args: &Args,
    hub: &Hub,
    tenants: &[String],
    offered: f64,
    noisy: bool,
    time: Duration,
) -> Result<Phase> {
    let settings = Settings {
        classes: tenants.len(),
        ..Settings::new(hub.public)
    };
    let names = tenants.to_vec();
    // In turn, so that each keeps its rate exactly and none reaches its quota by chance.
    let steady = open(settings, offered, move |number, out| {
        let at = usize::try_from(number).unwrap_or(0) % names.len();
        write_request("/api/v1/contacts?page=3", &names[at], out);
        expect_origin(u16::try_from(at).unwrap_or(0))
    });
    // Connections of its own, so that it cannot hold up the others inside the client.
    let noise = noisy.then(|| {
        let rate = f64::from(args.quota) * NOISE;
        open(Settings::new(hub.public), rate, |_, out| {
            write_request("/api/v1/contacts?page=3", "noisy", out);
            expect_origin(0)
        })
    });
    tokio::time::sleep(SETTLE).await;
    steady.take();
    if let Some(noise) = &noise {
        noise.take();
    }
    let (since, cpu_before) = (Instant::now(), hub.cpu_time()?);
    tokio::time::sleep(time).await;
    let cpu_share = (hub.cpu_time()? - cpu_before).as_secs_f64() / since.elapsed().as_secs_f64();
    let seen = steady.take();
    let noise_seen = noise.as_ref().map(|noise| noise.take());
    steady.stop().await;
    if let Some(noise) = noise {
        noise.stop().await;
    }
    tokio::time::sleep(SETTLE).await;
    ensure!(seen.counts.all() > 0, "no request was answered in a phase");
    Ok(Phase {
        gateway_cpu_share: cpu_share,
        ..Phase::of(noisy, &seen, noise_seen.as_ref(), tenants.len())
    })
}

impl Phase {
    fn of(noisy: bool, seen: &LoadReport, noise: Option<&LoadReport>, tenants: usize) -> Self {
        let seconds = seen.elapsed.as_secs_f64();
        let ok_of = |class: usize| -> u64 {
            let counts = seen.seconds.iter().map(|second| second.ok_by_class[class]);
            counts.sum()
        };
        let worst = (0..tenants).map(ok_of).min().unwrap_or(0);
        let rate = |count: u64, report: &LoadReport| count as f64 / report.elapsed.as_secs_f64();
        Self {
            noisy,
            seconds,
            ok_per_second: seen.ok_per_second(),
            ok_per_second_worst: worst as f64 / seconds,
            p50_us: seen.percentile_us(50.0),
            p99_us: seen.percentile_us(99.0),
            failed: seen.counts.failed(),
            failures: seen.counts.failures(),
            unsent: seen.unsent,
            late: seen.late,
            gateway_cpu_share: f64::NAN,
            noisy_ok_per_second: noise.map(|noise| noise.ok_per_second()),
            noisy_refused_per_second: noise
                .map(|noise| rate(noise.counts.get(Outcome::Status4xx), noise)),
            noisy_other: noise.map(|noise| noise.counts.failures()),
        }
    }
}

/// A run whose noise was no noise, or was not limited, says nothing about isolation; nor does one whose
/// client was too slow for the others' requests, since their latency would be its own.
fn check(phases: &[Phase], quota: f64) -> Result<()> {
    for phase in phases {
        let sent = phase
            .ok_per_second
            .mul_add(phase.seconds, phase.failed as f64);
        let (late, unsent) = (phase.late as f64, phase.unsent as f64);
        ensure!(
            late + unsent <= LATE_MAX * (sent + unsent),
            "{late} of {sent:.0} requests were sent late and {unsent} not at all; this machine is too slow for --quota {quota}, or the gateway stalls"
        );
    }
    for phase in phases.iter().filter(|phase| phase.noisy) {
        let passed = phase.noisy_ok_per_second.unwrap_or(0.0);
        let refused = phase.noisy_refused_per_second.unwrap_or(0.0);
        ensure!(
            passed + refused >= 0.9 * NOISE * quota,
            "the noisy tenant sent {:.0} requests/s only; this machine is too slow for --quota {quota}",
            passed + refused
        );
        ensure!(
            (0.8 * quota..=1.5 * quota).contains(&passed),
            "the noisy tenant got {passed:.0} requests/s at a quota of {quota}"
        );
    }
    Ok(())
}

fn figures(phases: &[Phase]) -> Vec<Figure> {
    let of = |noisy: bool, value: fn(&Phase) -> f64| {
        median(phases.iter().filter(|one| one.noisy == noisy).map(value))
    };
    let ratio = |value: fn(&Phase) -> f64| Some(of(true, value)? / of(false, value)?);
    let (lower, higher) = (Better::Lower, Better::Higher);
    let p99 = |phase: &Phase| phase.p99_us as f64;
    let quiet_failed: u64 = phases.iter().map(|phase| phase.failed + phase.unsent).sum();
    vec![
        Figure::new(
            "throughput_kept",
            ratio(|one| one.ok_per_second),
            "ratio",
            higher,
        )
        .floor(0.95)
        .note("others together: noisy over quiet phases, medians"),
        Figure::new(
            "throughput_kept_worst",
            ratio(|one| one.ok_per_second_worst),
            "ratio",
            higher,
        )
        .floor(0.95)
        .note("the tenant that got least in each phase"),
        Figure::new("p99_growth", ratio(p99), "ratio", lower)
            .floor(1.5)
            .note("others: noisy over quiet phases, medians, latency from when a request was due"),
        Figure::new(
            "gateway_cpu_share",
            of(true, |one| one.gateway_cpu_share),
            "CPUs",
            lower,
        )
        .note("CPU time of the gateway for each second of a noisy phase, median"),
        Figure::new("quiet_p99", of(false, p99), "us", lower).note("others, quiet phases"),
        Figure::new("noisy_p99", of(true, p99), "us", lower).note("others, noisy phases"),
        Figure::new(
            "others_failed",
            Some(quiet_failed as f64),
            "requests",
            lower,
        )
        .note("over all phases, unsent ones included"),
        Figure::new(
            "noisy_tenant_passed",
            of(true, |one| one.noisy_ok_per_second.unwrap_or(f64::NAN)),
            "requests/s",
            lower,
        )
        .note("what the noisy tenant got through"),
        Figure::new(
            "noisy_tenant_refused",
            of(true, |one| one.noisy_refused_per_second.unwrap_or(f64::NAN)),
            "requests/s",
            higher,
        )
        .note("what it was refused with a 4xx"),
    ]
}

fn config(args: &Args, scratch: &Scratch, origin: &Origin) -> String {
    let mut text = format!(
        "[gateway]\nworkers = 1\nreload_on_change = false\nlog_level = \"warn\"\n\n\
         [admin]\naddress = \"127.0.0.1:0\"\n\n\
         [access_log]\ntarget = \"{}\"\n\n\
         [tenants]\ndefault_requests_per_second = {}\ndefault_in_flight_max = 64\n\n\
         [[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n\n\
         [[cluster]]\nname = \"origin\"\nendpoints = {{ blue = [\"{}\"] }}\n\n\
         [[route]]\nname = \"all\"\npath = {{ prefix = \"/\" }}\ncluster = \"origin\"\n\
         tenant = {{ sources = [{{ header = \"X-Location-Id\" }}] }}\n",
        scratch.text("access.log"),
        args.quota,
        origin.address,
    );
    let names = (0..u64::from(args.tenants)).map(tenant_id);
    for id in names.chain(["noisy".to_owned()]) {
        write!(text, "\n[[tenant]]\nid = \"{id}\"\n").expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(noisy: bool, p99_us: u64, passed: f64, refused: f64) -> Phase {
        Phase {
            noisy,
            seconds: 10.0,
            ok_per_second: 3_000.0,
            ok_per_second_worst: 300.0,
            p50_us: 100,
            p99_us,
            failed: 0,
            failures: String::new(),
            unsent: 0,
            late: 0,
            gateway_cpu_share: 0.5,
            noisy_ok_per_second: noisy.then_some(passed),
            noisy_refused_per_second: noisy.then_some(refused),
            noisy_other: None,
        }
    }

    #[test]
    fn noise_that_was_not_limited_makes_the_run_invalid() {
        let quota = 500.0;
        let good = [phase(false, 1, 0.0, 0.0), phase(true, 1, 500.0, 4_500.0)];
        assert!(check(&good, quota).is_ok());
        assert!(check(&[phase(true, 1, 5_000.0, 0.0)], quota).is_err());
        assert!(check(&[phase(true, 1, 500.0, 1_000.0)], quota).is_err());
        assert!(check(&[phase(true, 1, 10.0, 4_990.0)], quota).is_err());
    }

    #[test]
    fn a_client_that_was_late_makes_the_run_invalid() {
        let late = |late, unsent| Phase {
            late,
            unsent,
            ..phase(false, 1, 0.0, 0.0)
        };
        assert!(check(&[late(100, 0)], 500.0).is_ok());
        assert!(check(&[late(400, 0)], 500.0).is_err());
        assert!(check(&[late(0, 400)], 500.0).is_err());
    }

    #[test]
    fn growth_compares_the_medians_of_the_phases() {
        let mut phases = Vec::new();
        for quiet in [1_000, 1_000, 9_000] {
            phases.push(phase(false, quiet, 0.0, 0.0));
            phases.push(phase(true, quiet * 2, 500.0, 4_500.0));
        }
        let figures = serde_json::to_value(figures(&phases)).unwrap();
        let growth = figures
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == "p99_growth");
        assert_eq!(growth.unwrap()["value"], 2.0);
    }
}
