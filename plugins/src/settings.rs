//! From a `config` table to a plugin: what every kind shares.

use crate::Plugin;
use hub_config::{PluginProblem, is_variable, read_file};
use hub_core::HeaderName;
use ring::digest;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::fmt::Display;
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
    env: Environment,
    list: Vec<PluginProblem>,
    more: usize,
    /// Keys that were taken out because they could not be read.
    unread: Vec<String>,
    /// What was read so far.
    pub(crate) inputs: Vec<Input>,
}

/// Something that an instance was built from, with what it held when it was read: looking at it a second
/// time to tell whether it changed would miss a change between the two.
#[derive(Debug)]
pub(crate) struct Input {
    origin: Origin,
    pub(crate) digest: [u8; 32],
}

#[derive(Debug)]
enum Origin {
    File { path: PathBuf, bytes_max: u64 },
    Variable(String),
}

type Environment = fn(&str) -> Option<OsString>;

const PROBLEMS_MAX: usize = 100;
/// Most of a path that a problem repeats, in characters.
const PATH_SHOWN_MAX: usize = 64;

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
    pub(crate) fn new(base: &Path, env: Environment) -> Self {
        Self {
            base: base.to_owned(),
            env,
            list: Vec::new(),
            more: 0,
            unread: Vec::new(),
            inputs: Vec::new(),
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

    /// The bytes of a regular file of at most `bytes_max`; else a problem and `None`. Its change causes a
    /// reload.
    pub fn file(&mut self, at: &str, written: &str, bytes_max: u64) -> Option<Vec<u8>> {
        let shown = match written.char_indices().nth(PATH_SHOWN_MAX) {
            Some((end, _)) => format!("{}...", &written[..end]),
            None => written.to_owned(),
        };
        self.file_shown_as(&shown.escape_debug().to_string(), at, written, bytes_max)
    }

    /// As [`Scope::file`] for a file that holds a secret. What stands in place of its path may be the
    /// secret itself, so no problem repeats it.
    pub fn secret_file(&mut self, at: &str, written: &str, bytes_max: u64) -> Option<Vec<u8>> {
        self.file_shown_as("the file", at, written, bytes_max)
    }

    fn file_shown_as(
        &mut self,
        shown: &str,
        at: &str,
        written: &str,
        bytes_max: u64,
    ) -> Option<Vec<u8>> {
        let path = self.base.join(written);
        match read_file(&path, bytes_max) {
            Ok(bytes) => {
                self.note(Origin::File { path, bytes_max }, &bytes);
                Some(bytes)
            }
            Err(message) => {
                self.add(at, format!("{shown}: {message}"));
                None
            }
        }
    }

    /// The bytes of an environment variable; else a problem and `None`.
    pub fn env(&mut self, at: &str, name: &str) -> Option<Vec<u8>> {
        let value = (self.env)(name).map(OsString::into_encoded_bytes);
        match &value {
            Some(value) => self.note(Origin::Variable(name.to_owned()), value),
            // Unless it looks like a name it may be the secret itself.
            None if is_variable(name) => {
                self.add(at, format!("the environment has no variable `{name}`"));
            }
            None => self.add(
                at,
                "names a variable that the environment does not have; a secret itself does not belong here",
            ),
        }
        value
    }

    fn note(&mut self, origin: Origin, bytes: &[u8]) {
        let digest = sha256(bytes);
        self.inputs.push(Input { origin, digest });
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

// === impl Input ===

impl Input {
    /// True where it can be read, and holds what it held.
    pub(crate) fn is_current(&self, env: Environment) -> bool {
        let now = match &self.origin {
            Origin::File { path, bytes_max } => read_file(path, *bytes_max).ok(),
            Origin::Variable(name) => env(name).map(OsString::into_encoded_bytes),
        };
        now.is_some_and(|bytes| sha256(&bytes) == self.digest)
    }

    /// The file, if it is one.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match &self.origin {
            Origin::File { path, .. } => Some(path.clone()),
            Origin::Variable(_) => None,
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
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
        scope.add(at.clone(), without_value(&message));
        if missing || !take_out(&mut value, &path) {
            return None;
        }
        scope.unread.push(at);
    }
    None
}

/// serde's message without the value that it repeats, which may be a secret in the wrong place.
fn without_value(message: &str) -> String {
    for (start, found) in [
        ("invalid type: ", "this is something else"),
        ("invalid value: ", "this is something else"),
        ("unknown variant ", "this is none of them"),
    ] {
        // The expectation comes last; the value before it may hold any text.
        if let (true, Some((_, expected))) = (
            message.starts_with(start),
            message.rsplit_once(", expected "),
        ) {
            return format!("takes {expected}; {found}");
        }
    }
    message.to_owned()
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
    fn what_stands_in_the_place_of_a_secrets_name_is_not_repeated() {
        const SLIP: &str = "s3cr3t, expected /var/lib";
        let mut scope = Scope::new(Path::new("/nowhere"), |_| None);
        assert_eq!(scope.secret_file("secret_file", SLIP, 10), None);
        assert_eq!(scope.env("secret_env", SLIP), None);
        let slips = serde_json::json!({ "keys": SLIP, "audiences": [7, SLIP], "required": SLIP });
        read::<crate::jwt::Config>(slips.as_object().unwrap(), &mut scope);
        assert!(scope.len() >= 5, "{scope:?}");
        let problems = format!("{:?}", scope.into_problems());
        assert!(!problems.contains("s3cr3t"), "{problems}");
        assert!(problems.contains("takes a sequence"), "{problems}");
        let mut scope = Scope::new(Path::new("/nowhere"), |_| None);
        assert_eq!(scope.env("secret_env", "HUB_SECRET"), None);
        assert!(scope.into_problems()[0].message.contains("HUB_SECRET"));
    }

    #[test]
    fn an_input_is_current_while_it_holds_what_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        std::fs::write(&path, "one").unwrap();
        let mut scope = Scope::new(directory.path(), |_| Some("value".into()));
        scope.file("file", "keys", 10).unwrap();
        scope.env("secret_env", "NAME").unwrap();
        let [file, variable] = &scope.inputs[..] else {
            panic!("{scope:?}")
        };
        assert!(file.is_current(|_| None) && variable.is_current(|_| Some("value".into())));
        assert!(!variable.is_current(|_| None) && !variable.is_current(|_| Some("other".into())));
        std::fs::write(&path, "two").unwrap();
        assert!(!file.is_current(|_| None));
        std::fs::remove_file(&path).unwrap();
        assert!(!file.is_current(|_| None));
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
