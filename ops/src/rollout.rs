//! `hubctl rollout`: starts rollouts, steers them, and shows how they go.

mod show;

use crate::client::Client;
use crate::encode;
use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use show::{history, line, progress, staying};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often a rollout is looked at while it is followed.
const LOOK: Duration = Duration::from_millis(500);
/// How long a gateway that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Roll a cluster's other colour out. Follows it to its end; exits 0 where the new colour is
    /// committed, 1 where it is not.
    Start {
        /// Name of the cluster.
        cluster: String,
        /// Shares of the tenants in percent, one stage each, such as 1,5,25,50.
        #[arg(long, value_delimiter = ',', default_value = "1,5,25,50")]
        canary: Vec<f64>,
        /// Everyone at once, without a canary.
        #[arg(long, conflicts_with = "canary")]
        all_at_once: bool,
        /// Tenants that go first, in a stage of their own before all others.
        #[arg(long, value_delimiter = ',')]
        ring: Vec<String>,
        /// Seconds for which each stage is observed at least.
        #[arg(long, default_value_t = 60.0)]
        observe: f64,
        /// Seconds for which the judges may stay undecided after that.
        #[arg(long, default_value_t = 300.0)]
        verdict: f64,
        /// Seconds for which the old colour is kept after everyone has moved.
        #[arg(long, default_value_t = 600.0)]
        bake: f64,
        /// Seconds for which the old colour is watched before the first stage: what the new one is then
        /// compared with.
        #[arg(long, default_value_t = 60.0)]
        baseline: f64,
        /// Requests on the new colour that a stage needs before it passes without proof.
        #[arg(long, default_value_t = 100)]
        requests_min: u64,
        /// Only start it.
        #[arg(long)]
        detach: bool,
    },
    /// Show where rollouts stand.
    Status {
        /// This cluster alone.
        cluster: Option<String>,
        /// Show what changes until it is over; exits 0 where the new colour is committed, 1 where it is not.
        #[arg(long, requires = "cluster")]
        follow: bool,
    },
    /// Take no step forward until it is resumed. Failures still roll back.
    Pause {
        /// Name of the cluster.
        cluster: String,
    },
    /// Go on.
    Resume {
        /// Name of the cluster.
        cluster: String,
    },
    /// Take the next step now, whatever the judges have seen; at the bake's time, commit.
    Promote {
        /// Name of the cluster.
        cluster: String,
    },
    /// Go back to the old colour.
    Abort {
        /// Name of the cluster.
        cluster: String,
    },
    /// Take the colour of most tenants of a frozen rollout for the right one.
    Accept {
        /// Name of the cluster.
        cluster: String,
    },
    /// Say that a contract step of the migrations was run by hand, so that nothing goes back to the old
    /// colour by itself: what would have, freezes. `hubctl migrate contract` says so by itself.
    Contracted {
        /// Name of the cluster.
        cluster: String,
    },
    /// Show what was written down, newest first.
    History {
        /// Name of the cluster.
        cluster: String,
        /// At most so many records.
        #[arg(long, default_value_t = 30)]
        limit: u32,
    },
}

pub(crate) fn perform(
    client: &Client,
    command: &Rollout,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let steer = |cluster: &str, word: &str| -> anyhow::Result<ExitCode> {
        let reply = client.post(&path(cluster, word), None)?.good()?;
        if as_json {
            println!("{:#}", reply.body);
        } else {
            println!("{}", line(&reply.body));
        }
        Ok(ExitCode::SUCCESS)
    };
    match command {
        Rollout::Pause { cluster } => steer(cluster, "pause"),
        Rollout::Resume { cluster } => steer(cluster, "resume"),
        Rollout::Promote { cluster } => steer(cluster, "promote"),
        Rollout::Abort { cluster } => steer(cluster, "abort"),
        Rollout::Accept { cluster } => steer(cluster, "accept"),
        Rollout::Contracted { cluster } => steer(cluster, "contracted"),
        Rollout::History { cluster, limit } => {
            let path = format!("{}?limit={limit}", path(cluster, "history"));
            let reply = client.get(&path)?.good()?;
            if as_json {
                println!("{:#}", reply.body);
            } else {
                print!("{}", history(&reply.body));
            }
            Ok(ExitCode::SUCCESS)
        }
        Rollout::Status { cluster, follow } => match cluster {
            Some(cluster) if *follow => self::follow(client, cluster, as_json, None),
            _ => status(client, cluster.as_deref(), as_json),
        },
        Rollout::Start {
            cluster,
            canary,
            all_at_once,
            ring,
            observe,
            verdict,
            bake,
            baseline,
            requests_min,
            detach,
        } => {
            let shares: &[f64] = if *all_at_once { &[] } else { canary };
            let first = (!ring.is_empty()).then_some(0.0);
            let stages: Vec<Value> = first
                .iter()
                .chain(shares)
                .map(|percent| {
                    json!({"percent": percent, "tenants": ring, "observe_seconds": observe})
                })
                .collect();
            let plan = json!({
                "stages": stages,
                "bake_seconds": bake,
                "verdict_timeout_seconds": verdict,
                "baseline_seconds": baseline,
                "requests_min": requests_min,
            });
            let reply = client.post(&path(cluster, "start"), Some(&plan))?.good()?;
            if *detach {
                println!("{}", line(&reply.body));
                return Ok(ExitCode::SUCCESS);
            }
            follow(client, cluster, as_json, Some(&reply.body["rollout"]))
        }
    }
}

