//! How the checker learns about plugins without depending on them.

use std::any::Any;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

/// What the checker asks about plugins. `plugins` implements it and the binary passes it in, so
/// that `config` does not depend on `plugins`.
pub trait PluginCatalog {
    /// Every kind of plugin, sorted.
    fn kinds(&self) -> Vec<&'static str>;

    /// JSON Schema of a kind's `config` table, for the generated schema.
    fn schema(&self, kind: &str) -> Option<schemars::Schema>;

    /// Checks one instance's settings and builds it. All problems are reported at once; each is a
    /// key path inside `config` and a sentence that says what to do.
    fn build(
        &self,
        kind: &str,
        name: &str,
        config: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<BuiltPlugin, Vec<PluginProblem>>;
}

/// A plugin instance, built by the catalog; only `plugins` and the gateway know what is inside.
#[derive(Clone, Debug)]
pub struct BuiltPlugin {
    /// The instance itself: an `Arc<dyn hub_plugins::Plugin>` boxed as `Any`.
    pub instance: Arc<dyn Any + Send + Sync>,
    /// True where it can establish an identity (`jwt`, `api_key`).
    pub identifies: bool,
    /// Files it reads, to be watched.
    pub files: Vec<PathBuf>,
}

/// One mistake in a plugin's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginProblem {
    /// Key path inside `config`, as `keys[0].algorithm`; empty for the whole.
    pub at: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// A named plugin on a route.
#[derive(Clone)]
pub struct PluginInstance {
    /// As the file names it.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: Arc<str>,
    /// The built plugin.
    pub built: BuiltPlugin,
}

impl Debug for PluginInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PluginInstance({} of kind {})", self.name, self.kind)
    }
}
