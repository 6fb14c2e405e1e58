//! Both ends of a WebSocket, in bytes: neither answers any frame, so that a probe sees what the gateway does
//! by itself.

use crate::site::{Site, brief, request, soon};
use hub_testkit::{Wire, web_socket_accept};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Opcodes of RFC 6455, with FIN.
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;

/// More messages than one read of the gateway holds.
pub(crate) const MANY: usize = 50_000;
/// Payload of [`large`] messages, which are sent [`LARGE_COUNT`] times: far more than one read holds.
const LARGE_BYTES: usize = 60_000;
pub(crate) const LARGE_COUNT: usize = 17;

/// A client's end.
pub(crate) struct Socket(Wire);

/// An application that takes WebSockets and does what their path says: `/take` nothing, `/close` sends Close,
/// `/many` sends [`MANY`] messages, `/large` sends [`LARGE_COUNT`] large ones, `/flood` never stops.
pub(crate) struct Application {
    pub(crate) address: SocketAddr,
    /// Bytes behind the handshakes, over all connections.
    received: watch::Receiver<u64>,
    _running: JoinSet<()>,
}

/// A frame as a server sends it. `first` is its first byte.
pub(crate) fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [head(first, 0, payload.len()), payload.to_vec()].concat()
}

/// A frame as a client sends it.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [1, 2, 3, 4];
    let masked = payload.iter().zip(KEY.iter().cycle());
    let masked = masked.map(|(byte, key)| byte ^ key).collect();
    [head(first, 0x80, payload.len()), KEY.to_vec(), masked].concat()
}

fn head(first: u8, mask: u8, len: usize) -> Vec<u8> {
    match u8::try_from(len) {
        Ok(short @ 0..=125) => vec![first, mask | short],
        _ => {
            let [high, low] = u16::try_from(len)
                .expect("up to 65,535 bytes")
                .to_be_bytes();
            vec![first, mask | 126, high, low]
        }
    }
}

/// The payload of a large message.
pub(crate) fn large() -> Vec<u8> {
    vec![b'x'; LARGE_BYTES]
}

// === impl Socket ===

impl Socket {
    /// Opens one, or says what the gateway answered instead.
    pub(crate) async fn open(site: &Site, path: &str, headers: &str) -> Result<Self, String> {
        let head = request(path, &format!("{UPGRADE}{headers}"));
        let mut wire = site.send(head).await;
        let answer = wire.read_response().await;
        match answer.status {
            101 => Ok(Self(wire)),
            _ => Err(brief(&answer)),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.send(bytes).await;
    }

    /// First byte and payload of the next frame.
    pub(crate) async fn next(&mut self) -> (u8, Vec<u8>) {
        let head = self.0.read_exact(2).await;
        let len = match head[1] {
            126 => {
                let long = self.0.read_exact(2).await;
                usize::from(u16::from_be_bytes([long[0], long[1]]))
            }
            short => usize::from(short),
        };
        (head[0], self.0.read_exact(len).await)
    }

    /// Waits for Close, and tells its code.
    pub(crate) async fn close(&mut self) -> String {
        loop {
            if let (CLOSE, payload) = self.next().await {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                return format!("Close {code:?}");
            }
        }
    }

    /// The Close that comes soon, if one does.
    pub(crate) async fn close_soon(&mut self) -> String {
        soon(self.close()).await.unwrap_or("stays open".into())
    }

    /// What becomes of these bytes: they reach the application, or there is a Close instead.
    pub(crate) async fn fate(&mut self, site: &Site, bytes: &[u8]) -> String {
        self.send(bytes).await;
        tokio::select! {
            close = self.close() => close,
            () = site.application().received(bytes.len()) => "passed".into(),
        }
    }

    /// Waits for this many bytes.
    pub(crate) async fn read(&mut self, count: usize) {
        self.0.read_exact(count).await;
    }

    /// Waits for the end of the connection.
    pub(crate) async fn end(&mut self) {
        self.0.read_to_close().await;
    }
}

// === impl Application ===

impl Application {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (count, received) = watch::channel(0);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, count.clone()));
            }
        });
        Self {
            address,
            received,
            _running: running,
        }
    }

    /// Waits until this many bytes of frames have come.
    pub(crate) async fn received(&self, count: usize) {
        let mut received = self.received.clone();
        let enough = received.wait_for(|received| *received >= count as u64);
        enough.await.expect("the application runs");
    }
}

/// What goes wrong here is seen at the other end.
async fn serve(stream: TcpStream, count: watch::Sender<u64>) {
    if let Err(error) = try_serve(stream, count).await {
        println!("the application's connection: {error}");
    }
}

async fn try_serve(mut stream: TcpStream, count: watch::Sender<u64>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.trim())
    });
    let accept = web_socket_accept(key.unwrap_or_default());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let (mut reader, mut writer) = stream.into_split();
    let speaking = async {
        let large = unmasked(BINARY, &large());
        match path.as_str() {
            "/close" => {
                writer
                    .write_all(&unmasked(CLOSE, &1000_u16.to_be_bytes()))
                    .await?
            }
            "/many" => writer.write_all(&unmasked(TEXT, b"x").repeat(MANY)).await?,
            "/large" => writer.write_all(&large.repeat(LARGE_COUNT)).await?,
            "/flood" => loop {
                writer.write_all(&large).await?;
            },
            _ => {}
        }
        // The connection ends when the other side ends it.
        std::future::pending().await
    };
    let listening = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer).await? {
                0 => return Ok(()),
                read => count.send_modify(|count| *count += read as u64),
            }
        }
    };
    tokio::select! {
        ended = speaking => ended,
        ended = listening => ended,
    }
}
