//! The admin API and hubctl: who gets in, what they are told, and what nobody is told.

use hub_testkit::{
    ADMIN_TOKEN, Hub, Hubctl, Origin, Said, Signal, Wire, WireResponse, demo_config,
};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const JWT_SECRET: &str = "CANARY-jwt-secret-5b1f7c2e9a3d4f60";
const API_KEY: &str = "hub_CANARY0key0api0AAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// SHA-256 of [`API_KEY`], as its file holds it.
const API_KEYS: &str =
    "partner:loc_two:b868992edd70c68a8954da126f1a71dd8909ffc995408b37e53c1fec311cd6b2\n";
/// HS256 by [`JWT_SECRET`]; `sub` agent-1, `location_id` loc_one, `exp` in 2100.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZ2VudC0xIiwibG9jYXRpb25faWQiOiJsb2Nfb25lIiwiZXhwIjo0MTAyNDQ0ODAwfQ.tnx3COYbSrUj69nrXF8_eWYwbMRAzmh2vx_pVfJkzMI";
/// The same by another secret.
const FORGED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZ2VudC0xIiwibG9jYXRpb25faWQiOiJsb2Nfb25lIiwiZXhwIjo0MTAyNDQ0ODAwfQ.zGLSousF8ZoR3g5GYEbs3Jl-8_GYvStQoWZ-nvNSMD0";
/// The same by the right secret, with `exp` in 2001.
const EXPIRED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZ2VudC0xIiwibG9jYXRpb25faWQiOiJsb2Nfb25lIiwiZXhwIjoxMDAwMDAwMDAwfQ.CwThnNv3_kDsLXUAk-FtVZX2sJ_6716hH6HgNv7UzV4";

/// Every path that needs the token.
const GUARDED: &[(&str, &str)] = &[
    ("GET", "/v1/snapshot"),
    ("GET", "/v1/tenants"),
    ("GET", "/v1/tenants/loc_one"),
    ("GET", "/v1/clusters"),
    ("GET", "/v1/websockets"),
    ("POST", "/v1/websockets/close"),
    ("GET", "/v1/migrations"),
    ("GET", "/v1/migrations/app"),
    ("POST", "/v1/migrations/app/begin"),
    ("POST", "/v1/migrations/app/finish"),
    ("POST", "/v1/reload"),
    ("POST", "/v1/reload?dry_run=true"),
    ("POST", "/v1/explain"),
    ("GET", "/v1/explain/0192d3a0-0000-7000-8000-000000000000"),
];

/// What comes after the demo's route: routes with every kind of tenant and credential.
fn full_config(origin: &Origin) -> String {
    demo_config(origin.endpoint())
        .replace("prefix = \"/\"", "prefix = \"/app\"")
        .replace(
            "[access_log]",
            "audit_file = \"{dir}/audit.log\"\n\n[access_log]",
        )
        + &format!(
            r#"tenant = {{ sources = [{{ header = "x-location-id" }}, {{ query = "location" }}] }}

[[route]]
name = "open"
path = {{ prefix = "/open" }}
methods = ["GET", "POST"]
cluster = "app"

[[route]]
name = "beta"
path = {{ prefix = "/open" }}
methods = ["GET", "POST"]
headers = [{{ name = "x-beta", value = "1" }}]
cluster = "other"

[[route]]
name = "by-path"
path = {{ template = "/locations/{{location_id}}/contacts" }}
cluster = "app"
tenant = {{ sources = [{{ path = "location_id" }}] }}

[[route]]
name = "site"
hosts = ["*.site.test"]
path = {{ prefix = "/" }}
cluster = "app"
tenant = {{ sources = [{{ subdomain = "site.test" }}] }}

[[route]]
name = "agent"
path = {{ prefix = "/agent" }}
cluster = "app"
plugins = ["token"]
tenant = {{ sources = ["credential", {{ header = "x-location-id" }}] }}

[[route]]
name = "partner"
path = {{ prefix = "/partner" }}
cluster = "app"
plugins = ["key"]
tenant = {{ sources = ["credential"] }}

[[cluster]]
name = "other"
endpoints = {{ blue = ["{endpoint}"], green = ["{endpoint}"] }}

[[plugin]]
name = "token"
kind = "jwt"
[plugin.config]
any_audience = true
[[plugin.config.keys]]
algorithms = ["HS256"]
secret_file = "{{dir}}/jwt.secret"

[[plugin]]
name = "key"
kind = "api_key"
config.file = "{{dir}}/api.keys"

[[tenant]]
id = "loc_one"
slug = "one"
requests_per_second = 1000
in_flight_max = 9

[[tenant]]
id = "loc_two"
slug = "two"
routes = {{ all = "other" }}
colours = {{ other = "green" }}

[[tenant]]
id = "loc_off"
enabled = false
"#,
            endpoint = origin.endpoint()
        )
}

