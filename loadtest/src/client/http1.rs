//! HTTP/1.1 on kept connections, and WebSocket.

use super::check::Check;
use super::payload::Payloads;
use super::record::{Answer, Outcome};
use super::request::{Kind, Request};
use super::{PIECE_PAUSE, PIECES};
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Requests after which a connection is closed, so that new ones are made all the time.
const USED_MAX: u32 = 200;
const BUFFER_BYTES: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// A masked text frame of 26 bytes, and what comes back: no server masks.
const FRAME: &[u8] = b"\x81\x9a\0\0\0\0abcdefghijklmnopqrstuvwxyz";
const ECHO: &[u8] = b"\x81\x1aabcdefghijklmnopqrstuvwxyz";
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Connections that wait for a request.
#[derive(Debug)]
pub(super) struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
    /// Idle connections on which bytes came that nobody had asked for.
    unasked: AtomicU64,
}

/// What became of a connection that nobody used.
#[derive(Debug, PartialEq, Eq)]
enum Idle {
    /// It may carry a request.
    Ready,
    /// The server has closed it.
    Closed,
    /// The server has sent something.
    Unasked,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    used: u32,
}

#[derive(Debug)]
struct Head {
    status: u16,
    length: Option<usize>,
    keepalive: bool,
    bytes: usize,
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: Mutex::default(),
            unasked: AtomicU64::new(0),
        }
    }

    /// Idle connections on which bytes came that nobody had asked for: an answer too much, or an end that
    /// was not one. Looks at those that are still idle, too, and closes them.
    pub(super) fn unasked(&self) -> u64 {
        let left = std::mem::take(&mut *self.idle());
        for connection in left {
            self.note(&connection.look());
        }
        self.unasked.load(Ordering::Relaxed)
    }

    fn note(&self, idle: &Idle) {
        if *idle == Idle::Unasked {
            self.unasked.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) async fn ask(&self, request: &Request<'_>, payloads: &Payloads) -> Answer {
        let mut connection = match self.connection().await {
            Ok(connection) => connection,
            Err(error) => {
                return Answer {
                    why: Some(error.kind().to_string()),
                    ..Answer::failed(Outcome::Refused)
                };
            }
        };
        connection.used += 1;
        match connection.exchange(request, payloads).await {
            Ok((answer, again)) => {
                if again && connection.used < USED_MAX {
                    self.idle().push(connection);
                }
                answer
            }
            Err(outcome) => Answer::failed(outcome),
        }
    }

    async fn connection(&self) -> std::io::Result<Connection> {
        loop {
            let Some(known) = self.idle().pop() else {
                break;
            };
            // A server may close an idle connection at any time (RFC 9112, 9.5): no failed request.
            let idle = known.look();
            if idle == Idle::Ready {
                return Ok(known);
            }
            self.note(&idle);
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
            used: 0,
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Connection ===

impl Connection {
    fn look(&self) -> Idle {
        match self.stream.try_read(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Idle::Ready,
            Ok(0) | Err(_) => Idle::Closed,
            Ok(_) => Idle::Unasked,
        }
    }

    /// The answer, and whether the connection may carry another request.
    async fn exchange(
        &mut self,
        request: &Request<'_>,
        payloads: &Payloads,
    ) -> Result<(Answer, bool), Outcome> {
        let body = payloads.body(request.payload);
        let sent_whole = self.send(request, body).await;
        let head = self.read_head().await?;
        if head.status == 101 {
            return self.talk(head).await.map(|answer| (answer, false));
        }
        let expected = match request.kind.is_post() {
            true => payloads.receipt(request.payload),
            false => body,
        };
        let mut check = Check::new(expected, request.tenant, head.status);
        self.show_headers(&mut check);
        let Some(length) = head.length else {
            return Err(Outcome::Other);
        };
        let mut left = length;
        let first = &self.buffer[head.bytes..self.filled];
        if first.len() > left {
            return Err(Outcome::Other);
        }
        check.piece(first);
        left -= first.len();
        self.filled = 0;
        while left > 0 {
            let most = left.min(self.buffer.len());
            match self.stream.read(&mut self.buffer[..most]).await {
                Ok(0) | Err(_) => return Ok((check.broken(), false)),
                Ok(count) => {
                    check.piece(&self.buffer[..count]);
                    left -= count;
                }
            }
        }
        let answer = check.end();
        if request.kind == Kind::WebSocket && answer.outcome == Outcome::Ok {
            // An ordinary answer where an upgrade was asked for.
            return Err(Outcome::Other);
        }
        Ok((answer, head.keepalive && sent_whole))
    }

    /// Sends the request; false where an answer came before its end, or the server takes no more.
    async fn send(&mut self, request: &Request<'_>, body: &[u8]) -> bool {
        let mut text = Vec::with_capacity(512 + body.len());
        let method = if request.kind.is_post() {
            "POST"
        } else {
            "GET"
        };
        // Writing to a Vec cannot fail.
        let mut line = |part: std::fmt::Arguments<'_>| text.write_fmt(part).is_ok();
        line(format_args!("{method} {} HTTP/1.1\r\n", request.path()));
        line(format_args!(
            "Host: hub.example\r\nUser-Agent: hub-loadtest\r\nX-Location-Id: {}\r\n",
            request.tenant
        ));
        if request.kind == Kind::WebSocket {
            line(format_args!("{WEBSOCKET}"));
        }
        if request.kind.is_post() {
            line(format_args!("Content-Length: {}\r\n", body.len()));
        }
        line(format_args!("\r\n"));
        if !request.kind.is_post() {
            return self.stream.write_all(&text).await.is_ok();
        }
        if !request.kind.is_slow_upload() {
            text.extend_from_slice(body);
            return self.stream.write_all(&text).await.is_ok();
        }
        if self.stream.write_all(&text).await.is_err() {
            return false;
        }
        for piece in body.chunks(body.len().div_ceil(PIECES)) {
            tokio::select! {
                () = tokio::time::sleep(PIECE_PAUSE) => {}
                _ = self.stream.readable() => return false,
            }
            if self.stream.write_all(piece).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Reads a head into the buffer's beginning, past interim ones.
    async fn read_head(&mut self) -> Result<Head, Outcome> {
        loop {
            if let Some(head) = parse(&self.buffer[..self.filled])? {
                if head.status >= 200 || head.status == 101 {
                    return Ok(head);
                }
                self.buffer.copy_within(head.bytes..self.filled, 0);
                self.filled -= head.bytes;
                continue;
            }
            if self.filled == self.buffer.len() {
                return Err(Outcome::Other);
            }
            match self.stream.read(&mut self.buffer[self.filled..]).await {
                Ok(0) | Err(_) => return Err(Outcome::Reset),
                Ok(count) => self.filled += count,
            }
        }
    }

    /// Shows the headers of the head that has just been read.
    fn show_headers(&self, check: &mut Check<'_>) {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        if response.parse(&self.buffer[..self.filled]).is_ok() {
            for field in response.headers.iter() {
                check.header(&field.name.to_ascii_lowercase(), field.value);
            }
        }
    }

    /// One message over a WebSocket, and its echo.
    async fn talk(&mut self, head: Head) -> Result<Answer, Outcome> {
        let mut check = Check::new(ECHO, "", 200);
        self.show_headers(&mut check);
        // Who upgraded is known; the application does not say for whom.
        check.header("x-seen-tenant", b"");
        let early = self.buffer[head.bytes..self.filled].len();
        let mut echo = [0; ECHO.len()];
        let there_and_back = async {
            self.stream.write_all(FRAME).await?;
            self.stream.read_exact(&mut echo).await?;
            self.stream.shutdown().await
        };
        if early > 0 {
            return Err(Outcome::Other);
        }
        if there_and_back.await.is_err() {
            return Ok(check.broken());
        }
        check.piece(&echo);
        Ok(check.end())
    }
}

/// Reads one head; `None` while it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<Head>, Outcome> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Outcome::Other),
    };
    let mut head = Head {
        status: response.code.unwrap_or(0),
        length: None,
        keepalive: response.version == Some(1),
        bytes: length,
    };
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(field.value).unwrap_or_default();
            head.length = Some(text.parse().map_err(|_| Outcome::Other)?);
        } else if field.name.eq_ignore_ascii_case("connection") {
            head.keepalive &= !field.value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A connection that waits in a pool, and the server's end of it.
    async fn waits(pool: &Pool, listener: &TcpListener) -> TcpStream {
        let connection = pool.connection().await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        pool.idle().push(connection);
        server
    }

    async fn arrives(pool: &Pool) {
        let connection = pool.idle().pop().unwrap();
        connection.stream.readable().await.unwrap();
        pool.idle().push(connection);
    }

    #[tokio::test]
    async fn bytes_that_nobody_asked_for_are_counted_and_a_close_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::new(listener.local_addr().unwrap());
        let mut server = waits(&pool, &listener).await;
        server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        arrives(&pool).await;
        // Found by the next request, which gets a connection of its own.
        let server = waits(&pool, &listener).await;
        assert_eq!(pool.idle().len(), 1);
        drop(server);
        arrives(&pool).await;
        let mut server = waits(&pool, &listener).await;
        server.write_all(b"0").await.unwrap();
        arrives(&pool).await;
        // Found at the end.
        assert_eq!(pool.unasked(), 2);
    }
}
