//! Upgrades that end when the new process, the real one, has clients already: it leaves them their answers.

use crate::{Load, begin, config, holds, inode, outcome, start, status, stopped, upgrade};
use hub_testkit::hub::wait_gone;
use hub_testkit::load::Outcome;
use hub_testkit::{Hub, Origin, Signal};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Longest upgrade of these tests: a new process must be there by then, and clients of the old one wait for
/// so long.
const UPGRADE_MAX: Duration = Duration::from_secs(8);
/// Lines of the access log that show that a new process serves.
const SERVED: usize = 50;

/// An upgrade whose old process stands still, in the middle of it.
struct Halfway {
    id: Value,
    new: u32,
}

impl Halfway {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.new).expect("a process id");
        let pid = rustix::process::Pid::from_raw(pid).expect("one");
        // One that is gone is found out by what its clients say.
        rustix::process::kill_process(pid, signal).ok();
    }

    /// Lets the old process go on and give up, while the new one, which has clients, stands still for that
    /// moment; how the upgrade ended.
    async fn abort(&self, hub: &Hub) -> Value {
        self.signal(Signal::STOP);
        stopped(self.new).await;
        hub.signal(Signal::CONT);
        let last = outcome(hub, &self.id).await;
        self.signal(Signal::CONT);
        assert_eq!(last["state"], "aborted", "{last}");
        last
    }
}

/// Stops the old process once it has passed the sockets and before it hears that the new one serves; until
/// that one has served some requests alone. `None` where it had come further, or the sockets had not.
async fn halfway(hub: &mut Hub) -> Option<Halfway> {
    let old = hub.pid();
    let socket = inode(hub.addr("public"));
    let began = Instant::now();
    let id = begin(hub, json!({})).await;
    let new = loop {
        let (_, shown) = hub.admin("GET", "/v1/upgrade", "").await;
        if let Some(pid) = shown["last"]["to"]["pid"]
            .as_u64()
            .filter(|_| shown["last"]["id"] == id)
        {
            break pid;
        }
    };
    while !holds(new, &socket) {
        std::thread::yield_now();
    }
    hub.signal(Signal::STOP);
    stopped(old).await;
    // What the old one did is in the log by now.
    let before = hub.access_log().len();
    while hub.access_log().len() < before + SERVED && began.elapsed() < UPGRADE_MAX {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let new = u32::try_from(new).expect("a process id");
    let is_good =
        began.elapsed() < UPGRADE_MAX && !hub.stderr().contains("\"step\":\"committing\"");
    if is_good {
        return Some(Halfway { id, new });
    }
    hub.signal(Signal::CONT);
    if outcome(hub, &id).await["state"] == "committed" {
        hub.wait_for_successor().await;
    }
    None
}

/// Tries until an upgrade is halfway, each time with another gateway; that, its load and the upgrade.
async fn begun(origin: &Origin, settings: &str) -> (Hub, Load, Halfway) {
    for _ in 0..20 {
        let timeout = UPGRADE_MAX.as_millis();
        let settings = format!("upgrade_timeout_ms = {timeout}\n{settings}");
        let mut config = config(origin, &settings);
        if settings.contains("drain_notice_ms") {
            config = config.replacen("drain_notice_ms = 0\n", "", 1);
        }
        let mut hub = start(&config).await;
        let load = Load::start(hub.addr("public"));
        hub.wait_for_metric("hub_requests_started_total", &[], |n| n > 100.0)
            .await;
        if let Some(halfway) = halfway(&mut hub).await {
            return (hub, load, halfway);
        }
        load.finish().await;
    }
    panic!("no upgrade was seen halfway");
}

/// Which process says that it serves.
fn ready(hub: &Hub) -> u64 {
    let text = std::fs::read_to_string(hub.dir().join("ready.json")).expect("a file");
    let ready: Value = serde_json::from_str(&text).expect("JSON");
    ready["pid"].as_u64().expect("a process id")
}

/// The new process did nothing that only one may do, and left no trace among those that drain.
async fn withdrawn(hub: &Hub) {
    hub.wait_for_metric("hub_processes_draining", &[], |n| n == 0.0)
        .await;
    assert_eq!(ready(hub), u64::from(hub.pid()));
    let log = hub.stderr();
    assert!(log.contains("withdrawing: requests are finished"), "{log}");
    assert_eq!(log.matches("\"message\":\"serving\"").count(), 1, "{log}");
    assert!(!log.contains("is killed"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_is_late_when_the_new_process_has_clients_loses_nothing() {
    let origin = Origin::start().await;
    let (mut hub, load, halfway) = begun(&origin, "").await;
    let last = halfway.abort(&hub).await;
    assert!(last["why"].to_string().contains("take over"), "{last}");
    wait_gone(halfway.new).await;
    let (requests, connections) = load.finish().await;
    println!("{requests} requests on {connections} connections, none lost: {last}");
    withdrawn(&hub).await;
    // It can still be upgraded.
    upgrade(&mut hub).await;
    assert_eq!(status(hub.addr("public")).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_when_the_new_process_has_clients_loses_nothing() {
    let origin = Origin::start().await;
    let (mut hub, load, halfway) = begun(&origin, "drain_notice_ms = 600000\n").await;
    hub.signal(Signal::TERM);
    let last = halfway.abort(&hub).await;
    hub.wait_for_stderr("readiness is off").await;
    wait_gone(halfway.new).await;
    // In its notice the old process serves as ever.
    let (requests, connections) = load.finish().await;
    println!("{requests} requests on {connections} connections, none lost: {last}");
    withdrawn(&hub).await;
    hub.signal(Signal::TERM);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
}

/// What the killed process had is lost. Nobody is refused, and all that is sent later is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_is_killed_when_it_has_clients_takes_along_no_others() {
    let origin = Origin::start().await;
    let (mut hub, load, halfway) = begun(&origin, "").await;
    halfway.signal(Signal::KILL);
    hub.signal(Signal::CONT);
    let last = outcome(&hub, &halfway.id).await;
    assert_eq!(last["state"], "aborted", "{last}");
    wait_gone(halfway.new).await;
    let counts = load.counts().await;
    let lost: Vec<_> = counts.iter().map(|counts| counts.failures()).collect();
    println!("lost with the killed process: {lost:?}: {last}");
    assert!(counts.iter().all(|one| one.get(Outcome::Refused) == 0));
    // No more than it had at a time.
    assert!(counts.iter().map(|one| one.failed()).sum::<u64>() <= 8);
    let after = Load::start(hub.addr("public"));
    hub.wait_for_metric("hub_requests_started_total", &[], |n| n > 100.0)
        .await;
    after.finish().await;
    upgrade(&mut hub).await;
}
