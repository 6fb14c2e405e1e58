//! Which origin gets a request, and what the client is told when that origin is slow, gone or wrong.

use hub_testkit::{Behaviour, Ca, Gate, Hub, Origin, Reply, Wire, WireResponse, demo_config};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

async fn start(config: &str) -> Hub {
    Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(config)
        .start()
        .await
}

/// Configuration with one cluster, described by this, and one route to it.
fn with_cluster(endpoints: &str, settings: &str) -> String {
    demo_config("127.0.0.1:1").replace(
        "endpoints = { blue = [\"127.0.0.1:1\"] }\n",
        &format!("endpoints = {{ {endpoints} }}\n{settings}"),
    )
}

fn blue(endpoints: &[&dyn std::fmt::Display]) -> String {
    let list: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    format!("blue = [{}]", list.join(", "))
}

async fn ask(hub: &Hub, request: &str) -> WireResponse {
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send(request).await;
    wire.read_response().await
}

async fn get(hub: &Hub, path: &str) -> WireResponse {
    ask(hub, &format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await
}

fn code(answer: &WireResponse) -> (u16, String) {
    let json = answer.json();
    (
        answer.status,
        json["error"]["code"].as_str().unwrap_or_default().into(),
    )
}

/// An address that refuses connections: it was free a moment ago.
async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("it is bound")
}

async fn coloured(colour: &str) -> Origin {
    Origin::builder().colour(colour).start().await
}

#[tokio::test]
async fn routes_match_host_path_method_and_header_in_their_precedence() {
    let origin = Origin::start().await;
    let route = |name: &str, rest: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\ncluster = \"app\"\nplugins = [\"{name}\"]\n{rest}\n[[plugin]]\nname = \"{name}\"\nkind = \"headers\"\nconfig = {{ response = {{ set = {{ \"X-Route\" = \"{name}\" }} }} }}\n"
        )
    };
    let config = demo_config(origin.endpoint())
        + &route("host", "hosts = [\"api.test\"]\npath = { prefix = \"/\" }")
        + &route(
            "wildcard",
            "hosts = [\"*.api.test\"]\npath = { prefix = \"/\" }",
        )
        + &route("prefix", "path = { prefix = \"/api\" }")
        + &route("exact", "path = { exact = \"/api/v1\" }")
        + &route("template", "path = { template = \"/api/{id}/notes\" }")
        + &route("post", "path = { prefix = \"/api\" }\nmethods = [\"POST\"]")
        + &route(
            "beta",
            "path = { prefix = \"/api\" }\nheaders = [{ name = \"X-Beta\", value = \"yes\" }]",
        )
        + &route(
            "puts",
            "path = { exact = \"/puts\" }\nmethods = [\"PUT\"]\nhosts = [\"puts.test\"]",
        );
    let hub = start(&config).await;
    for (line, host, header, expected) in [
        ("GET /", "api.test", "", Some("host")),
        ("GET /api/v1", "API.test:80", "", Some("host")),
        ("GET /", "x.api.test", "", Some("wildcard")),
        ("GET /api", "a.test", "", Some("prefix")),
        ("GET /api/x/y", "a.test", "", Some("prefix")),
        ("GET /apix", "a.test", "", None),
        ("GET /api/v1", "a.test", "", Some("exact")),
        ("GET /api/v1?x=1", "a.test", "", Some("exact")),
        ("GET /api/7/notes", "a.test", "", Some("template")),
        ("GET /api/7/notes/8", "a.test", "", Some("prefix")),
        ("GET /./api//v1", "a.test", "", Some("exact")),
        ("POST /api", "a.test", "", Some("post")),
        ("GET /api", "a.test", "x-beta: yes\r\n", Some("beta")),
        ("GET /api", "a.test", "x-beta: no\r\n", Some("prefix")),
        ("POST /api", "a.test", "x-beta: yes\r\n", Some("post")),
        ("PUT /puts", "puts.test", "", Some("puts")),
    ] {
        let answer = ask(
            &hub,
            &format!("{line} HTTP/1.1\r\nHost: {host}\r\n{header}\r\n"),
        )
        .await;
        assert_eq!(answer.status, 200, "{line} {host}");
        assert_eq!(answer.header("x-route"), expected, "{line} {host} {header}");
    }
}

