//! The EnterpriseHub Gateway: a multi-tenant edge gateway on pingora.
//!
//! [`run::run`] takes a configuration file to a serving process. The way of a request through the
//! modules: [`front`] (sockets, TLS, strict heads) -> [`stages`] (every decision, no pingora type) ->
//! `lanes` (to the upstream and back) -> record.
//!
//! Invariant: the data plane reads one immutable [`snapshot::Snapshot`] per request; only `control`
//! builds and swaps snapshots.
//! Invariant: only this crate names pingora, and only `front`, `lanes` and `run` in it.

pub mod control;
pub mod front;
pub mod hub;
mod lanes;
pub mod lifecycle;
pub mod limit;
mod respond;
pub mod router;
pub mod run;
pub mod service;
pub mod snapshot;
pub mod stages;
pub mod switch;
pub mod telemetry;
pub mod tenant_state;
mod upgrade;
pub mod upstream;
pub mod websocket;

/// JSON Schema of the configuration file with every plugin's settings, as text.
pub fn schema() -> String {
    hub_config::json_schema_text(&hub_plugins::Catalog::new(""))
}
