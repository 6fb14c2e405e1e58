//! Upgrades: only to WebSocket, only where the route allows it, and only after 101.

use crate::edge::{Edge, edge};
use hub_core::Reason;
use hub_testkit::websocket::accept_key;
use hub_testkit::{Behaviour, End, Gate, Origin, Reply};

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
const H2C: &str = "GET /plain HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";

#[tokio::test]
async fn h2c_is_stripped_and_the_request_served_as_a_plain_one() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client.send(H2C).await;
    let answer = client.read_response().await;
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
    let request = &edge.origin.requests()[0];
    assert_eq!(request.header("upgrade"), None);
    assert_eq!(request.header("http2-settings"), None);
    // The connection goes on as HTTP/1.1.
    client.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.read_response().await.json()["target"], "/again");
    edge.assert_nothing_refused().await;
}

#[tokio::test]
async fn an_http_2_preface_behind_an_h2c_upgrade_is_refused() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client
        .send(format!("{H2C}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        .await;
    assert_eq!(client.read_response().await.status, 200);
    edge.assert_refused(&mut client, Reason::BadVersion).await;
    assert!(!edge.origin_saw("PRI *"));
}

#[tokio::test]
async fn the_body_of_an_h2c_upgrade_is_held_to_its_framing() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client
        .send("POST /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    client.send(SMUGGLED).await;
    assert_eq!(client.read_response().await.json()["body"], "hi");
    // What follows is a request of its own, and is served as one.
    assert_eq!(client.read_response().await.json()["target"], "/smuggled");
    let requests = edge.origin.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].body_bytes, 2);
    assert_eq!(requests[0].header("upgrade"), None);
}

#[tokio::test]
async fn a_websocket_on_a_route_without_them_is_a_plain_request() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client.send(format!("{HANDSHAKE}{SMUGGLED}")).await;
    assert_eq!(client.read_response().await.json()["target"], "/ws");
    assert_eq!(client.read_response().await.json()["target"], "/smuggled");
    assert_eq!(edge.origin.requests()[0].header("upgrade"), None);
    edge.assert_nothing_refused().await;
}

#[tokio::test]
async fn a_malformed_websocket_handshake_opens_no_tunnel() {
    let origin = Origin::builder()
        .on("/ws", Behaviour::WebSocket)
        .start()
        .await;
    let edge = Edge::before(origin, "", "websocket = {}\n").await;
    let mut client = edge.client().await;
    client
        .send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n")
        .await;
    assert_eq!(client.read_response().await.status, 426);
    assert_eq!(edge.origin.requests()[0].header("upgrade"), None);
}

#[tokio::test]
async fn frames_sent_before_101_reach_the_origin_after_it() {
    let gate = Gate::closed();
    let accept = Reply::new(101)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .after(&gate);
    let accept = Behaviour::call(move |request| {
        let key = request.header("sec-websocket-key").expect("a key");
        accept
            .clone()
            .header("Sec-WebSocket-Accept", accept_key(key))
    });
    let origin = Origin::builder().on("/ws", accept).start().await;
    let edge = Edge::before(origin, "", "websocket = {}\n").await;
    let mut client = edge.client().await;
    client
        .send([HANDSHAKE.as_bytes(), b"\x81\x85\0\0\0\0EARLY"].concat())
        .await;
    edge.origin.wait_for_requests(1).await;
    let before = edge.origin.raw_bytes();
    assert!(!edge.origin_saw("EARLY"));
    gate.open();
    assert_eq!(client.read_head().await.status, 101);
    edge.origin.wait_for_raw_bytes(before + 11).await;
    assert!(edge.origin_saw("EARLY"));
    edge.assert_nothing_refused().await;
}

#[tokio::test]
async fn what_follows_an_upgrade_that_the_origin_declines_is_no_request() {
    let edge = Edge::before(Origin::start().await, "", "websocket = {}\n").await;
    let mut client = edge.client().await;
    client.send(format!("{HANDSHAKE}{SMUGGLED}")).await;
    let answer = client.read_response().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(client.wait_closed().await, End::Closed);
    assert!(!edge.origin_saw("/smuggled"));
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_ends_with_the_client() {
    let origin = Origin::builder()
        .on("/ws", Behaviour::WebSocket)
        .start()
        .await;
    let edge = Edge::before(origin, "", "websocket = {}\n").await;
    let mut client = edge.client().await;
    client.send(HANDSHAKE).await;
    let head = client.read_head().await;
    assert_eq!(head.status, 101);
    assert_eq!(
        head.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    client
        .send(b"\x82\x93\0\0\0\0\x81\x00GET / HTTP/1.1\r\n\0")
        .await;
    let echoed = b"\x82\x13\x81\x00GET / HTTP/1.1\r\n\0";
    assert_eq!(client.read_exact(21).await, echoed);
    client.half_close().await;
    // Close 1001, though it sent none.
    assert_eq!(client.read_exact(19).await[..4], *b"\x88\x11\x03\xe9");
    assert_eq!(client.wait_closed().await, End::Closed);
    edge.origin.wait_for_open_connections(0).await;
    assert_eq!(edge.hub.wait_for_access_log(1).await[0]["status"], 101);
}

/// What a client says is no body while it may be a tunnel: the body's timeout has no say.
#[tokio::test]
async fn a_tunnel_may_be_silent_for_longer_than_a_body() {
    let origin = Origin::builder()
        .on("/ws", Behaviour::WebSocket)
        .start()
        .await;
    let edge = Edge::before(origin, "body_timeout_ms = 100", "websocket = {}\n").await;
    let mut client = edge.client().await;
    client.send(HANDSHAKE).await;
    assert_eq!(client.read_head().await.status, 101);
    // Only time itself can pass here.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    client.send(b"\x81\x8a\0\0\0\0still here").await;
    assert_eq!(client.read_exact(12).await, b"\x81\x0astill here");
    edge.assert_nothing_refused().await;
}
