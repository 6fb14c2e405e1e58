//! The client's half of the handshake (RFC 6455, section 4.1).

use super::peer::{Client, Peer};
use super::{PATIENCE, Role};
use crate::fields;
use crate::wire::Head;
use base64::Engine;
use bytes::BytesMut;
use sha1::Digest;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The key of the standard's example.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A client's request. Well-formed until the test changes it.
#[derive(Clone, Debug)]
pub struct Handshake {
    target: String,
    headers: Vec<(String, String)>,
}

impl Handshake {
    /// For this path, with `Host: a.test` and all that a client must say.
    pub fn new(target: &str) -> Self {
        let headers = [
            ("Host", "a.test"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ];
        Self {
            target: target.to_owned(),
            headers: headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
        }
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    /// The request's head.
    pub fn request(&self) -> String {
        let mut head = format!("GET {} HTTP/1.1\r\n", self.target);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }

    /// Sends the request and checks the answer as a client must. For answers other than 101 use
    /// [`crate::Wire`] with [`Handshake::request`].
    ///
    /// # Panics
    /// Where the answer is no 101, is not as RFC 6455, section 4.1 asks, or does not come.
    pub async fn open<S>(&self, stream: S) -> (Client<S>, Head)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.open_and_send(stream, b"").await
    }

    /// As [`Handshake::open`], and sends these bytes at once with the request, as no client should.
    pub async fn open_and_send<S>(&self, mut stream: S, early: &[u8]) -> (Client<S>, Head)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let request = [self.request().as_bytes(), early].concat();
        let mut buffer = BytesMut::new();
        let exchange = exchange(&mut stream, &request, &mut buffer);
        let head = match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(bytes)) => Head::parse(&bytes).expect("an answer in HTTP"),
            Ok(Err(error)) => panic!("no answer to a handshake: {error}"),
            Err(_) => panic!("no answer to a handshake in {PATIENCE:?}"),
        };
        if let Some(fault) = self.fault(&head) {
            panic!(
                "{fault}: {head:#?} {:?}",
                fields::latin1(&buffer[..buffer.len().min(1_000)])
            );
        }
        (Peer::with_early(stream, Role::Client, buffer), head)
    }

    /// What a client has against this answer.
    fn fault(&self, head: &Head) -> Option<&'static str> {
        let said = |name: &str| head.header(name).unwrap_or_default();
        let key = fields::values(&self.headers, "sec-websocket-key")
            .next()
            .unwrap_or_default();
        let asked = |name: &str, value: &str| {
            fields::values(&self.headers, name)
                .flat_map(|offers| offers.split(','))
                .any(|offer| offer.split(';').next().unwrap_or_default().trim() == value)
        };
        let extensions = said("sec-websocket-extensions");
        let protocol = said("sec-websocket-protocol");
        let mut connection = said("connection").split(',').map(str::trim);
        let unasked = extensions.split(',').any(|extension| {
            let name = extension.split(';').next().unwrap_or_default().trim();
            !name.is_empty() && !asked("sec-websocket-extensions", name)
        });
        let faults = [
            (head.status != 101, "no WebSocket"),
            (
                !said("upgrade").eq_ignore_ascii_case("websocket"),
                "bad Upgrade",
            ),
            (
                !connection.any(|word| word.eq_ignore_ascii_case("upgrade")),
                "bad Connection",
            ),
            (
                said("sec-websocket-accept") != accept_key(key),
                "bad Sec-WebSocket-Accept",
            ),
            (
                !protocol.is_empty() && !asked("sec-websocket-protocol", protocol),
                "a subprotocol that nobody asked for",
            ),
            (unasked, "an extension that nobody asked for"),
        ];
        faults.into_iter().find_map(|(bad, why)| bad.then_some(why))
    }
}

/// Sends a request and reads an answer's head; what came behind it stays in the buffer.
async fn exchange<S>(stream: &mut S, request: &[u8], buffer: &mut BytesMut) -> io::Result<BytesMut>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request).await?;
    stream.flush().await?;
    loop {
        if let Some(end) = fields::head_end(buffer) {
            return Ok(buffer.split_to(end));
        }
        if buffer.len() > HEAD_BYTES_MAX || stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455, section 4.2.2).
pub fn accept_key(key: &str) -> String {
    let mut hash = sha1::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64::engine::general_purpose::STANDARD.encode(hash.finalize())
}
