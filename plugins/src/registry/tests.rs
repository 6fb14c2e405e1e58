use super::*;
use crate::testing::{catalog, problems_of};
use serde_json::json;

#[test]
fn kinds_are_sorted_and_each_has_a_self_contained_schema() {
    let kinds = catalog().kinds();
    assert!(kinds.is_sorted());
    for kind in kinds {
        let text = serde_json::to_string(&catalog().schema(kind).unwrap()).unwrap();
        assert!(
            text.contains("\"additionalProperties\":false"),
            "{kind}: {text}"
        );
        assert!(
            !text.contains("$ref") && !text.contains("$schema"),
            "{kind}: {text}"
        );
    }
    assert!(catalog().schema("nope").is_none());
}

#[test]
fn every_setting_of_every_kind_is_described() {
    fn check(path: &str, schema: &Value) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                let path = format!("{path}.{name}");
                assert!(
                    property.get("description").is_some(),
                    "{path} has no description"
                );
                check(&path, property);
            }
        }
        for inner in ["items"].iter().filter_map(|key| schema.get(key)) {
            check(path, inner);
        }
    }
    for kind in catalog().kinds() {
        check(kind, catalog().schema(kind).unwrap().as_value());
    }
}

#[test]
fn an_unknown_kind_is_an_error_that_lists_the_known_ones() {
    let problems = catalog().build("jvt", "x", &Map::new(), None).unwrap_err();
    assert_eq!(
        problems[0].message,
        "there is no kind of plugin `jvt`; the kinds are api_key, headers, jwt, request_id"
    );
}

#[test]
fn what_was_built_tells_whether_it_identifies_and_gives_the_instance_back() {
    let built = |kind: &str, config: Value| {
        catalog()
            .build(kind, "x", config.as_object().unwrap(), None)
            .unwrap()
    };
    let request_id = built("request_id", json!({}));
    assert!(!request_id.identifies);
    assert_eq!(Catalog::instance(&request_id).step(), Step::Request);
    let key = json!({ "keys": [{ "name": "a", "sha256": "0".repeat(64) }] });
    let api_key = built("api_key", key);
    assert!(api_key.identifies);
    assert_eq!(Catalog::instance(&api_key).step(), Step::Identify);
}

#[test]
fn an_instance_goes_on_until_its_settings_or_a_file_of_it_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let one = crate::api_key::generate("one", None).unwrap().line;
    let two = crate::api_key::generate("two", None).unwrap().line;
    // Past the bound of most files that a configuration names.
    let comment = format!("# {}\n", "x".repeat(1_000)).repeat(5_000);
    std::fs::write(&path, format!("{comment}{one}\n{two}\n")).unwrap();
    let build = |required: bool, running: Option<&BuiltPlugin>| {
        let config = json!({ "file": path, "required": required });
        let config = config.as_object().unwrap();
        catalog().build("api_key", "x", config, running).unwrap()
    };
    let is = |one: &BuiltPlugin, other: &BuiltPlugin| {
        assert_eq!(
            one.mark == other.mark,
            Arc::ptr_eq(&one.instance, &other.instance)
        );
        one.mark == other.mark
    };
    let first = build(true, None);
    assert_eq!(first.files, std::slice::from_ref(&path));
    assert!(is(&first, &build(true, Some(&first))));
    assert!(!is(&first, &build(false, Some(&first))));
    std::fs::write(&path, format!("{comment}{one}\n")).unwrap();
    let second = build(true, Some(&first));
    assert!(!is(&first, &second));
    assert!(is(&second, &build(true, Some(&second))));
}

#[test]
fn several_unreadable_settings_are_reported_in_one_run() {
    let config = json!({ "header": 7, "heador": "X", "keys": [{ "name": "a", "sha256": 1 }] });
    let mut at = problems_of("api_key", config);
    at.sort();
    assert_eq!(at, ["header", "heador", "keys[0].sha256"]);
}

#[test]
fn the_documentation_names_every_setting_and_its_example_is_code_that_is_tested() {
    let text = include_str!("../../../docs/plugins.md");
    assert!(
        text.contains(include_str!("../worked_example.rs").trim_end()),
        "docs/plugins.md must show src/worked_example.rs as it is"
    );
    for kind in catalog().kinds() {
        let heading = format!("\n### `{kind}`\n");
        let section = text
            .split(&heading)
            .nth(1)
            .expect("a section for each kind");
        let section = section
            .split("\n### ")
            .next()
            .expect("split gives one part at least");
        let schema = catalog().schema(kind).unwrap();
        for name in names(schema.as_value()) {
            assert!(
                section.contains(&format!("`{name}`")),
                "{kind}: {name} is missing"
            );
        }
    }
}

/// Every name of a setting, however deep.
fn names(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                if let ("properties", Value::Object(properties)) = (key.as_str(), value) {
                    found.extend(properties.keys().cloned());
                }
                found.extend(names(value));
            }
        }
        Value::Array(list) => found.extend(list.iter().flat_map(names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found
}
