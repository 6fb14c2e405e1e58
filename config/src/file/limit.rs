use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds of the limiter.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Keys (addresses, header values ...) that the limiter remembers; 1024 to 16777216. 16 bytes each.
    /// Where there are more, a new key takes the place of the one of its set of eight that has the least
    /// of its budget used. Default 262144.
    #[schemars(range(min = 1024, max = 16777216))]
    pub keys_max: u32,
    /// Names of limits that every request is held to before anything else is known of it. They must
    /// have `by = "address"`.
    pub address: Vec<String>,
    /// Answer with `RateLimit-*` headers. Default true.
    pub headers: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            keys_max: 262_144,
            address: Vec::new(),
            headers: true,
        }
    }
}

/// One rate limit (GCRA): `requests` per `per_ms`, and `burst` at once.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Unique name, 1 to 64 of `[a-z0-9_-]`.
    pub name: String,
    /// What has a budget of its own: `address`, `tenant`, `route`, `identity`, or `header:NAME`.
    pub by: String,
    /// Requests per period; 1 to 1000000000.
    #[schemars(range(min = 1, max = 1000000000))]
    pub requests: u32,
    /// The period, in milliseconds; 1 to 86400000. Default 1000.
    #[serde(default = "Limit::per_ms")]
    #[schemars(range(min = 1, max = 86400000))]
    pub per_ms: u32,
    /// Requests that may come at once; 1 to 1000000000. Default: `requests`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000000000))]
    pub burst: Option<u32>,
}

impl Limit {
    fn per_ms() -> u32 {
        1_000
    }
}
