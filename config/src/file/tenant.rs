use super::Colour;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where tenants come from beside this file.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tenants {
    /// JSON Lines file, one `tenant` object a line, with the keys of `[[tenant]]`. An id or slug that
    /// is in both places, or twice in one, is an error.
    pub directory: Option<String>,
    /// Quota of a tenant that sets none of its own, in requests a second; 1 to 1000000000. Absent:
    /// unlimited.
    #[schemars(range(min = 1, max = 1000000000))]
    pub default_requests_per_second: Option<u32>,
    /// Requests at once of a tenant that sets none of its own; 1 to 1000000000. Absent: its requests
    /// a second.
    #[schemars(range(min = 1, max = 1000000000))]
    pub default_burst: Option<u32>,
    /// Requests in flight of a tenant that sets none of its own; 1 to 1000000. Absent: unlimited.
    #[schemars(range(min = 1, max = 1000000))]
    pub default_in_flight_max: Option<u32>,
    /// WebSockets open at a time of a tenant that sets none of its own, over all routes, in one process; 1 to
    /// 1000000. Absent: unlimited.
    #[schemars(range(min = 1, max = 1000000))]
    pub default_websockets_max: Option<u32>,
}

/// A tenant: one GoHighLevel sub-account.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// The `location_id`: 1 to 64 of `[A-Za-z0-9_-]`, case-sensitive.
    pub id: String,
    /// Unique lower-case alias for subdomains: one DNS label of `[a-z0-9-]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// A disabled tenant is answered as if it did not exist. Default true.
    #[serde(default = "Tenant::enabled", skip_serializing_if = "Clone::clone")]
    pub enabled: bool,
    /// Quota, in requests a second; 1 to 1000000000. Default: `tenants.default_requests_per_second`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000000))]
    pub requests_per_second: Option<u32>,
    /// Requests at once; 1 to 1000000000. Default: `tenants.default_burst`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000000))]
    pub burst: Option<u32>,
    /// Requests in flight at a time; 1 to 1000000. Default: `tenants.default_in_flight_max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub in_flight_max: Option<u32>,
    /// WebSockets open at a time, over all routes, in one process; 1 to 1000000. Default:
    /// `tenants.default_websockets_max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub websockets_max: Option<u32>,
    /// Overrides a cluster's active colour for this tenant: cluster name to colour.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub colours: BTreeMap<String, Colour>,
    /// Overlay on routes: route name to the cluster that serves this tenant instead.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, String>,
}

impl Tenant {
    fn enabled() -> bool {
        true
    }
}
