//! HTTP/2 requests as the stages see them.

use super::Asked;
use crate::front::app::Connection;
use crate::front::{head, host, path};
use crate::hub::Hub;
use crate::stages::{self, BodyLength, Exchange};
use bytes::Bytes;
use http::header::{COOKIE, ORIGIN, USER_AGENT};
use hub_core::{HeaderField, HeaderValue, Headers, Method, Reason, Refusal, RequestView, Version};
use pingora::http::RequestHeader;
use pingora::{ErrorType, OrErr};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// What the stages said of an HTTP/2 request.
pub(super) struct Verdict {
    pub(super) exchange: Box<Exchange>,
    pub(super) refusal: Option<Refusal>,
}

/// Runs the stages on a request that pingora's HTTP/2 session has parsed.
pub(super) fn admit(hub: &Arc<Hub>, connection: &Connection, request: &RequestHeader) -> Verdict {
    let fields: Vec<HeaderField<'_>> = request
        .headers
        .iter()
        .map(|(name, value)| HeaderField {
            name: name.as_str().as_bytes(),
            value: value.as_bytes(),
        })
        .collect();
    let headers = Headers::new(&fields);
    let snapshot = hub.snapshot();
    let arrival = connection.arrival(&snapshot, headers, Instant::now());
    let mut exchange = Exchange::begin(hub, snapshot, arrival, Version::Http2, headers);
    let refusal = checked(&mut exchange, connection, request, headers).err();
    Verdict { exchange, refusal }
}

fn checked(
    exchange: &mut Exchange,
    connection: &Connection,
    request: &RequestHeader,
    headers: Headers<'_>,
) -> Result<(), Refusal> {
    let listener = connection.settings(&exchange.snapshot);
    let target =
        std::str::from_utf8(request.raw_path()).map_err(|_| Refusal::new(Reason::BadPath))?;
    if target.len() > listener.uri_bytes_max {
        return Err(Refusal::new(Reason::UriTooLong));
    }
    if headers.len() > listener.header_count_max {
        return Err(Refusal::new(Reason::HeadTooLarge));
    }
    head::check_method(&request.method)?;
    // What the head would be on HTTP/1: each field has a colon, a space and a line end.
    let bytes: usize = headers
        .iter()
        .map(|f| f.name.len() + f.value.len() + 4)
        .sum();
    if bytes + target.len() > listener.head_bytes_max {
        return Err(Refusal::new(Reason::HeadTooLarge));
    }
    let length = head::check_fields(headers)?;
    let (path_raw, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    head::check_query(query.unwrap_or("").as_bytes())?;
    let path: Cow<'_, str> = if path_raw == "*" && request.method == Method::OPTIONS {
        Cow::Borrowed("*")
    } else {
        path::normalise(path_raw)?
    };
    let authority = authority(request).ok_or(Refusal::new(Reason::BadHost))?;
    let host = host::parse(authority.as_bytes())?;
    let client = exchange.arrival.client;
    let request_id = exchange.request_id;
    let view = RequestView {
        method: &request.method,
        version: Version::Http2,
        scheme: exchange.arrival.scheme,
        host: &host.host,
        path: &path,
        path_raw,
        query,
        headers,
        client: &client,
        request_id: &request_id,
    };
    let length = length.map_or(BodyLength::Unknown, BodyLength::Known);
    stages::admit(exchange, &view, length)
}

/// Makes one Cookie line of several: HTTP/2 lets clients send each cookie in a field of its own, and
/// HTTP/1 does not (RFC 9113, section 8.2.3).
pub(super) fn join_cookies(request: &mut RequestHeader) -> pingora::Result<()> {
    let mut crumbs = request.headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else {
        return Ok(());
    };
    let mut whole = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(crumb.as_bytes());
    }
    let whole = HeaderValue::from_maybe_shared(Bytes::from(whole))
        .or_err(ErrorType::InternalError, "cookies are no header value")?;
    request.insert_header(COOKIE, whole)
}

/// `:authority`, or Host where there is none; both must agree, which pingora has checked.
fn authority(request: &RequestHeader) -> Option<&str> {
    request
        .uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(|| request.headers.get(http::header::HOST)?.to_str().ok())
}

/// What the record needs of a request that pingora's HTTP/2 session has parsed.
pub(super) fn asked(request: &RequestHeader) -> Asked {
    let value = |name| request.headers.get(name).cloned();
    let authority = authority(request).and_then(|host| HeaderValue::from_str(host).ok());
    Asked {
        method: request.method.clone(),
        target: Bytes::copy_from_slice(request.raw_path()),
        host: authority,
        user_agent: value(USER_AGENT),
        origin: value(ORIGIN),
    }
}
