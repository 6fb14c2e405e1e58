//! The answers that the gateway gives itself. Status codes come from [`Reason`]'s table and nowhere
//! else.

use hub_config::runtime::Cors;
use hub_core::{Edit, HeaderName, HeaderValue, Reason, Refusal, RequestId, StatusCode};

/// A refusal as the client will read it, whatever the lane and the HTTP version.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Complete but for `Date` and `Connection`, which belong to the wire.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: String,
}

/// What an answer depends on beside the refusal itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'a> {
    pub(crate) request_id: RequestId,
    /// The request's `Origin`, if it has one.
    pub(crate) origin: Option<&'a [u8]>,
    /// The route's CORS setting; `None` where no route matched.
    pub(crate) cors: Option<&'a Cors>,
    /// What stages and plugins asked for.
    pub(crate) edits: &'a [Edit],
    /// HEAD gets the headers alone.
    pub(crate) head_only: bool,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Answer {
    /// The answer to a refused request.
    pub(crate) fn to(refusal: &Refusal, around: Circumstances<'_>) -> Self {
        let Refusal {
            reason,
            retry_after_seconds,
            ..
        } = refusal;
        let mut id = [0; 36];
        let id = around.request_id.encode(&mut id);
        // Nothing in here comes from the client, so nothing needs escaping.
        let body = format!(
            "{{\"error\":{{\"code\":\"{}\",\"message\":\"{}\",\"request_id\":\"{id}\"}}}}\n",
            reason.code(),
            message(*reason),
        );
        let mut headers = vec![
            (
                http::header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            ),
            (
                http::header::CONTENT_LENGTH,
                HeaderValue::from(body.len() as u64),
            ),
            (
                http::header::CACHE_CONTROL,
                HeaderValue::from_static("no-store"),
            ),
            (
                REQUEST_ID,
                HeaderValue::from_str(id).expect("a UUID is visible ASCII"),
            ),
        ];
        if let Some(seconds) = retry_after_seconds {
            headers.push((http::header::RETRY_AFTER, HeaderValue::from(*seconds)));
        }
        if let Some(allowed) = around
            .cors
            .and_then(|cors| allow_origin(cors, around.origin))
        {
            headers.push((http::header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed));
            headers.push((http::header::VARY, HeaderValue::from_static("origin")));
            headers.push((
                http::header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("x-request-id, retry-after, ratelimit-limit, ratelimit-remaining, ratelimit-reset"),
            ));
        }
        apply(&mut headers, around.edits);
        Self {
            status: reason.status(),
            headers,
            body: if around.head_only {
                String::new()
            } else {
                body
            },
        }
    }

    /// The answer as HTTP/1.1 bytes.
    pub(crate) fn to_http1(&self, close: bool) -> Vec<u8> {
        use std::fmt::Write;
        let mut head = String::with_capacity(512);
        // Writing to a String cannot fail.
        let _infallible = write!(
            head,
            "HTTP/1.1 {} {}\r\nDate: {}\r\n",
            self.status.as_str(),
            self.status.canonical_reason().unwrap_or(""),
            httpdate::fmt_http_date(std::time::SystemTime::now()),
        );
        let mut bytes = head.into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(if close {
            b"Connection: close\r\n\r\n".as_slice()
        } else {
            b"\r\n"
        });
        bytes.extend_from_slice(self.body.as_bytes());
        bytes
    }
}

/// What a page from `origin` may read, as `Access-Control-Allow-Origin`.
fn allow_origin(cors: &Cors, origin: Option<&[u8]>) -> Option<HeaderValue> {
    let origin = origin?;
    match cors {
        Cors::Off => None,
        Cors::Any => Some(HeaderValue::from_static("*")),
        Cors::Origins(origins) => origins.iter().find(|o| o.as_bytes() == origin).cloned(),
    }
}

fn apply(headers: &mut Vec<(HeaderName, HeaderValue)>, edits: &[Edit]) {
    for edit in edits {
        match edit {
            Edit::Set(name, value) => {
                headers.retain(|(n, _)| n != name);
                headers.push((name.clone(), value.clone()));
            }
            Edit::Append(name, value) => headers.push((name.clone(), value.clone())),
            Edit::Remove(name) => headers.retain(|(n, _)| n != name),
        }
    }
}

