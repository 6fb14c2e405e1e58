//! A client's WebSocket on a stream of its own, without a library between that would copy or allocate.

use super::frame::{self, Head};
use crate::workload::request;
use bytes::{Buf, BytesMut};
use hub_testkit::websocket::accept_key;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Longest wait for an answer to a handshake, or for an echo.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Largest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;
/// The nonce of the standard's example; nobody here depends on another one.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A stream of any kind.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A session that is open.
#[derive(Debug)]
pub(crate) struct Client<S> {
    stream: S,
    buffer: BytesMut,
    /// Of the frame under way: payload that has not come yet, and whether it is the last of its message.
    frame: Option<(u64, bool)>,
    /// Bytes of the message under way that have come.
    seen: usize,
}

/// A message, as it is sent and as it is to come back.
#[derive(Debug)]
pub(crate) struct Message {
    frame: Vec<u8>,
    payload: Vec<u8>,
}

/// Why a session failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No connection, or no TLS, could be made.
    Refused,
    /// The handshake was answered with another status than 101.
    Status(u16),
    /// The answer to the handshake is not one of RFC 6455.
    Handshake,
    /// Close came, with this code; 1005 where it had none.
    Closed(u16),
    /// The connection ended without Close.
    Broken,
    /// Another message came than was sent.
    Wrong,
    /// Nothing came in time.
    Timeout,
}

// === impl Message ===

impl Message {
    /// A message of so many letters, which are UTF-8 for those who check it.
    pub(crate) fn new(opcode: u8, bytes: usize) -> Self {
        let payload: Vec<u8> = (b'a'..=b'z').cycle().take(bytes).collect();
        Self {
            frame: frame::client_frame(true, opcode, &payload),
            payload,
        }
    }
}

// === impl Fault ===

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Handshake => f.write_str("bad handshake"),
            Self::Closed(code) => write!(f, "closed {code}"),
            Self::Broken => f.write_str("broken off"),
            Self::Wrong => f.write_str("wrong message"),
            Self::Timeout => f.write_str("timeout"),
        }
    }
}

impl std::error::Error for Fault {}

/// Connects, from `source` if it is given (any address of 127.0.0.0/8).
pub(crate) async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
) -> Result<TcpStream, Fault> {
    let socket = TcpSocket::new_v4().map_err(|_| Fault::Refused)?;
    connect_with(socket, address, source).await
}

/// The same with a socket that is set up already.
pub(crate) async fn connect_with(
    socket: TcpSocket,
    address: SocketAddr,
    source: Option<IpAddr>,
) -> Result<TcpStream, Fault> {
    let connecting = async {
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        std::io::Result::Ok(stream)
    };
    let connected = tokio::time::timeout(ANSWER_MAX, connecting).await;
    connected
        .map_err(|_| Fault::Timeout)?
        .map_err(|_| Fault::Refused)
}