async fn full(origin: &Origin) -> Hub {
    full_with(&full_config(origin)).await
}

async fn full_with(config: &str) -> Hub {
    Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(config)
        .file("jwt.secret", JWT_SECRET)
        .file("api.keys", API_KEYS)
        .start()
        .await
}

async fn ask(hub: &Hub, request: &str) -> WireResponse {
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send(request).await;
    wire.read_response().await
}

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or("no code")
}

// Who gets in.

#[tokio::test]
async fn the_token_is_required_whole_and_once() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    let good = format!("Authorization: Bearer {ADMIN_TOKEN}\r\n");
    let short = &ADMIN_TOKEN[..ADMIN_TOKEN.len() - 1];
    let refused = [
        String::new(),
        "Authorization: Bearer wrong\r\n".into(),
        "Authorization: Bearer \r\n".into(),
        format!("Authorization: Bearer {short}\r\n"),
        format!("Authorization: Bearer {ADMIN_TOKEN}x\r\n"),
        format!("Authorization: Basic {ADMIN_TOKEN}\r\n"),
        format!("Authorization: {ADMIN_TOKEN}\r\n"),
        format!("{good}{good}"),
        format!("{good}Authorization: Bearer wrong\r\n"),
        format!("X-Token: {ADMIN_TOKEN}\r\n"),
    ];
    for (method, path) in GUARDED {
        for credential in &refused {
            let mut wire = Wire::connect(hub.admin_addr()).await;
            wire.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{credential}\r\n"
            ))
            .await;
            let answer = wire.read_response().await;
            assert_eq!(answer.status, 401, "{method} {path} with {credential:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert_eq!(code(&answer.json()), "unauthenticated");
        }
        let (status, body) = hub.admin(method, path, "").await;
        assert_ne!(status, 401, "{method} {path}: {body}");
    }
}

#[tokio::test]
async fn health_readiness_and_metrics_need_no_token() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    for (path, start) in [
        ("/healthz", "alive\n"),
        ("/readyz", "ready\n"),
        ("/metrics", "# HELP "),
    ] {
        let answer = hub.admin_request("GET", path, "", None).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            answer.text().starts_with(start),
            "{path}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn without_a_configured_token_only_the_open_paths_answer() {
    let origin = Origin::start().await;
    let config = demo_config(origin.endpoint()).replace("token_file = \"{dir}/admin.token\"\n", "");
    let hub = full_with(&config).await;
    for (method, path) in GUARDED {
        for token in [None, Some(""), Some(ADMIN_TOKEN)] {
            let answer = hub.admin_request(method, path, "", token).await;
            assert_eq!(answer.status, 403, "{method} {path}");
            assert_eq!(code(&answer.json()), "no_admin_token");
        }
    }
    assert_eq!(
        hub.admin_request("GET", "/readyz", "", None).await.status,
        200
    );
}

#[tokio::test]
async fn a_unix_socket_is_for_its_owner_alone() {
    let origin = Origin::start().await;
    let config = demo_config(origin.endpoint()).replacen("127.0.0.1:0", "unix:{dir}/admin.sock", 1);
    let hub = full_with(&config).await;
    let path = hub.dir().join("admin.sock");
    assert_eq!(hub.admin_endpoint(), format!("unix:{}", path.display()));
    let mode = std::fs::metadata(&path)
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    assert_eq!(hub.admin("GET", "/v1/snapshot", "").await.0, 200);
    assert_eq!(
        hub.admin_request("GET", "/v1/snapshot", "", None)
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn too_many_requests_are_told_to_wait() {
    let origin = Origin::start().await;
    let config = demo_config(origin.endpoint())
        .replace("requests_per_second = 10000", "requests_per_second = 1");
    let hub = full_with(&config).await;
    let mut wire = Wire::connect(hub.admin_addr()).await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        wire.send("GET /v1/snapshot HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        let answer = wire.read_response().await;
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert_eq!(code(&answer.json()), "admin_limited");
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[0], 401, "guessing a token is limited too");
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn who_says_nothing_holds_no_connection() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Wire::connect(hub.admin_addr()).await);
    }
    // More than there are places for: the rest waits, and is served once the first are closed.
    assert_eq!(hub.admin("GET", "/v1/snapshot", "").await.0, 200);
    for mut wire in silent {
        wire.wait_closed().await;
    }
}

