//! The origin and the wire client, against each other.

use hub_testkit::{Behaviour, Ca, End, Gate, Origin, Reply, Wire};
use sha2::{Digest, Sha256};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn client(origin: &Origin) -> Wire {
    Wire::connect(origin.addr()).await
}

#[tokio::test]
async fn every_byte_is_recorded_as_it_was_sent() {
    let origin = Origin::start().await;
    let mut wire = client(&origin).await;
    let request = "POST /a?b=c HTTP/1.1\r\nhOsT: a\r\nX-Two: 1\r\nx-two:  2 \r\nContent-Length: 5\r\n\r\nhello";
    wire.send_bytewise(request).await;
    let echo = wire.read_response().await.json();
    let recorded = &origin.wait_for_complete(1).await[0];
    assert_eq!(origin.raw(0), request.as_bytes());
    assert_eq!(origin.raw_bytes(), request.len() as u64);
    assert_eq!(recorded.head_text() + &recorded.body_text(), request);
    assert_eq!((recorded.method.as_str(), recorded.path()), ("POST", "/a"));
    assert_eq!(recorded.headers[0], ("hOsT".into(), "a".into()));
    assert_eq!(recorded.header_all("X-Two").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(echo["body"], "hello");
    assert_eq!(echo["body_sha256"], recorded.body_sha256.as_str());
    assert_eq!(echo["headers"][2][0], "x-two");
    assert_eq!(echo["colour"], "blue");
}

#[tokio::test]
async fn chunks_and_trailers_are_read_and_written() {
    let origin = Origin::builder()
        .on(
            "/answer",
            Reply::ok("abcdefg").chunks_of(3).trailer("X-End", "yes"),
        )
        .start()
        .await;
    let mut wire = client(&origin).await;
    wire.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n3\r\ncde\r\n0\r\nX-T: 1\r\n\r\n")
        .await;
    assert_eq!(wire.read_response().await.json()["body"], "abcde");
    assert_eq!(origin.requests()[0].trailers, [("X-T".into(), "1".into())]);
    wire.send("GET /answer HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let response = wire.read_response().await;
    assert_eq!(response.text(), "abcdefg");
    assert_eq!(response.trailers, [("X-End".into(), "yes".into())]);
    assert!(
        response
            .raw
            .ends_with(b"\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n1\r\ng\r\n0\r\nX-End: yes\r\n\r\n")
    );
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start().await;
    let mut wire = client(&origin).await;
    wire.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(wire.read_response().await.json()["target"], "/1");
    let head = wire.read_response_to("HEAD").await;
    assert!(head.body.is_empty() && head.header("content-length") != Some("0"));
    assert_eq!(wire.read_response().await.json()["target"], "/3");
    assert_eq!(wire.wait_closed().await, End::Closed);
}

#[tokio::test]
async fn a_gate_holds_an_answer_until_it_is_opened() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .on("/slow", Reply::ok("late").after(&gate))
        .start()
        .await;
    let mut wire = client(&origin).await;
    wire.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_for_complete(1).await;
    assert_eq!(origin.sent_bytes(), 0);
    gate.open();
    assert_eq!(wire.read_response().await.text(), "late");
}

#[tokio::test]
async fn a_held_answer_ends_when_its_client_leaves() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .respond(Reply::ok("never").after(&gate))
        .start()
        .await;
    let mut wire = client(&origin).await;
    wire.send(GET).await;
    origin.wait_for_complete(1).await;
    drop(wire);
    origin.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn interim_answers_come_before_the_body_is_read() {
    let reply = Reply::ok("done").interim(103, &[("Link", "</a.css>")]);
    let origin = Origin::builder().on("/hints", reply).start().await;
    let mut wire = client(&origin).await;
    wire.send(
        "POST /hints HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    )
    .await;
    assert_eq!(wire.read_head().await.status, 103);
    assert_eq!(wire.read_head().await.status, 100);
    wire.send("ok").await;
    assert_eq!(wire.read_response().await.text(), "done");
    assert_eq!(origin.requests()[0].body, b"ok");
}

#[tokio::test]
async fn interim_answers_are_collected_in_the_response() {
    let origin = Origin::builder()
        .respond(Reply::ok("x").interim(103, &[]))
        .start()
        .await;
    let mut wire = client(&origin).await;
    wire.send(GET).await;
    let response = wire.read_response().await;
    assert_eq!(response.interim[0].status, 103);
    assert!(
        response
            .raw
            .starts_with(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n")
    );
}

#[tokio::test]
async fn an_early_answer_comes_while_the_body_is_still_to_be_sent() {
    let origin = Origin::builder()
        .respond(Reply::new(413).early())
        .start()
        .await;
    let mut wire = client(&origin).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
        .await;
    assert_eq!(wire.read_response().await.status, 413);
    assert!(!origin.requests()[0].complete);
    wire.send("bc").await;
    assert_eq!(origin.wait_for_complete(1).await[0].body, b"abc");
    wire.send(GET).await;
    assert_eq!(wire.read_response().await.status, 413);
}

#[tokio::test]
async fn an_unread_body_stops_its_sender() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .respond(Reply::ok("read").read_after(&gate))
        .start()
        .await;
    let mut wire = client(&origin).await;
    let length = 64_u64 << 20;
    wire.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ))
    .await;
    let stuck_at = wire
        .send_until_stuck(length, std::time::Duration::from_millis(200))
        .await;
    assert!(stuck_at < length, "all {length} bytes were taken");
    gate.open();
    let rest = wire
        .send_until_stuck(length - stuck_at, std::time::Duration::from_secs(10))
        .await;
    assert_eq!(stuck_at + rest, length);
    assert_eq!(wire.read_response().await.text(), "read");
    let recorded = &origin.requests()[0];
    assert_eq!(
        (recorded.body_bytes, recorded.body.len()),
        (length, 1 << 20)
    );
}

