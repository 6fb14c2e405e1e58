use super::*;
use proptest::prelude::*;

fn chunked(payload_max: u64) -> MessageBody {
    MessageBody::new(Framing::Chunked, payload_max).expect("no length to refuse")
}

/// Feeds the whole message at once.
fn read(bytes: &[u8]) -> Result<Progress, Reason> {
    chunked(1 << 20).advance(bytes)
}

#[test]
fn a_body_of_known_length_ends_at_its_last_byte() {
    let mut body = MessageBody::new(Framing::Length(5), 5).expect("within bounds");
    let progress = body.advance(b"abc").expect("payload is not looked at");
    assert_eq!((progress.consumed, progress.done), (3, false));
    let progress = body.advance(b"deGET / ").expect("payload is not looked at");
    assert_eq!(
        (progress.consumed, progress.done, progress.payload),
        (2, true, 5)
    );
    assert_eq!(body.advance(b"GET").expect("it is over").consumed, 0);
}

#[test]
fn a_request_without_a_body_is_complete_at_once() {
    for framing in [Framing::None, Framing::Length(0)] {
        assert!(
            MessageBody::new(framing, 0)
                .expect("nothing to refuse")
                .is_done()
        );
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_a_byte_is_read() {
    let refused = MessageBody::new(Framing::Length(6), 5).map(|_| ());
    assert_eq!(refused, Err(Reason::BodyTooLarge));
}

#[test]
fn a_chunked_body_ends_after_its_empty_line_and_leaves_the_rest() {
    let message = b"5\r\nhello\r\n00A;a=b;c=\"d\\\" e\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n";
    let mut with_next = message.to_vec();
    with_next.extend_from_slice(b"GET / HTTP/1.1\r\n");
    let progress = read(&with_next).expect("in order");
    assert_eq!(
        progress,
        Progress {
            consumed: message.len(),
            done: true,
            payload: 15
        }
    );
}

#[test]
fn a_chunk_that_announces_too_much_is_refused_at_its_line() {
    let mut body = chunked(9);
    assert!(body.advance(b"5\r\nhello\r\n4\r\nabcd\r\n").is_ok());
    assert_eq!(body.advance(b"1\r\n"), Err(Reason::BodyTooLarge));
    assert_eq!(
        chunked(u64::MAX - 1).advance(b"ffffffffffffffff\r\n"),
        Err(Reason::BodyTooLarge)
    );
    let mut full = chunked(u64::MAX);
    assert!(full.advance(b"1\r\na\r\n").is_ok());
    assert_eq!(
        full.advance(b"ffffffffffffffff\r\n"),
        Err(Reason::BodyTooLarge)
    );
}

#[test]
fn every_disorder_of_chunks_is_refused() {
    let long_extension = format!("1;{}\r\n", "a".repeat(256));
    for bad in [
        "\r\n",
        "\n",
        ";a\r\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\n",
        " 1\r\n",
        "1 \r\n",
        "1\t\r\n",
        "0x1\r\n",
        "1\n",
        "1\r1",
        "1\r\r\n",
        "\0",
        "1,1\r\n",
        "1_0\r\n",
        "00000000000000001\r\n",
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\rb",
        "1\r\n\r\n1\r\n",
        "1\r\na1\r\n",
        "1;\r\n",
        "1;;\r\n",
        "1; a\r\n",
        "1 ;a\r\n",
        "1;a b\r\n",
        "1;a=\r\n",
        "1;=b\r\n",
        "1;a=b c\r\n",
        "1;a=\"b\r\n",
        "1;a=\"b\"c\r\n",
        "1;a\n",
        "1;a=\"\n\"",
        "1;a=\"\\\r",
        "1;a\x00",
        &long_extension,
        "0\r\n\n",
        "0\r\n\rx",
        "0\r\n X: 1\r\n",
        "0\r\nX : 1\r\n",
        "0\r\n: 1\r\n",
        "0\r\nX\r\n",
        "0\r\nX: 1\n",
        "0\r\nX: 1\r2",
        "0\r\nX: \x01\r\n",
        "0\r\nX: 1\r\n folded\r\n",
    ] {
        assert_eq!(read(bad.as_bytes()), Err(Reason::BadChunk), "{bad:?}");
    }
}

#[test]
fn extensions_are_bounded_in_a_line_and_in_a_message() {
    let longest = format!("1;{}\r\na\r\n", "a".repeat(255));
    let mut body = chunked(1 << 20);
    for _ in 0..16 {
        assert!(body.advance(longest.as_bytes()).is_ok());
    }
    assert_eq!(body.advance(b"1;a\r\n"), Err(Reason::BadChunk));
}

#[test]
fn trailers_that_matter_are_refused() {
    for name in [
        "Content-Length",
        "transfer-encoding",
        "Host",
        "Authorization",
        "Cookie",
        "X-Location-Id",
        "x_location_id",
        "X-Forwarded-For",
        "Forwarded",
        "Content-Type",
        "Connection",
        "Expect",
    ] {
        let body = format!("0\r\n{name}: 1\r\n\r\n");
        assert_eq!(read(body.as_bytes()), Err(Reason::BadChunk), "{name}");
    }
}

#[test]
fn trailers_are_bounded_in_number_size_and_name() {
    let many = |count: usize| format!("0\r\n{}\r\n", "X: 1\r\n".repeat(count));
    assert!(read(many(16).as_bytes()).is_ok_and(|progress| progress.done));
    assert_eq!(read(many(17).as_bytes()), Err(Reason::BadChunk));
    let sized = |bytes: usize| format!("0\r\nX:{}\r\n\r\n", "a".repeat(bytes - 4));
    assert!(read(sized(4096).as_bytes()).is_ok_and(|progress| progress.done));
    assert_eq!(read(sized(4097).as_bytes()), Err(Reason::BadChunk));
    let named = |bytes: usize| format!("0\r\n{}: 1\r\n\r\n", "a".repeat(bytes));
    assert!(read(named(64).as_bytes()).is_ok_and(|progress| progress.done));
    assert_eq!(read(named(65).as_bytes()), Err(Reason::BadChunk));
}

#[test]
fn the_first_chunk_line_is_proven_before_its_data() {
    assert_eq!(first_chunk_line_complete(b""), Ok(false));
    assert_eq!(first_chunk_line_complete(b"1f"), Ok(false));
    assert_eq!(first_chunk_line_complete(b"1f;a=b\r"), Ok(false));
    assert_eq!(first_chunk_line_complete(b"1f;a=b\r\n"), Ok(true));
    assert_eq!(first_chunk_line_complete(b"0\r\n"), Ok(true));
    assert_eq!(
        first_chunk_line_complete(b"ffffffffffffffff\r\nabc"),
        Ok(true)
    );
    for bad in ["x", "1\n", "1 ", "1\ra", "\r\n"] {
        assert_eq!(
            first_chunk_line_complete(bad.as_bytes()),
            Err(Reason::BadChunk),
            "{bad:?}"
        );
    }
}

fn messages() -> impl Strategy<Value = (Vec<u8>, u64)> {
    let chunk = (
        proptest::collection::vec(any::<u8>(), 1..40),
        "|;[a-z]{1,3}=[a-z]{1,3}|;q=\"[ -!#-\\[]{0,5}\"",
    );
    (
        proptest::collection::vec(chunk, 0..6),
        proptest::collection::vec("[a-z]{3,8}: [!-~ ]{0,9}", 0..3),
    )
        .prop_map(|(chunks, trailers)| {
            let mut message = Vec::new();
            let mut payload = 0;
            for (data, extension) in chunks {
                payload += data.len() as u64;
                message.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
                message.extend_from_slice(&data);
                message.extend_from_slice(b"\r\n");
            }
            message.extend_from_slice(b"0\r\n");
            for trailer in trailers {
                message.extend_from_slice(b"x-");
                message.extend_from_slice(trailer.as_bytes());
                message.extend_from_slice(b"\r\n");
            }
            message.extend_from_slice(b"\r\n");
            (message, payload)
        })
}

proptest! {
    #[test]
    fn a_message_in_any_pieces_is_followed_to_the_same_end(
        (message, payload) in messages(),
        pieces in proptest::collection::vec(1..12_usize, 1..60),
    ) {
        let mut stream = message.clone();
        stream.extend_from_slice(b"GET ");
        let mut body = chunked(1 << 20);
        let mut at = 0;
        for size in pieces.into_iter().cycle() {
            let piece = &stream[at..stream.len().min(at + size)];
            let progress = body.advance(piece).expect("a message in order");
            at += progress.consumed;
            if progress.done {
                break;
            }
            prop_assert_eq!(progress.consumed, piece.len());
        }
        prop_assert_eq!(at, message.len());
        prop_assert_eq!(body.payload(), payload);
    }

    #[test]
    fn noise_ends_in_an_answer_and_pieces_do_not_change_it(
        bytes in proptest::collection::vec(
            prop_oneof![4 => prop::sample::select(b"0123afAF\r\n;=\":x ".to_vec()), 1 => any::<u8>()], 0..60),
        cut in 0..60_usize,
    ) {
        let whole = read(&bytes);
        let mut body = chunked(1 << 20);
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let pieces = body.advance(first).and_then(|one| {
            body.advance(&second[..if one.done { 0 } else { second.len() }])
                .map(|two| Progress { consumed: one.consumed + two.consumed, ..two })
        });
        prop_assert_eq!(whole, pieces);
    }
}
