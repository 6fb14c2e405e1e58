//! The PROXY protocol header, versions 1 and 2, in front of everything else on a connection.
//!
//! Source: <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>. Stricter than that: a
//! version 2 header is at most 536 bytes long, its TLVs must fill it exactly, and datagram families
//! are refused, because a listener of ours is a stream.

use super::head::bytes::refuse;
use hub_core::{Reason, Refusal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First bytes of version 2.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before its addresses.
const V2_FIXED_BYTES: usize = 16;
/// Longest header of version 2, in bytes.
const V2_BYTES_MAX: usize = 536;
/// First bytes of version 1.
const V1_START: &[u8; 6] = b"PROXY ";
/// Longest header of version 1, in bytes, with its CRLF.
const V1_BYTES_MAX: usize = 107;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prelude {
    /// More bytes are needed to tell.
    Incomplete,
    /// Not a PROXY header; nothing is to be skipped.
    Absent,
    /// A whole header.
    Header {
        /// Its length in bytes; what follows belongs to TLS or HTTP.
        len: usize,
        /// Where the client connects from, and to which address of the proxy. `None` where the proxy
        /// speaks for itself (LOCAL), does not know (UNKNOWN, UNSPEC) or was reached over a unix
        /// socket: the socket's own addresses count then.
        addresses: Option<Addresses>,
    },
}

/// The connection that a proxy forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}

/// Reads a PROXY header from the first bytes of a connection. May be called again from the start
/// whenever more have come; needs at most 536 bytes to decide.
///
/// # Errors
/// [`Reason::BadProxyHeader`] where the bytes begin like one and are not one; the detail names the
/// rule.
pub fn parse(buffer: &[u8]) -> Result<Prelude, Refusal> {
    if begins_like(buffer, V1_START) {
        version_1(buffer)
    } else if begins_like(buffer, V2_SIGNATURE) {
        version_2(buffer)
    } else {
        Ok(Prelude::Absent)
    }
}

/// True where one of the two is the beginning of the other.
fn begins_like(buffer: &[u8], start: &[u8]) -> bool {
    buffer.iter().zip(start).all(|(a, b)| a == b)
}

#[cold]
fn bad(rule: &'static str) -> Refusal {
    refuse(Reason::BadProxyHeader, rule)
}

fn version_1(buffer: &[u8]) -> Result<Prelude, Refusal> {
    let longest = &buffer[..buffer.len().min(V1_BYTES_MAX)];
    let Some(line_feed) = memchr::memchr(b'\n', longest) else {
        return if longest.len() == V1_BYTES_MAX {
            Err(bad("version 1 is longer than 107 bytes"))
        } else {
            Ok(Prelude::Incomplete)
        };
    };
    let line = longest[..line_feed]
        .strip_suffix(b"\r")
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or_else(|| bad("version 1 is not a line of ASCII that ends in CRLF"))?;
    let len = line_feed + 1;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Prelude::Header {
            len,
            addresses: None,
        });
    }
    let words = [
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.next(),
    ];
    let [
        Some(source),
        Some(destination),
        Some(source_port),
        Some(destination_port),
        None,
    ] = words
    else {
        return Err(bad("version 1 has not two addresses and two ports"));
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let addresses = address(source)
        .zip(port(source_port))
        .zip(address(destination).zip(port(destination_port)))
        .map(|(source, destination)| Addresses {
            source: source.into(),
            destination: destination.into(),
        })
        .ok_or_else(|| bad("version 1 has a malformed family, address or port"))?;
    Ok(Prelude::Header {
        len,
        addresses: Some(addresses),
    })
}

/// A port without sign and leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9'));
    text.parse().ok().filter(|_| plain)
}

