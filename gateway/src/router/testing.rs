//! Requests for tests of routing.

use hub_core::{Client, HeaderField, Headers, Method, RequestId, RequestView, Scheme, Version};
use std::net::{Ipv4Addr, SocketAddr};

/// A request that owns its parts.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) path_raw: Option<String>,
    pub(crate) query: Option<String>,
    pub(crate) method: Method,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn new(host: &str, path: &str) -> Self {
        Self {
            host: host.into(),
            path: path.into(),
            path_raw: None,
            query: None,
            method: Method::GET,
            headers: Vec::new(),
        }
    }

    pub(crate) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// What the client wrote where `path` is its normal form.
    pub(crate) fn raw(mut self, path_raw: &str) -> Self {
        self.path_raw = Some(path_raw.into());
        self
    }

    pub(crate) fn query(mut self, query: &str) -> Self {
        self.query = Some(query.into());
        self
    }

    /// Looks at the request as a stage does.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&RequestView<'_>) -> T) -> T {
        let fields: Vec<HeaderField<'_>> = self
            .headers
            .iter()
            .map(|(name, value)| HeaderField {
                name: name.as_bytes(),
                value: value.as_bytes(),
            })
            .collect();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        look(&RequestView {
            method: &self.method,
            version: Version::Http11,
            scheme: Scheme::Http,
            host: &self.host,
            path: &self.path,
            path_raw: self.path_raw.as_deref().unwrap_or(&self.path),
            query: self.query.as_deref(),
            headers: Headers::new(&fields),
            client: &Client {
                address: peer.ip(),
                peer,
            },
            request_id: &RequestId::new(0, [0; 10]),
        })
    }
}
