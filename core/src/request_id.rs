//! Ids that follow one request through logs, answers and upstreams.

use std::fmt;
use uuid::Uuid;

/// The id of one request: a UUIDv7, so that ids sort by time of arrival.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

/// W3C trace context (`traceparent`, version 00), passed on and started where absent.
/// Source: <https://www.w3.org/TR/trace-context/>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// 16 bytes, not all zero.
    pub trace_id: u128,
    /// The caller's span, 8 bytes, not all zero.
    pub parent_id: u64,
    /// Bit 0: sampled.
    pub flags: u8,
}

// === impl RequestId ===

impl RequestId {
    /// From the time of arrival in milliseconds since 1970 and ten random bytes.
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }

    /// Reads the hyphenated form back, for operators who paste one.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// Writes the 36 characters of the hyphenated form into `buffer`.
    pub fn encode(self, buffer: &mut [u8; 36]) -> &str {
        self.0.hyphenated().encode_lower(buffer)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

// === impl TraceContext ===

impl TraceContext {
    /// Reads one `traceparent` value; `None` where it is not well formed, which means: start anew.
    pub fn parse(value: &[u8]) -> Option<Self> {
        // Later versions may append fields after a hyphen; version ff is forbidden.
        if value.len() < 55 || value.starts_with(b"ff") || value.starts_with(b"FF") {
            return None;
        }
        if value.len() > 55 && (value.starts_with(b"00") || value[55] != b'-') {
            return None;
        }
        if value[2] != b'-' || value[35] != b'-' || value[52] != b'-' {
            return None;
        }
        hex(&value[0..2])?;
        let trace_id = hex(&value[3..35])?;
        let parent_id = u64::try_from(hex(&value[36..52])?).ok()?;
        let flags = u8::try_from(hex(&value[53..55])?).ok()?;
        (trace_id != 0 && parent_id != 0).then_some(Self {
            trace_id,
            parent_id,
            flags,
        })
    }

    /// Writes the 55 characters of `traceparent` into `buffer`.
    pub fn encode(self, buffer: &mut [u8; 55]) -> &str {
        buffer[..3].copy_from_slice(b"00-");
        put_hex(self.trace_id, &mut buffer[3..35]);
        buffer[35] = b'-';
        put_hex(u128::from(self.parent_id), &mut buffer[36..52]);
        buffer[52] = b'-';
        put_hex(u128::from(self.flags), &mut buffer[53..55]);
        std::str::from_utf8(buffer).expect("hexadecimal digits and hyphens are ASCII")
    }
}

fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            // Upper case is not allowed in traceparent.
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(value))
    })
}

fn put_hex(mut value: u128, out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for slot in out.iter_mut().rev() {
        *slot = DIGITS[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_reads_back_what_it_wrote_and_sorts_by_time() {
        let early = RequestId::new(1_000, [7; 10]);
        let late = RequestId::new(2_000, [0; 10]);
        let mut buffer = [0; 36];
        assert_eq!(RequestId::parse(early.encode(&mut buffer)), Some(early));
        assert!(early.to_string() < late.to_string());
    }

    #[test]
    fn traceparent_survives_a_round_trip() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(text.as_bytes()).expect("the W3C example");
        assert_eq!(context.encode(&mut [0; 55]), text);
    }

    #[test]
    fn malformed_traceparents_start_a_new_trace() {
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
