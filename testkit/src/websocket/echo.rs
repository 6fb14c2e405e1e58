//! A server that echoes, on a library that has nothing to do with the gateway.

use futures::{SinkExt, StreamExt};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

/// Largest message that it takes, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A server that sends every message back as it is, answers Ping with Pong and Close with Close, and closes
/// with the right code where a client breaks the rules. It stops, with all its connections, when it is
/// dropped.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    sessions: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl EchoServer {
    /// Binds a free port of 127.0.0.1 and serves.
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
        let sessions = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(listener, sessions.clone()));
        Self {
            address,
            sessions,
            task,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// WebSockets that were opened so far.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts until it is aborted; the set it holds takes the connections with it.
async fn accept(listener: TcpListener, sessions: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A peer that was gone before it was accepted: the next may do better.
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(serve(stream, sessions.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, sessions: Arc<AtomicUsize>) {
    stream.set_nodelay(true).ok();
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let Ok(mut socket) = accept_async_with_config(stream, Some(config)).await else {
        return;
    };
    sessions.fetch_add(1, Ordering::Relaxed);
    if let Some(code) = echo(&mut socket).await {
        let close = CloseFrame {
            code,
            reason: "".into(),
        };
        // Whoever broke the rules may be gone already.
        socket.close(Some(close)).await.ok();
    }
    // A socket that is closed with bytes unread resets what it has sent.
    let stream = socket.get_mut();
    let mut rest = [0; 4096];
    stream.shutdown().await.ok();
    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
}

/// Echoes until the session ends: the code to close with, where the client has not closed.
async fn echo(socket: &mut WebSocketStream<TcpStream>) -> Option<CloseCode> {
    loop {
        match socket.next().await? {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                socket.send(message).await.ok()?;
            }
            // The library answers by itself, when it is asked for the next message.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {}
            Err(Error::Protocol(_)) => return Some(CloseCode::Protocol),
            Err(Error::Utf8(_)) => return Some(CloseCode::Invalid),
            Err(Error::Capacity(_)) => return Some(CloseCode::Size),
            Err(_) => return None,
        }
    }
}
