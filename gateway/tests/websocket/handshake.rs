//! What becomes of a handshake: who is refused, what an application's answer leads to, and how many sessions
//! there may be.

use super::{client, gateway, refusal};
use hub_testkit::websocket::{Client, EchoServer, Event, Frame, Handshake, PlayedServer, Role};
use hub_testkit::{Hub, Origin, Wire};
use std::net::TcpListener;
use tokio::net::TcpStream;

fn socket() -> Handshake {
    Handshake::new("/socket")
}

/// The status that a client gets where the application answers its handshake so; `{accept}` stands for
/// the right value.
async fn status_for(hub: &Hub, application: &PlayedServer, answer: &str) -> u16 {
    let play = async {
        let knock = application.accept().await;
        let key = knock.header("sec-websocket-key").unwrap_or_default();
        let accept = hub_testkit::websocket::accept_key(key);
        knock.answer(answer.replace("{accept}", &accept)).await
    };
    let handshake = socket();
    let (refusal, _upstream) = tokio::join!(refusal(hub, &handshake), play);
    refusal.status
}

#[tokio::test]
async fn an_application_whose_agreement_is_wrong_is_a_bad_gateway() {
    const AGREED: &str =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "").await;
    for (what, more) in [
        ("no accept", ""),
        (
            "a wrong accept",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        ),
        (
            "two accepts",
            "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Accept: x\r\n",
        ),
        (
            "a subprotocol that nobody asked for",
            "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n",
        ),
        (
            "an extension that nobody asked for",
            "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
        ),
    ] {
        let status = status_for(&hub, &application, &format!("{AGREED}{more}\r\n")).await;
        assert_eq!(status, 502, "{what}");
    }
    let other = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n";
    assert_eq!(
        status_for(&hub, &application, other).await,
        502,
        "another protocol"
    );
    let noise = "SSH-2.0-OpenSSH_9.2\r\n\r\n";
    assert_eq!(status_for(&hub, &application, noise).await, 502, "no HTTP");

    let (mut good, mut upstream) = tokio::join!(client(&hub), application.open());
    good.send(&Frame::text("x")).await;
    assert_eq!(upstream.next().await, Event::text("x"));
}

#[tokio::test]
async fn an_application_that_refuses_is_quoted() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "").await;
    let play = async {
        let knock = application.accept().await;
        let answer = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nX-Why: members\r\nContent-Length: 12\r\n\r\nmembers only";
        knock.answer(answer).await
    };
    let handshake = socket();
    let (refusal, _upstream) = tokio::join!(refusal(&hub, &handshake), play);
    assert_eq!(refusal.status, 403, "{}", refusal.raw_text());
    assert_eq!(refusal.text(), "members only");
    assert_eq!(refusal.header("x-why"), Some("members"));
    assert_eq!(refusal.header("content-type"), Some("text/plain"));
}

#[tokio::test]
async fn an_application_that_does_not_answer_times_out() {
    let application = PlayedServer::start().await;
    let config = hub_testkit::demo_config(application.addr()).replace(
        "endpoints = {",
        "first_byte_timeout_ms = 200\nendpoints = {",
    ) + "websocket = {}\n";
    let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&config)
        .start()
        .await;
    let handshake = socket();
    let (refusal, ()) = tokio::join!(refusal(&hub, &handshake), async {
        application.accept().await.ignore().await;
    });
    assert_eq!(refusal.status, 504, "{}", refusal.raw_text());
}

#[tokio::test]
async fn an_application_that_is_not_there_is_a_refusal() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("bound");
    drop(port);
    let hub = gateway(address, "").await;
    let refusal = refusal(&hub, &socket()).await;
    assert!(
        matches!(refusal.status, 502 | 503),
        "{}",
        refusal.raw_text()
    );
}

#[tokio::test]
async fn only_pages_of_the_listed_origins_may_connect() {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), "origins = [\"https://app.test\"]").await;
    let from = |origin: &str| socket().header("Origin", origin);
    for bad in [
        "https://evil.test",
        "http://app.test",
        "https://app.test.evil.test",
        "null",
    ] {
        assert_eq!(refusal(&hub, &from(bad)).await.status, 403, "{bad}");
    }
    assert_eq!(echo.sessions(), 0, "the application was not asked");
    let address = hub.addr("public");
    let (mut good, _) = Client::connect_with(address, &from("https://app.test")).await;
    good.echo("x").await;
}

