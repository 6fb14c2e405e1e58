//! What the operator types, and what the program runs on.
//!
//! [`file`] holds the strict shapes of the TOML file; [`runtime`] holds checked types without serde;
//! [`load`] goes from one to the other and reports every problem of a run with its key path and line;
//! [`diff()`] compares two results; [`json_schema`] describes the file for editors and tests.
//!
//! ```
//! use hub_config::{BuiltPlugin, PluginCatalog, PluginProblem, load_str};
//! use std::path::Path;
//!
//! /// A catalog without plugins; the real one is `hub_plugins::Catalog`.
//! struct NoPlugins;
//!
//! impl PluginCatalog for NoPlugins {
//!     fn kinds(&self) -> Vec<&'static str> {
//!         Vec::new()
//!     }
//!     fn schema(&self, _kind: &str) -> Option<schemars::Schema> {
//!         None
//!     }
//!     fn build(
//!         &self,
//!         _kind: &str,
//!         _name: &str,
//!         _config: &serde_json::Map<String, serde_json::Value>,
//!         _running: Option<&BuiltPlugin>,
//!     ) -> Result<BuiltPlugin, Vec<PluginProblem>> {
//!         Err(Vec::new())
//!     }
//! }
//!
//! let text = r#"
//!     [[listener]]
//!     name = "http"
//!     address = "127.0.0.1:8080"
//!     [[cluster]]
//!     name = "app"
//!     endpoints.blue = ["127.0.0.1:9001"]
//!     [[route]]
//!     name = "all"
//!     path = { prefix = "/" }
//!     cluster = "ap"
//! "#;
//! let path = Path::new("gateway.toml");
//! let load = |text: &str| load_str(text, path, Path::new(""), &NoPlugins, &|_| None);
//!
//! let problems = load(text).unwrap_err().to_string();
//! assert!(problems.starts_with("gateway.toml:11: route \"all\".cluster"));
//! assert!(problems.contains("did you mean \"app\"?"));
//!
//! let config = load(&text.replace("\"ap\"", "\"app\"")).unwrap();
//! assert_eq!(config.clusters[0].name, "app");
//! ```
//!
//! Invariant: a [`runtime::Config`] exists only if every check passed.
//! Invariant: no secret is part of any `Debug` output, error, diff or hash that is shown.
//! Invariant: nothing is read but the files that the configuration names, each with a bound on its size.
//! Absent on purpose: watching files, merging of several files, environment variables in values.

mod catalog;
mod check;
mod diff;
pub mod file;
mod problem;
pub mod runtime;
mod schema;
mod secret;
#[cfg(test)]
mod testing;

pub use catalog::{BuiltPlugin, PluginCatalog, PluginInstance, PluginProblem};
pub use check::files::{certificates, read as read_file};
pub use check::process::is_variable;
pub use check::{Environment, Loader, Resolver, load, load_str};
pub use diff::{Change, Diff, What, diff};
pub use problem::{Problem, Problems};
pub use schema::{json_schema, json_schema_text, key_paths, write_json_schema};
pub use secret::Secret;
