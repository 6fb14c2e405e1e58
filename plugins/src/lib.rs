//! Request filters behind one trait.
//!
//! A [`Plugin`] looks at a borrowed [`hub_core::RequestView`] and answers with a [`Verdict`]; it may
//! ask for header changes on the way. It knows no HTTP library and no connection, so a test of one
//! needs neither. [`Catalog`] is what the configuration's checker asks: which kinds there are, what
//! their settings look like, and to build an instance from settings.
//!
//! ```
//! use hub_config::PluginCatalog;
//! use hub_plugins::{Catalog, Step};
//!
//! let config = serde_json::json!({ "request": { "set": { "X-Edge": "${scheme}" } } });
//! let built = Catalog::new("/etc/hub").build("headers", "edge", config.as_object().unwrap(), None).unwrap();
//! assert_eq!(Catalog::instance(&built).step(), Step::Request);
//! ```
//!
//! Invariant: a plugin never waits and never panics on what a client sent.
//! Invariant: a secret (a key, a token) is in no `Debug` output, problem, log line or refusal.
//! Invariant: nothing that a credential says makes the gateway fetch anything from anywhere.
//! Deliberately absent: plugins that see bodies, and plugins loaded at run time.

mod api;
pub mod api_key;
pub mod headers;
pub mod jwt;
mod registry;
pub mod request_id;
mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
#[expect(
    unreachable_pub,
    reason = "docs/plugins.md shows it as a kind of one's own, which is public"
)]
mod worked_example;

pub use api::{Plugin, PluginContext, Step, Verdict};
pub use registry::Catalog;
pub use settings::{Scope, Settings};