#[tokio::test]
async fn what_no_route_matches_is_404_and_a_wrong_method_is_405() {
    let origin = Origin::start().await;
    let config = demo_config(origin.endpoint()).replace(
        "path = { prefix = \"/\" }",
        "path = { exact = \"/only\" }\nmethods = [\"PUT\", \"GET\"]",
    );
    let hub = start(&config).await;
    assert_eq!(code(&get(&hub, "/other").await), (404, "no_route".into()));
    let answer = ask(&hub, "DELETE /only HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(code(&answer), (405, "method_not_allowed".into()));
    assert_eq!(answer.header("allow"), Some("GET, PUT"));
    assert_eq!(origin.request_count(), 0);
}

#[tokio::test]
async fn round_robin_gives_each_endpoint_the_same() {
    let origins = [
        coloured("one").await,
        coloured("two").await,
        coloured("three").await,
    ];
    let list = blue(&[
        &origins[0].endpoint(),
        &origins[1].endpoint(),
        &origins[2].endpoint(),
    ]);
    let hub = start(&with_cluster(&list, "balance = \"round_robin\"\n")).await;
    for _ in 0..30 {
        assert_eq!(get(&hub, "/").await.status, 200);
    }
    assert_eq!(origins.each_ref().map(Origin::request_count), [10, 10, 10]);
}

#[tokio::test]
async fn a_refused_connection_is_tried_on_another_endpoint_even_for_post() {
    let origin = Origin::start().await;
    let dead = refusing().await;
    let hub = start(&with_cluster(
        &blue(&[&dead, &origin.endpoint()]),
        "balance = \"round_robin\"\n",
    ))
    .await;
    for _ in 0..4 {
        let answer = ask(
            &hub,
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nonce",
        )
        .await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["body"], "once");
    }
    assert_eq!(origin.request_count(), 4);
    let retries = hub
        .metric("hub_upstream_retries_total", &[("cluster", "app")])
        .await;
    assert!((1.0..=4.0).contains(&retries), "{retries}");
    hub.wait_for_log_line(|line| line["retries"] == 1).await;
}

#[tokio::test]
async fn a_cluster_without_a_living_endpoint_answers_502_after_one_retry() {
    let (one, two) = (refusing().await, refusing().await);
    let hub = start(&with_cluster(&blue(&[&one, &two]), "")).await;
    let answer = get(&hub, "/").await;
    assert_eq!(code(&answer), (502, "connect_failed".into()));
    let line = hub.wait_for_access_log(1).await.remove(0);
    assert_eq!(line["reason"], "connect_failed");
    assert_eq!(line["retries"], 1);
    hub.wait_for_metric(
        "hub_refusals_total",
        &[("reason", "connect_failed")],
        |count| count == 1.0,
    )
    .await;
}

#[tokio::test]
async fn no_retry_means_no_retry() {
    let (one, two) = (refusing().await, refusing().await);
    let hub = start(&with_cluster(&blue(&[&one, &two]), "connect_retries = 0\n")).await;
    assert_eq!(code(&get(&hub, "/").await), (502, "connect_failed".into()));
    let line = hub.wait_for_access_log(1).await.remove(0);
    assert_eq!(line["retries"], 0);
}

