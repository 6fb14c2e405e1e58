//! `[route.websocket]`, and how many WebSockets a tenant may have.

use crate::material::{self, hs256};
use crate::process::upgrade;
use crate::site::{Site, probe, whether};
use crate::socket::{LARGE_COUNT, Socket, large, many};
use crate::{Row, row};
use hub_testkit::websocket::{Frame, Handshake, Role, opcode};
use serde_json::{Value, json};

type Setting = (&'static str, Value);

const TENANT: (&str, &str) = ("X-Location-Id", "loc_1");

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
            probe!(site => opens(site, &silent().header("Origin", "https://x.test")).await),
        ),
        row(
            "route[].websocket.compression",
            "refuse",
            "pass",
            &[],
            probe!(site => {
                let extensions = "Sec-WebSocket-Extensions";
                let offer = silent().header(extensions, "permessage-deflate");
                let _socket = open(site, &offer).await;
                let forwarded = site.blue.wait_for_requests(1).await.remove(0);
                format!("{:?}", forwarded.header(extensions))
            }),
        ),
        row(
            "route[].websocket.connections_max",
            1,
            2,
            &[],
            probe!(site => beside(site, &silent()).await),
        ),
        row(
            "tenant[].websockets_max",
            1,
            2,
            &of_tenant,
            probe!(site => beside(site, &silent().header(TENANT.0, TENANT.1)).await),
        ),
        row(
            "tenants.default_websockets_max",
            1,
            2,
            &of_tenant,
            probe!(site => beside(site, &silent().header(TENANT.0, TENANT.1)).await),
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
                fate(site, &[Frame::text(text)]).await
            }),
        ),
        row(
            "route[].websocket.frame_bytes_max",
            10,
            1_000,
            &with,
            probe!(site => fate(site, &[Frame::binary([b'x'; 500])]).await),
        ),
        row(
            "route[].websocket.message_bytes_max",
            10,
            1_000,
            &with,
            probe!(site => fate(site, &[Frame::binary([b'x'; 500])]).await),
        ),
        row(
            "route[].websocket.fragments_max",
            1,
            2,
            &with,
            probe!(site => {
                let parts = Frame::fragments(opcode::BINARY, &[b'x'; 1_000], 500);
                fate(site, &parts).await
            }),
        ),
        row(
            "route[].websocket.client_messages_per_second",
            1,
            Value::Null,
            &with,
            probe!(site => taken_soon(site, &many(Role::Client)).await),
        ),
        row(
            "route[].websocket.client_kilobytes_per_second",
            1,
            Value::Null,
            &with,
            probe!(site => taken_soon(site, &large(Role::Client).repeat(LARGE_COUNT)).await),
        ),
        row(
            "route[].websocket.upstream_messages_per_second",
            1,
            Value::Null,
            &with,
            probe!(site => got_soon(site, "/many", many(Role::Server).len()).await),
        ),
        row(
            "route[].websocket.upstream_kilobytes_per_second",
            1,
            Value::Null,
            &with,
            probe!(site => {
                let size = large(Role::Server).len();
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
            probe!(site => open(site, &Handshake::new("/take")).await.close_soon().await),
        ),
        row(
            "route[].websocket.lifetime_ms",
            100,
            0,
            &with,
            probe!(site => open(site, &Handshake::new("/take")).await.close_soon().await),
        ),
        row(
            "route[].websocket.ping_interval_ms",
            100,
            0,
            &with,
            probe!(site => {
                let mut socket = open(site, &Handshake::new("/take")).await;
                whether(async { while socket.next().await.opcode != opcode::PING {} }).await
            }),
        ),
        row(
            "route[].websocket.pong_timeout_ms",
            1,
            86_400_000,
            &pings,
            probe!(site => open(site, &Handshake::new("/take")).await.close_soon().await),
        ),
        row(
            "route[].websocket.write_timeout_ms",
            100,
            86_400_000,
            &with,
            probe!(site => {
                // The client reads nothing, and the application hears of it.
                let _socket = open(site, &Handshake::new("/flood")).await;
                whether(site.application().received(1)).await
            }),
        ),
        row(
            "route[].websocket.close_timeout_ms",
            100,
            86_400_000,
            &with,
            probe!(site => {
                let mut socket = open(site, &Handshake::new("/close")).await;
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
                let handshake = silent().header("Authorization", &format!("Bearer {token}"));
                open(site, &handshake).await.close_soon().await
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
                let mut socket = open(site, &silent()).await;
                upgrade(site, &json!({})).await;
                site.hub.wait_for_successor().await;
                socket.close_soon().await
            }),
        ),
    ]
}

/// A handshake with an origin that takes it and says nothing.
fn silent() -> Handshake {
    Handshake::new("/ws")
}

async fn open(site: &Site, handshake: &Handshake) -> Socket {
    match Socket::open(site, handshake).await {
        Ok(socket) => socket,
        Err(answer) => panic!("{handshake:?} is answered {answer}"),
    }
}

/// Whether a handshake succeeds, or what is answered instead.
async fn opens(site: &Site, handshake: &Handshake) -> String {
    match Socket::open(site, handshake).await {
        Ok(_) => "opens".into(),
        Err(answer) => answer,
    }
}

/// What becomes of a handshake while another session is open.
async fn beside(site: &Site, handshake: &Handshake) -> String {
    let _first = open(site, handshake).await;
    opens(site, handshake).await
}

/// What becomes of these frames: they reach the application, or there is a Close instead.
async fn fate(site: &Site, frames: &[Frame]) -> String {
    let bytes = frames.iter().flat_map(|frame| frame.bytes(Role::Client));
    let bytes: Vec<_> = bytes.collect();
    let mut socket = open(site, &Handshake::new("/take")).await;
    socket.send(&bytes).await;
    tokio::select! {
        close = socket.close() => close,
        () = site.application().received(bytes.len()) => "passed".into(),
    }
}

/// Whether the application soon has all of this.
async fn taken_soon(site: &Site, bytes: &[u8]) -> String {
    let mut socket = open(site, &Handshake::new("/take")).await;
    whether(async {
        socket.send(bytes).await;
        site.application().received(bytes.len()).await;
    })
    .await
}

/// Whether the client soon has so many bytes.
async fn got_soon(site: &Site, path: &str, count: usize) -> String {
    let mut socket = open(site, &Handshake::new(path)).await;
    whether(socket.read(count)).await
}

/// What becomes of a session whose tenant moves to the other colour.
async fn switched(site: &Site) -> String {
    let handshake = silent().header(TENANT.0, TENANT.1);
    let mut socket = open(site, &handshake).await;
    site.roll_out("canary").await;
    socket.close_soon().await
}
