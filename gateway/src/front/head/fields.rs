//! Header lines, and what they mean together.

use super::bytes::{bare_lf, control_in_line, first_control, is_whole_token, refuse, token};
use super::names::{Known, imitates_interpreted, known};
use super::{FieldSpan, Framing, Head, Line, Part, Span, Text, Upgrade};
use crate::front::host;
use hub_core::{Headers, Method, Reason, Refusal, Version};
use std::borrow::Cow;

/// Most options of all Connection headers together.
const CONNECTION_OPTIONS_MAX: u8 = 9;

/// What the fields so far said, as far as it matters to the message as a whole.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Bit `Known as u16`: a field of that name was there.
    names: u16,
    length: u64,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade_websocket: bool,
    upgrade_twice: bool,
    websocket_key: bool,
    websocket_version: bool,
    connection_options: u8,
    /// Host and port of the Host header.
    host: Option<(Text, Option<u16>)>,
    /// What an absolute URI said instead.
    pub(super) target: Option<TargetAuthority>,
}

/// The authority of an absolute URI.
#[derive(Debug)]
pub(super) struct TargetAuthority {
    pub(super) host: Box<str>,
    pub(super) port: Option<u16>,
    /// The port that the URI's scheme stands for.
    pub(super) default_port: u16,
}

/// Reads the line at `start`; a field is added to `head` and to `seen`.
pub(super) fn read(
    window: &[u8],
    start: usize,
    head: &mut Head,
    seen: &mut Seen,
) -> Result<Line, Refusal> {
    let line = &window[start..];
    let Some((name_len, odd)) = token(line) else {
        return Ok(Line::Incomplete(Part::Name));
    };
    let stop = line[name_len];
    match stop {
        b':' if name_len > 0 => {}
        b'\r' if name_len == 0 => {
            return match line.get(1) {
                None => Ok(Line::Incomplete(Part::Short)),
                Some(b'\n') => Ok(Line::End(start + 2)),
                Some(_) => Err(control_in_line(b'\r', Reason::BadLineEnd, "")),
            };
        }
        _ => return Err(bad_name(name_len, stop)),
    }
    let name = &line[..name_len];
    if odd && imitates_interpreted(name) {
        return Err(imitation());
    }
    let control = first_control(line, name_len + 1);
    match line.get(control..) {
        None | Some([] | [b'\r']) => return Ok(Line::Incomplete(Part::Value)),
        Some([b'\r', b'\n', ..]) => {}
        Some([byte, ..]) => {
            return Err(control_in_line(
                *byte,
                Reason::BadHeader,
                "a control byte in a header value",
            ));
        }
    }
    let (value_start, value) = trimmed(line, name_len + 1, control);
    let field = FieldSpan {
        name: Span::new(start, name_len),
        value: Span::new(start + value_start, value.len()),
    };
    if let Some(name) = known(name) {
        seen.take(name, value, field.value, head.version)?;
    }
    head.fields.push(field);
    Ok(Line::Next(start + control + 2))
}

/// Holds fields that another parser has read, as HTTP/2's, to the rules of a head. Gives what
/// Content-Length announces.
pub(crate) fn check(headers: Headers<'_>) -> Result<Option<u64>, Refusal> {
    let mut seen = Seen::default();
    for field in headers.iter() {
        if imitates_interpreted(field.name) {
            return Err(imitation());
        }
        if let Some(name) = known(field.name) {
            // Where the value stands does not matter: no head is kept.
            seen.take(name, field.value, Span { start: 0, len: 0 }, Version::Http2)?;
        }
    }
    Ok(seen.has(Known::ContentLength).then_some(seen.length))
}

#[cold]
fn imitation() -> Refusal {
    refuse(Reason::BadHeader, "a header name imitates a trusted one")
}