#[tokio::test]
async fn a_connection_that_is_not_accepted_in_time_is_504_connect_timeout() {
    // TLS is part of connecting: this listener never answers the hello.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ca = Ca::new("upstream authority").write(dir.path());
    let hub = start(&with_cluster(
        &blue(&[&address]),
        &format!(
            "connect_timeout_ms = 60\nconnect_retries = 0\ntls = {{ server_name = \"app.test\", ca_file = \"{}\" }}\n",
            ca.display()
        ),
    ))
    .await;
    assert_eq!(code(&get(&hub, "/").await), (504, "connect_timeout".into()));
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_504() {
    for (settings, reason) in [
        ("first_byte_timeout_ms = 60\n", "upstream_timeout"),
        ("total_timeout_ms = 60\n", "total_timeout"),
        (
            "first_byte_timeout_ms = 5000\ntotal_timeout_ms = 60\n",
            "total_timeout",
        ),
    ] {
        let origin = Origin::builder().respond(Behaviour::Hang).start().await;
        let config = with_cluster(&blue(&[&origin.endpoint()]), settings) + "websocket = {}\n";
        let hub = start(&config).await;
        for request in [
            "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            HANDSHAKE,
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi",
        ] {
            let answer = ask(&hub, request).await;
            assert_eq!(code(&answer), (504, reason.into()), "{request:?}");
        }
        origin.wait_for_open_connections(0).await;
        assert_eq!(
            origin.request_count(),
            3,
            "a slow request is not sent again"
        );
        let log = hub.wait_for_access_log(3).await;
        assert!(log.iter().all(|line| line["reason"] == reason), "{log:#?}");
    }
}

#[tokio::test]
async fn a_slow_request_body_does_not_use_up_the_first_byte_timeout() {
    let origin = Origin::start().await;
    let hub = start(&with_cluster(
        &blue(&[&origin.endpoint()]),
        "first_byte_timeout_ms = 150\n",
    ))
    .await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nab")
        .await;
    origin.wait_for_requests(1).await;
    // Longer than the timeout; only time itself can pass here.
    tokio::time::sleep(Duration::from_millis(250)).await;
    wire.send("cd").await;
    assert_eq!(wire.read_response().await.json()["body"], "abcd");
    // Nor does the endpoint count as slow for it.
    let line = hub.wait_for_access_log(1).await.remove(0);
    assert!(line["upstream_us"].as_u64() < Some(200_000), "{line}");
}

#[tokio::test]
async fn an_answer_that_stalls_longer_than_the_idle_timeout_is_cut_off() {
    let (feed, reply) = Reply::fed(200);
    let origin = Origin::builder().respond(reply).start().await;
    let hub = start(&with_cluster(
        &blue(&[&origin.endpoint()]),
        "first_byte_timeout_ms = 80\nidle_timeout_ms = 80\n",
    ))
    .await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(wire.read_head().await.status, 200);
    assert!(feed.send("first").await);
    assert_eq!(
        wire.read_chunk().await.as_deref(),
        Some(b"first".as_slice())
    );
    let rest = wire.read_to_close().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "looks whole");
    let line = hub.wait_for_access_log(1).await.remove(0);
    assert_eq!(line["reason"], "upstream_timeout");
    origin.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn an_upload_to_an_upstream_that_reads_nothing_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let accepted = tokio::spawn(async move { listener.accept().await });
    let config = with_cluster(
        &blue(&[&address]),
        "first_byte_timeout_ms = 100\nidle_timeout_ms = 100\n",
    )
    .replace(
        "cluster = \"app\"",
        "cluster = \"app\"\nbody_bytes_max = 268435456",
    );
    let hub = start(&config).await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 268435456\r\n\r\n")
        .await;
    let piece = vec![b'x'; 1 << 20];
    // More than all buffers hold; the gateway hangs up at some point.
    for _ in 0..256 {
        if wire.try_send(&piece).await.is_err() {
            break;
        }
    }
    let line = hub.wait_for_access_log(1).await.remove(0);
    assert_eq!(line["reason"], "upstream_timeout", "{line}");
    drop(accepted.await);
}

#[tokio::test]
async fn a_websocket_ends_at_its_route_s_idle_timeout_and_that_is_no_refusal() {
    let origin = Origin::builder()
        .respond(Behaviour::WebSocket)
        .start()
        .await;
    let config = with_cluster(
        &blue(&[&origin.endpoint()]),
        "first_byte_timeout_ms = 100\nidle_timeout_ms = 100\n",
    );
    let config = config + "websocket = { idle_timeout_ms = 300 }\n";
    let hub = start(&config).await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send(HANDSHAKE).await;
    assert_eq!(wire.read_head().await.status, 101);
    wire.read_to_close().await;
    let line = hub.wait_for_access_log(1).await.remove(0);
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&101.into(), &serde_json::Value::Null)
    );
    assert_eq!(hub.metric("hub_refusals_total", &[]).await, 0.0);
    origin.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn an_endpoint_that_says_it_cannot_serve_does_not_draw_the_traffic() {
    let good = Origin::start().await;
    let bad = Origin::builder().respond(Reply::new(503)).start().await;
    let hub = start(&with_cluster(
        &blue(&[&good.endpoint(), &bad.endpoint()]),
        "",
    ))
    .await;
    for _ in 0..60 {
        get(&hub, "/").await;
    }
    let (served, failed) = (good.request_count(), bad.request_count());
    assert!(failed < 6, "{failed} of 60 failed, {served} were served");
}

