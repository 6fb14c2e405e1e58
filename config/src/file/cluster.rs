use super::Gate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A named set of endpoints, in up to two colours.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Unique name, 1 to 64 of `[a-z0-9_-]`: a metric label.
    pub name: String,
    /// Which colour takes the traffic: `blue` or `green`. Default `blue`. Once a rollout has moved traffic of
    /// this cluster, its record in the store decides and this key no longer does; `hubctl rollout status` shows it.
    #[serde(default)]
    pub active: Colour,
    /// Addresses by colour; the active colour has at least one.
    pub endpoints: Endpoints,
    /// How an endpoint is picked: `round_robin` or `peak_ewma` (the better of two drawn at random).
    /// Default `peak_ewma`.
    #[serde(default)]
    pub balance: Balance,
    /// TLS to the endpoints. Absent: plain HTTP.
    #[serde(default)]
    pub tls: Option<UpstreamTls>,
    /// Active health check. Absent: every endpoint counts as healthy.
    #[serde(default)]
    pub health: Option<Health>,
    /// What a colour must show before a rollout lets clients on it.
    #[serde(default)]
    pub gate: Gate,
    /// Longest wait for a connection (TLS included), in milliseconds; 1 to 60000. Default 1000.
    #[serde(default = "Cluster::connect_timeout_ms")]
    #[schemars(range(min = 1, max = 60000))]
    pub connect_timeout_ms: u32,
    /// Longest wait for the first byte of the answer once the request is sent, in milliseconds; 1 to
    /// 3600000, and not more than `idle_timeout_ms`. Default 30000.
    #[serde(default = "Cluster::first_byte_timeout_ms")]
    #[schemars(range(min = 1, max = 3600000))]
    pub first_byte_timeout_ms: u32,
    /// Longest pause between two reads of the answer's body or two writes of the request's, in
    /// milliseconds; 1 to 86400000. Default 60000. No bound on a WebSocket once it is open, which
    /// `route.websocket` has.
    #[serde(default = "Cluster::idle_timeout_ms")]
    #[schemars(range(min = 1, max = 86400000))]
    pub idle_timeout_ms: u32,
    /// Longest time for a request in all, in milliseconds; 0 to 86400000. 0 means no such bound,
    /// which streams (SSE) need. Default 0. No bound on a WebSocket once it is open, which
    /// `route.websocket` has.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400000))]
    pub total_timeout_ms: u32,
    /// Longest time that an unused connection is kept, in milliseconds; 0 to 3600000. 0 turns reuse
    /// off. Default 50000.
    #[serde(default = "Cluster::keepalive_timeout_ms")]
    #[schemars(range(min = 0, max = 3600000))]
    pub keepalive_timeout_ms: u32,
    /// Tries on another endpoint when a connection cannot be made; 0 or 1. Default 1.
    #[serde(default = "Cluster::connect_retries")]
    #[schemars(range(min = 0, max = 1))]
    pub connect_retries: u8,
    /// Databases that the cluster's releases work on, and the schema that each colour can run on. Absent:
    /// switches and migrations do not know of each other. Needs `store.directory`.
    #[serde(default)]
    pub schema: Option<Schema>,
    /// Link-local, metadata and similar addresses (169.254.0.0/16, fe80::/10, 0.0.0.0 ...) are
    /// refused as endpoints unless this is true. Default false.
    #[serde(default)]
    pub allow_link_local: bool,
}

/// One of the two versions of an application that a cluster can hold.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Deserialize,
    Serialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Colour {
    /// The first.
    #[default]
    Blue,
    /// The second.
    Green,
}

impl Colour {
    /// The one that this one is not.
    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }
}

/// Addresses by colour: `host:port` (IPv4, `[IPv6]`, or a name that is looked up at load), or
/// `unix:/path`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoints {
    /// The blue ones.
    pub blue: Vec<String>,
    /// The green ones.
    pub green: Vec<String>,
}

