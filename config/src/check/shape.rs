//! Holds a tree of values against the JSON Schema of the file types, so that every unknown key, wrong
//! type, missing key and number out of range is reported in one run, where serde stops at the first.
//!
//! What does not fit is reported and then repaired (dropped, or replaced by the simplest value of the
//! right type), so that the checks of meaning can go on. The caller remembers where repairs were made
//! and keeps quiet about what they cause.

use super::place::{At, Step, shorten};
use super::suggest;
use serde_json::{Map, Value};

/// Takes what does not fit.
pub(crate) trait Report {
    /// Something is wrong here, and is repaired.
    fn problem(&mut self, at: &At<'_>, message: String);

    /// Something is repaired here that another problem has told of.
    fn repaired(&mut self, at: &At<'_>);
}

/// A schema as `schemars` makes it from serde types, with every reference followed once: ten thousand
/// routes are held against the same few of them.
#[derive(Debug)]
pub(crate) struct Shape {
    root: Value,
}

/// Deepest nesting that is followed. TOML's parser has a bound of its own; JSON's is 128.
const DEPTH_MAX: usize = 130;

impl Shape {
    pub(crate) fn new(mut root: Value) -> Self {
        let definitions = root.as_object_mut().and_then(|root| root.remove("$defs"));
        let definitions = definitions.unwrap_or_default();
        Self {
            root: follow(root, &definitions, 0),
        }
    }

    /// Repairs `value`, which stands at `at`, until it fits the part of the schema at `pointer`.
    pub(crate) fn fit(
        &self,
        pointer: &str,
        value: &mut Value,
        at: &At<'_>,
        report: &mut dyn Report,
    ) {
        let schema = self.root.pointer(pointer).unwrap_or(&Value::Null);
        if !Self::fits(schema, value, at, report, 0) {
            *value = Self::simplest(schema);
        }
    }

    /// False where `value` as a whole is of the wrong kind, which is reported then.
    fn fits(
        schema: &Value,
        value: &mut Value,
        at: &At<'_>,
        report: &mut dyn Report,
        depth: usize,
    ) -> bool {
        if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
            return Self::fits_one(choices, value, at, report, depth);
        }
        let expected = types(schema);
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        // A schema without a type takes anything: plugins check their own settings.
        if depth > DEPTH_MAX || expected.is_empty() {
            return true;
        }
        if !expected.contains(&found) {
            report.problem(at, wrong_kind(schema, &expected, value, at));
            return false;
        }
        match value {
            Value::Number(number) => in_range(schema, number, at, report),
            Value::Array(items) => {
                if let Some(inner) = schema.get("items") {
                    for (i, item) in items.iter_mut().enumerate() {
                        if !Self::fits(inner, item, &at.index(i), report, depth + 1) {
                            *item = Self::simplest(inner);
                        }
                    }
                }
                true
            }
            Value::Object(entries) => {
                Self::fit_object(schema, entries, at, report, depth);
                true
            }
            Value::Null | Value::Bool(_) | Value::String(_) => true,
        }
    }

    fn fit_object(
        schema: &Value,
        entries: &mut Map<String, Value>,
        at: &At<'_>,
        report: &mut dyn Report,
        depth: usize,
    ) {
        let empty = Map::new();
        let known = schema
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&empty);
        let rest = schema.get("additionalProperties");
        let required: Vec<&str> = strings(schema.get("required")).collect();
        let mut meant_ones = Vec::new();
        let mut missing: Vec<&str> = required
            .iter()
            .copied()
            .filter(|key| !entries.contains_key(*key))
            .collect();
        let mut drop = Vec::new();
        for (key, value) in entries.iter_mut() {
            let at = at.key(key);
            match (known.get(key), rest) {
                (Some(inner), _) => {
                    if !Self::fits(inner, value, &at, report, depth + 1) {
                        if required.contains(&key.as_str()) {
                            *value = Self::simplest(inner);
                        } else {
                            drop.push(key.clone());
                        }
                    }
                }
                (None, Some(Value::Bool(false))) => {
                    drop.push(key.clone());
                    // A key that was meant for a missing one is one mistake, not two.
                    let meant = suggest::nearest(key, missing.iter().copied());
                    if let Some(meant) = meant {
                        missing.retain(|key| *key != meant);
                        meant_ones.push(meant);
                    }
                    let advice = suggest::known(key, known.keys().map(String::as_str));
                    report.problem(&at, format!("unknown key {:?}{advice}", shorten(key)));
                }
                (None, Some(inner @ Value::Object(_))) => {
                    if !Self::fits(inner, value, &at, report, depth + 1) {
                        drop.push(key.clone());
                    }
                }
                (None, _) => {}
            }
        }
        for key in drop {
            entries.remove(&key);
        }
        for key in &missing {
            let kind = known.get(*key).map_or("value", |inner| Self::kind(inner));
            report.problem(&at.key(key), format!("{key:?} is missing; it takes {kind}"));
        }
        for key in meant_ones {
            report.repaired(&at.key(key));
        }
        for key in required {
            if let (false, Some(inner)) = (entries.contains_key(key), known.get(key)) {
                entries.insert(key.to_owned(), Self::simplest(inner));
            }
        }
    }

