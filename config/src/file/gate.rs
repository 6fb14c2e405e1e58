//! What a colour must show before a rollout lets clients on it.

use super::HeaderMatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a new colour must show before a rollout lets clients on it, beside its health probe.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// Connections to each of its endpoints that are opened and kept for its first clients; 0 to 64. The
    /// endpoint must serve as many at a time. Nothing is kept where `keepalive_timeout_ms` is 0.
    /// Default 4.
    #[schemars(range(min = 0, max = 64))]
    pub warm_connections: u32,
    /// Requests that each of its endpoints must answer as told, as if a client had asked; 64 at most.
    pub requests: Vec<GateRequest>,
}

/// A request of a gate. One for each class of tenants is a good start.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateRequest {
    /// Unique name in the cluster, 1 to 64 of `[a-z0-9_-]`: what a failure is told by.
    pub name: String,
    /// Id of the tenant that it is sent for. Absent: of none.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Method. Default `GET`.
    #[serde(default = "GateRequest::method")]
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Host header. Default: the endpoint's address.
    #[serde(default)]
    pub host: Option<String>,
    /// Further headers, 32 at most.
    #[serde(default)]
    pub headers: Vec<HeaderMatch>,
    /// Wanted status; 200 to 599. Default 200.
    #[serde(default = "GateRequest::status")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Text that must stand in the first 64 KiB of the answer's body. Absent: any.
    #[serde(default)]
    pub body_contains: Option<String>,
    /// SHA-256 of the answer's whole body, as 64 hexadecimal digits. Absent: any.
    #[serde(default)]
    pub body_sha256: Option<String>,
    /// Longest time to the end of the answer, connecting included, in milliseconds; 1 to 60000.
    /// Default 5000.
    #[serde(default = "GateRequest::latency_ms_max")]
    #[schemars(range(min = 1, max = 60000))]
    pub latency_ms_max: u32,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            warm_connections: 4,
            requests: Vec::new(),
        }
    }
}

impl GateRequest {
    fn method() -> String {
        "GET".into()
    }
    fn status() -> u16 {
        200
    }
    fn latency_ms_max() -> u32 {
        5_000
    }
}
