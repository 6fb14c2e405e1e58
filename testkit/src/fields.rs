//! Header fields as both ends of a test see them: in order, in their own case, nothing lost.

/// Bytes as text: each byte becomes the Latin-1 character of its number, so the way back is exact.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Every value of this name, in any case, in their order.
pub(crate) fn values<'a>(
    fields: &'a [(String, String)],
    name: &str,
) -> impl Iterator<Item = &'a str> {
    let name = name.to_owned();
    fields
        .iter()
        .filter(move |(n, _)| n.eq_ignore_ascii_case(&name))
        .map(|(_, value)| value.as_str())
}

/// Position just after the empty line that ends a head; lines may end in CRLF or LF, since what a
/// test reads may be wrong.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().enumerate().find_map(|(i, byte)| match byte {
        b'\n' if bytes.get(i + 1) == Some(&b'\n') => Some(i + 2),
        b'\n' if bytes.get(i + 1..i + 3) == Some(b"\r\n") => Some(i + 3),
        _ => None,
    })
}

/// The first line and the fields of a head. A line without a colon becomes a name without a value.
pub(crate) fn parse(head: &[u8]) -> (String, Vec<(String, String)>) {
    let text = latin1(head);
    let mut lines = text
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line));
    let first = lines.next().unwrap_or_default().to_owned();
    (
        first,
        lines.filter(|line| !line.is_empty()).map(field).collect(),
    )
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
}

/// How the body after a head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Nothing says: for a request no body, for a response all until the connection closes.
    Unsaid,
}

impl Framing {
    /// As the fields say; chunked wins, as RFC 9112 6.3 has it.
    pub(crate) fn of(fields: &[(String, String)]) -> Self {
        let chunked = |value: &str| value.to_ascii_lowercase().ends_with("chunked");
        if values(fields, "transfer-encoding").any(chunked) {
            return Self::Chunked;
        }
        values(fields, "content-length")
            .next()
            .and_then(|value| value.parse().ok())
            .map_or(Self::Unsaid, Self::Length)
    }
}

/// True where `Connection` and the version say that the connection ends with this message.
pub(crate) fn says_close(version: &str, fields: &[(String, String)]) -> bool {
    let says = |word: &str| {
        values(fields, "connection").any(|value| {
            value
                .split(',')
                .any(|w| w.trim().eq_ignore_ascii_case(word))
        })
    };
    says("close") || (version == "HTTP/1.0" && !says("keep-alive"))
}

/// The size that a chunk's line announces; `None` where it is malformed.
pub(crate) fn chunk_size(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    let digits = text.split(';').next()?.trim();
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_case_and_bytes() {
        let (first, fields) = parse(b"GET / HTTP/1.1\r\nX-B: \xff\r\nx-a:1\r\nX-b:  2 \r\n\r\n");
        assert_eq!(first, "GET / HTTP/1.1");
        assert_eq!(
            fields,
            [
                ("X-B".into(), "\u{ff}".into()),
                ("x-a".into(), "1".into()),
                ("X-b".into(), "2".into())
            ]
        );
        assert_eq!(values(&fields, "X-B").collect::<Vec<_>>(), ["\u{ff}", "2"]);
    }

    #[test]
    fn chunk_sizes_are_hex_and_nothing_else() {
        assert_eq!(chunk_size(b"1A;name=value"), Some(26));
        for bad in ["", "-1", "+1", "0x1", "1g", "11111111111111111"] {
            assert_eq!(chunk_size(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_head_ends_at_its_first_empty_line() {
        assert_eq!(head_end(b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest"), Some(24));
        assert_eq!(head_end(b"GET / HTTP/1.1\nA: b\n\nrest"), Some(21));
        assert_eq!(head_end(b"GET / HTTP/1.1\r\nA: b\r\n\r"), None);
    }
}
