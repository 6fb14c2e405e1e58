//! The first line: method, target, version.

use super::bytes::{bare_lf, control_in_line, escaped, is_query, is_token, refuse};
use super::fields::{Seen, TargetAuthority};
use super::{Head, Line, METHOD_BYTES_MAX, Part, RawPath, Span};
use crate::front::{host, path};
use hub_core::{Method, Reason, Refusal, Version};
use std::borrow::Cow;

/// `HTTP/1.1` and its CRLF.
const VERSION_BYTES: usize = 10;

/// Reads the request line at the start of `window` into `head`, and what it says about the host
/// into `seen`.
pub(super) fn read(
    window: &[u8],
    uri_bytes_max: usize,
    head: &mut Head,
    seen: &mut Seen,
) -> Result<Line, Refusal> {
    let Some(method_end) = method_end(window)? else {
        return Ok(Line::Incomplete(Part::Short));
    };
    let target_start = method_end + 1;
    let Some(target_end) = target_end(window, target_start, uri_bytes_max)? else {
        return Ok(Line::Incomplete(Part::Target));
    };
    let Some(version) = version(&window[target_end + 1..])? else {
        return Ok(Line::Incomplete(Part::Short));
    };
    let method = Method::from_bytes(&window[..method_end])
        .map_err(|_| refuse(Reason::BadMethod, "the method is not a token"))?;
    check_method(&method)?;
    head.method = method;
    head.version = version;
    target(window, target_start, target_end, head, seen)?;
    Ok(Line::Next(target_end + 1 + VERSION_BYTES))
}

/// Refuses methods that no origin ever sees, whatever version of HTTP they came by.
pub(crate) fn check_method(method: &Method) -> Result<(), Refusal> {
    if method.as_str().len() > METHOD_BYTES_MAX {
        return Err(refuse(Reason::BadMethod, "the method is too long"));
    }
    if is_never_forwarded(method) {
        return Err(refuse(
            Reason::BadMethod,
            "CONNECT and TRACE are never forwarded",
        ));
    }
    Ok(())
}

/// True for methods that no origin ever sees.
pub(crate) fn is_never_forwarded(method: &Method) -> bool {
    // In any case: some origins do not heed the case of methods.
    ["CONNECT", "TRACE"]
        .iter()
        .any(|refused| method.as_str().eq_ignore_ascii_case(refused))
}

fn method_end(window: &[u8]) -> Result<Option<usize>, Refusal> {
    let longest = &window[..window.len().min(METHOD_BYTES_MAX + 1)];
    match longest.iter().position(|byte| !is_token(*byte)) {
        None if longest.len() > METHOD_BYTES_MAX => {
            Err(refuse(Reason::BadMethod, "the method is too long"))
        }
        None => Ok(None),
        // Most often another protocol, or an empty line, which is not skipped.
        Some(0) => Err(refuse(
            Reason::BadSyntax,
            "the first byte is not one of a method",
        )),
        Some(end) => match window[end] {
            b' ' => Ok(Some(end)),
            b'\r' => Err(refuse(Reason::BadSyntax, "a request line of one word")),
            b'\n' => Err(bare_lf()),
            b'\t' => Err(refuse(Reason::BadSyntax, "a tab in the request line")),
            _ => Err(refuse(Reason::BadMethod, "the method is not a token")),
        },
    }
}

fn target_end(window: &[u8], start: usize, uri_bytes_max: usize) -> Result<Option<usize>, Refusal> {
    let longest = &window[start..window.len().min(start + uri_bytes_max + 1)];
    let Some(len) = longest.iter().position(|byte| !byte.is_ascii_graphic()) else {
        return if longest.len() > uri_bytes_max {
            Err(refuse(Reason::UriTooLong, "the request target is too long"))
        } else {
            Ok(None)
        };
    };
    match longest[len] {
        b' ' if len == 0 => Err(refuse(Reason::BadSyntax, "two spaces in the request line")),
        b' ' => Ok(Some(start + len)),
        b'\r' => Err(refuse(
            Reason::BadSyntax,
            "a request line without a version",
        )),
        byte => Err(control_in_line(
            byte,
            Reason::BadPath,
            "the request target holds a byte that is not visible ASCII",
        )),
    }
}

