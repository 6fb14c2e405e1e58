use super::*;
use crate::front::head::{HeadLimits, parse};

/// The request line and headers that the upstream would get.
fn forwarded(text: &str) -> String {
    let limits = HeadLimits {
        head_bytes_max: 4096,
        uri_bytes_max: 4096,
        header_count_max: 100,
    };
    let head = parse(text.as_bytes(), &limits)
        .expect("a good head")
        .expect("a whole head");
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let request = request_line(&head, &bytes).expect("pingora can hold it");
    assert!(request.headers.is_empty());
    let mut outgoing = Outgoing::new(&head, bytes).expect("pingora can hold it");
    let headers = outgoing.take().expect("they were made");
    let again = outgoing.take().expect("they can be made again");
    assert_eq!(headers, again, "a second try differs from the first");
    let target = String::from_utf8_lossy(request.raw_path());
    let mut out = format!("{} {target} {:?}", request.method, request.version);
    for (name, value) in &headers {
        out += &format!("|{name}: {}", value.to_str().expect("ASCII"));
    }
    out
}

#[test]
fn an_absolute_target_goes_up_as_a_plain_one_with_the_checked_host() {
    for (text, expected) in [
        (
            "GET http://A.example:80/x?y HTTP/1.1\r\nX-A: 1\r\nhost: a.example\r\nB:\r\n\r\n",
            "GET /x?y HTTP/1.1|x-a: 1|host: a.example|b: ",
        ),
        (
            "GET http://b:81 HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0|host: b:81",
        ),
        (
            "GET http://b?c=d HTTP/1.0\r\n\r\n",
            "GET /?c=d HTTP/1.0|host: b",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1|host: a",
        ),
    ] {
        assert_eq!(forwarded(text), expected);
    }
}

#[test]
fn a_target_goes_up_byte_for_byte() {
    for target in ["/", "/a%2Db//c?x=%5B&y", "/a?", "/%C3%BC?q=a|b"] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(forwarded(&text), format!("GET {target} HTTP/1.1|host: a"));
    }
}

#[test]
fn what_concerns_one_connection_stays_here() {
    let hops = "Connection: keep-alive, X-Mine ,close\r\nx-mine: 1\r\nX-MINE: 2\r\nKeep-Alive: timeout=5\r\n\
        TE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\nProxy-Authorization: a\r\n\
        Proxy-Authenticate: b\r\nProxy-Connection: close\r\nHTTP2-Settings: c\r\nUpgrade: h2c\r\n";
    let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{hops}X-Kept: 1\r\n\r\n");
    assert_eq!(forwarded(&text), "POST / HTTP/1.1|host: a|x-kept: 1");
}

#[test]
fn only_the_gateway_says_what_only_it_may_say() {
    let ours = "X-Hub-Subject: s\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\n\
        X-Forwarded-Server: s\r\nX-HUB-Any: 1\r\n";
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{ours}\r\n");
    assert_eq!(forwarded(&text), "GET / HTTP/1.1|host: a");
}