    /// Enums: texts (`blue`), tables of one key (`{ prefix = "/api" }`), or both.
    fn fits_one(
        choices: &[Value],
        value: &mut Value,
        at: &At<'_>,
        report: &mut dyn Report,
        depth: usize,
    ) -> bool {
        let words: Vec<&str> = choices.iter().flat_map(words).collect();
        let tags: Vec<(&str, &Value)> = choices.iter().filter_map(tag).collect();
        let advice = |typed: &str| {
            let tags = tags.iter().map(|(tag, _)| *tag);
            suggest::known(typed, words.iter().copied().chain(tags))
        };
        match value {
            Value::String(text) if words.contains(&text.as_str()) => return true,
            Value::String(text) if tags.iter().any(|(tag, _)| tag == text) => {
                report.problem(
                    at,
                    format!("{text:?} needs a value: write {{ {text} = \"...\" }}"),
                );
            }
            Value::String(text) if tags.is_empty() || !words.is_empty() => {
                report.problem(
                    at,
                    format!("unknown value {:?}{}", shorten(text), advice(text)),
                );
            }
            Value::Object(entries) if !tags.is_empty() => {
                if let (1, Some((key, inner))) = (entries.len(), entries.iter_mut().next()) {
                    let Some((_, schema)) = tags.iter().find(|(tag, _)| tag == key) else {
                        let message = format!("unknown key {:?}{}", shorten(key), advice(key));
                        report.problem(&at.key(key), message);
                        report.repaired(at);
                        return false;
                    };
                    return Self::fits(schema, inner, &at.key(key), report, depth + 1);
                }
                let names = list(tags.iter().map(|(tag, _)| *tag));
                report.problem(
                    at,
                    format!("takes exactly one of {names}, found {}", entries.len()),
                );
            }
            Value::String(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {
                let mut wanted = Vec::new();
                if !words.is_empty() {
                    wanted.push(format!("one of the texts {}", list(words.iter().copied())));
                }
                if !tags.is_empty() {
                    let names = list(tags.iter().map(|(tag, _)| *tag));
                    wanted.push(format!(
                        "a table {{ key = \"...\" }} with one key of {names}"
                    ));
                }
                report.problem(
                    at,
                    format!("takes {}, found {}", wanted.join(" or "), describe(value)),
                );
            }
        }
        false
    }

    /// The simplest value that fits; only ever read by serde, since its place is known as mistaken.
    fn simplest(schema: &Value) -> Value {
        if let Some(first) = schema.get("oneOf").and_then(|all| all.get(0)) {
            if let Some(word) = words(first).next() {
                return word.into();
            }
            if let Some((tag, inner)) = tag(first) {
                return Value::Object(Map::from_iter([(tag.to_owned(), Self::simplest(inner))]));
            }
        }
        match types(schema).first() {
            Some(&"boolean") => false.into(),
            Some(&"integer" | &"number") => schema.get("minimum").cloned().unwrap_or(0.into()),
            Some(&"string") => "".into(),
            Some(&"array") => Value::Array(Vec::new()),
            Some(&"object") => {
                let known = |key: &str| schema.get("properties").and_then(|all| all.get(key));
                strings(schema.get("required"))
                    .filter_map(|key| Some((key.to_owned(), Self::simplest(known(key)?))))
                    .collect::<Map<_, _>>()
                    .into()
            }
            Some(_) | None => Value::Null,
        }
    }

    fn kind(schema: &Value) -> &'static str {
        if schema.get("oneOf").is_some() {
            return "one of its known values";
        }
        types(schema)
            .first()
            .map_or("a value", |name| kind_name(name))
    }
}

