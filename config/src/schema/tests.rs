use super::{json_schema, json_schema_text, key_paths, write_json_schema};
use crate::testing::FakeCatalog;
use serde_json::Value;
use std::path::Path;

fn keys() -> Vec<String> {
    key_paths(&json_schema(&FakeCatalog))
}

#[test]
fn every_leaf_is_a_key_once() {
    let keys = keys();
    for wanted in [
        "listener[].head_timeout_ms",
        "listener[].tls.certificates[].key_file",
        "listener[].proxy_protocol_from",
        "cluster[].endpoints.blue",
        "cluster[].health.kind",
        "route[].path.prefix",
        "route[].tenant.sources",
        "route[].tenant.sources[].header",
        "tenant[].colours.*",
        "plugin[].kind",
        "plugin[jwt].config.keys[].algorithm",
        "plugin[jwt].config.leeway_seconds",
        "tenants.directory",
        "gateway.workers",
    ] {
        assert!(
            keys.iter().any(|key| key == wanted),
            "{wanted} is not in {keys:#?}"
        );
    }
    let mut sorted = keys.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(keys, sorted);
    for key in &keys {
        assert!(!key.is_empty() && !key.contains("plugin[].config"), "{key}");
    }
}

#[test]
fn a_kind_without_settings_has_no_keys() {
    assert!(!keys().iter().any(|key| key.starts_with("plugin[headers]")));
}

#[test]
fn plugins_settings_are_chosen_by_kind_and_keep_their_definitions_apart() {
    let schema = json_schema(&FakeCatalog);
    let kinds = schema
        .pointer("/$defs/Plugin/properties/kind/enum")
        .unwrap();
    assert_eq!(
        kinds,
        &serde_json::json!(["api_key", "headers", "jwt", "request_id"])
    );
    let jwt = schema.pointer("/$defs/Plugin/allOf/2").unwrap();
    assert_eq!(jwt.pointer("/if/properties/kind/const").unwrap(), "jwt");
    assert_eq!(jwt.pointer("/then/required/0").unwrap(), "config");
    let items = jwt.pointer("/then/properties/config/properties/keys/items/$ref");
    assert_eq!(items.unwrap(), "#/$defs/jwt.JwtKey");
    assert!(schema.pointer("/$defs/jwt.JwtKey").is_some());
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(root: &Value, value: &Value) {
        match value {
            Value::Object(entries) => entries.iter().for_each(|(key, inner)| {
                if let ("$ref", Some(target)) = (key.as_str(), inner.as_str()) {
                    assert!(root.pointer(&target[1..]).is_some(), "{target}");
                }
                check(root, inner);
            }),
            Value::Array(items) => items.iter().for_each(|item| check(root, item)),
            _ => {}
        }
    }
    let schema = json_schema(&FakeCatalog);
    check(&schema, &schema);
}

#[test]
fn the_range_of_each_number_is_the_one_that_its_description_names() {
    fn check(value: &Value, count: &mut usize) {
        match value {
            Value::Object(entries) => {
                for (key, inner) in entries
                    .get("properties")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten()
                {
                    let types = inner.get("type").map(Value::to_string).unwrap_or_default();
                    if types.contains("integer") {
                        let text = inner["description"].as_str().unwrap().replace('\n', " ");
                        let (min, max) = (&inner["minimum"], &inner["maximum"]);
                        let said = [format!("; {min} to {max}"), format!("; {min} or {max}")];
                        assert!(
                            said.iter().any(|range| text.contains(range)),
                            "{key}: {min} {max}: {text}"
                        );
                        *count += 1;
                    }
                }
                entries.values().for_each(|inner| check(inner, count));
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, count)),
            _ => {}
        }
    }
    // Without the fake catalog's kinds, whose numbers say nothing.
    let mut count = 0;
    check(
        &schemars::schema_for!(crate::file::Config).to_value(),
        &mut count,
    );
    assert!(count > 35, "{count}");
}

#[test]
fn each_default_is_the_one_that_its_description_names() {
    fn check(value: &Value, count: &mut usize) {
        match value {
            Value::Object(entries) => {
                for (key, inner) in entries
                    .get("properties")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten()
                {
                    let text = inner
                        .get("description")
                        .and_then(Value::as_str)
                        .unwrap_or_default();
                    let text = text.replace('\n', " ");
                    if let Some(default) = inner.get("default").filter(|value| value.is_u64()) {
                        assert!(
                            text.contains(&format!("Default {default}")),
                            "{key}: {default}: {text}"
                        );
                        *count += 1;
                    }
                }
                entries.values().for_each(|inner| check(inner, count));
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, count)),
            _ => {}
        }
    }
    let mut count = 0;
    check(
        &schemars::schema_for!(crate::file::Config).to_value(),
        &mut count,
    );
    assert!(count > 25, "{count}");
}

#[test]
fn the_schema_is_written_as_it_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schema.json");
    write_json_schema(&path, &FakeCatalog).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, json_schema_text(&FakeCatalog));
    assert!(text.ends_with("}\n"));
    assert!(write_json_schema(Path::new("/none/schema.json"), &FakeCatalog).is_err());
}
