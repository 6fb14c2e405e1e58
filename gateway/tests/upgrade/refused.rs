//! Upgrades that are not begun, and what `hubctl upgrade` makes of all of them.

use crate::{ask, begin, binary, config, outcome, start, upgrade};
use hub_testkit::hub::wait_gone;
use hub_testkit::{ADMIN_TOKEN, Gate, Hub, Origin, Reply, Signal, Wire};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// A new binary that never says anything.
fn silent(hub: &Hub) -> PathBuf {
    let path = hub.dir().join("silent");
    std::fs::write(&path, "#!/bin/sh\nexec sleep 600\n").expect("written");
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, permissions).expect("our own file");
    path
}

async fn refusal(hub: &Hub, order: Value) -> (u16, String) {
    let (status, body) = hub.admin("POST", "/v1/upgrade", &order.to_string()).await;
    let code = body["error"]["code"].as_str();
    (status, code.unwrap_or("-").to_owned())
}

async fn slow(hub: &Hub, origin: &Origin) -> Wire {
    let mut wire = Wire::connect(hub.addr("public")).await;
    let seen = origin.request_count();
    wire.send(SLOW).await;
    origin.wait_for_requests(seen + 1).await;
    wire
}

#[tokio::test]
async fn there_is_one_upgrade_at_a_time_and_the_end_of_the_process_aborts_it() {
    let origin = Origin::start().await;
    let mut hub = start(&config(&origin, "")).await;
    let id = begin(&hub, json!({"binary": silent(&hub)})).await;
    hub.wait_for_stderr("\"step\":\"starting\"").await;
    let second = refusal(&hub, json!({})).await;
    assert_eq!(second, (409, "upgrade_under_way".into()));
    hub.signal(Signal::USR2);
    hub.wait_for_stderr("an upgrade was refused").await;
    let (_, shown) = hub.admin("GET", "/v1/upgrade", "").await;
    assert_eq!(shown["last"]["id"], id);
    let child = shown["last"]["to"]["pid"].as_u64().expect("a process id");
    hub.signal(Signal::TERM);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
    assert!(hub.stderr().contains("this process was told to end"));
    wait_gone(u32::try_from(child).expect("a process id")).await;
}

#[tokio::test]
async fn a_process_that_drains_and_one_with_too_many_behind_it_begin_none() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .on("/slow", Reply::ok("whole").after(&gate))
        .start()
        .await;
    let mut hub =
        start(&config(&origin, "drain_notice_ms = 600000\n").replace("drain_notice_ms = 0\n", ""))
            .await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.push(slow(&hub, &origin).await);
        upgrade(&mut hub).await;
    }
    let third = refusal(&hub, json!({})).await;
    assert_eq!(third, (409, "too_many_draining".into()));
    let draining = hub.metric("hub_processes_draining", &[]).await;
    assert_eq!(draining, 2.0);
    gate.open();
    for mut wire in waiting {
        assert_eq!(wire.read_response().await.text(), "whole");
    }
    hub.wait_for_metric("hub_processes_draining", &[], |n| n == 0.0)
        .await;
    upgrade(&mut hub).await;
    hub.signal(Signal::TERM);
    hub.wait_for_stderr("readiness is off").await;
    let last = refusal(&hub, json!({})).await;
    assert_eq!(last, (409, "not_serving".into()));
}

#[tokio::test]
async fn orders_that_make_no_sense_are_refused() {
    let origin = Origin::start().await;
    let hub = start(&config(&origin, "")).await;
    for (order, code) in [
        (json!({"binary": "hub-gateway"}), "bad_binary"),
        (json!({"grace_ms": 604_800_001}), "bad_upgrade"),
        (json!({"grace": 1}), "bad_upgrade"),
    ] {
        assert_eq!(refusal(&hub, order).await, (422, code.into()));
    }
    let (status, _) = {
        let answer = hub.admin_request("POST", "/v1/upgrade", "", None).await;
        (answer.status, ())
    };
    assert_eq!(status, 401);
}

