//! `make bench-memory`: what the gateway holds when it does nothing, and for each idle connection.

use crate::bench::{self, Common, Origin, Scratch};
use crate::hub::{Hub, TOKEN};
use crate::report::{Better, Figure, Report, median};
use crate::workload::request;
use anyhow::{Context, Result, ensure};
use hub_testkit::load::{Body, Connection};
use hub_testkit::process::usage_of_tree;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// After the last request, before memory is read: allocators give pages back with a delay.
const SETTLE: Duration = Duration::from_secs(5);
/// Connections from one address, below the gateway's default limit of 1000.
const PER_ADDRESS: usize = 500;

/// Arguments of `hub-loadtest memory`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Directory of the demo's configuration: `demo.toml` and `demo-tenants.jsonl`.
    #[arg(long, default_value = "config/examples")]
    demo_dir: PathBuf,
    /// Idle connections.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(100..=9_000))]
    connections: u16,
    /// Gateways, one after the other, that the connections are opened to.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    repeats: u8,
}

impl Args {
    pub(crate) fn time_max(&self) -> Duration {
        Duration::from_secs(60) * (u32::from(self.repeats) + 2)
    }
}

pub(crate) async fn run(args: Args) -> Result<()> {
    bench::prepare()?;
    let scratch = Scratch::new()?;
    let (idle, idle_note) = match idle_memory(&args, &scratch).await {
        Ok(bytes) => (
            Some(bytes as f64),
            "resident, 5 s after it began to serve, its sample application not running".to_owned(),
        ),
        // The other figure does not depend on this one, and a reader should see both.
        Err(error) => (None, format!("the demo does not run here: {error:#}")),
    };
    if idle.is_none() {
        println!("warning: {idle_note}");
    }
    // The allocator's luck differs from process to process by several hundred bytes a connection,
    // which is as much as what is left to the floor: one process would be a toss of a coin.
    let mut samples = Vec::new();
    for number in 1..=args.repeats {
        println!(
            "opening {} connections, {number}/{}",
            args.connections, args.repeats
        );
        samples.push(connection_memory(&args, &scratch).await?);
    }
    let report = Report::new(
        "bench-memory",
        figures(&args, idle, &idle_note, &samples),
        serde_json::json!({
            "connections": args.connections,
            "idle_rss_bytes": idle,
            "samples": samples,
        }),
    );
    report.finish(&args.common.reports_dir, "")
}

/// Resident bytes of one gateway.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    /// Before the idle connections.
    before: u64,
    /// With them.
    after: u64,
}

fn figures(args: &Args, idle: Option<f64>, idle_note: &str, samples: &[Sample]) -> Vec<Figure> {
    let lower = Better::Lower;
    let each = |one: &Sample| (one.after as f64 - one.before as f64) / f64::from(args.connections);
    let least = samples.iter().map(each).fold(f64::INFINITY, f64::min);
    let most = samples.iter().map(each).fold(f64::NEG_INFINITY, f64::max);
    let rss = |value: fn(&Sample) -> u64| median(samples.iter().map(|one| value(one) as f64 / 1e6));
    vec![
        Figure::new("idle_rss_demo", idle.map(|bytes| bytes / 1e6), "MB", lower)
            .floor(30.0)
            .note(idle_note),
        Figure::new(
            "bytes_per_idle_connection",
            median(samples.iter().map(each)),
            "bytes",
            lower,
        )
        .floor(4_096.0)
        .note(format!(
            "median of {} gateways, from {least:.0} to {most:.0}; growth of resident memory, \
                 without the kernel's own for sockets",
            samples.len()
        )),
        Figure::new(
            "bytes_per_idle_connection_worst",
            Some(most),
            "bytes",
            lower,
        )
        .note("of the gateway that took most"),
        Figure::new(
            "rss_without_connections",
            rss(|one| one.before),
            "MB",
            lower,
        )
        .note("median, of the gateways that the connections were opened to"),
        Figure::new("rss_with_connections", rss(|one| one.after), "MB", lower)
            .note(format!("median, with {} connections", args.connections)),
    ]
}

async fn idle_memory(args: &Args, scratch: &Scratch) -> Result<u64> {
    println!("starting the demo");
    let config = demo(args, scratch)?;
    // On all CPUs: the number of workers, and so the memory, follows from them.
    let hub = Hub::start(&args.common.bin_dir, scratch, &config, bench::all_cpus()).await?;
    tokio::time::sleep(SETTLE).await;
    let usage = usage_of_tree(hub.guard.pid()).context("the gateway has no figures")?;
    bench::end(hub.guard).await?;
    Ok(usage.rss_bytes)
}

