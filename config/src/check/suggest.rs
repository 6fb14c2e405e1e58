//! Known values in messages, and the nearest one to what was typed.

use super::place::shorten;

/// How many known values a message lists, and how many are compared.
const LISTED_MAX: usize = 12;
const COMPARED_MAX: usize = 1_000;

/// `; did you mean "blue"? Known: "blue", "green"` for what was typed.
pub(crate) fn known<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let mut known: Vec<_> = known.into_iter().filter(|name| !name.is_empty()).collect();
    known.sort_unstable();
    let mut text = String::new();
    if let Some(name) = nearest(typed, known.iter().copied()) {
        text.push_str(&format!("; did you mean {name:?}?"));
    }
    if known.is_empty() {
        text.push_str("; none is configured");
        return text;
    }
    text.push_str(if text.is_empty() {
        "; known: "
    } else {
        " Known: "
    });
    for (i, name) in known.iter().take(LISTED_MAX).enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        text.push_str(&format!("{comma}{:?}", shorten(name)));
    }
    if known.len() > LISTED_MAX {
        text.push_str(&format!(" and {} more", known.len() - LISTED_MAX));
    }
    text
}

/// The known name that `typed` most probably stands for, if one is near enough.
pub(crate) fn nearest<'k>(
    typed: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    if typed.is_empty() || typed.len() > 64 {
        return None;
    }
    let typed = typed.to_ascii_lowercase();
    let allowed = (typed.len() / 3).clamp(1, 4);
    let near = |name: &str| {
        // A word and its beginning are near whatever their lengths: `warning` and `warn`.
        let begins = typed.len().min(name.len()) >= 3
            && (typed.starts_with(name) || name.starts_with(&typed));
        if !begins && name.len().abs_diff(typed.len()) > allowed {
            return None;
        }
        let distance = distance(typed.as_bytes(), name.as_bytes());
        (begins || distance <= allowed).then_some(distance)
    };
    known
        .into_iter()
        .take(COMPARED_MAX)
        .filter(|name| name.len() <= 64)
        .filter_map(|name| near(name).map(|distance| (distance, name)))
        .min()
        .map(|(_, name)| name)
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names = ["head_timeout_ms", "body_timeout_ms", "name"];
        assert_eq!(nearest("head_timout_ms", names), Some("head_timeout_ms"));
        assert_eq!(nearest("naem", names), Some("name"));
        assert_eq!(nearest("NAME", names), Some("name"));
        assert_eq!(nearest("zzz", names), None);
    }

    #[test]
    fn a_long_list_of_known_names_is_cut() {
        let names: Vec<String> = (0..100).map(|i| format!("cluster-{i:03}")).collect();
        let text = known("x", names.iter().map(String::as_str));
        assert!(text.ends_with("and 88 more"), "{text}");
    }
}
