//! A server that a test plays by itself, for what an application may do wrong.

use super::peer::Peer;
use super::{PATIENCE, Role, accept_key};
use crate::fields;
use bytes::BytesMut;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A bound socket. The test accepts connections one by one and says everything on them.
#[derive(Debug)]
pub struct PlayedServer {
    listener: TcpListener,
    address: SocketAddr,
}

/// A client's request that waits for its answer.
#[derive(Debug)]
pub struct Knock {
    stream: TcpStream,
    line: String,
    headers: Vec<(String, String)>,
    early: BytesMut,
}

// === impl PlayedServer ===

impl PlayedServer {
    /// Binds a free port of 127.0.0.1.
    ///
    /// # Panics
    /// Where there is none.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("127.0.0.1 has a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        Self { listener, address }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts a connection and reads a request's head.
    ///
    /// # Panics
    /// Where none comes within [`PATIENCE`].
    pub async fn accept(&self) -> Knock {
        let accepted = tokio::time::timeout(PATIENCE, self.try_accept());
        match accepted.await {
            Ok(Ok(knock)) => knock,
            Ok(Err(error)) => panic!("no whole request: {error}"),
            Err(_) => panic!("nobody has come in {PATIENCE:?}"),
        }
    }

    async fn try_accept(&self) -> io::Result<Knock> {
        let (mut stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut early = BytesMut::new();
        loop {
            if let Some(end) = fields::head_end(&early) {
                let (line, headers) = fields::parse(&early.split_to(end));
                return Ok(Knock {
                    stream,
                    line,
                    headers,
                    early,
                });
            }
            if early.len() > HEAD_BYTES_MAX || stream.read_buf(&mut early).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Accepts a connection and agrees to a WebSocket.
    ///
    /// # Panics
    /// As [`PlayedServer::accept`].
    pub async fn open(&self) -> Peer {
        self.accept().await.agree().await
    }
}

// === impl Knock ===

impl Knock {
    /// The request's first line.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        fields::values(&self.headers, name).next()
    }

    /// The head of a right answer, with these lines added: `Name: value\r\n`.
    pub fn agreement(&self, more: &str) -> String {
        let key = self.header("sec-websocket-key").unwrap_or_default();
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n{more}\r\n",
            accept_key(key)
        )
    }

    /// Agrees to a WebSocket.
    pub async fn agree(self) -> Peer {
        let agreement = self.agreement("");
        self.answer(agreement).await
    }

    /// Sends these bytes as the answer, whatever they are; what follows is played on the result.
    ///
    /// # Panics
    /// Where the client has gone.
    pub async fn answer(mut self, bytes: impl AsRef<[u8]>) -> Peer {
        self.stream
            .write_all(bytes.as_ref())
            .await
            .unwrap_or_else(|error| panic!("cannot answer: {error}"));
        Peer::with_early(self.stream, Role::Server, self.early)
    }

    /// Never answers. Returns once the client has gone.
    ///
    /// # Panics
    /// Where it stays for longer than [`PATIENCE`].
    pub async fn ignore(self) {
        let mut peer = Peer::with_early(self.stream, Role::Server, self.early);
        let left = peer.next().await;
        assert!(left.is_last(), "{left:?} from who waits for an answer");
    }
}