fn version_2(buffer: &[u8]) -> Result<Prelude, Refusal> {
    let Some(&[version_command, family, high, low]) = buffer.get(12..V2_FIXED_BYTES) else {
        return Ok(Prelude::Incomplete);
    };
    let len = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if len > V2_BYTES_MAX {
        return Err(bad("version 2 is longer than 536 bytes"));
    }
    let local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(bad("neither PROXY nor LOCAL of version 2")),
    };
    let Some(rest) = buffer.get(V2_FIXED_BYTES..len) else {
        return Ok(Prelude::Incomplete);
    };
    if local {
        // What follows is to be skipped whatever it says.
        return Ok(Prelude::Header {
            len,
            addresses: None,
        });
    }
    let short = || bad("version 2 is too short for its addresses");
    let (addresses, tlvs) = match family {
        0x00 => (None, &[][..]),
        0x11 => {
            let (block, tlvs) = rest.split_first_chunk::<12>().ok_or_else(short)?;
            (Some(ipv4(block)), tlvs)
        }
        0x21 => {
            let (block, tlvs) = rest.split_first_chunk::<36>().ok_or_else(short)?;
            (Some(ipv6(block)), tlvs)
        }
        0x31 => (None, rest.get(216..).ok_or_else(short)?),
        _ => return Err(bad("a family or transport that no stream listener has")),
    };
    check_tlvs(tlvs)?;
    Ok(Prelude::Header { len, addresses })
}

fn ipv4(block: &[u8; 12]) -> Addresses {
    let [a, b, c, d, e, f, g, h, ports @ ..] = *block;
    let (source_port, destination_port) = two_ports(ports);
    Addresses {
        source: (Ipv4Addr::new(a, b, c, d), source_port).into(),
        destination: (Ipv4Addr::new(e, f, g, h), destination_port).into(),
    }
}

fn ipv6(block: &[u8; 36]) -> Addresses {
    let address = |at: usize| {
        let bytes: [u8; 16] = block[at..at + 16]
            .try_into()
            .expect("a range of 16 bytes inside a block of 36");
        Ipv6Addr::from(bytes)
    };
    let (source_port, destination_port) = two_ports([block[32], block[33], block[34], block[35]]);
    Addresses {
        source: (address(0), source_port).into(),
        destination: (address(16), destination_port).into(),
    }
}