#[tokio::test]
async fn events_arrive_as_they_are_fed() {
    let (feed, events) = Behaviour::sse();
    let origin = Origin::builder().on("/events", events).start().await;
    let mut wire = client(&origin).await;
    wire.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        wire.read_head().await.header("content-type"),
        Some("text/event-stream")
    );
    for text in ["one", "two\nlines"] {
        assert!(feed.event(text).await);
        let wanted = format!("data: {}\n\n", text.replace('\n', "\ndata: "));
        assert_eq!(wire.read_chunk().await, Some(wanted.into_bytes()));
    }
    feed.end();
    assert_eq!(wire.read_chunk().await, None);
}

#[tokio::test]
async fn broken_answers_break_where_they_should() {
    let origin = Origin::builder()
        .on(
            "/chunk",
            Reply::ok("0123456789").chunks_of(10).close_after(4),
        )
        .on("/reset", Reply::ok("0123456789").reset_after(4))
        .on("/short", Reply::ok("01234").declared_length(10))
        .on("/until-close", Reply::ok("all").until_close())
        .on("/garbage", Behaviour::raw("\0\x01 nothing like HTTP"))
        .on("/close", Behaviour::Close)
        .on("/drop", Behaviour::Reset)
        .start()
        .await;
    let ask = async |path: &str| {
        let mut wire = client(&origin).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        let (bytes, end) = wire.read_to_end().await;
        let text = String::from_utf8(bytes).unwrap();
        (
            text.split_once("\r\n\r\n")
                .map_or(text.clone(), |(_, body)| body.to_owned()),
            end,
        )
    };
    assert_eq!(ask("/chunk").await, ("a\r\n0123".into(), End::Closed));
    assert_eq!(ask("/short").await, ("01234".into(), End::Closed));
    assert_eq!(ask("/until-close").await, ("all".into(), End::Closed));
    assert_eq!(
        ask("/garbage").await,
        ("\0\x01 nothing like HTTP".into(), End::Closed)
    );
    assert_eq!(ask("/close").await, (String::new(), End::Closed));
    assert_eq!(ask("/drop").await, (String::new(), End::Reset));
    // What a reset overtakes may be lost, so only its end is certain.
    assert_eq!(ask("/reset").await.1, End::Reset);
}

#[tokio::test]
async fn an_upgraded_connection_echoes_frames() {
    let origin = Origin::builder()
        .on("/ws", Behaviour::WebSocket)
        .on("/no", Behaviour::refuse_upgrade(403))
        .start()
        .await;
    let mut wire = client(&origin).await;
    let upgrade = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    wire.send(format!("GET /no HTTP/1.1\r\n{upgrade}")).await;
    assert_eq!(wire.read_response().await.status, 403);
    wire.send(format!("GET /ws HTTP/1.1\r\n{upgrade}\u{1}\u{5}early"))
        .await;
    let response = wire.read_response().await;
    assert_eq!(response.status, 101);
    assert_eq!(
        response.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(wire.read_exact(7).await, b"\x01\x05early");
    wire.send(b"\x80\x00\x89\x01x").await;
    assert_eq!(wire.read_exact(5).await, b"\x80\x00\x8a\x01x");
    wire.half_close().await;
    assert_eq!(wire.wait_closed().await, End::Closed);
}

#[tokio::test]
async fn the_most_specific_script_counts_and_can_be_changed() {
    let origin = Origin::builder()
        .on("/a", Reply::ok("exact"))
        .on("/a*", Reply::ok("prefix"))
        .respond(Behaviour::call(|request| {
            Reply::ok(request.body.clone()).header("X-Method", &request.method)
        }))
        .start()
        .await;
    let mut wire = client(&origin).await;
    let mut ask = async |path: &str| {
        wire.send(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
        ))
        .await;
        wire.read_response().await.text()
    };
    assert_eq!(ask("/a?q").await, "exact");
    assert_eq!(ask("/ab").await, "prefix");
    assert_eq!(ask("/b").await, "body");
    origin.on("/a", Reply::ok("changed"));
    assert_eq!(ask("/a").await, "changed");
}

