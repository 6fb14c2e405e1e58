use super::*;

fn response(status: u16, headers: &[(&'static str, &str)]) -> ResponseHeader {
    let mut response = ResponseHeader::build(status, None).unwrap();
    for (name, value) in headers {
        response.append_header(*name, *value).unwrap();
    }
    response
}

fn head(response: &ResponseHeader, connection: Option<&str>, tunnel: bool) -> String {
    let mut out = BytesMut::new();
    put_head(
        &mut out,
        response,
        &ResponseDress::default(),
        connection,
        tunnel,
    );
    String::from_utf8(out.to_vec()).unwrap()
}

fn framed(framer: &mut Framer, pieces: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for text in pieces {
        let Some(piece) = framer.piece(text.as_bytes()) else {
            continue;
        };
        if let Some(line) = piece.chunk_line {
            out.extend_from_slice(line.as_bytes());
        }
        out.extend_from_slice(piece.payload);
        if piece.chunk_line.is_some() {
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(framer.end().unwrap());
    out
}

#[test]
fn bodies_are_delimited_as_their_head_says() {
    for (method, status, headers, expected) in [
        (Method::GET, 200, &[("content-length", "5")][..], "abcde"),
        (Method::GET, 200, &[("content-length", "5, 5")], "abcde"),
        (
            Method::GET,
            200,
            &[("transfer-encoding", "gzip, Chunked")],
            "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
        ),
        (Method::GET, 200, &[], "abcdefg"),
        (Method::HEAD, 200, &[("content-length", "5")], ""),
        (Method::GET, 304, &[("content-length", "5")], ""),
        (Method::GET, 204, &[], ""),
    ] {
        let response = response(status, headers);
        let mut framer = Framer::of(&method, &response);
        let out = framed(&mut framer, &["abc", "defg"]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            expected,
            "{status} {headers:?}"
        );
        assert!(framer.is_complete());
    }
}

#[test]
fn a_body_that_falls_short_is_an_error() {
    let response = response(200, &[("content-length", "5")]);
    let mut framer = Framer::of(&Method::GET, &response);
    framer.piece(b"abc");
    assert_eq!(framer.end(), Err(2));
    assert!(!framer.is_complete());
}

#[test]
fn sizes_of_chunks_are_hexadecimal() {
    for size in [1, 9, 10, 15, 16, 255, 16_384, usize::MAX] {
        let line = ChunkLine::new(size);
        assert_eq!(line.as_bytes(), format!("{size:x}\r\n").as_bytes());
    }
}

#[test]
fn what_an_upstream_says_of_its_own_connection_stays_here() {
    let text = head(
        &response(
            200,
            &[
                ("connection", "close, X-Hop, Content-Length"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "close"),
                ("x-hop", "1"),
                ("content-length", "0"),
                ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
                ("set-cookie", "a=1"),
                ("set-cookie", "b=2"),
            ],
        ),
        None,
        false,
    );
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
         set-cookie: a=1\r\nset-cookie: b=2\r\n\r\n"
    );
}

#[test]
fn an_answer_without_a_date_gets_one_and_an_interim_one_does_not() {
    let text = head(&response(200, &[]), Some("close"), false);
    assert!(text.contains("\r\ndate: "), "{text}");
    assert!(text.ends_with("\r\nconnection: close\r\n\r\n"), "{text}");
    assert_eq!(
        head(&response(103, &[]), None, false),
        "HTTP/1.1 103 Early Hints\r\n\r\n"
    );
}

#[test]
fn a_tunnels_head_keeps_its_connection_headers() {
    let headers = [("connection", "upgrade"), ("upgrade", "websocket")];
    assert_eq!(
        head(&response(101, &headers), None, true),
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    );
}