// === impl Client ===

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Shakes hands for `path`.
    pub(crate) async fn open(stream: S, path: &str) -> Result<Self, Fault> {
        let mut client = Self::shaken(stream);
        let upgrade = format!(
            "Origin: https://hub.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
        );
        let text = request(path, "nobody", &upgrade);
        let shaking = async {
            client.send(text.as_bytes()).await?;
            loop {
                if let Some(length) = read_answer(&client.buffer)? {
                    client.buffer.advance(length);
                    return Ok(());
                }
                client.fill().await?;
            }
        };
        tokio::time::timeout(ANSWER_MAX, shaking)
            .await
            .map_err(|_| Fault::Timeout)??;
        Ok(client)
    }

    /// On a stream whose handshake is over.
    pub(crate) fn shaken(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            frame: None,
            seen: 0,
        }
    }

    /// Sends frames that are ready to be sent.
    pub(crate) async fn send(&mut self, frames: &[u8]) -> Result<(), Fault> {
        let sent = self.stream.write_all(frames).await;
        sent.map_err(|_| Fault::Broken)?;
        self.stream.flush().await.map_err(|_| Fault::Broken)
    }

    /// Sends a message.
    pub(crate) async fn say(&mut self, message: &Message) -> Result<(), Fault> {
        self.send(&message.frame).await
    }

    /// Waits for the next message, which has to be this one in every byte. Answers Pings meanwhile. May be
    /// dropped and called again, if only no Ping comes.
    pub(crate) async fn hear(&mut self, message: &Message) -> Result<(), Fault> {
        loop {
            let (part, ends) = self.part().await?;
            let expected = message.payload.get(self.seen..self.seen + part);
            if expected != Some(&self.buffer[..part]) {
                return Err(Fault::Wrong);
            }
            self.buffer.advance(part);
            self.seen += part;
            if ends {
                let all = std::mem::take(&mut self.seen) == message.payload.len();
                return if all { Ok(()) } else { Err(Fault::Wrong) };
            }
        }
    }

    /// Takes what comes and looks at none of it, until the session ends.
    pub(crate) async fn ignore(&mut self) -> Fault {
        loop {
            match self.part().await {
                Ok((part, _)) => self.buffer.advance(part),
                Err(fault) => return fault,
            }
        }
    }

    /// Sends a message and waits for its echo.
    pub(crate) async fn echo(&mut self, message: &Message) -> Result<(), Fault> {
        let echoing = async {
            self.say(message).await?;
            self.hear(message).await
        };
        tokio::time::timeout(ANSWER_MAX, echoing)
            .await
            .map_err(|_| Fault::Timeout)?
    }

    /// Sends Close and waits for the other side's, and for the end of the connection.
    pub(crate) async fn close(mut self) -> Result<(), Fault> {
        let closing = async {
            let close = frame::client_frame(true, frame::CLOSE, &1_000_u16.to_be_bytes());
            self.send(&close).await?;
            match self.hear(&Message::new(frame::BINARY, 0)).await {
                Err(Fault::Closed(1_000)) => self.drain().await,
                Err(fault) => Err(fault),
                Ok(()) => Err(Fault::Wrong),
            }
        };
        tokio::time::timeout(ANSWER_MAX, closing)
            .await
            .map_err(|_| Fault::Timeout)?
    }

    /// Sends nothing more, without Close, and waits for the end of the connection.
    pub(crate) async fn half_close(mut self) -> Result<(), Fault> {
        let closing = async {
            let shut = self.stream.shutdown().await;
            shut.map_err(|_| Fault::Broken)?;
            self.drain().await
        };
        tokio::time::timeout(ANSWER_MAX, closing)
            .await
            .map_err(|_| Fault::Timeout)?
    }

    /// What it runs on. Bytes that were read ahead are lost.
    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    /// Waits for payload: how many bytes of it stand in the buffer, and whether a message ends with them.
    async fn part(&mut self) -> Result<(usize, bool), Fault> {
        loop {
            let Some((left, last)) = self.frame else {
                self.head().await?;
                continue;
            };
            if left > 0 && self.buffer.is_empty() {
                self.fill().await?;
            }
            let part = usize::try_from(left).unwrap_or(usize::MAX);
            let part = part.min(self.buffer.len());
            let left = left - part as u64;
            self.frame = (left > 0).then_some((left, last));
            return Ok((part, last && left == 0));
        }
    }

    async fn drain(&mut self) -> Result<(), Fault> {
        // A reset is an end, too.
        while !matches!(self.fill().await, Err(Fault::Broken)) {
            self.buffer.clear();
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), Fault> {
        // As much as a large message of the benches has, if it is there.
        self.buffer.reserve(if self.frame.is_some() {
            64 << 10
        } else {
            4 << 10
        });
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(Fault::Broken),
        }
    }

    /// Takes the head of the next frame of a message; control frames before it are dealt with.
    async fn head(&mut self) -> Result<(), Fault> {
        let Some(head) = Head::read(&self.buffer) else {
            return self.fill().await;
        };
        if head.opcode < frame::CLOSE {
            self.buffer.advance(head.len);
            self.frame = Some((head.payload, head.fin));
            return Ok(());
        }
        let end = head.len + usize::try_from(head.payload).unwrap_or(usize::MAX).min(125);
        if self.buffer.len() < end {
            return self.fill().await;
        }
        let payload = self.buffer.split_to(end).split_off(head.len);
        match head.opcode {
            frame::CLOSE => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                Err(Fault::Closed(code.unwrap_or(1_005)))
            }
            frame::PING => {
                let pong = frame::client_frame(true, frame::PONG, &payload);
                self.send(&pong).await
            }
            _ => Ok(()),
        }
    }
}

/// Reads the answer to a handshake; `None` while it is incomplete.
fn read_answer(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    let length = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        _ => return Err(Fault::Handshake),
    };
    let accepts = |field: &&httparse::Header<'_>| {
        field.name.eq_ignore_ascii_case("sec-websocket-accept")
            && field.value == accept_key(KEY).as_bytes()
    };
    match answer.code {
        Some(101) if answer.headers.iter().find(accepts).is_some() => Ok(Some(length)),
        Some(101) | None => Err(Fault::Handshake),
        Some(status) => Err(Fault::Status(status)),
    }
}

#[cfg(test)]
mod tests;
