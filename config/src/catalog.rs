//! How the checker learns about plugins without depending on them.

use crate::Secret;
use std::any::Any;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What the checker asks about plugins. `plugins` implements it and the binary passes it in, so
/// that `config` does not depend on `plugins`.
pub trait PluginCatalog {
    /// Every kind of plugin, sorted.
    fn kinds(&self) -> Vec<&'static str>;

    /// JSON Schema of a kind's `config` table, for the generated schema.
    fn schema(&self, kind: &str) -> Option<schemars::Schema>;

    /// Checks one instance's settings and builds it. All problems are reported at once; each is a
    /// key path inside `config` and a sentence that says what to do.
    ///
    /// `running` is the instance in force with this kind and name, if there is one. It is what comes
    /// back where the same settings and the same contents of files would make the same plugin, so that
    /// what it has learned since it was built is not lost.
    fn build(
        &self,
        kind: &str,
        name: &str,
        config: &serde_json::Map<String, serde_json::Value>,
        running: Option<&BuiltPlugin>,
    ) -> Result<BuiltPlugin, Vec<PluginProblem>>;

    /// Waits, for all instances at once and at most `longest`, until they have what they need from
    /// elsewhere. Gives the positions of those that do not have it then, and what they lack; not where
    /// one of those in force, `running`, has been without the same.
    fn settle(
        &self,
        _built: &[&BuiltPlugin],
        _running: &[Arc<PluginInstance>],
        _longest: Duration,
    ) -> Vec<(usize, PluginProblem)> {
        Vec::new()
    }
}

/// A plugin instance, built by the catalog; only `plugins` and the gateway know what is inside.
#[derive(Clone, Debug)]
pub struct BuiltPlugin {
    /// The instance itself: an `Arc<dyn hub_plugins::Plugin>` boxed as `Any`.
    pub instance: Arc<dyn Any + Send + Sync>,
    /// True where it can establish an identity (`jwt`, `api_key`).
    pub identifies: bool,
    /// Files it was built from, to be watched.
    pub files: Vec<PathBuf>,
    /// SHA-256 over its settings and over the contents of files and variables as they were read to
    /// build it; kept like a secret, because those may hold guessable ones.
    pub mark: Secret,
}

/// One mistake in a plugin's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginProblem {
    /// Key path inside `config`, as `keys[0].algorithm`; empty for the whole.
    pub at: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// A configured plugin.
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
