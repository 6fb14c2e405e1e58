//! What an origin does with a request, as the test scripts it.

use super::record::RecordedRequest;
use crate::Gate;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};

/// Chunks that a [`Feed`] holds before its sender waits.
const FEED_CHUNKS_MAX: usize = 64;

/// What an origin does with a request.
#[derive(Clone)]
pub enum Behaviour {
    /// Answers JSON that says what arrived: `colour`, `connection`, `method`, `target`, `headers` (a
    /// list of pairs), `body_bytes`, `body_sha256`, and `body` as text where it is 64 KiB at most.
    Echo,
    /// Gives this answer.
    Reply(Reply),
    /// Gives the answer that this function makes of the whole request.
    Call(Arc<dyn Fn(&RecordedRequest) -> Reply + Send + Sync>),
    /// Accepts an upgrade with 101 (and `Sec-WebSocket-Accept`), then sends every frame back, a
    /// Ping as a Pong, until it has answered a Close. A request without `Upgrade` is answered 426.
    WebSocket,
    /// Reads the request and never answers; the connection stays open until the peer closes it.
    Hang,
    /// Reads the request and closes the connection without an answer.
    Close,
    /// Reads the request and resets the connection without an answer.
    Reset,
    /// Reads the request, sends these bytes in place of an answer, and closes.
    Raw(Bytes),
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo => f.write_str("Echo"),
            Self::Reply(reply) => f.debug_tuple("Reply").field(reply).finish(),
            Self::Call(_) => f.write_str("Call"),
            Self::WebSocket => f.write_str("WebSocket"),
            Self::Hang => f.write_str("Hang"),
            Self::Close => f.write_str("Close"),
            Self::Reset => f.write_str("Reset"),
            Self::Raw(bytes) => f.debug_tuple("Raw").field(bytes).finish(),
        }
    }
}

impl Behaviour {
    /// Gives the answer that `make` makes of the whole request.
    pub fn call(make: impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static) -> Self {
        Self::Call(Arc::new(make))
    }

    /// Sends these bytes in place of an answer, and closes.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::Raw(bytes.into())
    }

    /// Refuses an upgrade: an ordinary answer with this status, no body, and the connection kept.
    pub fn refuse_upgrade(status: u16) -> Self {
        Reply::new(status).into()
    }

    /// A stream of server-sent events that the test drives. The answer begins at once; it ends when
    /// the [`Feed`] is dropped. One request at a time gets the events.
    pub fn sse() -> (Feed, Self) {
        let (feed, reply) = Reply::fed(200);
        let reply = reply
            .header("Content-Type", "text/event-stream")
            .header("Cache-Control", "no-store");
        (feed, reply.into())
    }
}

impl From<Reply> for Behaviour {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// An answer. Nothing is added to what the test says but the framing field, and `Connection: close`
/// where the answer closes.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Body,
    pub(super) framing: ReplyFraming,
    pub(super) trailers: Vec<(String, String)>,
    pub(super) interim: Vec<(u16, Vec<(String, String)>)>,
    pub(super) read_after: Option<Gate>,
    pub(super) head_after: Option<Gate>,
    pub(super) body_after: Option<Gate>,
    pub(super) early: bool,
    pub(super) close: bool,
    pub(super) fault: Option<Fault>,
    pub(super) chunk_bytes: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Bytes(Bytes),
    Repeated { byte: u8, count: u64 },
    Fed(Arc<Mutex<mpsc::Receiver<Bytes>>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyFraming {
    Length,
    Declared(u64),
    Chunked,
    UntilClose,
}

/// Where in the body an answer breaks off, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) after_bytes: u64,
    pub(super) reset: bool,
}

impl Reply {
    /// An answer without a body, framed by `Content-Length: 0`.
    pub fn new(status: u16) -> Self {
        let reason = http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Unknown");
        Self {
            status,
            reason: reason.to_owned(),
            headers: Vec::new(),
            body: Body::Bytes(Bytes::new()),
            framing: ReplyFraming::Length,
            trailers: Vec::new(),
            interim: Vec::new(),
            read_after: None,
            head_after: None,
            body_after: None,
            early: false,
            close: false,
            fault: None,
            chunk_bytes: 16 * 1024,
        }
    }

    /// 200 with this body.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::new(200).body(body)
    }

