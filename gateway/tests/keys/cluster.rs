//! `[[cluster]]`.

use crate::site::{Site, answer_soon, probe, request, soon, whether};
use crate::{Row, row};
use hub_testkit::{Behaviour, RecordedRequest, Reply};
use serde_json::{Value, json};

pub(crate) fn rows() -> Vec<Row> {
    [clusters(), gates()].into_iter().flatten().collect()
}

/// Rows about what the gate of a rollout asks of green: green's requests are those of the gate alone, or
/// whether it opens shows in the phase.
fn gates() -> Vec<Row> {
    let with = |request: Value| {
        vec![
            (
                "cluster[].endpoints",
                json!({ "blue": ["{blue}"], "green": ["{green}"] }),
            ),
            ("store.directory", json!("{dir}/store")),
            ("cluster[].gate.warm_connections", json!(0)),
            ("cluster[].gate.requests[]", request),
        ]
    };
    let asks = |key, a: Value, b: Value, probe| {
        let request = json!({ "name": "one", "path": "/asked" });
        row(key, a, b, &with(request), probe)
    };
    let tenants = ("tenant", json!([{ "id": "loc_1" }, { "id": "loc_2" }]));
    let header = |name: &str, value: &str| {
        let header = json!({ "name": name, "value": value });
        with(json!({ "name": "one", "path": "/asked", "headers": [header] }))
    };
    let of_tenant = [
        with(json!({ "name": "one", "path": "/asked" })),
        vec![tenants],
    ]
    .concat();
    vec![
        asks(
            "cluster[].gate.warm_connections",
            0.into(),
            3.into(),
            probe!(site => {
                site.roll_out("canary").await;
                format!("{} connections", site.green.connections())
            }),
        ),
        asks(
            "cluster[].gate.requests[].name",
            "one".into(),
            "two".into(),
            probe!(site => {
                site.green.on("/asked", Reply::new(500));
                // The endpoint's port, which it tells as well, is never the same.
                let says = gate_says(site).await;
                format!("of one: {}", says.contains("one"))
            }),
        ),
        row(
            "cluster[].gate.requests[].tenant",
            "loc_1",
            "loc_2",
            &of_tenant,
            probe!(site => format!("{:?}", asked(site).await.header("x-location-id"))),
        ),
        asks(
            "cluster[].gate.requests[].method",
            "GET".into(),
            "DELETE".into(),
            probe!(site => asked(site).await.method),
        ),
        asks(
            "cluster[].gate.requests[].path",
            "/one".into(),
            "/two?q".into(),
            probe!(site => asked(site).await.target),
        ),
        asks(
            "cluster[].gate.requests[].host",
            "one.test".into(),
            "two.test".into(),
            probe!(site => format!("{:?}", asked(site).await.header("host"))),
        ),
        row(
            "cluster[].gate.requests[].headers[].name",
            "x-one",
            "x-two",
            &header("x-a", "1"),
            probe!(site => format!("{:?}", asked(site).await.header("x-one"))),
        ),
        row(
            "cluster[].gate.requests[].headers[].value",
            "1",
            "2",
            &header("x-a", "0"),
            probe!(site => format!("{:?}", asked(site).await.header("x-a"))),
        ),
        asks(
            "cluster[].gate.requests[].status",
            200.into(),
            404.into(),
            probe!(site => gate_says(site).await),
        ),
        asks(
            "cluster[].gate.requests[].body_contains",
            "green".into(),
            "no such text".into(),
            probe!(site => gate_says(site).await),
        ),
        asks(
            "cluster[].gate.requests[].body_sha256",
            Value::Null,
            "0".repeat(64).into(),
            probe!(site => gate_says(site).await),
        ),
        asks(
            "cluster[].gate.requests[].latency_ms_max",
            100.into(),
            60_000.into(),
            probe!(site => {
                site.green.on("/asked", Behaviour::Hang);
                whether(site.roll_out("canary")).await
            }),
        ),
    ]
}

/// What green was asked by its gate.
async fn asked(site: &Site) -> RecordedRequest {
    site.roll_out("canary").await;
    site.green.requests()[0].clone()
}

/// Where a rollout gets, and why no further.
async fn gate_says(site: &Site) -> String {
    let rollout = site.roll_out("canary").await;
    format!("{} {}", rollout["phase"], rollout["why"])
}

