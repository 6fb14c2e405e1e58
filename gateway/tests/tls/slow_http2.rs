//! HTTP/2 clients that take their time. The waits here are the gateway's own deadlines, made short.

use crate::http2::{Http2, request};
use crate::start_with;
use bytes::Bytes;
use hub_testkit::{Ca, Hub, Origin, Reply, Wire};

async fn slow(origin: &Origin, ca: &Ca, listener: &str) -> Hub {
    start_with(origin, &[&ca.issue(&["a.test"])], "", listener, "").await
}

#[tokio::test]
async fn a_stream_whose_window_stays_closed_ends_at_the_write_timeout() {
    let origin = Origin::builder()
        .respond(Reply::ok("never taken"))
        .start()
        .await;
    let ca = Ca::new("public authority");
    let hub = slow(&origin, &ca, "write_timeout_ms = 100").await;
    let mut settings = h2::client::Builder::new();
    settings.initial_window_size(0);
    let client = Http2::connect_with(&hub, &ca, &settings).await;
    let mut requests = client.requests.clone().ready().await.expect("room");
    let (answer, _) = requests
        .send_request(request("GET", "/", &[]), true)
        .expect("a stream");
    let mut answer = answer.await.expect("a head");
    let end = answer.body_mut().data().await.expect("an end");
    assert!(end.expect_err("no byte fits").is_reset());
    let line = &hub.wait_for_access_log(1).await[0];
    assert_eq!((&line["status"], &line["path"]), (&200.into(), &"/".into()));
    // Other streams live on.
    assert!(!client.connection.is_finished());
}

#[tokio::test]
async fn a_request_body_that_stops_is_given_up_at_the_body_timeout() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let hub = slow(&origin, &ca, "body_timeout_ms = 100").await;
    let client = Http2::connect(&hub, &ca).await;
    let mut requests = client.requests.clone().ready().await.expect("room");
    let (answer, mut body) = requests
        .send_request(request("POST", "/stops", &[]), false)
        .expect("a stream");
    body.send_data(Bytes::from_static(b"x"), false)
        .expect("room");
    answer.await.expect_err("the stream is reset");
    let line = &hub.wait_for_access_log(1).await[0];
    assert_eq!(line["reason"], "body_timeout", "{line}");
    // The record says what was asked for although the stream was dropped in the middle.
    assert_eq!(line["method"], "POST", "{line}");
    assert_eq!(line["path"], "/stops", "{line}");
    assert_eq!(line["host"], "a.test", "{line}");
    origin.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn a_connection_that_never_says_its_preface_is_closed() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let hub = slow(&origin, &ca, "head_timeout_ms = 100").await;
    for said in [
        "",
        "PRI * HTTP/2.0\r\n\r\nSM",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut wire = Wire::connect_tls(hub.addr("public"), "a.test", ca.roots(), &["h2"]).await;
        assert_eq!(wire.alpn().as_deref(), Some("h2"));
        wire.send(said).await;
        wire.read_to_close().await;
    }
    assert_eq!(origin.connections(), 0);
}
