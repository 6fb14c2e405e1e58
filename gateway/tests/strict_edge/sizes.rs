//! What is too large is refused while it comes, never after all of it is there.

use crate::edge::{edge, refused};
use hub_core::Reason;

/// Without its end: nothing more is needed to refuse it.
const HEAD: &str = "GET / HTTP/1.1\r\nHost: a\r\n";

refused! {
    one_huge_header_is_refused_before_it_ends: format!("{HEAD}Cookie: {}", "a".repeat(40_000)) => HeadTooLarge;
    a_huge_header_name_is_refused_before_it_ends: format!("{HEAD}{}", "a".repeat(40_000)) => HeadTooLarge;
    many_headers_are_refused_before_the_last: format!("{HEAD}{}", "A: b\r\n".repeat(100)) => HeadTooLarge;
    large_headers_in_all_are_refused_before_the_last: format!("{HEAD}{}", format!("A: {}\r\n", "b".repeat(1_000)).repeat(40)) => HeadTooLarge;
    a_long_target_is_refused_before_it_ends: format!("GET /{}", "a".repeat(9_000)) => UriTooLong;
    a_long_query_is_refused_before_it_ends: format!("GET /?{}", "a".repeat(9_000)) => UriTooLong;
}

#[tokio::test]
async fn the_listener_s_own_bounds_count() {
    let edge = edge(
        "uri_bytes_max = 64\nhead_bytes_max = 1024\nheader_count_max = 3",
        "",
    )
    .await;
    edge.served(format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\nA: b\r\nA: b\r\n\r\n",
        "a".repeat(63)
    ))
    .await;
    let mut client = edge.client().await;
    client
        .send(format!("GET /{} HTTP/1.1\r\n", "a".repeat(64)))
        .await;
    edge.assert_refused(&mut client, Reason::UriTooLong).await;
    assert_eq!(edge.origin.request_count(), 1);
}

#[tokio::test]
async fn a_length_above_the_route_s_bound_is_refused_before_the_body_is_sent() {
    let edge = edge("", "body_bytes_max = 10\n").await;
    let mut client = edge.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
        .await;
    let line = edge.assert_refused(&mut client, Reason::BodyTooLarge).await;
    assert_eq!(line["route"], "all");
    edge.assert_origin_untouched();
}

#[tokio::test]
async fn a_length_at_the_route_s_bound_is_served() {
    let edge = edge("", "body_bytes_max = 10\n").await;
    let answer = edge
        .served("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789")
        .await;
    assert_eq!(answer.json()["body"], "0123456789");
    edge.assert_nothing_refused().await;
}

#[tokio::test]
async fn a_chunk_that_would_exceed_the_route_s_bound_is_refused_when_it_is_announced() {
    let edge = edge("", "body_bytes_max = 10\n").await;
    let mut client = edge.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n")
        .await;
    edge.origin.wait_for_requests(1).await;
    client.send("3\r\n").await;
    edge.assert_refused(&mut client, Reason::BodyTooLarge).await;
    assert!(!edge.origin.requests()[0].complete);
    edge.origin.wait_for_open_connections(0).await;
    edge.served("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(edge.origin.requests()[1].connection, 1);
}

/// Closing with bytes unread makes the kernel reset the connection, and the answer with it.
#[tokio::test]
async fn a_client_that_goes_on_sending_too_much_can_still_read_why_it_may_not() {
    let edge = edge("", "body_bytes_max = 1000\n").await;
    let mut client = edge.client().await;
    let chunk = format!("{:x}\r\n{}\r\n", 50_000, "x".repeat(50_000));
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n{}",
            chunk.repeat(4)
        ))
        .await;
    client.half_close().await;
    edge.assert_refused(&mut client, Reason::BodyTooLarge).await;
}
