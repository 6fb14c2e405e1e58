//! The body of an HTTP/1 request, followed byte by byte beside the stream.
//!
//! The tracker keeps nothing of what passes: it knows where the message ends, and finds the first
//! byte at which two readers could disagree on that. What it refuses beyond RFC 9112:
//!
//! - bare LF and CR, white space around a chunk's size, sizes of more than 16 digits;
//! - chunk extensions that are not `;name`, `;name=token` or `;name="text"`, that take more than 256
//!   bytes of a line or 4096 of a message;
//! - trailers that are folded, more than 16, larger than 4096 bytes in all, with a name of more than
//!   64 bytes, or whose name could change framing, routing, identity or decoding.
//!
//! Invariant: memory is constant, time in proportion to the bytes.

use super::head::Framing;
use super::head::bytes::{first_control, hex_digit, is_token};
use super::head::names::is_forbidden_trailer;
use hub_core::Reason;

/// Most digits of a chunk's size: what 64 bits hold.
const SIZE_DIGITS_MAX: u8 = 16;
/// Most bytes of the extensions of one chunk.
const EXTENSION_BYTES_MAX: u16 = 256;
/// Most bytes of the extensions of all chunks of a message.
const EXTENSIONS_BYTES_MAX: u16 = 4096;
/// Most trailers.
const TRAILERS_MAX: u8 = 16;
/// Most bytes of all trailers, line ends included.
const TRAILER_BYTES_MAX: usize = 4096;
/// Longest name of a trailer, in bytes; longer than any name that is forbidden as one.
const TRAILER_NAME_BYTES_MAX: usize = 64;

/// What [`MessageBody::advance`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that belong to this message. Fewer than were given only at its end.
    pub consumed: usize,
    /// The message is complete.
    pub done: bool,
    /// Payload bytes so far: the body without chunk lines and trailers.
    pub payload: u64,
}

/// Follows one message body to its end.
#[derive(Debug)]
pub struct MessageBody {
    state: State,
    payload: u64,
    payload_max: u64,
    /// Bytes of extensions in this message.
    extensions: u16,
    trailers: Trailers,
}

#[derive(Debug, Default)]
struct Trailers {
    count: u8,
    bytes: usize,
    name: TrailerName,
}

/// The name of the trailer in progress.
#[derive(Debug)]
struct TrailerName {
    bytes: [u8; TRAILER_NAME_BYTES_MAX],
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a body with a Content-Length are to come.
    Length(u64),
    /// In a chunk's size, of which so many digits were read.
    Size {
        value: u64,
        digits: u8,
    },
    /// In the extensions of a chunk of that size, of which so many bytes were read.
    Extension {
        value: u64,
        len: u16,
        part: Part,
    },
    /// After the CR of a chunk line.
    SizeLf(u64),
    /// So many bytes of the chunk are to come.
    Data(u64),
    /// The chunk's bytes are over.
    DataCr,
    DataLf,
    /// At the start of a trailer, or of the empty line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// After the CR of the empty line.
    EndLf,
    Done,
}

/// Where in an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// After `;`.
    NameStart,
    Name,
    /// After `=`.
    ValueStart,
    Value,
    Quoted,
    /// After a backslash between quotes.
    Escaped,
    /// After the closing quote.
    Closed,
}

// === impl MessageBody ===

impl MessageBody {
    /// The body of a request with this framing, of at most `payload_max` payload bytes.
    ///
    /// # Errors
    /// [`Reason::BodyTooLarge`] where its length is known and larger.
    pub fn new(framing: Framing, payload_max: u64) -> Result<Self, Reason> {
        let state = match framing {
            Framing::Length(length) if length > payload_max => return Err(Reason::BodyTooLarge),
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size {
                value: 0,
                digits: 0,
            },
        };
        Ok(Self {
            state,
            payload: 0,
            payload_max,
            extensions: 0,
            trailers: Trailers::default(),
        })
    }

