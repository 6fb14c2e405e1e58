//! Peers that do nothing: they are asked whether they are there, and are let go.

use super::{client, gateway};
use hub_testkit::websocket::{Client, EchoServer, Event, Frame, PlayedServer, Role};

/// Sends something, now and then, for as long as the session is there.
async fn keep_talking(client: Client) -> Vec<Event> {
    let (mut sender, mut receiver) = client.split();
    let talk = async {
        loop {
            // It ends with the session, and `until_close` sees how.
            sender.try_send(&Frame::text("x")).await.ok();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        events = receiver.until_close() => events,
        () = talk => unreachable!("it never ends"),
    }
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_let_go() {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), "ping_interval_ms = 100, pong_timeout_ms = 100").await;
    let mut client = client(&hub).await;
    assert!(matches!(client.next().await, Event::Ping(_)));
    let last = client.next().await;
    assert!(
        matches!(
            last,
            Event::Close(Some(1011), _) | Event::End | Event::Reset
        ),
        "{last:?}"
    );
}

#[tokio::test]
async fn an_application_that_answers_no_ping_is_let_go_and_its_client_told() {
    let application = PlayedServer::start().await;
    let hub = gateway(
        application.addr(),
        "ping_interval_ms = 100, pong_timeout_ms = 100",
    )
    .await;
    let (mut client, mut upstream) = tokio::join!(client(&hub), application.open());
    let answer = async {
        loop {
            match client.next().await {
                Event::Ping(said) => client.send(&Frame::pong(said)).await,
                event => return event,
            }
        }
    };
    let (told, seen) = tokio::join!(answer, upstream.until_close());
    assert_eq!(told.close_code(), Some(1011), "{told:?}");
    assert!(matches!(seen[0], Event::Ping(_)), "{seen:?}");
}

#[tokio::test]
async fn pings_of_the_gateway_and_their_answers_go_no_further() {
    let application = PlayedServer::start().await;
    let hub = gateway(
        application.addr(),
        "ping_interval_ms = 50, pong_timeout_ms = 60000",
    )
    .await;
    let (mut client, mut upstream) = tokio::join!(client(&hub), application.open());
    // Each side answers three, and then finds nothing from the other one but what it said itself.
    for peer in [&mut client, &mut upstream] {
        for _ in 0..3 {
            match peer.next().await {
                Event::Ping(said) => peer.send(&Frame::pong(said)).await,
                event => panic!("{event:?}"),
            }
        }
    }
    client.send(&Frame::pong("own")).await;
    upstream.send(&Frame::ping("own")).await;
    for (peer, wanted) in [
        (&mut client, Event::Ping(b"own".to_vec())),
        (&mut upstream, Event::Pong(b"own".to_vec())),
    ] {
        loop {
            match peer.next().await {
                event if event == wanted => break,
                Event::Ping(_) => {}
                event => panic!("{event:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_ping_of_the_gateway_waits_for_the_end_of_a_frame() {
    let application = PlayedServer::start().await;
    let keys = "ping_interval_ms = 50, pong_timeout_ms = 60000";
    let hub = gateway(application.addr(), keys).await;
    let (mut client, mut upstream) = tokio::join!(client(&hub), application.open());
    let message = Frame::text("in two pieces").bytes(Role::Server);
    upstream.send_raw(&message[..5]).await;
    // It has been silent for as long as the client has, so that one is to be asked, too.
    assert!(matches!(upstream.next().await, Event::Ping(_)));
    upstream.send_raw(&message[5..]).await;
    assert_eq!(client.next().await, Event::text("in two pieces"));
    assert!(matches!(client.next().await, Event::Ping(_)));
}

#[tokio::test]
async fn a_session_without_messages_is_closed() {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), "idle_timeout_ms = 300").await;
    let mut client = client(&hub).await;
    client.echo("once").await;
    assert_eq!(client.next().await.close_code(), Some(1001));
    client.answer_close(Some(1001)).await;
}

#[tokio::test]
async fn a_session_that_is_old_is_closed_however_busy() {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), "lifetime_ms = 500").await;
    let events = keep_talking(client(&hub).await).await;
    let last = events.last().and_then(Event::close_code);
    assert_eq!(last, Some(1001), "{events:?}");
}

#[tokio::test]
async fn a_client_that_never_answers_close_is_left() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "close_timeout_ms = 300").await;
    let (mut client, mut upstream) = tokio::join!(client(&hub), application.open());
    upstream.send(&Frame::close(4001, "enough")).await;
    let close = Event::Close(Some(4001), "enough".into());
    assert_eq!(client.next().await, close);
    // The client says nothing at all, and both connections end.
    let (left, ended) = tokio::join!(client.next(), upstream.next());
    assert!(left.is_last() && left.close_code().is_none(), "{left:?}");
    assert!(ended.is_last(), "{ended:?}");
}

#[tokio::test]
async fn an_application_that_never_answers_close_is_left() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), "close_timeout_ms = 300").await;
    let (mut client, mut upstream) = tokio::join!(client(&hub), application.open());
    client.send(&Frame::close(4002, "bye")).await;
    let close = Event::Close(Some(4002), "bye".into());
    assert_eq!(upstream.next().await, close);
    let (left, ended) = tokio::join!(client.next(), upstream.next());
    assert!(left.is_last(), "{left:?}");
    assert!(matches!(ended, Event::End | Event::Reset), "{ended:?}");
}