/// Reads the version and the CRLF after it.
fn version(rest: &[u8]) -> Result<Option<Version>, Refusal> {
    const SHAPE: &[u8; 8] = b"HTTP/0.0";
    for (byte, shape) in rest.iter().zip(SHAPE) {
        let fits = match shape {
            b'0' => byte.is_ascii_digit(),
            _ => byte == shape,
        };
        if !fits {
            return Err(match byte {
                b'\n' => bare_lf(),
                _ => refuse(
                    Reason::BadSyntax,
                    "what follows the request target is not a version",
                ),
            });
        }
    }
    let Some(word) = rest.first_chunk::<8>() else {
        return Ok(None);
    };
    let version = match word {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return Err(refuse(Reason::BadVersion, "neither HTTP/1.0 nor HTTP/1.1")),
    };
    match rest[8..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(version)),
        [byte, ..] => Err(control_in_line(
            byte,
            Reason::BadSyntax,
            "the request line goes on after the version",
        )),
    }
}

fn target(
    window: &[u8],
    start: usize,
    end: usize,
    head: &mut Head,
    seen: &mut Seen,
) -> Result<(), Refusal> {
    match &window[start..end] {
        [b'/', ..] => path_and_query(window, start, end, head),
        b"*" if head.method == Method::OPTIONS => {
            head.raw_path = RawPath::Asterisk;
            Ok(())
        }
        b"*" => Err(refuse(
            Reason::BadPath,
            "an asterisk with a method other than OPTIONS",
        )),
        target => match scheme(target) {
            Some((len, default_port)) => {
                seen.target = Some(absolute(window, start + len, end, default_port, head)?);
                Ok(())
            }
            None => Err(refuse(
                Reason::BadPath,
                "the request target is neither a path nor an http or https URI",
            )),
        },
    }
}

/// Length of `http://` or `https://`, and the scheme's own port.
fn scheme(target: &[u8]) -> Option<(usize, u16)> {
    [("http://", 80), ("https://", 443)]
        .into_iter()
        .find_map(|(prefix, port)| {
            let start = target.get(..prefix.len())?;
            start
                .eq_ignore_ascii_case(prefix.as_bytes())
                .then_some((prefix.len(), port))
        })
}

/// Reads what follows the scheme of an absolute URI.
fn absolute(
    window: &[u8],
    start: usize,
    end: usize,
    default_port: u16,
    head: &mut Head,
) -> Result<TargetAuthority, Refusal> {
    let rest = &window[start..end];
    let len = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let authority = host::parse(&rest[..len])?;
    match rest.get(len) {
        Some(b'/') => path_and_query(window, start + len, end, head)?,
        Some(b'?') => {
            head.raw_path = RawPath::Root;
            query(window, start + len + 1, end, head)?;
        }
        Some(_) => return Err(refuse(Reason::BadPath, "a fragment in the request target")),
        // RFC 9112, section 3.2.4.
        None if head.method == Method::OPTIONS => head.raw_path = RawPath::Asterisk,
        None => head.raw_path = RawPath::Root,
    }
    Ok(TargetAuthority {
        host: authority.host.into(),
        port: authority.port,
        default_port,
    })
}

fn path_and_query(window: &[u8], start: usize, end: usize, head: &mut Head) -> Result<(), Refusal> {
    let target = &window[start..end];
    let len = memchr::memchr(b'?', target).unwrap_or(target.len());
    let span = Span::new(start, len);
    if let Cow::Owned(normal) = path::normalise(span.text(window))? {
        head.path_normal = Some(normal.into());
    }
    head.raw_path = RawPath::InBuffer(span);
    if len < target.len() {
        query(window, start + len + 1, end, head)?;
    }
    Ok(())
}

fn query(window: &[u8], start: usize, end: usize, head: &mut Head) -> Result<(), Refusal> {
    let query = &window[start..end];
    check_query(query)?;
    head.query = Some(Span::new(start, query.len()));
    Ok(())
}

/// Refuses bytes that a query may not hold.
pub(crate) fn check_query(query: &[u8]) -> Result<(), Refusal> {
    for (at, byte) in query.iter().enumerate() {
        if is_query(*byte) {
            continue;
        }
        let rule = match byte {
            b'%' if escaped(query[at + 1..].first_chunk()).is_some() => continue,
            b'%' => "an escape is not two hexadecimal digits",
            b'#' => "a fragment in the request target",
            _ => "the query holds a byte that a query may not",
        };
        return Err(refuse(Reason::BadPath, rule));
    }
    Ok(())
}