#[tokio::test]
async fn tls_is_spoken_with_the_name_and_protocol_that_are_asked_for() {
    let ca = Ca::new("test authority");
    let leaf = ca.issue(&["a.example"]);
    let origin = Origin::builder()
        .tls(leaf.server_config(&["h2", "http/1.1"]))
        .start()
        .await;
    let mut wire = Wire::connect_tls(origin.addr(), "a.example", ca.roots(), &["http/1.1"]).await;
    assert_eq!(wire.alpn().as_deref(), Some("http/1.1"));
    assert_eq!(
        wire.peer_certificate().as_ref(),
        Some(&leaf.certificate_der)
    );
    wire.send(GET).await;
    assert_eq!(wire.read_response().await.status, 200);
    assert_eq!(origin.raw(0), GET.as_bytes());
    let stranger = Wire::try_connect_tls(origin.addr(), "b.example", ca.roots(), &[]).await;
    assert!(
        stranger.is_err(),
        "a certificate for another name was accepted"
    );
    let distrustful =
        Wire::try_connect_tls(origin.addr(), "a.example", Ca::new("other").roots(), &[]).await;
    assert!(
        distrustful.is_err(),
        "a certificate of an unknown authority was accepted"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let ca = Ca::new("test authority");
    let day = std::time::Duration::from_secs(86_400);
    let now = std::time::SystemTime::now();
    let leaf = ca
        .leaf(&["a.example"])
        .valid(now - 3 * day, now - day)
        .issue();
    let origin = Origin::builder().tls(leaf.server_config(&[])).start().await;
    let refused = Wire::try_connect_tls(origin.addr(), "a.example", ca.roots(), &[]).await;
    assert!(refused.unwrap_err().to_string().contains("xpired"));
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("origin.sock");
    let origin = Origin::builder().unix(&path).colour("green").start().await;
    assert_eq!(origin.endpoint(), format!("unix:{}", path.display()));
    let mut wire = Wire::connect_unix(&path).await;
    wire.send(GET).await;
    assert_eq!(wire.read_response().await.json()["colour"], "green");
}

#[tokio::test]
async fn a_stopped_origin_refuses_connections_and_lets_go_of_its_clients() {
    let origin = Origin::start().await;
    let address = origin.addr();
    let mut wire = Wire::connect(address).await;
    wire.send(GET).await;
    wire.read_response().await;
    assert!(!wire.is_closed().await);
    origin.stop().await;
    wire.wait_closed().await;
    assert!(wire.is_closed().await);
    assert!(Wire::try_connect(address).await.is_err());
    let back = Origin::builder().at(address).start().await;
    assert_eq!(back.addr(), address);
}

#[tokio::test]
async fn a_large_body_is_hashed_whole() {
    let origin = Origin::builder()
        .on("/big", Reply::new(200).repeated(b'z', 20 << 20))
        .start()
        .await;
    let mut wire = client(&origin).await;
    wire.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.read_response().await.body.len(), 20 << 20);
    let body = vec![b'y'; 3 << 20];
    wire.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ))
    .await;
    wire.send(&body).await;
    let echo = wire.read_response().await.json();
    let wanted: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(echo["body_sha256"], wanted);
    assert_eq!(echo["body_bytes"], body.len());
}

#[tokio::test]
async fn a_malformed_request_is_recorded_and_refused() {
    let origin = Origin::start().await;
    let mut wire = client(&origin).await;
    wire.send("this is not HTTP at all\r\n\r\n").await;
    assert_eq!(wire.read_response().await.status, 400);
    assert_eq!(
        origin.requests()[0].head_text(),
        "this is not HTTP at all\r\n\r\n"
    );
    wire.wait_closed().await;
}

#[tokio::test]
async fn steps_let_the_test_see_what_each_piece_did() {
    let origin = Origin::start().await;
    let mut wire = client(&origin).await;
    let mut steps = 0;
    wire.send_slowly(["GET / HT", "TP/1.1\r\n\r\n"], async |sent| {
        steps = sent;
        origin
            .wait_for_raw_bytes(if sent == 1 { 8 } else { 18 })
            .await;
    })
    .await;
    assert_eq!((steps, wire.read_response().await.status), (2, 200));
}

#[tokio::test]
#[should_panic(expected = "closed instead of a response")]
async fn a_missing_response_is_a_panic_that_says_so() {
    let origin = Origin::builder().respond(Behaviour::Close).start().await;
    let mut wire = client(&origin).await;
    wire.send(GET).await;
    wire.read_response().await;
}