/// One safe sentence for the client. It says what the sender can do, and nothing about tenants,
/// upstreams or configuration.
fn message(reason: Reason) -> &'static str {
    match reason {
        Reason::Unauthenticated => "Send a valid credential.",
        Reason::AddressLimited | Reason::TenantLimited | Reason::RouteLimited => {
            "Too many requests; wait as long as Retry-After says."
        }
        Reason::OriginRefused => "This page may not connect here.",
        Reason::TenantWebSockets => "Too many connections are open; close some first.",
        Reason::TenantBusy => "Too many requests at once; finish some first.",
        Reason::TenantMismatch => "The request does not speak for this location.",
        Reason::TenantUnknown => "There is no such location.",
        Reason::TenantMissing => "Name the location.",
        Reason::TenantMalformed => "The location id is malformed.",
        Reason::NoRoute => "There is nothing here.",
        Reason::MethodNotAllowed => "This method is not allowed here.",
        Reason::BodyTooLarge => "The body is too large.",
        Reason::NoEndpoint | Reason::TooManyConnections | Reason::TooManyWebSockets => {
            "The service cannot take the request now; try again soon."
        }
        Reason::ConnectFailed | Reason::UpstreamFailed => "The service failed to answer.",
        Reason::ConnectTimeout | Reason::UpstreamTimeout | Reason::TotalTimeout => {
            "The service took too long to answer."
        }
        Reason::Internal => "Something went wrong on our side.",
        Reason::Forbidden => "This is not allowed.",
        Reason::HeadTimeout | Reason::BodyTimeout => "The request took too long to arrive.",
        Reason::HeadTooLarge => "The headers are too large.",
        Reason::UriTooLong => "The address is too long.",
        Reason::BadSyntax
        | Reason::BadLineEnd
        | Reason::BadHeader
        | Reason::BadVersion
        | Reason::BadMethod
        | Reason::BadHost
        | Reason::BadPath
        | Reason::BadFraming
        | Reason::BadChunk
        | Reason::BadProxyHeader
        | Reason::BadExpectation => "The request is malformed.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(edits: &[Edit]) -> Circumstances<'_> {
        Circumstances {
            request_id: RequestId::new(1, [2; 10]),
            origin: None,
            cors: None,
            edits,
            head_only: false,
        }
    }

    #[test]
    fn every_refusal_is_json_with_its_code_and_request_id() {
        for reason in Reason::ALL {
            let answer = Answer::to(&Refusal::new(*reason), around(&[]));
            let json: serde_json::Value = serde_json::from_str(&answer.body).expect("valid JSON");
            assert_eq!(json["error"]["code"], reason.code());
            assert_eq!(json["error"]["request_id"].as_str().map(str::len), Some(36));
            assert_eq!(answer.status, reason.status());
        }
    }

    #[test]
    fn only_listed_origins_may_read_a_refusal() {
        let cors = Cors::Origins(vec![HeaderValue::from_static("https://app.example")]);
        for (origin, allowed) in [
            (Some(b"https://app.example".as_slice()), true),
            (Some(b"https://evil.example".as_slice()), false),
            (None, false),
        ] {
            let mut around = around(&[]);
            around.cors = Some(&cors);
            around.origin = origin;
            let answer = Answer::to(&Refusal::new(Reason::NoRoute), around);
            let has = answer
                .headers
                .iter()
                .any(|(name, _)| name == http::header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(has, allowed, "{origin:?}");
        }
    }

    #[test]
    fn head_gets_the_length_but_not_the_body() {
        let mut around = around(&[]);
        around.head_only = true;
        let bytes = Answer::to(&Refusal::new(Reason::NoRoute), around).to_http1(false);
        let text = String::from_utf8(bytes).expect("ASCII");
        assert!(text.ends_with("\r\n\r\n"));
        assert!(!text.contains("content-length: 0\r\n"));
    }
}
