//! HTTP/1.1 through the running gateway: connections, bodies in both directions, interim answers,
//! streams, upgrades, and clients and origins that break off.

use hub_testkit::websocket::{Client, Event, Frame};
use hub_testkit::{Behaviour, End, Gate, Hub, Origin, Reply, Wire, WireResponse, demo_config};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// How long nothing must move to count as stuck.
const QUIET: Duration = Duration::from_millis(300);
/// More than the kernel's socket buffers on all four ends can hold, less than what is sent.
const BUFFERED_MAX: u64 = 40 * MIB;
const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// A gateway in front of this origin. `more` continues the one route.
async fn hub(origin: &Origin, more: &str) -> Hub {
    Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&(demo_config(origin.endpoint()) + more))
        .start()
        .await
}

async fn client(hub: &Hub) -> Wire {
    Wire::connect(hub.addr("public")).await
}

async fn ask(wire: &mut Wire, request: &str) -> WireResponse {
    wire.send(request).await;
    wire.read_response().await
}

/// Waits for something that no event tells of.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 10 s for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The value once it has not changed for [`QUIET`].
async fn settled(value: impl Fn() -> u64) -> u64 {
    let (mut last, mut since) = (value(), Instant::now());
    while since.elapsed() < QUIET {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if value() != last {
            (last, since) = (value(), Instant::now());
        }
    }
    last
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes whatever is written");
            text
        })
}

// Connections.

#[tokio::test]
async fn requests_of_one_client_share_one_connection_on_both_sides() {
    let origin = Origin::start().await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    for i in 0..20 {
        let answer = ask(
            &mut wire,
            &format!("POST /{i} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi"),
        )
        .await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["body"], "hi");
    }
    assert_eq!(origin.connections(), 1);
    let opened = hub
        .metric("hub_connections_opened_total", &[("listener", "public")])
        .await;
    assert_eq!(opened, 1.0);
}