#[cold]
fn bad_name(name_len: usize, stop: u8) -> Refusal {
    let rule = match stop {
        b'\n' => return bare_lf(),
        b'\r' => "a header line without a colon",
        b' ' | b'\t' if name_len == 0 => "a folded line, or white space before a header name",
        b' ' | b'\t' => "white space in or after a header name",
        b':' => "a header without a name",
        _ => "a header name is not a token",
    };
    refuse(Reason::BadHeader, rule)
}

/// The value between two offsets of its line without surrounding white space, and where it starts.
fn trimmed(line: &[u8], mut start: usize, mut end: usize) -> (usize, &[u8]) {
    let is_white = |byte: u8| byte == b' ' || byte == b'\t';
    while start < end && is_white(line[start]) {
        start += 1;
    }
    while start < end && is_white(line[end - 1]) {
        end -= 1;
    }
    (start, &line[start..end])
}

// === impl Seen ===

impl Seen {
    fn has(&self, name: Known) -> bool {
        self.names & (1 << name as u16) != 0
    }

    /// Notes a field whose name the gateway knows.
    fn take(
        &mut self,
        name: Known,
        value: &[u8],
        span: Span,
        version: Version,
    ) -> Result<(), Refusal> {
        let again = self.has(name);
        self.names |= 1 << name as u16;
        match name {
            Known::Host if again => return Err(refuse(Reason::BadHost, "two Host headers")),
            Known::Host => {
                let authority = host::parse(value)?;
                let host = match authority.host {
                    Cow::Borrowed(text) => Text::InBuffer(Span {
                        len: Span::new(0, text.len()).len,
                        ..span
                    }),
                    Cow::Owned(text) => Text::Owned(text.into()),
                };
                self.host = Some((host, authority.port));
            }
            Known::ContentLength if again => {
                return Err(refuse(Reason::BadFraming, "two Content-Length headers"));
            }
            Known::ContentLength => self.length = length(value)?,
            Known::TransferEncoding if again => {
                return Err(refuse(Reason::BadFraming, "two Transfer-Encoding headers"));
            }
            Known::TransferEncoding if version == Version::Http10 => {
                return Err(refuse(Reason::BadFraming, "Transfer-Encoding on HTTP/1.0"));
            }
            Known::TransferEncoding if !value.eq_ignore_ascii_case(b"chunked") => {
                return Err(refuse(
                    Reason::BadFraming,
                    "a Transfer-Encoding other than exactly chunked",
                ));
            }
            Known::TransferEncoding => {}
            Known::Connection => self.take_connection(value)?,
            Known::Expect if again || !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(refuse(
                    Reason::BadExpectation,
                    "not exactly one 100-continue",
                ));
            }
            Known::Expect => {}
            Known::Upgrade => {
                self.upgrade_twice |= again;
                self.upgrade_websocket = value.eq_ignore_ascii_case(b"websocket");
            }
            Known::WebSocketKey if !again => self.websocket_key = is_websocket_key(value),
            Known::WebSocketVersion if !again => self.websocket_version = value == b"13",
            Known::Authorization | Known::ContentType | Known::Origin if !again => {}
            Known::WebSocketKey
            | Known::WebSocketVersion
            | Known::Authorization
            | Known::ContentType
            | Known::Origin => {
                return Err(refuse(
                    Reason::BadHeader,
                    "a header that there may be only one of stands there twice",
                ));
            }
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        // RFC 9110, section 5.6.1: empty members of a list are to be ignored.
        let options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        for option in options.filter(|option| !option.is_empty()) {
            if !is_whole_token(option) {
                return Err(refuse(
                    Reason::BadHeader,
                    "a Connection option is not a token",
                ));
            }
            // pingora refuses both of these too, but only when the request has an upstream already.
            self.connection_options = self.connection_options.saturating_add(1);
            if self.connection_options > CONNECTION_OPTIONS_MAX {
                return Err(refuse(Reason::BadHeader, "too many Connection options"));
            }
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if is("x-forwarded-for") || is("x-forwarded-host") || is("x-forwarded-proto") {
                return Err(refuse(
                    Reason::BadHeader,
                    "Connection names a header that tells who the client is",
                ));
            }
            self.close |= is("close");
            self.keep_alive |= is("keep-alive");
            self.connection_upgrade |= is("upgrade");
            // Whoever strips what Connection names would strip what delimits or routes the message.
            if is("content-length") || is("transfer-encoding") || is("host") {
                return Err(refuse(
                    Reason::BadFraming,
                    "Connection names a header that the message cannot do without",
                ));
            }
        }
        Ok(())
    }

