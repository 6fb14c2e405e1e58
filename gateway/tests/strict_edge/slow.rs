//! Clients that take their time. The waits here are the gateway's own deadlines, made short.

use crate::edge::{Edge, edge};
use hub_core::{Reason, names};
use hub_testkit::{End, Origin, Reply, Wire};
use std::time::Duration;

#[tokio::test]
async fn a_head_that_does_not_end_is_refused_at_its_deadline() {
    let edge = edge("head_timeout_ms = 100", "").await;
    let mut client = edge.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    edge.assert_refused(&mut client, Reason::HeadTimeout).await;
    edge.assert_origin_untouched();
}

#[tokio::test]
async fn a_head_that_drips_does_not_move_its_deadline() {
    let edge = edge("head_timeout_ms = 300", "").await;
    let mut client = edge.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let mut pace = tokio::time::interval(Duration::from_millis(30));
    let mut drops = 0;
    while !edge
        .hub
        .access_log()
        .iter()
        .any(|line| line["reason"] == "head_timeout")
    {
        pace.tick().await;
        // The gateway may have closed by now.
        let _closed = client.try_send("A: b\r\n").await;
        drops += 1;
        assert!(drops < 300, "still open after {drops} drops");
    }
    edge.assert_counted(Reason::HeadTimeout).await;
    edge.assert_origin_untouched();
}

#[tokio::test]
async fn a_body_that_stops_is_refused_at_its_deadline_and_costs_the_upstream_connection() {
    let edge = edge("body_timeout_ms = 100", "").await;
    let mut client = edge.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0")
        .await;
    edge.assert_refused(&mut client, Reason::BodyTimeout).await;
    edge.origin.wait_for_open_connections(0).await;
    assert!(
        edge.origin
            .requests()
            .iter()
            .all(|request| !request.complete)
    );
}

#[tokio::test]
async fn a_first_chunk_line_that_does_not_come_is_refused_before_the_origin_hears_of_it() {
    let edge = edge("body_timeout_ms = 100", "").await;
    let mut client = edge.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5")
        .await;
    edge.assert_refused(&mut client, Reason::BodyTimeout).await;
    edge.assert_origin_untouched();
}

#[tokio::test]
async fn a_connection_that_never_asks_is_closed_at_the_idle_timeout() {
    let edge = edge("idle_timeout_ms = 100", "").await;
    let mut client = edge.client().await;
    assert_eq!(client.wait_closed().await, End::Closed);
    edge.assert_nothing_refused().await;
    edge.assert_origin_untouched();
}

#[tokio::test]
async fn a_connection_that_asks_no_more_is_closed_at_the_idle_timeout() {
    let edge = edge("idle_timeout_ms = 100", "").await;
    let mut client = edge.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(client.wait_closed().await, End::Closed);
    edge.assert_nothing_refused().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_at_the_write_timeout() {
    const ANSWER: u64 = 256 << 20;
    let origin = Origin::builder()
        .respond(Reply::new(200).repeated(b'x', ANSWER))
        .start()
        .await;
    let edge = Edge::before(origin, "write_timeout_ms = 100", "").await;
    let mut client = edge.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    edge.hub
        .wait_for_metric(names::CONNECTIONS_CLOSED_TOTAL, &[], |closed| closed >= 1.0)
        .await;
    edge.origin.wait_for_open_connections(0).await;
    assert!(edge.origin.sent_bytes() < ANSWER);
    assert_eq!(edge.hub.wait_for_access_log(1).await[0]["status"], 200);
}

/// No answer is larger than what is gathered before it is written, so none is written in parts.
#[tokio::test]
async fn a_client_that_reads_none_of_many_small_answers_is_closed_at_the_write_timeout() {
    let origin = Origin::builder()
        .respond(Reply::new(200).repeated(b'x', 10_000))
        .start()
        .await;
    let edge = Edge::before(origin, "write_timeout_ms = 100", "").await;
    let mut client = edge.client().await;
    // 20 MB of answers are more than all buffers hold.
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_000))
        .await;
    edge.hub
        .wait_for_metric(names::CONNECTIONS_CLOSED_TOTAL, &[], |closed| closed >= 1.0)
        .await;
    assert!(edge.origin.request_count() < 2_000);
}

#[tokio::test]
async fn a_client_that_leaves_before_its_first_chunk_is_not_refused() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client
        .send("POST /gone HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5")
        .await;
    edge.hub
        .wait_for_metric(names::REQUESTS_STARTED_TOTAL, &[], |begun| begun >= 1.0)
        .await;
    drop(client);
    let line = &edge.hub.wait_for_access_log(1).await[0];
    assert_eq!(
        (&line["method"], &line["path"]),
        (&"POST".into(), &"/gone".into())
    );
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&0.into(), &serde_json::Value::Null)
    );
    edge.assert_nothing_refused().await;
    edge.assert_origin_untouched();
}

#[tokio::test]
async fn five_hundred_idle_and_half_sent_connections_do_not_stop_a_good_client() {
    let edge = edge("", "").await;
    let mut held: Vec<Wire> = Vec::new();
    for index in 0..500 {
        let mut client = edge.client().await;
        if index % 2 == 0 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
        }
        held.push(client);
    }
    edge.hub
        .wait_for_metric(names::CONNECTIONS_OPENED_TOTAL, &[], |opened| {
            opened >= 500.0
        })
        .await;
    edge.served("GET /good HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(edge.origin.request_count(), 1);
    // They were held all the while: one of them can still finish.
    held[498].send("\r\n").await;
    assert_eq!(held[498].read_response().await.status, 200);
    edge.assert_nothing_refused().await;
}
