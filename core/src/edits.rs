//! What stages and plugins want changed on the way up and on the way down.

use http::{HeaderName, HeaderValue};

/// One change of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Removes every field of that name, then adds this one.
    Set(HeaderName, HeaderValue),
    /// Adds a field beside those that are there.
    Append(HeaderName, HeaderValue),
    /// Removes every field of that name.
    Remove(HeaderName),
}

/// Changes in the order they were asked for. They are applied after hop-by-hop headers are
/// stripped, so `Connection: X-Location-Id` cannot remove what a stage has set.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// To the request that goes upstream.
    pub request: Vec<Edit>,
    /// To the response that goes to the client, refusals of later stages included.
    pub response: Vec<Edit>,
}
