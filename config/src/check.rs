//! From what the operator typed to what the program runs on.
//!
//! Nothing here stops at the first mistake: each check adds to the problems and carries on, so that
//! one run shows them all. The order is: bytes, TOML, shape (see `shape.rs`), meaning.

mod cluster;
mod directory;
pub(crate) mod files;
mod gate;
mod limit;
mod listener;
mod names;
mod path;
mod place;
mod plugin;
pub(crate) mod process;
mod route;
mod scope;
mod shape;
mod suggest;
mod tenancy;
mod tenant;
mod websocket;
mod words;

pub(crate) use scope::hex;

use crate::{PluginCatalog, Problems, file, runtime};
use place::{At, Document};
use scope::Scope;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use shape::{Report, Shape};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// How environment variables are read: name to value.
pub type Environment<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// How host names of endpoints are looked up: name and port to every address.
pub type Resolver = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Loads configurations. Everything outside the file (plugins, environment, names) is an argument.
pub struct Loader<'l> {
    catalog: &'l dyn PluginCatalog,
    env: &'l Environment<'l>,
    resolve: Arc<Resolver>,
    running: Option<&'l runtime::Config>,
    allow_removals: bool,
}

/// Reads and checks the configuration at `path` and every file that it names. Host names of endpoints
/// are looked up with the system's resolver, which blocks.
///
/// # Errors
/// Every mistake of the run.
pub fn load(
    path: &Path,
    catalog: &dyn PluginCatalog,
    env: &Environment<'_>,
) -> Result<runtime::Config, Problems> {
    Loader::new(catalog, env).load(path)
}

/// Checks a configuration that is already in memory. Problems name `path`; relative paths in `text`
/// start at `base`.
///
/// # Errors
/// Every mistake of the run.
pub fn load_str(
    text: &str,
    path: &Path,
    base: &Path,
    catalog: &dyn PluginCatalog,
    env: &Environment<'_>,
) -> Result<runtime::Config, Problems> {
    Loader::new(catalog, env).load_str(text, path, base)
}

// === impl Loader ===

impl<'l> Loader<'l> {
    /// A loader that looks names up with the system's resolver.
    pub fn new(catalog: &'l dyn PluginCatalog, env: &'l Environment<'l>) -> Self {
        Self {
            catalog,
            env,
            resolve: Arc::new(system_resolver),
            running: None,
            allow_removals: false,
        }
    }

    /// Looks names up with `resolve` instead, from several threads at once.
    pub fn resolver(
        mut self,
        resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.resolve = Arc::new(resolve);
        self
    }

    /// Loads what is to follow the configuration `running`. Plugins that would be built as they are go
    /// on; a name that cannot be looked up keeps its address; and what would take from `running` what
    /// nobody meant to take is a problem: a plugin's keys that cannot be fetched, and more than half of
    /// the directory's tenants.
    pub fn after(mut self, running: &'l runtime::Config) -> Self {
        self.running = Some(running);
        self
    }

    /// Whether the directory may lose any number of its tenants. Without, more than half is a problem: a
    /// file that is cut off at the end of a line looks like one that is meant.
    pub fn allow_removals(mut self, allow: bool) -> Self {
        self.allow_removals = allow;
        self
    }

    /// As [`load`].
    ///
    /// # Errors
    /// Every mistake of the run.
    pub fn load(&self, path: &Path) -> Result<runtime::Config, Problems> {
        let text = files::read(path, files::CONFIG_BYTES_MAX).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| {
                let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count();
                format!("is not UTF-8 (line {line}); save it as UTF-8")
            })
        });
        let base = path.parent().unwrap_or(Path::new(""));
        match text {
            Ok(text) => {
                let mut config = self.load_str(&text, path, base)?;
                config.files.insert(0, path.to_owned());
                Ok(config)
            }
            Err(message) => {
                let mut scope = Scope::new(path, base, self);
                scope.problem(&At::ROOT, message);
                Err(scope.problems)
            }
        }
    }

    /// As [`load_str`].
    ///
    /// # Errors
    /// Every mistake of the run.
    pub fn load_str(
        &self,
        text: &str,
        path: &Path,
        base: &Path,
    ) -> Result<runtime::Config, Problems> {
        let mut scope = Scope::new(path, base, self);
        let config = parse(&mut scope, text).and_then(|file| {
            scope.digest(text.as_bytes());
            check(&mut scope, &file)
        });
        scope.problems.sort();
        match config {
            Some(config) if scope.problems.is_empty() => Ok(config),
            Some(config) => Err(scope.problems.of_files(config.files)),
            None => Err(scope.problems.of_files(scope.files)),
        }
    }
}

