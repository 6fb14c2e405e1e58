//! The head of an HTTP/1 request, read strictly.
//!
//! What passes here is read by every origin in the same way, or it does not pass: two readings of one
//! request are how requests are smuggled. So this is stricter than RFC 9112 asks of a server:
//!
//! - Lines end in CRLF. No empty line before the request line is skipped, no line is folded, and
//!   exactly one space stands between the parts of the request line.
//! - HTTP/1.0 and 1.1 only; methods of at most 32 bytes; never CONNECT or TRACE, in any case.
//! - The target is a path with an optional query, an `http` or `https` URI whose authority equals the
//!   Host header, or `*` with OPTIONS. `" < > \ #`, and in a path also `` ^ ` { } ``, are refused
//!   unescaped; [`super::path`] says what is refused of paths beside that.
//! - Header names are tokens that do not imitate a name which the gateway believes; values hold
//!   visible ASCII, spaces, tabs and bytes from 0x80 on, the last not where the gateway reads them.
//! - There is one Host, well formed ([`super::host`]); at most one Content-Length, a plain number;
//!   or, on HTTP/1.1, one `Transfer-Encoding: chunked`; never both. Authorization, Content-Type,
//!   Origin, Expect, Sec-WebSocket-Key and Sec-WebSocket-Version do not stand there twice.
//!
//! Invariant: a [`Head`] holds offsets, so it can be kept beside the buffer that it was read from.
//! Its methods take that buffer, and panic where they are given a shorter one.
//! Invariant: reading a head costs time in proportion to its length, however slowly it arrives.
//! Deliberately absent: bodies ([`super::body`]), deadlines, and everything that needs a socket.

pub(crate) mod bytes;
mod fields;
pub(crate) mod names;
mod request_line;

pub(crate) use fields::check as check_fields;
pub use names::{imitates, imitates_interpreted as is_look_alike};
pub(crate) use request_line::{check_method, check_query, is_never_forwarded};

use self::bytes::{first_control, is_token, refuse};
use ::bytes::Bytes;
use fields::Seen;
use hub_core::{HeaderField, Method, Reason, Refusal, Version};
use smallvec::SmallVec;

/// Largest head that can be asked for, in bytes, so that offsets fit into 16 bits.
const HEAD_BYTES_CEILING: usize = u16::MAX as usize;
/// Longest method, in bytes.
const METHOD_BYTES_MAX: usize = 32;
/// Fields that a [`Head`] holds without an allocation.
const INLINE_FIELDS: usize = 32;

/// Bounds of one head. They hold while it is read, not only once it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Most bytes of request line and headers, the empty line at the end included. More than 65535
    /// counts as 65535.
    pub head_bytes_max: usize,
    /// Most bytes of the request target; more than 65535 counts as 65535.
    pub uri_bytes_max: usize,
    /// Most header fields.
    pub header_count_max: usize,
}

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// `Content-Length`: so many bytes, 0 to 2^63-1.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Whether the client wants another protocol on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// No Upgrade header.
    None,
    /// A complete WebSocket handshake (RFC 6455, section 4.1): GET on HTTP/1.1 without a body,
    /// `Connection: upgrade`, `Upgrade: websocket`, a key of 16 bytes in base64, version 13.
    WebSocket,
    /// Any other Upgrade header, h2c and malformed WebSocket handshakes included. RFC 9110 lets a
    /// server ignore it; forwarding such a request without it makes it a plain one.
    Other,
}

/// A checked head, as offsets into the buffer that it was read from.
#[derive(Clone, Debug)]
pub struct Head {
    /// Bytes of the head, from the buffer's start, the empty line included.
    pub len: usize,
    /// The method, as the client spelled it.
    pub method: Method,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// Port of the Host header or of the absolute URI; `None` where it is absent or empty.
    pub port: Option<u16>,
    /// How the body is delimited.
    pub framing: Framing,
    /// The client wants to go on using the connection after this request.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends its body. False where there is no body.
    pub expect_continue: bool,
    /// Whether another protocol is asked for.
    pub upgrade: Upgrade,
    /// The target was a URI with scheme and authority.
    absolute: bool,
    raw_path: RawPath,
    path_normal: Option<Box<str>>,
    query: Option<Span>,
    host: Text,
    fields: SmallVec<[FieldSpan; INLINE_FIELDS]>,
}

/// Reads one head from bytes that arrive in pieces.
#[derive(Debug)]
pub struct HeadReader {
    limits: HeadLimits,
    /// The request line is done, header fields are being read.
    in_fields: bool,
    /// Where the line that is not yet complete starts.
    line: usize,
    /// Which part of that line was in progress when the bytes ran out, and where they did.
    part: Part,
    scanned: usize,
    head: Head,
    seen: Seen,
}

