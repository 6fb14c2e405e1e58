//! What the benches of rollouts run: two colours of an application, a gateway before them, and rollouts
//! through its admin API.

use crate::app::App;
use crate::bench::{self, Scratch};
use crate::client::{HOST, Target};
use crate::hub::{Hub, TOKEN};
use crate::workload::tenant_ids;
use anyhow::{Context, Result, ensure};
use hub_testkit::Ca;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Tenants of the site.
const TENANTS: u64 = 400;
/// The one cluster.
const CLUSTER: &str = "app";

/// Two colours and a gateway. Ends with this value.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) hub: Hub,
    _blue: App,
    pub(crate) green: App,
    pub(crate) target: Target,
    pub(crate) tenants: Vec<String>,
    _scratch: Scratch,
}

/// How a site differs from the usual one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// The application speaks TLS; `Some(false)`: the green colour with a certificate that nobody trusts.
    pub(crate) tls: Option<bool>,
    /// More keys of the route and of the cluster, a line each.
    pub(crate) route: Vec<String>,
    pub(crate) cluster: Vec<String>,
}

/// One record of a rollout, as the gateway has written it down.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) state: String,
    /// Microseconds since 1970, from just before it was written.
    pub(crate) at_us: i64,
    pub(crate) epoch: u64,
    pub(crate) why: Option<String>,
}

impl Site {
    pub(crate) async fn start(bin_dir: &Path, wishes: &Wishes) -> Result<Self> {
        let scratch = Scratch::new()?;
        scratch.write("token", TOKEN)?;
        let ca = Ca::new("bench");
        let leaf = ca.issue(&[HOST]);
        scratch.write("listener.pem", &leaf.certificate_pem)?;
        scratch.write("listener.key", &leaf.key_pem)?;
        scratch.write("ca.pem", ca.pem())?;
        let app_tls = |trusted: bool| {
            wishes.tls.map(|_| {
                let other = Ca::new("unknown");
                let ca = if trusted { &ca } else { &other };
                ca.issue(&["app.internal"]).server_config(&["http/1.1"])
            })
        };
        let blue = App::start("blue", app_tls(true))?;
        let green = App::start("green", app_tls(wishes.tls.unwrap_or(true)))?;
        let tenants = tenant_ids(TENANTS);
        let text = config(&scratch, &blue, &green, &tenants, wishes);
        let config = scratch.write("hub.toml", &text)?;
        let hub = Hub::start(bin_dir, &scratch, &config, &bench::server_cpus()).await?;
        let target = Target {
            plain: hub.listener("public")?,
            secure: hub.listener("secure")?,
            tls: ca.client_config(&["h2"]),
        };
        Ok(Self {
            hub,
            _blue: blue,
            green,
            target,
            tenants,
            _scratch: scratch,
        })
    }

    /// Starts a rollout, as `hubctl rollout start` does.
    pub(crate) async fn start_rollout(&self, plan: &Value) -> Result<()> {
        let path = format!("/v1/rollouts/{CLUSTER}/start");
        let begun = self.hub.ask("POST", &path, &plan.to_string()).await?;
        ensure!(begun["phase"].is_string(), "no rollout starts: {begun}");
        Ok(())
    }

    /// Where the rollout stands.
    pub(crate) async fn rollout(&self) -> Result<Value> {
        let mut shown = self.hub.ask("GET", "/v1/rollouts", "").await?;
        Ok(shown["rollouts"][0].take())
    }