impl std::fmt::Debug for Loader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loader")
    }
}

fn system_resolver(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

/// TOML, then shape. Where a file is not TOML, nothing else can be said about it.
fn parse<'a>(scope: &mut Scope<'a>, text: &'a str) -> Option<file::Config> {
    match Document::parse(text) {
        Ok(document) => scope.document = Rc::new(document),
        Err(errors) => {
            let mut last = None;
            for (line, message) in errors {
                // What follows on the same line mostly follows from it.
                if last.replace(line) == Some(line) {
                    continue;
                }
                let file = scope.file;
                scope.problem_in(file, line, "", format!("is not TOML: {message}"));
            }
            return None;
        }
    }
    let document = Rc::clone(&scope.document);
    let shape = Shape::new(schemars::schema_for!(file::Config).to_value());
    read(scope, &shape, document.root()?)
}

/// TOML to file types. The long sections go one element at a time, so that ten thousand routes do not
/// exist in three forms at once.
fn read(scope: &mut Scope<'_>, shape: &Shape, root: &DeTable<'_>) -> Option<file::Config> {
    let routes = section(scope, shape, root, "route");
    let tenant_entries = section(scope, shape, root, "tenant");
    let clusters = section(scope, shape, root, "cluster");
    let done = [
        ("route", routes.is_some()),
        ("tenant", tenant_entries.is_some()),
        ("cluster", clusters.is_some()),
    ];
    let mut entries = Map::new();
    for (key, value) in root {
        let key = key.get_ref();
        if !done.contains(&(key.as_ref(), true)) {
            let value = json(value.get_ref(), &At::ROOT.key(key), scope);
            entries.insert(key.to_string(), value);
        }
    }
    let rest: file::Config = typed(scope, shape, "", Value::Object(entries), &At::ROOT)?;
    Some(file::Config {
        routes: routes.unwrap_or_default(),
        tenant_entries: tenant_entries.unwrap_or_default(),
        clusters: clusters.unwrap_or_default(),
        ..rest
    })
}

/// A `[[section]]`; `None` where there is none, or something else in its place.
fn section<T: DeserializeOwned>(
    scope: &mut Scope<'_>,
    shape: &Shape,
    root: &DeTable<'_>,
    key: &'static str,
) -> Option<Vec<T>> {
    let items = root.get(key)?.get_ref().as_array()?;
    let at = At::ROOT.key(key);
    let pointer = format!("/properties/{key}/items");
    let mut all = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let at = at.index(i);
        let value = json(item.get_ref(), &at, scope);
        all.extend(typed(scope, shape, &pointer, value, &at));
    }
    Some(all)
}

/// Fits a value to its part of the schema and makes a file type of it.
fn typed<T: DeserializeOwned>(
    scope: &mut Scope<'_>,
    shape: &Shape,
    pointer: &str,
    mut value: Value,
    at: &At<'_>,
) -> Option<T> {
    shape.fit(pointer, &mut value, at, scope);
    serde_json::from_value(value)
        // The shape and serde agree unless one of them is wrong; then serde has the last word.
        .map_err(|error| scope.problem(at, format!("does not fit: {error}")))
        .ok()
}

