//! pingora's headers as the stages change them.
//!
//! pingora keeps a second map beside the headers, so that the wire shows names in the case in which
//! they came. Each clone and each change pays for both maps, and a name of ours is parsed and copied
//! on every insert. HTTP names carry no case, so the lane forgets it: known names go out in their
//! usual form, others in lower case, as HTTP/2 has them anyway. Measured: docs/performance.md.

use crate::stages::forward::HeaderSink;
use http::HeaderMap;
use http::header::Entry;
use hub_core::{HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

impl HeaderSink for HeaderMap {
    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) {
        HeaderMap::append(self, name, value);
    }

    fn remove(&mut self, name: &HeaderName) {
        if let Entry::Occupied(fields) = self.entry(name) {
            fields.remove_entry_mult();
        }
    }

    fn remove_where(&mut self, is_unwanted: fn(&[u8]) -> bool) {
        let unwanted: SmallVec<[HeaderName; 4]> = self
            .keys()
            .filter(|name| is_unwanted(name.as_str().as_bytes()))
            .cloned()
            .collect();
        for name in unwanted {
            HeaderSink::remove(self, &name);
        }
    }
}

/// Forgets in which case the client wrote header names, and lets `change` change the headers.
pub(super) fn edit_request(
    request: &mut RequestHeader,
    change: impl FnOnce(&mut HeaderMap),
) -> Result<()> {
    // A target that `http::Uri` cannot hold as it came is kept beside it, and only there.
    let raw = request.raw_path();
    let held = request
        .uri
        .path_and_query()
        .is_some_and(|target| target.as_str().as_bytes() == raw);
    let raw = (!held).then(|| raw.to_vec());
    let emptied = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts: http::request::Parts = std::mem::replace(request, emptied).into();
    change(&mut parts.headers);
    *request = RequestHeader::from(parts);
    match raw {
        Some(raw) => request.set_raw_path(&raw),
        None => Ok(()),
    }
}

/// Forgets in which case the upstream wrote header names, and lets `change` change the headers.
pub(super) fn edit_response(
    response: &mut ResponseHeader,
    change: impl FnOnce(&mut HeaderMap),
) -> Result<()> {
    let phrase = response
        .get_reason_phrase()
        .filter(|phrase| Some(*phrase) != response.status.canonical_reason())
        .map(str::to_owned);
    let emptied = ResponseHeader::from(http::Response::new(()).into_parts().0);
    let mut parts: http::response::Parts = std::mem::replace(response, emptied).into();
    change(&mut parts.headers);
    *response = ResponseHeader::from(parts);
    response.set_reason_phrase(phrase.as_deref())
}