#[tokio::test]
async fn clients_that_come_one_after_the_other_share_one_upstream_connection() {
    let origin = Origin::start().await;
    let hub = hub(&origin, "").await;
    for _ in 0..5 {
        let mut wire = client(&hub).await;
        let answer = ask(
            &mut wire,
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert_eq!(answer.status, 200);
        wire.wait_closed().await;
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn an_origin_that_closes_after_its_answer_costs_the_client_nothing() {
    let origin = Origin::builder()
        .respond(Reply::ok("bye").close())
        .start()
        .await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    for sent in 1..=3 {
        assert_eq!(ask(&mut wire, GET).await.text(), "bye");
        assert_eq!(origin.connections(), sent);
    }
}

#[tokio::test]
async fn a_client_that_closes_its_half_behind_pipelined_requests_gets_every_answer() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .on("/slow", Reply::ok("slow").body_after(&gate))
        .start()
        .await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send(concat!(
        "GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET /3 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ))
    .await;
    wire.half_close().await;
    let head = wire.read_head().await;
    assert_eq!(head.status, 200);
    gate.open();
    assert_eq!(wire.read_exact(4).await, b"slow");
    for target in ["/2", "/3"] {
        assert_eq!(wire.read_response().await.json()["target"], target);
    }
    assert_eq!(wire.wait_closed().await, End::Closed);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let origin = Origin::start().await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send(concat!(
        "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST /2 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\ntwo",
        "POST /3 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n",
        "GET /4 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ))
    .await;
    for (target, body) in [("/1", ""), ("/2", "two"), ("/3", "three"), ("/4", "")] {
        let json = wire.read_response().await.json();
        assert_eq!(json["target"], target);
        assert_eq!(json["body"], body);
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_an_unchunked_answer_and_the_end_of_the_connection() {
    let origin = Origin::builder()
        .on("/chunked", Reply::ok("in pieces").chunks_of(3))
        .start()
        .await;
    let hub = hub(&origin, "").await;

    let mut wire = client(&hub).await;
    let answer = ask(&mut wire, "GET /chunked HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "in pieces"));
    assert_eq!(answer.header("transfer-encoding"), None);
    wire.wait_closed().await;
}

// Bodies.

#[tokio::test]
async fn a_body_of_known_length_streams_to_the_origin() {
    let origin = Origin::start().await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\n\r\nabc")
        .await;
    origin.wait_for_requests(1).await;
    until("the first half", || origin.requests()[0].body == b"abc").await;
    assert!(!origin.requests()[0].complete);
    assert_eq!(origin.requests()[0].header("content-length"), Some("6"));
    wire.send("def").await;
    let json = wire.read_response().await.json();
    assert_eq!(json["body"], "abcdef");
}

#[tokio::test]
async fn a_chunked_body_streams_to_the_origin() {
    let origin = Origin::start().await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    origin.wait_for_requests(1).await;
    until("the first chunk", || origin.requests()[0].body == b"abc").await;
    assert!(!origin.requests()[0].complete);
    let request = &origin.requests()[0];
    assert_eq!(request.header("transfer-encoding"), Some("chunked"));
    assert_eq!(request.header("content-length"), None);
    wire.send("3\r\ndef\r\n0\r\n\r\n").await;
    let json = wire.read_response().await.json();
    assert_eq!(json["body"], "abcdef");
}

#[tokio::test]
async fn a_chunked_answer_streams_to_the_client() {
    let (feed, reply) = Reply::fed(200);
    let origin = Origin::builder().respond(reply).start().await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send(GET).await;
    let head = wire.read_head().await;
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    for piece in ["one", "two"] {
        assert!(feed.send(piece).await);
        assert_eq!(wire.read_chunk().await.as_deref(), Some(piece.as_bytes()));
    }
    feed.end();
    assert_eq!(wire.read_chunk().await, None);
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    let (feed, events) = Behaviour::sse();
    let origin = Origin::builder().on("/events", events).start().await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send("GET /events HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n")
        .await;
    let head = wire.read_head().await;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    for i in 0..10 {
        assert!(feed.event(&format!("event {i}")).await);
        let chunk = wire.read_chunk().await.expect("the stream goes on");
        assert_eq!(chunk, format!("data: event {i}\n\n").as_bytes());
    }
}

#[tokio::test]
async fn large_bodies_arrive_whole_in_both_directions() {
    let body = pattern(32 << 20);
    let sum = sha256(&body);
    let origin = Origin::builder()
        .on("/down", Reply::ok(body.clone()))
        .on("/down/chunked", Reply::ok(body.clone()).chunks_of(50_000))
        .start()
        .await;
    let hub = hub(&origin, "body_bytes_max = 40000000\n").await;
    let mut wire = client(&hub).await;

    wire.send(format!(
        "POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ))
    .await;
    wire.send(&body).await;
    let json = wire.read_response().await.json();
    assert_eq!(json["body_bytes"], body.len());
    assert_eq!(json["body_sha256"], sum.as_str());

    for path in ["/down", "/down/chunked"] {
        let answer = ask(
            &mut wire,
            &format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        )
        .await;
        assert_eq!(answer.body.len(), body.len());
        assert_eq!(sha256(&answer.body), sum, "{path}");
    }
    let log = hub.wait_for_access_log(3).await;
    assert_eq!(log[0]["bytes_in"], body.len());
    assert_eq!(log[1]["bytes_out"], body.len());
    assert_eq!(log[2]["bytes_out"], body.len());
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_origin() {
    let origin = Origin::builder()
        .respond(Reply::new(200).repeated(b'x', 96 * MIB))
        .start()
        .await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    let before = hub.metric("process_resident_memory_bytes", &[]).await;
    wire.send(GET).await;
    origin.wait_for_requests(1).await;
    let sent = settled(|| origin.sent_bytes()).await;
    let grown = hub.metric("process_resident_memory_bytes", &[]).await - before;
    println!("the origin could send {sent} bytes; the gateway grew by {grown} bytes");
    assert!(sent < BUFFERED_MAX, "{sent}");
    assert!(grown < (8 * MIB) as f64, "{grown}");
    let answer = wire.read_response().await;
    assert_eq!(answer.body.len() as u64, 96 * MIB);
}

#[tokio::test]
async fn an_origin_that_does_not_read_stops_the_client() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .respond(Reply::ok("read").read_after(&gate))
        .start()
        .await;
    let hub = hub(&origin, "body_bytes_max = 200000000\n").await;
    let mut wire = client(&hub).await;
    let before = hub.metric("process_resident_memory_bytes", &[]).await;
    let length = 96 * MIB;
    wire.send(format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n"
    ))
    .await;
    let sent = wire.send_until_stuck(length, QUIET).await;
    let grown = hub.metric("process_resident_memory_bytes", &[]).await - before;
    println!("the client could send {sent} bytes; the gateway grew by {grown} bytes");
    assert!(sent < BUFFERED_MAX, "{sent}");
    assert!(grown < (8 * MIB) as f64, "{grown}");
    gate.open();
    let rest = wire
        .send_until_stuck(length - sent, Duration::from_secs(10))
        .await;
    assert_eq!(sent + rest, length);
    assert_eq!(wire.read_response().await.text(), "read");
    let requests = origin.wait_for_complete(1).await;
    assert_eq!(requests[0].body_bytes, length);
}

#[tokio::test]
async fn an_early_answer_reaches_the_client_before_its_body_is_sent() {
    let origin = Origin::builder()
        .respond(Reply::new(403).body("no").early())
        .start()
        .await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\nabc")
        .await;
    let answer = wire.read_response().await;
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    wire.send([b'x'; 997]).await;
    let line = hub.wait_for_access_log(1).await.remove(0);
    assert_eq!(line["status"], 403);
    // The message that was answered early must not be mistaken for anything else by the next client.
    let mut next = client(&hub).await;
    origin.on("*", Reply::ok("fine"));
    assert_eq!(ask(&mut next, GET).await.text(), "fine");
}

// Answers without a body, and interim ones.

#[tokio::test]
async fn an_answer_to_head_has_the_length_but_no_body() {
    let origin = Origin::builder().respond(Reply::ok("hello")).start().await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send("HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let answer = wire.read_response_to("HEAD").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-length"), Some("5"));
    assert_eq!(origin.requests()[0].method, "HEAD");
    // Nothing followed the head: the next answer begins where it should.
    assert_eq!(ask(&mut wire, GET).await.text(), "hello");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn answers_that_have_no_body_end_with_their_head() {
    let origin = Origin::builder()
        .on("/204", Reply::new(204))
        .on(
            "/304",
            Reply::new(304)
                .header("ETag", "\"1\"")
                .header("Content-Length", "5"),
        )
        .start()
        .await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    let answer = ask(&mut wire, "GET /204 HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(answer.header("transfer-encoding"), None);
    let answer = ask(
        &mut wire,
        "GET /304 HTTP/1.1\r\nHost: a.test\r\nIf-None-Match: \"1\"\r\n\r\n",
    )
    .await;
    assert_eq!(answer.status, 304);
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(ask(&mut wire, GET).await.status, 200);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn early_hints_are_relayed_before_the_answer() {
    let gate = Gate::closed();
    let link = "</a.css>; rel=preload";
    let origin = Origin::builder()
        .respond(
            Reply::ok("page")
                .interim(103, &[("Link", link)])
                .after(&gate),
        )
        .start()
        .await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send(GET).await;
    let hints = wire.read_head().await;
    assert_eq!((hints.status, hints.header("link")), (103, Some(link)));
    gate.open();
    let answer = wire.read_response().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "page"));
    let line = hub.wait_for_access_log(1).await.remove(0);
    assert_eq!(line["status"], 200);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_the_origins() {
    let origin = Origin::start().await;
    let hub = hub(&origin, "").await;
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let mut wire = client(&hub).await;
        wire.send(format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\n{framing}\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.read_head().await.status, 100);
        wire.send(match framing.starts_with("Content") {
            true => "hello",
            false => "5\r\nhello\r\n0\r\n\r\n",
        })
        .await;
        let answer = wire.read_response().await;
        assert_eq!(answer.status, 200, "{framing}");
        assert_eq!(answer.interim, []);
        assert_eq!(answer.json()["body"], "hello");
    }
}

#[tokio::test]
async fn a_refused_expectation_is_answered_without_100() {
    let origin = Origin::builder()
        .respond(Reply::new(401).early().close())
        .start()
        .await;
    let hub = hub(&origin, "body_bytes_max = 10\n").await;
    // By the origin.
    let mut wire = client(&hub).await;
    let answer = ask(
        &mut wire,
        "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    )
    .await;
    assert_eq!((answer.status, answer.interim.len()), (401, 0));
    // By the gateway: the origin hears nothing.
    let seen = origin.request_count();
    let mut wire = client(&hub).await;
    let answer = ask(
        &mut wire,
        "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n",
    )
    .await;
    assert_eq!((answer.status, answer.interim.len()), (413, 0));
    assert_eq!(answer.json()["error"]["code"], "body_too_large");
    assert_eq!(origin.request_count(), seen);
}

// WebSocket.

const UPGRADE: &str = "GET /socket HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn a_websocket_carries_messages_both_ways_and_is_logged_twice() {
    let origin = Origin::builder()
        .on("/socket", Behaviour::WebSocket)
        .start()
        .await;
    let hub = hub(&origin, "websocket = {}\nbody_bytes_max = 16\n").await;
    let mut socket = Client::connect(hub.addr("public"), "/socket").await;
    // More than a body may have here: a session has none.
    let bytes = pattern(100_000);
    for part in bytes.chunks(20_000) {
        socket.send(&Frame::binary(part)).await;
        assert_eq!(socket.next_but_pings().await, Event::Binary(part.to_vec()));
    }
    socket.close(4711, "enough").await;
    origin.wait_for_open_connections(0).await;
    let lines = hub.wait_for_access_log(2).await;
    let (opened, ended) = (&lines[0], &lines[1]);
    assert_eq!(opened["status"], 101);
    assert_eq!(opened["path"], "/socket");
    assert_eq!(ended["event"], "websocket_end");
    assert_eq!(ended["request_id"], opened["request_id"]);
    assert_eq!(
        (&ended["code"], &ended["by"], &ended["why"]),
        (&4711.into(), &"client".into(), &"closed".into())
    );
    assert_eq!(
        (&ended["messages_in"], &ended["messages_out"]),
        (&5.into(), &5.into())
    );
    assert!(ended["bytes_out"].as_u64() > Some(100_000), "{ended}");
    // An upgraded connection serves nobody else.
    let mut next = client(&hub).await;
    assert_eq!(ask(&mut next, GET).await.status, 200);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn an_upgrade_on_a_route_without_websockets_is_a_plain_request() {
    let origin = Origin::builder()
        .on("/socket", Behaviour::WebSocket)
        .start()
        .await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    let answer = ask(&mut wire, UPGRADE).await;
    assert_eq!(answer.status, 426);
    let request = origin.requests().remove(0);
    assert_eq!(request.header("upgrade"), None);
    assert!(
        !request
            .header("connection")
            .unwrap_or_default()
            .to_lowercase()
            .contains("upgrade"),
        "{}",
        request.head_text()
    );
}

#[tokio::test]
async fn an_origin_that_refuses_an_upgrade_is_heard() {
    let origin = Origin::builder()
        .on("/socket", Behaviour::refuse_upgrade(403))
        .start()
        .await;
    let hub = hub(&origin, "websocket = {}\n").await;
    let mut wire = client(&hub).await;
    assert_eq!(ask(&mut wire, UPGRADE).await.status, 403);
    let line = hub.wait_for_access_log(1).await.remove(0);
    assert_eq!(line["status"], 403);
}

// Those that break off.

/// `/gone` was recorded once, as was the request that came after it.
async fn assert_recorded_once(hub: &Hub) {
    let mut next = client(hub).await;
    assert_eq!(ask(&mut next, GET).await.status, 200);
    hub.wait_for_log_line(|line| line["path"] == "/gone").await;
    hub.wait_for_log_line(|line| line["path"] == "/").await;
    hub.wait_for_metric("hub_requests_total", &[], |count| count == 2.0)
        .await;
    assert_eq!(hub.metric("hub_requests_started_total", &[]).await, 2.0);
    assert_eq!(hub.access_log().len(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_within_its_body_is_recorded_once() {
    let origin = Origin::start().await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send("POST /gone HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc")
        .await;
    origin.wait_for_requests(1).await;
    drop(wire);
    origin.wait_for_open_connections(0).await;
    assert_recorded_once(&hub).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_recorded_once() {
    let origin = Origin::builder().on("/gone", Behaviour::Hang).start().await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send("GET /gone HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await;
    origin.wait_for_requests(1).await;
    drop(wire);
    origin.wait_for_open_connections(0).await;
    assert_recorded_once(&hub).await;
}

#[tokio::test]
async fn a_client_that_leaves_within_the_answer_is_recorded_once() {
    let (feed, reply) = Reply::fed(200);
    let origin = Origin::builder().on("/gone", reply).start().await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    wire.send("GET /gone HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await;
    assert_eq!(wire.read_head().await.status, 200);
    assert!(feed.send("first").await);
    assert_eq!(
        wire.read_chunk().await.as_deref(),
        Some(b"first".as_slice())
    );
    wire.reset();
    origin.wait_for_open_connections(0).await;
    assert_recorded_once(&hub).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_on_as_whole() {
    let origin = Origin::builder()
        .on("/gone", Reply::new(200).repeated(b'x', 100).close_after(50))
        .on(
            "/chunks",
            Reply::new(200)
                .repeated(b'x', 100)
                .chunks_of(10)
                .close_after(55),
        )
        .on(
            "/reset",
            Reply::new(200)
                .repeated(b'x', 100)
                .chunks_of(10)
                .reset_after(50),
        )
        .start()
        .await;
    let hub = hub(&origin, "").await;
    for path in ["/gone", "/chunks", "/reset"] {
        let mut wire = client(&hub).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"))
            .await;
        let rest = wire.read_to_close().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{path}: looks whole");
        let line = hub.wait_for_log_line(|line| line["path"] == path).await;
        assert_eq!(line["reason"], "upstream_failed", "{path}");
    }
    assert_eq!(hub.access_log().len(), 3);
}

// What the gateway adds.

#[tokio::test]
async fn a_trace_is_continued_or_begun() {
    let origin = Origin::start().await;
    let hub = hub(&origin, "").await;
    let mut wire = client(&hub).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let given = format!("00-{trace}-00f067aa0ba902b7-01");
    ask(
        &mut wire,
        &format!("GET /continued HTTP/1.1\r\nHost: a.test\r\ntraceparent: {given}\r\n\r\n"),
    )
    .await;
    ask(&mut wire, "GET /begun HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    ask(
        &mut wire,
        "GET /malformed HTTP/1.1\r\nHost: a.test\r\ntraceparent: 00-zz-00-01\r\n\r\n",
    )
    .await;
    let log = hub.wait_for_access_log(3).await;
    for (request, line) in origin.requests().iter().zip(&log) {
        assert_eq!(request.header_all("traceparent").count(), 1);
        let sent = request.header("traceparent").unwrap_or_default();
        let parts: Vec<&str> = sent.split('-').collect();
        let [version, id, parent, flags] = parts[..] else {
            panic!("not a traceparent: {sent}");
        };
        assert_eq!((version, id.len(), parent.len()), ("00", 32, 16), "{sent}");
        assert_eq!(line["trace_id"], id);
        let continued = request.target == "/continued";
        assert_eq!(id == trace, continued, "{sent}");
        assert_eq!(flags, if continued { "01" } else { "00" }, "{sent}");
        assert_ne!(parent, "00f067aa0ba902b7", "the span is the gateway's own");
    }
}

#[tokio::test]
async fn the_request_id_is_the_same_for_client_origin_and_log() {
    let origin = Origin::start().await;
    let hub = hub(
        &origin,
        "plugins = [\"id\"]\n[[plugin]]\nname = \"id\"\nkind = \"request_id\"\n",
    )
    .await;
    let mut wire = client(&hub).await;
    let answer = ask(
        &mut wire,
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Request-Id: mine\r\n\r\n",
    )
    .await;
    let id = answer
        .header("x-request-id")
        .expect("the answer carries an id");
    assert_eq!(id.len(), 36, "{id}");
    assert_eq!(answer.header_all("x-request-id").count(), 1);
    let seen: Vec<_> = origin.requests()[0]
        .header_all("x-request-id")
        .map(str::to_owned)
        .collect();
    assert_eq!(seen, [id]);
    assert_eq!(hub.wait_for_access_log(1).await[0]["request_id"], id);
}

#[tokio::test]
async fn the_headers_plugin_edits_requests_and_answers() {
    let origin = Origin::builder()
        .respond(
            Reply::ok("x")
                .header("X-Secret", "internal")
                .header("X-Kind", "old")
                .header("Via", "1.1 app"),
        )
        .start()
        .await;
    let hub = hub(
        &origin,
        r#"plugins = ["edge"]
[[plugin]]
name = "edge"
kind = "headers"
[plugin.config.request]
remove = ["X-Debug"]
set = { "X-From" = "${scheme}://${host} ${client_address}" }
[plugin.config.response]
remove = ["X-Secret"]
set = { "X-Kind" = "new" }
append = { "Via" = "1.1 hub" }
"#,
    )
    .await;
    let mut wire = client(&hub).await;
    let answer = ask(
        &mut wire,
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Debug: 1\r\nx-debug: 2\r\nX-From: forged\r\n\r\n",
    )
    .await;
    assert_eq!(answer.header("x-secret"), None);
    assert_eq!(answer.header_all("x-kind").collect::<Vec<_>>(), ["new"]);
    assert_eq!(
        answer.header_all("via").collect::<Vec<_>>(),
        ["1.1 app", "1.1 hub"]
    );
    let request = origin.requests().remove(0);
    assert_eq!(request.header("x-debug"), None);
    assert_eq!(
        request.header_all("x-from").collect::<Vec<_>>(),
        ["http://a.test 127.0.0.1"]
    );
}
