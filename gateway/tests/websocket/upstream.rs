//! Applications that do wrong: the client gets a Close, and its code says whose fault it was.

use super::{client, gateway};
use hub_testkit::websocket::{Event, Frame, Length, PlayedServer};

/// What a client sees of a session in which the application does this.
async fn seen(keys: &str, what: &str, frames: &[Frame]) -> Vec<Event> {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), keys).await;
    let (mut client, mut upstream) = tokio::join!(client(&hub), application.open());
    for frame in frames {
        upstream
            .try_send(frame)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let (seen, told) = tokio::join!(client.until_close(), upstream.until_close());
    println!("{what}: the client saw {seen:?}, the application {told:?}");
    seen
}

#[tokio::test]
async fn an_application_that_breaks_the_protocol_costs_its_client_the_session() {
    for (what, frame) in [
        ("a mask", Frame::text("x").masked([1, 2, 3, 4])),
        ("a reserved bit", Frame::text("x").reserved(2)),
        ("a reserved opcode", Frame::new(3, "x")),
        ("no UTF-8", Frame::text([0xff])),
        ("a continuation of nothing", Frame::continuation("x")),
        ("a fragmented Ping", Frame::ping("x").unfinished()),
        ("half of a code", Frame::close_with("x")),
        ("a code that is never sent", Frame::close(1005, "")),
        ("too large", Frame::binary("").length(Length::Says(2001))),
        ("compressed", Frame::text("x").reserved(4)),
    ] {
        let seen = seen(
            "frame_bytes_max = 2000, message_bytes_max = 2000",
            what,
            &[frame],
        )
        .await;
        // The beginning of bad text may have gone on, its frame has not.
        assert_eq!(seen.len(), 1, "{what}");
        let last = &seen[0];
        assert_eq!(last.close_code(), Some(1011), "{what}: {last:?}");
    }
}

#[tokio::test]
async fn what_came_before_the_breach_arrives() {
    let frames = [Frame::text("good"), Frame::text("bad").reserved(1)];
    let seen = seen("", "a reserved bit", &frames).await;
    assert_eq!(seen[0], Event::text("good"));
    assert_eq!(seen[1].close_code(), Some(1011));
}

#[tokio::test]
async fn a_client_whose_application_dies_is_told() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "").await;
    for dies in ["in an orderly way", "with a reset"] {
        let (mut client, mut upstream) = tokio::join!(client(&hub), application.open());
        upstream.send(&Frame::text("last words")).await;
        assert_eq!(client.next().await, Event::text("last words"));
        match dies {
            "with a reset" => upstream.reset(),
            _ => drop(upstream),
        }
        assert_eq!(client.next().await.close_code(), Some(1011), "{dies}");
    }
}

#[tokio::test]
async fn an_application_that_dies_within_a_frame_ends_the_connection() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "").await;
    let (mut client, mut upstream) = tokio::join!(client(&hub), application.open());
    upstream
        .send(&Frame::text("half").length(Length::Says(100)))
        .await;
    drop(upstream);
    // No frame can be put into the middle of another one.
    let last = client.next().await;
    assert!(matches!(last, Event::End | Event::Reset), "{last:?}");
}

#[tokio::test]
async fn a_close_of_the_application_reaches_the_client_as_it_is() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "").await;
    let (mut client, mut upstream) = tokio::join!(client(&hub), application.open());
    upstream.send(&Frame::close(4321, "all sold out")).await;
    let close = Event::Close(Some(4321), "all sold out".into());
    assert_eq!(client.next().await, close);
    client.send(&Frame::close(4321, "")).await;
    assert_eq!(
        upstream.next().await,
        Event::Close(Some(4321), String::new())
    );
    // Whichever of the two closes first, both come to an end.
    drop(upstream);
    assert_eq!(client.next().await, Event::End);
}

#[tokio::test]
async fn an_application_hears_of_a_client_that_leaves_without_a_word() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "").await;
    for leaves in ["in an orderly way", "with a reset"] {
        let (client, mut upstream) = tokio::join!(client(&hub), application.open());
        match leaves {
            "with a reset" => client.reset(),
            _ => drop(client),
        }
        assert_eq!(upstream.next().await.close_code(), Some(1001), "{leaves}");
    }
}