// What they are told.

#[tokio::test]
async fn the_snapshot_is_what_is_in_force() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    let (status, body) = hub.admin("GET", "/v1/snapshot", "").await;
    assert_eq!(status, 200);
    assert_eq!(body["phase"], "serving");
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&body["routes"], &body["clusters"], &body["tenants"]),
        (&7.into(), &2.into(), &3.into())
    );
    assert!(
        body["hash"].as_str().is_some_and(|hash| hash.len() >= 16),
        "{body}"
    );
    assert!(
        body["age_seconds"].as_u64().is_some_and(|age| age < 60),
        "{body}"
    );
    let listener = &body["listeners"][0];
    assert_eq!(listener["name"], "public");
    assert_eq!(listener["address"], hub.addr("public").to_string());
    assert_eq!(listener["tls"], false);
    let _held = Wire::connect(hub.addr("public")).await;
    hub.wait_for_metric("hub_connections_opened_total", &[], |n| n == 1.0)
        .await;
    let (_, body) = hub.admin("GET", "/v1/snapshot", "").await;
    assert_eq!(body["listeners"][0]["connections"], 1);
}

#[tokio::test]
async fn tenants_are_listed_in_bounded_portions() {
    let origin = Origin::start().await;
    let lines: String = (0..1_250)
        .map(|n| {
            format!(
                "{{\"id\":\"{}_{n:04}\"}}\n",
                if n < 50 { "few" } else { "many" }
            )
        })
        .collect();
    let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&(demo_config(origin.endpoint())
            + "tenant = { sources = [{ header = \"x-location-id\" }] }\n[tenants]\ndirectory = \"{dir}/t.jsonl\"\n"))
        .file("t.jsonl", lines)
        .start()
        .await;
    for (query, shown, more) in [
        ("", 100, 1_150),
        ("?limit=7", 7, 1_243),
        ("?limit=1000", 1_000, 250),
        ("?prefix=few_", 50, 0),
        ("?prefix=few_&limit=20", 20, 30),
        ("?prefix=none", 0, 0),
        ("?prefix=FEW", 0, 0),
    ] {
        let (status, body) = hub.admin("GET", &format!("/v1/tenants{query}"), "").await;
        assert_eq!(status, 200, "{query}");
        assert_eq!(
            body["tenants"].as_array().map(Vec::len),
            Some(shown),
            "{query}"
        );
        assert_eq!(
            (&body["more"], &body["total"]),
            (&more.into(), &1_250.into()),
            "{query}"
        );
    }
    for query in [
        "?limit=0",
        "?limit=1001",
        "?limit=-1",
        "?limit=many",
        "?page=2",
    ] {
        let (status, body) = hub.admin("GET", &format!("/v1/tenants{query}"), "").await;
        assert_eq!((status, code(&body)), (400, "bad_query"), "{query}");
    }
}

#[tokio::test]
async fn a_tenant_is_shown_with_its_quota_and_traffic() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    ask(&hub, "POST /app HTTP/1.1\r\nHost: a.test\r\nX-Location-Id: loc_one\r\nContent-Length: 5\r\n\r\nhello").await;
    hub.wait_for_access_log(1).await;
    let (status, body) = hub.admin("GET", "/v1/tenants/loc_one", "").await;
    assert_eq!(status, 200);
    for (key, value) in [
        ("id", json!("loc_one")),
        ("slug", json!("one")),
        ("enabled", json!(true)),
        ("requests_per_second", json!(1000)),
        ("in_flight_max", json!(9)),
        ("in_flight", json!(0)),
        ("requests", json!(1)),
        ("limited", json!(0)),
        ("bytes_in", json!(5)),
    ] {
        assert_eq!(body[key], value, "{key} in {body:#}");
    }
    let (_, body) = hub.admin("GET", "/v1/tenants/loc_two", "").await;
    assert_eq!(body["colours"], json!({"other": "green"}));
    assert_eq!(body["routes"], json!({"all": "other"}));
    let (_, body) = hub.admin("GET", "/v1/tenants/loc_off", "").await;
    assert_eq!(body["enabled"], false);
    let (status, body) = hub.admin("GET", "/v1/tenants/loc_nowhere", "").await;
    assert_eq!((status, code(&body)), (404, "tenant_unknown"));
    let (status, body) = hub.admin("GET", "/v1/tenants/a%20b", "").await;
    assert_eq!((status, code(&body)), (400, "tenant_malformed"));
}

