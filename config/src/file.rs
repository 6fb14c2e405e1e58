//! What the operator types. Strict: an unknown key is an error, and every key says its unit, range
//! and default. The JSON Schema in `config/schema.json` is generated from these types.
//!
//! Types here are only shapes. What they mean, and whether it holds together, is decided by
//! [`crate::check`]; the program runs on [`crate::runtime`] and never sees these.

mod cluster;
mod gate;
mod limit;
mod listener;
mod process;
mod route;
mod tenant;
mod websocket;

pub use cluster::{
    Balance, Cluster, Colour, Endpoints, Health, HealthKind, Schema, SchemaRange, UpstreamTls,
};
pub use gate::{Gate, GateRequest};
pub use limit::{Limit, Limits};
pub use listener::{Certificate, Listener, ProxyProtocol, Tls, TlsVersion};
pub use process::{AccessLog, Admin, Gateway, LogLevel, Metrics, Store};
pub use route::{HeaderMatch, PathMatch, Plugin, Route, TenantRule, TenantSource};
pub use tenant::{Tenant, Tenants};
pub use websocket::{Compression, OnSwitch, OnUpgrade, WebSocket};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of the EnterpriseHub Gateway.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The process as a whole.
    pub gateway: Gateway,
    /// The admin API, for operators only.
    pub admin: Admin,
    /// The access log.
    pub access_log: AccessLog,
    /// What must outlive the process.
    pub store: Store,
    /// Metrics.
    pub metrics: Metrics,
    /// Bounds of the limiter.
    pub limits: Limits,
    /// Where tenants come from beside this file.
    pub tenants: Tenants,
    /// Public listeners. At least one.
    #[serde(rename = "listener")]
    pub listeners: Vec<Listener>,
    /// Rate limits that routes name.
    #[serde(rename = "limit")]
    pub limit_rules: Vec<Limit>,
    /// Plugin instances that routes name.
    #[serde(rename = "plugin")]
    pub plugins: Vec<Plugin>,
    /// Named sets of endpoints.
    #[serde(rename = "cluster")]
    pub clusters: Vec<Cluster>,
    /// Routes. The most specific match wins; see `docs/configuration.md`.
    #[serde(rename = "route")]
    pub routes: Vec<Route>,
    /// Tenants.
    #[serde(rename = "tenant")]
    pub tenant_entries: Vec<Tenant>,
}
