//! Clients that mean harm: each gets its code, memory stays bounded, and neighbours are served.

use super::{client, gateway};
use hub_testkit::Hub;
use hub_testkit::process::usage;
use hub_testkit::websocket::{
    EchoServer, Event, Frame, Length, PATIENCE, PlayedServer, Role, opcode,
};
use std::time::Duration;
use tokio::time::timeout;

const MIB: u64 = 1 << 20;
/// How long nothing must move to count as stuck.
const QUIET: Duration = Duration::from_millis(300);
/// What one bad session may cost, in bytes: some reads and writes of 64 KiB, and what the allocator keeps.
/// What is sent is many times as much.
const GROWTH_MAX: u64 = 16 * MIB;

fn rss(hub: &Hub) -> u64 {
    usage(hub.pid()).expect("the gateway runs").rss_bytes
}

/// The code that a client gets for these bytes.
async fn code_for(hub: &Hub, frames: &[Frame]) -> Option<u16> {
    let mut client = client(hub).await;
    for frame in frames {
        // The gateway may have had enough before the last one.
        if client.try_send(frame).await.is_err() {
            break;
        }
    }
    let events = client.until_close().await;
    let code = events.last().and_then(Event::close_code);
    if code.is_none() {
        println!("{frames:?} ended with {events:?}");
    }
    code
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_told_so() {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), "").await;
    let bad = [
        (1002, "no mask", Frame::text("x").unmasked()),
        (1002, "a Ping without a mask", Frame::ping("x").unmasked()),
        (1002, "compressed", Frame::text("x").reserved(4)),
        (
            1002,
            "a length in 2 bytes too many",
            Frame::text("x").length(Length::Bits16),
        ),
        (
            1002,
            "a length in 8 bytes too many",
            Frame::text("x").length(Length::Bits64),
        ),
        (
            1002,
            "a length past 2^63",
            Frame::binary("").length(Length::Says(1 << 63)),
        ),
        (1007, "no UTF-8", Frame::text([0xff])),
    ];
    for (code, what, frame) in bad {
        assert_eq!(code_for(&hub, &[frame]).await, Some(code), "{what}");
    }
    client(&hub).await.echo("well-behaved").await;
}

#[tokio::test]
async fn frames_and_messages_that_are_too_large_are_refused_by_their_heads() {
    let echo = EchoServer::start().await;
    let hub = gateway(
        echo.addr(),
        "frame_bytes_max = 1000, message_bytes_max = 1500",
    )
    .await;
    let mut good = client(&hub).await;
    good.send(&Frame::binary([7; 1000])).await;
    assert_eq!(good.next().await, Event::Binary(vec![7; 1000]));

    let frame = Frame::binary("").length(Length::Says(1001));
    assert_eq!(code_for(&hub, &[frame]).await, Some(1009), "a frame");
    let giant = Frame::binary("").length(Length::Says(1 << 62));
    assert_eq!(code_for(&hub, &[giant]).await, Some(1009), "a giant frame");
    let message = [
        Frame::binary([7; 1000]).unfinished(),
        Frame::continuation("").length(Length::Says(501)),
    ];
    assert_eq!(code_for(&hub, &message).await, Some(1009), "a message");
    good.echo("still here").await;
}

#[tokio::test]
async fn fragments_are_counted_and_small_ones_within_the_limit_pass() {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), "fragments_max = 1000").await;
    let text = "fragment! ".repeat(100);
    let mut client = client(&hub).await;
    for frame in Frame::fragments(opcode::TEXT, text.as_bytes(), 1) {
        client.send(&frame).await;
    }
    assert_eq!(client.next().await, Event::Text(text));

    let empty = vec![Frame::continuation("").unfinished(); 1000];
    let many = [vec![Frame::text("").unfinished()], empty].concat();
    assert_eq!(code_for(&hub, &many).await, Some(1008));
}

#[tokio::test]
async fn bad_text_is_noticed_before_its_frame_has_ended() {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), "").await;
    let mut client = client(&hub).await;
    let frame = Frame::text([&[0xc0, 0xaf][..], &[b'x'; 100]].concat()).bytes(Role::Client);
    client.send_raw(&frame[..20]).await;
    assert_eq!(client.next().await.close_code(), Some(1007));
}