#[tokio::test]
async fn clusters_are_shown_with_their_endpoints() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    let (status, body) = hub.admin("GET", "/v1/clusters", "").await;
    assert_eq!(status, 200);
    let clusters = body["clusters"].as_array().expect("clusters");
    let names: Vec<_> = clusters.iter().map(|cluster| &cluster["name"]).collect();
    assert_eq!(names, ["app", "other"]);
    let endpoints = clusters[1]["endpoints"].as_array().expect("endpoints");
    assert_eq!(endpoints.len(), 2);
    for (endpoint, colour) in endpoints.iter().zip(["blue", "green"]) {
        assert_eq!(endpoint["colour"], colour);
        assert_eq!(endpoint["address"], origin.endpoint());
        assert_eq!(endpoint["healthy"], true);
        assert_eq!(endpoint["checked"], false, "no check is configured");
    }
}

// Mistakes at the door.

#[tokio::test]
async fn mistakes_get_an_error_that_says_what_to_do() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    let large = format!("{{\"path\":\"/{}\"}}", "x".repeat(70_000));
    for (method, path, body, status, wanted) in [
        ("POST", "/v1/explain", "", 400, "bad_body"),
        ("POST", "/v1/explain", "{", 400, "bad_body"),
        ("POST", "/v1/explain", "[]", 400, "bad_body"),
        ("POST", "/v1/explain", "{}", 400, "bad_body"),
        ("POST", "/v1/explain", "{\"path\":\"app\"}", 400, "bad_body"),
        (
            "POST",
            "/v1/explain",
            "{\"path\":\"/\",\"method\":\"A B\"}",
            400,
            "bad_body",
        ),
        (
            "POST",
            "/v1/explain",
            "{\"path\":\"/\",\"header\":[]}",
            400,
            "bad_body",
        ),
        (
            "POST",
            "/v1/explain",
            "{\"path\":\"/\",\"headers\":[[\"a\"]]}",
            400,
            "bad_body",
        ),
        (
            "POST",
            "/v1/explain",
            "{\"path\":\"/\",\"client\":\"here\"}",
            400,
            "bad_body",
        ),
        ("POST", "/v1/explain", &large, 413, "body_too_large"),
        ("POST", "/v1/reload?dry_run=maybe", "", 400, "bad_query"),
        ("POST", "/v1/reload?dryrun=true", "", 400, "bad_query"),
        ("GET", "/v1/explain/7", "", 400, "bad_request_id"),
        (
            "GET",
            "/v1/explain/0192d3a0-0000-7000-8000-000000000000",
            "",
            404,
            "not_remembered",
        ),
        ("GET", "/v1/reload", "", 405, "method_not_allowed"),
        (
            "DELETE",
            "/v1/tenants/loc_one",
            "",
            405,
            "method_not_allowed",
        ),
        ("POST", "/metrics", "", 405, "method_not_allowed"),
        ("GET", "/v2/snapshot", "", 404, "unknown_path"),
        ("GET", "/", "", 404, "unknown_path"),
    ] {
        let (got, answer) = hub.admin(method, path, body).await;
        let shown = &body[..body.len().min(60)];
        assert_eq!(
            (got, code(&answer)),
            (status, wanted),
            "{method} {path} {shown}: {answer}"
        );
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.len() > 10, "{method} {path}: {answer}");
    }
    assert_eq!(hub.metric("hub_config_reloads_total", &[]).await, 0.0);
}

// Explain.

