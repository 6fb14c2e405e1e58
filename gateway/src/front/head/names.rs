//! Header names that the gateway gives a meaning, and names that only look like one of them.

/// Headers whose meaning the gateway, or an origin behind it, relies on. In lower case.
const INTERPRETED: &[&str] = &[
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
    "x-ghl-signature",
    "x-request-id",
];

/// Families of which the gateway, or an origin behind it, believes every member. In lower case.
const INTERPRETED_PREFIXES: &[&str] = &[
    "sec-websocket-",
    "x-forwarded-",
    hub_core::names::OUR_HEADERS,
    "x-location-",
];

/// A header that the parser itself acts on or of which there may be only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Expect,
    Upgrade,
    WebSocketKey,
    WebSocketVersion,
    Authorization,
    ContentType,
    Origin,
}

/// Which of the names that the parser acts on `name` is, in any case.
pub(super) fn known(name: &[u8]) -> Option<Known> {
    let (lower, found) = match name.len() {
        4 => ("host", Known::Host),
        6 if name[0] | 0x20 == b'e' => ("expect", Known::Expect),
        6 => ("origin", Known::Origin),
        7 => ("upgrade", Known::Upgrade),
        10 => ("connection", Known::Connection),
        12 => ("content-type", Known::ContentType),
        13 => ("authorization", Known::Authorization),
        14 => ("content-length", Known::ContentLength),
        17 if name[0] | 0x20 == b't' => ("transfer-encoding", Known::TransferEncoding),
        17 => ("sec-websocket-key", Known::WebSocketKey),
        21 => ("sec-websocket-version", Known::WebSocketVersion),
        _ => return None,
    };
    name.eq_ignore_ascii_case(lower.as_bytes()).then_some(found)
}

/// True where `name` is not `trusted` but would become it in an origin that, as CGI does, keeps
/// letters and digits and folds every other byte into one: `X_Location_Id` for `X-Location-Id`.
/// `trusted` is in any case.
pub fn imitates(name: &[u8], trusted: &str) -> bool {
    name.len() == trusted.len()
        && !name.eq_ignore_ascii_case(trusted.as_bytes())
        && starts_alike(name, trusted)
}

/// True where `name` imitates one of the headers that the gateway gives a meaning.
pub fn imitates_interpreted(name: &[u8]) -> bool {
    // Which nearly no name does: only an odd separator can be taken for a hyphen.
    has_odd_separator(name)
        && (INTERPRETED.iter().any(|trusted| imitates(name, trusted))
            || super::super::forwarded::REMOVED
                .iter()
                .any(|trusted| imitates(name, trusted))
            || INTERPRETED_PREFIXES
                .iter()
                .any(|prefix| starts_alike(name, prefix)))
}

/// True where a trailer of that name could change how the message is framed, routed, believed or
/// decoded, so that RFC 9110, section 6.5.1, forbids it.
pub(crate) fn is_forbidden_trailer(name: &[u8]) -> bool {
    let is = |other: &&str| starts_alike(name, other) && name.len() == other.len();
    INTERPRETED.iter().any(is)
        || super::super::forwarded::REMOVED.iter().any(is)
        || INTERPRETED_PREFIXES
            .iter()
            .any(|prefix| starts_alike(name, prefix))
        || ["content-", "if-", "proxy-"]
            .iter()
            .any(|prefix| starts_alike(name, prefix))
}

fn has_odd_separator(name: &[u8]) -> bool {
    name.iter().any(|byte| is_odd_separator(*byte))
}

fn is_odd_separator(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && byte != b'-'
}

fn starts_alike(name: &[u8], start: &str) -> bool {
    name.len() >= start.len()
        && name
            .iter()
            .zip(start.bytes())
            .all(|(a, b)| fold(*a) == fold(b))
}

fn fold(byte: u8) -> u8 {
    if is_odd_separator(byte) {
        b'-'
    } else {
        byte.to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_imitates_another_by_its_separators_only() {
        assert!(imitates(b"x_location_id", "X-Location-Id"));
        assert!(imitates(b"X.Location-Id", "x-location-id"));
        assert!(!imitates(b"X-LOCATION-ID", "x-location-id"));
        assert!(!imitates(b"x_location_ids", "x-location-id"));
    }

    #[test]
    fn whole_families_are_guarded_against_imitation() {
        for name in [
            "X_Forwarded_Anything",
            "x-location_x",
            "sec_websocket_key",
            "X_Hub_Subject",
            "x-hub_anything",
            "Content_Length",
        ] {
            assert!(imitates_interpreted(name.as_bytes()), "{name}");
        }
        for name in ["my_header", "X-Forwarded-For", "content_lengths", "_"] {
            assert!(!imitates_interpreted(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn trailers_that_frame_route_or_authenticate_are_forbidden() {
        for name in [
            "Content-Length",
            "HOST",
            "x-forwarded-for",
            "x_location_id",
            "x-hub-subject",
            "Forwarded",
            "if-match",
        ] {
            assert!(is_forbidden_trailer(name.as_bytes()), "{name}");
        }
        for name in ["checksum", "server-timing", "grpc-status"] {
            assert!(!is_forbidden_trailer(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn the_names_acted_on_are_found_in_any_case_and_no_others() {
        for name in [
            "Host",
            "EXPECT",
            "origin",
            "upgrade",
            "Connection",
            "content-type",
            "authorization",
            "content-length",
            "Transfer-Encoding",
            "Sec-WebSocket-Key",
            "sec-websocket-version",
        ] {
            assert!(known(name.as_bytes()).is_some(), "{name}");
        }
        for name in [
            "hose",
            "expert",
            "accept",
            "cookie",
            "transfer_encoding",
            "",
        ] {
            assert!(known(name.as_bytes()).is_none(), "{name}");
        }
    }
}
