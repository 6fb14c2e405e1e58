//! The front's checked head as pingora and the upstream get it.
//!
//! pingora gets the request line alone: it would copy the headers, look each hop-by-hop name up in
//! them, and hand them back to be changed. What goes upstream is made once, from the checked bytes, in
//! [`upstream_headers`].

use super::Asked;
use crate::front::head::{self, Head, HeadLimits};
use crate::stages::forward;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri, header};
use hub_core::{HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, OrErr, Result};
use smallvec::SmallVec;

/// About how many headers the stages add for the upstream.
const ADDED_HEADERS: usize = 8;
/// A head that was accepted once is accepted again.
const NO_LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: usize::MAX,
    uri_bytes_max: usize::MAX,
    header_count_max: usize::MAX,
};

/// The headers of an HTTP/1 request that waits for its upstream.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Made beforehand for the first try.
    headers: Option<HeaderMap>,
    /// The head as it came, for a second one.
    bytes: Bytes,
}

// === impl Outgoing ===

impl Outgoing {
    /// The headers of the request whose head is `head`, as it stands in `bytes`.
    ///
    /// # Errors
    /// Where pingora cannot hold what the head says, which is not known to happen.
    pub(crate) fn new(head: &Head, bytes: Bytes) -> Result<Self> {
        Ok(Self {
            headers: Some(upstream_headers(head, &bytes)?),
            bytes,
        })
    }

    /// The headers for one try.
    pub(super) fn take(&mut self) -> Result<HeaderMap> {
        if let Some(headers) = self.headers.take() {
            return Ok(headers);
        }
        let head = head::parse(&self.bytes, &NO_LIMITS)
            .ok()
            .flatten()
            .ok_or_else(|| Error::explain(ErrorType::InternalError, "a checked head went bad"))?;
        upstream_headers(&head, &self.bytes)
    }

    /// What the record needs of the request.
    pub(crate) fn asked(&self, head: &Head) -> Asked {
        let value = |name| self.headers.as_ref().and_then(|all| all.get(name)).cloned();
        Asked {
            method: head.method.clone(),
            target: head.target(&self.bytes),
            host: value(header::HOST),
            user_agent: value(header::USER_AGENT),
            origin: value(header::ORIGIN),
        }
    }
}

/// The request as pingora holds it: all but its headers.
pub(super) fn request_line(head: &Head, bytes: &Bytes) -> Result<RequestHeader> {
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = head.method.clone();
    parts.version = match head.version {
        Version::Http10 => http::Version::HTTP_10,
        _ => http::Version::HTTP_11,
    };
    // Origin form always: upstreams are origins, not proxies.
    let target = head.target(bytes);
    let held = PathAndQuery::from_maybe_shared(target.clone())
        .ok()
        .filter(|held| held.as_str().as_bytes() == target);
    let raw = held.is_none().then_some(target);
    if let Some(held) = held {
        parts.uri = Uri::from(held);
    }
    let mut request = RequestHeader::from(parts);
    if let Some(raw) = raw {
        request.set_raw_path(&raw)?;
    }
    Ok(request)
}

/// The client's headers as they go upstream, sharing the bytes of `bytes`: without those that concern
/// the client's connection (RFC 9110, section 7.6.1) or that only the gateway may set. The front has
/// refused a Connection header that names what a message cannot do without.
pub(crate) fn upstream_headers(head: &Head, bytes: &Bytes) -> Result<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(head.field_count() + ADDED_HEADERS);
    let mut connection: SmallVec<[&[u8]; 2]> = SmallVec::new();
    for field in head.fields(bytes) {
        if forward::is_ours(field.name) {
            continue;
        }
        let name = HeaderName::from_bytes(field.name)
            .or_err(ErrorType::InvalidHTTPHeader, "a header's name")?;
        if is_hop_by_hop(&name) {
            if name == header::CONNECTION {
                connection.push(field.value);
            }
            continue;
        }
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
            .or_err(ErrorType::InvalidHTTPHeader, "a header's value")?;
        headers.append(name, value);
    }
    for option in connection
        .iter()
        .flat_map(|value| value.split(|byte| *byte == b','))
    {
        if let Ok(name) = HeaderName::from_bytes(option.trim_ascii()) {
            headers.remove(name);
        }
    }
    if let Some(authority) = head.target_authority(bytes) {
        let value = HeaderValue::from_maybe_shared(authority)
            .or_err(ErrorType::InvalidHTTPHeader, "an authority")?;
        headers.insert(header::HOST, value);
    }
    Ok(headers)
}

/// True for a header that concerns one connection only. Transfer-Encoding is among them: pingora frames
/// the body anew.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    static NAMES: [HeaderName; 10] = [
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("http2-settings"),
    ];
    NAMES.contains(name)
}

#[cfg(test)]
mod tests;