/// Meaning. `None` only where something is missing that a problem tells of.
fn check(scope: &mut Scope<'_>, file: &file::Config) -> Option<runtime::Config> {
    let admin = process::admin(scope, &file.admin);
    let access_log = process::access_log(scope, &file.access_log);
    let store_directory = process::store(scope, &file.store);
    let listeners = listener::listeners(scope, &file.listeners, admin.as_ref());

    let limit_names = file.limit_rules.iter().map(|file| file.name.as_str());
    let limit_names = words::names(scope, "limit", limit_names);
    let limits = limit::limits(scope, &file.limit_rules);
    let address_limits = limit::address_limits(scope, &file.limits, &limit_names, &limits);

    let plugin_names = file.plugins.iter().map(|file| file.name.as_str());
    let plugin_names = words::names(scope, "plugin", plugin_names);
    let plugins = plugin::plugins(scope, &file.plugins);

    let cluster_names = file.clusters.iter().map(|file| file.name.as_str());
    let cluster_names = words::names(scope, "cluster", cluster_names);
    let clusters = cluster::clusters(scope, &file.clusters, file.store.directory.is_some());

    let route_names = file.routes.iter().map(|file| file.name.as_str());
    let route_names = words::names(scope, "route", route_names);
    let known = route::Known {
        clusters: &cluster_names,
        limit_names: &limit_names,
        limits: &limits,
        plugin_names: &plugin_names,
        plugins: &plugins,
    };
    let routes = route::routes(scope, &file.routes, &known);

    let known = tenant::Known {
        routes: &route_names,
        cluster_names: &cluster_names,
        clusters: &file.clusters,
        defaults: &file.tenants,
    };
    let tenants = directory::tenants(scope, file, &known);
    let (tenants, directory_tenants) = match tenants {
        Some((tenants, of_directory)) => (Some(tenants), of_directory),
        None => (None, 0),
    };
    // A configuration that is refused anyway need not wait.
    if scope.problems.is_empty() {
        plugin::settle(scope, &plugins);
    }

    Some(runtime::Config {
        gateway: process::gateway(&file.gateway),
        admin: admin?,
        access_log: access_log?,
        store_directory,
        tenant_labels_max: file.metrics.tenant_labels_max as usize,
        limiter_keys_max: file.limits.keys_max as usize,
        limit_headers: file.limits.headers,
        address_limits,
        listeners,
        limits: limits.into_iter().collect::<Option<_>>()?,
        clusters,
        routes,
        tenants: Arc::new(tenants?),
        directory_tenants,
        plugins: plugins.into_iter().collect::<Option<_>>()?,
        hash: scope.hash(),
        files: std::mem::take(&mut scope.files),
        warnings: std::mem::take(&mut scope.warnings),
    })
}

/// TOML to JSON, whose types are all that the file types use. What JSON lacks is reported.
fn json(value: &DeValue<'_>, at: &At<'_>, report: &mut dyn Report) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::from)
            .unwrap_or_else(|_| {
                let message = "the number is too large; no key takes one of its size";
                report.problem(at, message.into());
                Value::from(0)
            }),
        DeValue::Float(number) => {
            let float: Option<f64> = number.as_str().parse().ok();
            let number = float.and_then(serde_json::Number::from_f64);
            number.map(Value::Number).unwrap_or_else(|| {
                report.problem(at, "is no ordinary number; write one with digits".into());
                Value::from(0)
            })
        }
        DeValue::Datetime(_) => {
            let message = "is a date, which no key takes; put text in quotes";
            report.problem(at, message.into());
            Value::String(String::new())
        }
        DeValue::Array(items) => {
            let items = items.iter().enumerate();
            Value::Array(
                items
                    .map(|(i, item)| json(item.get_ref(), &at.index(i), report))
                    .collect(),
            )
        }
        DeValue::Table(table) => {
            let mut entries = Map::new();
            for (key, value) in table {
                let key = key.get_ref();
                entries.insert(key.to_string(), json(value.get_ref(), &at.key(key), report));
            }
            Value::Object(entries)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
