//! `[route.websocket]`, and how many WebSockets a tenant may have.

use crate::material::{self, hs256};
use crate::process::upgrade;
use crate::site::{Site, probe, whether};
use crate::socket::{BINARY, LARGE_COUNT, MANY, PING, Socket, TEXT, large, masked, unmasked};
use crate::{Row, row};
use serde_json::{Value, json};

type Setting = (&'static str, Value);

const TENANT: &str = "X-Location-Id: loc_1\r\n";

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = handshakes();
    rows.extend(messages());
    rows.extend(times());
    rows.extend(moves());
    rows
}

/// The route takes WebSockets.
fn taken() -> Setting {
    ("route[].websocket", json!({}))
}

/// They go to an application that does what their path says.
fn application() -> [Setting; 2] {
    let endpoints = json!({ "blue": ["{application}"] });
    [("cluster[].endpoints", endpoints), taken()]
}

fn tenant() -> [Setting; 2] {
    let sources = json!({ "sources": [{ "header": "x-location-id" }] });
    [
        ("route[].tenant", sources),
        ("tenant[]", json!({ "id": "loc_1" })),
    ]
}

fn handshakes() -> Vec<Row> {
    let [rule, one] = tenant();
    let of_tenant = [taken(), rule, one];
    vec![
        row(
            "route[].websocket.origins",
            json!(["https://x.test"]),
            json!(["https://y.test"]),
            &[],
            probe!(site => opens(site, "Origin: https://x.test\r\n").await),
        ),
        row(
            "route[].websocket.compression",
            "refuse",
            "pass",
            &[],
            probe!(site => {
                let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
                let _socket = open(site, "/ws", offer).await;
                let handshake = site.blue.wait_for_requests(1).await.remove(0);
                format!("{:?}", handshake.header("sec-websocket-extensions"))
            }),
        ),
        row(
            "route[].websocket.connections_max",
            1,
            2,
            &[],
            probe!(site => beside(site, "").await),
        ),
        row(
            "tenant[].websockets_max",
            1,
            2,
            &of_tenant,
            probe!(site => beside(site, TENANT).await),
        ),
        row(
            "tenants.default_websockets_max",
            1,
            2,
            &of_tenant,
            probe!(site => beside(site, TENANT).await),
        ),
    ]
}

fn messages() -> Vec<Row> {
    let with = application();
    vec![
        row(
            "route[].websocket.utf8",
            true,
            false,
            &with,
            probe!(site => {
                let text = [&[0xff][..], &[b'x'; 500]].concat();
                fate(site, &masked(TEXT, &text)).await
            }),
        ),
        row(
            "route[].websocket.frame_bytes_max",
            10,
            1_000,
            &with,
            probe!(site => fate(site, &masked(BINARY, &[b'x'; 500])).await),
        ),
        row(
            "route[].websocket.message_bytes_max",
            10,
            1_000,
            &with,
            probe!(site => fate(site, &masked(BINARY, &[b'x'; 500])).await),
        ),
        row(
            "route[].websocket.fragments_max",
            1,
            2,
            &with,
            probe!(site => {
                // The first without FIN, the second a continuation.
                let parts = [0x02, 0x80].map(|first| masked(first, &[b'x'; 500]));
                fate(site, &parts.concat()).await
            }),
        ),
        row(
            "route[].websocket.client_messages_per_second",
            1,
            Value::Null,
            &with,
            probe!(site => taken_soon(site, &masked(TEXT, b"x"), MANY).await),
        ),
        row(
            "route[].websocket.client_kilobytes_per_second",
            1,
            Value::Null,
            &with,
            probe!(site => taken_soon(site, &masked(BINARY, &large()), LARGE_COUNT).await),
        ),
        row(
            "route[].websocket.upstream_messages_per_second",
            1,
            Value::Null,
            &with,
            probe!(site => got_soon(site, "/many", unmasked(TEXT, b"x").len() * MANY).await),
        ),
        row(
            "route[].websocket.upstream_kilobytes_per_second",
            1,
            Value::Null,
            &with,
            probe!(site => {
                let size = unmasked(BINARY, &large()).len();
                got_soon(site, "/large", size * LARGE_COUNT).await
            }),
        ),
    ]
}

