//! What a colour must show before a rollout lets clients on it, and what is left of it when it is let go.

use hub_testkit::{Behaviour, Ca, Hub, Origin, OriginBuilder, Reply, Wire, demo_config};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A gateway whose cluster has these colours, these further keys, and tenants by header.
async fn start(store: &Path, blue: &Origin, green: &[&Origin], cluster: &str) -> Hub {
    let blue = blue.endpoint();
    let green: Vec<String> = green.iter().map(|origin| origin.endpoint()).collect();
    let config = demo_config("127.0.0.1:1").replace(
        "endpoints = { blue = [\"127.0.0.1:1\"] }\n",
        &format!("endpoints = {{ blue = [\"{blue}\"], green = {green:?} }}\n{cluster}\n"),
    ) + "tenant = { sources = [{ header = \"x-location-id\" }], required = false }\n\
         [[tenant]]\nid = \"loc_1\"\n[[tenant]]\nid = \"loc_2\"\n"
        + &format!("[store]\ndirectory = {:?}\n", store.display().to_string());
    Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&config)
        .start()
        .await
}

async fn coloured(colour: &str) -> Origin {
    Origin::builder().colour(colour).start().await
}

async fn roll_out(hub: &Hub, plan: &Value) {
    let (status, begun) = hub
        .admin("POST", "/v1/rollouts/app/start", &plan.to_string())
        .await;
    assert_eq!(status, 200, "{begun}");
}

async fn rollout(hub: &Hub) -> Value {
    let (status, body) = hub.admin("GET", "/v1/rollouts", "").await;
    assert_eq!(status, 200, "{body}");
    body["rollouts"][0].clone()
}

