use super::*;
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: 2048,
    uri_bytes_max: 256,
    header_count_max: 40,
};

fn head(text: &str) -> Head {
    parse(text.as_bytes(), &LIMITS)
        .unwrap_or_else(|refusal| panic!("{text:?} is refused: {refusal:?}"))
        .unwrap_or_else(|| panic!("{text:?} is incomplete"))
}

/// Everything that a head says, as text that can be compared.
fn told(head: &Head, buffer: &[u8]) -> String {
    let fields: Vec<_> = head
        .fields(buffer)
        .map(|f| {
            (
                f.name.escape_ascii().to_string(),
                f.value.escape_ascii().to_string(),
            )
        })
        .collect();
    format!(
        "{} {} {:?} {} {} {:?} {:?} {:?} {:?} {} {} {:?} {fields:?}",
        head.len,
        head.method,
        head.version,
        head.path(buffer),
        head.path_raw(buffer),
        head.query(buffer),
        head.host(buffer),
        head.port,
        head.framing,
        head.keep_alive,
        head.expect_continue,
        head.upgrade,
    )
}

#[test]
fn a_head_tells_what_the_request_is() {
    let text = "POST /a/%2e/B%41?q=%20?&[x] HTTP/1.1\r\nHost: Acme.Example:8443\r\n\
        content-length: 12\r\nExpect: 100-Continue\r\nX-Empty:\r\nX-Odd:\t a\tb \u{e9} \t\r\n\r\nbody";
    let head = head(text);
    let buffer = text.as_bytes();
    assert_eq!(head.len, text.len() - 4);
    assert_eq!(head.method, Method::POST);
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.path(buffer), "/a/BA");
    assert_eq!(head.path_raw(buffer), "/a/%2e/B%41");
    assert_eq!(head.query(buffer), Some("q=%20?&[x]"));
    assert_eq!(head.host(buffer), "acme.example");
    assert_eq!(head.port, Some(8443));
    assert_eq!(head.framing, Framing::Length(12));
    assert!(head.keep_alive && head.expect_continue);
    assert_eq!(head.upgrade, Upgrade::None);
    assert_eq!(head.field_count(), 5);
    let values: Vec<_> = head.fields(buffer).map(|field| field.value).collect();
    assert_eq!(values[3], b"");
    assert_eq!(values[4], "a\tb é".as_bytes());
}

#[test]
fn an_ordinary_head_borrows_everything() {
    let text = "GET /a?b HTTP/1.1\r\nHost: acme.example\r\nA: b\r\n\r\n";
    let head = head(text);
    assert!(matches!(head.host, Text::InBuffer(_)));
    assert!(head.path_normal.is_none() && !head.fields.spilled());
    assert_eq!(head.path(text.as_bytes()), "/a");
}

#[test]
fn more_fields_than_stand_inline_are_kept_too() {
    let many: String = (0..39).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    let head = head(&text);
    assert_eq!(head.field_count(), 40);
    let last = head.fields(text.as_bytes()).last().expect("forty fields");
    assert_eq!((last.name, last.value), (&b"X-38"[..], &b"38"[..]));
}

#[test]
fn absolute_targets_agree_with_host() {
    for (target, host, path, query, told_host, port) in [
        (
            "http://A.example/x?y",
            "a.EXAMPLE",
            "/x",
            Some("y"),
            "a.example",
            None,
        ),
        (
            "HTTP://a.example:80/x",
            "a.example",
            "/x",
            None,
            "a.example",
            None,
        ),
        (
            "http://a.example",
            "a.example:80",
            "/",
            None,
            "a.example",
            Some(80),
        ),
        (
            "https://a.example?q",
            "a.example:443",
            "/",
            Some("q"),
            "a.example",
            Some(443),
        ),
        (
            "http://[::1]:81/",
            "[0:0::1]:81",
            "/",
            None,
            "[::1]",
            Some(81),
        ),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let head = head(&text);
        let buffer = text.as_bytes();
        assert_eq!(
            (
                head.path(buffer),
                head.query(buffer),
                head.host(buffer),
                head.port
            ),
            (path, query, told_host, port),
            "{target}"
        );
    }
}

#[test]
fn options_may_ask_about_the_server_as_a_whole() {
    for target in ["*", "http://a"] {
        let text = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = head(&text);
        assert_eq!(
            (head.path(text.as_bytes()), head.path_raw(text.as_bytes())),
            ("*", "*")
        );
    }
}

