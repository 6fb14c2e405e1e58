use super::*;
use crate::front::head::{HeadLimits, parse};
use ::pingora::protocols::http::HttpTask;
use ::pingora::protocols::http::custom::server::Session as _;
use std::time::Instant;
use tokio::io::{AsyncReadExt, DuplexStream};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A session for `text` on a connection that holds `bytes` in each direction, and its client.
fn session(text: &str, bytes: usize) -> (Http1Session, Arc<Home>, DuplexStream) {
    let limits = HeadLimits {
        head_bytes_max: 4096,
        uri_bytes_max: 4096,
        header_count_max: 100,
    };
    let head = parse(text.as_bytes(), &limits)
        .expect("a good head")
        .expect("a whole head");
    let (client, server) = tokio::io::duplex(bytes);
    let body = &text.as_bytes()[head.len..];
    let downstream = Downstream::new(Box::new(server), body, Instant::now(), WRITE_TIMEOUT);
    let terms = Terms {
        body: MessageBody::new(head.framing, u64::MAX).expect("no bound"),
        keep_alive: true,
        body_timeout: Duration::from_secs(1),
    };
    let home = Arc::new(Home::default());
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let session = Http1Session::new(
        Box::new(downstream),
        Arc::clone(&home),
        &head,
        &bytes,
        terms,
    )
    .expect("pingora can hold it");
    (session, home, client)
}

fn answer(length: usize) -> Vec<HttpTask> {
    let mut response = ResponseHeader::build(200, None).expect("a head");
    response
        .insert_header("content-length", length)
        .expect("a header");
    let body = Bytes::from(vec![b'x'; length]);
    vec![
        HttpTask::Header(Box::new(response), false),
        HttpTask::Body(Some(body), true),
    ]
}

fn is_reusable(session: Http1Session, home: &Home) -> bool {
    drop(session);
    home.take().expect("it always comes back").reusable
}

#[tokio::test]
async fn a_connection_comes_back_reusable_after_a_whole_answer() {
    let (mut session, home, mut client) = session(GET, 1 << 20);
    assert!(
        session
            .response_duplex_vec(answer(40_000))
            .await
            .expect("written")
    );
    session.finish().await.expect("finished");
    assert!(is_reusable(session, &home));
    let mut read = vec![0; 40_000];
    client.read_exact(&mut read).await.expect("the answer");
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_answer_the_client_did_not_take_is_not_used_again() {
    for length in [100, 40_000] {
        let (mut session, home, _client) = session(GET, 16);
        let written = session.response_duplex_vec(answer(length)).await;
        let error = written.expect_err("nobody reads");
        assert_eq!(*error.etype(), ErrorType::WriteTimedout, "{length}");
        assert!(!is_reusable(session, &home), "{length}");
    }
}

#[tokio::test]
async fn a_connection_is_not_used_again_before_both_messages_are_complete() {
    let (unanswered, home, _client) = session(GET, 1024);
    assert!(!is_reusable(unanswered, &home));
    let (mut early, home, _client) = session(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
        1024,
    );
    early.response_duplex_vec(answer(3)).await.expect("written");
    // The answer is complete, so nobody waits for the rest of the body.
    assert!(early.read_body_or_idle(false).await.is_err());
    assert!(!is_reusable(early, &home));
}

#[tokio::test]
async fn an_empty_chunked_body_is_an_empty_body_once_it_was_read() {
    let text = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let (mut session, _home, _client) = session(text, 1024);
    assert!(!session.is_body_empty());
    assert_eq!(session.read_body_bytes().await.expect("a good body"), None);
    assert!(session.is_body_done() && session.is_body_empty());
}