    /// Looks every `pause` until the rollout is over, or that took too long, and shows `see` each look. The
    /// last one.
    pub(crate) async fn follow(
        &self,
        pause: Duration,
        longest: Duration,
        mut see: impl FnMut(&Value),
    ) -> Result<Value> {
        let deadline = Instant::now() + longest;
        loop {
            let rollout = self.rollout().await?;
            see(&rollout);
            if rollout["over"] == true {
                return Ok(rollout);
            }
            if Instant::now() > deadline {
                return Ok(rollout);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// What was written down of a rollout, oldest first.
    pub(crate) async fn steps(&self, rollout: &Value) -> Result<Vec<Step>> {
        let path = format!("/v1/rollouts/{CLUSTER}/history?limit=100");
        let history = self.hub.ask("GET", &path, "").await?;
        let history = history["history"].as_array().context("no history")?;
        let own = history.iter().rev();
        let own = own.filter(|entry| entry["rollout"] == rollout["rollout"]);
        Ok(own
            .map(|entry| Step {
                state: entry["state"].as_str().unwrap_or("?").to_owned(),
                at_us: entry["at_us"].as_i64().unwrap_or(0),
                epoch: entry["epoch"].as_u64().unwrap_or(0),
                why: entry["why"].as_str().map(str::to_owned),
            })
            .collect())
    }

    /// Ends the gateway; the colours end with the value.
    pub(crate) async fn end(self) -> Result<()> {
        bench::end(self.hub.guard).await
    }
}

/// A plan for the admin API; stages are percent and seconds of observation. Before the first one the old
/// colour is watched for `baseline_s`.
pub(crate) fn plan(
    stages: &[(f64, f64)],
    baseline_s: f64,
    verdict_s: f64,
    bake_s: f64,
    requests_min: u64,
) -> Value {
    let stages: Vec<Value> = stages
        .iter()
        .map(|(percent, observe)| json!({"percent": percent, "observe_seconds": observe}))
        .collect();
    json!({
        "stages": stages,
        "verdict_timeout_seconds": verdict_s,
        "bake_seconds": bake_s,
        "requests_min": requests_min,
        "baseline_seconds": baseline_s,
    })
}

fn config(
    scratch: &Scratch,
    blue: &App,
    green: &App,
    tenants: &[String],
    wishes: &Wishes,
) -> String {
    let mut text = format!(
        "[gateway]\nreload_on_change = false\n\n\
         [admin]\naddress = \"127.0.0.1:0\"\ntoken_file = \"{}\"\nrequests_per_second = 1000\n\n\
         [access_log]\ntarget = \"{}\"\n\n\
         [store]\ndirectory = \"{}\"\n\n\
         [tenants]\ndefault_in_flight_max = 1000\n\n\
         [[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n\
         connections_per_address_max = 8192\n\n\
         [[listener]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\n\
         tls = {{ certificates = [{{ certificate_file = \"{}\", key_file = \"{}\" }}] }}\n\n\
         [[cluster]]\nname = \"{CLUSTER}\"\n\
         endpoints = {{ blue = [\"{}\"], green = [\"{}\"] }}\n\
         health = {{ kind = \"http\", path = \"/healthz\", interval_ms = 1000 }}\n\
         gate = {{ requests = [{{ name = \"health\", path = \"/healthz\", body_contains = \"ok\" }}] }}\n",
        scratch.text("token"),
        scratch.text("access.log"),
        scratch.text("store"),
        scratch.text("listener.pem"),
        scratch.text("listener.key"),
        blue.address,
        green.address,
    );
    if wishes.tls.is_some() {
        let ca = scratch.text("ca.pem");
        writeln!(
            text,
            "tls = {{ server_name = \"app.internal\", ca_file = \"{ca}\" }}"
        )
        .expect("a String takes everything");
    }
    for line in &wishes.cluster {
        text += line;
        text.push('\n');
    }
    text += "\n[[route]]\nname = \"all\"\npath = { prefix = \"/\" }\nwebsocket = {}\n\
         tenant = { sources = [{ header = \"X-Location-Id\" }] }\n";
    writeln!(text, "cluster = \"{CLUSTER}\"\nretry_other_colour = true")
        .expect("a String takes everything");
    for line in &wishes.route {
        text += line;
        text.push('\n');
    }
    for id in tenants {
        write!(text, "\n[[tenant]]\nid = \"{id}\"\n").expect("a String takes everything");
    }
    text
}
