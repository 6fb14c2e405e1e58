//! Rollouts over the admin API, with real origins.

use hub_testkit::{Behaviour, Hub, Origin, Reply, Wire, demo_config};
use serde_json::{Value, json};
use std::path::Path;

/// A gateway with one cluster of two colours, whose ledger is in `store`.
async fn start(store: &Path, blue: &str, green: &str) -> Hub {
    let config = demo_config("127.0.0.1:1").replace(
        "endpoints = { blue = [\"127.0.0.1:1\"] }\n",
        &format!("endpoints = {{ blue = [\"{blue}\"], green = [\"{green}\"] }}\ngate = {{ warm_connections = 0 }}\n"),
    ) + &format!(
        "websocket = {{}}\n\n[store]\ndirectory = {:?}\n",
        store.display().to_string()
    );
    Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&config)
        .start()
        .await
}

async fn coloured(colour: &str) -> Origin {
    Origin::builder().colour(colour).start().await
}

async fn colour(hub: &Hub) -> String {
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let answer = wire.read_response().await;
    assert_eq!(answer.status, 200);
    answer.header("x-colour").unwrap_or("-").to_owned()
}

async fn command(hub: &Hub, command: &str, plan: &Value) -> (u16, Value) {
    let path = format!("/v1/rollouts/app/{command}");
    let body = if plan.is_null() {
        String::new()
    } else {
        plan.to_string()
    };
    hub.admin("POST", &path, &body).await
}

async fn rollout(hub: &Hub) -> Value {
    let (status, body) = hub.admin("GET", "/v1/rollouts", "").await;
    assert_eq!(status, 200, "{body}");
    body["rollouts"][0].clone()
}