/// Method, host, path and headers.
type Asked<'a> = (&'a str, &'a str, &'a str, Vec<(&'a str, String)>);

fn requests() -> Vec<Asked<'static>> {
    let location = |id: &str| vec![("X-Location-Id", id.to_owned())];
    let bearer = |token: &str| vec![("Authorization", format!("Bearer {token}"))];
    let and = |mut list: Vec<(&'static str, String)>, more: Vec<(&'static str, String)>| {
        list.extend(more);
        list
    };
    vec![
        // Forwarded.
        ("GET", "a.test", "/app", location("loc_one")),
        ("POST", "A.test:8080", "/app/x?y=z", location("loc_one")),
        ("GET", "a.test", "/app/overlay", location("loc_two")),
        ("GET", "a.test", "/app/./a//b", location("loc_one")),
        ("GET", "a.test", "/app/query?location=loc_one", vec![]),
        (
            "GET",
            "a.test",
            "/app/agree?location=loc_one",
            location("loc_one"),
        ),
        ("GET", "a.test", "/open", vec![]),
        ("GET", "a.test", "/open/beta", vec![("X-Beta", "1".into())]),
        (
            "GET",
            "a.test",
            "/open/not-beta",
            vec![("X-Beta", "2".into())],
        ),
        ("PUT", "a.test", "/locations/loc_one/contacts", vec![]),
        ("GET", "one.site.test", "/anything", vec![]),
        ("GET", "a.test", "/agent", bearer(TOKEN)),
        (
            "GET",
            "a.test",
            "/agent/agree",
            and(bearer(TOKEN), location("loc_one")),
        ),
        (
            "GET",
            "a.test",
            "/partner",
            vec![("X-Api-Key", API_KEY.into())],
        ),
        // Refused: accept.
        ("TRACE", "a.test", "/open", vec![]),
        ("GET", "a.test", "/open/%2f", vec![]),
        ("GET", "a.test", "/open/../app", vec![]),
        ("GET", "a.test", "/open;v=1/x", vec![]),
        ("GET", "a_b..test", "/open", vec![]),
        (
            "GET",
            "a.test",
            "/app",
            vec![("X_Location_Id", "loc_one".into())],
        ),
        // Route.
        ("GET", "a.test", "/nowhere", vec![]),
        ("DELETE", "a.test", "/open", vec![]),
        // Identify.
        ("GET", "a.test", "/agent", vec![]),
        ("GET", "a.test", "/agent", bearer(FORGED)),
        ("GET", "a.test", "/agent", bearer(EXPIRED)),
        ("GET", "a.test", "/agent", bearer("not.a.token")),
        (
            "GET",
            "a.test",
            "/partner",
            vec![("X-Api-Key", format!("{API_KEY}x"))],
        ),
        ("GET", "a.test", "/partner", vec![]),
        // Tenant.
        ("GET", "a.test", "/app", vec![]),
        ("GET", "a.test", "/app", location("loc_nowhere")),
        ("GET", "a.test", "/app", location("loc_off")),
        ("GET", "a.test", "/app", location("a b")),
        (
            "GET",
            "a.test",
            "/app?location=loc_two",
            location("loc_one"),
        ),
        (
            "GET",
            "a.test",
            "/app",
            and(location("loc_one"), location("loc_two")),
        ),
        (
            "GET",
            "a.test",
            "/agent",
            and(bearer(TOKEN), location("loc_two")),
        ),
        ("GET", "two.one.site.test", "/", vec![]),
        ("GET", "nobody.site.test", "/", vec![]),
        ("GET", "a.test", "/locations/loc_nowhere/contacts", vec![]),
    ]
}

fn question((method, host, path, headers): &Asked<'_>) -> String {
    json!({"method": method, "host": host, "path": path, "headers": headers}).to_string()
}

fn request((method, host, path, headers): &Asked<'_>) -> String {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn explain_says_what_then_happens() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    let requests = requests();
    let mut stages = std::collections::BTreeMap::<String, usize>::new();
    for (index, asked) in requests.iter().enumerate() {
        let (status, told) = hub.admin("POST", "/v1/explain", &question(asked)).await;
        assert_eq!(status, 200, "{asked:?}: {told}");
        let answer = ask(&hub, &request(asked)).await;
        let line = hub.wait_for_access_log(index + 1).await.remove(index);
        if told["verdict"] == "forward" {
            assert_eq!(
                answer.status,
                200,
                "{asked:?}: {told:#} but {}",
                answer.raw_text()
            );
            for key in ["route", "tenant", "cluster", "colour"] {
                assert_eq!(told[key], line[key], "{key} of {asked:?}");
            }
            assert_eq!(
                told["endpoints"][0]["address"], line["endpoint"],
                "{asked:?}"
            );
        } else {
            let refusal = &told["refusal"];
            assert_eq!(told["verdict"], "refused");
            assert_eq!(refusal["status"], answer.status, "{asked:?}: {told:#}");
            assert_eq!(refusal["code"], answer.json()["error"]["code"], "{asked:?}");
            assert_eq!(refusal["code"], line["reason"], "{asked:?}");
        }
        let stage = told["stage"].as_str().unwrap_or("forward");
        *stages.entry(stage.to_owned()).or_default() += 1;
    }
    println!("{} requests: {stages:?}", requests.len());
    for stage in ["forward", "accept", "route", "identify", "tenant"] {
        assert!(stages.contains_key(stage), "{stage} in {stages:?}");
    }
    // Asking is not sending.
    let forwarded = stages["forward"];
    assert_eq!(origin.request_count(), forwarded);
}