/// How an endpoint is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// Power of two choices by peak EWMA of latency times requests in flight.
    #[default]
    PeakEwma,
}

/// TLS to an upstream. The endpoint's certificate is always verified.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTls {
    /// Name that is sent as SNI and that the certificate must carry. Never empty.
    pub server_name: String,
    /// PEM file of the authorities to trust. Absent: the system's.
    #[serde(default)]
    pub ca_file: Option<String>,
}

/// An active health check.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// `tcp`: a connection can be made. `http`: GET `path` answers `status`. Default `tcp`.
    #[serde(default)]
    pub kind: HealthKind,
    /// Path of the HTTP check. Default `/healthz`.
    #[serde(default = "Health::path")]
    pub path: String,
    /// Host header of the HTTP check. Default: the endpoint's address.
    #[serde(default)]
    pub host: Option<String>,
    /// Status that an HTTP check wants; 100 to 599. Default 200.
    #[serde(default = "Health::status")]
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// Text that must stand in the first 64 KiB of an HTTP check's answer, as its bytes come. Absent: any
    /// body is fine, and none is read.
    #[serde(default)]
    pub body_contains: Option<String>,
    /// Pause between two checks, in milliseconds; 10 to 3600000. Default 2000.
    #[serde(default = "Health::interval_ms")]
    #[schemars(range(min = 10, max = 3600000))]
    pub interval_ms: u32,
    /// Longest wait for a check, in milliseconds; 10 to 60000. Default 1000.
    #[serde(default = "Health::timeout_ms")]
    #[schemars(range(min = 10, max = 60000))]
    pub timeout_ms: u32,
    /// Successes in a row after which an endpoint is healthy again; 1 to 100. Default 2.
    #[serde(default = "Health::healthy_after")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy_after: u8,
    /// Failures in a row after which an endpoint is unhealthy; 1 to 100. Default 3.
    #[serde(default = "Health::unhealthy_after")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_after: u8,
}

/// Databases that a cluster's releases work on, and what each colour can run on.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Databases or shards, as `hubctl migrate --scope` names them. All of them have to be where a colour
    /// needs them. 1 to 256, each 1 to 255 bytes.
    pub scopes: Vec<String>,
    /// What blue can run on. Needed where blue has endpoints, unless `from_health`.
    #[serde(default)]
    pub blue: Option<SchemaRange>,
    /// What green can run on. Needed where green has endpoints, unless `from_health`.
    #[serde(default)]
    pub green: Option<SchemaRange>,
    /// Asks each endpoint instead: the body of its health check's answer is JSON that holds
    /// `{"schema": {"min": 3, "max": 5}}`. Needs a health check of kind `http`. Default false.
    #[serde(default)]
    pub from_health: bool,
}

/// The schema that a release can run on, by numbers of migration steps.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaRange {
    /// The step that the release needs; 1 to 9999.
    #[schemars(range(min = 1, max = 9999))]
    pub min: u32,
    /// The newest step that the release knows; 1 to 9999, and at least `min`. Expand steps behind it leave
    /// the release in peace, and the first contract step behind it does not.
    #[schemars(range(min = 1, max = 9999))]
    pub max: u32,
}

/// What a health check does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthKind {
    /// Connects.
    #[default]
    Tcp,
    /// Asks for a path.
    Http,
}

impl Cluster {
    fn connect_timeout_ms() -> u32 {
        1_000
    }
    fn first_byte_timeout_ms() -> u32 {
        30_000
    }
    fn idle_timeout_ms() -> u32 {
        60_000
    }
    fn keepalive_timeout_ms() -> u32 {
        50_000
    }
    fn connect_retries() -> u8 {
        1
    }
}

impl Health {
    fn path() -> String {
        "/healthz".into()
    }
    fn status() -> u16 {
        200
    }
    fn interval_ms() -> u32 {
        2_000
    }
    fn timeout_ms() -> u32 {
        1_000
    }
    fn healthy_after() -> u8 {
        2
    }
    fn unhealthy_after() -> u8 {
        3
    }
}
