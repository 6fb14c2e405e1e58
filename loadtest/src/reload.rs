//! `make bench-reload`: a large configuration, replaced again and again under steady load.

use crate::bench::{self, Common, Origin, Scratch, fetch};
use crate::hub::{Hub, TOKEN};
use crate::report::{Better, Figure, Report, median};
use crate::workload::{expect_origin, request, tenant_id, write_request};
use anyhow::{Context, Result, ensure};
use hub_testkit::load::{Ask, Report as LoadReport, Settings, closed, open, spread};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Configurations that take turns; each differs from the one before.
const GENERATIONS: u64 = 4;
/// How many of the routes and tenants are in one generation only.
const CHANGING_SHARE: u64 = 10;
/// Before measuring.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the capacity is measured.
const CAPACITY_TIME: Duration = Duration::from_secs(5);
/// How long a reload still costs something after its last probe: what was in force is freed.
const FREEING_S: f64 = 1.0;
/// Share of the capacity that is offered.
const OFFERED: f64 = 0.4;

/// Arguments of `hub-loadtest reload`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Seconds of the open loop; reloads are spread over them evenly.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(2..=3000))]
    seconds: u64,
    /// Reloads.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    reloads: u32,
    /// Routes of the configuration.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..=100_000))]
    routes: u64,
    /// Tenants of the configuration.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    tenants: u64,
    /// CPUs of the gateway. Default: the first alone, as in the comparison, so that a reload competes
    /// with the requests for it.
    #[arg(long, value_delimiter = ',')]
    gateway_cpus: Vec<usize>,
}

impl Args {
    pub(crate) fn time_max(&self) -> Duration {
        Duration::from_secs(self.seconds + 180)
    }
}

/// One reload.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    /// Seconds into the measured time, from putting the files in place to the last probe.
    from_s: f64,
    until_s: f64,
    /// How long the admin API took to answer.
    answered_ms: f64,
    /// How long the gateway says that it took.
    took_ms: Option<f64>,
}

/// Routes and tenants that every generation has, and those that only one has.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    routes: u64,
    tenants: u64,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    bench::prepare()?;
    let scratch = Scratch::new()?;
    let origin = Origin::start(&scratch).await?;
    let sizes = Sizes {
        routes: args.routes,
        tenants: args.tenants,
    };
    println!(
        "writing {GENERATIONS} configurations of {} routes and {} tenants",
        args.routes, args.tenants
    );
    scratch.write("token", TOKEN)?;
    for generation in 0..GENERATIONS {
        let config = sizes.config(generation, &scratch, &origin);
        scratch.write(&format!("hub.{generation}"), &config)?;
        scratch.write(
            &format!("tenants.{generation}"),
            &sizes.directory(generation),
        )?;
    }
    put_in_place(&scratch, 0)?;
    let config = scratch.path("hub.toml");
    let cpus = match args.gateway_cpus.as_slice() {
        [] => bench::server_cpus(),
        chosen => chosen.to_vec(),
    };
    let hub = Hub::start(&args.common.bin_dir, &scratch, &config, &cpus).await?;
    probe(&hub, 0).await?;

    println!("measuring the capacity");
    let running = closed(Settings::new(hub.public), sizes.generator());
    tokio::time::sleep(WARM_UP).await;
    running.take();
    tokio::time::sleep(CAPACITY_TIME).await;
    let capacity = running.take();
    running.stop().await;
    ensure!(
        capacity.counts.failed() == 0,
        "requests failed before any reload: {}",
        capacity.counts.failures()
    );
    let capacity = capacity.ok_per_second();
    let offered = capacity * OFFERED;
    println!(
        "{capacity:.0} requests/s; offering {offered:.0} with {} reloads",
        args.reloads
    );

    let settings = Settings {
        duration_max: Duration::from_secs(args.seconds + 60),
        ..Settings::new(hub.public)
    };
    let running = open(settings, offered, sizes.generator());
    tokio::time::sleep(WARM_UP).await;
    running.take();
    let since = Instant::now();
    let cpu_before = hub.cpu_time()?;
    let mut samples = Vec::new();
    for number in 0..args.reloads {
        // On a whole second, so that a short reload touches one second and not two.
        let pause = args.seconds * u64::from(number) / u64::from(args.reloads);
        let start = tokio::time::Instant::from_std(since + Duration::from_secs(pause));
        tokio::time::sleep_until(start).await;
        let generation = u64::from(number + 1) % GENERATIONS;
        let from_s = since.elapsed().as_secs_f64();
        put_in_place(&scratch, generation)?;
        let asked = Instant::now();
        let reloaded = hub.reload().await?;
        let answered = asked.elapsed();
        ensure!(
            reloaded.outcome == "applied",
            "reload {number} ended as {}",
            reloaded.outcome
        );
        probe(&hub, generation).await?;
        samples.push(Sample {
            from_s,
            until_s: since.elapsed().as_secs_f64(),
            answered_ms: answered.as_secs_f64() * 1e3,
            took_ms: reloaded.took_ms,
        });
        if (number + 1) % 10 == 0 {
            println!(
                "{} reloads, the last in {} ms",
                number + 1,
                answered.as_millis()
            );
        }
    }
    tokio::time::sleep_until((since + Duration::from_secs(args.seconds)).into()).await;
    let cpu_share = (hub.cpu_time()? - cpu_before).as_secs_f64() / since.elapsed().as_secs_f64();
    let report = running.take();
    running.stop().await;
    let start_time = hub.start_time;
    bench::end(hub.guard).await?;
    origin.end().await?;
    let report = judge(&report, &samples, (capacity, cpu_share), start_time);
    report.finish(&args.common.reports_dir, "")
}