/// Waits until the rollout is in `phase`, with requests meanwhile; how many failed.
async fn wait_for(hub: &Hub, phase: &str) -> (Value, usize) {
    let mut failed = 0;
    let waiting = async {
        loop {
            let mut wire = Wire::connect(hub.addr("public")).await;
            for _ in 0..20 {
                wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                failed += usize::from(wire.read_response().await.status != 200);
            }
            let rollout = rollout(hub).await;
            if rollout["phase"] == phase {
                return rollout;
            }
            assert_eq!(rollout["over"], false, "{rollout}");
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await;
    (
        waited.unwrap_or_else(|_| panic!("it never gets to {phase}")),
        failed,
    )
}

#[tokio::test]
async fn everyone_moves_to_a_good_colour_without_a_failed_request() {
    let store = tempfile::tempdir().expect("a folder");
    let (blue, green) = (coloured("blue").await, coloured("green").await);
    let hub = start(store.path(), &blue.endpoint(), &green.endpoint()).await;
    assert_eq!(colour(&hub).await, "blue");
    let (status, begun) = command(&hub, "start", &json!({"stages": [], "bake_seconds": 0})).await;
    assert_eq!(status, 200, "{begun}");
    let (done, failed) = wait_for(&hub, "committed").await;
    assert_eq!(failed, 0);
    assert_eq!(
        (&done["active"], &done["epoch"]),
        (&json!("green"), &json!(1))
    );
    assert_eq!(colour(&hub).await, "green");
    // And back again: the colours take turns.
    command(&hub, "start", &json!({"stages": [], "bake_seconds": 0})).await;
    let (back, failed) = wait_for(&hub, "committed").await;
    assert_eq!((failed, &back["active"]), (0, &json!("blue")));
}

#[tokio::test]
async fn a_colour_that_fails_its_gate_gets_no_request_and_the_reason_is_told() {
    let store = tempfile::tempdir().expect("a folder");
    let blue = coloured("blue").await;
    let hub = start(store.path(), &blue.endpoint(), "127.0.0.1:1").await;
    command(&hub, "start", &json!({"stages": []})).await;
    let (ended, failed) = wait_for(&hub, "rolled_back").await;
    assert_eq!(failed, 0);
    let why = ended["why"].as_str().expect("a reason");
    assert!(
        why.contains("127.0.0.1:1") && why.contains("cannot connect"),
        "{why}"
    );
    assert_eq!(
        (&ended["active"], &ended["epoch"]),
        (&json!("blue"), &json!(0))
    );
}

#[tokio::test]
async fn a_colour_that_answers_500_is_taken_back() {
    let store = tempfile::tempdir().expect("a folder");
    let (blue, green) = (coloured("blue").await, coloured("green").await);
    green.on("/", Reply::new(500));
    let hub = start(store.path(), &blue.endpoint(), &green.endpoint()).await;
    let stage = json!({"percent": 99.99, "observe_seconds": 600});
    command(
        &hub,
        "start",
        &json!({"stages": [stage], "baseline_seconds": 0}),
    )
    .await;
    let (ended, failed) = wait_for(&hub, "rolled_back").await;
    assert!(failed > 0);
    let why = ended["why"].as_str().expect("a reason");
    assert!(why.contains("5xx"), "{why}");
    assert_eq!(colour(&hub).await, "blue");
}

#[tokio::test]
async fn a_killed_gateway_goes_on_where_its_ledger_stands() {
    let store = tempfile::tempdir().expect("a folder");
    let (blue, green) = (coloured("blue").await, coloured("green").await);
    let mut hub = start(store.path(), &blue.endpoint(), &green.endpoint()).await;
    let stage = json!({"percent": 99.99, "observe_seconds": 600});
    command(
        &hub,
        "start",
        &json!({"stages": [stage], "baseline_seconds": 0}),
    )
    .await;
    let (canary, _) = wait_for(&hub, "canary").await;
    assert_eq!(colour(&hub).await, "green");
    hub.signal(hub_testkit::Signal::KILL);
    hub.wait_exit().await;

    let hub = start(store.path(), &blue.endpoint(), &green.endpoint()).await;
    // From its first request on.
    assert_eq!(colour(&hub).await, "green");
    let (again, _) = wait_for(&hub, "canary").await;
    assert_eq!(again["rollout"], canary["rollout"]);
    command(&hub, "abort", &Value::Null).await;
    wait_for(&hub, "rolled_back").await;
    assert_eq!(colour(&hub).await, "blue");
    let (status, body) = hub.admin("GET", "/v1/rollouts/app/history", "").await;
    let states: Vec<&str> = body["history"].as_array().map_or_else(Vec::new, |entries| {
        entries
            .iter()
            .filter_map(|entry| entry["state"].as_str())
            .collect()
    });
    assert_eq!(status, 200);
    assert_eq!(
        states,
        [
            "rolled_back",
            "rolling_back",
            "canary",
            "canary",
            "gate",
            "preparing"
        ]
    );
}

#[tokio::test]
async fn commands_that_do_not_fit_are_refused_and_say_why() {
    let store = tempfile::tempdir().expect("a folder");
    let (blue, green) = (coloured("blue").await, coloured("green").await);
    let hub = start(store.path(), &blue.endpoint(), &green.endpoint()).await;
    for (path, body, status, code) in [
        ("/v1/rollouts/app/promote", "", 409, "refused"),
        ("/v1/rollouts/nobody/start", "", 404, "unknown_cluster"),
        ("/v1/rollouts/app/begin", "", 404, "unknown_path"),
        (
            "/v1/rollouts/app/start",
            "{\"stages\":[{\"percent\":100}]}",
            422,
            "bad_plan",
        ),
        (
            "/v1/rollouts/app/start",
            "{\"stages\":[{\"percent\":5},{\"percent\":1}]}",
            422,
            "bad_plan",
        ),
        ("/v1/rollouts/app/start", "{\"stage\":[]}", 422, "bad_plan"),
        ("/v1/rollouts/app/start", "no json", 422, "bad_plan"),
    ] {
        let (got, answer) = hub.admin("POST", path, body).await;
        assert_eq!(
            (got, &answer["error"]["code"]),
            (status, &json!(code)),
            "{path} {body}: {answer}"
        );
    }
    let slow = json!({"stages": [{"percent": 1, "observe_seconds": 600}], "baseline_seconds": 0});
    assert_eq!(command(&hub, "start", &slow).await.0, 200);
    assert_eq!(command(&hub, "start", &slow).await.0, 409);
    wait_for(&hub, "canary").await;
    let (status, paused) = command(&hub, "pause", &Value::Null).await;
    assert_eq!((status, &paused["paused"]), (200, &json!(true)));
    let (status, promoted) = command(&hub, "promote", &Value::Null).await;
    assert_eq!(
        (status, &promoted["phase"]),
        (200, &json!("switched")),
        "{promoted}"
    );
}

#[tokio::test]
async fn without_a_store_there_are_no_rollouts() {
    let blue = coloured("blue").await;
    let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&demo_config(blue.endpoint()))
        .start()
        .await;
    let (status, answer) = command(&hub, "start", &Value::Null).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("no_store"))
    );
    assert!(
        answer["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("`[store]`") && text.contains("`hubctl upgrade`"))
    );
}

