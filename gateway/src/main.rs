//! The gateway's binary: arguments, exit codes, and the order in which things start and stop.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator's options, where they are not its defaults: how many milliseconds freed memory is kept
/// before the system gets it back (-1: for always), and whether it asks for pages of 2 MB.
const ALLOCATOR_OPTIONS: [(&str, &str); 2] =
    [("MIMALLOC_PURGE_DELAY", "-1"), ("MIMALLOC_ALLOW_THP", "0")];

use anyhow::Context;
use clap::{Parser, Subcommand};
use hub_core::LocationId;
use hub_gateway::switch::decided;
use hub_gateway::{run, schema};
use hub_plugins::api_key;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Bad configuration: `EX_USAGE` of sysexits.h.
const EXIT_CONFIG: u8 = 64;
/// A socket could not be bound, or something of the system's failed: `EX_OSERR`.
const EXIT_SYSTEM: u8 = 71;

/// Multi-tenant edge gateway.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Run {
        /// The configuration file.
        config: PathBuf,
        /// Write the bound addresses here, as JSON, once everything is served.
        #[arg(long)]
        ready_file: Option<PathBuf>,
    },
    /// Check a configuration file, and all files that it names, without serving. Exits 64 and lists
    /// every problem where there are any.
    Check {
        /// The configuration file.
        config: PathBuf,
    },
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Make an API key: prints the key once, and the line for the key file, which holds its hash.
    ApiKey {
        /// Name of the key's owner: 1 to 64 of `[A-Za-z0-9_.-]`.
        name: String,
        /// The tenant that the key speaks for.
        #[arg(long)]
        tenant: Option<String>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config, ready_file } => {
            set_allocator_options();
            serve(config, ready_file)
        }
        Command::Check { config } => check(&config),
        Command::Schema => {
            print!("{}", schema());
            ExitCode::SUCCESS
        }
        Command::ApiKey { name, tenant } => api_key(&name, tenant.as_deref()),
    }
}

/// Starts this program anew with those [`ALLOCATOR_OPTIONS`] that are not set.
///
/// A reload frees a whole snapshot. By default the allocator gives such memory back from whichever thread
/// allocates next, which is a data worker: 20 ms in one system call, and page faults when the next reload
/// needs the memory again. Kept, it is the next reload's. Pages of 2 MB would be counted whole where a few
/// bytes of them are used, a third of what an idle gateway holds. The allocator reads its options before
/// `main`, and from the environment alone.
fn set_allocator_options() {
    let unset = |(name, _): &(&str, &str)| std::env::var_os(name).is_none();
    let options: Vec<_> = ALLOCATOR_OPTIONS.into_iter().filter(unset).collect();
    if options.is_empty() {
        return;
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut again = std::process::Command::new(program);
    again.args(arguments).envs(options);
    if let Some(name) = name {
        again.arg0(name);
    }
    // Returns only where it fails, and then it is no worse than before.
    let error = again.exec();
    eprintln!("warning: the allocator keeps its defaults, reloads may delay requests: {error}");
}

fn serve(config: PathBuf, ready_file: Option<PathBuf>) -> ExitCode {
    match run::run(config, ready_file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(run::Failure::Config(problems)) => {
            eprintln!("{problems}");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(failure @ run::Failure::Schema(_)) => {
            eprintln!("error: {failure}");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(run::Failure::System(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

fn check(config: &std::path::Path) -> ExitCode {
    match hub_gateway::control::reload::load(config, None, false) {
        Ok(checked) => {
            for warning in &checked.warnings {
                eprintln!("warning: {warning}\n");
            }
            for told in decided::without_effect(&checked) {
                eprintln!("note: {told}\n");
            }
            println!(
                "{}: good ({} listeners, {} routes, {} clusters, {} tenants, hash {})",
                config.display(),
                checked.listeners.len(),
                checked.routes.len(),
                checked.clusters.len(),
                checked.tenants.len(),
                checked.hash,
            );
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn api_key(name: &str, tenant: Option<&str>) -> ExitCode {
    let made = tenant
        .map(|tenant| LocationId::parse(tenant.as_bytes()))
        .transpose()
        .context("--tenant")
        .and_then(|tenant| Ok(api_key::generate(name, tenant.as_ref())?));
    match made {
        Ok(made) => {
            let key = String::from_utf8_lossy(made.key.expose());
            println!("key (give it to its owner; it cannot be shown again):\n{key}");
            println!("line for the key file:\n{}", made.line);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}
