use super::*;
use crate::front::head::{HeadLimits, parse};

/// The request line and headers that the upstream would get.
fn forwarded(text: &str, websocket: bool) -> String {
    let limits = HeadLimits {
        head_bytes_max: 4096,
        uri_bytes_max: 4096,
        header_count_max: 100,
    };
    let head = parse(text.as_bytes(), &limits)
        .expect("a good head")
        .expect("a whole head");
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let request = request_header(&head, &bytes, websocket).expect("pingora can hold it");
    let target = String::from_utf8_lossy(request.raw_path());
    let mut out = format!("{} {target} {:?}", request.method, request.version);
    for (name, value) in &request.headers {
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
        assert_eq!(forwarded(text, false), expected);
    }
}

#[test]
fn a_target_goes_up_byte_for_byte() {
    for target in ["/", "/a%2Db//c?x=%5B&y", "/a?", "/%C3%BC?q=a|b"] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            forwarded(&text, false),
            format!("GET {target} HTTP/1.1|host: a")
        );
    }
}

#[test]
fn only_a_tunnels_request_keeps_its_upgrade() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert!(!forwarded(text, false).contains("upgrade: "));
    assert!(forwarded(text, true).contains("|upgrade: websocket"));
}
