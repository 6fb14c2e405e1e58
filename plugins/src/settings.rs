//! From a `config` table to a plugin: what every kind shares.

use crate::Plugin;
use hub_config::PluginProblem;
use hub_core::HeaderName;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Settings of one kind of plugin: its `config` table, and how an instance is made from it.
pub trait Settings: DeserializeOwned + JsonSchema {
    /// What is made.
    type Plugin: Plugin;

    /// Checks the settings of the instance `name` and builds it. Every mistake goes to `scope`;
    /// `None` only where there is at least one.
    fn build(self, name: &str, scope: &mut Scope) -> Option<Self::Plugin>;
}

/// What the settings of one instance are checked in, and what was found wrong: all mistakes of one
/// run, of which the first 100 are kept and the others counted.
#[derive(Debug)]
pub struct Scope {
    /// Where relative paths start.
    base: PathBuf,
    env: fn(&str) -> Option<OsString>,
    list: Vec<PluginProblem>,
    more: usize,
    /// Keys that were taken out because they could not be read.
    unread: Vec<String>,
}

const PROBLEMS_MAX: usize = 100;

/// Names that plugins may neither set nor remove, and why.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const GATEWAYS_OWN: &[&str] = &["forwarded", "traceparent", "x-location-id", "x-real-ip"];
const GATEWAYS_OWN_PREFIXES: &[&str] = &["ratelimit-", "x-forwarded-", "x-hub-"];

// === impl Scope ===

impl Scope {
    /// An empty one. Relative paths start at `base`; `env` looks up environment variables.
    pub(crate) fn new(base: &Path, env: fn(&str) -> Option<OsString>) -> Self {
        Self {
            base: base.to_owned(),
            env,
            list: Vec::new(),
            more: 0,
            unread: Vec::new(),
        }
    }

    /// Adds one: the key path inside `config` (empty for the whole), and a sentence that says what to
    /// do.
    pub fn add(&mut self, at: impl Into<String>, message: impl Into<String>) {
        let at = at.into();
        // A key that could not be read counts as absent in later checks; what they say about it, or
        // about the whole, would mislead.
        let said = self.unread.iter().any(|unread| related(unread, &at));
        if said {
            return;
        }
        if self.list.len() < PROBLEMS_MAX {
            self.list.push(PluginProblem {
                at,
                message: message.into(),
            });
        } else {
            self.more += 1;
        }
    }

    /// Number of mistakes so far, so that a function can tell whether it added any.
    pub fn len(&self) -> usize {
        self.list.len() + self.more
    }

    /// True where nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `value`, if it is in `range`; else a problem and `None`.
    pub fn in_range<N: PartialOrd + Display + Copy>(
        &mut self,
        at: &str,
        value: N,
        range: std::ops::RangeInclusive<N>,
    ) -> Option<N> {
        if range.contains(&value) {
            return Some(value);
        }
        let (min, max) = (range.start(), range.end());
        self.add(at, format!("{value} is out of range; use {min} to {max}"));
        None
    }

    /// A header name that a plugin may use; else a problem and `None`.
    pub fn header_name(&mut self, at: &str, text: &str) -> Option<HeaderName> {
        let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
            self.add(
                at,
                format!("`{}` is not a header name", text.escape_debug()),
            );
            return None;
        };
        let reason = if FRAMING.contains(&name.as_str()) {
            "it belongs to the connection or to the framing of the message"
        } else if GATEWAYS_OWN.contains(&name.as_str())
            || GATEWAYS_OWN_PREFIXES
                .iter()
                .any(|prefix| name.as_str().starts_with(prefix))
        {
            "the gateway sets it itself, and applications trust it for that"
        } else {
            return Some(name);
        };
        self.add(
            at,
            format!("plugins may not use the header `{name}`: {reason}"),
        );
        None
    }

    /// Where a path that the operator wrote leads to.
    pub fn path(&self, written: &str) -> PathBuf {
        self.base.join(written)
    }

    /// The bytes of a file of at most `bytes_max`; else a problem and `None`.
    pub fn file(&mut self, at: &str, written: &str, bytes_max: u64) -> Option<Vec<u8>> {
        match read_file(&self.path(written), bytes_max) {
            Ok(bytes) => Some(bytes),
            Err(message) => {
                self.add(at, format!("{written}: {message}"));
                None
            }
        }
    }

    /// The bytes of an environment variable; else a problem and `None`.
    pub fn env(&mut self, at: &str, name: &str) -> Option<Vec<u8>> {
        let value = (self.env)(name).map(OsString::into_encoded_bytes);
        if value.is_none() {
            self.add(
                at,
                format!("the environment has no variable `{}`", name.escape_debug()),
            );
        }
        value
    }

    pub(crate) fn into_problems(mut self) -> Vec<PluginProblem> {
        if self.more > 0 {
            self.list.push(PluginProblem {
                at: String::new(),
                message: format!("and {} more problems", self.more),
            });
        }
        self.list
    }
}