fn clusters() -> Vec<Row> {
    let endpoints = |blue: &[&str]| ("cluster[].endpoints.blue", json!(blue));
    let both = (
        "cluster[].endpoints",
        json!({ "blue": ["{blue}"], "green": ["{green}"] }),
    );
    let tls = (
        "cluster[].tls",
        json!({ "server_name": "a.test", "ca_file": "{dir}/ca.pem" }),
    );
    // One late answer would turn an endpoint here, and a busy machine is late: the time to answer is long.
    let health = (
        "cluster[].health",
        json!({
            "kind": "http", "interval_ms": 500, "timeout_ms": 500, "healthy_after": 1, "unhealthy_after": 1,
        }),
    );
    let health_row =
        |key, a: Value, b: Value, probe| row(key, a, b, std::slice::from_ref(&health), probe);
    let store = ("store.directory", json!("{dir}/store"));
    let schema = |active: &str| {
        let range = json!({ "min": 2, "max": 3 });
        [
            both.clone(),
            store.clone(),
            ("cluster[].active", json!(active)),
            (
                "cluster[].schema",
                json!({ "scopes": ["app"], "blue": range, "green": range }),
            ),
        ]
    };
    // Nothing was migrated, so the rollout is refused, and says what it looked for.
    let schema_row = |key, active, a: Value, b: Value| {
        row(
            key,
            a,
            b,
            &schema(active),
            probe!(site => refusal(site).await),
        )
    };
    let mut rows = vec![
        schema_row(
            "cluster[].schema.scopes",
            "blue",
            json!(["app"]),
            json!(["shard_1"]),
        ),
        schema_row("cluster[].schema.blue.min", "green", 1.into(), 2.into()),
        schema_row("cluster[].schema.blue.max", "green", 3.into(), 4.into()),
        schema_row("cluster[].schema.green.min", "blue", 1.into(), 2.into()),
        schema_row("cluster[].schema.green.max", "blue", 3.into(), 4.into()),
        row(
            "cluster[].schema.from_health",
            false,
            true,
            &[
                both.clone(),
                store.clone(),
                health.clone(),
                ("cluster[].schema", json!({ "scopes": ["app"] })),
            ],
            probe!(site => refusal(site).await),
        )
        .may_not_start(),
    ];
    rows.extend(vec![
        row(
            "cluster[].name",
            "app",
            "other",
            &[(
                "cluster[1]",
                json!({
                    "name": { "by_value": { "app": "other", "other": "app" } },
                    "endpoints": { "blue": ["{green}"] },
                }),
            )],
            probe!(site => site.colour("").await),
        ),
        row(
            "cluster[].active",
            "blue",
            "green",
            std::slice::from_ref(&both),
            probe!(site => site.colour("").await),
        ),
        row(
            "cluster[].endpoints.blue",
            json!(["{blue}"]),
            json!(["{green}"]),
            &[],
            probe!(site => site.colour("").await),
        ),
        row(
            "cluster[].endpoints.green",
            json!(["{blue}"]),
            json!(["{green}"]),
            &[("cluster[].active", json!("green"))],
            probe!(site => site.colour("").await),
        ),
        row(
            "cluster[].balance",
            "round_robin",
            "peak_ewma",
            &[endpoints(&["{blue}", "{green}"])],
            probe!(site => turns(site).await),
        ),
        row(
            "cluster[].allow_link_local",
            false,
            true,
            &[endpoints(&["0.0.0.0:{blue_port}"])],
            probe!(site => site.colour("").await),
        )
        .may_not_start(),
        // Nothing listens on port 1, and the first in turn is the first one listed.
        row(
            "cluster[].connect_retries",
            0,
            1,
            &[
                endpoints(&["127.0.0.1:1", "{blue}"]),
                ("cluster[].balance", json!("round_robin")),
            ],
            probe!(site => site.status("/", "").await),
        ),
        row(
            "cluster[].connect_timeout_ms",
            100,
            10_000,
            &[endpoints(&["{silent}"]), tls.clone()],
            probe!(site => timed(site, "/").await),
        ),
        row(
            "cluster[].first_byte_timeout_ms",
            100,
            10_000,
            &[],
            probe!(site => timed(site, "/hang").await),
        ),
        row(
            "cluster[].total_timeout_ms",
            100,
            10_000,
            &[],
            probe!(site => timed(site, "/hang").await),
        ),
        row(
            "cluster[].idle_timeout_ms",
            100,
            10_000,
            &[("cluster[].first_byte_timeout_ms", json!(100))],
            probe!(site => {
                let mut wire = site.send(request("/pause", "")).await;
                wire.read_head().await;
                whether(wire.read_to_close()).await
            }),
        ),
        row(
            "cluster[].keepalive_timeout_ms",
            0,
            50_000,
            &[],
            probe!(site => {
                let mut wire = site.connect().await;
                for _ in 0..2 {
                    wire.send(request("/", "")).await;
                    wire.read_response().await;
                }
                format!("{} connections", site.blue.connections())
            }),
        ),
        row(
            "cluster[].tls.server_name",
            "a.test",
            "b.test",
            &[endpoints(&["{tls}"]), tls.clone()],
            probe!(site => site.status("/", "").await),
        ),
        row(
            "cluster[].tls.ca_file",
            "{dir}/ca.pem",
            "{dir}/other-ca.pem",
            &[endpoints(&["{tls}"]), tls],
            probe!(site => site.status("/", "").await),
        ),
        health_row(
            "cluster[].health.kind",
            "http".into(),
            "tcp".into(),
            probe!(site => {
                site.blue.wait_for_connections(3).await;
                format!("asked: {}", site.blue.request_count() > 0)
            }),
        ),
        health_row(
            "cluster[].health.path",
            "/one".into(),
            "/two".into(),
            probe!(site =>
            site.blue.wait_for_requests(1).await[0].target.clone()),
        ),
        health_row(
            "cluster[].health.host",
            "one.test".into(),
            "two.test".into(),
            probe!(site =>
            format!("{:?}", site.blue.wait_for_requests(1).await[0].header("host"))),
        ),
        health_row(
            "cluster[].health.status",
            200.into(),
            503.into(),
            probe!(site => {
                site.blue.wait_for_requests(3).await;
                healthy(site).await
            }),
        ),
        health_row(
            "cluster[].health.body_contains",
            "colour".into(),
            "no such text".into(),
            probe!(site => {
                site.blue.wait_for_requests(3).await;
                healthy(site).await
            }),
        ),
        health_row(
            "cluster[].health.interval_ms",
            500.into(),
            3_600_000.into(),
            probe!(site => {
                site.blue.wait_for_requests(1).await;
                whether(site.blue.wait_for_requests(2)).await
            }),
        ),
        row(
            "cluster[].health.timeout_ms",
            10,
            60_000,
            &[
                health.clone(),
                ("cluster[].health.path", json!("/hang")),
                ("cluster[].health.interval_ms", json!(60_000)),
            ],
            probe!(site => {
                let unhealthy = site.until("an unhealthy endpoint", async |site| {
                    site.endpoint().await["healthy"] == false
                });
                whether(unhealthy).await
            }),
        ),
        health_row(
            "cluster[].health.healthy_after",
            1.into(),
            100.into(),
            probe!(site => {
                site.blue.on("/healthz", Reply::new(503));
                site.until("an unhealthy endpoint", async |site| {
                    site.endpoint().await["healthy"] == false
                }).await;
                turned(site, Reply::new(200)).await
            }),
        ),
        health_row(
            "cluster[].health.unhealthy_after",
            1.into(),
            100.into(),
            probe!(site => {
                site.blue.wait_for_requests(3).await;
                turned(site, Reply::new(503)).await
            }),
        ),
    ]);
    rows
}