/// What was found at the start of a line.
enum Line {
    /// Not all of it is there yet; the bytes ran out in this part of it.
    Incomplete(Part),
    /// It was understood; the next one starts here.
    Next(usize),
    /// It was the empty one; the head ends here.
    End(usize),
}

/// Part of a line, as far as it matters to whether more bytes can change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// One whose length is bounded so tightly that it is simply read again.
    Short,
    /// The request target.
    Target,
    /// A header's name.
    Name,
    /// A header's value.
    Value,
}

/// A piece of the buffer. Heads end below 2^16, so 16 bits hold every offset.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u16,
    len: u16,
}

#[derive(Clone, Copy, Debug)]
struct FieldSpan {
    name: Span,
    value: Span,
}

/// Where a host stands: as it is in the buffer, or brought into its normal form.
#[derive(Clone, Debug)]
enum Text {
    InBuffer(Span),
    Owned(Box<str>),
}

/// The path that the upstream gets.
#[derive(Clone, Copy, Debug)]
enum RawPath {
    InBuffer(Span),
    /// An absolute URI without a path means its root.
    Root,
    /// The server as a whole: `OPTIONS *`, or OPTIONS on an absolute URI without path and query.
    Asterisk,
}

/// Reads a head from bytes that start with it. `Ok(None)` means that more bytes are needed.
///
/// # Errors
/// A [`Refusal`] whose detail names the rule, as soon as the bytes so far break one. The rows of the
/// table that this may answer with are those of `accept`, from [`Reason::BadSyntax`] to
/// [`Reason::BadExpectation`], but for the body's, the PROXY header's and the deadline's.
pub fn parse(buffer: &[u8], limits: &HeadLimits) -> Result<Option<Head>, Refusal> {
    HeadReader::new(*limits).advance(buffer)
}

// === impl HeadReader ===

impl HeadReader {
    /// A reader for the next head.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits: HeadLimits {
                head_bytes_max: limits.head_bytes_max.min(HEAD_BYTES_CEILING),
                uri_bytes_max: limits.uri_bytes_max.min(HEAD_BYTES_CEILING),
                ..limits
            },
            in_fields: false,
            line: 0,
            part: Part::Short,
            scanned: 0,
            head: Head::empty(),
            seen: Seen::default(),
        }
    }

    /// Goes on reading. `buffer` starts with the head's first byte and holds what it held at the call
    /// before, and more. Once a head is returned the reader is ready for another one.
    ///
    /// # Errors
    /// As [`parse`]. After a refusal the reader is of no more use.
    pub fn advance(&mut self, buffer: &[u8]) -> Result<Option<Head>, Refusal> {
        let window = &buffer[..buffer.len().min(self.limits.head_bytes_max)];
        if self.part_goes_on(window) {
            return self.wait(window, self.part);
        }
        loop {
            let uri_bytes_max = self.limits.uri_bytes_max;
            let (head, seen) = (&mut self.head, &mut self.seen);
            let line = if self.in_fields {
                fields::read(window, self.line, head, seen)?
            } else {
                request_line::read(window, uri_bytes_max, head, seen)?
            };
            match line {
                Line::Incomplete(part) => return self.wait(window, part),
                Line::Next(start) => {
                    if self.head.fields.len() > self.limits.header_count_max {
                        return Err(refuse(Reason::HeadTooLarge, "too many header fields"));
                    }
                    self.begin_line(start, true);
                }
                Line::End(end) => {
                    let mut head = std::mem::replace(&mut self.head, Head::empty());
                    head.len = end;
                    std::mem::take(&mut self.seen).conclude(&mut head, window)?;
                    self.begin_line(0, false);
                    return Ok(Some(head));
                }
            }
        }
    }

    /// Whether the bytes that have come only lengthen the part in progress, so that reading its line
    /// again from the start would be in vain.
    fn part_goes_on(&self, window: &[u8]) -> bool {
        let fresh = window.get(self.scanned..).unwrap_or_default();
        match self.part {
            Part::Short => false,
            // A longer target may be too long by now, which the line's reader knows best.
            Part::Target => {
                window.len() <= self.limits.uri_bytes_max && fresh.iter().all(u8::is_ascii_graphic)
            }
            Part::Name => fresh.iter().all(|byte| is_token(*byte)),
            Part::Value => first_control(fresh, 0) == fresh.len(),
        }
    }

    fn begin_line(&mut self, at: usize, in_fields: bool) {
        self.line = at;
        self.part = Part::Short;
        self.in_fields = in_fields;
    }

    /// Notes how far the line in progress was looked at; refuses if it can no longer end in bounds.
    fn wait(&mut self, window: &[u8], part: Part) -> Result<Option<Head>, Refusal> {
        if window.len() == self.limits.head_bytes_max {
            return Err(if self.in_fields {
                refuse(Reason::HeadTooLarge, "the head is too large")
            } else {
                refuse(
                    Reason::UriTooLong,
                    "the request line alone is too large for a head",
                )
            });
        }
        self.part = part;
        // A CR at the end is judged with the byte that follows it.
        self.scanned = window.len() - usize::from(window.ends_with(b"\r"));
        Ok(None)
    }
}