#[test]
fn version_1_0_closes_unless_asked() {
    let head_1_0 = |more: &str| head(&format!("GET / HTTP/1.0\r\nHost: a\r\n{more}\r\n"));
    let plain = head_1_0("");
    assert_eq!((plain.keep_alive, plain.version), (false, Version::Http10));
    assert!(head_1_0("Connection: Keep-Alive\r\n").keep_alive);
    assert!(!head_1_0("Connection: keep-alive, close\r\n").keep_alive);
    let expecting = head_1_0("Content-Length: 1\r\nExpect: 100-continue\r\n");
    assert!(!expecting.expect_continue);
    let text = "GET http://B:81/ HTTP/1.0\r\n\r\n";
    let absolute = head(text);
    assert_eq!(
        (absolute.host(text.as_bytes()), absolute.port),
        ("b", Some(81))
    );
}

#[test]
fn connection_options_are_found_in_any_list() {
    let with = |line: &str| head(&format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n"));
    assert!(with("").keep_alive);
    assert!(with("Connection: keep-alive\r\n").keep_alive);
    assert!(!with("Connection: , x-y ,\tCLOSE,\r\n").keep_alive);
    assert!(!with("Connection: x\r\nA: b\r\nConnection: close\r\n").keep_alive);
}

#[test]
fn framing_follows_the_one_header_that_is_there() {
    let framing = |line: &str| head(&format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n")).framing;
    assert_eq!(framing(""), Framing::None);
    assert_eq!(framing("Content-Length: 0\r\n"), Framing::Length(0));
    assert_eq!(
        framing("Content-Length: 9223372036854775807\r\n"),
        Framing::Length(u64::MAX >> 1)
    );
    assert_eq!(framing("transfer-encoding: ChunKed\r\n"), Framing::Chunked);
}

#[test]
fn only_a_whole_websocket_handshake_is_an_upgrade_to_websocket() {
    let lines = [
        "Upgrade: WebSocket\r\n",
        "Connection: keep-alive, Upgrade\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Sec-WebSocket-Version: 13\r\n",
    ];
    let upgrade =
        |request: &str, lines: &str| head(&format!("{request}\r\nHost: a\r\n{lines}\r\n")).upgrade;
    assert_eq!(
        upgrade("GET / HTTP/1.1", &lines.concat()),
        Upgrade::WebSocket
    );
    assert_eq!(upgrade("GET / HTTP/1.0", &lines.concat()), Upgrade::Other);
    assert_eq!(upgrade("POST / HTTP/1.1", &lines.concat()), Upgrade::Other);
    for left_out in 0..lines.len() {
        let mut some = lines.to_vec();
        some.remove(left_out);
        let expected = if left_out == 0 {
            Upgrade::None
        } else {
            Upgrade::Other
        };
        assert_eq!(upgrade("GET / HTTP/1.1", &some.concat()), expected);
    }
    for (from, to) in [
        ("WebSocket\r", "h2c\r"),
        ("WebSocket\r", "websocket, h2c\r"),
        (" 13", " 8"),
        ("ZQ==", "ZR=="),
        ("ZQ==", "ZQ"),
        (
            "Upgrade: WebSocket\r\n",
            "Upgrade: h2c\r\nUpgrade: websocket\r\n",
        ),
        ("Upgrade: W", "Content-Length: 1\r\nUpgrade: W"),
    ] {
        let changed = lines.concat().replace(from, to);
        assert_ne!(changed, lines.concat());
        assert_eq!(upgrade("GET / HTTP/1.1", &changed), Upgrade::Other, "{to}");
    }
}

#[test]
fn limits_hold_while_reading() {
    let refused = |text: &str| {
        parse(text.as_bytes(), &LIMITS)
            .expect_err("over a limit")
            .reason
    };
    let pending = |text: &str| {
        parse(text.as_bytes(), &LIMITS)
            .expect("within limits")
            .is_none()
    };
    assert!(pending(&format!("GET /{}", "a".repeat(255))));
    assert_eq!(
        refused(&format!("GET /{}", "a".repeat(256))),
        Reason::UriTooLong
    );
    assert!(pending(&"A".repeat(32)));
    assert_eq!(refused(&"A".repeat(33)), Reason::BadMethod);
    let start = "GET / HTTP/1.1\r\nHost: a\r\n";
    assert!(pending(&format!("{start}{}", "A: b\r\n".repeat(39))));
    assert_eq!(
        refused(&format!("{start}{}", "A: b\r\n".repeat(40))),
        Reason::HeadTooLarge
    );
    let filled = |bytes: usize| format!("{start}A: {}", "b".repeat(bytes - start.len() - 3));
    assert!(pending(&filled(2047)));
    assert_eq!(refused(&filled(2048)), Reason::HeadTooLarge);
    let whole = format!("{}\r\n\r\n", filled(2044));
    assert_eq!(head(&whole).len, 2048);
    assert_eq!(
        refused(&format!("{}b\r\n\r\n", filled(2044))),
        Reason::HeadTooLarge
    );
}

#[test]
fn a_limit_holds_however_slowly_the_bytes_come() {
    for (text, expected, at) in [
        (
            format!("GET /{}", "a".repeat(999)),
            Reason::UriTooLong,
            4 + 257,
        ),
        (
            format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(9999)),
            Reason::HeadTooLarge,
            2048,
        ),
        ("A".repeat(99), Reason::BadMethod, 33),
        (
            "GET / HTTP/1.1\r\nA: bbbbbbbbbbb\0cc".into(),
            Reason::BadHeader,
            31,
        ),
        ("GET / HTTP/1.1\r\nA: b\rc".into(), Reason::BadLineEnd, 22),
    ] {
        let mut reader = HeadReader::new(LIMITS);
        let refused = (1..=text.len()).find_map(|len| {
            reader
                .advance(&text.as_bytes()[..len])
                .err()
                .map(|e| (e.reason, len))
        });
        assert_eq!(refused, Some((expected, at)), "{:?}", &text[..20]);
    }
}

#[test]
fn a_reader_reads_one_head_after_the_other() {
    let first = b"GET http://a/ HTTP/1.0\r\nConnection: close\r\n\r\n";
    let second = b"GET /b HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut reader = HeadReader::new(LIMITS);
    let one = reader
        .advance(first)
        .expect("well formed")
        .expect("complete");
    let two = reader
        .advance(second)
        .expect("well formed")
        .expect("complete");
    assert_eq!((one.host(first), one.keep_alive), ("a", false));
    assert_eq!((two.host(second), two.keep_alive), ("b", true));
}

fn heads() -> impl Strategy<Value = String> {
    let target = prop_oneof![
        "/[a-z]{0,8}(/[a-z.]{1,5}){0,3}(\\?[a-z=&\\[\\]]{0,12})?",
        Just("http://acme.example:81/x?y".to_owned()),
        Just("/%41/./b//c".to_owned()),
    ];
    let framing = prop_oneof![
        Just(""),
        Just("Content-Length: 7\r\n"),
        Just("Transfer-Encoding: chunked\r\n"),
        Just("Connection: close\r\nUpgrade: h2c\r\n"),
    ];
    let fields = proptest::collection::vec(
        "X-[A-Za-z]{1,12}:[ \t]{0,2}[!-~]{0,20}( [!-~]{1,5})?[ \t]?\r\n",
        0..36,
    );
    ("[A-Z]{1,9}", target, framing, fields).prop_map(|(method, target, framing, fields)| {
        format!(
            "M{method} {target} HTTP/1.1\r\nHost: ACME.example:81\r\n{framing}{}\r\n",
            fields.concat()
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_head_in_any_pieces_reads_the_same(
        text in heads(),
        sizes in proptest::collection::vec(1..60_usize, 1..40),
    ) {
        let limits = HeadLimits { head_bytes_max: 8192, ..LIMITS };
        let stream = format!("{text}next");
        let buffer = stream.as_bytes();
        let Ok(whole) = parse(buffer, &limits) else {
            // A path such as `/..` is refused; whole or in pieces is another test's matter.
            return Ok(());
        };
        let whole = whole.expect("a whole head");
        prop_assert_eq!(whole.len, text.len());
        let mut reader = HeadReader::new(limits);
        let mut have = 0;
        let mut sizes = sizes.into_iter().cycle();
        let head = loop {
            have = buffer.len().min(have + sizes.next().expect("endless"));
            let found = reader.advance(&buffer[..have]);
            // Stateless reading knows no more and no less.
            let alone = parse(&buffer[..have], &limits).expect("a valid beginning");
            prop_assert_eq!(alone.is_some(), have >= text.len());
            if let Some(head) = found.expect("a valid beginning") {
                break head;
            }
            prop_assert!(have < text.len());
        };
        prop_assert_eq!(told(&head, buffer), told(&whole, buffer));
    }

    #[test]
    fn noise_is_refused_alike_whole_and_in_pieces(
        text in heads(),
        noise in proptest::collection::vec((0..400_usize, any::<u8>()), 1..4),
        cut in 0..400_usize,
    ) {
        let mut bytes = text.into_bytes();
        for (at, byte) in noise {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let whole = parse(&bytes, &LIMITS);
        let mut reader = HeadReader::new(LIMITS);
        let first = reader.advance(&bytes[..cut.min(bytes.len())]);
        let pieces = match first {
            Ok(None) => reader.advance(&bytes),
            done => done,
        };
        match (whole, pieces) {
            (Ok(Some(a)), Ok(Some(b))) => prop_assert_eq!(told(&a, &bytes), told(&b, &bytes)),
            (Ok(None), Ok(None)) => {}
            (Err(a), Err(b)) => prop_assert_eq!(a, b),
            (a, b) => prop_assert!(false, "{a:?} {b:?}"),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        // Only that it returns counts here.
        let _outcome = parse(&bytes, &LIMITS);
        let _outcome = parse(&[b"GET / HTTP/1.1\r\n", &bytes[..]].concat(), &LIMITS);
    }
}
