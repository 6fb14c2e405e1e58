//! Who the client is when proxies stand in front of us, and what origins are told about it.
//!
//! Nothing that a client writes about itself is passed on: the headers of [`REMOVED`] are taken out
//! and those that have a meaning are written anew. With `trusted_hops` = N, the last N members of
//! `X-Forwarded-For` were appended by proxies that the operator trusts; what stands left of them was
//! written by the client and goes.

use hub_core::{Headers, Scheme};
use std::io::Write;
use std::net::IpAddr;

/// Headers from outside that never go upstream as they came, in lower case: they would tell the
/// origin who the client is, which tenant it is, or which other URL it meant.
pub const REMOVED: &[&str] = &[
    "cf-connecting-ip",
    "client-ip",
    "fastly-client-ip",
    "forwarded",
    // Becomes the environment variable HTTP_PROXY in CGI ("httpoxy").
    "proxy",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-forwarded-by",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-forwarded-user",
    "x-location-id",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-url",
    "x-originating-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-rewrite-url",
];

/// True for a header, in any case, that never goes upstream as it came: a member of [`REMOVED`], or
/// any other `X-Forwarded-` header.
pub fn is_removed(name: &[u8]) -> bool {
    const FAMILY: &[u8] = b"x-forwarded-";
    // Nearly every header is told apart by its first letter or its length and never compared.
    let letter = matches!(
        name.first(),
        Some(b'x' | b'X' | b'f' | b'F' | b'c' | b'C' | b'p' | b'P' | b't' | b'T')
    );
    let listed = || {
        name.len() < 64
            && REMOVED_LENGTHS >> name.len() & 1 == 1
            && REMOVED
                .iter()
                .any(|removed| name.eq_ignore_ascii_case(removed.as_bytes()))
    };
    let family = || {
        matches!(name.first(), Some(b'x' | b'X'))
            && name
                .get(..FAMILY.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(FAMILY))
    };
    letter && (family() || listed())
}

/// Bit N: some member of [`REMOVED`] has N bytes.
const REMOVED_LENGTHS: u64 = {
    let (mut lengths, mut index) = (0, 0);
    while index < REMOVED.len() {
        lengths |= 1 << REMOVED[index].len();
        index += 1;
    }
    lengths
};

/// The client's address: `hop`, the address that speaks to us (after a PROXY header), or with trusted
/// hops the member of `X-Forwarded-For` that the outermost trusted proxy appended.
///
/// Falls back to `hop` where the header has fewer members than there are trusted hops, or where that
/// member is not an address: then the request did not come the way that the operator described, and
/// what it says is not believed. Linear in the headers; allocates nothing.
pub fn client_address(headers: Headers<'_>, trusted_hops: usize, hop: IpAddr) -> IpAddr {
    trusted_members(headers, trusted_hops)
        .and_then(|mut members| members.next())
        .and_then(address)
        .unwrap_or(hop.to_canonical())
}

/// Writes the value of `X-Forwarded-For` for the origin: the members that trusted hops appended, then
/// `hop`. Members that are not addresses are left out. At most `trusted_hops` + 1 addresses.
pub fn write_forwarded_for(
    out: &mut Vec<u8>,
    headers: Headers<'_>,
    trusted_hops: usize,
    hop: IpAddr,
) {
    let told = trusted_members(headers, trusted_hops);
    for address in told.into_iter().flatten().filter_map(address) {
        write(out, format_args!("{address}, "));
    }
    write(out, format_args!("{}", hop.to_canonical()));
}

/// The scheme that the client used: that of our own socket, or with trusted hops what the last
/// `X-Forwarded-Proto` says, if it is exactly `http` or `https`.
pub fn scheme(headers: Headers<'_>, trusted_hops: usize, socket: Scheme) -> Scheme {
    if trusted_hops == 0 {
        return socket;
    }
    let told = headers.get_all("x-forwarded-proto").last();
    match told.map(<[u8]>::to_ascii_lowercase).as_deref() {
        Some(b"http") => Scheme::Http,
        Some(b"https") => Scheme::Https,
        _ => socket,
    }
}

/// The last `count` members of `X-Forwarded-For`; `None` where there are fewer, or none is asked for.
fn trusted_members(headers: Headers<'_>, count: usize) -> Option<impl Iterator<Item = &[u8]>> {
    if count == 0 {
        return None;
    }
    let members = || {
        headers
            .get_all("x-forwarded-for")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    };
    let skipped = members().count().checked_sub(count)?;
    Some(members().skip(skipped))
}