#[tokio::test]
async fn explain_shows_identity_limits_and_what_the_path_became() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    let asked = (
        "GET",
        "a.test",
        "/agent/./x",
        vec![("Authorization", format!("Bearer {TOKEN}"))],
    );
    let (_, told) = hub.admin("POST", "/v1/explain", &question(&asked)).await;
    assert_eq!(
        told["path"],
        json!({"raw": "/agent/./x", "matched_on": "/agent/x"})
    );
    assert_eq!(told["identity"]["subject"], "agent-1");
    assert_eq!(told["identity"]["tenant"], "loc_one");
    assert_eq!(told["limits"]["tenant"]["requests_per_second"], 1000);
    assert_eq!(told["limits"]["tenant"]["in_flight_max"], 9);
    let (_, snapshot) = hub.admin("GET", "/v1/snapshot", "").await;
    assert_eq!(told["snapshot"]["hash"], snapshot["hash"]);
}

#[tokio::test]
async fn a_past_refusal_is_explained_by_its_request_id() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    let answer = ask(
        &hub,
        "GET /app HTTP/1.1\r\nHost: a.test\r\nX-Location-Id: loc_nowhere\r\n\r\n",
    )
    .await;
    let id = answer.json()["error"]["request_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(answer.header("x-request-id"), Some(id.as_str()));
    let (status, told) = hub.admin("GET", &format!("/v1/explain/{id}"), "").await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(told["request_id"], id);
    assert_eq!(told["refusal"]["code"], "tenant_unknown");
    assert_eq!(told["refusal"]["status"], 404);
    assert_eq!(told["route"], "all");
    assert_eq!(told["client"], "127.0.0.1");
    // One that never became a request, too.
    let answer = ask(&hub, "GET /app HTTP/1.1\r\nHost: a b\r\n\r\n").await;
    let id = answer.json()["error"]["request_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let (status, told) = hub.admin("GET", &format!("/v1/explain/{id}"), "").await;
    assert_eq!(
        (status, &told["refusal"]["code"]),
        (200, &json!("bad_host")),
        "{told}"
    );
}

#[tokio::test]
async fn fetches_of_keys_are_counted_by_plugin() {
    let origin = Origin::start().await;
    let config = full_config(&origin)
        + "\n[[plugin]]\nname = \"remote\"\nkind = \"jwt\"\nconfig = { any_audience = true, jwks = { url = \"http://127.0.0.1:1/keys\" } }\n\n[[route]]\nname = \"remote\"\npath = { exact = \"/remote\" }\ncluster = \"app\"\nplugins = [\"remote\"]\n";
    let hub = full_with(&config).await;
    let labels = [("plugin", "remote"), ("outcome", "failed")];
    hub.wait_for_metric("hub_jwks_fetches_total", &labels, |count| count >= 1.0)
        .await;
}

// The trail.

#[tokio::test]
async fn every_change_asked_for_leaves_an_audit_line() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    hub.admin("POST", "/v1/reload?dry_run=true", "").await;
    hub.reload().await;
    hub.write_config("nonsense");
    hub.reload().await;
    hub.admin_request("POST", "/v1/reload", "", Some("wrong"))
        .await;
    hub.admin("GET", "/v1/snapshot", "").await;
    let text = std::fs::read_to_string(hub.dir().join("audit.log")).expect("the audit file");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["action"].as_str(), line["detail"]["outcome"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Some("reload_dry_run"), Some("would_apply")),
            (Some("reload"), Some("unchanged")),
            (Some("reload"), Some("rejected")),
        ]
    );
    for line in &lines {
        assert_eq!(line["caller"], "admin");
        assert!(
            line["at_unix_seconds"]
                .as_u64()
                .is_some_and(|at| at > 1_700_000_000)
        );
    }
}

