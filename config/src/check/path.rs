//! Path patterns: only those that a normalised path can match.

use super::place::shorten;
use crate::file::PathMatch;
use crate::runtime::{PathPattern, Segment};

/// Checks a route's pattern.
pub(crate) fn pattern(file: &PathMatch) -> Result<PathPattern, String> {
    match file {
        PathMatch::Exact(text) => {
            no_braces(text)?;
            plain(text)?;
            Ok(PathPattern::Exact(text.clone()))
        }
        PathMatch::Prefix(text) => {
            no_braces(text)?;
            plain(text)?;
            match text.strip_suffix('/') {
                None | Some("") => Ok(PathPattern::Prefix(text.clone())),
                Some(short) => Err(format!(
                    "{:?} ends with \"/\"; write {:?}, which also matches what is below it",
                    shorten(text),
                    shorten(short)
                )),
            }
        }
        PathMatch::Template(text) => template(text).map(PathPattern::Template),
    }
}

/// Path and query of a request that the gateway itself sends.
pub(crate) fn target(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("{:?} does not start with \"/\"", shorten(text)));
    }
    if text.len() > 2_048 || text.contains('#') || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("is no path: visible ASCII without \"#\", at most 2048 characters".into());
    }
    Ok(())
}

fn template(text: &str) -> Result<Vec<Segment>, String> {
    let shown = shorten(text);
    let rest = text.strip_prefix('/').ok_or_else(|| no_slash(text))?;
    let mut segments: Vec<Segment> = Vec::new();
    for part in rest.split('/') {
        if matches!(segments.last(), Some(Segment::Rest(_))) {
            return Err(format!(
                "{shown:?} goes on after {{*name}}, which takes all the rest; put it last"
            ));
        }
        let segment = match part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
        {
            Some(inner) => match inner.strip_prefix('*') {
                Some(name) => Segment::Rest(segment_name(name)?),
                None => Segment::One(segment_name(inner)?),
            },
            None if part.contains(['{', '}']) => {
                return Err(format!(
                    "{:?} mixes text and braces; a segment is text or {{name}} as a whole",
                    shorten(part)
                ));
            }
            None => Segment::Literal(part.to_owned()),
        };
        let name = |segment: &Segment| match segment {
            Segment::One(name) | Segment::Rest(name) => Some(name.clone()),
            Segment::Literal(_) => None,
        };
        if let Some(twice) = name(&segment)
            && segments
                .iter()
                .any(|other| name(other).as_ref() == Some(&twice))
        {
            return Err(format!(
                "{shown:?} has two segments named {twice:?}; rename one"
            ));
        }
        segments.push(segment);
    }
    // What is left when names are taken out must be a normal path like any other.
    let literal: Vec<&str> = segments
        .iter()
        .map(|segment| match segment {
            Segment::Literal(text) => text.as_str(),
            Segment::One(_) | Segment::Rest(_) => "x",
        })
        .collect();
    plain(&format!("/{}", literal.join("/")))?;
    if segments
        .iter()
        .all(|segment| matches!(segment, Segment::Literal(_)))
    {
        return Err(format!(
            "{shown:?} has no {{name}}; use exact or prefix instead"
        ));
    }
    if text.ends_with('/') {
        return Err(format!("{shown:?} ends with \"/\"; leave it out"));
    }
    Ok(segments)
}

fn segment_name(name: &str) -> Result<String, String> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if (1..=64).contains(&name.len()) && name.bytes().all(fine) {
        Ok(name.to_owned())
    } else {
        let shown = shorten(name);
        Err(format!(
            "{{{shown}}} is no segment name: write 1 to 64 of a-z 0-9 _ in the braces"
        ))
    }
}

fn no_braces(text: &str) -> Result<(), String> {
    if text.contains(['{', '}']) {
        return Err(format!(
            "{:?} has braces; write path = {{ template = ... }}",
            shorten(text)
        ));
    }
    Ok(())
}

fn no_slash(text: &str) -> String {
    format!("{:?} does not start with \"/\"", shorten(text))
}

