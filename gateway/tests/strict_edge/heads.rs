//! Request lines, header lines and framing.

use crate::edge::{edge, refused};
use hub_core::Reason;
use hub_testkit::End;

/// A POST with these header lines, the body of a chunked request, and a request behind it that must
/// not be found in it.
fn post(lines: &str) -> String {
    format!(
        "POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    )
}

/// A GET with these header lines.
fn get(lines: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
}

refused! {
    // Framing.
    length_before_chunked_is_refused: post("Content-Length: 5\r\nTransfer-Encoding: chunked") => BadFraming;
    chunked_before_length_is_refused: post("Transfer-Encoding: chunked\r\nContent-Length: 5") => BadFraming;
    two_chunked_headers_are_refused: post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked") => BadFraming;
    chunked_and_identity_headers_are_refused: post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity") => BadFraming;
    chunked_twice_in_a_list_is_refused: post("Transfer-Encoding: chunked, chunked") => BadFraming;
    the_identity_coding_is_refused: post("Transfer-Encoding: identity") => BadFraming;
    an_unknown_coding_is_refused: post("Transfer-Encoding: xchunked") => BadFraming;
    a_coding_before_chunked_is_refused: post("Transfer-Encoding: gzip, chunked") => BadFraming;
    an_empty_coding_is_refused: post("Transfer-Encoding:") => BadFraming;
    a_quoted_coding_is_refused: post("Transfer-Encoding: \"chunked\"") => BadFraming;
    a_vertical_tab_before_the_coding_is_refused: post("Transfer-Encoding: \u{b}chunked") => BadHeader;
    a_folded_coding_is_refused: post("Transfer-Encoding:\r\n chunked") => BadFraming;
    a_coding_with_space_before_the_colon_is_refused: post("Transfer-Encoding : chunked") => BadHeader;
    a_coding_behind_a_bare_lf_is_refused: post("A: b\nTransfer-Encoding: chunked") => BadLineEnd;
    a_coding_spelled_with_an_underscore_is_refused: post("Transfer_Encoding: chunked") => BadHeader;
    a_coding_on_http_1_0_is_refused: "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" => BadFraming;
    two_different_lengths_are_refused: post("Content-Length: 5\r\nContent-Length: 6") => BadFraming;
    two_equal_lengths_are_refused: post("Content-Length: 5\r\nContent-Length: 5") => BadFraming;
    a_list_of_lengths_is_refused: post("Content-Length: 5, 5") => BadFraming;
    a_length_with_a_plus_is_refused: post("Content-Length: +5") => BadFraming;
    a_negative_length_is_refused: post("Content-Length: -1") => BadFraming;
    a_hexadecimal_length_is_refused: post("Content-Length: 0x5") => BadFraming;
    an_empty_length_is_refused: post("Content-Length:") => BadFraming;
    a_length_past_64_bits_is_refused: post("Content-Length: 18446744073709551621") => BadFraming;
    a_length_named_by_connection_is_refused: post("Connection: close, Content-Length\r\nContent-Length: 5") => BadFraming;

    // Request lines.
    a_bare_lf_after_the_request_line_is_refused: "GET / HTTP/1.1\nHost: a\r\n\r\n" => BadLineEnd;
    a_bare_lf_after_a_header_is_refused: get("A: b\nB: c") => BadLineEnd;
    a_head_of_bare_lfs_is_refused: "GET / HTTP/1.1\nHost: a\n\n" => BadLineEnd;
    a_bare_cr_in_a_value_is_refused: get("A: b\rc") => BadLineEnd;
    a_bare_cr_between_headers_is_refused: get("A: b\rTransfer-Encoding: chunked") => BadLineEnd;
    an_empty_line_before_the_request_is_refused: "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n" => BadSyntax;
    two_spaces_in_the_request_line_are_refused: "GET  / HTTP/1.1\r\nHost: a\r\n\r\n" => BadSyntax;
    a_request_without_version_is_refused: "GET /\r\n\r\n" => BadSyntax;
    a_tls_hello_on_a_plain_listener_is_refused: b"\x16\x03\x01\x02\x00\x01\x00" => BadSyntax;
    http_2_0_as_a_version_is_refused: "GET / HTTP/2.0\r\nHost: a\r\n\r\n" => BadVersion;
    the_http_2_preface_is_refused: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" => BadVersion;
    http_1_2_is_refused: "GET / HTTP/1.2\r\nHost: a\r\n\r\n" => BadVersion;
    connect_is_refused: "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n" => BadMethod;
    trace_is_refused: "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n" => BadMethod;
    a_method_that_is_no_token_is_refused: "G{T / HTTP/1.1\r\nHost: a\r\n\r\n" => BadMethod;

    // Header lines.
    a_nul_in_a_value_is_refused: get("A: b\0c") => BadHeader;
    a_nul_in_a_name_is_refused: get("A\0: b") => BadHeader;
    an_escape_byte_in_a_value_is_refused: get("A: \u{1b}[31m") => BadHeader;
    a_folded_line_is_refused: get("A: b\r\n c") => BadHeader;
    a_line_folded_with_a_tab_is_refused: get("A: b\r\n\tc") => BadHeader;
    a_space_before_the_colon_is_refused: get("A : b") => BadHeader;
    a_line_without_colon_is_refused: get("A") => BadHeader;
    an_empty_name_is_refused: get(": b") => BadHeader;
    a_tenant_look_alike_with_underscores_is_refused: get("X_Location_Id: loc_1") => BadHeader;
    a_tenant_look_alike_with_one_underscore_is_refused: get("X-Location_Id: loc_1") => BadHeader;
    a_look_alike_of_the_verified_subject_is_refused: get("X_Hub_Subject: admin") => BadHeader;
    a_forwarding_look_alike_is_refused: get("X_Forwarded_For: 1.1.1.1") => BadHeader;
    an_unknown_expectation_is_refused: get("Expect: 200-ok") => BadExpectation;
}

#[tokio::test]
async fn http_1_0_is_served_and_its_connection_closed() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client.send("GET /old HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let answer = client.read_response().await;
    assert_eq!(answer.status, 200);
    assert_eq!(client.wait_closed().await, End::Closed);
    assert_eq!(edge.origin.requests()[0].target, "/old");
    assert_eq!(edge.hub.wait_for_access_log(1).await[0]["status"], 200);
    edge.assert_nothing_refused().await;
}

#[tokio::test]
async fn a_bad_second_request_on_the_wire_is_refused_and_the_first_is_served() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client
        .send(format!(
            "{}{}",
            "GET /first HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ))
        .await;
    assert_eq!(client.read_response().await.status, 200);
    edge.assert_refused(&mut client, Reason::BadFraming).await;
    assert_eq!(edge.origin.request_count(), 1);
    assert!(!edge.origin_saw("/second"));
}

#[tokio::test]
async fn garbage_behind_a_request_is_refused_as_a_request_of_its_own() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client
        .send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\0garbage\r\n\r\n")
        .await;
    let answer = client.read_response().await;
    assert_eq!(answer.json()["body"], "hi");
    edge.assert_refused(&mut client, Reason::BadSyntax).await;
    assert!(!edge.origin_saw("garbage"));
}

#[tokio::test]
async fn good_pipelined_requests_are_answered_in_their_order() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client
        .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    for target in ["/1", "/2", "/3"] {
        assert_eq!(client.read_response().await.json()["target"], target);
    }
    assert_eq!(edge.hub.wait_for_access_log(3).await.len(), 3);
    edge.assert_nothing_refused().await;
}

#[tokio::test]
async fn an_expected_100_comes_from_the_origin_and_the_body_follows() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client
        .send("POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    assert_eq!(client.read_head().await.status, 100);
    assert_eq!(edge.origin.requests()[0].body_bytes, 0);
    client.send("hi").await;
    let answer = client.read_response().await;
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
    assert_eq!(answer.json()["body"], "hi");
    assert_eq!(edge.hub.wait_for_access_log(1).await[0]["bytes_in"], 2);
    edge.assert_nothing_refused().await;
}
