//! An answer as bytes: its head, and how its body is delimited (RFC 9112, section 6.3).

use crate::stages::forward::ResponseDress;
use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode, header};
use hub_core::HeaderName;
use pingora::http::ResponseHeader;

/// Delimits one answer's body.
#[derive(Debug, Default)]
pub(super) struct Framer {
    state: State,
    sent: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No final head yet.
    #[default]
    Head,
    /// So many bytes are to come.
    Length(u64),
    Chunked,
    /// The end of the connection is the end of the body.
    UntilClose,
    Done,
}

/// A piece of a body on its way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// What stands before a chunk; CRLF stands behind it.
    pub(super) chunk_line: Option<ChunkLine>,
    pub(super) payload: &'a [u8],
}

/// A chunk's size in hexadecimal digits, with CRLF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkLine {
    bytes: [u8; 18],
    start: u8,
}

// === impl ChunkLine ===

impl ChunkLine {
    fn new(mut size: usize) -> Self {
        let mut bytes = [0; 18];
        bytes[16] = b'\r';
        bytes[17] = b'\n';
        let mut start = 16;
        while start == 16 || size > 0 {
            start -= 1;
            bytes[start] = b"0123456789abcdef"[size & 15];
            size >>= 4;
        }
        Self {
            bytes,
            start: start as u8,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

// === impl Framer ===

impl Framer {
    /// Delimits the body of `response`, which answers a request with `method`.
    pub(super) fn of(method: &Method, response: &ResponseHeader) -> Self {
        let bodyless = *method == Method::HEAD
            || matches!(
                response.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let state = if bodyless {
            State::Done
        } else if is_chunked(&response.headers) {
            State::Chunked
        } else {
            match content_length(&response.headers) {
                Some(0) => State::Done,
                Some(length) => State::Length(length),
                None => State::UntilClose,
            }
        };
        Self { state, sent: 0 }
    }

    /// How `data` goes out; `None` where no more may go out.
    pub(super) fn piece<'a>(&mut self, data: &'a [u8]) -> Option<Piece<'a>> {
        let (chunk_line, payload) = match &mut self.state {
            State::Head | State::Done => return None,
            State::Length(left) => {
                let count = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
                *left -= count as u64;
                if *left == 0 {
                    self.state = State::Done;
                }
                (None, &data[..count])
            }
            State::Chunked => (Some(ChunkLine::new(data.len())), data),
            State::UntilClose => (None, data),
        };
        self.sent += payload.len();
        Some(Piece {
            chunk_line,
            payload,
        })
    }

    /// What stands at the body's end.
    ///
    /// # Errors
    /// The number of bytes that were announced and did not come.
    pub(super) fn end(&mut self) -> Result<&'static [u8], u64> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Length(left) => {
                self.state = State::Length(left);
                Err(left)
            }
            State::Chunked => Ok(b"0\r\n\r\n"),
            State::Head => {
                self.state = State::Head;
                Ok(b"")
            }
            State::UntilClose | State::Done => Ok(b""),
        }
    }

    /// True once nothing is left to send.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Done
    }

    /// True where only the end of the connection ends the body.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Payload bytes so far.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }
}

/// Whether the last transfer coding is `chunked`.
pub(crate) fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .next_back();
    last.and_then(|value| value.as_bytes().rsplit(|byte| *byte == b',').next())
        .is_some_and(|token| token.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// The length that all Content-Length fields agree on; pingora has refused answers in which they
/// differ.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    value.split(',').next()?.trim().parse().ok()
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Appends the head of `response` to `out`, changed as `dress` says. What an upstream says of its own
/// connection stays here; `connection` is what is said of the client's.
pub(crate) fn put_head(
    out: &mut BytesMut,
    response: &ResponseHeader,
    dress: &ResponseDress,
    connection: Option<&str>,
    tunnel: bool,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(response.status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    let phrase = response.get_reason_phrase().unwrap_or_default();
    out.extend_from_slice(phrase.as_bytes());
    out.extend_from_slice(b"\r\n");
    let nominated = response.headers.get(header::CONNECTION).filter(|_| !tunnel);
    let mut dated = response.status.is_informational();
    for (name, value) in &response.headers {
        if dress.replaces(name) {
            continue;
        }
        dated |= name == header::DATE;
        let hop_by_hop =
            name == header::CONNECTION || name == KEEP_ALIVE || name == PROXY_CONNECTION;
        if !tunnel && (hop_by_hop || nominated.is_some_and(|_| is_nominated(response, name))) {
            continue;
        }
        put_field(out, name.as_str(), value.as_bytes());
    }
    dress.put_fields(|name, value| {
        dated |= name == header::DATE;
        put_field(out, name.as_str(), value);
    });
    if !dated {
        let date = pingora::protocols::http::date::get_cached_date();
        put_field(out, "date", date.as_bytes());
    }
    if let Some(connection) = connection {
        put_field(out, "connection", connection.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether the answer's Connection header names `name` as its own. Framing cannot be taken away.
#[cold]
fn is_nominated(response: &ResponseHeader, name: &HeaderName) -> bool {
    if *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING {
        return false;
    }
    let values = response.headers.get_all(header::CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| {
            token
                .trim_ascii()
                .eq_ignore_ascii_case(name.as_str().as_bytes())
        })
}

#[cfg(test)]
mod tests;