fn two_ports([a, b, c, d]: [u8; 4]) -> (u16, u16) {
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// Type, length in two bytes, value, until the end. What they say is not used; that they are in order
/// shows that addresses and length were meant as read.
fn check_tlvs(mut rest: &[u8]) -> Result<(), Refusal> {
    while let Some((&[_, high, low], value)) = rest.split_first_chunk() {
        rest = value
            .get(usize::from(u16::from_be_bytes([high, low]))..)
            .ok_or_else(|| bad("a TLV of version 2 is longer than the header"))?;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(bad("a TLV of version 2 is cut off"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).expect("short");
        [
            V2_SIGNATURE,
            &[command, family][..],
            &len.to_be_bytes(),
            rest,
        ]
        .concat()
    }

    fn addresses(buffer: &[u8]) -> Option<(String, String)> {
        match parse(buffer) {
            Ok(Prelude::Header { addresses, .. }) => {
                addresses.map(|a| (a.source.to_string(), a.destination.to_string()))
            }
            other => panic!("{other:?}"),
        }
    }

    const IPV4: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 0x1f, 0x90, 0, 80];

    #[test]
    fn version_1_tells_both_ends() {
        assert_eq!(
            addresses(b"PROXY TCP4 1.2.3.4 5.6.7.8 8080 80\r\nGET /"),
            Some(("1.2.3.4:8080".into(), "5.6.7.8:80".into()))
        );
        assert_eq!(
            addresses(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n"),
            Some(("[2001:db8::1]:1".into(), "[::1]:65535".into()))
        );
        assert_eq!(addresses(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(addresses(b"PROXY UNKNOWN ff:: ff:: 1 1\r\n"), None);
    }

    #[test]
    fn version_2_tells_both_ends() {
        assert_eq!(
            addresses(&v2(0x21, 0x11, IPV4)),
            Some(("1.2.3.4:8080".into(), "5.6.7.8:80".into()))
        );
        let ipv6 = [&[0; 15][..], &[1], &[0xfe], &[0; 14], &[2, 0, 1, 0, 2]].concat();
        assert_eq!(
            addresses(&v2(0x21, 0x21, &ipv6)),
            Some(("[::1]:1".into(), "[fe00::2]:2".into()))
        );
        let with_tlvs = [IPV4, &[4, 0, 2, 9, 9, 0xe0, 0, 0]].concat();
        assert!(addresses(&v2(0x21, 0x11, &with_tlvs)).is_some());
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_or_over_a_unix_socket_tells_no_address() {
        assert_eq!(addresses(&v2(0x20, 0x00, b"")), None);
        assert_eq!(addresses(&v2(0x20, 0xff, b"anything")), None);
        assert_eq!(addresses(&v2(0x21, 0x00, b"anything")), None);
        assert_eq!(addresses(&v2(0x21, 0x31, &[0; 216])), None);
    }

    #[test]
    fn the_bytes_after_the_header_stay() {
        let mut buffer = v2(0x21, 0x11, IPV4);
        let header = buffer.len();
        buffer.extend_from_slice(b"GET / HTTP/1.1\r\n");
        assert!(matches!(parse(&buffer), Ok(Prelude::Header { len, .. }) if len == header));
    }

    #[test]
    fn other_protocols_are_told_apart_at_their_first_odd_byte() {
        for other in [
            "GET / HTTP/1.1\r\n",
            "POST /",
            "PR",
            "\r\n\r\nG",
            "\u{16}\u{3}",
            "PROXZ",
            "\n",
        ] {
            let expected = if other == "PR" {
                Prelude::Incomplete
            } else {
                Prelude::Absent
            };
            assert_eq!(parse(other.as_bytes()), Ok(expected), "{other:?}");
        }
        assert_eq!(parse(b""), Ok(Prelude::Incomplete));
    }

    #[test]
    fn malformed_headers_are_refused() {
        let long = format!("PROXY UNKNOWN {}", "a".repeat(93));
        for bad in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            &long,
        ] {
            let refusal = parse(bad.as_bytes()).expect_err(bad);
            assert_eq!(refusal.reason, Reason::BadProxyHeader, "{bad:?}");
        }
        for bad in [
            v2(0x11, 0x11, IPV4),
            v2(0x22, 0x11, IPV4),
            v2(0x21, 0x12, IPV4),
            v2(0x21, 0x41, IPV4),
            v2(0x21, 0x11, &IPV4[1..]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x11, &[IPV4, &[4, 0]].concat()),
            v2(0x21, 0x11, &[IPV4, &[4, 0, 2, 9]].concat()),
            v2(0x20, 0x00, &[0; 521]),
        ] {
            let refusal = parse(&bad).expect_err("malformed");
            assert_eq!(refusal.reason, Reason::BadProxyHeader, "{bad:?}");
        }
        assert!(parse(&v2(0x20, 0x00, &[0; 520])).is_ok());
    }

    proptest! {
        #[test]
        fn every_proper_beginning_of_a_header_is_incomplete(cut in 0..28_usize) {
            prop_assert_eq!(parse(&v2(0x21, 0x11, IPV4)[..cut]), Ok(Prelude::Incomplete));
            let version_1 = b"PROXY TCP4 1.2.3.4 5.6.7.8 8080 80\r\n";
            prop_assert_eq!(parse(&version_1[..cut]), Ok(Prelude::Incomplete));
        }

        #[test]
        fn no_bytes_make_it_panic(
            version_2 in any::<bool>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let start: &[u8] = if version_2 { V2_SIGNATURE } else { V1_START };
            // Only that it returns counts here.
            let _outcome = parse(&[start, &bytes].concat());
        }
    }
}
