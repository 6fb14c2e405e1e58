//! A request as stages and plugins see it: borrowed, checked, and of no HTTP library.

use crate::{Client, RequestId};
use http::Method;

/// One header as it arrived. The name keeps its case; compare with `eq_ignore_ascii_case`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderField<'a> {
    /// A token, never empty.
    pub name: &'a [u8],
    /// Without leading and trailing white space; never contains CR, LF or NUL.
    pub value: &'a [u8],
}

/// All headers of one request, in the order of arrival, duplicates included.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(&'a [HeaderField<'a>]);

/// How the client reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS.
    Https,
}

/// The HTTP version that the client spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// One request, as every stage and plugin sees it, whatever the lane and the HTTP version.
///
/// Everything is borrowed from the connection's buffer; a view lives as long as the stages run.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The method, case-sensitive as HTTP says.
    pub method: &'a Method,
    /// HTTP version spoken by the client.
    pub version: Version,
    /// Plain or TLS.
    pub scheme: Scheme,
    /// Host without port, in lower case, without a trailing dot. Never empty.
    pub host: &'a str,
    /// The normalised path: what routes are matched on. Starts with `/` (or is `*` for `OPTIONS *`).
    pub path: &'a str,
    /// The path's bytes as they arrived, which are what the upstream gets.
    pub path_raw: &'a str,
    /// What stands after the first `?`, if there is one.
    pub query: Option<&'a str>,
    /// All headers.
    pub headers: Headers<'a>,
    /// Who asks: the address after PROXY protocol and trusted hops.
    pub client: &'a Client,
    /// The id under which this request is logged and answered.
    pub request_id: &'a RequestId,
}

// === impl Headers ===

impl<'a> Headers<'a> {
    /// Wraps fields that the front, or an adapter of a lane, has checked.
    pub fn new(fields: &'a [HeaderField<'a>]) -> Self {
        Self(fields)
    }

    /// Every field, in order of arrival.
    pub fn iter(self) -> impl Iterator<Item = HeaderField<'a>> {
        self.0.iter().copied()
    }

    /// Every value of the header `name` (any case), in order of arrival. Linear in the number of
    /// headers, which the front bounds.
    pub fn get_all<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.0
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value)
    }

    /// The first value of the header `name` (any case).
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.0
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value)
    }

    /// Number of fields.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// True where the request has no header at all.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl Scheme {
    /// `http` or `https`, as in `X-Forwarded-Proto`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Version {
    /// As access logs write it: `HTTP/1.1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}