#[tokio::test]
async fn a_body_that_is_sent_again_on_a_new_connection_is_counted_once() {
    let origin = Origin::builder().on("/put", Behaviour::Close).start().await;
    let config = with_cluster(&blue(&[&origin.endpoint()]), "") + "body_bytes_max = 65536\n";
    let hub = start(&config).await;
    assert_eq!(get(&hub, "/").await.status, 200);
    let body = "x".repeat(40_000);
    let answer = ask(
        &hub,
        &format!("PUT /put HTTP/1.1\r\nHost: a.test\r\nContent-Length: 40000\r\n\r\n{body}"),
    )
    .await;
    // The kept connection ends under it, then the new one; twice the body would be too large.
    assert_eq!(code(&answer), (502, "upstream_failed".into()));
    assert_eq!(origin.request_count(), 3);
    let line = hub.wait_for_access_log(2).await.remove(1);
    assert_eq!(
        (&line["bytes_in"], &line["retries"]),
        (&40_000.into(), &1.into())
    );
}

#[tokio::test]
async fn a_post_on_a_reused_connection_that_breaks_is_not_run_twice() {
    let origin = Origin::builder()
        .on("/break", Behaviour::Close)
        .on("/reset", Behaviour::Reset)
        .start()
        .await;
    let hub = start(&with_cluster(&blue(&[&origin.endpoint()]), "")).await;
    for path in ["/break", "/reset"] {
        assert_eq!(get(&hub, "/").await.status, 200);
        let before = origin.request_count();
        let answer = ask(
            &hub,
            &format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nonce"),
        )
        .await;
        assert_eq!(code(&answer), (502, "upstream_failed".into()), "{path}");
        assert_eq!(origin.request_count(), before + 1, "{path}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_502() {
    let origin = Origin::builder()
        .on("/garbage", Behaviour::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"))
        .on("/nothing", Behaviour::Close)
        .on("/half", Behaviour::raw("HTTP/1.1 200 OK\r\nContent-Le"))
        .start()
        .await;
    let hub = start(&with_cluster(&blue(&[&origin.endpoint()]), "")).await;
    for path in ["/garbage", "/nothing", "/half"] {
        let answer = get(&hub, path).await;
        assert_eq!(code(&answer), (502, "upstream_failed".into()), "{path}");
    }
}

#[tokio::test]
async fn http_checks_take_an_endpoint_out_and_bring_it_back() {
    let good = coloured("good").await;
    let flaky = coloured("flaky").await;
    good.on("/healthz", Reply::new(200));
    flaky.on("/healthz", Reply::new(200));
    let endpoint = flaky.endpoint();
    let hub = start(&with_cluster(
        &blue(&[&good.endpoint(), &endpoint]),
        "balance = \"round_robin\"\nhealth = { kind = \"http\", interval_ms = 20, timeout_ms = 20, unhealthy_after = 2, healthy_after = 2 }\n",
    ))
    .await;
    let labels = [("endpoint", endpoint.as_str())];
    hub.wait_for_metric("hub_endpoint_healthy", &labels, |v| v == 1.0)
        .await;
    flaky.on("/healthz", Reply::new(500));
    hub.wait_for_metric("hub_endpoint_healthy", &labels, |v| v == 0.0)
        .await;
    for _ in 0..10 {
        assert_eq!(get(&hub, "/").await.json()["colour"], "good");
    }
    flaky.on("/healthz", Reply::new(200));
    hub.wait_for_metric("hub_endpoint_healthy", &labels, |v| v == 1.0)
        .await;
    let mut colours = Vec::new();
    for _ in 0..4 {
        colours.push(get(&hub, "/").await.json()["colour"].clone());
    }
    assert!(colours.contains(&"flaky".into()), "{colours:?}");
}

#[tokio::test]
async fn tcp_checks_notice_an_origin_that_goes_and_comes_back() {
    let origin = Origin::start().await;
    let address = origin.addr();
    let endpoint = origin.endpoint();
    let hub = start(&with_cluster(
        &blue(&[&endpoint]),
        "health = { kind = \"tcp\", interval_ms = 20, timeout_ms = 20, unhealthy_after = 2, healthy_after = 1 }\n",
    ))
    .await;
    let labels = [("endpoint", endpoint.as_str())];
    hub.wait_for_metric("hub_endpoint_healthy", &labels, |v| v == 1.0)
        .await;
    assert_eq!(get(&hub, "/").await.status, 200);
    origin.stop().await;
    hub.wait_for_metric("hub_endpoint_healthy", &labels, |v| v == 0.0)
        .await;
    let _back = Origin::builder().at(address).start().await;
    hub.wait_for_metric("hub_endpoint_healthy", &labels, |v| v == 1.0)
        .await;
    assert_eq!(get(&hub, "/").await.status, 200);
}

#[tokio::test]
async fn an_ipv6_endpoint_is_reached() {
    let Ok(probe) = TcpListener::bind("[::1]:0").await else {
        println!("this machine has no ::1; nothing to test");
        return;
    };
    let address = probe.local_addr().expect("it is bound");
    drop(probe);
    let origin = Origin::builder().at(address).start().await;
    let hub = start(&with_cluster(&blue(&[&origin.endpoint()]), "")).await;
    assert_eq!(get(&hub, "/").await.status, 200);
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn a_unix_socket_is_reached() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let origin = Origin::builder()
        .unix(dir.path().join("app.sock"))
        .start()
        .await;
    let hub = start(&with_cluster(&blue(&[&origin.endpoint()]), "")).await;
    for _ in 0..3 {
        assert_eq!(get(&hub, "/").await.status, 200);
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn tls_to_an_upstream_demands_its_name_and_its_authority() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ca = Ca::new("upstream authority");
    let file = ca.write(dir.path());
    let other = tempfile::tempdir().expect("a temporary directory");
    let stranger = Ca::new("a stranger").write(other.path());
    let origin = Origin::builder()
        .tls(ca.issue(&["app.test"]).server_config(&[]))
        .start()
        .await;
    for (name, file, status) in [
        ("app.test", &file, 200),
        ("other.test", &file, 502),
        ("app.test", &stranger, 502),
    ] {
        let hub = start(&with_cluster(
            &blue(&[&origin.endpoint()]),
            &format!(
                "tls = {{ server_name = \"{name}\", ca_file = \"{}\" }}\n",
                file.display()
            ),
        ))
        .await;
        let answer = get(&hub, "/").await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        if status == 502 {
            assert_eq!(code(&answer).1, "connect_failed");
        }
    }
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn the_active_colour_serves_and_tenants_may_have_their_own() {
    let (blue, green, special) = (
        coloured("blue").await,
        coloured("green").await,
        coloured("special").await,
    );
    let config = |active: &str| {
        format!(
            "{}tenant = {{ sources = [{{ header = \"x-location-id\" }}] }}\n[[cluster]]\nname = \"special\"\nendpoints = {{ blue = [\"{}\"] }}\n[[tenant]]\nid = \"plain\"\n[[tenant]]\nid = \"early\"\ncolours = {{ app = \"green\" }}\n[[tenant]]\nid = \"moved\"\nroutes = {{ all = \"special\" }}\n",
            with_cluster(
                &format!(
                    "blue = [\"{}\"], green = [\"{}\"]",
                    blue.endpoint(),
                    green.endpoint()
                ),
                &format!("active = \"{active}\"\n"),
            ),
            special.endpoint(),
        )
    };
    let hub = start(&config("blue")).await;
    let colour = async |tenant: &str| {
        let answer = ask(
            &hub,
            &format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Location-Id: {tenant}\r\n\r\n"),
        )
        .await;
        answer.json()["colour"].as_str().unwrap_or("?").to_owned()
    };
    assert_eq!(colour("plain").await, "blue");
    assert_eq!(colour("early").await, "green");
    assert_eq!(colour("moved").await, "special");
    hub.write_config(&config("green"));
    assert_eq!(hub.reload().await.0, 200);
    assert_eq!(colour("plain").await, "green");
    assert_eq!(colour("moved").await, "special");
    let line = hub
        .wait_for_log_line(|line| line["tenant"] == "moved")
        .await;
    assert_eq!(line["cluster"], "special");
}

#[tokio::test]
async fn a_request_in_flight_stays_with_the_origin_it_began_on() {
    let gate = Gate::closed();
    let old = Origin::builder()
        .respond(Reply::ok("old").after(&gate))
        .start()
        .await;
    let new = Origin::builder().respond(Reply::ok("new")).start().await;
    let hub = start(&demo_config(old.endpoint())).await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    old.wait_for_requests(1).await;
    hub.write_config(&demo_config(new.endpoint()));
    assert_eq!(hub.reload().await.0, 200);
    assert_eq!(get(&hub, "/").await.text(), "new");
    gate.open();
    assert_eq!(wire.read_response().await.text(), "old");
}