#[tokio::test]
async fn a_rollout_that_is_under_way_is_not_handed_over() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = config(&blue, "").replace(
        &format!("blue = [\"{}\"]", blue.endpoint()),
        &format!(
            "blue = [\"{}\"], green = [\"{}\"]",
            blue.endpoint(),
            green.endpoint()
        ),
    ) + "\n[store]\ndirectory = \"{dir}/store\"\n";
    let mut hub = start(&config).await;
    let plan = json!({"stages": [], "bake_seconds": 600}).to_string();
    let (status, body) = hub.admin("POST", "/v1/rollouts/app/start", &plan).await;
    assert_eq!(status, 200, "{body}");
    let refused = refusal(&hub, json!({})).await;
    assert_eq!(refused, (409, "rollout_under_way".into()));
    hub.admin("POST", "/v1/rollouts/app/abort", "").await;
    while refusal(&hub, json!({"binary": silent(&hub)})).await.0 != 202 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // And while an upgrade is under way, no rollout is started.
    let (status, body) = hub.admin("POST", "/v1/rollouts/app/start", &plan).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (409, &json!("upgrade_under_way"))
    );
    hub.signal(Signal::TERM);
    hub.wait_exit().await;
}

/// `hubctl upgrade`; `None` where hubctl was not built.
async fn hubctl(hub: &Hub, arguments: &[&str]) -> Option<Output> {
    let path = binary().with_file_name("hubctl");
    if !path.exists() {
        let required = std::env::var_os("HUB_REQUIRE_HUBCTL").is_some_and(|value| value == "1");
        assert!(!required, "{} is missing", path.display());
        println!("skipped: {} is missing", path.display());
        return None;
    }
    let mut command = tokio::process::Command::new(path);
    command.env("HUB_ADMIN_TOKEN", ADMIN_TOKEN);
    command.args(["--admin", hub.admin_endpoint(), "upgrade"]);
    Some(command.args(arguments).output().await.expect("hubctl runs"))
}

#[tokio::test]
async fn hubctl_shows_how_it_goes_and_exits_by_how_it_ends() {
    let origin = Origin::start().await;
    let config = config(&origin, "upgrade_timeout_ms = 500\n").replace(
        "[access_log]",
        "audit_file = \"{dir}/audit.log\"\n[access_log]",
    );
    let mut hub = start(&config).await;
    let silent = silent(&hub).display().to_string();
    let Some(output) = hubctl(&hub, &["--binary", &silent]).await else {
        return;
    };
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.starts_with("starting\n"), "{said}");
    assert!(
        said.contains("aborted, process") && said.contains("did not say hello"),
        "{said}"
    );
    let output = hubctl(&hub, &["--binary", "/bin/sh", "--grace", "1000000"]).await;
    let output = output.expect("hubctl");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("grace_ms must be"), "{error}");
    // A whole start takes longer than it takes to say nothing.
    hub.write_config(&config.replace("upgrade_timeout_ms = 500\n", ""));
    assert_eq!(hub.reload().await.0, 200);
    let output = hubctl(&hub, &["--grace", "1.5"]).await.expect("hubctl");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let pid = hub.wait_for_successor().await;
    assert!(
        said.contains(&format!("committed: process {pid} ")),
        "{said}"
    );
    let output = hubctl(&hub, &["--status"]).await.expect("hubctl");
    assert!(text(&output).contains("the last upgrade: committed"));
    // Each of them is in the audit trail, with its outcome.
    let audit = std::fs::read_to_string(hub.dir().join("audit.log")).expect("a file");
    for part in [
        "\"outcome\":\"aborted\"",
        "\"outcome\":\"committed\"",
        "did not say hello",
    ] {
        assert!(audit.contains(part), "{part} in {audit}");
    }
    let mut wire = Wire::connect(hub.addr("public")).await;
    assert_eq!(ask(&mut wire, crate::GET).await.status, 200);
    let id = begin(&hub, json!({})).await;
    assert_eq!(outcome(&hub, &id).await["state"], "committed");
}
