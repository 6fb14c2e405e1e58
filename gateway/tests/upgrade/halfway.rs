//! Upgrades that end when the new process, the real one, has the sockets in its hands.

use crate::{
    Load, begin, config, crowded, holds, inode, is_aborted, outcome, start, status, stopped,
    upgrade,
};
use hub_testkit::hub::wait_gone;
use hub_testkit::{Hub, Origin, Signal};
use serde_json::{Value, json};

/// What befalls it.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// It is killed.
    Kill,
    /// It is killed while the old one stands still, and may have said all it has to say by then.
    KillLater,
    /// It stands still until the old one loses patience.
    Stop,
    /// The old process is told to end while it stands still.
    StopAndEnd,
}

/// An upgrade whose new process has the sockets.
struct Halfway {
    id: Value,
    new: u32,
}

impl Halfway {
    async fn reach(hub: &Hub) -> Self {
        let socket = inode(hub.addr("public"));
        let id = begin(hub, json!({})).await;
        let new = loop {
            let (_, shown) = hub.admin("GET", "/v1/upgrade", "").await;
            if let Some(pid) = shown["last"]["to"]["pid"].as_u64() {
                break pid;
            }
        };
        while !holds(new, &socket) {
            std::thread::yield_now();
        }
        let new = u32::try_from(new).expect("a process id");
        Self { id, new }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.new).expect("a process id");
        let pid = rustix::process::Pid::from_raw(pid).expect("one");
        // One that is gone is found out by how the upgrade ends.
        rustix::process::kill_process(pid, signal).ok();
    }
}

/// Tries until the blow has come in time; how the upgrade ended, with the gateway and its load.
async fn aborted(origin: &Origin, blow: Blow) -> (Hub, Load, Value) {
    for tries in 1..=40 {
        let mut config = config(origin, "upgrade_timeout_ms = 3000\n");
        if matches!(blow, Blow::StopAndEnd) {
            let notice = "drain_notice_ms = 600000\n";
            config = config.replacen("drain_notice_ms = 0\n", notice, 1);
        }
        let hub = start(&crowded(&config)).await;
        let load = Load::start(hub.addr("public"));
        hub.wait_for_metric("hub_requests_started_total", &[], |n| n > 100.0)
            .await;
        let halfway = Halfway::reach(&hub).await;
        match blow {
            Blow::Kill => halfway.signal(Signal::KILL),
            Blow::KillLater => {
                hub.signal(Signal::STOP);
                stopped(hub.pid()).await;
                halfway.signal(Signal::KILL);
                hub.signal(Signal::CONT);
            }
            Blow::Stop => halfway.signal(Signal::STOP),
            Blow::StopAndEnd => {
                halfway.signal(Signal::STOP);
                stopped(halfway.new).await;
                hub.signal(Signal::TERM);
            }
        }
        if is_aborted(&hub).await {
            wait_gone(halfway.new).await;
            let last = outcome(&hub, &halfway.id).await;
            println!("try {tries}: {last}");
            return (hub, load, last);
        }
        // It was quicker; that is an upgrade, and what has befallen the new process another test's business.
        load.give_up().await;
        halfway.signal(Signal::KILL);
    }
    panic!("{blow:?} never came in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_whose_new_process_dies_or_hangs_with_the_sockets_loses_nothing() {
    let origin = Origin::start().await;
    for (blow, why) in [
        (Blow::Kill, "signal: 9"),
        (Blow::KillLater, "signal: 9"),
        (Blow::Stop, "did not take over within"),
    ] {
        let (mut hub, load, last) = aborted(&origin, blow).await;
        assert!(last["why"].to_string().contains(why), "{blow:?}: {last}");
        let (requests, connections) = load.finish().await;
        println!("{blow:?}: {requests} requests on {connections} connections, none lost");
        // It can still be upgraded.
        upgrade(&mut hub).await;
        assert_eq!(status(hub.addr("public")).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_while_the_new_process_has_the_sockets_is_a_drain_like_any_other() {
    let origin = Origin::start().await;
    let (mut hub, load, last) = aborted(&origin, Blow::StopAndEnd).await;
    assert!(last["why"].to_string().contains("told to end"), "{last}");
    hub.wait_for_stderr("readiness is off").await;
    // In its notice it serves as ever.
    load.finish().await;
    hub.signal(Signal::TERM);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
}