    /// Draws the conclusions once every field was read.
    pub(super) fn conclude(mut self, head: &mut Head, window: &[u8]) -> Result<(), Refusal> {
        head.absolute = self.target.is_some();
        self.conclude_host(head, window)?;
        head.framing = match (
            self.has(Known::ContentLength),
            self.has(Known::TransferEncoding),
        ) {
            (true, true) => {
                return Err(refuse(
                    Reason::BadFraming,
                    "Content-Length and Transfer-Encoding together",
                ));
            }
            (true, false) => Framing::Length(self.length),
            (false, true) => Framing::Chunked,
            (false, false) => Framing::None,
        };
        let modern = head.version == Version::Http11;
        head.keep_alive = !self.close && (modern || self.keep_alive);
        // RFC 9110, section 10.1.1: ignored on HTTP/1.0, and meaningless without a body.
        head.expect_continue = modern
            && self.has(Known::Expect)
            && !matches!(head.framing, Framing::None | Framing::Length(0));
        head.upgrade = if !self.has(Known::Upgrade) {
            Upgrade::None
        } else if modern
            && head.method == Method::GET
            && matches!(head.framing, Framing::None | Framing::Length(0))
            && self.connection_upgrade
            && self.upgrade_websocket
            && !self.upgrade_twice
            && self.websocket_key
            && self.websocket_version
        {
            Upgrade::WebSocket
        } else {
            Upgrade::Other
        };
        Ok(())
    }

    fn conclude_host(&mut self, head: &mut Head, window: &[u8]) -> Result<(), Refusal> {
        (head.host, head.port) = match (self.host.take(), self.target.take()) {
            (Some(host), None) => host,
            (Some((host, port)), Some(target)) => {
                // Without a port, both mean the one of the URI's scheme.
                let same_port = port.unwrap_or(target.default_port)
                    == target.port.unwrap_or(target.default_port);
                if host.text(window) != &*target.host || !same_port {
                    return Err(refuse(
                        Reason::BadHost,
                        "Host differs from the absolute URI",
                    ));
                }
                (host, port)
            }
            (None, _) if head.version == Version::Http11 => {
                return Err(refuse(Reason::BadHost, "HTTP/1.1 without a Host header"));
            }
            (None, Some(target)) => (Text::Owned(target.host), target.port),
            // It would go on as HTTP/1.1, which must have one.
            (None, None) => return Err(refuse(Reason::BadHost, "neither Host nor absolute URI")),
        };
        Ok(())
    }
}

fn length(value: &[u8]) -> Result<u64, Refusal> {
    // 19 digits are 2^63-1 at most or less than 2^64, so the sum cannot wrap before it is compared.
    let plain = matches!(value, [b'0'] | [b'1'..=b'9', ..])
        && value.len() <= 19
        && value.iter().all(u8::is_ascii_digit);
    let number = value.iter().fold(0_u64, |sum, digit| {
        sum.wrapping_mul(10)
            .wrapping_add(u64::from(digit.wrapping_sub(b'0')))
    });
    if plain && number <= i64::MAX.unsigned_abs() {
        Ok(number)
    } else {
        Err(refuse(
            Reason::BadFraming,
            "Content-Length is not one plain number up to 2^63-1",
        ))
    }
}

/// True for 16 bytes in base64: 22 digits, of which the last carries two bits, and `==`.
fn is_websocket_key(value: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    value.len() == 24
        && value.ends_with(b"==")
        && value[..21].iter().all(digit)
        && matches!(value[21], b'A' | b'Q' | b'g' | b'w')
}
