use super::*;
use crate::ws::origin::started;
use tokio::io::duplex;

async fn open() -> Client<TcpStream> {
    let stream = connect(started().await, None).await.unwrap();
    Client::open(stream, "/echo").await.unwrap()
}

#[tokio::test]
async fn messages_of_every_length_come_back() {
    let mut client = open().await;
    for bytes in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let message = Message::new(frame::TEXT, bytes);
        client.echo(&message).await.unwrap();
    }
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_source_address_is_used_and_a_half_closed_session_ends() {
    let source = "127.0.0.9".parse().unwrap();
    let stream = connect(started().await, Some(source)).await.unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), source);
    let mut client = Client::open(stream, "/").await.unwrap();
    client.echo(&Message::new(frame::BINARY, 9)).await.unwrap();
    client.half_close().await.unwrap();
}

/// A session with what `bytes` say, and the other end of it.
async fn facing(bytes: &[u8]) -> (Client<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
    let (near, mut far) = duplex(1 << 16);
    let answer = "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    far.write_all(answer.as_bytes()).await.unwrap();
    far.write_all(bytes).await.unwrap();
    (Client::open(near, "/").await.unwrap(), far)
}

#[tokio::test]
async fn a_message_in_fragments_is_one_message_and_pings_between_are_answered() {
    let (mut client, mut far) = facing(b"\x02\x02ab\x89\x01?\x80\x01c").await;
    let message = Message::new(frame::BINARY, 3);
    client.hear(&message).await.unwrap();
    drop(client);
    let mut sent = Vec::new();
    far.read_to_end(&mut sent).await.unwrap();
    assert!(sent.ends_with(&frame::client_frame(true, frame::PONG, b"?")));
}

#[tokio::test]
async fn what_differs_from_what_was_sent_is_wrong() {
    let message = Message::new(frame::BINARY, 3);
    for bytes in [&b"\x82\x03abX"[..], b"\x82\x02ab", b"\x82\x04abcd"] {
        let (mut client, _far) = facing(bytes).await;
        assert_eq!(client.hear(&message).await, Err(Fault::Wrong));
    }
}

#[tokio::test]
async fn a_session_that_is_closed_says_with_which_code() {
    let message = Message::new(frame::BINARY, 3);
    for (bytes, fault) in [
        (&b"\x88\x02\x03\xe9"[..], Fault::Closed(1_001)),
        (b"\x88\x00", Fault::Closed(1_005)),
        (b"\x82", Fault::Broken),
    ] {
        let (mut client, far) = facing(bytes).await;
        drop(far);
        assert_eq!(client.hear(&message).await, Err(fault));
    }
}

#[test]
fn an_answer_is_judged_by_its_status_and_its_accept_value() {
    let answer = |text: &str| read_answer(text.as_bytes());
    assert_eq!(answer("HTTP/1.1 101 S\r\n"), Ok(None));
    assert_eq!(answer("HTTP/1.1 503 S\r\n\r\n"), Err(Fault::Status(503)));
    assert_eq!(answer("nonsense\r\n\r\n"), Err(Fault::Handshake));
    let wrong = "HTTP/1.1 101 S\r\nSec-WebSocket-Accept: other\r\n\r\n";
    assert_eq!(answer(wrong), Err(Fault::Handshake));
}
