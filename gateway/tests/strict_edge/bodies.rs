//! Chunked bodies: a fault in the first chunk line reaches no origin; a later one is refused, and the
//! upstream connection on which the beginning went out is never used again.

use crate::edge::{Edge, edge, refused};
use hub_core::Reason;

const CHUNKED: &str = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunked(body: &str) -> String {
    format!("{CHUNKED}{body}")
}

refused! {
    a_chunk_without_size_is_refused: chunked("\r\nhello\r\n0\r\n\r\n") => BadChunk;
    a_chunk_size_with_0x_is_refused: chunked("0x5\r\nhello\r\n0\r\n\r\n") => BadChunk;
    a_chunk_size_with_a_space_before_it_is_refused: chunked(" 5\r\nhello\r\n0\r\n\r\n") => BadChunk;
    a_chunk_size_with_a_space_after_it_is_refused: chunked("5 \r\nhello\r\n0\r\n\r\n") => BadChunk;
    a_chunk_size_with_a_plus_is_refused: chunked("+5\r\nhello\r\n0\r\n\r\n") => BadChunk;
    a_negative_chunk_size_is_refused: chunked("-5\r\nhello\r\n0\r\n\r\n") => BadChunk;
    a_chunk_size_past_64_bits_is_refused: chunked("10000000000000005\r\nhello\r\n0\r\n\r\n") => BadChunk;
    a_chunk_size_that_is_no_number_is_refused: chunked("five\r\nhello\r\n0\r\n\r\n") => BadChunk;
    a_bare_lf_after_the_first_chunk_size_is_refused: chunked("5\nhello\r\n0\r\n\r\n") => BadChunk;
    a_bare_cr_after_the_first_chunk_size_is_refused: chunked("5\rhello\r\n0\r\n\r\n") => BadChunk;
    a_bare_lf_in_a_chunk_extension_is_refused: chunked("5;a\nb\r\nhello\r\n0\r\n\r\n") => BadChunk;
    a_chunk_extension_without_name_is_refused: chunked("5;\r\nhello\r\n0\r\n\r\n") => BadChunk;
}

/// Sends the head and a good first chunk, then, once the origin has them, these bytes, which must be
/// refused without the origin getting `hidden`.
async fn refused_later(bytes: &str, hidden: &str) {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client.send(chunked("5\r\nhello\r\n")).await;
    edge.origin.wait_for_requests(1).await;
    client.send(bytes).await;
    edge.assert_refused(&mut client, Reason::BadChunk).await;
    assert!(!edge.origin_saw(hidden));
    assert!(!edge.origin.requests()[0].complete);
    assert_connection_discarded(&edge).await;
}

/// The connection of the first request is closed, and the next request comes on another one.
async fn assert_connection_discarded(edge: &Edge) {
    edge.origin.wait_for_open_connections(0).await;
    edge.served("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let next = &edge.origin.requests()[1];
    assert_eq!((next.target.as_str(), next.connection), ("/next", 1));
}

macro_rules! refused_later {
    ($($name:ident: $bytes:literal, $hidden:literal;)+) => {$(
        #[tokio::test]
        async fn $name() {
            refused_later($bytes, $hidden).await;
        }
    )+};
}

refused_later! {
    a_later_chunk_without_number_is_refused: "zz\r\nhidden\r\n0\r\n\r\n", "hidden";
    a_later_chunk_with_a_bare_lf_is_refused: "6\nhidden\r\n0\r\n\r\n", "hidden";
    a_later_chunk_with_a_space_is_refused: "6 \r\nhidden\r\n0\r\n\r\n", "hidden";
    a_later_chunk_with_more_than_it_says_is_refused: "3\r\nabcdefgh\r\n0\r\n\r\n", "defgh";
    a_later_chunk_with_less_than_it_says_is_refused: "9\r\nabc\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n", "hidden";
    a_trailer_that_frames_is_refused: "0\r\nContent-Length: 5\r\n\r\n", "Content-Length";
    a_trailer_that_names_a_tenant_is_refused: "0\r\nX-Location-Id: loc_2\r\n\r\n", "loc_2";
    a_folded_trailer_is_refused: "0\r\nA: b\r\n hidden\r\n\r\n", "hidden";
    a_bare_lf_after_the_last_chunk_is_refused: "0\r\n\nGET /hidden HTTP/1.1\r\n\r\n", "hidden";
}

#[tokio::test]
async fn a_good_body_goes_up_whole_and_its_connection_is_used_again() {
    let edge = edge("", "").await;
    let answer = edge
        .served(chunked("5;x=\"y\"\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"))
        .await;
    assert_eq!(answer.json()["body"], "hello world");
    edge.assert_nothing_refused().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_its_body_costs_the_upstream_connection() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client.send(chunked("5\r\nhello\r\n")).await;
    edge.origin.wait_for_requests(1).await;
    drop(client);
    edge.hub.wait_for_access_log(1).await;
    assert_connection_discarded(&edge).await;
}

#[tokio::test]
async fn a_bad_first_chunk_after_100_continue_is_refused_and_costs_the_upstream_connection() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client
        .send("POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(client.read_head().await.status, 100);
    client.send("0x6\r\nhidden\r\n0\r\n\r\n").await;
    edge.assert_refused(&mut client, Reason::BadChunk).await;
    assert!(!edge.origin_saw("hidden"));
    assert_connection_discarded(&edge).await;
}