// === impl Head ===

impl Head {
    fn empty() -> Self {
        Self {
            len: 0,
            method: Method::GET,
            version: Version::Http11,
            port: None,
            framing: Framing::None,
            keep_alive: true,
            expect_continue: false,
            upgrade: Upgrade::None,
            absolute: false,
            raw_path: RawPath::Root,
            path_normal: None,
            query: None,
            host: Text::InBuffer(Span { start: 0, len: 0 }),
            fields: SmallVec::new(),
        }
    }

    /// The path as routes are matched on it: see [`super::path::normalise`]. `*` for `OPTIONS *`.
    pub fn path<'a>(&'a self, buffer: &'a [u8]) -> &'a str {
        match &self.path_normal {
            Some(path) => path,
            None => self.path_raw(buffer),
        }
    }

    /// The path as the client sent it, which is what the upstream gets: `/` where an absolute URI
    /// has none, `*` for `OPTIONS *`.
    pub fn path_raw<'a>(&self, buffer: &'a [u8]) -> &'a str {
        match self.raw_path {
            RawPath::InBuffer(span) => span.text(buffer),
            RawPath::Root => "/",
            RawPath::Asterisk => "*",
        }
    }

    /// What stands after the first `?` of the target, which may be nothing.
    pub fn query<'a>(&self, buffer: &'a [u8]) -> Option<&'a str> {
        self.query.map(|span| span.text(buffer))
    }

    /// Host in lower case, without port and trailing dot; an IPv6 address in brackets. Never empty.
    pub fn host<'a>(&'a self, buffer: &'a [u8]) -> &'a str {
        self.host.text(buffer)
    }

    /// The authority that an absolute target names, as it was checked; it counts, whatever Host says
    /// (RFC 9112, section 3.2.2). `None` for other targets.
    pub(crate) fn target_authority(&self, buffer: &[u8]) -> Option<Bytes> {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        self.absolute
            .then(|| [self.host(buffer), &port].concat().into())
    }

    /// Path and query as the upstream gets them, in origin form. Shares the bytes of `buffer`.
    pub fn target(&self, buffer: &Bytes) -> Bytes {
        match (self.raw_path, self.query) {
            (RawPath::InBuffer(path), query) => {
                // A query stands right behind its path and the question mark.
                let end = query.map_or(path.range().end, |query| query.range().end);
                buffer.slice(path.range().start..end)
            }
            (RawPath::Root, None) => Bytes::from_static(b"/"),
            (RawPath::Root, Some(query)) => [b"/?", query.bytes(buffer)].concat().into(),
            (RawPath::Asterisk, _) => Bytes::from_static(b"*"),
        }
    }

    /// Number of header fields.
    pub fn field_count(&self) -> usize {
        self.fields.len()
    }

    /// Every header field in order of arrival, values without surrounding white space. Collected
    /// into a slice it is what `hub_core::Headers` wraps.
    pub fn fields<'h, 'b>(
        &'h self,
        buffer: &'b [u8],
    ) -> impl ExactSizeIterator<Item = HeaderField<'b>> + use<'h, 'b> {
        self.fields.iter().map(move |field| HeaderField {
            name: field.name.bytes(buffer),
            value: field.value.bytes(buffer),
        })
    }
}

// === impl Span and Text ===

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        let start = usize::from(self.start);
        start..start + usize::from(self.len)
    }

    /// From an offset and a length inside a head.
    fn new(start: usize, len: usize) -> Self {
        let narrow = |number| u16::try_from(number).expect("heads are cut at 65535 bytes");
        Self {
            start: narrow(start),
            len: narrow(len),
        }
    }

    fn bytes(self, buffer: &[u8]) -> &[u8] {
        &buffer[usize::from(self.start)..][..usize::from(self.len)]
    }

    fn text(self, buffer: &[u8]) -> &str {
        std::str::from_utf8(self.bytes(buffer)).expect("the reader lets only ASCII pass here")
    }
}

impl Text {
    fn text<'a>(&'a self, buffer: &'a [u8]) -> &'a str {
        match self {
            Self::InBuffer(span) => span.text(buffer),
            Self::Owned(text) => text,
        }
    }
}

#[cfg(test)]
mod tests;
