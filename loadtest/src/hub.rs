//! A started gateway.

use crate::bench::{Scratch, fetch, forget_ready, spawn, wait_for};
use anyhow::{Context, Result};
use hub_testkit::process::{Guard, usage_of_tree};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The admin API's token; it guards a gateway on loopback that lives as long as the bench.
pub(crate) const TOKEN: &str = "bench-token-of-a-throw-away-gateway";

/// A gateway that serves.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) guard: Guard,
    /// The listener `public`, the only one of most benches.
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    listeners: HashMap<String, SocketAddr>,
    /// From the start of the process until it said that it serves.
    pub(crate) start_time: Duration,
}

#[derive(Deserialize)]
struct Ready {
    admin: SocketAddr,
    listeners: HashMap<String, SocketAddr>,
}

/// How the gateway answered a reload.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Reloaded {
    /// `applied` is the good one.
    pub(crate) outcome: String,
    /// Milliseconds from reading the file to the swap, as the gateway says.
    pub(crate) took_ms: Option<f64>,
}

impl Hub {
    /// Starts `BIN_DIR/hub-gateway` with the file `config` on `cpus`.
    pub(crate) async fn start(
        bin_dir: &Path,
        scratch: &Scratch,
        config: &Path,
        cpus: &[usize],
    ) -> Result<Self> {
        let ready_file = scratch.path("hub.ready");
        forget_ready(&ready_file)?;
        let log = scratch.path("hub.out");
        let mut command = Command::new(bin_dir.join("hub-gateway"));
        command.arg("run").arg(config);
        command.arg("--ready-file").arg(&ready_file);
        let begun = Instant::now();
        let mut guard = spawn(command, cpus, &log)?;
        let ready = wait_for(&mut guard, &log, "hub-gateway", async || {
            let text = std::fs::read(&ready_file).ok()?;
            serde_json::from_slice::<Ready>(&text).ok()
        });
        let ready = ready.await?;
        let start_time = begun.elapsed();
        // The demo has several listeners and only its memory is measured, so any of them will do.
        let public = ready.listeners.get("public");
        let public = public.or_else(|| ready.listeners.values().next());
        Ok(Self {
            guard,
            public: *public.context("the gateway says that it has no listener")?,
            admin: ready.admin,
            listeners: ready.listeners,
            start_time,
        })
    }

    /// Where the listener of this name is.
    pub(crate) fn listener(&self, name: &str) -> Result<SocketAddr> {
        let address = self.listeners.get(name).copied();
        address.with_context(|| format!("the gateway says that it has no listener {name:?}"))
    }

    /// Asks the admin API; the answer, whatever its status, as JSON.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = fetch(self.admin, &request).await?;
        serde_json::from_slice(&answer.body)
            .with_context(|| format!("{method} {path} was answered: {}", answer.text()))
    }

    /// CPU time that the gateway has used so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let usage = usage_of_tree(self.guard.pid()).context("the gateway has no figures")?;
        Ok(Duration::from_micros(usage.cpu_us))
    }

    /// Asks for a reload and waits for its end.
    pub(crate) async fn reload(&self) -> Result<Reloaded> {
        let answer = self.ask("POST", "/v1/reload", "").await?;
        let shown = answer.to_string();
        serde_json::from_value(answer)
            .with_context(|| format!("the answer to a reload is strange: {shown}"))
    }
}