fn judge(
    load: &LoadReport,
    samples: &[Sample],
    (capacity, cpu_share): (f64, f64),
    start_time: Duration,
) -> Report {
    let busy = busy_seconds(samples, load.seconds.len());
    let quiet = (0..load.seconds.len()).filter(|second| !busy.contains(second));
    let in_ms = |us: Option<u64>| us.map(|us| us as f64 / 1e3);
    let busy_p99 = in_ms(load.percentile_us_of(busy.iter().copied(), 99.0));
    let quiet_p99 = in_ms(load.percentile_us_of(quiet, 99.0));
    let difference = busy_p99.zip(quiet_p99).map(|(busy, quiet)| busy - quiet);
    let failed = load.counts.failed() + load.unsent;
    let lower = Better::Lower;
    let figures = vec![
        Figure::new("failed_requests", Some(failed as f64), "requests", lower)
            .floor(0.0)
            .goal(0.0)
            .note(format!(
                "of {}, unsent ones ({}) included; {}",
                load.counts.all() + load.unsent,
                load.unsent,
                load.counts.failures()
            )),
        Figure::new("reload_p99_minus_quiet_p99", difference, "ms", lower)
            .floor(5.0)
            .note(
                "seconds that a reload touched, the freeing of what it replaced included, against all others; null if there is none of either",
            ),
        Figure::new(
            "load_time",
            Some(start_time.as_secs_f64() * 1e3),
            "ms",
            lower,
        )
        .floor(1_000.0)
        .note("from the start of the process until it serves, nothing else running"),
        Figure::new("reload_seconds_p99", busy_p99, "ms", lower)
            .note("latency from when a request was due"),
        Figure::new("quiet_seconds_p99", quiet_p99, "ms", lower)
            .note("latency from when a request was due"),
        Figure::new(
            "reload_time_under_load",
            median(samples.iter().filter_map(|one| one.took_ms)),
            "ms",
            lower,
        )
        .note("median, as the gateway reports it: reading the files to the swap"),
        Figure::new(
            "reload_answer_time_max",
            samples.iter().map(|one| one.answered_ms).reduce(f64::max),
            "ms",
            lower,
        )
        .note("the longest that the admin API took to answer"),
        Figure::new(
            "reloads",
            Some(samples.len() as f64),
            "reloads",
            Better::Higher,
        )
        .note("each probed: the new route and tenant serve, the old ones are gone"),
        Figure::new("capacity", Some(capacity), "requests/s", Better::Higher)
            .note("closed loop, same configuration"),
        Figure::new(
            "offered",
            Some(capacity * OFFERED),
            "requests/s",
            Better::Higher,
        )
        .note("open loop"),
        Figure::new("gateway_cpu_share", Some(cpu_share), "CPUs", lower)
            .note("CPU time of the gateway for each second of the open loop, reloads included"),
        Figure::new("late_requests", Some(load.late as f64), "requests", lower)
            .note("sent more than 10 ms after they were due; their latency counts from then"),
    ];
    let seconds = load.seconds.iter().enumerate().map(|(at, second)| {
        serde_json::json!({
            "second": at,
            "reload": busy.contains(&at),
            "ok": second.counts.ok(),
            "failed": second.counts.failed(),
            "p50_us": second.latency_us.value_at_quantile(0.5),
            "p99_us": second.latency_us.value_at_quantile(0.99),
            "max_us": second.latency_us.max(),
        })
    });
    let raw = serde_json::json!({
        "reloads": samples,
        "seconds": seconds.collect::<Vec<_>>(),
    });
    Report::new("bench-reload", figures, raw)
}

