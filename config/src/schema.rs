//! The JSON Schema of the configuration, for editors, documentation and the list of every key.

use crate::{PluginCatalog, file};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// Deepest nesting that [`key_paths`] follows, so that a recursive schema ends.
const DEPTH_MAX: usize = 16;

/// JSON Schema (draft 2020-12) of the configuration file, with the settings of each kind of plugin that
/// `catalog` knows.
pub fn json_schema(catalog: &dyn PluginCatalog) -> Value {
    let mut root = schemars::schema_for!(file::Config).to_value();
    let kinds = catalog.kinds();
    let mut branches = Vec::new();
    for kind in &kinds {
        let Some(schema) = catalog.schema(kind) else {
            continue;
        };
        let (schema, definitions) = of_kind(kind, schema.to_value());
        let needs_config = schema
            .get("required")
            .and_then(Value::as_array)
            .is_some_and(|all| !all.is_empty());
        let mut then = json!({ "properties": { "config": schema } });
        if needs_config {
            then["required"] = json!(["config"]);
        }
        branches.push(json!({
            "if": { "properties": { "kind": { "const": kind } }, "required": ["kind"] },
            "then": then,
        }));
        if let Some(all) = root.get_mut("$defs").and_then(Value::as_object_mut) {
            all.extend(definitions);
        }
    }
    if let Some(plugin) = root.pointer_mut("/$defs/Plugin") {
        plugin["properties"]["kind"]["enum"] = json!(kinds);
        plugin["allOf"] = Value::Array(branches);
    }
    root
}

/// The schema as it is checked in: pretty, with a last line end.
pub fn json_schema_text(catalog: &dyn PluginCatalog) -> String {
    let text =
        serde_json::to_string_pretty(&json_schema(catalog)).expect("a JSON value is always JSON");
    text + "\n"
}

/// Writes [`json_schema_text`] to `path`.
///
/// # Errors
/// Whatever the file system says.
pub fn write_json_schema(path: &Path, catalog: &dyn PluginCatalog) -> io::Result<()> {
    std::fs::write(path, json_schema_text(catalog))
}

/// A plugin's schema with its definitions moved to the root's, under names of their own.
fn of_kind(kind: &str, mut schema: Value) -> (Value, Map<String, Value>) {
    let mut moved = Map::new();
    let definitions = schema.as_object_mut().and_then(|all| {
        all.remove("$schema");
        all.remove("$defs")
    });
    if let Some(Value::Object(definitions)) = definitions {
        for (name, mut definition) in definitions {
            rename(kind, &mut definition);
            moved.insert(format!("{kind}.{name}"), definition);
        }
    }
    rename(kind, &mut schema);
    (schema, moved)
}

fn rename(kind: &str, schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            for (key, value) in entries.iter_mut() {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(name) = target.strip_prefix("#/$defs/") {
                            *target = format!("#/$defs/{kind}.{name}");
                        }
                    }
                    _ => rename(kind, value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(kind, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Every key that can hold a value, sorted: `listener[].head_timeout_ms`,
/// `route[].path.prefix`, `plugin[jwt].config.keys[].algorithm`, `tenant[].colours.*`.
///
/// A list of plain values is one key; so is an enum of words. An enum that is a word or a table gives
/// one key for the words and one for each table.
pub fn key_paths(schema: &Value) -> Vec<String> {
    let mut paths = BTreeSet::new();
    walk(schema, schema, "", 0, &mut paths);
    let branches = schema
        .pointer("/$defs/Plugin/allOf")
        .and_then(Value::as_array);
    for branch in branches.into_iter().flatten() {
        let kind = branch
            .pointer("/if/properties/kind/const")
            .and_then(Value::as_str);
        let config = branch.pointer("/then/properties/config");
        if let (Some(kind), Some(config)) = (kind, config) {
            walk(
                schema,
                config,
                &format!("plugin[{kind}].config"),
                0,
                &mut paths,
            );
        }
    }
    // What a plugin takes depends on its kind, and is listed by kind.
    paths.remove("plugin[].config.*");
    paths.into_iter().collect()
}

/// Adds the keys of `schema`, which stands at `path`.
fn walk(root: &Value, schema: &Value, path: &str, depth: usize, paths: &mut BTreeSet<String>) {
    if depth > DEPTH_MAX {
        return;
    }
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let target = name
            .strip_prefix('#')
            .and_then(|pointer| root.pointer(pointer));
        return walk(root, target.unwrap_or(&Value::Null), path, depth + 1, paths);
    }
    let choices = ["anyOf", "oneOf"]
        .into_iter()
        .find_map(|key| schema.get(key)?.as_array());
    if let Some(choices) = choices {
        let null = |one: &&Value| one.get("type").and_then(Value::as_str) != Some("null");
        for choice in choices.iter().filter(null) {
            walk(root, choice, path, depth + 1, paths);
        }
        // A tagged enum has keys beside its choices.
        if schema.get("properties").is_none() {
            return;
        }
    }
    let join = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    let mut is_leaf = true;
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        is_leaf = false;
        for (key, inner) in properties {
            walk(root, inner, &join(key), depth + 1, paths);
        }
    }
    match schema.get("additionalProperties") {
        Some(inner @ Value::Object(_)) => {
            is_leaf = false;
            walk(root, inner, &join("*"), depth + 1, paths);
        }
        Some(Value::Bool(true)) => {
            is_leaf = false;
            paths.insert(join("*"));
        }
        Some(Value::Bool(false)) => is_leaf = false,
        Some(_) | None => {}
    }
    if let Some(items) = schema.get("items") {
        is_leaf = false;
        let inner_path = format!("{path}[]");
        let mut inner = BTreeSet::new();
        walk(root, items, &inner_path, depth + 1, &mut inner);
        if inner.remove(&inner_path) {
            // The list itself is the key.
            inner.insert(path.to_owned());
        }
        paths.extend(inner);
    }
    if is_leaf {
        paths.insert(path.to_owned());
    }
}

#[cfg(test)]
mod tests;