/// Waits until the rollout has got somewhere.
async fn wait_until(hub: &Hub, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let waiting = async {
        loop {
            let rollout = rollout(hub).await;
            if is_it(&rollout) {
                return rollout;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    match waited {
        Ok(rollout) => rollout,
        Err(_) => panic!("waited for {what}: {}", rollout(hub).await),
    }
}

async fn ended(hub: &Hub) -> Value {
    wait_until(hub, "the end", |rollout| rollout["over"] == true).await
}

/// Why a gate with these keys does not open for this green.
async fn refusal(green: &Origin, cluster: &str) -> (Hub, String) {
    let store = tempfile::tempdir().expect("a folder");
    let blue = coloured("blue").await;
    let hub = start(store.path(), &blue, &[green], cluster).await;
    roll_out(&hub, &json!({"stages": []})).await;
    let ended = ended(&hub).await;
    assert_eq!(
        (&ended["phase"], &ended["epoch"]),
        (&json!("rolled_back"), &json!(0)),
        "{ended}"
    );
    let why = ended["why"].as_str().expect("a reason").to_owned();
    assert!(why.contains(&green.endpoint()), "{why}");
    (hub, why)
}

async fn failures(hub: &Hub, check: &str) -> f64 {
    let labels = [("cluster", "app"), ("check", check)];
    hub.metric("hub_rollout_gate_failures_total", &labels).await
}

#[tokio::test]
async fn requests_of_a_gate_go_to_each_endpoint_as_if_a_client_had_asked() {
    let store = tempfile::tempdir().expect("a folder");
    let blue = coloured("blue").await;
    let green = [coloured("green").await, coloured("green").await];
    let request = r#"
        name = "contacts", tenant = "loc_2", path = "/contacts?limit=1", host = "api.test",
        headers = [{ name = "X-Class", value = "large" }], status = 200, body_contains = "\"colour\"""#
        .replace('\n', " ");
    let gate = format!("gate = {{ warm_connections = 0, requests = [{{ {request} }}] }}");
    let hub = start(store.path(), &blue, &[&green[0], &green[1]], &gate).await;
    roll_out(&hub, &json!({"stages": [], "bake_seconds": 600})).await;
    wait_until(&hub, "the bake", |rollout| rollout["phase"] == "bake").await;
    for origin in &green {
        let requests = origin.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        let asked = &requests[0];
        assert_eq!(
            (asked.method.as_str(), asked.target.as_str()),
            ("GET", "/contacts?limit=1")
        );
        for (name, value) in [
            ("host", "api.test"),
            ("x-forwarded-host", "api.test"),
            ("x-location-id", "loc_2"),
            ("x-class", "large"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-for", "127.0.0.1"),
        ] {
            assert_eq!(asked.header(name), Some(value), "{name}");
        }
        assert!(asked.header("traceparent").is_some());
    }
    // It is nobody's request: no log, no count.
    assert_eq!(hub.access_log().len(), 0);
    assert_eq!(failures(&hub, "request").await, 0.0);
}

#[tokio::test]
async fn a_wrong_answer_keeps_the_gate_shut_and_is_told() {
    let green = coloured("green").await;
    green.on("/wrong", Reply::ok("other text"));
    green.on("/broken", Reply::new(500));
    green.on("/hang", Behaviour::Hang);
    green.on("/close", Behaviour::Close);
    let digest = "0".repeat(64);
    for (request, told) in [
        ("path = \"/broken\"", "answered 500, not 200"),
        (
            "path = \"/wrong\", body_contains = \"wanted\"",
            "\"wanted\" is not in the body, of which 10 bytes",
        ),
        (
            &format!("path = \"/wrong\", body_sha256 = \"{digest}\""),
            "SHA-256 is ",
        ),
        (
            "path = \"/hang\", latency_ms_max = 50",
            "no answer within 50 ms",
        ),
        ("path = \"/close\"", "upstream_failed"),
        (
            "path = \"/\", tenant = \"loc_9\"",
            "there is no such tenant",
        ),
    ] {
        let gate = format!("gate = {{ requests = [{{ name = \"one\", {request} }}] }}");
        let (hub, why) = refusal(&green, &gate).await;
        assert!(
            why.contains("request \"one\"") && why.contains(told),
            "{why}"
        );
        assert_eq!(failures(&hub, "request").await, 1.0);
        let labels = [("cluster", "app"), ("reason", "gate")];
        let rollbacks = hub.metric("hub_rollout_rollbacks_total", &labels).await;
        assert_eq!(rollbacks, 1.0);
    }
}

#[tokio::test]
async fn a_right_body_by_its_digest_opens_the_gate() {
    use sha2::Digest as _;
    use std::fmt::Write as _;
    let store = tempfile::tempdir().expect("a folder");
    let (blue, green) = (coloured("blue").await, coloured("green").await);
    // More than is kept of it.
    let body = "x".repeat(200_000);
    let mut digest = String::new();
    for byte in sha2::Sha256::digest(&body) {
        write!(digest, "{byte:02x}").expect("memory");
    }
    green.on("/big", Reply::ok(body));
    let gate = format!(
        "gate = {{ requests = [{{ name = \"big\", path = \"/big\", body_sha256 = \"{digest}\" }}] }}"
    );
    let hub = start(store.path(), &blue, &[&green], &gate).await;
    roll_out(&hub, &json!({"stages": [], "bake_seconds": 0})).await;
    let ended = ended(&hub).await;
    assert_eq!(ended["phase"], "committed", "{ended}");
}

#[tokio::test]
async fn a_wrong_body_by_probe_keeps_the_gate_shut() {
    let green = coloured("green").await;
    green.on("/healthz", Reply::ok("starting"));
    let health = "health = { kind = \"http\", interval_ms = 60000, body_contains = \"ready\" }";
    let (hub, why) = refusal(&green, health).await;
    assert!(why.contains("\"ready\" is not in the body"), "{why}");
    assert_eq!(failures(&hub, "probe").await, 1.0);
}

#[tokio::test]
async fn an_endpoint_that_takes_connections_and_answers_nothing_does_not_pass() {
    let green = coloured("green").await;
    green.on("/", Behaviour::Hang);
    let (hub, why) = refusal(&green, "first_byte_timeout_ms = 100").await;
    assert!(
        why.contains("of 4 connections at a time") && why.contains("warm_connections"),
        "{why}"
    );
    assert_eq!(failures(&hub, "warm_up").await, 1.0);
}

#[tokio::test]
async fn the_first_clients_of_a_colour_find_connections() {
    find_connections(|origin| origin, "").await;
}

#[tokio::test]
async fn the_first_clients_of_a_colour_find_connections_that_have_shaken_hands() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new("upstream authority");
    let file = ca.write(dir.path());
    let tls = ca.issue(&["app.test"]).server_config(&[]);
    let keys = format!(
        "tls = {{ server_name = \"app.test\", ca_file = {:?} }}",
        file.display().to_string()
    );
    find_connections(|origin| origin.tls(Arc::clone(&tls)), &keys).await;
}

async fn find_connections(make: impl Fn(OriginBuilder) -> OriginBuilder, keys: &str) {
    let store = tempfile::tempdir().expect("a folder");
    let blue = make(Origin::builder().colour("blue")).start().await;
    let green = make(Origin::builder().colour("green")).start().await;
    let gate = format!("gate = {{ warm_connections = 3 }}\n{keys}");
    let hub = start(store.path(), &blue, &[&green], &gate).await;
    roll_out(&hub, &json!({"stages": [], "bake_seconds": 600})).await;
    wait_until(&hub, "the bake", |rollout| rollout["phase"] == "bake").await;
    // Three probes, and three that wait.
    assert_eq!(green.connections(), 6);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Wire::connect(hub.addr("public")).await);
    }
    let gate = hub_testkit::Gate::closed();
    green.on("/", Reply::ok("green").after(&gate));
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    }
    // Three that only waited, and three requests at a time.
    green.wait_for_requests(6).await;
    assert_eq!(green.connections(), 6);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response().await.status, 200);
    }
}

