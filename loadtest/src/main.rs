//! The benches of the EnterpriseHub Gateway: `hub-loadtest proxy | reload | isolation | memory |
//! switch | upgrade | greens | ws`, the `origin` and `ws-origin` that they talk to, and the simulation `judge`. What is measured, and what is not, stands in `loadtest/README.md`.
//!
//! Invariant: each subcommand ends by itself, takes its processes with it, and writes its report only
//! if the run was valid; an invalid run exits 1 and says why.

mod app;
mod bench;
mod client;
mod greens;
mod hub;
mod isolation;
mod judge;
mod memory;
mod origin;
mod pacer;
mod peers;
mod proxy;
mod reload;
mod report;
mod site;
mod software;
mod switch;
mod upgrade;
mod workload;
mod ws;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "Benches of the EnterpriseHub Gateway", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a fixed answer as cheaply as possible, until killed.
    Origin(origin::Args),
    /// Compare the gateway with bare pingora, nginx and HAProxy.
    Proxy(proxy::Args),
    /// Reload a large configuration again and again under steady load.
    Reload(reload::Args),
    /// Put a noisy tenant beside well-behaved ones.
    Isolation(isolation::Args),
    /// Measure idle memory and the price of an idle connection.
    Memory(memory::Args),
    /// Roll out again and again between two good colours under steady mixed traffic.
    Switch(switch::Args),
    /// Replace the binary again and again under steady mixed traffic.
    Upgrade(upgrade::Args),
    /// Roll bad colours out and see how soon each is taken back.
    Greens(greens::Args),
    /// Hold WebSockets, relay messages, and bear hostile peers, beside nginx, HAProxy and bare pingora.
    Ws(ws::Args),
    /// Send every WebSocket message back, until killed.
    WsOrigin(ws::OriginArgs),
    /// Simulate deployments and count what the judges of a canary get wrong.
    Judge(judge::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    // A simulation waits for nothing, so it needs no runtime, and a signal ends it as any program.
    if let Command::Judge(args) = &cli.command {
        return judge::run(args);
    }
    // One thread: the client shares its CPU with the origin, and a second worker would only move
    // requests between threads.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the async runtime could not be started")?;
    runtime.block_on(async {
        match cli.command {
            Command::Origin(args) => origin::run(args).await,
            Command::Proxy(args) => bounded(args.time_max(), proxy::run(args)).await,
            Command::Reload(args) => bounded(args.time_max(), reload::run(args)).await,
            Command::Isolation(args) => bounded(args.time_max(), isolation::run(args)).await,
            Command::Memory(args) => bounded(args.time_max(), memory::run(args)).await,
            Command::Switch(args) => bounded(args.time_max(), switch::run(args)).await,
            Command::Upgrade(args) => bounded(args.time_max(), upgrade::run(args)).await,
            Command::Greens(args) => bounded(args.time_max(), greens::run(args)).await,
            Command::Ws(args) => bounded(args.time_max(), ws::run(args)).await,
            Command::WsOrigin(args) => ws::run_origin(args).await,
            Command::Judge(args) => judge::run(&args),
        }
    })
}

/// Runs a bench until it is done, out of time, or interrupted. In every case its processes end,
/// because their guards are dropped.
async fn bounded(limit: Duration, bench: impl Future<Output = Result<()>>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
    tokio::select! {
        done = tokio::time::timeout(limit, bench) => {
            done.with_context(|| format!("not done after {} s", limit.as_secs()))?
        }
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}
