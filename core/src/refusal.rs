//! How the gateway says no: one table of reasons, each with its status and its stable code.

use http::StatusCode;
use std::borrow::Cow;

/// Declares [`Reason`] from one table, so that status, code and list cannot drift apart.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $status:literal $code:literal $close:ident,)+) => {
        /// Why a request was refused or failed. The code is stable: clients and alerts match on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason, in the order of the stages.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The machine-readable code: label of the metric, field of the log, body of the answer.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The HTTP status that the client sees.
            pub fn status(self) -> StatusCode {
                let status: u16 = match self { $(Self::$name => $status,)+ };
                StatusCode::from_u16(status).expect("the table holds valid status codes only")
            }

            /// True where the connection cannot be trusted to be in step and is closed after the
            /// answer.
            pub fn closes(self) -> bool {
                match self { $(Self::$name => reasons!(@$close),)+ }
            }

            /// What an operator reads in `docs/` and in `explain`.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
    (@close) => { true };
    (@keep) => { false };
}

reasons! {
    // accept: the head, on HTTP/1
    /// The bytes are not an HTTP request.
    BadSyntax = 400 "bad_syntax" close,
    /// A line of the head ended in a bare LF, or a CR stood alone.
    BadLineEnd = 400 "bad_line_end" close,
    /// A header name or value holds a byte that HTTP does not allow, or a line is folded.
    BadHeader = 400 "bad_header" close,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    BadVersion = 505 "bad_version" close,
    /// The method is not a token, is too long, or is one the gateway never forwards (CONNECT, TRACE).
    BadMethod = 405 "bad_method" close,
    /// The Host header is missing, doubled, malformed, or differs from the absolute URI.
    BadHost = 400 "bad_host" close,
    /// The request target is malformed, or its path holds a `..` segment, an encoded slash, backslash or NUL, or parameters (`;x`) without which it would take another route.
    BadPath = 400 "bad_path" close,
    /// Content-Length and Transfer-Encoding together, a doubled or malformed one of either, or Transfer-Encoding on HTTP/1.0.
    BadFraming = 400 "bad_framing" close,
    /// A chunk of the body is malformed.
    BadChunk = 400 "bad_chunk" close,
    /// The PROXY protocol header is malformed, or missing where the listener demands one.
    BadProxyHeader = 400 "bad_proxy_header" close,
    /// The head did not arrive before its deadline.
    HeadTimeout = 408 "head_timeout" close,
    /// The head, or one header of it, is larger than allowed, or there are too many headers.
    HeadTooLarge = 431 "head_too_large" close,
    /// The request target is longer than allowed.
    UriTooLong = 414 "uri_too_long" close,
    /// The expectation is not 100-continue.
    BadExpectation = 417 "bad_expectation" close,
    /// The gateway, or one address, has as many connections as allowed.
    TooManyConnections = 503 "too_many_connections" close,

    // route
    /// No route matches host, path, method and headers.
    NoRoute = 404 "no_route" keep,
    /// Routes match the path, but none with this method.
    MethodNotAllowed = 405 "method_not_allowed" keep,

    // limits
    /// This address sends faster than allowed.
    AddressLimited = 429 "address_limited" keep,
    /// This tenant sends faster than its quota.
    TenantLimited = 429 "tenant_limited" keep,
    /// The route, or the key that it limits by, is used faster than allowed.
    RouteLimited = 429 "route_limited" keep,
    /// This tenant has as many requests in flight as allowed.
    TenantBusy = 503 "tenant_busy" keep,

    // WebSockets
    /// A page of this origin may not open a WebSocket on this route.
    OriginRefused = 403 "origin_refused" keep,
    /// The route has as many WebSockets open as allowed.
    TooManyWebSockets = 503 "too_many_websockets" keep,
    /// This tenant has as many WebSockets open as allowed.
    TenantWebSockets = 429 "tenant_websockets" keep,

    // identify and tenant
    /// The route demands a credential and none was valid.
    Unauthenticated = 401 "unauthenticated" keep,
    /// The tenant named by the request is not a well-formed location id.
    TenantMalformed = 400 "tenant_malformed" keep,
    /// No tenant is named where the route expects it.
    TenantMissing = 400 "tenant_missing" keep,
    /// The request names two different tenants, or one that its credential does not speak for.
    TenantMismatch = 403 "tenant_mismatch" keep,
    /// No such tenant, or it is disabled.
    TenantUnknown = 404 "tenant_unknown" keep,

    // plugins
    /// A plugin refused the request.
    Forbidden = 403 "forbidden" keep,

    // body
    /// The body is larger than the route allows.
    BodyTooLarge = 413 "body_too_large" close,
    /// The body did not arrive in time.
    BodyTimeout = 408 "body_timeout" close,

    // pick and forward
    /// No endpoint of the cluster is usable.
    NoEndpoint = 503 "no_endpoint" close,
    /// The upstream could not be reached.
    ConnectFailed = 502 "connect_failed" close,
    /// The upstream did not accept the connection in time.
    ConnectTimeout = 504 "connect_timeout" close,
    /// The upstream did not answer in time.
    UpstreamTimeout = 504 "upstream_timeout" close,
    /// The upstream broke the connection or answered with something that is not HTTP.
    UpstreamFailed = 502 "upstream_failed" close,
    /// The request took longer in all than the cluster allows.
    TotalTimeout = 504 "total_timeout" close,
    /// A fault of the gateway itself.
    Internal = 500 "internal" close,
}

/// A decision not to forward a request. Only here, and in the table above, is a status chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which row of the table.
    pub reason: Reason,
    /// Whole seconds after which trying again may help, for `Retry-After`.
    pub retry_after_seconds: Option<u32>,
    /// More for the log and `explain`; never shown to the client.
    pub detail: Option<Cow<'static, str>>,
}

impl Refusal {
    /// A refusal that needs no more words than its code.
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            retry_after_seconds: None,
            detail: None,
        }
    }

    /// Adds what the log should say beside the code.
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds `Retry-After`.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_is_unique_and_a_metric_label() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(
            codes
                .iter()
                .all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
    }

    #[test]
    fn every_reason_is_an_error_and_says_what_it_means() {
        for reason in Reason::ALL {
            let status = reason.status();
            assert!(
                status.is_client_error() || status.is_server_error(),
                "{reason:?}"
            );
            assert!(!reason.meaning().is_empty());
        }
    }
}