/// Copies the demo's files and makes the secrets that `scripts/demo.sh` would make. Its listeners
/// take free ports, so that a demo that is running already is not in the way.
fn demo(args: &Args, scratch: &Scratch) -> Result<PathBuf> {
    let read = |name: &str| {
        let path = args.demo_dir.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
    };
    scratch.write("demo-tenants.jsonl", &read("demo-tenants.jsonl")?)?;
    scratch.write("admin-token", TOKEN)?;
    scratch.write("jwt-secret", &"0123456789abcdef".repeat(4))?;
    let made = Command::new(args.common.bin_dir.join("hub-gateway"))
        .args(["api-key", "demo-partner", "--tenant", "loc_lakeside"])
        .output()
        .context("hub-gateway cannot be started")?;
    let text = String::from_utf8_lossy(&made.stdout);
    let line = text.lines().nth(3);
    scratch.write(
        "api-keys",
        line.context("hub-gateway api-key printed no line for the key file")?,
    )?;
    scratch.write("demo.toml", &on_free_ports(&read("demo.toml")?))
}

/// The same configuration with port 0 wherever it listens on 127.0.0.1.
fn on_free_ports(config: &str) -> String {
    let line = |line: &str| {
        if line.starts_with("address = \"127.0.0.1:") {
            "address = \"127.0.0.1:0\"\n".to_owned()
        } else {
            format!("{line}\n")
        }
    };
    config.lines().map(line).collect()
}

/// Resident bytes before and with the idle connections.
async fn connection_memory(args: &Args, scratch: &Scratch) -> Result<Sample> {
    let origin = Origin::start(scratch).await?;
    let config = scratch.write("connections.toml", &config(&origin))?;
    let cpus = bench::server_cpus();
    let hub = Hub::start(&args.common.bin_dir, scratch, &config, &cpus).await?;
    let text = request("/", "nobody", "");
    // What is made once is made by these, and is not the price of a connection.
    for _ in 0..100 {
        one_request(&hub, IpAddr::V4(Ipv4Addr::LOCALHOST), &text).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let before = usage_of_tree(hub.guard.pid()).context("the gateway has no figures")?;
    let mut held = Vec::with_capacity(usize::from(args.connections));
    for number in 0..usize::from(args.connections) {
        let last =
            u8::try_from(2 + number / PER_ADDRESS).context("more than 127 000 connections")?;
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let mut connection = one_request(&hub, source, &text).await?;
        connection.release_buffer();
        held.push(connection);
    }
    tokio::time::sleep(SETTLE).await;
    let after = usage_of_tree(hub.guard.pid()).context("the gateway has no figures")?;
    let stale = held
        .iter()
        .filter(|connection| connection.is_stale())
        .count();
    ensure!(stale == 0, "the gateway closed {stale} idle connections");
    ensure!(
        after.fds >= before.fds + u64::from(args.connections),
        "the gateway has {} descriptors for {} connections",
        after.fds,
        args.connections
    );
    drop(held);
    bench::end(hub.guard).await?;
    origin.end().await?;
    Ok(Sample {
        before: before.rss_bytes,
        after: after.rss_bytes,
    })
}

async fn one_request(hub: &Hub, source: IpAddr, text: &str) -> Result<Connection> {
    let exchange = async {
        let mut connection = Connection::connect(hub.public, Some(source)).await?;
        let body = Body::Exact(crate::origin::BODY);
        let answer = connection.exchange(text.as_bytes(), body).await?;
        Ok((connection, answer))
    };
    let (connection, answer) = exchange
        .await
        .map_err(|failure: hub_testkit::load::Failure| {
            anyhow::anyhow!("a request failed: {failure:?}")
        })?;
    ensure!(
        answer.status == 200 && answer.body_matches && answer.keepalive,
        "a request was answered {answer:?}"
    );
    Ok(connection)
}

fn config(origin: &Origin) -> String {
    format!(
        "[gateway]\nworkers = 1\nreload_on_change = false\nlog_level = \"warn\"\n\n\
         [admin]\naddress = \"127.0.0.1:0\"\n\n[access_log]\ntarget = \"off\"\n\n\
         [[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n\n\
         [[cluster]]\nname = \"origin\"\nendpoints = {{ blue = [\"{}\"] }}\n\n\
         [[route]]\nname = \"all\"\npath = {{ prefix = \"/\" }}\ncluster = \"origin\"\n",
        origin.address,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listened_on_changes_its_port() {
        let before = "[admin]\naddress = \"127.0.0.1:9900\"\n\n[cluster.endpoints]\nblue = [\"127.0.0.1:8181\"]\n";
        assert_eq!(on_free_ports(before), before.replace("9900", "0"));
    }
}
