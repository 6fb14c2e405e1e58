//! `hubctl upgrade`: has another binary take over, and shows how that goes.

use crate::client::{Client, Reply};
use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often the upgrade is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a gateway that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct Upgrade {
    /// The new binary; else the one that the gateway was started as, which a package may have replaced.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Seconds for which the old process serves the clients that it has; else as configured.
    #[arg(long)]
    grace: Option<f64>,
    /// Only show how the last upgrade went.
    #[arg(long, conflicts_with_all = ["binary", "grace"])]
    status: bool,
}

pub(crate) fn perform(
    client: &Client,
    wanted: &Upgrade,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    if wanted.status {
        let shown = client.get("/v1/upgrade")?.good()?.body;
        let text = match as_json {
            true => format!("{shown:#}"),
            false => status(&shown),
        };
        println!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let begun = client.post("/v1/upgrade", Some(&order(wanted)?))?.good()?;
    let last = follow(client, &begun.body["id"], as_json)?;
    if as_json {
        println!("{last:#}");
    } else {
        println!("{}", line(&last));
    }
    Ok(match last["state"] == "committed" {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    })
}

fn order(wanted: &Upgrade) -> anyhow::Result<Value> {
    let mut order = json!({});
    if let Some(binary) = &wanted.binary {
        let binary = std::path::absolute(binary).context("--binary")?;
        order["binary"] = json!(binary.to_str().context("--binary is no text")?);
    }
    if let Some(grace) = wanted.grace {
        let grace = Duration::try_from_secs_f64(grace).context("--grace")?;
        order["grace_ms"] = json!(u64::try_from(grace.as_millis())?);
    }
    Ok(order)
}

/// Shows each step of the upgrade `id`, and returns how it ended. Whichever process answers knows of it.
fn follow(client: &Client, id: &Value, as_json: bool) -> anyhow::Result<Value> {
    let mut shown = String::new();
    let mut heard = Instant::now();
    loop {
        match client.get("/v1/upgrade").and_then(Reply::good) {
            Ok(reply) => {
                heard = Instant::now();
                let last = &reply.body["last"];
                if last["id"] != *id {
                    bail!("the gateway does not know of the upgrade any more; see its log");
                }
                if last["state"] != "under_way" {
                    return Ok(last.clone());
                }
                let step = last["step"].as_str().unwrap_or_default();
                if !as_json && step != shown {
                    step.clone_into(&mut shown);
                    println!("{step}");
                    // Whoever reads it may have gone.
                    std::io::stdout().flush().ok();
                }
            }
            Err(error) if heard.elapsed() > PATIENCE => return Err(error),
            // As while one process leaves the API and the other has not taken it up.
            Err(_) => {}
        }
        std::thread::sleep(LOOK);
    }
}

fn status(shown: &Value) -> String {
    let mut text = format!(
        "process {}, version {}",
        shown["pid"],
        shown["version"].as_str().unwrap_or("-")
    );
    let draining = shown["draining"].as_array().map_or(0, Vec::len);
    if draining > 0 {
        text += &format!("\nstill drain: {}", shown["draining"]);
    }
    match &shown["last"] {
        Value::Null => text + "\nno upgrade so far",
        last => text + "\nthe last upgrade: " + &line(last),
    }
}

/// One upgrade in a line.
fn line(last: &Value) -> String {
    let state = last["state"].as_str().unwrap_or("-");
    let process = |key: &str| {
        format!(
            "{} ({})",
            last[key]["pid"],
            last[key]["version"].as_str().unwrap_or("-")
        )
    };
    match last["why"].as_str() {
        Some(why) => format!(
            "{state}, process {} serves as before: {why}",
            process("from")
        ),
        None if state == "under_way" => {
            format!("{state}: {}", last["step"].as_str().unwrap_or("-"))
        }
        None => format!(
            "{state}: process {} serves after process {}, {} ms",
            process("to"),
            process("from"),
            last["took_ms"]
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_says_who_serves_and_why_one_was_aborted() {
        let mut last = json!({
            "state": "committed", "step": null, "why": null, "took_ms": 80,
            "from": {"pid": 1, "version": "0.1.0"}, "to": {"pid": 2, "version": "0.2.0"},
        });
        let text = "committed: process 2 (0.2.0) serves after process 1 (0.1.0), 80 ms";
        assert_eq!(line(&last), text);
        last["state"] = json!("aborted");
        last["why"] = json!("it did not say hello");
        let text = "aborted, process 1 (0.1.0) serves as before: it did not say hello";
        assert_eq!(line(&last), text);
        let shown = json!({"pid": 1, "version": "0.1.0", "draining": [7], "last": last});
        assert!(status(&shown).contains("still drain: [7]\nthe last upgrade: aborted"));
    }

    #[test]
    fn a_relative_binary_is_one_of_this_folder() {
        let wanted = Upgrade {
            binary: Some("new/hub-gateway".into()),
            grace: Some(1.5),
            status: false,
        };
        let order = order(&wanted).expect("an order");
        let binary = order["binary"].as_str().expect("a path");
        assert!(binary.starts_with('/') && binary.ends_with("/new/hub-gateway"));
        assert_eq!(order["grace_ms"], 1_500);
    }
}