#[tokio::test]
async fn sessions_are_counted_and_a_place_is_free_again_after_a_close() {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), "connections_max = 2").await;
    let mut first = client(&hub).await;
    first.echo("1").await;
    let mut second = client(&hub).await;
    second.echo("2").await;
    let third = refusal(&hub, &socket()).await;
    assert_eq!(third.status, 503, "{}", third.raw_text());
    second.echo("still there").await;

    assert_eq!(first.close(1000, "").await.close_code(), Some(1000));
    // The place is given back a moment after the client has its Close.
    let deadline = std::time::Instant::now() + hub_testkit::websocket::PATIENCE;
    loop {
        let mut wire = Wire::connect(hub.addr("public")).await;
        wire.send(socket().request()).await;
        match wire.read_head().await.status {
            101 => break,
            503 if std::time::Instant::now() < deadline => {}
            status => panic!("{status}"),
        }
    }
}

/// What asks for no WebSocket as RFC 6455 has it is a plain request, and the application's to refuse.
#[tokio::test]
async fn a_handshake_that_is_malformed_is_a_plain_request() {
    let origin = Origin::start().await;
    let hub = gateway(origin.endpoint(), "").await;
    let key = socket().without("Sec-WebSocket-Key");
    let version = socket().without("Sec-WebSocket-Version");
    for (what, bad) in [
        (
            "a key of 3 bytes",
            key.clone().header("Sec-WebSocket-Key", "YWJj"),
        ),
        (
            "a key that is no base64",
            key.clone()
                .header("Sec-WebSocket-Key", "????????????????????????"),
        ),
        ("no key", key),
        (
            "version 8",
            version.clone().header("Sec-WebSocket-Version", "8"),
        ),
        ("no version", version),
        (
            "no Connection: Upgrade",
            socket()
                .without("Connection")
                .header("Connection", "keep-alive"),
        ),
    ] {
        assert_eq!(refusal(&hub, &bad).await.status, 200, "{what}");
        let seen = origin.requests().pop().expect("it was asked");
        assert_eq!(seen.header("upgrade"), None, "{what}");
    }
}

/// More than the gateway reads at a time, both ways.
#[tokio::test]
async fn frames_that_come_with_the_handshake_are_not_lost() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "").await;
    let stream = TcpStream::connect(hub.addr("public"))
        .await
        .expect("it listens");
    let handshake = socket();
    let message = Frame::binary(vec![7; 40_000]);
    let early = message.bytes(Role::Client).repeat(5);
    let play = async {
        let knock = application.accept().await;
        let said = message.bytes(Role::Server).repeat(5);
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
        let answer = [hints, knock.agreement("").as_bytes(), &said].concat();
        knock.answer(answer).await
    };
    let ((mut client, _), mut upstream) =
        tokio::join!(handshake.open_and_send(stream, &early), play);
    for peer in [&mut client, &mut upstream] {
        for _ in 0..5 {
            assert_eq!(peer.next().await, Event::Binary(vec![7; 40_000]));
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_its_handshake_gives_its_place_back() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "connections_max = 1").await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send(socket().request()).await;
    let knock = application.accept().await;
    assert_eq!(refusal(&hub, &socket()).await.status, 503);
    drop(wire);
    // The application sees it leave; the place is free by then.
    knock.ignore().await;
    let (mut next, mut upstream) = tokio::join!(client(&hub), application.open());
    next.send(&Frame::text("x")).await;
    assert_eq!(upstream.next().await, Event::text("x"));
}

#[tokio::test]
async fn a_subprotocol_is_agreed_on_end_to_end() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "").await;
    let handshake = socket().header("Sec-WebSocket-Protocol", "chat, superchat");
    let play = async {
        let knock = application.accept().await;
        assert_eq!(
            knock.header("sec-websocket-protocol"),
            Some("chat, superchat")
        );
        let agreement = knock.agreement("Sec-WebSocket-Protocol: superchat\r\n");
        knock.answer(agreement).await
    };
    let ((_client, head), _upstream) =
        tokio::join!(Client::connect_with(hub.addr("public"), &handshake), play);
    assert_eq!(head.header("sec-websocket-protocol"), Some("superchat"));
}

/// The client offers compression; the gateway does not, and the application sees no offer.
#[tokio::test]
async fn compression_is_not_offered_unless_the_route_says_so() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "").await;
    let handshake = socket().header("Sec-WebSocket-Extensions", "permessage-deflate");
    let play = async {
        let knock = application.accept().await;
        assert_eq!(knock.header("sec-websocket-extensions"), None);
        knock.agree().await
    };
    let ((_client, head), _upstream) =
        tokio::join!(Client::connect_with(hub.addr("public"), &handshake), play);
    assert_eq!(head.header("sec-websocket-extensions"), None);
}
