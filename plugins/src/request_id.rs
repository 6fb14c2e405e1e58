//! Tells upstream and client the id under which the gateway logs a request.

use crate::settings::{Scope, Settings};
use crate::{Plugin, PluginContext, Step, Verdict};
use hub_core::{Edit, HeaderName, HeaderValue, RequestId, RequestView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the kind `request_id`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Header that carries the gateway's id to the upstream and to the client, where it replaces what
    /// is there. Default `X-Request-Id`.
    pub header: String,
    /// Pass an id that the client sent under `header` on to the upstream as `X-Parent-Request-Id`: one
    /// value of 1 to 128 visible ASCII characters, anything else is ignored. The gateway's own id
    /// stays the one in `header`. Default false.
    pub accept_incoming: bool,
}

/// The plugin.
#[derive(Debug)]
pub struct RequestIdHeaders {
    header: HeaderName,
    accept_incoming: bool,
}

const PARENT: HeaderName = HeaderName::from_static("x-parent-request-id");
const INCOMING_MAX: usize = 128;

impl Default for Config {
    fn default() -> Self {
        Self {
            header: "X-Request-Id".into(),
            accept_incoming: false,
        }
    }
}

impl Settings for Config {
    type Plugin = RequestIdHeaders;

    fn build(self, _name: &str, scope: &mut Scope) -> Option<RequestIdHeaders> {
        let header = scope.header_name("header", &self.header)?;
        if header == PARENT {
            scope.add(
                "header",
                "`X-Parent-Request-Id` carries the client's id; use another name",
            );
            return None;
        }
        Some(RequestIdHeaders {
            header,
            accept_incoming: self.accept_incoming,
        })
    }
}

// === impl RequestIdHeaders ===

impl RequestIdHeaders {
    /// The client's id: exactly one, short, and safe to print.
    fn incoming(&self, request: &RequestView<'_>) -> Option<HeaderValue> {
        if !self.accept_incoming {
            return None;
        }
        let mut values = request.headers.get_all(self.header.as_str());
        let (value, another) = (values.next()?, values.next());
        let fits = another.is_none()
            && (1..=INCOMING_MAX).contains(&value.len())
            && value.iter().all(u8::is_ascii_graphic);
        fits.then(|| HeaderValue::from_bytes(value).ok())?
    }
}

impl Plugin for RequestIdHeaders {
    fn step(&self) -> Step {
        Step::Request
    }

    fn on_request(&self, request: &RequestView<'_>, context: &mut PluginContext<'_>) -> Verdict {
        let id = encode(*request.request_id);
        let edits = &mut *context.edits;
        // Without this a client could claim a parent that nobody checked.
        edits.request.push(match self.incoming(request) {
            Some(parent) => Edit::Set(PARENT, parent),
            None => Edit::Remove(PARENT),
        });
        edits
            .request
            .push(Edit::Set(self.header.clone(), id.clone()));
        edits.response.push(Edit::Set(self.header.clone(), id));
        Verdict::Continue
    }
}

fn encode(id: RequestId) -> HeaderValue {
    let mut buffer = [0; 36];
    HeaderValue::from_str(id.encode(&mut buffer)).expect("a request id is hexadecimal and hyphens")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Request, problems_of};
    use serde_json::json;

    const ID: &str = "00000000-0000-7000-8000-000000000000";

    fn edits_for(config: serde_json::Value, request: &Request) -> (Vec<Edit>, Vec<Edit>) {
        let (verdict, edits) = request.run(&*crate::testing::build("request_id", config));
        assert_eq!(verdict, Verdict::Continue);
        (edits.request, edits.response)
    }

    fn set(name: &'static str, value: &str) -> Edit {
        Edit::Set(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )
    }

    #[test]
    fn the_gateways_id_goes_up_and_down_and_replaces_the_clients() {
        let request = Request::new().header("X-Request-Id", "mine");
        let (up, down) = edits_for(json!({}), &request);
        assert_eq!(up, [Edit::Remove(PARENT), set("x-request-id", ID)]);
        assert_eq!(down, [set("x-request-id", ID)]);
    }

    #[test]
    fn the_header_is_the_configured_one() {
        let (up, down) = edits_for(json!({ "header": "X-Trace" }), &Request::new());
        assert_eq!(up[1], set("x-trace", ID));
        assert_eq!(down, [set("x-trace", ID)]);
    }

    #[test]
    fn an_accepted_incoming_id_becomes_the_parent() {
        let request = Request::new().header("x-request-ID", "from/the~edge");
        let (up, _) = edits_for(json!({ "accept_incoming": true }), &request);
        assert_eq!(
            up,
            [
                set("x-parent-request-id", "from/the~edge"),
                set("x-request-id", ID)
            ]
        );
    }

    #[test]
    fn an_incoming_id_that_is_long_doubled_or_not_visible_is_ignored() {
        let long = "a".repeat(129);
        let requests = [
            Request::new().header("X-Request-Id", &long),
            Request::new().header("X-Request-Id", "a b"),
            Request::new().header("X-Request-Id", "é"),
            Request::new().header("X-Request-Id", ""),
            Request::new()
                .header("X-Request-Id", "a")
                .header("x-request-id", "b"),
            Request::new(),
        ];
        for request in requests {
            let (up, _) = edits_for(json!({ "accept_incoming": true }), &request);
            assert_eq!(up[0], Edit::Remove(PARENT), "{request:?}");
        }
    }

    #[test]
    fn headers_that_are_not_free_are_refused_at_load() {
        for name in [
            "X-Forwarded-For",
            "host",
            "two words",
            "x-parent-request-id",
        ] {
            assert_eq!(
                problems_of("request_id", json!({ "header": name })),
                ["header"]
            );
        }
    }
}