fn times() -> Vec<Row> {
    let with = application();
    let [endpoints, _] = application();
    let pings = [
        endpoints,
        ("route[].websocket", json!({ "ping_interval_ms": 100 })),
    ];
    let key = json!({ "algorithms": ["HS256"], "secret_file": "{dir}/secret1" });
    let config = json!({ "audiences": ["us"], "keys": [key] });
    let identify = [
        (
            "plugin[]",
            json!({ "name": "p", "kind": "jwt", "config": config }),
        ),
        ("route[].plugins", json!(["p"])),
    ];
    vec![
        row(
            "route[].websocket.idle_timeout_ms",
            100,
            0,
            &with,
            probe!(site => open(site, "/take", "").await.close_soon().await),
        ),
        row(
            "route[].websocket.lifetime_ms",
            100,
            0,
            &with,
            probe!(site => open(site, "/take", "").await.close_soon().await),
        ),
        row(
            "route[].websocket.ping_interval_ms",
            100,
            0,
            &with,
            probe!(site => {
                let mut socket = open(site, "/take", "").await;
                whether(async { while socket.next().await.0 != PING {} }).await
            }),
        ),
        row(
            "route[].websocket.pong_timeout_ms",
            1,
            86_400_000,
            &pings,
            probe!(site => open(site, "/take", "").await.close_soon().await),
        ),
        row(
            "route[].websocket.write_timeout_ms",
            100,
            86_400_000,
            &with,
            probe!(site => {
                // The client reads nothing, and the application hears of it.
                let _socket = open(site, "/flood", "").await;
                whether(site.application().received(1)).await
            }),
        ),
        row(
            "route[].websocket.close_timeout_ms",
            100,
            86_400_000,
            &with,
            probe!(site => {
                let mut socket = open(site, "/close", "").await;
                let close = socket.close().await;
                format!("{close}, its end {}", whether(socket.end()).await)
            }),
        ),
        row(
            "route[].websocket.until_credential_expires",
            true,
            false,
            &identify,
            probe!(site => {
                let token = hs256(json!({ "exp": material::now() + 1 }));
                let header = format!("Authorization: Bearer {token}\r\n");
                open(site, "/ws", &header).await.close_soon().await
            }),
        ),
    ]
}

fn moves() -> Vec<Row> {
    let [rule, one] = tenant();
    let endpoints = json!({ "blue": ["{blue}"], "green": ["{green}"] });
    let colours = [
        rule,
        one,
        ("cluster[].endpoints", endpoints),
        ("store.directory", json!("{dir}/store")),
    ];
    let drained = ("route[].websocket", json!({ "on_switch": "drain" }));
    let at_once = ("route[].websocket", json!({ "jitter_ms": 0 }));
    vec![
        row(
            "route[].websocket.on_switch",
            "cut",
            "pin",
            &colours,
            probe!(site => switched(site).await),
        ),
        row(
            "route[].websocket.jitter_ms",
            0,
            3_600_000,
            &[&colours[..], &[drained]].concat(),
            probe!(site => switched(site).await),
        ),
        row(
            "route[].websocket.on_upgrade",
            "drain",
            "keep",
            &[at_once],
            probe!(site => {
                let mut socket = open(site, "/ws", "").await;
                upgrade(site, &json!({})).await;
                site.hub.wait_for_successor().await;
                socket.close_soon().await
            }),
        ),
    ]
}

async fn open(site: &Site, path: &str, headers: &str) -> Socket {
    match Socket::open(site, path, headers).await {
        Ok(socket) => socket,
        Err(answer) => panic!("{path} does not open: {answer}"),
    }
}

/// Whether a handshake succeeds, or what is answered instead.
async fn opens(site: &Site, headers: &str) -> String {
    match Socket::open(site, "/ws", headers).await {
        Ok(_) => "opens".into(),
        Err(answer) => answer,
    }
}

/// What becomes of a handshake while another session is open.
async fn beside(site: &Site, headers: &str) -> String {
    let _first = open(site, "/ws", headers).await;
    opens(site, headers).await
}

async fn fate(site: &Site, frames: &[u8]) -> String {
    open(site, "/take", "").await.fate(site, frames).await
}

/// Whether the application soon has so many of these frames.
async fn taken_soon(site: &Site, frame: &[u8], count: usize) -> String {
    let mut socket = open(site, "/take", "").await;
    whether(async {
        socket.send(frame.repeat(count)).await;
        site.application().received(frame.len() * count).await;
    })
    .await
}

/// Whether the client soon has so many bytes.
async fn got_soon(site: &Site, path: &str, count: usize) -> String {
    let mut socket = open(site, path, "").await;
    whether(socket.read(count)).await
}

/// What becomes of a session whose tenant moves to the other colour.
async fn switched(site: &Site) -> String {
    let mut socket = open(site, "/ws", TENANT).await;
    site.roll_out("canary").await;
    socket.close_soon().await
}
