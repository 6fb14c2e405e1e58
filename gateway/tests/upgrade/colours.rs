//! Rollouts and migrations in a process that others drain behind: those have clients on colours, too.

use crate::good::socket;
use crate::{PATIENCE, begin, config, holds, inode, start, upgrade};
use hub_testkit::{Behaviour, Hub, Origin, Signal, Wire};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Two colours, a store, and WebSockets at `/socket`.
async fn site() -> (Hub, [Origin; 2]) {
    let origin = || Origin::builder().on("/socket", Behaviour::WebSocket);
    let (blue, green) = (origin().start().await, origin().start().await);
    let schema = "schema = { scopes = [\"app\"], blue = { min = 1, max = 9 }, green = { min = 1, max = 9 } }";
    let config = config(&blue, "upgrade_grace_ms = 600000\n").replace(
        &format!("blue = [\"{}\"] }}", blue.endpoint()),
        &format!(
            "blue = [\"{}\"], green = [\"{}\"] }}\n{schema}",
            blue.endpoint(),
            green.endpoint()
        ),
    ) + "websocket = {}\n\n[store]\ndirectory = \"{dir}/store\"\n";
    (start(&config).await, [blue, green])
}

/// Writes down a step of the migrations; its status and the answer.
async fn begin_step(hub: &Hub, number: u32, kind: &str) -> (u16, Value) {
    let step = json!({"scope": "app", "number": number, "name": "lead", "kind": kind, "checksum": "c",
                      "run": "01932f5e-7c00-7000-8000-000000000001", "started_us": 1});
    let body = json!({"step": step, "when_running": "refuse"}).to_string();
    hub.admin("POST", "/v1/migrations/app/begin", &body).await
}

async fn rollout(hub: &Hub, command: &str, plan: &Value) -> (u16, Value) {
    let path = format!("/v1/rollouts/app/{command}");
    let body = if plan.is_null() {
        String::new()
    } else {
        plan.to_string()
    };
    hub.admin("POST", &path, &body).await
}

async fn wait_for_phase(hub: &Hub, phase: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, body) = hub.admin("GET", "/v1/rollouts", "").await;
        if body["rollouts"][0]["phase"] == phase {
            return;
        }
        assert!(Instant::now() < deadline, "not {phase}: {body}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn nobody_drains(hub: &Hub) {
    hub.wait_for_metric("hub_processes_draining", &[], |n| n == 0.0)
        .await;
}

/// An expand step that is run.
async fn expanded(hub: &Hub) {
    assert_eq!(begin_step(hub, 1, "expand").await.0, 200);
    let end = json!({"number": 1, "finish": {"run": "01932f5e-7c00-7000-8000-000000000001",
                     "outcome": "applied", "finished_us": 2, "detail": ""}});
    let body = end.to_string();
    let (status, ended) = hub.admin("POST", "/v1/migrations/app/finish", &body).await;
    assert_eq!(status, 200, "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_process_drains_no_rollout_starts_and_no_contract_step_begins() {
    let (mut hub, _origins) = site().await;
    expanded(&hub).await;
    let mut open = socket(&hub).await;
    let old = hub.pid();
    upgrade(&mut hub).await;
    let plan = json!({"stages": [], "bake_seconds": 0});
    let help = format!("kill -TERM {old}");
    let (status, body) = rollout(&hub, "start", &plan).await;
    let code = body["error"]["code"].as_str();
    assert_eq!((status, code), (409, Some("processes_draining")), "{body}");
    assert!(body.to_string().contains(&help), "{body}");
    let (status, body) = begin_step(&hub, 2, "contract").await;
    assert_eq!(status, 409, "{body}");
    assert!(body.to_string().contains(&help), "{body}");
    // An expand step hurts nobody.
    assert_eq!(begin_step(&hub, 2, "expand").await.0, 200);
    let end = json!({"number": 2, "finish": {"run": "01932f5e-7c00-7000-8000-000000000001",
                     "outcome": "failed", "finished_us": 2, "detail": ""}});
    hub.admin("POST", "/v1/migrations/app/finish", &end.to_string())
        .await;
    open.echo("still on the old process").await;
    drop(open);
    nobody_drains(&hub).await;
    let (status, body) = begin_step(&hub, 2, "contract").await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = rollout(&hub, "start", &plan).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_colour_is_not_released_while_a_process_drains() {
    const RELEASED: &str = "the colour is released";
    let (mut hub, _origins) = site().await;
    expanded(&hub).await;
    let open = socket(&hub).await;
    let stage = json!({"percent": 1, "observe_seconds": 600});
    let plan = json!({"stages": [stage], "baseline_seconds": 0});
    assert_eq!(rollout(&hub, "start", &plan).await.0, 200);
    wait_for_phase(&hub, "canary").await;
    // Frozen, which does not keep from upgrading.
    rollout(&hub, "contracted", &Value::Null).await;
    rollout(&hub, "abort", &Value::Null).await;
    wait_for_phase(&hub, "frozen").await;
    upgrade(&mut hub).await;
    let (status, body) = rollout(&hub, "accept", &Value::Null).await;
    assert_eq!((status, &body["active"]), (200, &json!("green")), "{body}");
    // Nothing tells of what does not happen; it would within a quarter of a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!hub.stderr().contains(RELEASED), "blue has a WebSocket");
    drop(open);
    hub.wait_for_stderr(RELEASED).await;
    nobody_drains(&hub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_drains_is_known_though_the_process_that_knew_was_killed() {
    let (mut hub, _origins) = site().await;
    let listening = inode(hub.addr("public"));
    let mut open = socket(&hub).await;
    let first = hub.pid();
    let second = upgrade(&mut hub).await;
    begin(&hub, json!({})).await;
    let third = loop {
        let (_, shown) = hub.admin("GET", "/v1/upgrade", "").await;
        let new = shown["last"]["to"]["pid"].as_u64();
        if let Some(pid) = new.filter(|pid| *pid != u64::from(second)) {
            break pid;
        }
    };
    while !holds(third, &listening) {
        std::thread::yield_now();
    }
    hub.signal(Signal::KILL);
    let serves = hub.wait_for_successor().await;
    assert_eq!(u64::from(serves), third);
    let (_, shown) = hub.admin("GET", "/v1/upgrade", "").await;
    let draining = shown["draining"].as_array().expect("a list");
    assert!(draining.contains(&json!(first)), "{shown}");
    open.echo("served by the first").await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    assert_eq!(crate::ask(&mut wire, crate::GET).await.status, 200);
}