    /// An answer whose body the test feeds piece by piece: chunked, one chunk a piece, until the
    /// [`Feed`] is dropped. One request at a time gets the pieces.
    pub fn fed(status: u16) -> (Feed, Self) {
        let (sender, receiver) = mpsc::channel(FEED_CHUNKS_MAX);
        let mut reply = Self::new(status).chunked();
        reply.body = Body::Fed(Arc::new(Mutex::new(receiver)));
        (Feed(sender), reply)
    }

    /// Says other words after the status.
    pub fn reason(mut self, reason: &str) -> Self {
        reason.clone_into(&mut self.reason);
        self
    }

    /// Adds a field after those that are there; any bytes, as given.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Body::Bytes(body.into());
        self
    }

    /// Sets a body of `count` equal bytes, which takes no memory.
    pub fn repeated(mut self, byte: u8, count: u64) -> Self {
        self.body = Body::Repeated { byte, count };
        self
    }

    /// Sends the body in chunks.
    pub fn chunked(mut self) -> Self {
        self.framing = ReplyFraming::Chunked;
        self
    }

    /// Sends the body in chunks of this many bytes, the last one shorter; at least 1.
    pub fn chunks_of(mut self, bytes: usize) -> Self {
        self.chunk_bytes = bytes.max(1);
        self.chunked()
    }

    /// Adds a field after the last chunk. Only chunked answers have them.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Frames the body by the end of the connection.
    pub fn until_close(mut self) -> Self {
        self.framing = ReplyFraming::UntilClose;
        self.close()
    }

    /// Says this `Content-Length`, true or not. Where it is more than the body has, the connection
    /// closes after the body.
    pub fn declared_length(mut self, bytes: u64) -> Self {
        self.framing = ReplyFraming::Declared(bytes);
        self
    }

    /// Says `Connection: close`, and closes after the answer: first our half, then, once the peer
    /// has closed its own, the whole.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Sends an interim answer (100, 103 ...) as soon as the head is read. Without a 100 of the
    /// test's own, one is sent where the client expects it and the body is read.
    pub fn interim(mut self, status: u16, headers: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.interim
            .push((status, headers.iter().map(owned).collect()));
        self
    }

    /// Answers before the body is read. The body is read afterwards, unless the answer closes.
    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }

    /// Reads the body only once this gate is open: the test of back-pressure.
    pub fn read_after(mut self, gate: &Gate) -> Self {
        self.read_after = Some(gate.clone());
        self
    }

    /// Sends the head only once this gate is open.
    pub fn after(mut self, gate: &Gate) -> Self {
        self.head_after = Some(gate.clone());
        self
    }

    /// Sends the head at once and the body only once this gate is open.
    pub fn body_after(mut self, gate: &Gate) -> Self {
        self.body_after = Some(gate.clone());
        self
    }

    /// Closes in an orderly way after this many bytes of the body; in the middle of a chunk where
    /// that is where they end.
    pub fn close_after(mut self, bytes: u64) -> Self {
        self.fault = Some(Fault {
            after_bytes: bytes,
            reset: false,
        });
        self
    }

    /// Resets the connection after this many bytes of the body. Bytes that the peer has not read by
    /// then may be lost to it, as is the nature of a reset.
    pub fn reset_after(mut self, bytes: u64) -> Self {
        self.fault = Some(Fault {
            after_bytes: bytes,
            reset: true,
        });
        self
    }
}

/// The test's end of a body that is sent as it is fed. Dropping it ends the body.
#[derive(Clone, Debug)]
pub struct Feed(mpsc::Sender<Bytes>);

impl Feed {
    /// Sends a piece; waits while 64 are on their way. Returns false where the origin is gone. An
    /// empty piece is not sent, since an empty chunk would end the body.
    pub async fn send(&self, piece: impl Into<Bytes>) -> bool {
        let piece = piece.into();
        piece.is_empty() || self.0.send(piece).await.is_ok()
    }

    /// Sends one server-sent event with this data.
    pub async fn event(&self, data: &str) -> bool {
        let lines: String = data
            .split('\n')
            .map(|line| format!("data: {line}\n"))
            .collect();
        self.send(lines + "\n").await
    }

    /// Ends the body, once every clone has ended it.
    pub fn end(self) {}
}
