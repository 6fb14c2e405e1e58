//! `host[:port]`, as the Host header and an absolute URI hold it.

use super::head::bytes::refuse;
use hub_core::{Reason, Refusal};
use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest host name, in bytes, without a trailing dot (RFC 1035, section 2.3.4, as text).
const HOST_BYTES_MAX: usize = 253;
/// Longest label of a host name, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// A checked host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Lower case, without a trailing dot; an IPv6 address in brackets and in its shortest form.
    /// Never empty. Where it is borrowed it is the beginning of the input.
    pub host: Cow<'a, str>,
    /// 1 to 65535; `None` where the port is absent or empty.
    pub port: Option<u16>,
}

/// Reads `host`, `host:` or `host:port`.
///
/// The host is a DNS name (letters, digits, hyphens and underscores in labels of 1 to 63 bytes that
/// neither start nor end with a hyphen), a dotted IPv4 address or an IPv6 address in brackets. RFC
/// 3986 allows more in a registered name, escapes for instance; no client needs it, and origins read
/// it differently. A name whose last label is a number must be a whole IPv4 address, because some
/// resolvers take `127.1` or `0x7f000001` for one.
///
/// # Errors
/// [`Reason::BadHost`]; the detail names the rule.
pub fn parse(bytes: &[u8]) -> Result<Authority<'_>, Refusal> {
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.is_ascii())
        .ok_or_else(|| refuse(Reason::BadHost, "the host is not ASCII"))?;
    if text.starts_with('[') {
        let end = text
            .find(']')
            .ok_or_else(|| refuse(Reason::BadHost, "an IPv6 address without its bracket"))?;
        return Ok(Authority {
            host: ipv6(&text[..=end])?,
            port: port(&text[end + 1..])?,
        });
    }
    let end = text.find(':').unwrap_or(text.len());
    Ok(Authority {
        host: name(&text[..end])?,
        port: port(&text[end..])?,
    })
}

fn ipv6(bracketed: &str) -> Result<Cow<'_, str>, Refusal> {
    let address: Ipv6Addr = bracketed[1..bracketed.len() - 1]
        .parse()
        .map_err(|_| refuse(Reason::BadHost, "not an IPv6 address in the brackets"))?;
    let normal = format!("[{address}]");
    Ok(if normal == bracketed {
        Cow::Borrowed(bracketed)
    } else {
        Cow::Owned(normal)
    })
}

fn name(text: &str) -> Result<Cow<'_, str>, Refusal> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(refuse(Reason::BadHost, "the host is empty"));
    }
    if name.len() > HOST_BYTES_MAX {
        return Err(refuse(Reason::BadHost, "the host is too long"));
    }
    let mut upper = false;
    let mut label_bytes = 0;
    let mut label_start = 0;
    let mut before = b'.';
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' => label_bytes += 1,
            b'A'..=b'Z' => {
                upper = true;
                label_bytes += 1;
            }
            b'-' if before != b'.' => label_bytes += 1,
            b'.' if !matches!(before, b'.' | b'-') => {
                label_bytes = 0;
                label_start = at + 1;
            }
            b'-' | b'.' => return Err(refuse(Reason::BadHost, "a malformed label in the host")),
            _ => {
                return Err(refuse(
                    Reason::BadHost,
                    "the host holds a byte that DNS does not",
                ));
            }
        }
        if label_bytes > LABEL_BYTES_MAX {
            return Err(refuse(Reason::BadHost, "a label of the host is too long"));
        }
        before = byte;
    }
    if matches!(before, b'.' | b'-') {
        return Err(refuse(Reason::BadHost, "a malformed label in the host"));
    }
    if is_number(&name[label_start..]) && name.parse::<Ipv4Addr>().is_err() {
        return Err(refuse(
            Reason::BadHost,
            "a number that is not an IPv4 address",
        ));
    }
    Ok(if upper {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// True where resolvers would take a last label for a piece of an IPv4 address.
fn is_number(label: &str) -> bool {
    let hexadecimal = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Reads what follows the host: nothing, `:` or `:port`.
fn port(text: &str) -> Result<Option<u16>, Refusal> {
    let bad = || refuse(Reason::BadHost, "the port is not a number from 1 to 65535");
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.strip_prefix(':').ok_or_else(bad)?;
    if digits.is_empty() {
        return Ok(None);
    }
    // `parse` would take a sign; a leading zero covers port 0 too.
    if digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    digits.parse().map(Some).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (String, Option<u16>) {
        let authority = parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        (authority.host.into_owned(), authority.port)
    }

    #[test]
    fn hosts_are_lower_case_without_port_and_trailing_dot() {
        assert_eq!(
            read("Acme.Example.COM:8443"),
            ("acme.example.com".into(), Some(8443))
        );
        assert_eq!(read("a.example."), ("a.example".into(), None));
        assert_eq!(read("a.example.:80"), ("a.example".into(), Some(80)));
        assert_eq!(read("localhost:"), ("localhost".into(), None));
        assert_eq!(read("127.0.0.1:1"), ("127.0.0.1".into(), Some(1)));
        assert_eq!(
            read("[2001:DB8::0:1]:65535"),
            ("[2001:db8::1]".into(), Some(65535))
        );
        assert_eq!(read("my_app.internal"), ("my_app.internal".into(), None));
        assert_eq!(read("1.2.3.4.example"), ("1.2.3.4.example".into(), None));
    }

    #[test]
    fn an_ordinary_host_is_borrowed() {
        for text in ["acme.example.com", "a:80", "[::1]", "10.0.0.1", "a."] {
            let authority = parse(text.as_bytes()).expect(text);
            assert!(matches!(authority.host, Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn malformed_hosts_are_refused() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = format!("{}a", "abcdefg.".repeat(32));
        for text in [
            "",
            ".",
            "..",
            ":80",
            "a..b",
            ".a",
            "-a",
            "a-",
            "a.-b",
            "a-.b",
            "a b",
            "a,b",
            "a/b",
            "a@b",
            "user:pass@b",
            "a%2eb",
            "a:0",
            "a:080",
            "a:65536",
            "a:99999999",
            "a:+80",
            "a: 80",
            "a:b",
            "a:80:80",
            "::1",
            "[::1",
            "[::1]80",
            "[::1]:x",
            "[::1%25eth0]",
            "[v1.a]",
            "[]",
            "[1.2.3.4]",
            "1.2.3",
            "127.1",
            "256.1.1.1",
            "01.2.3.4",
            "0x7f.1",
            "0x7f000001",
            "1",
            "a.0x1",
            "é.example",
            "a\tb",
            "a\\b",
            "*.example",
            &long_label,
            &long_name,
        ] {
            let refusal = parse(text.as_bytes()).expect_err(text);
            assert_eq!(refusal.reason, Reason::BadHost, "{text}");
            assert!(refusal.detail.is_some());
        }
        assert!(parse(b"\xff").is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back_the_same(
            bytes in proptest::collection::vec(
                prop_oneof![5 => b'a'..=b'f', 2 => b'0'..=b'9', 2 => Just(b'.'), 1 => Just(b':'),
                    1 => Just(b'-'), 1 => any::<u8>()], 0..24)
        ) {
            if let Ok(authority) = parse(&bytes) {
                let again = parse(authority.host.as_bytes()).expect("a checked host is a host");
                prop_assert_eq!(&again.host, &authority.host);
                prop_assert_eq!(again.port, None);
                prop_assert!(!authority.host.bytes().any(|b| b.is_ascii_uppercase()));
            }
        }
    }
}