fn path(cluster: &str, word: &str) -> String {
    format!("/v1/rollouts/{}/{word}", encode(cluster))
}

fn rollouts(client: &Client) -> anyhow::Result<Vec<Value>> {
    let reply = client.get("/v1/rollouts")?.good()?;
    let rollouts = reply.body["rollouts"].as_array().cloned();
    rollouts.context("the answer lists no rollouts; is the gateway of another version?")
}

fn status(client: &Client, cluster: Option<&str>, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut rollouts = rollouts(client)?;
    if let Some(cluster) = cluster {
        rollouts.retain(|rollout| rollout["cluster"] == cluster);
        if rollouts.is_empty() {
            is_known(client, cluster)?;
        }
    }
    if as_json {
        println!("{:#}", json!({ "rollouts": rollouts }));
        return Ok(ExitCode::SUCCESS);
    }
    if rollouts.is_empty() {
        println!("no rollout so far");
    }
    for rollout in &rollouts {
        println!("{}", line(rollout));
        for judge in rollout["judges"].as_array().into_iter().flatten() {
            println!("    {}", judge.as_str().unwrap_or_default());
        }
        if let Some(staying) = staying(&rollout["staying"]) {
            println!("    {staying}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether there is such a cluster; the error says which there are.
fn is_known(client: &Client, cluster: &str) -> anyhow::Result<()> {
    let path = format!("{}?limit=1", path(cluster, "history"));
    client.get(&path)?.good().map(drop)
}

/// Shows each change, and on a terminal the present state below, until it is over.
fn follow(
    client: &Client,
    cluster: &str,
    as_json: bool,
    ours: Option<&Value>,
) -> anyhow::Result<ExitCode> {
    let live = std::io::stdout().is_terminal() && !as_json;
    let mut shown = Value::Null;
    let mut heard = Instant::now();
    loop {
        let rollouts = match rollouts(client) {
            Ok(rollouts) => {
                heard = Instant::now();
                rollouts
            }
            // The gateway may be starting anew, and the rollout goes on then.
            Err(_) if heard.elapsed() < PATIENCE => {
                std::thread::sleep(LOOK);
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut rollouts = rollouts.into_iter();
        let Some(rollout) = rollouts.find(|rollout| rollout["cluster"] == cluster) else {
            is_known(client, cluster)?;
            bail!("cluster {cluster:?} has had no rollout");
        };
        if ours.is_some_and(|ours| *ours != rollout["rollout"]) {
            bail!(
                "another rollout of {cluster:?} has begun; `hubctl rollout history {cluster}` tells how this one ended"
            );
        }
        let mut out = std::io::stdout().lock();
        if live {
            // Back to the line's beginning, and clear it.
            write!(out, "\r\x1b[2K")?;
        }
        if rollout["version"] != shown["version"] {
            if as_json {
                writeln!(out, "{rollout}")?;
            } else {
                writeln!(out, "{}", line(&rollout))?;
            }
            shown = rollout.clone();
        }
        if rollout["over"] == true {
            let committed = rollout["phase"] == "committed";
            return Ok(ExitCode::from(u8::from(!committed)));
        }
        if live {
            write!(out, "  {}", progress(&rollout))?;
            out.flush()?;
        }
        drop(out);
        std::thread::sleep(LOOK);
    }
}