/// Follows each `$ref` and sees through `Option`'s `anyOf [.., null]`.
fn follow(schema: Value, definitions: &Value, depth: usize) -> Value {
    // The file types do not hold themselves, and are far less deep.
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    match schema {
        Value::Object(mut schema) => {
            let name = schema.get("$ref").and_then(Value::as_str);
            let target = name.and_then(|name| definitions.get(name.strip_prefix("#/$defs/")?));
            if let Some(target) = target {
                return follow(target.clone(), definitions, depth + 1);
            }
            if let Some(Value::Array(all)) = schema.get_mut("anyOf") {
                let inner = all.iter_mut().find(|one| types(one) != ["null"]);
                let inner = inner.map(Value::take).unwrap_or_default();
                return follow(inner, definitions, depth + 1);
            }
            let entries = schema.into_iter();
            entries
                .map(|(key, inner)| (key, follow(inner, definitions, depth + 1)))
                .collect::<Map<_, _>>()
                .into()
        }
        Value::Array(items) => {
            let items = items.into_iter();
            items
                .map(|item| follow(item, definitions, depth + 1))
                .collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => schema,
    }
}

fn in_range(
    schema: &Value,
    number: &serde_json::Number,
    at: &At<'_>,
    report: &mut dyn Report,
) -> bool {
    let exact = number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from));
    let bound = |key: &str| schema.get(key).and_then(Value::as_i64).map(i128::from);
    let (Some(value), Some(min), Some(max)) = (exact, bound("minimum"), bound("maximum")) else {
        return true;
    };
    if (min..=max).contains(&value) {
        return true;
    }
    report.problem(
        at,
        format!("{value} is out of range: write a whole number from {min} to {max}"),
    );
    false
}

fn wrong_kind(schema: &Value, expected: &[&str], value: &Value, at: &At<'_>) -> String {
    let wanted = expected
        .iter()
        .find(|name| **name != "null")
        .map_or("nothing", |name| kind_name(name));
    let range = match (schema.get("minimum"), schema.get("maximum")) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        _ => String::new(),
    };
    let advice = match value {
        Value::Bool(is_on) if expected.contains(&"object") => table_advice(*is_on, at),
        _ => String::new(),
    };
    format!("takes {wanted}{range}, found {}{advice}", describe(value))
}

/// What is turned on by a table, people try to turn on by `true`.
fn table_advice(is_on: bool, at: &At<'_>) -> String {
    // Elsewhere it may be a line of JSON.
    let [Step::Key(section), Step::Index(_), Step::Key(key)] = at.steps()[..] else {
        return String::new();
    };
    match is_on {
        true => format!("; write [{section}.{key}] below the other keys instead"),
        false => "; leave it out instead".into(),
    }
}

fn kind_name(name: &str) -> &'static str {
    match name {
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text in quotes",
        "array" => "a list [...]",
        "object" => "a table",
        _ => "a value",
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => format!("{value}"),
        Value::Number(value) => format!("the number {value}"),
        // The text itself is not repeated: it may be a secret in the wrong place.
        Value::String(_) => "text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a table".into(),
    }
}

fn list<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words
        .map(|word| format!("{word:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        all => strings(all).collect(),
    }
}

fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// The texts that one choice of an enum allows.
fn words(choice: &Value) -> impl Iterator<Item = &str> {
    let one = choice.get("const").and_then(Value::as_str);
    one.into_iter().chain(strings(choice.get("enum")))
}

/// The single key of a choice that is a table.
fn tag(choice: &Value) -> Option<(&str, &Value)> {
    let mut properties = choice.get("properties")?.as_object()?.iter();
    properties
        .next()
        .map(|(key, schema)| (key.as_str(), schema))
}
