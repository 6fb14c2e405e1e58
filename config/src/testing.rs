//! A catalog that knows four kinds and believes what it is told.

use crate::{BuiltPlugin, PluginCatalog, PluginProblem, Secret, read_file};
use schemars::JsonSchema;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;

/// Kinds as the real ones are named; of their settings only `bad` (a list of key paths to complain
/// about) and `files` mean anything.
pub(crate) struct FakeCatalog;

/// Settings of the kind `jwt`, for the schema.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema is read")]
struct JwtConfig {
    /// Who may sign.
    keys: Vec<JwtKey>,
    /// Seconds.
    leeway_seconds: Option<u32>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema is read")]
struct JwtKey {
    /// Which algorithm.
    algorithm: String,
}

/// Settings of a kind that has none.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Nothing {}

impl PluginCatalog for FakeCatalog {
    fn kinds(&self) -> Vec<&'static str> {
        vec!["api_key", "headers", "jwt", "request_id"]
    }

    fn schema(&self, kind: &str) -> Option<schemars::Schema> {
        self.kinds().contains(&kind).then(|| match kind {
            "jwt" => schemars::schema_for!(JwtConfig),
            _ => schemars::schema_for!(Nothing),
        })
    }

    fn build(
        &self,
        kind: &str,
        _name: &str,
        config: &Map<String, Value>,
        running: Option<&BuiltPlugin>,
    ) -> Result<BuiltPlugin, Vec<PluginProblem>> {
        let texts = |key: &str| {
            let list = config.get(key).and_then(Value::as_array);
            list.into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
        };
        let problems: Vec<_> = texts("bad")
            .map(|at| PluginProblem {
                at,
                message: "the plugin does not like this".into(),
            })
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let files: Vec<PathBuf> = texts("files").map(Into::into).collect();
        let read = files.iter().map(|path| read_file(path, 1 << 10));
        let mark = format!("{config:?} {:?}", read.collect::<Vec<_>>());
        let mark = Secret::new(mark.into_bytes());
        if let Some(running) = running.filter(|running| running.mark == mark) {
            return Ok(running.clone());
        }
        Ok(BuiltPlugin {
            instance: Arc::new(()),
            identifies: matches!(kind, "jwt" | "api_key"),
            files,
            mark,
        })
    }
}

/// An environment without variables.
pub(crate) fn no_env(_: &str) -> Option<String> {
    None
}