    /// True once the message is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Payload bytes so far: the body without chunk lines and trailers.
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// Takes what has arrived, up to the end of the message; what follows it is left to the caller.
    ///
    /// # Errors
    /// [`Reason::BadChunk`] where the body is not in order, [`Reason::BodyTooLarge`] where it has, or
    /// a chunk announces, more payload than allowed. The tracker is of no more use then.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Progress, Reason> {
        let mut at = 0;
        loop {
            let (framing, payload) = self.next_payload(&bytes[at..])?;
            at += framing + payload;
            if payload == 0 {
                break;
            }
        }
        Ok(Progress {
            consumed: at,
            done: self.is_done(),
            payload: self.payload,
        })
    }

    /// Takes framing up to the next payload: how many bytes of `bytes` are framing, and how many after
    /// them are payload. Both are 0 where nothing is left to take; no payload means that more bytes are
    /// needed, or that the message is complete.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub(crate) fn next_payload(&mut self, bytes: &[u8]) -> Result<(usize, usize), Reason> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            match self.state {
                State::Length(_) | State::Data(_) => return Ok((at, self.run(bytes.len() - at))),
                State::TrailerValue => at += self.trailer_value(&bytes[at..])?,
                _ => {
                    self.state = self.step(bytes[at])?;
                    at += 1;
                }
            }
        }
        Ok((at, 0))
    }

    /// In payload: lets what is at hand pass.
    fn run(&mut self, at_hand: usize) -> usize {
        let (left, data) = match self.state {
            State::Length(left) => (left, false),
            State::Data(left) => (left, true),
            _ => return 0,
        };
        let (count, left) = self.pass(left, at_hand);
        self.state = match (data, left) {
            (false, 0) => State::Done,
            (true, 0) => State::DataCr,
            (false, left) => State::Length(left),
            (true, left) => State::Data(left),
        };
        count
    }

    /// Lets payload pass: how many bytes of those at hand, and how many are left after that.
    fn pass(&mut self, left: u64, at_hand: usize) -> (usize, u64) {
        let count = usize::try_from(left).map_or(at_hand, |left| left.min(at_hand));
        self.payload += count as u64;
        (count, left - count as u64)
    }

    /// The state after one byte of what is not payload.
    fn step(&mut self, byte: u8) -> Result<State, Reason> {
        Ok(match (self.state, byte) {
            (State::Size { value, digits }, _) => match (hex_digit(byte), byte) {
                (Some(digit), _) if digits < SIZE_DIGITS_MAX => State::Size {
                    value: value << 4 | u64::from(digit),
                    digits: digits + 1,
                },
                (None, b';') if digits > 0 => self.extension(value, 0, Part::NameStart)?,
                (None, b'\r') if digits > 0 => State::SizeLf(value),
                _ => return Err(Reason::BadChunk),
            },
            (
                State::Extension {
                    value,
                    part: Part::Name | Part::Value | Part::Closed,
                    ..
                },
                b'\r',
            ) => State::SizeLf(value),
            (State::Extension { value, len, part }, _) => {
                let part = part.after(byte).ok_or(Reason::BadChunk)?;
                self.extension(value, len, part)?
            }
            (State::SizeLf(0), b'\n') => State::Trailer,
            (State::SizeLf(size), b'\n') => {
                let within = self.payload.checked_add(size);
                if within.is_none_or(|total| total > self.payload_max) {
                    return Err(Reason::BodyTooLarge);
                }
                State::Data(size)
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size {
                value: 0,
                digits: 0,
            },
            (State::Trailer, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => State::Done,
            (State::Trailer | State::TrailerName, _) => self.trailer_name(byte)?,
            (State::TrailerLf, b'\n') => {
                self.trailer_bytes(1)?;
                State::Trailer
            }
            _ => return Err(Reason::BadChunk),
        })
    }

    /// One more byte of extensions.
    fn extension(&mut self, value: u64, len: u16, part: Part) -> Result<State, Reason> {
        self.extensions += 1;
        if len >= EXTENSION_BYTES_MAX || self.extensions > EXTENSIONS_BYTES_MAX {
            return Err(Reason::BadChunk);
        }
        Ok(State::Extension {
            value,
            len: len + 1,
            part,
        })
    }

    fn trailer_name(&mut self, byte: u8) -> Result<State, Reason> {
        self.trailer_bytes(1)?;
        if self.state == State::Trailer {
            self.trailers.count += 1;
            self.trailers.name.len = 0;
            if self.trailers.count > TRAILERS_MAX {
                return Err(Reason::BadChunk);
            }
        }
        let name = &mut self.trailers.name;
        if byte == b':' && name.len > 0 && !is_forbidden_trailer(&name.bytes[..name.len]) {
            return Ok(State::TrailerValue);
        }
        let slot = name.bytes.get_mut(name.len).ok_or(Reason::BadChunk)?;
        if !is_token(byte) {
            return Err(Reason::BadChunk);
        }
        *slot = byte;
        name.len += 1;
        Ok(State::TrailerName)
    }

    /// Passes a trailer's value; returns how many bytes of `rest` that took.
    fn trailer_value(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        let len = first_control(rest, 0);
        let taken = match rest.get(len) {
            None => len,
            Some(b'\r') => {
                self.state = State::TrailerLf;
                len + 1
            }
            Some(_) => return Err(Reason::BadChunk),
        };
        self.trailer_bytes(taken)?;
        Ok(taken)
    }

    fn trailer_bytes(&mut self, count: usize) -> Result<(), Reason> {
        self.trailers.bytes += count;
        if self.trailers.bytes > TRAILER_BYTES_MAX {
            return Err(Reason::BadChunk);
        }
        Ok(())
    }
}

/// Whether `bytes`, the beginning of a chunked body, hold its first chunk line in full. Until then
/// nothing of the request should go upstream, so that a fault in that line costs no origin a head
/// without a body. The line is at most 275 bytes long.
///
/// # Errors
/// [`Reason::BadChunk`] as soon as the line is wrong.
pub fn first_chunk_line_complete(bytes: &[u8]) -> Result<bool, Reason> {
    let mut body = MessageBody::new(Framing::Chunked, u64::MAX)?;
    for byte in bytes {
        body.state = body.step(*byte)?;
        if matches!(body.state, State::Data(_) | State::Trailer) {
            return Ok(true);
        }
    }
    Ok(false)
}

// === impl Part ===

impl Part {
    /// Where one goes on after `byte`; `None` where it may not stand here.
    fn after(self, byte: u8) -> Option<Self> {
        let text = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        match (self, byte) {
            (Self::Name | Self::Value | Self::Closed, b';') => Some(Self::NameStart),
            (Self::Name, b'=') => Some(Self::ValueStart),
            (Self::ValueStart, b'"') => Some(Self::Quoted),
            (Self::NameStart | Self::Name, _) if is_token(byte) => Some(Self::Name),
            (Self::ValueStart | Self::Value, _) if is_token(byte) => Some(Self::Value),
            (Self::Quoted, b'"') => Some(Self::Closed),
            (Self::Quoted, b'\\') => Some(Self::Escaped),
            (Self::Quoted | Self::Escaped, _) if text => Some(Self::Quoted),
            _ => None,
        }
    }
}

// === impl TrailerName ===

impl Default for TrailerName {
    fn default() -> Self {
        Self {
            bytes: [0; TRAILER_NAME_BYTES_MAX],
            len: 0,
        }
    }
}

#[cfg(test)]
mod tests;
