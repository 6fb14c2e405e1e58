//! Configurations as JSON, so that one key can be set, and as the TOML that the gateway reads.

use serde_json::{Map, Value, json};

/// What all rows start from: one listener, one cluster, one route, and everything as fast as can be.
fn base() -> Value {
    json!({
        "gateway": {
            "workers": 1, "drain_notice_ms": 0, "drain_timeout_ms": 0, "reload_on_change": false,
        },
        "admin": {
            "address": "127.0.0.1:0", "token_file": "{dir}/admin.token", "requests_per_second": 10000,
        },
        "access_log": { "target": "{dir}/access.log", "flush_interval_ms": 5 },
        "listener": [{ "name": "public", "address": "127.0.0.1:0" }],
        "cluster": [{ "name": "app", "endpoints": { "blue": ["{blue}"] } }],
        "route": [{ "name": "all", "path": { "prefix": "/" }, "cluster": "app" }],
    })
}

/// The base with `with` and then the key set. In `with`, the text `{value}` stands for the value,
/// `{stem}` for the value without its extension, and `{"by_value": {...}}` for the entry that the
/// value names.
pub(crate) fn build(key: &str, value: &Value, with: &[(&str, Value)]) -> Value {
    let mut config = base();
    for (path, other) in with {
        set(&mut config, path, fill(other, value));
    }
    set(&mut config, key, value.clone());
    config
}

fn fill(template: &Value, value: &Value) -> Value {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    match template {
        Value::String(word) if word == "{value}" => value.clone(),
        Value::String(word) => {
            let stem = text.rsplit_once('.').map_or(&*text, |(stem, _)| stem);
            word.replace("{stem}", stem).into()
        }
        Value::Array(items) => items.iter().map(|item| fill(item, value)).collect(),
        Value::Object(entries) => match entries.get("by_value") {
            Some(choices) => choices[&text].clone(),
            None => entries
                .iter()
                .map(|(name, item)| (name.clone(), fill(item, value)))
                .collect::<Map<_, _>>()
                .into(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
    }
}

/// Sets what a path of the schema names: `listener[]` is the first, `listener[1]` the second,
/// `plugin[jwt]` the one of that kind, and `.*` at the end the whole table. What is not there is made.
fn set(config: &mut Value, path: &str, value: Value) {
    let mut place = config;
    let path = path.strip_suffix(".*").unwrap_or(path);
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    for segment in parents.split('.').filter(|segment| !segment.is_empty()) {
        place = step(place, segment);
    }
    if last.ends_with(']') {
        *step(place, last) = value;
        return;
    }
    if place.is_null() {
        *place = json!({});
    }
    let table = place.as_object_mut().expect("a key is in a table");
    if value.is_null() {
        table.remove(last);
    } else {
        table.insert(last.to_owned(), value);
    }
}

fn step<'v>(place: &'v mut Value, segment: &str) -> &'v mut Value {
    let Some((name, selector)) = segment.strip_suffix(']').and_then(|s| s.split_once('[')) else {
        return &mut place[segment];
    };
    let list = &mut place[name];
    if list.is_null() {
        *list = json!([]);
    }
    let list = list.as_array_mut().expect("brackets follow a list");
    let index = match selector.parse() {
        Ok(index) => index,
        Err(_) if selector.is_empty() => 0,
        Err(_) => list
            .iter()
            .position(|item| item["kind"] == selector)
            .unwrap_or(list.len()),
    };
    if list.len() <= index {
        list.resize(index + 1, json!({}));
    }
    &mut list[index]
}

/// As TOML. Everything below the top is inline, which TOML reads as the same.
pub(crate) fn toml(config: &Value) -> String {
    let entries = config.as_object().expect("a configuration is a table");
    entries
        .iter()
        .map(|(key, value)| format!("{key} = {}\n", inline(value)))
        .collect()
}

fn inline(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| format!("{key:?} = {}", inline(value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        // Strings of JSON, numbers and booleans are spelt alike in TOML.
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => value.to_string(),
    }
}