#[tokio::test]
async fn the_trail_follows_the_configuration_in_force() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    hub.write_config(&full_config(&origin).replace("audit.log", "moved.log"));
    hub.reload().await;
    let moved = hub.dir().join("moved.log");
    let text = std::fs::read_to_string(&moved).expect("the audit file");
    assert!(text.contains("applied"), "{text}");
    let mode = std::fs::metadata(&moved)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}");
    assert!(!hub.dir().join("audit.log").exists());
}

#[tokio::test]
async fn a_change_is_audited_though_its_caller_hung_up() {
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    hub.write_config(&full_config(&origin).replace("in_flight_max = 9", "in_flight_max = 8"));
    let mut wire = Wire::connect(hub.admin_addr()).await;
    wire.send(format!(
        "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
    ))
    .await;
    drop(wire);
    hub.wait_for_metric("hub_config_reloads_total", &[("outcome", "applied")], |n| {
        n == 1.0
    })
    .await;
    let text = std::fs::read_to_string(hub.dir().join("audit.log")).expect("the audit file");
    assert!(text.contains("applied"), "{text}");
}

// What nobody is told.

#[tokio::test]
async fn no_secret_is_in_anything_that_the_gateway_says() {
    let origin = Origin::start().await;
    let config = full_config(&origin).replace("[gateway]", "[gateway]\nlog_level = \"debug\"");
    let hub = full_with(&config).await;
    let mut said = Vec::new();
    for asked in requests() {
        said.push(
            hub.admin("POST", "/v1/explain", &question(&asked))
                .await
                .1
                .to_string(),
        );
        said.push(ask(&hub, &request(&asked)).await.text());
    }
    // An origin's echo shows the client its own credential; all else is the gateway's.
    said.retain(|text| !text.contains("\"body_sha256\""));
    hub.admin_request("GET", "/v1/snapshot", "", Some("CANARY-wrong-token"))
        .await;
    // New secrets by reload, then bad ones.
    hub.write_file("jwt.secret", &format!("{JWT_SECRET}-CANARY-next"));
    said.push(
        hub.admin("POST", "/v1/reload?dry_run=true", "")
            .await
            .1
            .to_string(),
    );
    said.push(hub.reload().await.1.to_string());
    hub.write_file("jwt.secret", "CANARY-short");
    hub.write_file("api.keys", &format!("CANARY line {API_KEY}\n"));
    hub.write_file("admin.token", "CANARY-short");
    let (status, body) = hub.reload().await;
    assert_eq!(status, 422, "{body}");
    said.push(body.to_string());
    hub.signal(Signal::HUP);
    hub.wait_for_metric(
        "hub_config_reloads_total",
        &[("outcome", "rejected")],
        |n| n == 2.0,
    )
    .await;
    let check = Command::new(env!("CARGO_BIN_EXE_hub-gateway"))
        .arg("check")
        .arg(hub.config_path())
        .output()
        .expect("check runs");
    assert_eq!(check.status.code(), Some(64));
    said.extend(
        [check.stdout, check.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()),
    );
    for path in ["/v1/snapshot", "/v1/tenants", "/v1/clusters"] {
        said.push(hub.admin("GET", path, "").await.1.to_string());
    }
    said.push(hub.metrics().await);
    said.push(std::fs::read_to_string(hub.dir().join("audit.log")).expect("the audit file"));
    said.push(std::fs::read_to_string(hub.dir().join("access.log")).expect("the access log"));
    let (stdout, stderr) = (hub.stdout(), hub.stderr());
    assert!(stderr.contains("rejected"), "the log was read");
    said.extend([stdout, stderr]);
    let signature = TOKEN.rsplit('.').next().unwrap_or_default();
    for text in &said {
        for canary in ["CANARY", ADMIN_TOKEN, JWT_SECRET, API_KEY, signature] {
            assert!(!text.contains(canary), "{canary} in {text}");
        }
    }
}

// hubctl.

fn hubctl() -> Option<Hubctl> {
    Hubctl::beside(Path::new(env!("CARGO_BIN_EXE_hub-gateway")))
}

