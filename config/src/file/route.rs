use super::WebSocket;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A match and what happens to requests that it catches.
///
/// Precedence: host (exact over `*.` wildcard over none), then path (exact over template over
/// prefix, longer over shorter), then method (listed over any), then more header conditions. Two
/// routes that match exactly the same requests are an error.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Unique name, 1 to 64 of `[a-z0-9_-]`: a metric label.
    pub name: String,
    /// Hosts: exact (`api.example.com`) or one leading wildcard label (`*.example.com`). Empty: any.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The path to match.
    pub path: PathMatch,
    /// Methods. Empty: any.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Headers that must be there.
    #[serde(default)]
    pub headers: Vec<HeaderMatch>,
    /// Name of the cluster that serves it.
    pub cluster: String,
    /// Where the tenant comes from. Absent: the route has no tenant.
    #[serde(default)]
    pub tenant: Option<TenantRule>,
    /// Plugin instances by name, run in this order.
    #[serde(default)]
    pub plugins: Vec<String>,
    /// Names of limits that its requests are held to.
    #[serde(default)]
    pub limits: Vec<String>,
    /// Largest request body, in bytes; 0 to 1099511627776. Default 10485760 (10 MiB).
    #[serde(default = "Route::body_bytes_max")]
    #[schemars(range(min = 0, max = 1099511627776_u64))]
    pub body_bytes_max: u64,
    /// How WebSockets are taken. Absent: not at all, and an upgrade is forwarded as a plain request.
    #[serde(default)]
    pub websocket: Option<WebSocket>,
    /// While a rollout has clients on a new colour: send a request of an idempotent method (RFC 9110,
    /// section 9.2.2) that failed there, with no body sent yet, once to the old colour. Failed means no
    /// connection, no answer, or 5xx: the origin may have acted, so its idempotent methods must be so.
    /// Default false.
    #[serde(default)]
    pub retry_other_colour: bool,
    /// Origins that browsers may call from: refusals then carry `Access-Control-Allow-Origin`, so
    /// that the page can read why. `*` for any. Empty: none.
    #[serde(default)]
    pub cors_origins: Vec<String>,
}

/// How a path is matched. Exactly one of the three.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// This path and everything below it: `/api` matches `/api` and `/api/x`, not `/apix`.
    Prefix(String),
    /// This path alone.
    Exact(String),
    /// Segments, of which `{name}` matches any one, and a last `{*name}` any rest:
    /// `/locations/{location_id}/contacts`.
    Template(String),
}

/// A header that must be there.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// Name, in any case.
    pub name: String,
    /// Exact value. Absent: any value.
    #[serde(default)]
    pub value: Option<String>,
}

/// Where a route's tenant comes from.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantRule {
    /// Places a tenant may be named in. All that are there must agree; a verified credential's own
    /// tenant always counts. At least one.
    pub sources: Vec<TenantSource>,
    /// A request without a tenant is refused. Default true.
    #[serde(default = "TenantRule::required")]
    pub required: bool,
    /// The credential must name the tenant; a header or path alone is not believed. Default: true
    /// where the route has an identify plugin (`jwt`, `api_key`), else false.
    #[serde(default)]
    pub from_credential: Option<bool>,
}

/// One place a tenant may be named in.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantSource {
    /// The credential that an identify plugin verified.
    Credential,
    /// A header of this name.
    Header(String),
    /// The tenant's slug, as the label in front of this domain: `example.com` for
    /// `acme.example.com`.
    Subdomain(String),
    /// A segment of the route's path template: `location_id` for `/locations/{location_id}`.
    Path(String),
    /// A parameter of the query.
    Query(String),
}

/// A configured plugin.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// Unique name, 1 to 64 of `[a-z0-9_-]`: what routes say.
    pub name: String,
    /// Kind: `jwt`, `api_key`, `request_id`, `headers`.
    pub kind: String,
    /// The kind's own settings; see `docs/plugins.md`.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
}

impl Route {
    fn body_bytes_max() -> u64 {
        10 << 20
    }
}

impl TenantRule {
    fn required() -> bool {
        true
    }
}