/// Every second that some reload touched, and the one in which what it replaced is freed.
fn busy_seconds(samples: &[Sample], seconds: usize) -> BTreeSet<usize> {
    let mut busy = BTreeSet::new();
    for sample in samples {
        let until_s = sample.until_s + FREEING_S;
        let (from, until) = (sample.from_s as usize, until_s as usize);
        busy.extend((from..=until).filter(|second| *second < seconds));
    }
    busy
}

/// Makes a generation the one that the gateway finds. Both files are made beforehand, so that
/// writing megabytes is no part of what is measured.
fn put_in_place(scratch: &Scratch, generation: u64) -> Result<()> {
    for (from, to) in [("tenants", "tenants.jsonl"), ("hub", "hub.toml")] {
        let draft = scratch.path("draft");
        std::fs::hard_link(scratch.path(&format!("{from}.{generation}")), &draft)
            .and_then(|()| std::fs::rename(&draft, scratch.path(to)))
            .with_context(|| format!("{to} cannot be put in place"))?;
        // Where both names are the same file already, rename leaves the draft alone.
        if draft.exists() {
            std::fs::remove_file(&draft).context("a draft cannot be removed")?;
        }
    }
    Ok(())
}

/// Proves that a generation is in force, and the one before it is not.
async fn probe(hub: &Hub, generation: u64) -> Result<()> {
    let before = (generation + GENERATIONS - 1) % GENERATIONS;
    let stable = tenant_id(0);
    let cases = [
        (
            format!("/gen{generation}/0/x"),
            changing_tenant(generation, 0),
            200,
        ),
        (format!("/gen{before}/0/x"), stable.clone(), 404),
        ("/svc0/x".to_owned(), changing_tenant(before, 0), 404),
        ("/svc0/x".to_owned(), stable, 200),
    ];
    for (path, tenant, expected) in cases {
        let text = request(&path, &tenant, "Connection: close\r\n");
        let status = fetch(hub.public, &text).await?.status;
        ensure!(
            status == expected,
            "generation {generation}: {path} for {tenant} answered {status}, not {expected}"
        );
    }
    Ok(())
}

fn changing_tenant(generation: u64, number: u64) -> String {
    format!("gen{generation}-{number}")
}

// === impl Sizes ===

impl Sizes {
    fn stable(all: u64) -> u64 {
        all - all / CHANGING_SHARE
    }

