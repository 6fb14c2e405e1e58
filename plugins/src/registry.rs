//! Name of a kind -> how its instances are made.

use crate::settings::{self, Scope, Settings};
use crate::{Plugin, Step, api_key, headers, jwt, request_id};
use hub_config::{BuiltPlugin, PluginCatalog, PluginProblem};
use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

/// Every kind of plugin, sorted by name. Registering one is one line here.
const KINDS: &[Kind] = &[
    kind::<api_key::Config>("api_key"),
    kind::<headers::Config>("headers"),
    kind::<jwt::Config>("jwt"),
    kind::<request_id::Config>("request_id"),
];

/// The kinds that this crate knows, for the configuration's checker.
#[derive(Clone, Debug)]
pub struct Catalog {
    base: PathBuf,
    env: fn(&str) -> Option<OsString>,
}

type Built = Result<Arc<dyn Plugin>, Vec<PluginProblem>>;

struct Kind {
    name: &'static str,
    schema: fn() -> Schema,
    build: fn(&str, &Map<String, Value>, Scope) -> Built,
}

const fn kind<S: Settings>(name: &'static str) -> Kind {
    Kind {
        name,
        schema: schema::<S>,
        build: build::<S>,
    }
}

/// Without references and without a `$schema` of its own, so that it can be put into a larger one.
fn schema<S: Settings>() -> Schema {
    SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .into_generator()
        .into_root_schema_for::<S>()
}

pub(crate) fn build<S: Settings>(
    name: &str,
    config: &Map<String, Value>,
    mut scope: Scope,
) -> Built {
    let plugin = settings::read::<S>(config, &mut scope)
        .and_then(|settings| settings.build(name, &mut scope));
    match (plugin, scope.into_problems()) {
        (Some(plugin), problems) if problems.is_empty() => Ok(Arc::new(plugin)),
        (_, problems) => Err(problems),
    }
}

// === impl Catalog ===

impl Catalog {
    /// The catalog for a configuration in the folder `base`: relative paths in plugins' settings start
    /// there. Environment variables are the process's own.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self {
            base: base.into(),
            env: |name| std::env::var_os(name),
        }
    }

    /// The same with another environment.
    pub fn with_env(mut self, env: fn(&str) -> Option<OsString>) -> Self {
        self.env = env;
        self
    }

    /// The plugin inside of what [`PluginCatalog::build`] gave.
    ///
    /// # Panics
    /// Where `built` was made by another catalog, which is a mistake of the program and not of an
    /// operator.
    pub fn instance(built: &BuiltPlugin) -> Arc<dyn Plugin> {
        let plugin: &Arc<dyn Plugin> = built
            .instance
            .downcast_ref()
            .expect("this catalog puts an Arc<dyn Plugin> into every BuiltPlugin");
        Arc::clone(plugin)
    }
}

impl PluginCatalog for Catalog {
    fn kinds(&self) -> Vec<&'static str> {
        KINDS.iter().map(|kind| kind.name).collect()
    }

    fn schema(&self, kind: &str) -> Option<Schema> {
        find(kind).map(|kind| (kind.schema)())
    }

    fn build(
        &self,
        kind: &str,
        name: &str,
        config: &Map<String, Value>,
    ) -> Result<BuiltPlugin, Vec<PluginProblem>> {
        let Some(found) = find(kind) else {
            let message = format!(
                "there is no kind of plugin `{kind}`; the kinds are {}",
                self.kinds().join(", ")
            );
            return Err(vec![PluginProblem {
                at: String::new(),
                message,
            }]);
        };
        let plugin = (found.build)(name, config, Scope::new(&self.base, self.env))?;
        Ok(BuiltPlugin {
            identifies: plugin.step() == Step::Identify,
            files: plugin.files(),
            // Boxed twice, because `Any` needs a sized type and `dyn Plugin` is none.
            instance: Arc::new(plugin),
        })
    }
}

fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests;
