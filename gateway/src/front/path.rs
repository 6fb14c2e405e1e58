//! The normal form of a path, on which routes are matched, while the upstream gets the raw bytes.
//!
//! Where an origin could reasonably read the raw path as another resource than the one that the
//! normal form names, the path is refused rather than guessed at. The decisions:
//!
//! | in the raw path | decision |
//! |---|---|
//! | a byte that RFC 3986 does not allow in a path, other than `[`, `]` and `\|`, which browsers send | refused |
//! | `\`, raw or escaped; an escaped `/`; an escaped control byte, NUL included | refused: origins disagree on them |
//! | `%` without two hexadecimal digits | refused |
//! | an escape of a byte that may stand as it is (`%41`, `%2e`, `%3a`) | decoded, as nearly every origin does |
//! | any other escape | kept, with its digits in upper case |
//! | an escape of an escape (`%252f`, `%25%32f`) | refused: who decodes twice sees another path |
//! | escapes that together are not UTF-8, overlong forms included | refused |
//! | `.` segments | removed |
//! | `..` segments, escaped or not | refused: origins that match the raw path would read the segment before, whose rules another route may have. Clients resolve them before they send |
//! | `//` | read as one slash |
//! | `;x` after a name | kept as ordinary bytes; refused where the path without it would take another route, since some origins drop it ([`without_parameters`], `stages::route`) |
//! | `;x` after `.` or `..` | refused: some origins drop it and then climb |
//! | `;x` as a whole segment before another one | refused: who drops it moves the segments behind it |

use super::head::bytes::{escaped, is_control, is_path, refuse};
use hub_core::{Reason, Refusal};
use std::borrow::Cow;

/// The normal form of `raw`, borrowed where `raw` is normal already. Both start with `/`; the result
/// is ASCII without `.` or `..` segments or doubled slashes, and is its own normal form.
///
/// Allocates only where something has to change or an escape has to be looked into.
///
/// # Errors
/// [`Reason::BadPath`] for what the table at the top of this module refuses; the detail names the
/// rule.
pub fn normalise(raw: &str) -> Result<Cow<'_, str>, Refusal> {
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(refuse(
            Reason::BadPath,
            "the path does not start with a slash",
        ));
    }
    if is_plain(bytes) {
        return Ok(Cow::Borrowed(raw));
    }
    let decoded = decode(bytes)?;
    let normal = remove_dots(&decoded)?;
    if normal == raw {
        Ok(Cow::Borrowed(raw))
    } else {
        Ok(Cow::Owned(normal))
    }
}

/// A normal path as an origin reads it that drops the parameters of segments (`/a;x=1/b` as `/a/b`);
/// `None` where there are none, which is nearly always.
pub(crate) fn without_parameters(normal: &str) -> Option<String> {
    memchr::memchr(b';', normal.as_bytes())?;
    let names = normal.split('/').map(|segment| {
        let end = segment.find(';').unwrap_or(segment.len());
        &segment[..end]
    });
    Some(names.collect::<Vec<_>>().join("/"))
}

/// True where a path is surely normal: legal bytes only, no escape, and no slash before a slash, a
/// dot or a parameter. It is what nearly all paths are.
fn is_plain(bytes: &[u8]) -> bool {
    let mut after_slash = false;
    bytes.iter().all(|byte| {
        let fine = is_path(*byte) && !(after_slash && matches!(byte, b'/' | b'.' | b';'));
        after_slash = *byte == b'/';
        fine
    })
}

/// Brings every escape into its one normal form.
fn decode(bytes: &[u8]) -> Result<String, Refusal> {
    let mut normal = String::with_capacity(bytes.len());
    // What a client meant in the end, to see that it is UTF-8. Without raw bytes above ASCII this
    // needs a look at the escapes only.
    let mut meant = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        if byte != b'%' {
            if !is_path(byte) {
                return Err(illegal(byte));
            }
            normal.push(char::from(byte));
            meant.push(byte);
            at += 1;
            continue;
        }
        let value = escaped(bytes[at + 1..].first_chunk())
            .ok_or_else(|| refuse(Reason::BadPath, "an escape is not two hexadecimal digits"))?;
        match value {
            b'/' => return Err(refuse(Reason::BadPath, "an escaped slash in the path")),
            b'\\' => return Err(refuse(Reason::BadPath, "an escaped backslash in the path")),
            0 => return Err(refuse(Reason::BadPath, "an escaped NUL in the path")),
            // The tab is no control byte of a header value, but it is one here.
            _ if is_control(value) || value == b'\t' => {
                return Err(refuse(
                    Reason::BadPath,
                    "an escaped control byte in the path",
                ));
            }
            _ if is_path(value) => normal.push(char::from(value)),
            _ => {
                normal.push('%');
                normal.push(upper_digit(value >> 4));
                normal.push(upper_digit(value & 15));
            }
        }
        meant.push(value);
        at += 3;
    }
    if std::str::from_utf8(&meant).is_err() {
        return Err(refuse(Reason::BadPath, "the path's escapes are not UTF-8"));
    }
    // Looked for in the result, so that `%25%32f` is found as well as `%252f`.
    let twice = normal.match_indices("%25").any(|(index, escape)| {
        escaped(normal.as_bytes()[index + escape.len()..].first_chunk()).is_some()
    });
    if twice {
        return Err(refuse(
            Reason::BadPath,
            "an escape of an escape in the path",
        ));
    }
    Ok(normal)
}

#[cold]
fn illegal(byte: u8) -> Refusal {
    let rule = match byte {
        b'\\' => "a backslash in the path",
        b'#' => "a fragment in the request target",
        _ => "the path holds a byte that a path may not",
    };
    refuse(Reason::BadPath, rule)
}

fn upper_digit(value: u8) -> char {
    char::from(if value < 10 {
        b'0' + value
    } else {
        b'A' + value - 10
    })
}

fn remove_dots(path: &str) -> Result<String, Refusal> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    let mut ends_in_slash = false;
    while let Some(segment) = segments.next() {
        ends_in_slash = matches!(segment, "" | ".");
        match segment {
            "" | "." => {}
            ".." => return Err(refuse(Reason::BadPath, "a `..` segment")),
            _ if segment.starts_with(".;") || segment.starts_with("..;") => {
                return Err(refuse(Reason::BadPath, "a dot segment with a parameter"));
            }
            _ if segment.starts_with(';') && segments.peek().is_some() => {
                return Err(refuse(Reason::BadPath, "a parameter without a segment"));
            }
            _ => kept.push(segment),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in kept {
        normal.push('/');
        normal.push_str(segment);
    }
    if ends_in_slash || normal.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}

#[cfg(test)]
mod tests;
