//! `hubctl ws`: open WebSockets.

use crate::client::Client;
use crate::encode;
use crate::show::{cell, items, table};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Time over which rates are taken.
const RATE_SPAN: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(crate) enum Ws {
    /// Sessions, messages in a second, and codes of Close, by route.
    Routes,
    /// The open sessions, the oldest first.
    List {
        #[command(flatten)]
        which: Which,
        /// List at most this many; 0 to 1000.
        #[arg(long, default_value_t = 50)]
        limit: u16,
    },
    /// Close sessions: each gets a Close with this code, its application 1001.
    Close {
        #[command(flatten)]
        which: Which,
        /// All of them.
        #[arg(long)]
        all: bool,
        /// 1000, 1001, 1008, 1011, 1012, 1013, or 3000 to 4999. Clients come back at once after 1012, as a rule.
        #[arg(long, default_value_t = 1001)]
        code: u16,
        /// Spread them over so many seconds.
        #[arg(long, default_value_t = 0.0)]
        spread: f64,
    },
}

/// Which sessions: those that are all of this.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The session of this number.
    #[arg(long)]
    session: Option<u64>,
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Of this route.
    #[arg(long)]
    route: Option<String>,
    /// On this cluster.
    #[arg(long)]
    cluster: Option<String>,
    /// On this colour of its cluster.
    #[arg(long, value_parser = ["blue", "green"])]
    colour: Option<String>,
    /// On this endpoint, as the configuration writes it.
    #[arg(long)]
    endpoint: Option<String>,
}

impl Which {
    /// What is said, by its name in the API.
    fn said(&self) -> Vec<(&'static str, Value)> {
        let texts = [
            ("tenant", &self.tenant),
            ("route", &self.route),
            ("cluster", &self.cluster),
            ("colour", &self.colour),
            ("endpoint", &self.endpoint),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name, json!(text.as_ref()?))));
        let session = self.session.map(|number| ("session", json!(number)));
        texts.chain(session).collect()
    }
}

pub(crate) fn perform(client: &Client, command: &Ws, as_json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Ws::Routes => {
            let before = routes(client)?;
            let began = Instant::now();
            std::thread::sleep(RATE_SPAN);
            let after = routes(client)?;
            match as_json {
                true => println!("{after:#}"),
                false => println!("{}", by_route(&before, &after, began.elapsed())),
            }
        }
        Ws::List { which, limit } => {
            let mut path = format!("/v1/websockets?limit={limit}");
            for (name, value) in which.said() {
                path += &format!("&{name}={}", encode(&cell(&value)));
            }
            let shown = client.get(&path)?.good()?.body;
            match as_json {
                true => println!("{shown:#}"),
                false => println!("{}", sessions(&shown)),
            }
        }
        Ws::Close {
            which,
            all,
            code,
            spread,
        } => {
            let spread = Duration::try_from_secs_f64(*spread)?;
            let which: serde_json::Map<_, _> = which
                .said()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            let order = json!({
                "which": which, "all": all, "code": code,
                "spread_ms": u64::try_from(spread.as_millis())?,
            });
            let done = client
                .post("/v1/websockets/close", Some(&order))?
                .good()?
                .body;
            match as_json {
                true => println!("{done:#}"),
                false => println!("sessions that are being closed: {}", cell(&done["closing"])),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn routes(client: &Client) -> anyhow::Result<Value> {
    Ok(client.get("/v1/websockets?limit=0")?.good()?.body["routes"].clone())
}

fn by_route(before: &Value, after: &Value, span: Duration) -> String {
    let rate = |now: &Value, key: &str| {
        let number = |value: &Value| value[key].as_f64().unwrap_or_default();
        let same = items(before)
            .iter()
            .find(|one| one["route"] == now["route"]);
        let begun = same.map_or(0.0, number);
        format!("{:.0}", (number(now) - begun).max(0.0) / span.as_secs_f64())
    };
    let rows: Vec<Vec<String>> = items(after)
        .iter()
        .map(|now| {
            let closed = now["closed"].as_object().into_iter().flatten();
            let closed: Vec<_> = closed
                .map(|(code, count)| format!("{code}: {count}"))
                .collect();
            vec![
                cell(&now["route"]),
                cell(&now["open"]),
                cell(&now["opened"]),
                rate(now, "messages_in"),
                rate(now, "messages_out"),
                if closed.is_empty() {
                    "-".to_owned()
                } else {
                    closed.join(", ")
                },
            ]
        })
        .collect();
    table(
        &["ROUTE", "OPEN", "OPENED", "IN/S", "OUT/S", "CLOSED"],
        &rows,
    )
}

fn sessions(shown: &Value) -> String {
    let keys = [
        "session",
        "tenant",
        "route",
        "cluster",
        "colour",
        "endpoint",
        "client",
        "age_seconds",
        "messages_in",
        "messages_out",
        "closes_for",
    ];
    let rows: Vec<Vec<String>> = items(&shown["sessions"])
        .iter()
        .map(|session| keys.map(|key| cell(&session[key])).to_vec())
        .collect();
    let text = table(
        &[
            "SESSION",
            "TENANT",
            "ROUTE",
            "CLUSTER",
            "COLOUR",
            "ENDPOINT",
            "CLIENT",
            "AGE S",
            "IN",
            "OUT",
            "CLOSES FOR",
        ],
        &rows,
    );
    format!("{text}\n\n{} of {}", rows.len(), cell(&shown["matching"]))
}
