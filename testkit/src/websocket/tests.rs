use super::*;
use crate::Wire;

const LENGTHS: [usize; 8] = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000];

#[test]
fn what_is_written_is_read_back() {
    for role in [Role::Client, Role::Server] {
        for length in LENGTHS {
            let frame = Frame::binary(vec![0xa5; length]).unfinished();
            let bytes = frame.bytes(role);
            for end in [0, 1, bytes.len() - 1] {
                assert_eq!(Frame::parse(&bytes[..end.min(bytes.len() - 1)]), Ok(None));
            }
            let (back, taken) = Frame::parse(&bytes).unwrap().unwrap();
            assert_eq!(taken, bytes.len());
            assert_eq!(back.payload, frame.payload);
            assert!(!back.fin && back.length == Length::Shortest);
            assert_eq!(back.masking == Masking::Unmasked, role == Role::Server);
            assert_eq!(back.fault(role), None);
        }
    }
}

#[test]
fn the_standards_examples_are_written_as_in_section_5_7() {
    let hello = Frame::text("Hello");
    let unmasked = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(hello.bytes(Role::Server), unmasked);
    let key = [0x37, 0xfa, 0x21, 0x3d];
    assert_eq!(
        hello.clone().masked(key).bytes(Role::Client),
        [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
        ]
    );
    let two = Frame::fragments(opcode::TEXT, b"Hello", 3);
    assert_eq!(two[0].bytes(Role::Server), [0x01, 0x03, 0x48, 0x65, 0x6c]);
    assert_eq!(two[1].bytes(Role::Server), [0x80, 0x02, 0x6c, 0x6f]);
    assert_eq!(
        Frame::binary([0; 256]).bytes(Role::Server)[..4],
        [0x82, 0x7e, 0x01, 0x00]
    );
    assert_eq!(
        Frame::binary(vec![0; 65_536]).bytes(Role::Server)[..10],
        [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]
    );
}

#[test]
fn every_fault_of_a_frame_is_told() {
    let bad = [
        (Frame::text("").reserved(4), "reserved bit"),
        (Frame::new(3, ""), "opcode"),
        (Frame::new(11, ""), "opcode"),
        (Frame::text("").masked([1; 4]), "masked"),
        (Frame::text("").length(Length::Bits16), "shortest"),
        (Frame::text("").length(Length::Bits64), "shortest"),
        (Frame::ping("").unfinished(), "fragmented"),
        (Frame::pong([0; 126]), "too long"),
    ];
    for (frame, why) in bad {
        let bytes = frame.bytes(Role::Server);
        let (frame, _) = Frame::parse(&bytes).unwrap().unwrap();
        let fault = frame.fault(Role::Server).unwrap_or_default();
        assert!(fault.contains(why), "{frame:?}: {fault}");
    }
    let unmasked = Frame::text("x").unmasked().fault(Role::Client);
    assert_eq!(unmasked, Some("a client did not mask it"));
}

#[test]
fn the_accept_value_is_that_of_the_standards_example() {
    assert_eq!(
        accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
}

/// Both ends over a pipe, without a handshake.
fn pipe() -> (Peer<tokio::io::DuplexStream>, Peer<tokio::io::DuplexStream>) {
    let (a, b) = tokio::io::duplex(64 * 1024);
    (Peer::over(a, Role::Client), Peer::over(b, Role::Server))
}

#[tokio::test]
async fn messages_are_put_together_around_control_frames() {
    let (mut client, mut server) = pipe();
    for frame in [
        Frame::text("a\u{e9}".as_bytes().split_at(2).0).unfinished(),
        Frame::ping("p"),
        Frame::continuation(&"\u{e9}".as_bytes()[1..]),
        Frame::binary([0xff]),
        Frame::close(4000, "bye"),
    ] {
        server.send(&frame).await;
    }
    assert_eq!(
        client.until_close().await,
        [
            Event::Ping(b"p".to_vec()),
            Event::text("a\u{e9}"),
            Event::Binary(vec![0xff]),
            Event::Close(Some(4000), "bye".into()),
        ]
    );
    client.send(&Frame::close(4000, "")).await;
    assert_eq!(server.next().await.close_code(), Some(4000));
    drop(server);
    assert_eq!(client.next().await, Event::End);
}

#[tokio::test]
async fn a_server_that_breaks_the_rules_is_caught() {
    let late = [
        Frame::close(1000, "").bytes(Role::Server),
        Frame::text("").bytes(Role::Server),
    ]
    .concat();
    let begun = Frame::text("").unfinished();
    let within = [begun.bytes(Role::Server), begun.bytes(Role::Server)].concat();
    for (bytes, why) in [
        (Frame::text("x").bytes(Role::Client), "masked"),
        (Frame::text([0xff]).bytes(Role::Server), "UTF-8"),
        (Frame::continuation("").bytes(Role::Server), "continuation"),
        (within, "within"),
        (Frame::close_with([3]).bytes(Role::Server), "half"),
        (Frame::close(1005, "").bytes(Role::Server), "1005"),
        (Frame::close(1000, [0xff]).bytes(Role::Server), "UTF-8"),
        (late, "after Close"),
    ] {
        let (mut client, mut server) = pipe();
        server.send_raw(&bytes).await;
        let told = match client.try_next().await {
            Ok(Event::Close(..)) => client.try_next().await,
            told => told,
        };
        assert!(matches!(&told, Err(text) if text.contains(why)), "{told:?}");
    }
}

#[tokio::test]
async fn the_echo_server_echoes_pongs_and_closes() {
    let echo = EchoServer::start().await;
    let mut client = Client::connect(echo.addr(), "/").await;
    client.echo("x").await;
    client.send(&Frame::binary(vec![7; 300_000])).await;
    assert_eq!(client.next().await, Event::Binary(vec![7; 300_000]));
    client.send(&Frame::ping("p")).await;
    assert_eq!(client.next().await, Event::Pong(b"p".to_vec()));
    let close = client.close(4321, "bye").await;
    assert_eq!(close, Event::Close(Some(4321), "bye".into()));
    assert_eq!(echo.sessions(), 1);
}

#[tokio::test]
async fn a_played_server_sees_the_request_and_says_what_it_is_told() {
    let server = PlayedServer::start().await;
    let handshake = Handshake::new("/chat?x=1")
        .header("Sec-WebSocket-Protocol", "a, b")
        .header("Origin", "https://a.test");
    let address = server.addr();
    let client = tokio::spawn(async move { Client::connect_with(address, &handshake).await });
    let knock = server.accept().await;
    assert_eq!(knock.line(), "GET /chat?x=1 HTTP/1.1");
    assert_eq!(knock.header("origin"), Some("https://a.test"));
    let agreement = knock.agreement("Sec-WebSocket-Protocol: b\r\n");
    let mut peer = knock.answer(agreement).await;
    let (mut client, head) = client.await.unwrap();
    assert_eq!(head.header("sec-websocket-protocol"), Some("b"));
    peer.send(&Frame::text("hi")).await;
    assert_eq!(client.next().await, Event::text("hi"));
    peer.reset();
    assert_eq!(client.next().await, Event::Reset);

    let mut wire = Wire::connect(address).await;
    wire.send(Handshake::new("/").without("Sec-WebSocket-Key").request())
        .await;
    let knock = server.accept().await;
    assert_eq!(knock.header("sec-websocket-key"), None);
    knock
        .answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        .await;
    assert_eq!(wire.read_response().await.text(), "no");
}