    fn config(self, generation: u64, scratch: &Scratch, origin: &Origin) -> String {
        let mut text = format!(
            "[gateway]\nworkers = 1\nreload_on_change = false\nlog_level = \"warn\"\n\n\
             [admin]\naddress = \"127.0.0.1:0\"\ntoken_file = \"{}\"\n\n\
             [access_log]\ntarget = \"{}\"\n\n\
             [tenants]\ndirectory = \"{}\"\ndefault_in_flight_max = 1000\n\n\
             [[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n\n\
             [[cluster]]\nname = \"origin\"\nendpoints = {{ blue = [\"{}\"] }}\n\n",
            scratch.text("token"),
            scratch.text("access.log"),
            scratch.text("tenants.jsonl"),
            origin.address,
        );
        let stable = Self::stable(self.routes);
        for number in 0..stable {
            self.route(&mut text, &format!("svc{number}"), &format!("/svc{number}"));
        }
        for number in 0..self.routes - stable {
            let name = format!("gen{generation}-{number}");
            self.route(&mut text, &name, &format!("/gen{generation}/{number}"));
        }
        text
    }

    /// A mix of the ways to match: mostly prefixes, some templates.
    fn route(self, text: &mut String, name: &str, path: &str) {
        let path = if name.ends_with('7') {
            format!("{{ template = \"{path}/{{id}}\" }}")
        } else {
            format!("{{ prefix = \"{path}\" }}")
        };
        writeln!(
            text,
            "[[route]]\nname = \"{name}\"\npath = {path}\ncluster = \"origin\"\n\
             tenant = {{ sources = [{{ header = \"X-Location-Id\" }}] }}\n"
        )
        .expect("a String takes everything");
    }

    /// The tenants' quotas change with the generation, too, but never so low that they matter.
    fn directory(self, generation: u64) -> String {
        let stable = Self::stable(self.tenants);
        let names = (0..stable).map(tenant_id);
        let changing = (0..self.tenants - stable).map(|one| changing_tenant(generation, one));
        let quota = 1_000_000 + generation;
        let mut text = String::new();
        for id in names.chain(changing) {
            writeln!(text, "{{\"id\":\"{id}\",\"requests_per_second\":{quota}}}")
                .expect("a String takes everything");
        }
        text
    }

    /// Requests over all stable routes and tenants.
    fn generator(self) -> impl Fn(u64, &mut Vec<u8>) -> Ask + Send + Sync + 'static {
        let (routes, tenants) = (Self::stable(self.routes), Self::stable(self.tenants));
        move |number, out| {
            let drawn = spread(number);
            let path = format!("/svc{}/x", drawn % routes);
            write_request(&path, &tenant_id((drawn >> 20) % tenants), out);
            expect_origin(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_that_a_reload_touches_is_busy() {
        let sample = |from_s, until_s| Sample {
            from_s,
            until_s,
            answered_ms: 0.0,
            took_ms: None,
        };
        let samples = [sample(1.0, 1.9), sample(5.0, 7.1), sample(10.5, 13.0)];
        let busy: Vec<usize> = busy_seconds(&samples, 12).into_iter().collect();
        assert_eq!(busy, [1, 2, 5, 6, 7, 8, 10, 11]);
    }

    #[test]
    fn generations_share_nine_tenths_of_their_tenants() {
        let sizes = Sizes {
            routes: 100,
            tenants: 1_000,
        };
        let ids = |generation| -> BTreeSet<String> {
            let text = sizes.directory(generation);
            let id = |line: &str| line.split('"').nth(3).map(str::to_owned);
            text.lines().filter_map(id).collect()
        };
        let (first, second) = (ids(0), ids(1));
        assert_eq!((first.len(), second.len()), (1_000, 1_000));
        assert_eq!(first.intersection(&second).count(), 900);
    }

    #[test]
    fn a_generation_is_put_in_place_twice_without_a_leftover() {
        let scratch = Scratch::new().unwrap();
        for name in ["hub.0", "tenants.0", "hub.1", "tenants.1"] {
            scratch.write(name, name).unwrap();
        }
        for generation in [0, 0, 1, 1, 0] {
            put_in_place(&scratch, generation).unwrap();
            let text = std::fs::read_to_string(scratch.path("hub.toml")).unwrap();
            assert_eq!(text, format!("hub.{generation}"));
        }
    }
}
