//! What the program runs on: checked, resolved, ready to use.
//!
//! Fields are public to read; the types are `non_exhaustive`, so only [`crate::check`] can make one,
//! and whoever holds one need not check again. No serde here.

pub(crate) mod directory;
mod websocket;

pub use crate::file::{
    Balance, Colour, Compression, LogLevel, OnSwitch, OnUpgrade, ProxyProtocol, TlsVersion,
};
pub use directory::{Overlay, Tenant, TenantIndex, Tenants};
pub use websocket::WebSocket;

use crate::{PluginInstance, Problem, Secret};
use hub_core::{HeaderName, HeaderValue, LocationId, Method};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A whole checked configuration.
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    /// The process as a whole.
    pub gateway: Gateway,
    /// The admin API.
    pub admin: Admin,
    /// The access log.
    pub access_log: AccessLog,
    /// Folder of the embedded store; `None` for no store.
    pub store_directory: Option<PathBuf>,
    /// Most tenants with a metric label of their own.
    pub tenant_labels_max: usize,
    /// Keys that the limiter remembers.
    pub limiter_keys_max: usize,
    /// Answer with `RateLimit-*` headers.
    pub limit_headers: bool,
    /// Indexes into `limits`: what every request is held to, by address.
    pub address_limits: Vec<usize>,
    /// Public listeners, in the order of the file.
    pub listeners: Vec<Arc<Listener>>,
    /// Limits, in the order of the file.
    pub limits: Vec<Limit>,
    /// Clusters, in the order of the file.
    pub clusters: Vec<Cluster>,
    /// Routes, in the order of the file.
    pub routes: Vec<Route>,
    /// All tenants, of this file and of the directory. Shared, so that generations that have the same
    /// tenants can have one table.
    pub tenants: Arc<Tenants>,
    /// How many of them stand in the directory. They come last.
    pub directory_tenants: usize,
    /// Every configured plugin, used or not, in the order of the file.
    pub plugins: Vec<Arc<PluginInstance>>,
    /// Hexadecimal SHA-256 over the configuration, the directory and the authorities' files as read.
    /// Files of secrets and of plugins are not part of it, since it is shown.
    pub hash: String,
    /// Every file whose change should cause a reload: configuration, directory, secrets, plugins'
    /// keys. Certificates are watched apart.
    pub files: Vec<PathBuf>,
    /// What is no mistake, and what an operator should know of all the same.
    pub warnings: Vec<Problem>,
}

/// The process as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gateway {
    /// Worker threads; 0 for one a processor.
    pub workers: usize,
    /// How long readiness says 503 while connections are still taken.
    pub drain_notice: Duration,
    /// Longest wait for requests in flight.
    pub drain_timeout: Duration,
    /// Longest time that an upgrade may take.
    pub upgrade_timeout: Duration,
    /// How long a process that has handed over serves the connections that it has.
    pub upgrade_grace: Duration,
    /// Reload when files change.
    pub reload_on_change: bool,
    /// Least level logged.
    pub log_level: LogLevel,
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// The admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admin {
    /// Where it listens.
    pub address: AdminAddress,
    /// The bearer token; without one only health, readiness and metrics are served.
    pub token: Option<Secret>,
    /// Where the audit trail goes; `None` means the gateway's own log.
    pub audit_file: Option<PathBuf>,
    /// Requests a second from one caller.
    pub requests_per_second: u32,
    /// Refusals remembered for `explain`.
    pub refusals_remembered: usize,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessLog {
    /// Where it goes.
    pub target: LogTarget,
    /// Lines that may wait.
    pub queue_lines: usize,
    /// Longest time a line waits in the writer's buffer.
    pub flush_interval: Duration,
}