#[tokio::test]
async fn hubctl_shows_the_gateway_as_text() {
    let Some(hubctl) = hubctl() else {
        return;
    };
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    let run = |arguments: &[&str]| {
        let said = hubctl.run(&hub, arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
        said.stdout
    };
    let status = run(&["status"]);
    assert!(
        status.starts_with("serving, 0 requests in flight"),
        "{status}"
    );
    for part in [
        "7 routes, 2 clusters, 3 tenants",
        "LISTENER",
        &hub.addr("public").to_string(),
    ] {
        assert!(status.contains(part), "{part} in {status}");
    }
    let tenants = run(&["tenants"]);
    assert_eq!(tenants.lines().count(), 4, "{tenants}");
    assert!(tenants.starts_with("TENANT"), "{tenants}");
    let one = run(&["tenants", "--prefix", "loc_", "--limit", "1"]);
    assert!(one.contains("and 2 more"), "{one}");
    assert!(run(&["tenants", "loc_two"]).contains("slug: two"));
    let clusters = run(&["clusters"]);
    for part in [
        "CLUSTER",
        "blue (active)",
        "green",
        &origin.endpoint(),
        "unchecked",
    ] {
        assert!(clusters.contains(part), "{part} in {clusters}");
    }
    let explained = run(&[
        "explain",
        "/app",
        "-H",
        "X-Location-Id: loc_two",
        "--host",
        "a.test",
    ]);
    for part in [
        "verdict: forward",
        "tenant: loc_two",
        "cluster: other",
        "colour: green",
    ] {
        assert!(explained.contains(part), "{part} in {explained}");
    }
    let refused = run(&["explain", "/app", "-X", "POST"]);
    for part in ["verdict: refused", "stage: tenant", "code: tenant_missing"] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    let answer = ask(&hub, "GET /nowhere HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let past = run(&["explain", answer.header("x-request-id").expect("an id")]);
    assert!(past.contains("code: no_route"), "{past}");
    let json: Value = serde_json::from_str(&run(&["--json", "status"])).expect("JSON");
    assert_eq!(json["phase"], "serving");
}

#[tokio::test]
async fn hubctl_reload_exits_by_the_outcome() {
    let Some(hubctl) = hubctl() else {
        return;
    };
    let origin = Origin::start().await;
    let hub = full(&origin).await;
    let token = hub.dir().join("admin.token");
    let run = |arguments: &[&str]| {
        let Said {
            code,
            stdout,
            stderr,
        } = hubctl.run(&hub, arguments);
        (code, stdout, stderr)
    };
    let (code, stdout, _) = run(&["reload"]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("unchanged"), "{stdout}");
    let config = full_config(&origin);
    hub.write_config(&config.replace("in_flight_max = 9", "in_flight_max = 8"));
    let (code, stdout, _) = run(&["reload", "--dry-run"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.starts_with("a reload would apply") && stdout.contains("loc_one"),
        "{stdout}"
    );
    let (code, stdout, _) = run(&["reload"]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("applied: snapshot"), "{stdout}");
    hub.write_config(&config.replace("in_flight_max = 9", "in_flight = 8\nburst = 0"));
    let (code, stdout, _) = run(&["reload"]);
    assert_eq!(code, Some(1));
    assert!(
        stdout.starts_with("rejected; the old configuration stays in force"),
        "{stdout}"
    );
    assert!(
        stdout.contains("in_flight") && stdout.contains("burst"),
        "{stdout}"
    );
    hub.write_config(&config.replace("\"public\"", "\"renamed\""));
    for arguments in [&["reload", "--dry-run"][..], &["reload"]] {
        let (code, stdout, _) = run(arguments);
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(
            stdout.contains("needs_upgrade") && stdout.contains("public"),
            "{stdout}"
        );
    }
    // Failures of hubctl's own are another code.
    std::fs::write(hub.dir().join("wrong"), "wrong").expect("write");
    let named = Command::new(hubctl.path())
        .args(["--token-file", token.to_str().expect("text"), "status"])
        .env("HUB_ADMIN_TOKEN", "wrong")
        .env("HUB_ADMIN", hub.admin_endpoint())
        .output()
        .expect("hubctl runs");
    assert!(named.status.success(), "the file that was asked for counts");
    let wrong = hubctl.run_with(&hub, &hub.dir().join("wrong"), &["status"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("unauthenticated"), "{}", wrong.stderr);
    let (code, _, stderr) = run(&["--admin", "127.0.0.1:1", "status"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("127.0.0.1:1"), "{stderr}");
    let (code, _, stderr) = run(&["tenants", "loc_nowhere"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("tenant_unknown"), "{stderr}");
}
