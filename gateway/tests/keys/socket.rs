//! Both ends of a WebSocket, in bytes: neither answers any frame, so that a probe sees what the gateway does
//! by itself.

use crate::site::{Site, brief, soon};
use hub_testkit::Wire;
use hub_testkit::websocket::{Frame, Handshake, Role, accept_key, opcode};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// More messages than one read of the gateway holds.
const MANY: usize = 50_000;
/// Payload of a message of [`large`]. [`LARGE_COUNT`] of them are far more than one read holds.
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

/// A large message.
pub(crate) fn large(sender: Role) -> Vec<u8> {
    Frame::binary([b'x'; LARGE_BYTES]).bytes(sender)
}

/// Many small messages.
pub(crate) fn many(sender: Role) -> Vec<u8> {
    Frame::text("x").bytes(sender).repeat(MANY)
}

// === impl Socket ===

impl Socket {
    /// Opens one, or says what the gateway answered instead.
    pub(crate) async fn open(site: &Site, handshake: &Handshake) -> Result<Self, String> {
        let mut wire = site.send(handshake.request()).await;
        let answer = wire.read_response().await;
        match answer.status {
            101 => Ok(Self(wire)),
            _ => Err(brief(&answer)),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.send(bytes).await;
    }

    /// The next frame, which is short.
    pub(crate) async fn next(&mut self) -> Frame {
        let mut bytes = self.0.read_exact(2).await;
        bytes.extend(self.0.read_exact(bytes[1].into()).await);
        let (frame, _) = Frame::parse(&bytes)
            .expect("a frame of a server")
            .expect("a whole one");
        frame
    }

    /// Waits for Close, and tells its code.
    pub(crate) async fn close(&mut self) -> String {
        loop {
            let frame = self.next().await;
            if frame.opcode == opcode::CLOSE {
                let code = frame.payload.first_chunk();
                return format!("Close {:?}", code.map(|code| u16::from_be_bytes(*code)));
            }
        }
    }

    /// The Close that comes soon, if one does.
    pub(crate) async fn close_soon(&mut self) -> String {
        soon(self.close()).await.unwrap_or("stays open".into())
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
    let accept = accept_key(key.unwrap_or_default());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let (mut reader, mut writer) = stream.into_split();
    let speaking = async {
        let large = large(Role::Server);
        match path.as_str() {
            "/close" => {
                let close = Frame::close(1000, "").bytes(Role::Server);
                writer.write_all(&close).await?;
            }
            "/many" => writer.write_all(&many(Role::Server)).await?,
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