/// A public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listener {
    /// Unique name.
    pub name: String,
    /// Where it is bound.
    pub address: SocketAddr,
    /// TLS, if any.
    pub tls: Option<Tls>,
    /// Whether a PROXY header is looked for.
    pub proxy_protocol: ProxyProtocol,
    /// Who may send one.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Proxies in front that append to `X-Forwarded-For`.
    pub trusted_hops: usize,
    /// Who speaks for them.
    pub trusted_from: Vec<IpNet>,
    /// Most connections.
    pub connections_max: usize,
    /// Most connections from one address.
    pub connections_per_address_max: usize,
    /// First byte of a head to its last.
    pub head_timeout: Duration,
    /// Wait for the next request.
    pub idle_timeout: Duration,
    /// Pause between two reads of a body.
    pub body_timeout: Duration,
    /// Pause in which the client takes nothing.
    pub write_timeout: Duration,
    /// Largest head, in bytes.
    pub head_bytes_max: usize,
    /// Longest request target, in bytes.
    pub uri_bytes_max: usize,
    /// Most headers.
    pub header_count_max: usize,
    /// Most requests on one connection.
    pub requests_per_connection_max: u32,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// Certificate and key files; the first pair also serves unknown names.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Longest handshake.
    pub handshake_timeout: Duration,
    /// Offer HTTP/2.
    pub http2: bool,
    /// Least version.
    pub version_min: TlsVersion,
}

/// What a limit has one budget per.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitBy {
    /// Client address.
    Address,
    /// Tenant.
    Tenant,
    /// The route as a whole.
    Route,
    /// Subject of the verified credential.
    Identity,
    /// Value of a header.
    Header(HeaderName),
}

/// GCRA's two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// Requests per `period`, as written.
    pub requests: u32,
    /// The period.
    pub period: Duration,
    /// Requests at once.
    pub burst: u32,
}

/// A rate limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// Unique name.
    pub name: String,
    /// What has a budget of its own.
    pub by: LimitBy,
    /// How much.
    pub quota: Quota,
}

/// An upstream address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// One endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// As written: the label in metrics and views.
    pub name: String,
    /// Resolved.
    pub address: EndpointAddress,
}

/// TLS to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpstreamTls {
    /// SNI, never empty.
    pub server_name: String,
    /// DER certificates of the authorities to trust; `None` means the system's.
    pub authorities: Option<Arc<Vec<Vec<u8>>>>,
}

/// What a health check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthProbe {
    /// Connects.
    Tcp,
    /// Asks for a path and wants a status.
    Http {
        /// Path and query.
        path: String,
        /// Host header; `None` means the endpoint's address.
        host: Option<String>,
        /// Wanted status.
        status: u16,
        /// Wanted in the answer's first 64 KiB; `None` means that only the status counts.
        body_contains: Option<String>,
    },
}

/// An active health check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// What is done.
    pub probe: HealthProbe,
    /// Pause between two checks.
    pub interval: Duration,
    /// Longest wait.
    pub timeout: Duration,
    /// Successes in a row.
    pub healthy_after: u8,
    /// Failures in a row.
    pub unhealthy_after: u8,
}

/// What a colour must show before a rollout lets clients on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gate {
    /// Connections to each endpoint that are opened and kept.
    pub warm_connections: u32,
    /// Requests that each endpoint must answer as told.
    pub requests: Vec<GateRequest>,
}

/// A request of a gate and what is wanted of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GateRequest {
    /// Unique in the gate.
    pub name: String,
    /// For whom it is sent. Need not be there: a directory may lose a tenant at any time.
    pub tenant: Option<LocationId>,
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Host header; `None` means the endpoint's address.
    pub host: Option<String>,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Wanted status.
    pub status: u16,
    /// Wanted in the first 64 KiB of the body.
    pub body_contains: Option<String>,
    /// Wanted SHA-256 of the body.
    pub body_sha256: Option<[u8; 32]>,
    /// Longest time to the end of the answer.
    pub latency_max: Duration,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cluster {
    /// Unique name.
    pub name: String,
    /// The colour that takes the traffic.
    pub active: Colour,
    /// Blue endpoints.
    pub blue: Vec<Endpoint>,
    /// Green endpoints.
    pub green: Vec<Endpoint>,
    /// How one is picked.
    pub balance: Balance,
    /// TLS, if any.
    pub tls: Option<UpstreamTls>,
    /// Health check, if any.
    pub health: Option<Health>,
    /// What a colour must show before a rollout lets clients on it.
    pub gate: Gate,
    /// Wait for a connection.
    pub connect_timeout: Duration,
    /// Wait for the first byte of the answer.
    pub first_byte_timeout: Duration,
    /// Pause between two reads or writes.
    pub idle_timeout: Duration,
    /// Whole request; `None` means no bound.
    pub total_timeout: Option<Duration>,
    /// How long an unused connection is kept; `None` turns reuse off.
    pub keepalive_timeout: Option<Duration>,
    /// Tries on another endpoint when connecting fails.
    pub connect_retries: u8,
    /// Databases behind it, if they are named.
    pub schema: Option<Schema>,
}

