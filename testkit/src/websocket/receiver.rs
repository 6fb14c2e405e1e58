//! The receiving half of a peer: it holds the other end to RFC 6455.

use super::{Frame, PATIENCE, Role, opcode};
use bytes::{Buf, BytesMut};
use std::fmt;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What came from the other end.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole message.
    Text(String),
    /// A whole message.
    Binary(Vec<u8>),
    /// Is to be answered, which nobody does by itself.
    Ping(Vec<u8>),
    /// An answer.
    Pong(Vec<u8>),
    /// Code, where there is one, and reason.
    Close(Option<u16>, String),
    /// The connection ended in an orderly way (FIN).
    End,
    /// The connection was reset (RST).
    Reset,
}

/// Reads frames, checks them, and puts messages together.
#[derive(Debug)]
pub struct Receiver<R> {
    pub(super) stream: R,
    pub(super) buffer: BytesMut,
    /// Who sends.
    pub(super) from: Role,
    /// Opcode and payload of the message under way.
    pub(super) message: Option<(u8, Vec<u8>)>,
    /// Close has come.
    pub(super) closed: bool,
    /// The connection was reset.
    pub(super) reset: bool,
}

// === impl Event ===

impl Event {
    /// A text message.
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// True where nothing but the end of the connection can follow.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Close(..) | Self::End | Self::Reset)
    }

    /// The code of a Close; `None` for anything else, and for a Close that has none.
    pub fn close_code(&self) -> Option<u16> {
        match self {
            Self::Close(code, _) => *code,
            _ => None,
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, payload) = match self {
            Self::Text(text) => ("Text", text.as_bytes()),
            Self::Binary(bytes) => ("Binary", bytes.as_slice()),
            Self::Ping(bytes) => ("Ping", bytes.as_slice()),
            Self::Pong(bytes) => ("Pong", bytes.as_slice()),
            Self::Close(code, reason) => return write!(f, "Close({code:?}, {reason:?})"),
            Self::End => return f.write_str("End"),
            Self::Reset => return f.write_str("Reset"),
        };
        // Some are megabytes long.
        let shown = payload[..payload.len().min(40)].escape_ascii();
        write!(f, "{name}({} bytes, {shown})", payload.len())
    }
}

// === impl Receiver ===

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// What comes next.
    ///
    /// # Panics
    /// Where it is not as RFC 6455 asks, or does not come within [`PATIENCE`].
    pub async fn next(&mut self) -> Event {
        self.try_next().await.unwrap_or_else(|why| panic!("{why}"))
    }

    /// What comes next.
    ///
    /// # Errors
    /// What is wrong with it, or that nothing came within [`PATIENCE`].
    pub async fn try_next(&mut self) -> Result<Event, String> {
        loop {
            let Some(frame) = self.try_frame().await? else {
                return Ok(if self.reset { Event::Reset } else { Event::End });
            };
            let Frame { fin, payload, .. } = frame;
            let (kind, payload) = match (frame.opcode, self.message.take()) {
                (opcode::PING, message) => {
                    self.message = message;
                    return Ok(Event::Ping(payload));
                }
                (opcode::PONG, message) => {
                    self.message = message;
                    return Ok(Event::Pong(payload));
                }
                (opcode::CLOSE, _) => return close(&payload),
                (opcode::CONTINUATION, Some((kind, mut begun))) => {
                    begun.extend(payload);
                    (kind, begun)
                }
                (opcode::CONTINUATION, None) => return Err("a continuation of nothing".into()),
                (_, Some(_)) => return Err("a message begins within another one".into()),
                (kind, None) => (kind, payload),
            };
            if !fin {
                self.message = Some((kind, payload));
            } else if kind == opcode::TEXT {
                return match String::from_utf8(payload) {
                    Ok(text) => Ok(Event::Text(text)),
                    Err(error) => Err(format!("text that is not UTF-8: {error}")),
                };
            } else {
                return Ok(Event::Binary(payload));
            }
        }
    }

    /// The next frame; `None` at the end of the connection.
    ///
    /// # Errors
    /// As [`Receiver::try_next`]; how a message's frames follow each other is not looked at.
    pub async fn try_frame(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if let Some((frame, taken)) = Frame::parse(&self.buffer)? {
                self.buffer.advance(taken);
                if let Some(fault) = frame.fault(self.from) {
                    return Err(format!("{fault}: {frame:?}"));
                }
                if self.closed {
                    return Err(format!("a frame after Close: {frame:?}"));
                }
                self.closed = frame.opcode == opcode::CLOSE;
                return Ok(Some(frame));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Reads what has come; false at the end of the connection.
    async fn fill(&mut self) -> Result<bool, String> {
        self.buffer.reserve(64 * 1024);
        let read = self.stream.read_buf(&mut self.buffer);
        match tokio::time::timeout(PATIENCE, read).await {
            // In the middle of a frame as well: whoever is in trouble may break off.
            Ok(Ok(count)) => Ok(count > 0),
            Ok(Err(_)) => {
                self.reset = true;
                Ok(false)
            }
            Err(_) => Err(format!("nothing came in {PATIENCE:?}")),
        }
    }

    /// Waits until so many bytes have come of what is not yet a whole frame.
    ///
    /// # Panics
    /// Where they do not come.
    pub async fn wait_for_bytes(&mut self, count: usize) {
        while self.buffer.len() < count {
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => panic!("the connection ended after {} bytes", self.buffer.len()),
                Err(why) => panic!("{why}, after {} bytes", self.buffer.len()),
            }
        }
    }

    /// The next event that is neither Ping nor Pong.
    ///
    /// # Panics
    /// As [`Receiver::next`].
    pub async fn next_but_pings(&mut self) -> Event {
        loop {
            match self.next().await {
                Event::Ping(_) | Event::Pong(_) => {}
                event => return event,
            }
        }
    }

    /// Everything until Close or the end comes, with that.
    ///
    /// # Panics
    /// As [`Receiver::next`].
    pub async fn until_close(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            events.push(self.next().await);
            if events.last().is_some_and(Event::is_last) {
                return events;
            }
        }
    }
}

fn close(payload: &[u8]) -> Result<Event, String> {
    let (code, reason) = match payload {
        [] => (None, &[][..]),
        [_] => return Err("a Close with half of a code".into()),
        [high, low, reason @ ..] => (Some(u16::from_be_bytes([*high, *low])), reason),
    };
    if let Some(code) = code.filter(|code| !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999))
    {
        return Err(format!("a Close with {code}, which is never sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Event::Close(code, reason.to_owned())),
        Err(error) => Err(format!("a Close whose reason is not UTF-8: {error}")),
    }
}
