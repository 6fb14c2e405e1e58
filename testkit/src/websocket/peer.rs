//! One end of a WebSocket that is open.

use super::{Event, Frame, Handshake, Receiver, Role, Sender};
use crate::wire::Head;
use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

/// One end of a WebSocket that is open: what it sends is up to the test, what it receives is checked. It
/// answers nothing by itself, and its end is the connection's.
#[derive(Debug)]
pub struct Peer<S = TcpStream> {
    receiver: Receiver<ReadHalf<S>>,
    sender: Sender<WriteHalf<S>>,
}

/// The client's end.
pub type Client<S = TcpStream> = Peer<S>;

impl Peer {
    /// Opens a WebSocket over TCP.
    ///
    /// # Panics
    /// Where the server does not agree to one.
    pub async fn connect(address: SocketAddr, target: &str) -> Client {
        Self::connect_with(address, &Handshake::new(target)).await.0
    }

    /// Opens a WebSocket over TCP with a handshake of the test's own; the answer's head comes with it.
    ///
    /// # Panics
    /// Where the server does not agree to one.
    pub async fn connect_with(address: SocketAddr, handshake: &Handshake) -> (Client, Head) {
        let stream = TcpStream::connect(address)
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        handshake.open(stream).await
    }

    /// Ends the connection with a reset (RST).
    pub fn reset(self) {
        let stream = self.receiver.stream.unsplit(self.sender.stream);
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .expect("a TCP socket");
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// One end of a connection whose handshake is over, or never was.
    pub fn over(stream: S, role: Role) -> Self {
        Self::with_early(stream, role, BytesMut::new())
    }

    /// The same, where these bytes came behind the handshake.
    pub(super) fn with_early(stream: S, role: Role, early: BytesMut) -> Self {
        let (reading, writing) = tokio::io::split(stream);
        Self {
            receiver: Receiver {
                stream: reading,
                buffer: early,
                from: role.other(),
                message: None,
                closed: false,
                reset: false,
            },
            sender: Sender {
                stream: writing,
                role,
            },
        }
    }

    /// Its two halves, for a test that sends and receives at once.
    pub fn split(self) -> (Sender<WriteHalf<S>>, Receiver<ReadHalf<S>>) {
        (self.sender, self.receiver)
    }

    /// Both halves, borrowed.
    pub fn halves(&mut self) -> (&mut Sender<WriteHalf<S>>, &mut Receiver<ReadHalf<S>>) {
        (&mut self.sender, &mut self.receiver)
    }

    /// See [`Sender::send`].
    pub async fn send(&mut self, frame: &Frame) {
        self.sender.send(frame).await;
    }

    /// See [`Sender::try_send`].
    pub async fn try_send(&mut self, frame: &Frame) -> io::Result<()> {
        self.sender.try_send(frame).await
    }

    /// See [`Sender::send_raw`].
    pub async fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.sender.send_raw(bytes).await;
    }

    /// Sends text, and receives it from a server that echoes.
    ///
    /// # Panics
    /// Where something else comes than that text.
    pub async fn echo(&mut self, text: &str) {
        self.send(&Frame::text(text)).await;
        assert_eq!(self.next_but_pings().await, Event::text(text));
    }

    /// Sends Close and receives the other one; pings and messages that come before are passed over.
    ///
    /// # Panics
    /// Where no Close comes.
    pub async fn close(mut self, code: u16, reason: &str) -> Event {
        self.send(&Frame::close(code, reason)).await;
        let last = self.until_close().await.pop();
        match last {
            Some(close @ Event::Close(..)) => close,
            other => panic!("no Close: {other:?}"),
        }
    }

    /// Answers the other end's Close with the same code, and waits for the end.
    ///
    /// # Panics
    /// Where more comes.
    pub async fn answer_close(&mut self, code: Option<u16>) {
        let close = code.map_or_else(|| Frame::close_with(""), |code| Frame::close(code, ""));
        // Who has closed may be gone.
        self.try_send(&close).await.ok();
        assert_eq!(self.next().await, Event::End);
    }
}

/// What it receives.
impl<S> Deref for Peer<S> {
    type Target = Receiver<ReadHalf<S>>;

    fn deref(&self) -> &Self::Target {
        &self.receiver
    }
}

impl<S> DerefMut for Peer<S> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.receiver
    }
}