/// Databases behind a cluster, and what its colours can run on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schema {
    /// At least one, each once.
    pub scopes: Vec<String>,
    /// Where it is said what a colour can run on.
    pub ranges: SchemaRanges,
}

/// Where it is said what a colour can run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaRanges {
    /// In the configuration. A colour with endpoints has a range.
    Declared {
        /// Of blue.
        blue: Option<SchemaRange>,
        /// Of green.
        green: Option<SchemaRange>,
    },
    /// In what each endpoint answers to its health check, which is HTTP.
    Health,
}

/// Numbers of migration steps: the one that a release needs, and the newest that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaRange {
    /// At least 1.
    pub min: u32,
    /// At least `min`.
    pub max: u32,
}

/// A host pattern, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Any one or more labels in front of this suffix, which starts with a dot: `.example.com`.
    Wildcard(String),
}

/// One piece of a path template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This text.
    Literal(String),
    /// Any one segment, by name.
    One(String),
    /// The rest, by name; last only.
    Rest(String),
}

/// A path pattern over normalised paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path and what is below it; no trailing slash, except that `/` is the root.
    Prefix(String),
    /// This path.
    Exact(String),
    /// These segments.
    Template(Vec<Segment>),
}

/// One place that a tenant may be named in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantSource {
    /// The verified credential.
    Credential,
    /// A header.
    Header(HeaderName),
    /// The label before this suffix, which starts with a dot.
    Subdomain(String),
    /// The segment of the template with this index.
    Path(usize),
    /// A query parameter.
    Query(String),
}

/// Where a route's tenant comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantRule {
    /// Sources in canonical order: credential, header, subdomain, path, query.
    pub sources: Vec<TenantSource>,
    /// A request without a tenant is refused.
    pub required: bool,
    /// Only the credential's word counts; what else is there must agree.
    pub from_credential: bool,
}

/// Which browsers may read a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cors {
    /// None.
    Off,
    /// Any.
    Any,
    /// These origins.
    Origins(Vec<HeaderValue>),
}

/// A route.
#[derive(Debug)]
#[non_exhaustive]
pub struct Route {
    /// Unique name.
    pub name: String,
    /// Empty: any.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// Empty: any.
    pub methods: Vec<Method>,
    /// All must be there; `None` for any value.
    pub headers: Vec<(HeaderName, Option<HeaderValue>)>,
    /// Index into `Config::clusters`.
    pub cluster: usize,
    /// Tenant rule; `None`: the route has no tenant.
    pub tenant: Option<TenantRule>,
    /// Plugin instances, in order.
    pub plugins: Vec<Arc<PluginInstance>>,
    /// Indexes into `Config::limits`.
    pub limits: Vec<usize>,
    /// Largest request body, in bytes.
    pub body_bytes_max: u64,
    /// How WebSockets are taken; `None`: an upgrade is forwarded as a plain request.
    pub websocket: Option<Arc<WebSocket>>,
    /// During a rollout, idempotent requests that failed on the new colour may go to the old one.
    pub retry_other_colour: bool,
    /// Who may read refusals.
    pub cors: Cors,
}

/// True for addresses that an operator rarely means and an attacker often does: unspecified,
/// link-local, multicast, and the metadata services of clouds.
pub fn is_link_local_or_unspecified(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.octets()[0] == 0
                || v4.is_broadcast()
                || v4.is_multicast()
                // Metadata services outside 169.254.0.0/16: Alibaba's, Azure's, Oracle's.
                || matches!(v4.octets(), [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192])
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                // Amazon's metadata service.
                || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
                || v6
                    .to_ipv4_mapped()
                    .is_some_and(|v4| is_link_local_or_unspecified(IpAddr::V4(v4)))
        }
    }
}
