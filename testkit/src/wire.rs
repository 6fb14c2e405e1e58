//! A byte-exact HTTP/1.1 client: it sends what the test says, well-formed or not, and shows what
//! came back.
//!
//! Invariant: every wait ends within 10 seconds, with a panic that shows what had come by then.

mod receive;
mod response;

pub use response::{Head, WireResponse};

use crate::certs;
use crate::fields;
use crate::stream::Stream;
use bytes::BytesMut;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// One client connection.
pub struct Wire {
    stream: Stream,
    buffer: BytesMut,
    /// What was read of the response that is being read.
    raw: Vec<u8>,
}

/// How the peer ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In an orderly way (FIN).
    Closed,
    /// By a reset (RST), or, with TLS, without a closing alert.
    Reset,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("stream", &self.stream)
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

// === impl Wire: connecting ===

impl Wire {
    /// Connects over TCP, without Nagle's delay, so that every send leaves at once.
    ///
    /// # Panics
    /// Where nobody accepts.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address)
            .await
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// Connects over TCP, if somebody accepts.
    pub async fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = within("a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(Stream::Tcp(stream)))
    }

    /// Connects to a unix socket.
    ///
    /// # Panics
    /// Where nobody accepts.
    pub async fn connect_unix(path: &Path) -> Self {
        let stream = within("a connection", UnixStream::connect(path))
            .await
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", path.display()));
        Self::over(Stream::Unix(stream))
    }

    /// Connects over TLS. The certificate must be valid for `sni` and come from `roots`; `alpn`
    /// lists the protocols that are offered, in order, and may be empty.
    ///
    /// # Panics
    /// Where nobody accepts, or the handshake fails.
    pub async fn connect_tls(
        address: SocketAddr,
        sni: &str,
        roots: RootCertStore,
        alpn: &[&str],
    ) -> Self {
        Self::try_connect_tls(address, sni, roots, alpn)
            .await
            .unwrap_or_else(|error| panic!("no TLS with {sni} at {address}: {error}"))
    }

    /// Connects over TLS, if the handshake succeeds.
    pub async fn try_connect_tls(
        address: SocketAddr,
        sni: &str,
        roots: RootCertStore,
        alpn: &[&str],
    ) -> io::Result<Self> {
        let mut config = certs::client_config(roots);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self::connect_tls_with(address, sni, Arc::new(config)).await
    }

    /// Connects over TLS with a client configuration of the test's own.
    pub async fn connect_tls_with(
        address: SocketAddr,
        sni: &str,
        config: Arc<rustls::ClientConfig>,
    ) -> io::Result<Self> {
        Self::try_connect(address)
            .await?
            .start_tls(sni, config)
            .await
    }

    /// Starts TLS on a plain connection, for what comes before it (a PROXY header).
    ///
    /// # Panics
    /// Where the connection is not plain TCP, or bytes have arrived on it already.
    pub async fn start_tls(self, sni: &str, config: Arc<rustls::ClientConfig>) -> io::Result<Self> {
        assert!(
            self.buffer.is_empty(),
            "the server spoke before the handshake"
        );
        let Stream::Tcp(stream) = self.stream else {
            panic!("TLS starts on a plain TCP connection only");
        };
        let name = ServerName::try_from(sni.to_owned()).map_err(io::Error::other)?;
        let stream = within(
            "a TLS handshake",
            TlsConnector::from(config).connect(name, stream),
        )
        .await?;
        Ok(Self::over(Stream::Tls(Box::new(stream.into()))))
    }

    fn over(stream: Stream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            raw: Vec::new(),
        }
    }

    /// Our own address; what the gateway sees as the peer. `None` on a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.stream.tcp().and_then(|tcp| tcp.local_addr().ok())
    }

    /// The protocol that ALPN chose.
    pub fn alpn(&self) -> Option<String> {
        let tls = self.tls()?;
        tls.get_ref().1.alpn_protocol().map(fields::latin1)
    }

    /// The server's certificate. `None` without TLS.
    pub fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        let chain = self.tls()?.get_ref().1.peer_certificates()?;
        chain.first().map(|leaf| leaf.clone().into_owned())
    }

    /// The version that was negotiated. `None` without TLS.
    pub fn tls_version(&self) -> Option<rustls::ProtocolVersion> {
        self.tls()?.get_ref().1.protocol_version()
    }

    fn tls(&self) -> Option<&tokio_rustls::TlsStream<TcpStream>> {
        match &self.stream {
            Stream::Tls(tls) => Some(tls),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }
}

// === impl Wire: sending ===

impl Wire {
    /// Sends these bytes.
    ///
    /// # Panics
    /// Where the peer has closed, or takes nothing for 10 seconds.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .await
            .unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends these bytes, if the peer takes them.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let stream = &mut self.stream;
        within("the peer to take bytes", async {
            stream.write_all(bytes.as_ref()).await?;
            stream.flush().await
        })
        .await
    }

    /// Sends piece by piece. After each, `between` is awaited with the number of pieces sent: there
    /// the test waits for whatever should have happened, or for time to pass.
    ///
    /// ```no_run
    /// # async fn example(origin: hub_testkit::Origin, mut wire: hub_testkit::Wire) {
    /// wire.send_slowly(["GET / HT", "TP/1.1\r\n\r\n"], async |sent| {
    ///     origin.wait_for_raw_bytes(if sent == 1 { 8 } else { 18 }).await;
    /// })
    /// .await;
    /// # }
    /// ```
    pub async fn send_slowly<P: AsRef<[u8]>>(
        &mut self,
        pieces: impl IntoIterator<Item = P>,
        mut between: impl AsyncFnMut(usize),
    ) {
        for (index, piece) in pieces.into_iter().enumerate() {
            self.send(piece).await;
            between(index + 1).await;
        }
    }

    /// Sends each byte in a write of its own, and lets other tasks run between them. The peer may
    /// still read several at once.
    pub async fn send_bytewise(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]).await;
            tokio::task::yield_now().await;
        }
    }

    /// Sends until the peer has taken nothing for `quiet`, and says how many bytes it took, or
    /// `limit` if it took them all: the test of back-pressure.
    pub async fn send_until_stuck(&mut self, limit: u64, quiet: std::time::Duration) -> u64 {
        let block = [b'x'; 16 * 1024];
        let mut sent = 0;
        while sent < limit {
            let size = usize::try_from(limit - sent).map_or(block.len(), |n| n.min(block.len()));
            match tokio::time::timeout(quiet, self.stream.write(&block[..size])).await {
                Ok(Ok(count)) => sent += count as u64,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        sent
    }

    /// Closes our half: the peer reads to the end, and may still answer.
    pub async fn half_close(&mut self) {
        let stream = &mut self.stream;
        within("our half to close", stream.shutdown())
            .await
            .unwrap_or_else(|error| panic!("cannot close our half: {error}"));
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.stream
            .reset_on_close()
            .unwrap_or_else(|error| panic!("cannot prepare a reset: {error}"));
    }
}

/// Waits for what should take no time.
async fn within<T>(what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(crate::PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("waited {:?} for {what}", crate::PATIENCE),
    }
}