#[tokio::test]
async fn a_colour_that_is_let_go_keeps_no_connection_and_metrics_tell_how_it_went() {
    let store = tempfile::tempdir().expect("a folder");
    let (blue, green) = (coloured("blue").await, coloured("green").await);
    let hub = start(store.path(), &blue, &[&green], "").await;
    let mut clients = Vec::new();
    let gate = hub_testkit::Gate::closed();
    blue.on("/", Reply::ok("blue").after(&gate));
    for _ in 0..20 {
        let mut client = Wire::connect(hub.addr("public")).await;
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        clients.push(client);
    }
    blue.wait_for_requests(20).await;
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response().await.status, 200);
    }
    assert_eq!(blue.open_connections(), 20);
    roll_out(&hub, &json!({"stages": [], "bake_seconds": 0})).await;
    assert_eq!(ended(&hub).await["phase"], "committed");
    // Long before they would be idle for too long.
    blue.wait_for_open_connections(0).await;
    let open = green.open_connections();
    assert!(open >= 4, "{open}");

    let app = ("cluster", "app");
    for (name, label, value) in [
        ("hub_rollout_phase", ("phase", "committed"), 1.0),
        ("hub_rollout_phase", ("phase", "gate"), 0.0),
        ("hub_rollout_transitions_total", ("phase", "gate"), 1.0),
        ("hub_rollout_transitions_total", ("phase", "committed"), 1.0),
        ("hub_rollout_verdicts_total", ("outcome", "fail"), 0.0),
    ] {
        assert_eq!(
            hub.metric(name, &[app, label]).await,
            value,
            "{name} {label:?}"
        );
    }
    assert_eq!(hub.metric("hub_rollout_epoch", &[app]).await, 1.0);
    let flips = hub.metric("hub_rollout_flip_seconds_count", &[app]).await;
    assert_eq!(flips, 1.0);
    assert_eq!(
        hub.metric("hub_rollout_samples_lost_total", &[app]).await,
        0.0
    );
}

#[tokio::test]
async fn tenants_who_stay_on_the_old_colour_are_shown() {
    let store = tempfile::tempdir().expect("a folder");
    let (blue, green) = (coloured("blue").await, coloured("green").await);
    blue.on("/hang", Behaviour::Hang);
    let hub = start(store.path(), &blue, &[&green], "").await;
    let mut held = Vec::new();
    for tenant in ["loc_2", "loc_2", "loc_1"] {
        let mut client = Wire::connect(hub.addr("public")).await;
        client
            .send(format!(
                "GET /hang HTTP/1.1\r\nHost: a.test\r\nX-Location-Id: {tenant}\r\n\r\n"
            ))
            .await;
        held.push(client);
    }
    blue.wait_for_requests(3).await;
    roll_out(&hub, &json!({"stages": [], "bake_seconds": 600})).await;
    let switched = wait_until(&hub, "the switch", |rollout| rollout["phase"] == "switched").await;
    assert_eq!(
        switched["staying"],
        json!({"colour": "blue", "tenants": 2, "busiest": [
            {"tenant": "loc_2", "requests": 2}, {"tenant": "loc_1", "requests": 1},
        ]})
    );
    drop(held);
    let bake = wait_until(&hub, "the bake", |rollout| rollout["phase"] == "bake").await;
    assert_eq!(bake["staying"], Value::Null);
}
