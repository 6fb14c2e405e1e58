//! Who is asked for: Host and absolute URIs.

use crate::edge::{edge, refused};

fn host(value: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n")
}

refused! {
    a_missing_host_is_refused: "GET / HTTP/1.1\r\nA: b\r\n\r\n" => BadHost;
    a_missing_host_is_refused_on_http_1_0_too: "GET / HTTP/1.0\r\n\r\n" => BadHost;
    an_empty_host_is_refused: host("") => BadHost;
    two_hosts_are_refused: "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" => BadHost;
    two_equal_hosts_are_refused: "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n" => BadHost;
    a_list_of_hosts_is_refused: host("a, b") => BadHost;
    a_space_in_the_host_is_refused: host("a b") => BadHost;
    a_port_past_65535_is_refused: host("a:99999999") => BadHost;
    port_0_is_refused: host("a:0") => BadHost;
    a_port_that_is_no_number_is_refused: host("a:http") => BadHost;
    user_information_in_the_host_is_refused: host("user@a") => BadHost;
    a_path_in_the_host_is_refused: host("a/b") => BadHost;
    an_escape_in_the_host_is_refused: host("a%2eb") => BadHost;
    an_ipv4_address_as_one_number_is_refused: host("2130706433") => BadHost;
    an_ipv6_address_without_brackets_is_refused: host("::1") => BadHost;
    an_absolute_uri_of_another_host_is_refused: "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n" => BadHost;
    an_absolute_uri_of_another_port_is_refused: "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n" => BadHost;
    an_absolute_uri_without_host_header_is_refused: "GET http://a/ HTTP/1.1\r\n\r\n" => BadHost;
    user_information_in_an_absolute_uri_is_refused: "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n" => BadHost;
    an_absolute_uri_of_another_scheme_is_refused: "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n" => BadPath;
}

#[tokio::test]
async fn an_absolute_uri_of_the_same_host_goes_up_in_origin_form() {
    let edge = edge("", "").await;
    edge.served("GET http://a.example/x/./y?z=%2F HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    edge.served("GET http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    let requests = edge.origin.requests();
    assert_eq!(requests[0].target, "/x/./y?z=%2F");
    assert_eq!(
        requests[0].header_all("host").collect::<Vec<_>>(),
        ["a.example"]
    );
    assert_eq!(requests[1].target, "/");
    edge.served("GET http://A.Example:80/ HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    edge.served("GET http://b.example/ HTTP/1.0\r\n\r\n").await;
    let requests = edge.origin.requests();
    assert_eq!(requests[2].header("host"), Some("a.example"));
    assert_eq!(requests[3].header("host"), Some("b.example"));
    edge.assert_nothing_refused().await;
}
