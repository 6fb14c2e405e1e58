//! Reads Prometheus' text format, as far as a test asks of it.

/// Sum of the metric's series that carry all these labels; 0.0 where there is none.
///
/// # Panics
/// Where a line of the metric is malformed.
pub(super) fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .map(|rest| series(rest).unwrap_or_else(|| panic!("malformed metric: {name}{rest}")))
        .filter(|(have, _)| {
            labels
                .iter()
                .all(|(n, v)| have.iter().any(|(name, value)| name == n && value == v))
        })
        .map(|(_, value)| value)
        .sum()
}

/// Labels and value of what follows a metric's name.
fn series(rest: &str) -> Option<(Vec<(String, String)>, f64)> {
    let mut labels = Vec::new();
    let mut rest = rest;
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            inside = inside.trim_start_matches([',', ' ']);
            if let Some(after) = inside.strip_prefix('}') {
                rest = after;
                break;
            }
            let (name, quoted) = inside.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            labels.push((name.to_owned(), value));
            inside = after;
        }
    }
    Some((labels, rest.split_whitespace().next()?.parse().ok()?))
}

/// A label's value up to its closing quote, and what follows that.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP hub_x_total Things.\n# TYPE hub_x_total counter\n\
        hub_x_total{route=\"a\",status=\"2xx\"} 3\nhub_x_total{route=\"a\",status=\"4xx\"} 2\n\
        hub_x_total{route=\"q\\\"},{\\n\",status=\"4xx\"} 10 1700000000\nhub_x_total_more 7\nhub_y 1.5e3\n";

    #[test]
    fn series_are_summed_by_the_labels_that_are_named() {
        assert_eq!(sum(TEXT, "hub_x_total", &[]), 15.0);
        assert_eq!(sum(TEXT, "hub_x_total", &[("route", "a")]), 5.0);
        assert_eq!(
            sum(TEXT, "hub_x_total", &[("status", "4xx"), ("route", "a")]),
            2.0
        );
        assert_eq!(sum(TEXT, "hub_y", &[]), 1500.0);
    }

    #[test]
    fn escaped_label_values_are_read_back() {
        assert_eq!(sum(TEXT, "hub_x_total", &[("route", "q\"},{\n")]), 10.0);
    }

    #[test]
    fn an_absent_series_is_zero() {
        assert_eq!(sum(TEXT, "hub_x_total", &[("route", "b")]), 0.0);
        assert_eq!(sum(TEXT, "hub_z", &[]), 0.0);
    }
}
