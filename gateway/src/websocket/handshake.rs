//! Both handshakes (RFC 6455, section 4), as far as they are text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use sha1::{Digest, Sha1};

/// What is hashed behind the key (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the gateway asks of an upstream.
#[derive(Debug)]
pub(super) struct Asked {
    /// The gateway's own key.
    key: String,
    /// Subprotocols that the client knows.
    protocols: Vec<String>,
    /// The client's extensions went along.
    extensions: bool,
}

/// Why an upstream's 101 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    #[error("101 without `Upgrade: websocket`")]
    Upgrade,
    #[error("101 without `Connection: upgrade`")]
    Connection,
    #[error("101 with another Sec-WebSocket-Accept than the key's")]
    Accept,
    #[error("101 with a subprotocol that nobody asked for")]
    Protocol,
    #[error("101 with an extension that nobody asked for")]
    Extension,
}

// === impl Asked ===

impl Asked {
    /// Makes the client's headers those of the gateway's own handshake: another key, and no extensions
    /// unless they may go along.
    pub(super) fn dress(headers: &mut HeaderMap, extensions: bool) -> Self {
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let value = HeaderValue::from_str(&key).expect("base64 is visible ASCII");
        headers.insert(SEC_WEBSOCKET_KEY, value);
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if !extensions {
            headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        }
        Self {
            key,
            protocols: list(headers, SEC_WEBSOCKET_PROTOCOL.as_str())
                .map(str::to_owned)
                .collect(),
            extensions,
        }
    }

    /// Whether a 101 with these headers answers it (RFC 6455, section 4.1).
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), BadAnswer> {
        let says = |name: &str, wanted: &str| {
            list(headers, name).any(|said| said.eq_ignore_ascii_case(wanted))
        };
        if !says(UPGRADE.as_str(), "websocket") {
            return Err(BadAnswer::Upgrade);
        }
        if !says(CONNECTION.as_str(), "upgrade") {
            return Err(BadAnswer::Connection);
        }
        let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        let accept = accepts.next().map(HeaderValue::as_bytes);
        if accept != Some(accept_of(self.key.as_bytes()).as_bytes()) || accepts.next().is_some() {
            return Err(BadAnswer::Accept);
        }
        let mut chosen = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        if let Some(protocol) = chosen.next() {
            let known = self
                .protocols
                .iter()
                .any(|one| one.as_bytes() == protocol.as_bytes());
            if !known || chosen.next().is_some() {
                return Err(BadAnswer::Protocol);
            }
        }
        let mut extensions = list(headers, SEC_WEBSOCKET_EXTENSIONS.as_str());
        match extensions.next() {
            Some(_) if !self.extensions => Err(BadAnswer::Extension),
            _ => Ok(()),
        }
    }
}

/// Takes what concerns the upstream's connection, or frames a body, out of its 101.
pub(super) fn strip(head: &mut ResponseHeader) {
    for name in [
        TRANSFER_ENCODING,
        CONTENT_LENGTH,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        head.remove_header(&name);
    }
}

/// `Sec-WebSocket-Accept` for a client's key.
pub(super) fn accept_of(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The values of a list, over all fields of that name.
fn list<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let fields = headers.get_all(name).into_iter();
    let values = fields.filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|one| !one.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).expect("plain"));
        }
        headers
    }

    #[test]
    fn the_accept_of_the_standards_own_example() {
        let accept = accept_of(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn an_upstream_may_answer_what_it_was_asked_and_nothing_else() {
        let mut request = headers(&[
            ("sec-websocket-protocol", "chat, json"),
            ("sec-websocket-extensions", "permessage-deflate"),
        ]);
        let asked = Asked::dress(&mut request, false);
        assert!(!request.contains_key(SEC_WEBSOCKET_EXTENSIONS));
        let key = request[SEC_WEBSOCKET_KEY].as_bytes();
        assert_eq!(STANDARD.decode(key).expect("base64").len(), 16);
        let accept = accept_of(key);
        let good = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-accept", accept.as_str()),
            ("sec-websocket-protocol", "json"),
        ];
        assert_eq!(asked.check(&headers(&good)), Ok(()));
        let with = |at: usize, value| {
            let mut changed = good;
            changed[at].1 = value;
            asked.check(&headers(&changed))
        };
        assert_eq!(with(0, "h2c"), Err(BadAnswer::Upgrade));
        assert_eq!(with(1, "close"), Err(BadAnswer::Connection));
        assert_eq!(
            with(2, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            Err(BadAnswer::Accept)
        );
        assert_eq!(with(3, "xml"), Err(BadAnswer::Protocol));
        let mut more = headers(&good);
        more.append(
            SEC_WEBSOCKET_EXTENSIONS,
            HeaderValue::from_static("permessage-deflate"),
        );
        assert_eq!(asked.check(&more), Err(BadAnswer::Extension));
        more.append(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("x"));
        assert_eq!(asked.check(&more), Err(BadAnswer::Accept));
    }
}
