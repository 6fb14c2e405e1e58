//! The front's checked head as pingora holds requests.

use crate::front::head::Head;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri, header};
use hub_core::{HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;
use pingora::{ErrorType, OrErr, Result};

/// About how many headers the stages add for the upstream.
const ADDED_HEADERS: usize = 8;

/// The head as pingora holds it, sharing the bytes of `bytes`.
pub(super) fn request_header(head: &Head, bytes: &Bytes, websocket: bool) -> Result<RequestHeader> {
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
    let mut headers = HeaderMap::with_capacity(head.field_count() + ADDED_HEADERS);
    for field in head.fields(bytes) {
        let name = HeaderName::from_bytes(field.name)
            .or_err(ErrorType::InvalidHTTPHeader, "a header's name")?;
        // Any Upgrade header makes pingora take the request for an upgrade. Without it, it is the plain
        // request that HTTP allows a server to make of it.
        if name == header::UPGRADE && !websocket {
            continue;
        }
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
            .or_err(ErrorType::InvalidHTTPHeader, "a header's value")?;
        headers.append(name, value);
    }
    if let Some(authority) = head.target_authority(bytes) {
        let value = HeaderValue::from_maybe_shared(authority)
            .or_err(ErrorType::InvalidHTTPHeader, "an authority")?;
        headers.insert(header::HOST, value);
    }
    parts.headers = headers;
    let mut request = RequestHeader::from(parts);
    if let Some(raw) = raw {
        request.set_raw_path(&raw)?;
    }
    Ok(request)
}

#[cfg(test)]
mod tests;