/// True where one path is the other or lies below it: `keys[0]` and `keys[0].kid`, not `key` and
/// `keys`. The empty path is the whole and above all.
fn related(unread: &str, at: &str) -> bool {
    let below = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || outer.is_empty() || rest.starts_with(['.', '[']))
    };
    below(at, unread) || below(unread, at)
}

fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            "does not exist; relative paths start at the configuration's folder".into()
        }
        _ => format!("cannot be opened: {error}"),
    })?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    Ok(bytes)
}

/// Reads settings strictly. serde stops at the first mistake, so a value that it does not like is
/// noted, taken out, and the rest is read again: one run shows every mistake.
pub(crate) fn read<S: Settings>(config: &Map<String, Value>, scope: &mut Scope) -> Option<S> {
    let mut value = Value::Object(config.clone());
    // Each round takes out one value or ends, so the bound is only on how much is reported.
    for _ in 0..PROBLEMS_MAX {
        let error = match serde_path_to_error::deserialize::<_, S>(&value) {
            Ok(settings) => return Some(settings),
            Err(error) => error,
        };
        let path = error.path().clone();
        let at = match path.to_string().as_str() {
            "." => String::new(),
            path => path.to_owned(),
        };
        // A missing key is reported at the table that lacks it; that table must stay.
        let message = error.into_inner().to_string();
        let missing = message.starts_with("missing field");
        scope.add(at.clone(), message);
        if missing || !take_out(&mut value, &path) {
            return None;
        }
        scope.unread.push(at);
    }
    None
}

/// Removes what stands at `path`; `false` where nothing does.
fn take_out(value: &mut Value, path: &serde_path_to_error::Path) -> bool {
    use serde_path_to_error::Segment;
    let segments: Vec<_> = path.iter().collect();
    let Some((last, way)) = segments.split_last() else {
        return false;
    };
    let mut here = value;
    for segment in way {
        let next = match segment {
            Segment::Seq { index } => here.get_mut(*index),
            Segment::Map { key } => here.get_mut(key.as_str()),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        match next {
            Some(next) => here = next,
            None => return false,
        }
    }
    match (last, here) {
        (Segment::Map { key }, Value::Object(map)) => map.remove(key.as_str()).is_some(),
        (Segment::Seq { index }, Value::Array(list)) if *index < list.len() => {
            // Later items would change their number in the paths, so the list ends here.
            list.truncate(*index);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_connection_and_of_the_gateway_are_out_of_reach() {
        let mut scope = Scope::new(Path::new(""), |_| None);
        let forbidden = [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "TE",
            "Connection",
            "Upgrade",
            "X-Forwarded-For",
            "x-forwarded-anything",
            "X-Location-Id",
            "X-Hub-Subject",
            "Forwarded",
            "traceparent",
            "RateLimit-Limit",
            "a b",
            "",
            "né",
        ];
        for name in forbidden {
            assert_eq!(scope.header_name("header", name), None, "{name}");
        }
        assert_eq!(scope.len(), forbidden.len());
        assert!(scope.header_name("header", "X-Anything").is_some());
    }

    #[test]
    fn a_flood_of_problems_is_counted_not_kept() {
        let mut scope = Scope::new(Path::new(""), |_| None);
        for line in 0..1_000 {
            scope.add("file", format!("line {line}"));
        }
        let list = scope.into_problems();
        assert_eq!(list.len(), PROBLEMS_MAX + 1);
        assert_eq!(list[PROBLEMS_MAX].message, "and 900 more problems");
    }

    #[test]
    fn paths_are_related_by_segments_not_by_letters() {
        assert!(related("keys[1]", "keys[1].kid"));
        assert!(related("keys[1].kid", "keys"));
        assert!(!related("keys[1]", "keys[10]"));
        assert!(!related("key", "keys"));
        assert!(related("key", ""));
    }

    #[test]
    fn a_file_past_its_bound_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big");
        std::fs::write(&path, [b'x'; 11]).unwrap();
        let path = path.to_str().unwrap();
        let mut scope = Scope::new(Path::new(""), |_| None);
        assert_eq!(
            scope.file("file", path, 11).map(|bytes| bytes.len()),
            Some(11)
        );
        assert_eq!(scope.file("file", path, 10), None);
        assert_eq!(scope.file("file", "/does/not/exist", 10), None);
        assert_eq!(scope.len(), 2);
    }
}
