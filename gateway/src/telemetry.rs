//! What operators see of the gateway: metrics, the access log, remembered refusals, and the process's
//! own log.
//!
//! Invariant: the data plane never waits here. It adds to counters of its own thread's shard and
//! formats access-log lines into a bounded buffer; writing, summing and label work belong to the
//! writer thread and to the scrape.
//! Invariant: everything is bounded: tenant labels by the [`tenants::TenantGate`], waiting lines by
//! the configured queue, remembered refusals by the ring, lines of chatty dependencies by a
//! [`throttle::Throttle`]; each bound counts what it turned away.
//! Invariant: no pingora type is named here.

pub mod access_log;
pub mod metrics;
mod process;
pub mod process_log;
pub mod refusals;
pub mod shards;
pub mod tenants;
pub mod throttle;
pub mod upstreams;

pub use access_log::{AccessLog, Record, WebSocketRecord};
pub use metrics::{
    ListenerMetrics, Metrics, ReloadOutcome, RouteMetrics, Scrape, StatusClass, UpgradeOutcome,
};
pub use process_log::{ProcessLog, init_process_log};
pub use refusals::{RefusalNote, Refusals, RefusedRequest};
pub use tenants::{TenantCounters, TenantGate, TenantTotals};
pub use upstreams::{UpstreamCounters, UpstreamMetrics};
