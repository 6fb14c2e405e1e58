//! PROXY headers are believed from the networks that may send them, and from nobody else. A
//! connection that is refused here has no request yet: it is closed and counted, and not logged.

use crate::edge::{Edge, edge};
use hub_core::Reason;

const REQUIRED: &str = "proxy_protocol = \"required\"\nproxy_protocol_from = [\"127.0.0.0/8\"]";
const OPTIONAL: &str = "proxy_protocol = \"optional\"\nproxy_protocol_from = [\"127.0.0.0/8\"]";
const OTHERS: &str = "proxy_protocol = \"required\"\nproxy_protocol_from = [\"10.0.0.0/8\"]";
const OTHERS_OPTIONAL: &str =
    "proxy_protocol = \"optional\"\nproxy_protocol_from = [\"10.0.0.0/8\"]";
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 80\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x12\x67\x00\x50";
const V2_IPV6: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x12\x67\x00\x50";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// With this header in front, the origin and the log see this client.
async fn believed(listener: &str, header: &[u8], client: &str) {
    let edge = edge(listener, "").await;
    edge.served([header, GET].concat()).await;
    assert_eq!(
        edge.origin.requests()[0].header("x-forwarded-for"),
        Some(client)
    );
    assert_eq!(edge.hub.wait_for_access_log(1).await[0]["client"], client);
    edge.assert_nothing_refused().await;
}

/// A connection that begins like this is closed without a word.
async fn closed(listener: &str, bytes: &[u8]) {
    let edge = edge(listener, "").await;
    let mut client = edge.client().await;
    client.send(bytes).await;
    let (answer, _) = client.read_to_end().await;
    assert_eq!(answer, b"");
    edge.assert_counted(Reason::BadProxyHeader).await;
    edge.assert_origin_untouched();
    assert!(edge.hub.access_log().is_empty());
}

#[tokio::test]
async fn version_1_from_a_trusted_network_is_believed() {
    believed(REQUIRED, V1, "203.0.113.7").await;
}

#[tokio::test]
async fn version_2_from_a_trusted_network_is_believed() {
    believed(REQUIRED, V2, "203.0.113.7").await;
}

#[tokio::test]
async fn version_2_with_ipv6_is_believed() {
    believed(REQUIRED, V2_IPV6, "2001:db8::7").await;
}

#[tokio::test]
async fn version_2_local_leaves_the_socket_s_address() {
    believed(REQUIRED, V2_LOCAL, "127.0.0.1").await;
}

#[tokio::test]
async fn an_optional_header_is_believed_where_it_is_there() {
    believed(OPTIONAL, V1, "203.0.113.7").await;
}

#[tokio::test]
async fn an_optional_header_may_be_absent() {
    believed(OPTIONAL, b"", "127.0.0.1").await;
}

#[tokio::test]
async fn a_header_that_comes_byte_by_byte_is_believed() {
    let edge = edge(REQUIRED, "").await;
    let mut client = edge.client().await;
    client.send_bytewise([V2, GET].concat()).await;
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(
        edge.hub.wait_for_access_log(1).await[0]["client"],
        "203.0.113.7"
    );
}

#[tokio::test]
async fn a_required_header_that_is_missing_closes_the_connection() {
    closed(REQUIRED, GET).await;
}

#[tokio::test]
async fn a_header_from_another_network_closes_the_connection() {
    closed(OTHERS, &[V1, GET].concat()).await;
}

#[tokio::test]
async fn a_malformed_version_1_closes_the_connection() {
    closed(
        REQUIRED,
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
}

#[tokio::test]
async fn a_malformed_version_2_closes_the_connection() {
    closed(REQUIRED, b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c").await;
}

#[tokio::test]
async fn an_optional_header_from_another_network_is_read_as_http_and_refused() {
    let edge: Edge = edge(OTHERS_OPTIONAL, "").await;
    let mut client = edge.client().await;
    client.send([V1, GET].concat()).await;
    let line = edge.assert_refused(&mut client, Reason::BadSyntax).await;
    assert_eq!(line["client"], "127.0.0.1");
    edge.assert_origin_untouched();
}

#[tokio::test]
async fn a_header_where_none_is_looked_for_is_read_as_http_and_refused() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client.send([V2, GET].concat()).await;
    let line = edge.assert_refused(&mut client, Reason::BadSyntax).await;
    assert_eq!(line["client"], "127.0.0.1");
    edge.assert_origin_untouched();
}
