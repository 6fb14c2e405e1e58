//! Name of a kind -> how its instances are made.

use crate::settings::{self, Input, Scope, Settings};
use crate::{Plugin, Step, api_key, headers, jwt, request_id};
use hub_config::{BuiltPlugin, PluginCatalog, PluginInstance, PluginProblem, Secret};
use ring::digest::{Context, SHA256};
use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

type Built = Result<(Arc<dyn Plugin>, Vec<Input>), Vec<PluginProblem>>;

/// What is inside of a [`BuiltPlugin`].
struct Instance {
    plugin: Arc<dyn Plugin>,
    /// What it was built from beside its settings.
    inputs: Vec<Input>,
}

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
    let inputs = std::mem::take(&mut scope.inputs);
    match (plugin, scope.into_problems()) {
        (Some(plugin), problems) if problems.is_empty() => Ok((Arc::new(plugin), inputs)),
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
        Arc::clone(&inside(built).plugin)
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
        running: Option<&BuiltPlugin>,
    ) -> Result<BuiltPlugin, Vec<PluginProblem>> {
        if let Some(running) = running {
            let inputs = &inside(running).inputs;
            let current = inputs.iter().all(|input| input.is_current(self.env));
            // A running instance's inputs are those of its own settings, so both must be the same.
            if current && running.mark == mark(config, inputs) {
                return Ok(running.clone());
            }
        }
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
        let (plugin, inputs) = (found.build)(name, config, Scope::new(&self.base, self.env))?;
        Ok(BuiltPlugin {
            identifies: plugin.step() == Step::Identify,
            files: inputs.iter().filter_map(Input::path).collect(),
            mark: mark(config, &inputs),
            instance: Arc::new(Instance { plugin, inputs }),
        })
    }

    fn settle(
        &self,
        built: &[&BuiltPlugin],
        running: &[Arc<PluginInstance>],
        longest: Duration,
    ) -> Vec<(usize, PluginProblem)> {
        for one in running {
            inside(&one.built).plugin.is_in_force();
        }
        let deadline = Instant::now() + longest;
        let settled = built.iter().map(|one| inside(one).plugin.settle(deadline));
        (0..)
            .zip(settled)
            .filter_map(|(position, settled)| Some((position, settled.err()?)))
            .collect()
    }
}

fn inside(built: &BuiltPlugin) -> &Instance {
    built
        .instance
        .downcast_ref()
        .expect("this catalog puts an Instance into every BuiltPlugin")
}

/// SHA-256 over settings and over the inputs as they were read.
fn mark(config: &Map<String, Value>, inputs: &[Input]) -> Secret {
    let mut context = Context::new(&SHA256);
    context.update(&serde_json::to_vec(config).expect("a JSON map is always JSON"));
    // All of one length, and JSON tells its own end.
    for input in inputs {
        context.update(&input.digest);
    }
    Secret::new(context.finish().as_ref())
}

fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests;
