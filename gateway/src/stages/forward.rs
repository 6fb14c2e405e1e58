//! forward: what an upstream is told beside what the client sent, and what a client is told beside
//! what the upstream answered.

use super::Exchange;
use crate::front::forwarded::is_removed;
use crate::limit::RateLimitState;
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
pub(crate) fn is_ours(name: &[u8]) -> bool {
    let family = || {
        name.get(..OUR_HEADERS.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(OUR_HEADERS.as_bytes()))
    };
    // Most names are told apart by their first letter.
    is_removed(name) || matches!(name.first(), Some(b'x' | b'X')) && family()
}

/// Changes the request for the upstream. Runs after hop-by-hop headers and those that [`is_ours`] is true
/// of are gone, so that `Connection: X-Location-Id` cannot take away what is set here.
pub(crate) fn dress_request(
    exchange: &Exchange,
    host: Option<HeaderValue>,
    request: &mut impl HeaderSink,
) {
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

/// What changes in an upstream's answer, for a lane that writes heads itself: as text on its way, so that
/// no map of headers has to be changed first. The outcome is that of [`dress_response`].
#[derive(Debug, Default)]
pub(crate) struct ResponseDress {
    rate: Option<RateLimitState>,
    edits: Vec<Edit>,
}

impl ResponseDress {
    /// Takes the edits of `exchange`, which has no more use for them.
    pub(crate) fn take(exchange: &mut Exchange) -> Self {
        Self {
            rate: shown_rate(exchange),
            edits: std::mem::take(&mut exchange.edits.response),
        }
    }

    /// True where the upstream's fields of that name go.
    pub(crate) fn replaces(&self, name: &HeaderName) -> bool {
        is_cleared(&self.edits, name)
            || self.rate.is_some() && [RATE_LIMIT, RATE_REMAINING, RATE_RESET].contains(name)
    }

    /// Hands each field that is added to `put`.
    pub(crate) fn put_fields(&self, mut put: impl FnMut(&HeaderName, &[u8])) {
        if let Some(rate) = self.rate {
            let mut digits = itoa::Buffer::new();
            for (name, number) in [
                (RATE_LIMIT, rate.limit),
                (RATE_REMAINING, rate.remaining),
                (RATE_RESET, rate.reset_seconds),
            ] {
                if !is_cleared(&self.edits, &name) {
                    put(&name, digits.format(number).as_bytes());
                }
            }
        }
        for (at, edit) in self.edits.iter().enumerate() {
            if let Edit::Set(name, value) | Edit::Append(name, value) = edit
                && !is_cleared(&self.edits[at + 1..], name)
            {
                put(name, value.as_bytes());
            }
        }
    }
}

fn is_cleared(edits: &[Edit], name: &HeaderName) -> bool {
    edits.iter().any(|edit| match edit {
        Edit::Set(cleared, _) | Edit::Remove(cleared) => cleared == name,
        Edit::Append(..) => false,
    })
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
    let Some(rate) = shown_rate(exchange) else {
        return [None, None, None];
    };
    [
        Some((RATE_LIMIT, HeaderValue::from(rate.limit))),
        Some((RATE_REMAINING, HeaderValue::from(rate.remaining))),
        Some((RATE_RESET, HeaderValue::from(rate.reset_seconds))),
    ]
}

fn shown_rate(exchange: &Exchange) -> Option<RateLimitState> {
    exchange
        .rate
        .filter(|_| exchange.snapshot.config.limit_headers)
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = HeaderName> {
        prop::sample::select(vec![
            RATE_LIMIT,
            RATE_RESET,
            http::header::DATE,
            http::header::VARY,
            HeaderName::from_static("x-a"),
        ])
    }

    fn value() -> impl Strategy<Value = HeaderValue> {
        (0..9_u32).prop_map(HeaderValue::from)
    }

    fn edit() -> impl Strategy<Value = Edit> {
        prop_oneof![
            (name(), value()).prop_map(|(name, value)| Edit::Set(name, value)),
            (name(), value()).prop_map(|(name, value)| Edit::Append(name, value)),
            name().prop_map(Edit::Remove),
        ]
    }

    fn sorted<'a>(
        fields: impl Iterator<Item = (&'a HeaderName, &'a [u8])>,
    ) -> Vec<(String, Vec<u8>)> {
        let mut fields: Vec<_> = fields
            .map(|(name, value)| (name.to_string(), value.to_vec()))
            .collect();
        // Between names order says nothing, within one it does, and the sort is stable.
        fields.sort_by(|one, other| one.0.cmp(&other.0));
        fields
    }

    proptest! {
        #[test]
        fn a_dress_on_the_wire_is_that_of_a_map(
            upstream in prop::collection::vec((name(), value()), 0..5),
            edits in prop::collection::vec(edit(), 0..6),
            rate in prop::option::of((0..9_u32, 0..9_u32, 0..9_u32)),
        ) {
            let rate = rate.map(|(limit, remaining, reset_seconds)| RateLimitState {
                limit,
                remaining,
                reset_seconds,
            });
            let mut map: HeaderMap = HeaderMap::new();
            for (name, value) in &upstream {
                map.append(name.clone(), value.clone());
            }
            if let Some(rate) = rate {
                map.insert(RATE_LIMIT, rate.limit.into());
                map.insert(RATE_REMAINING, rate.remaining.into());
                map.insert(RATE_RESET, rate.reset_seconds.into());
            }
            apply(&edits, &mut map);

            let dress = ResponseDress { rate, edits };
            let mut wire = HeaderMap::new();
            for (name, value) in upstream.iter().filter(|(name, _)| !dress.replaces(name)) {
                wire.append(name.clone(), value.clone());
            }
            dress.put_fields(|name, value| {
                let value = HeaderValue::from_bytes(value).expect("a value");
                wire.append(name.clone(), value);
            });
            let fields = |map: &HeaderMap| sorted(map.iter().map(|(name, value)| (name, value.as_bytes())));
            prop_assert_eq!(fields(&map), fields(&wire));
        }
    }
}