/// The application reads nothing: what the client sends is taken until buffers are full, and no further.
#[tokio::test]
async fn a_flood_of_pings_is_slowed_where_nobody_reads_them() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "").await;
    let (client, upstream) = tokio::join!(client(&hub), application.open());
    let before = rss(&hub);
    let (mut sender, _receiver) = client.split();
    let ping = Frame::ping([b'p'; 125]).bytes(Role::Client).repeat(100);
    let sent = sender.send_until_stuck(&ping, 256 * MIB, QUIET).await;
    println!("{} MiB of pings went in", sent / MIB);
    assert!(sent < 256 * MIB, "the flood is not slowed");
    within(before, &hub);
    drop(upstream);
}

/// The client never reads its answers. An application may leave out answers that it cannot send, so the
/// flood may go on; it costs the gateway nothing, and its neighbours are served.
#[tokio::test]
async fn a_flood_of_pings_costs_little_and_leaves_others_alone() {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), "").await;
    let mut neighbour = client(&hub).await;
    let (mut sender, _receiver) = client(&hub).await.split();
    let before = rss(&hub);
    let ping = Frame::ping([b'p'; 125]).bytes(Role::Client).repeat(100);
    let flood = async {
        let sent = sender.send_until_stuck(&ping, 128 * MIB, QUIET).await;
        println!("{} MiB of pings went in", sent / MIB);
    };
    let beside = async {
        for _ in 0..100 {
            neighbour.echo("while the flood comes").await;
        }
        client(&hub).await.echo("new").await;
    };
    tokio::join!(flood, beside);
    within(before, &hub);
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_little_and_leaves_others_alone() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "").await;
    let (mut neighbour, mut beside) = tokio::join!(client(&hub), application.open());
    let (_slow, upstream) = tokio::join!(client(&hub), application.open());
    let before = rss(&hub);
    let (mut sender, _receiver) = upstream.split();
    let frame = Frame::binary(vec![7; 64 * 1024]).bytes(Role::Server);
    let sent = sender.send_until_stuck(&frame, 64 * MIB, QUIET).await;
    println!("{} MiB went in", sent / MIB);
    assert!(
        sent < 64 * MIB,
        "nobody reads, and the gateway takes all of it"
    );
    within(before, &hub);
    for _ in 0..100 {
        neighbour.send(&Frame::text("x")).await;
        assert_eq!(beside.next().await, Event::text("x"));
        beside.send(&Frame::text("y")).await;
        assert_eq!(neighbour.next().await, Event::text("y"));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "write_timeout_ms = 500").await;
    let (slow, upstream) = tokio::join!(client(&hub), application.open());
    let (mut sender, mut receiver) = upstream.split();
    let frame = Frame::binary(vec![7; 64 * 1024]);
    let told = async {
        let events = receiver.until_close().await;
        println!("the application was told {events:?}");
    };
    let pour = async { while sender.try_send(&frame).await.is_ok() {} };
    tokio::select! {
        () = told => {}
        () = pour => {}
    }
    drop(slow);
}

#[tokio::test]
async fn an_application_that_does_not_read_is_given_up_and_its_client_told() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "write_timeout_ms = 500").await;
    let (client, _deaf) = tokio::join!(client(&hub), application.open());
    let (mut sender, mut receiver) = client.split();
    let frame = Frame::binary(vec![7; 64 * 1024]);
    let pour = async {
        while sender.try_send(&frame).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        told = receiver.next() => assert_eq!(told.close_code(), Some(1008), "{told:?}"),
        () = pour => {}
    }
}

#[tokio::test]
async fn a_client_that_goes_on_after_its_breach_is_cut_off() {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), "close_timeout_ms = 300").await;
    let (mut sender, mut receiver) = client(&hub).await.split();
    sender.send(&Frame::text("x").unmasked()).await;
    assert_eq!(receiver.next().await.close_code(), Some(1002));
    let frame = Frame::binary(vec![7; 64 * 1024]);
    let go_on = async { while sender.try_send(&frame).await.is_ok() {} };
    timeout(PATIENCE, go_on).await.expect("it is cut off");
    assert!(receiver.next().await.is_last());
}

fn within(before: u64, hub: &Hub) {
    let after = rss(hub);
    println!("{} KiB before, {} KiB after", before / 1024, after / 1024);
    assert!(
        after < before + GROWTH_MAX,
        "{before} bytes before, {after} after"
    );
}
