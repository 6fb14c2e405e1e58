//! forward: what an upstream is told beside what the client sent, and what a client is told beside
//! what the upstream answered.

use super::Exchange;
use crate::front::forwarded::is_removed;
use hub_core::names::OUR_HEADERS;
use hub_core::{Edit, HeaderName, HeaderValue};

/// A set of headers that can be changed: a lane's request or response.
pub trait HeaderSink {
    /// Removes every field of that name, then adds this one.
    fn set(&mut self, name: HeaderName, value: HeaderValue);
    /// Adds a field.
    fn append(&mut self, name: HeaderName, value: HeaderValue);
    /// Removes every field of that name.
    fn remove(&mut self, name: &HeaderName);
    /// Removes every field whose name `is_unwanted` is true of.
    fn remove_where(&mut self, is_unwanted: fn(&[u8]) -> bool);
}

/// The resolved tenant, for upstreams.
pub const LOCATION_ID: HeaderName = HeaderName::from_static("x-location-id");
/// Subject of the verified credential, for upstreams.
pub const SUBJECT: HeaderName = HeaderName::from_static("x-hub-subject");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATE_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// True for a header that only the gateway, or a proxy that it trusts, may set: whatever a client
/// sends under such a name is removed.
fn is_ours(name: &[u8]) -> bool {
    is_removed(name)
        || name
            .get(..OUR_HEADERS.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(OUR_HEADERS.as_bytes()))
}

/// Changes the request for the upstream. Runs after hop-by-hop headers are stripped, so that
/// `Connection: X-Location-Id` cannot take away what is set here.
pub(crate) fn dress_request(
    exchange: &Exchange,
    host: Option<HeaderValue>,
    request: &mut impl HeaderSink,
) {
    request.remove_where(is_ours);
    request.set(FORWARDED_FOR, exchange.arrival.forwarded_for.clone());
    request.set(
        FORWARDED_PROTO,
        HeaderValue::from_static(exchange.arrival.scheme.as_str()),
    );
    if let Some(host) = host {
        request.set(FORWARDED_HOST, host);
    }
    let mut buffer = [0; 55];
    request.set(TRACEPARENT, ascii(exchange.trace.encode(&mut buffer)));
    if let Some(tenant) = exchange.tenant_id() {
        request.set(LOCATION_ID, ascii(tenant));
    }
    if let Some(identity) = &exchange.identity
        && let Ok(subject) = HeaderValue::from_str(&identity.subject)
    {
        request.set(SUBJECT, subject);
    }
    apply(&exchange.edits.request, request);
}

/// Changes the upstream's answer for the client.
pub(crate) fn dress_response(exchange: &Exchange, response: &mut impl HeaderSink) {
    for (name, value) in rate_headers(exchange).into_iter().flatten() {
        response.set(name, value);
    }
    apply(&exchange.edits.response, response);
}

/// `RateLimit-Limit`, `-Remaining` and `-Reset` (seconds) of the tightest limit that applied.
pub(crate) fn rate_headers(exchange: &Exchange) -> [Option<(HeaderName, HeaderValue)>; 3] {
    let Some(rate) = exchange
        .rate
        .as_ref()
        .filter(|_| exchange.snapshot.config.limit_headers)
    else {
        return [None, None, None];
    };
    [
        Some((RATE_LIMIT, HeaderValue::from(rate.limit))),
        Some((RATE_REMAINING, HeaderValue::from(rate.remaining))),
        Some((RATE_RESET, HeaderValue::from(rate.reset_seconds))),
    ]
}

fn apply(edits: &[Edit], headers: &mut impl HeaderSink) {
    for edit in edits {
        match edit {
            Edit::Set(name, value) => headers.set(name.clone(), value.clone()),
            Edit::Append(name, value) => headers.append(name.clone(), value.clone()),
            Edit::Remove(name) => headers.remove(name),
        }
    }
}

fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("ids and hexadecimal digits are visible ASCII")
}