/// Reads one member: an address, `IPv4:port`, `[IPv6]` or `[IPv6]:port`. The port must be a number
/// and is dropped.
fn address(member: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(member).ok()?;
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (IpAddr::V6(address.parse().ok()?), port)
        }
        None => match text.parse::<IpAddr>() {
            Ok(address) => (address, ""),
            Err(_) => {
                let (address, _) = text.split_once(':')?;
                (IpAddr::V4(address.parse().ok()?), &text[address.len()..])
            }
        },
    };
    let is_port = |port: &str| {
        port.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        })
    };
    (port.is_empty() || is_port(port)).then(|| address.to_canonical())
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a vector cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_core::HeaderField;

    const HOP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

    fn fields<'a>(name: &'a str, values: &[&'a str]) -> Vec<HeaderField<'a>> {
        values
            .iter()
            .map(|value| HeaderField {
                name: name.as_bytes(),
                value: value.as_bytes(),
            })
            .collect()
    }

    fn client(values: &[&str], hops: usize) -> String {
        client_address(Headers::new(&fields("X-Forwarded-For", values)), hops, HOP).to_string()
    }

    fn forwarded_for(values: &[&str], hops: usize) -> String {
        let mut out = Vec::new();
        write_forwarded_for(
            &mut out,
            Headers::new(&fields("x-forwarded-for", values)),
            hops,
            HOP,
        );
        String::from_utf8(out).expect("addresses are ASCII")
    }

    #[test]
    fn without_trusted_hops_the_header_is_not_believed() {
        assert_eq!(client(&["1.2.3.4"], 0), "10.0.0.9");
        assert_eq!(forwarded_for(&["1.2.3.4"], 0), "10.0.0.9");
    }

    #[test]
    fn each_trusted_hop_takes_one_member_from_the_right() {
        let values = ["6.6.6.6, 1.1.1.1", "2.2.2.2,3.3.3.3"];
        assert_eq!(client(&values, 1), "3.3.3.3");
        assert_eq!(client(&values, 2), "2.2.2.2");
        assert_eq!(client(&values, 3), "1.1.1.1");
        assert_eq!(forwarded_for(&values, 2), "2.2.2.2, 3.3.3.3, 10.0.0.9");
    }

    #[test]
    fn a_request_that_came_another_way_is_taken_for_its_sender_s_own() {
        assert_eq!(client(&[], 1), "10.0.0.9");
        assert_eq!(client(&["1.1.1.1"], 2), "10.0.0.9");
        assert_eq!(client(&["unknown"], 1), "10.0.0.9");
        assert_eq!(client(&["1.1.1.1, _hidden"], 1), "10.0.0.9");
        assert_eq!(client(&[" , ,"], 1), "10.0.0.9");
        assert_eq!(forwarded_for(&["1.1.1.1"], 2), "10.0.0.9");
        assert_eq!(forwarded_for(&["x, 1.1.1.1"], 2), "1.1.1.1, 10.0.0.9");
    }

    #[test]
    fn ports_and_brackets_are_understood_and_dropped() {
        assert_eq!(client(&["1.1.1.1:80"], 1), "1.1.1.1");
        assert_eq!(client(&["[2001:db8::1]:443"], 1), "2001:db8::1");
        assert_eq!(client(&["[2001:db8::1]"], 1), "2001:db8::1");
        assert_eq!(client(&["2001:db8::1"], 1), "2001:db8::1");
        assert_eq!(client(&["::ffff:1.1.1.1"], 1), "1.1.1.1");
        for bad in [
            "1.1.1.1:x",
            "1.1.1.1:",
            "1.1.1.1:70000",
            "1.1.1.1:+1",
            "[1.1.1.1]",
            "[::1",
            "[::1]x",
        ] {
            assert_eq!(client(&[bad], 1), "10.0.0.9", "{bad}");
        }
    }

    #[test]
    fn the_scheme_is_a_trusted_proxy_s_word_or_the_socket_s() {
        let told = |values: &[&str], hops| {
            scheme(
                Headers::new(&fields("X-Forwarded-Proto", values)),
                hops,
                Scheme::Http,
            )
        };
        assert_eq!(told(&["https"], 0), Scheme::Http);
        assert_eq!(told(&["http", "HTTPS"], 1), Scheme::Https);
        assert_eq!(told(&["https, http"], 1), Scheme::Http);
        assert_eq!(told(&["wss"], 1), Scheme::Http);
    }

    #[test]
    fn what_speaks_for_the_client_is_removed_in_any_case() {
        for name in [
            "Forwarded",
            "X-REAL-IP",
            "x-forwarded-For",
            "X-Forwarded-Whatever",
            "X-Location-Id",
            "Proxy",
        ] {
            assert!(is_removed(name.as_bytes()), "{name}");
        }
        for name in ["Host", "X-Request-Id", "Cookie", "Via", "x-forwarde", ""] {
            assert!(!is_removed(name.as_bytes()), "{name}");
        }
        for name in REMOVED {
            assert!(is_removed(name.as_bytes()), "{name}");
            assert_eq!(*name, name.to_ascii_lowercase());
        }
    }
}