/// Why the other colour is not rolled out.
async fn refusal(site: &Site) -> String {
    let start = "/v1/rollouts/app/start";
    site.hub.admin("POST", start, r#"{"stages": []}"#).await;
    site.until("the end of the rollout", async |site| {
        let (_, body) = site.hub.admin("GET", "/v1/rollouts", "").await;
        body["rollouts"][0]["over"] == true
    })
    .await;
    let (_, body) = site.hub.admin("GET", "/v1/rollouts", "").await;
    body["rollouts"][0]["why"].to_string()
}

async fn timed(site: &Site, path: &str) -> String {
    let mut wire = site.send(request(path, "")).await;
    answer_soon(&mut wire).await
}

async fn healthy(site: &Site) -> String {
    format!("healthy: {}", site.endpoint().await["healthy"])
}

/// Health after some checks with another outcome.
async fn turned(site: &Site, reply: Reply) -> String {
    site.blue.on("/healthz", reply);
    let so_far = site.blue.request_count();
    site.blue.wait_for_requests(so_far + 3).await;
    healthy(site).await
}

/// Whether two endpoints, one of which is held up, are still picked in turn.
async fn turns(site: &Site) -> String {
    site.blue.on("/", Behaviour::Echo);
    let _held = site.send(request("/hang", "")).await;
    soon(async {
        while site.blue.request_count() + site.green.request_count() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut colours = Vec::new();
    for _ in 0..16 {
        colours.push(site.colour("").await);
    }
    format!(
        "in turn: {}",
        colours.windows(2).all(|pair| pair[0] != pair[1])
    )
}
