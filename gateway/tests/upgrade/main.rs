//! Upgrades of the binary: good ones lose nothing, bad ones change nothing.
//!
//! New binaries that fail are `hub-fake-successor`'s doing; a build of the workspace puts it beside the
//! gateway, and `cargo build -p hub-testkit` does.

mod colours;
mod good;
mod manager;
mod orphans;
mod refused;
mod sabotage;

use hub_testkit::load::{Ask, Body, Running, Settings, closed};
use hub_testkit::{Hub, Origin, Wire, WireResponse, demo_config};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
/// Longest wait for what takes no time.
const PATIENCE: Duration = Duration::from_secs(20);

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hub-gateway"))
}

/// A program that does what a script says.
fn fake() -> PathBuf {
    let path = binary().with_file_name("hub-fake-successor");
    assert!(
        path.exists(),
        "{} is missing; build it with `cargo build -p hub-testkit`",
        path.display()
    );
    path
}

/// The demo with these settings of `[gateway]`.
fn config(origin: &Origin, settings: &str) -> String {
    let drain = format!("drain_notice_ms = 0\n{settings}");
    demo_config(origin.endpoint()).replace("drain_notice_ms = 0\n", &drain)
}

/// The configuration with so many listeners that handing them over can be seen.
fn crowded(config: &str) -> String {
    let listeners =
        (0..100).map(|at| format!("[[listener]]\nname = \"l{at}\"\naddress = \"127.0.0.1:0\"\n\n"));
    config.replacen(
        "[[cluster]]",
        &(listeners.collect::<String>() + "[[cluster]]"),
        1,
    )
}

async fn start(config: &str) -> Hub {
    Hub::builder(binary()).config(config).start().await
}

async fn ask(wire: &mut Wire, request: &str) -> WireResponse {
    wire.send(request).await;
    wire.read_response().await
}

async fn status(address: SocketAddr) -> u16 {
    ask(&mut Wire::connect(address).await, GET).await.status
}

/// Begins an upgrade to the same binary, or another; its id.
async fn begin(hub: &Hub, order: Value) -> Value {
    let (status, begun) = hub.admin("POST", "/v1/upgrade", &order.to_string()).await;
    assert_eq!(status, 202, "{begun}");
    begun["id"].clone()
}

/// Waits for the end of the upgrade `id`.
async fn outcome(hub: &Hub, id: &Value) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, shown) = hub.admin("GET", "/v1/upgrade", "").await;
        let last = &shown["last"];
        assert_eq!(last["id"], *id, "{shown}");
        if last["state"] != "under_way" {
            return last.clone();
        }
        assert!(Instant::now() < deadline, "no end: {shown}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until an upgrade is over; whether it was aborted. By the log, since nobody may be there to ask.
async fn is_aborted(hub: &Hub) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = hub.stderr();
        if log.contains("the upgrade was aborted") {
            return true;
        }
        if log.contains("another process serves") {
            return false;
        }
        assert!(Instant::now() < deadline, "no end: {log}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Upgrades, which must go well; the id of the new process.
async fn upgrade(hub: &mut Hub) -> u32 {
    let id = begin(hub, json!({})).await;
    let last = outcome(hub, &id).await;
    assert_eq!(last["state"], "committed", "{last}");
    let pid = hub.wait_for_successor().await;
    assert_eq!(last["to"]["pid"], pid);
    pid
}

/// Clients that never stop asking: some keep their connections, some open one for each request.
struct Load([Running; 2]);

impl Load {
    fn start(address: SocketAddr) -> Self {
        let run = |connections, last: &'static str| {
            let settings = Settings {
                connections,
                // Some tests have a process stand still for seconds.
                request_timeout: Duration::from_secs(30),
                ..Settings::new(address)
            };
            closed(settings, move |_, request| {
                let line = format!("GET /load HTTP/1.1\r\nHost: a.test\r\n{last}\r\n");
                request.extend_from_slice(line.as_bytes());
                Ask {
                    class: 0,
                    status: 200,
                    body: Body::Any,
                }
            })
        };
        Self([run(4, ""), run(4, "Connection: close\r\n")])
    }

    /// Ends it: none of the requests may have been lost. How many there were, and on how many connections.
    async fn finish(self) -> (u64, u64) {
        let (mut requests, mut connections) = (0, 0);
        for running in self.0 {
            let report = running.stop().await;
            assert_eq!(report.counts.failed(), 0, "{}", report.counts.failures());
            requests += report.counts.ok();
            connections += report.connects;
        }
        assert!(requests > 0);
        (requests, connections)
    }

    /// Ends it, whatever came of its requests.
    async fn give_up(self) {
        for running in self.0 {
            drop(running.stop().await);
        }
    }
}

/// Inode of the listening socket at this port of 127.0.0.1.
fn inode(address: SocketAddr) -> String {
    let wanted = format!("0100007F:{:04X} 00000000:0000 0A", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let line = table.lines().find(|line| line.contains(&wanted));
    let inode = line.and_then(|line| line.split_whitespace().nth(9));
    format!("socket:[{}]", inode.expect("somebody listens"))
}

/// True where the process has this open.
fn holds(pid: u64, what: &str) -> bool {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let mut entries = entries.into_iter().flatten().flatten();
    entries.any(|entry| std::fs::read_link(entry.path()).is_ok_and(|path| path == *what))
}

/// Waits until a signal has stopped this process.
async fn stopped(pid: u32) {
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
        let (_, rest) = stat.rsplit_once(") ").expect("a name");
        rest.starts_with('T')
    };
    while !is_stopped() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