/// A path that is its own normal form; any other pattern could never match.
fn plain(text: &str) -> Result<(), String> {
    let shown = shorten(text);
    if !text.starts_with('/') {
        return Err(no_slash(text));
    }
    if text.len() > 2_048 {
        return Err("is longer than 2048 characters".into());
    }
    if text.contains("//") {
        return Err(format!(
            "{shown:?} has an empty segment (\"//\"); write one slash"
        ));
    }
    if text
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        return Err(format!(
            "{shown:?} has a \".\" or \"..\" segment; write the path that it leads to"
        ));
    }
    for c in text.chars() {
        let reason = match c {
            '?' | '#' => "ends a path; routes match the path alone",
            '\\' => "is refused in every request",
            ';' => "starts a parameter, which may not decide the route",
            c if c.is_ascii_control() => "is a control character",
            c if !c.is_ascii() => "is not ASCII; write it percent-encoded",
            ' ' | '"' | '<' | '>' | '^' | '`' | '{' | '}' => {
                "cannot stand in a path; write it percent-encoded"
            }
            _ => continue,
        };
        return Err(format!("{shown:?} cannot match: {c:?} {reason}"));
    }
    escapes(text)
}

/// Escapes that survive normalisation: not of bytes that may stand as they are, which are decoded, nor
/// of those that are refused; in upper case; and UTF-8 together.
fn escapes(text: &str) -> Result<(), String> {
    let shown = shorten(text);
    let mut meant = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            meant.push(byte);
            continue;
        }
        let digits: String = bytes.by_ref().take(2).map(char::from).collect();
        let value = u8::from_str_radix(&digits, 16).ok();
        let value = value.filter(|_| digits.len() == 2 && !digits.starts_with('+'));
        let value =
            value.ok_or_else(|| format!("{shown:?} has \"%\" without two hexadecimal digits"))?;
        let allowed = char::from(value);
        if value.is_ascii_control() || matches!(value, b'/' | b'\\') {
            return Err(format!(
                "%{digits} is refused in every request; leave it out"
            ));
        }
        if allowed.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@[]|".contains(allowed) {
            return Err(format!(
                "%{digits} is decoded before routes are matched; write {allowed:?}"
            ));
        }
        if digits.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(format!("%{digits}: write hexadecimal digits in upper case"));
        }
        meant.push(value);
    }
    let meant = String::from_utf8(meant).map_err(|_| {
        format!("{shown:?} has escapes that are not UTF-8, which is refused in every request")
    })?;
    let twice = |at: usize| {
        let next = meant.as_bytes().get(at + 1..at + 3);
        next.is_some_and(|next| next.iter().all(u8::is_ascii_hexdigit))
    };
    if meant.match_indices('%').any(|(at, _)| twice(at)) {
        return Err(format!(
            "{shown:?} has an escape of an escape, which is refused in every request"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_keep_the_order_of_their_segments() {
        let file = PathMatch::Template("/locations/{location_id}/files/{*rest}".into());
        let Ok(PathPattern::Template(segments)) = pattern(&file) else {
            panic!("a good template is accepted");
        };
        assert_eq!(segments.len(), 4);
        assert_eq!(segments[1], Segment::One("location_id".into()));
        assert_eq!(segments[3], Segment::Rest("rest".into()));
    }

    #[test]
    fn the_root_is_a_prefix_and_an_exact_path_may_end_with_a_slash() {
        assert!(pattern(&PathMatch::Prefix("/".into())).is_ok());
        assert!(pattern(&PathMatch::Exact("/a/".into())).is_ok());
        assert!(pattern(&PathMatch::Exact("/caf%C3%A9,v=1|[2]/100%25".into())).is_ok());
    }

    #[test]
    fn a_pattern_that_no_normalised_path_equals_is_refused() {
        for bad in [
            "", "a", "/a//b", "/a/../b", "/a/./b", "/..", "/a?b", "/a#b", "/a\\b", "/a\0", "/a b",
            "/é", "/a%2fb", "/a%2F", "/a%5C", "/a%00", "/%41", "/%c3", "/%", "/%4", "/%zz", "/%é",
            "/a\"b", "/a;b", "/%2541", "/%3A", "/%5B", "/%C3", "/%+1",
        ] {
            assert!(pattern(&PathMatch::Exact(bad.into())).is_err(), "{bad:?}");
        }
    }
}
