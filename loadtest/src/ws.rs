//! `make bench-ws` and `make soak-ws`: what WebSockets through the gateway cost, beside nginx, HAProxy and bare
//! pingora.

mod churn;
mod client;
mod contestant;
mod frame;
mod hostile;
mod idle;
mod messages;
mod origin;
mod rude;
mod soak;
mod steady;

pub(crate) use origin::{Args as OriginArgs, run as run_origin};

use crate::bench::{self, Common, Scratch};
use crate::report::{Figure, Report};
use anyhow::{Result, ensure};
use contestant::{Contestant, Ring, sessions_max};
use origin::Origin;
use serde_json::{Map, Value};
use std::time::Duration;

/// Arguments of `hub-loadtest ws`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Parts to run; all unless said.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Idle sessions, each with two descriptors in the proxy.
    #[arg(long, default_value_t = 9_600, value_parser = clap::value_parser!(u16).range(10..=9_800))]
    sessions: u16,
    /// Rounds with idle sessions; each contestant has one start in each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    idle_rounds: u32,
    /// Rounds with messages, and with hostile peers.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Seconds of a slice.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Small numbers, to see that all of it runs. The floors do not count then, and the report has another
    /// name.
    #[arg(long)]
    quick: bool,
    /// Instead of the parts: sessions that come and go for so many minutes.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    soak_minutes: Option<u64>,
    /// Sessions that come in each second of it.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    soak_rate: u32,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Sessions held, and what each weighs.
    Idle,
    /// CPU for each relayed message.
    Messages,
    /// What hostile sessions do to their neighbours.
    Hostile,
}

/// What a part has found.
#[derive(Debug)]
struct Findings {
    figures: Vec<Figure>,
    /// Its own table.
    heading: String,
    raw: Value,
}

impl Args {
    pub(crate) fn time_max(&self) -> Duration {
        if let Some(minutes) = self.soak_minutes {
            return Duration::from_secs(60 * minutes + 300);
        }
        let idle = Duration::from_secs(180) * (self.idle_rounds * Contestant::ALL.len() as u32);
        let messages = Duration::from_secs(240) * self.rounds;
        let hostile = Duration::from_secs(self.seconds + 40) * (3 * self.rounds);
        idle + messages + hostile + Duration::from_secs(120)
    }

    /// As `--quick` wants them.
    fn shrunk(mut self) -> Self {
        if self.quick {
            self.sessions = self.sessions.min(300);
            (self.idle_rounds, self.rounds, self.seconds) = (1, 1, self.seconds.min(2));
        }
        self
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let args = args.shrunk();
    bench::prepare()?;
    let sessions = usize::from(args.sessions);
    ensure!(
        sessions <= sessions_max(),
        "{sessions} sessions need two descriptors each in the proxy, and the limit allows {}: raise it (ulimit -Hn), or say --sessions",
        sessions_max()
    );
    let scratch = Scratch::new()?;
    let origin = Origin::start(&scratch, "ws-origin").await?;
    let ring = Ring {
        bin_dir: &args.common.bin_dir,
        scratch: &scratch,
        origin: &origin,
        sessions,
    };
    let mut found: Vec<(&str, Findings)> = Vec::new();
    let name = match (args.soak_minutes, args.quick) {
        (Some(minutes), quick) => {
            let time = Duration::from_secs(60 * minutes);
            found.push((
                "soak",
                soak::run(&ring, time, f64::from(args.soak_rate)).await?,
            ));
            if quick { "ws-soak-quick" } else { "ws-soak" }
        }
        (None, quick) => {
            parts(&args, &ring, &mut found).await?;
            if quick { "ws-quick" } else { "ws" }
        }
    };
    origin.end().await?;
    finish(&args, name, found)
}

async fn parts(
    args: &Args,
    ring: &Ring<'_>,
    found: &mut Vec<(&'static str, Findings)>,
) -> Result<()> {
    if args.wants(Part::Idle) {
        found.push(("idle", idle::run(ring, args.idle_rounds).await?));
    }
    if args.wants(Part::Messages) {
        let shrink = if args.quick { 20 } else { 1 };
        found.push(("messages", messages::run(ring, args.rounds, shrink).await?));
    }
    if args.wants(Part::Hostile) {
        let hostile = hostile::run(ring, args.rounds, args.seconds).await?;
        found.push(("hostile", hostile));
    }
    Ok(())
}

fn finish(args: &Args, name: &'static str, found: Vec<(&str, Findings)>) -> Result<()> {
    let (mut figures, mut heading, mut raw) = (Vec::new(), String::new(), Map::new());
    for (part, findings) in found {
        figures.extend(findings.figures);
        heading += &findings.heading;
        heading.push('\n');
        raw.insert(part.to_owned(), findings.raw);
    }
    let report = Report::new(name, figures, Value::Object(raw));
    report.finish(&args.common.reports_dir, &heading)?;
    let missed = report.missed();
    if args.quick {
        println!("\nquick: small numbers, so floors do not count");
        return Ok(());
    }
    ensure!(missed.is_empty(), "floors missed: {}", missed.join(", "));
    Ok(())
}