#[tokio::test]
async fn a_colour_that_refuses_upgrades_is_taken_back() {
    let store = tempfile::tempdir().expect("a folder");
    let (blue, green) = (coloured("blue").await, coloured("green").await);
    blue.on("/ws", Behaviour::WebSocket);
    green.on("/ws", Behaviour::refuse_upgrade(400));
    let hub = start(store.path(), &blue.endpoint(), &green.endpoint()).await;
    let stage = json!({"percent": 99.99, "observe_seconds": 600});
    command(
        &hub,
        "start",
        &json!({"stages": [stage], "baseline_seconds": 0}),
    )
    .await;
    let upgrades = async {
        loop {
            let mut wire = Wire::connect(hub.addr("public")).await;
            wire.send("GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
            wire.read_response().await;
            let rollout = rollout(&hub).await;
            if rollout["over"] == true {
                return rollout;
            }
        }
    };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), upgrades).await;
    let ended = ended.expect("it is never over");
    let why = ended["why"].as_str().expect("a reason");
    assert!(why.contains("upgrades refused"), "{why}");
    assert_eq!(ended["phase"], "rolled_back");
}

#[tokio::test]
async fn the_old_colour_is_watched_before_the_first_stage_and_the_gate_is_asked_again() {
    let store = tempfile::tempdir().expect("a folder");
    let (blue, green) = (coloured("blue").await, coloured("green").await);
    let hub = start(store.path(), &blue.endpoint(), &green.endpoint()).await;
    let stage = json!({"percent": 1, "observe_seconds": 600});
    let plan = json!({"stages": [stage], "baseline_seconds": 1});
    assert_eq!(command(&hub, "start", &plan).await.0, 200);
    wait_for(&hub, "canary").await;
    let (_, body) = hub.admin("GET", "/v1/rollouts/app/history", "").await;
    let at = |state: &str| {
        let entries = body["history"].as_array().expect("a list");
        let entry = entries.iter().find(|entry| entry["state"] == state);
        entry.expect("it was there")["at_us"]
            .as_i64()
            .expect("a time")
    };
    assert!(at("canary") - at("gate") >= 1_000_000);
    // A colour that dies meanwhile gets no request.
    command(&hub, "abort", &Value::Null).await;
    wait_for(&hub, "rolled_back").await;
    let probes = green.connections();
    command(&hub, "start", &plan).await;
    green.wait_for_connections(probes + 3).await;
    green.stop().await;
    let (ended, failed) = wait_for(&hub, "rolled_back").await;
    assert_eq!(failed, 0);
    let why = ended["why"].as_str().expect("a reason");
    assert!(why.contains("cannot connect"), "{why}");
}
