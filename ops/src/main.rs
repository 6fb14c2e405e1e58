//! `hubctl`: the operator's command line over the gateway's admin API. Migrations it runs itself: the
//! gateway says whether they may run, and never learns how to reach a database.

mod client;
mod ledger;
mod migrate;
mod rollout;
mod show;
mod upgrade;
mod ws;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use client::{Client, Reply};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Talk to a running gateway.
#[derive(Debug, Parser)]
#[command(name = "hubctl", version)]
struct Arguments {
    /// The admin API: `host:port` or `unix:/path`.
    #[arg(
        long,
        global = true,
        env = "HUB_ADMIN",
        default_value = "127.0.0.1:9900"
    )]
    admin: String,
    /// File that holds the admin token. The variable HUB_ADMIN_TOKEN may hold the token itself.
    #[arg(long, global = true, env = "HUB_ADMIN_TOKEN_FILE")]
    token_file: Option<std::path::PathBuf>,
    /// Print the answer as JSON, for scripts.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What is in force: phase, snapshot, listeners, connections.
    Status,
    /// Read the configuration again. Exits 1 where it was rejected, and says why.
    Reload {
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
        /// Accept that more than half of the directory's tenants are gone.
        #[arg(long)]
        allow_removals: bool,
    },
    /// List tenants with their quota and traffic, or show one.
    Tenants {
        /// Show this one alone.
        id: Option<String>,
        /// List those whose id starts with this.
        #[arg(long, default_value = "")]
        prefix: String,
        /// List at most this many; 1 to 1000.
        #[arg(long, default_value_t = 50)]
        limit: u16,
    },
    /// List clusters with their endpoints' health.
    Clusters,
    /// Roll a cluster's other colour out, and back.
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Show and run the steps of an application's database schema.
    #[command(subcommand)]
    Migrate(migrate::Migrate),
    /// Have another binary take over without losing a request. Follows it to its end; exits 0 where the new
    /// process serves, 1 where the upgrade was aborted and the old one goes on.
    Upgrade(upgrade::Upgrade),
    /// Show open WebSockets, and close them.
    #[command(subcommand)]
    Ws(ws::Ws),
    /// Say what would happen to a request, or why a past one was refused.
    Explain {
        /// A path with query (`/api/contacts`), or the id of a refused request.
        subject: String,
        /// Method of the request.
        #[arg(long, short = 'X', default_value = "GET")]
        method: String,
        /// Host of the request.
        #[arg(long, default_value = "")]
        host: String,
        /// Header of the request as `Name: value`. May be given again.
        #[arg(long, short = 'H')]
        header: Vec<String>,
        /// Address of the client.
        #[arg(long)]
        client: Option<std::net::IpAddr>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match perform(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hubctl: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn perform(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = Client::new(&arguments.admin, token(arguments)?);
    let reply = match &arguments.command {
        Command::Rollout(command) => return rollout::perform(&client, command, arguments.json),
        Command::Migrate(command) => return migrate::perform(&client, command, arguments.json),
        Command::Ws(command) => return ws::perform(&client, command, arguments.json),
        Command::Upgrade(wanted) => return upgrade::perform(&client, wanted, arguments.json),
        Command::Status => client.get("/v1/snapshot")?,
        Command::Clusters => client.get("/v1/clusters")?,
        Command::Tenants { id: Some(id), .. } => {
            client.get(&format!("/v1/tenants/{}", encode(id)))?
        }
        Command::Tenants { prefix, limit, .. } => client.get(&format!(
            "/v1/tenants?prefix={}&limit={limit}",
            encode(prefix)
        ))?,
        Command::Reload {
            dry_run,
            allow_removals,
        } => client.post(
            &format!("/v1/reload?dry_run={dry_run}&allow_removals={allow_removals}"),
            None,
        )?,
        Command::Explain {
            subject,
            method,
            host,
            header,
            client: address,
        } => {
            if subject.starts_with('/') {
                let question = question(subject, method, host, header, *address)?;
                client.post("/v1/explain", Some(&question))?
            } else {
                client.get(&format!("/v1/explain/{}", encode(subject)))?
            }
        }
    };
    report(arguments, &reply)
}

fn report(arguments: &Arguments, reply: &Reply) -> anyhow::Result<ExitCode> {
    if let Some(error) = reply.body.get("error") {
        bail!(
            "{} ({})",
            error["message"].as_str().unwrap_or("the gateway refused"),
            error["code"].as_str().unwrap_or("unknown"),
        );
    }
    if arguments.json {
        println!("{:#}", reply.body);
    } else {
        let text = match &arguments.command {
            Command::Status => show::status(&reply.body),
            Command::Clusters => show::clusters(&reply.body),
            Command::Tenants { id: Some(_), .. } => show::plain(&reply.body),
            Command::Tenants { .. } => show::tenants(&reply.body),
            Command::Reload { .. } => show::reload(&reply.body),
            Command::Explain { .. }
            | Command::Rollout(_)
            | Command::Migrate(_)
            | Command::Ws(_)
            | Command::Upgrade(_) => show::plain(&reply.body),
        };
        println!("{text}");
    }
    Ok(if reply.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn question(
    path: &str,
    method: &str,
    host: &str,
    headers: &[String],
    client: Option<std::net::IpAddr>,
) -> anyhow::Result<Value> {
    let headers = headers
        .iter()
        .map(|header| {
            let (name, value) = header
                .split_once(':')
                .with_context(|| format!("{header:?} is not `Name: value`"))?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut question = json!({"path": path, "method": method, "headers": headers});
    if !host.is_empty() {
        question["host"] = json!(host);
    }
    if let Some(client) = client {
        question["client"] = json!(client);
    }
    Ok(question)
}

fn token(arguments: &Arguments) -> anyhow::Result<Option<String>> {
    // A file that was asked for goes before what happens to be in the environment.
    let Some(file) = &arguments.token_file else {
        return Ok(std::env::var("HUB_ADMIN_TOKEN").ok());
    };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the token file {}", file.display()))?;
    Ok(Some(text.trim_end().to_owned()))
}

/// Percent-encodes what a path segment or query value may not hold.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
