//! Nobody is kept waiting at the end of a session: clients leave it to the server to end the connection, and
//! `close_timeout_ms` is for peers that do not answer. Here it is longer than a test waits.

use super::{client, gateway};
use hub_testkit::websocket::{EchoServer, Event, Frame, Length, PlayedServer, Role};

const KEYS: &str = "close_timeout_ms = 60000";

#[tokio::test]
async fn a_client_that_broke_the_protocol_and_answered_is_let_go() {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), KEYS).await;
    let mut client = client(&hub).await;
    client.send(&Frame::text("x").unmasked()).await;
    assert_eq!(client.next().await.close_code(), Some(1002));
    client.answer_close(Some(1002)).await;
}

#[tokio::test]
async fn a_client_that_answered_is_not_held_by_an_application_that_does_not() {
    let application = PlayedServer::start().await;
    let keys = format!("{KEYS}, idle_timeout_ms = 200");
    let hub = gateway(application.addr(), &keys).await;
    let (mut client, _deaf) = tokio::join!(client(&hub), application.open());
    assert_eq!(client.next().await.close_code(), Some(1001));
    client.answer_close(Some(1001)).await;
}

#[tokio::test]
async fn a_client_within_a_frame_that_nobody_will_end_is_let_go() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), KEYS).await;
    let (mut client, mut upstream) = tokio::join!(client(&hub), application.open());
    let half = Frame::text("half").length(Length::Says(100));
    upstream.send(&half).await;
    drop(upstream);
    let last = client.next().await;
    assert!(matches!(last, Event::End | Event::Reset), "{last:?}");
}

/// The application has the beginning of a frame whose end is not let through.
#[tokio::test]
async fn a_client_whose_text_goes_bad_within_a_frame_is_let_go_and_so_is_its_application() {
    let application = PlayedServer::start().await;
    let hub = gateway(application.addr(), KEYS).await;
    let (mut client, mut upstream) = tokio::join!(client(&hub), application.open());
    let text = [&[b'x'; 50][..], &[0xc0, 0xaf], &[b'x'; 50]].concat();
    let frame = Frame::text(text).bytes(Role::Client);
    client.send_raw(&frame[..40]).await;
    upstream.wait_for_bytes(40).await;
    client.send_raw(&frame[40..80]).await;
    assert_eq!(client.next().await.close_code(), Some(1007));
    let last = upstream.next().await;
    assert!(matches!(last, Event::End | Event::Reset), "{last:?}");
    drop(upstream);
    client.answer_close(Some(1007)).await;
}
