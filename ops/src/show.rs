//! Answers of the admin API as text for a terminal.

use serde_json::Value;
use std::fmt::Write;

/// A table with a head; columns as wide as their widest cell.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut row = String::new();
        for (width, cell) in widths.iter().zip(cells) {
            // Writing to a String cannot fail.
            let _infallible = write!(row, "{cell:<width$}  ");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text.truncate(text.trim_end().len());
    text
}

pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        other => other.to_string(),
    }
}

pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn status(body: &Value) -> String {
    let listeners: Vec<Vec<String>> = items(&body["listeners"])
        .iter()
        .map(|listener| {
            ["name", "address", "tls", "connections"]
                .map(|key| cell(&listener[key]))
                .to_vec()
        })
        .collect();
    format!(
        "{phase}, {in_flight} requests in flight, version {version}\n\
         snapshot {epoch}, {age} s old, hash {hash}\n\
         {routes} routes, {clusters} clusters, {tenants} tenants\n\n{listeners}",
        phase = cell(&body["phase"]),
        in_flight = cell(&body["in_flight"]),
        version = cell(&body["version"]),
        epoch = cell(&body["epoch"]),
        age = cell(&body["age_seconds"]),
        hash = cell(&body["hash"]),
        routes = cell(&body["routes"]),
        clusters = cell(&body["clusters"]),
        tenants = cell(&body["tenants"]),
        listeners = table(&["LISTENER", "ADDRESS", "TLS", "CONNECTIONS"], &listeners),
    )
}

pub(crate) fn tenants(body: &Value) -> String {
    let keys = [
        "id",
        "slug",
        "enabled",
        "requests_per_second",
        "in_flight_max",
        "in_flight",
        "requests",
        "limited",
    ];
    let rows: Vec<Vec<String>> = items(&body["tenants"])
        .iter()
        .map(|tenant| keys.map(|key| cell(&tenant[key])).to_vec())
        .collect();
    let mut text = table(
        &[
            "TENANT",
            "SLUG",
            "ENABLED",
            "RPS",
            "IN-FLIGHT MAX",
            "IN FLIGHT",
            "REQUESTS",
            "LIMITED",
        ],
        &rows,
    );
    let more = body["more"].as_u64().unwrap_or(0);
    if more > 0 {
        text.push_str(&format!("\n… and {more} more; use --prefix or --limit"));
    }
    text
}

pub(crate) fn clusters(body: &Value) -> String {
    let mut rows = Vec::new();
    for cluster in items(&body["clusters"]) {
        for endpoint in items(&cluster["endpoints"]) {
            let active = endpoint["colour"] == cluster["active"];
            rows.push(vec![
                cell(&cluster["name"]),
                format!(
                    "{}{}",
                    cell(&endpoint["colour"]),
                    if active { " (active)" } else { "" }
                ),
                cell(&endpoint["address"]),
                match (endpoint["checked"].as_bool(), endpoint["healthy"].as_bool()) {
                    (_, Some(false)) => "no".into(),
                    (Some(true), _) => "yes".into(),
                    _ => "unchecked".into(),
                },
                cell(&endpoint["in_flight"]),
                endpoint["latency_ms"]
                    .as_f64()
                    .map_or("-".into(), |ms| format!("{ms:.1}")),
                cell(&endpoint["last_error"]),
            ]);
        }
    }
    table(
        &[
            "CLUSTER",
            "COLOUR",
            "ENDPOINT",
            "HEALTHY",
            "IN FLIGHT",
            "LATENCY MS",
            "LAST ERROR",
        ],
        &rows,
    )
}

pub(crate) fn reload(body: &Value) -> String {
    let mut text = match body["outcome"].as_str().unwrap_or("") {
        "applied" => format!(
            "applied: snapshot {} is in force (hash {}, {} ms)",
            cell(&body["epoch"]),
            cell(&body["hash"]),
            cell(&body["took_ms"])
        ),
        "unchanged" => "unchanged: what the files say is in force already".into(),
        "would_apply" if items(&body["diff"]["changes"]).is_empty() => {
            "a reload would change nothing".into()
        }
        "would_apply" => "a reload would apply these changes:".into(),
        "rejected" => "rejected; the old configuration stays in force:".into(),
        "needs_upgrade" => format!(
            "rejected (needs_upgrade); a running process cannot change: {}\n\
             `hubctl upgrade` starts one that has the new configuration, and loses no request",
            items(&body["settings"])
                .iter()
                .map(cell)
                .collect::<Vec<_>>()
                .join(", ")
        ),
        other => format!("unknown outcome {other:?}"),
    };
    for problem in items(&body["problems"]) {
        text.push_str(&format!("\n  {}", cell(problem)));
    }
    for change in items(&body["diff"]["changes"]) {
        text.push_str(&format!(
            "\n  {} {} {}",
            cell(&change["what"]),
            cell(&change["path"]),
            change["detail"].as_str().unwrap_or("")
        ));
    }
    text
}

/// Nested values as indented `key: value` lines.
pub(crate) fn plain(body: &Value) -> String {
    let mut text = String::new();
    indent(body, 0, &mut text);
    text.truncate(text.trim_end().len());
    text
}

fn indent(value: &Value, depth: usize, text: &mut String) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if value.is_object() || value.as_array().is_some_and(|a| !a.is_empty()) {
                    text.push_str(&format!("{pad}{key}:\n"));
                    indent(value, depth + 1, text);
                } else {
                    text.push_str(&format!("{pad}{key}: {}\n", leaf(value)));
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                if value.is_object() {
                    text.push_str(&format!("{pad}-\n"));
                    indent(value, depth + 1, text);
                } else {
                    text.push_str(&format!("{pad}- {}\n", leaf(value)));
                }
            }
        }
        other => text.push_str(&format!("{pad}{}\n", leaf(other))),
    }
}

fn leaf(value: &Value) -> String {
    match value {
        Value::Array(list) if list.is_empty() => "none".into(),
        other => cell(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = table(&["A", "B"], &[vec!["long".into(), "x".into()]]);
        assert_eq!(text, "A     B\nlong  x");
    }

    #[test]
    fn a_rejected_reload_lists_every_problem() {
        let text = reload(&json!({"outcome": "rejected", "problems": ["one", "two"]}));
        assert!(text.contains("\n  one\n  two"), "{text}");
    }
}
