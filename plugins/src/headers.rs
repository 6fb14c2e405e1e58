//! Sets, appends and removes headers of requests and responses.

use crate::settings::{Scope, Settings};
use crate::{Plugin, PluginContext, Step, Verdict};
use hub_core::{Edit, HeaderName, HeaderValue, RequestView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Settings of the kind `headers`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Changes to the request, before the upstream sees it.
    pub request: Changes,
    /// Changes to the response, before the client sees it.
    pub response: Changes,
}

/// What is done to one set of headers: first `remove`, then `set`, then `append`.
///
/// Values may hold `${client_address}`, `${host}`, `${request_id}` and `${scheme}`; a `$` is written
/// `$$`. Names may not be those of the connection, of framing, or of the gateway itself.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Changes {
    /// Names of headers to remove.
    pub remove: Vec<String>,
    /// Name = value: replaces every header of that name.
    pub set: BTreeMap<String, String>,
    /// Name = value: adds a header beside those of that name.
    pub append: BTreeMap<String, String>,
}

/// The plugin.
#[derive(Debug)]
pub struct HeaderChanges {
    request: Vec<Change>,
    response: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    /// Made at load.
    Fixed(Edit),
    Set(HeaderName, Vec<Piece>),
    Append(HeaderName, Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Variable {
    ClientAddress,
    Host,
    RequestId,
    Scheme,
}

const VARIABLES: &[(&str, Variable)] = &[
    ("client_address", Variable::ClientAddress),
    ("host", Variable::Host),
    ("request_id", Variable::RequestId),
    ("scheme", Variable::Scheme),
];
/// Longest value, in bytes, as written.
const VALUE_MAX: usize = 4_096;
/// Most changes to one set of headers.
const CHANGES_MAX: usize = 64;

impl Settings for Config {
    type Plugin = HeaderChanges;

    fn build(self, _name: &str, scope: &mut Scope) -> Option<HeaderChanges> {
        let before = scope.len();
        let plugin = HeaderChanges {
            request: self.request.check("request", scope),
            response: self.response.check("response", scope),
        };
        if plugin.request.is_empty() && plugin.response.is_empty() && scope.len() == before {
            scope.add(
                "",
                "it changes nothing; fill `request` or `response`, or remove the plugin",
            );
        }
        (scope.len() == before).then_some(plugin)
    }
}

// === impl Changes ===

impl Changes {
    fn check(self, at: &str, scope: &mut Scope) -> Vec<Change> {
        let count = self.remove.len() + self.set.len() + self.append.len();
        if count > CHANGES_MAX {
            scope.add(at, format!("{count} changes; use at most {CHANGES_MAX}"));
            return Vec::new();
        }
        let mut changes = Vec::with_capacity(count);
        // Spellings of one name in different case would race for it.
        let mut removed_or_set: Vec<HeaderName> = Vec::new();
        let mut once = |at: &str, name: &HeaderName, scope: &mut Scope| {
            if removed_or_set.contains(name) {
                scope.add(at, format!("`{name}` is set or removed twice; keep one"));
            } else {
                removed_or_set.push(name.clone());
            }
        };
        for (index, name) in self.remove.iter().enumerate() {
            let at = format!("{at}.remove[{index}]");
            if let Some(name) = scope.header_name(&at, name) {
                once(&at, &name, scope);
                changes.push(Change::Fixed(Edit::Remove(name)));
            }
        }
        for (name, value) in &self.set {
            let at = format!("{at}.set.{name}");
            let value = check_value(&at, value, scope);
            if let Some(name) = scope.header_name(&at, name) {
                once(&at, &name, scope);
                changes.extend(value.map(|value| match value {
                    Value::Fixed(value) => Change::Fixed(Edit::Set(name, value)),
                    Value::Pieces(pieces) => Change::Set(name, pieces),
                }));
            }
        }
        for (name, value) in &self.append {
            let at = format!("{at}.append.{name}");
            let value = check_value(&at, value, scope);
            if let Some(name) = scope.header_name(&at, name) {
                changes.extend(value.map(|value| match value {
                    Value::Fixed(value) => Change::Fixed(Edit::Append(name, value)),
                    Value::Pieces(pieces) => Change::Append(name, pieces),
                }));
            }
        }
        changes
    }
}

enum Value {
    Fixed(HeaderValue),
    Pieces(Vec<Piece>),
}

fn check_value(at: &str, text: &str, scope: &mut Scope) -> Option<Value> {
    if text.len() > VALUE_MAX {
        scope.add(at, format!("is longer than {VALUE_MAX} bytes"));
        return None;
    }
    // Checked as a whole: the parts that are filled in later hold no byte that a header may not.
    if let Err(error) = HeaderValue::from_str(text) {
        scope.add(at, format!("is not a header value: {error}"));
        return None;
    }
    match parse(text) {
        Ok(pieces) => match pieces.as_slice() {
            [] => Some(Value::Fixed(HeaderValue::from_static(""))),
            [Piece::Text(text)] => HeaderValue::from_str(text).ok().map(Value::Fixed),
            _ => Some(Value::Pieces(pieces)),
        },
        Err(message) => {
            scope.add(at, message);
            None
        }
    }
}

/// Splits at `${name}`; `$$` is a dollar sign.
fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            plain.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = after
            .strip_prefix('{')
            .and_then(|after| after.split_once('}'))
        else {
            return Err(
                "a `$` starts a variable, as `${host}`; write `$$` for the sign itself".into(),
            );
        };
        let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) else {
            let known: Vec<_> = VARIABLES.iter().map(|(known, _)| *known).collect();
            return Err(format!(
                "no variable `{name}`; there are {}",
                known.join(", ")
            ));
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Variable(*variable));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

// === impl HeaderChanges ===

impl Plugin for HeaderChanges {
    fn step(&self) -> Step {
        Step::Request
    }

    fn on_request(&self, request: &RequestView<'_>, context: &mut PluginContext<'_>) -> Verdict {
        let edits = &mut *context.edits;
        edits
            .request
            .extend(self.request.iter().map(|change| change.edit(request)));
        edits
            .response
            .extend(self.response.iter().map(|change| change.edit(request)));
        Verdict::Continue
    }
}

impl Change {
    fn edit(&self, request: &RequestView<'_>) -> Edit {
        match self {
            Self::Fixed(edit) => edit.clone(),
            // A value that cannot be written must not let the sender's own through.
            Self::Set(name, pieces) => fill(pieces, request).map_or_else(
                || Edit::Remove(name.clone()),
                |value| Edit::Set(name.clone(), value),
            ),
            Self::Append(name, pieces) => fill(pieces, request).map_or_else(
                || Edit::Remove(name.clone()),
                |value| Edit::Append(name.clone(), value),
            ),
        }
    }
}

fn fill(pieces: &[Piece], request: &RequestView<'_>) -> Option<HeaderValue> {
    let mut text = String::with_capacity(64);
    for piece in pieces {
        match piece {
            Piece::Text(plain) => text.push_str(plain),
            Piece::Variable(Variable::ClientAddress) => {
                write!(text, "{}", request.client.address).ok()?;
            }
            Piece::Variable(Variable::Host) => text.push_str(request.host),
            Piece::Variable(Variable::RequestId) => {
                text.push_str(request.request_id.encode(&mut [0; 36]));
            }
            Piece::Variable(Variable::Scheme) => text.push_str(request.scheme.as_str()),
        }
    }
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Request, build, problems_of};
    use serde_json::json;
    use std::path::Path;

    fn name(name: &'static str) -> HeaderName {
        HeaderName::from_static(name)
    }

    fn value(value: &'static str) -> HeaderValue {
        HeaderValue::from_static(value)
    }

    #[test]
    fn changes_come_in_the_order_remove_set_append() {
        let plugin = build(
            "headers",
            json!({
                "request": { "append": { "Via": "hub" }, "set": { "X-Env": "live" }, "remove": ["X-Debug"] },
                "response": { "set": { "Strict-Transport-Security": "max-age=1" } },
            }),
        );
        let (verdict, edits) = Request::new().run(&*plugin);
        assert_eq!(verdict, Verdict::Continue);
        assert_eq!(
            edits.request,
            [
                Edit::Remove(name("x-debug")),
                Edit::Set(name("x-env"), value("live")),
                Edit::Append(name("via"), value("hub")),
            ]
        );
        assert_eq!(
            edits.response,
            [Edit::Set(
                name("strict-transport-security"),
                value("max-age=1")
            )]
        );
    }

    #[test]
    fn variables_are_filled_in_from_the_request() {
        let plugin = build(
            "headers",
            json!({
                "request": { "set": { "X-Seen": "${scheme}://${host} by ${client_address} $${x} ${request_id}." } },
            }),
        );
        let (_, edits) = Request::new().run(&*plugin);
        let seen =
            "https://api.example.com by 192.0.2.7 ${x} 00000000-0000-7000-8000-000000000000.";
        assert_eq!(edits.request, [Edit::Set(name("x-seen"), value(seen))]);
    }

    #[test]
    fn values_without_variables_are_made_at_load() {
        let parsed = Changes {
            set: [
                ("X-Price".to_owned(), "$$5".to_owned()),
                ("X-Empty".to_owned(), String::new()),
            ]
            .into(),
            ..Changes::default()
        }
        .check("request", &mut Scope::new(Path::new(""), |_| None));
        assert!(
            parsed
                .iter()
                .all(|change| matches!(change, Change::Fixed(_))),
            "{parsed:?}"
        );
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_lists_the_known_ones() {
        let error = parse("${tenant}").unwrap_err();
        assert_eq!(
            error,
            "no variable `tenant`; there are client_address, host, request_id, scheme"
        );
        assert!(parse("cost: $5").is_err());
        assert!(parse("${host").is_err());
    }

    #[test]
    fn a_host_that_is_no_header_value_removes_rather_than_lets_through() {
        let plugin = build(
            "headers",
            json!({ "request": { "set": { "X-Host": "${host}" } } }),
        );
        let (_, edits) = Request::new().host("a\u{1}b").run(&*plugin);
        assert_eq!(edits.request, [Edit::Remove(name("x-host"))]);
    }

    #[test]
    fn every_mistake_is_reported_at_once_with_its_key() {
        let mut at = problems_of(
            "headers",
            json!({
                "request": {
                    "remove": ["Host", "X-Twice"],
                    "set": { "x-twice": "1", "X-Forwarded-For": "1.2.3.4", "X-Line": "a\nb", "X-Var": "${nope}" },
                    "append": { "bad name": "x", "Transfer-Encoding": "chunked" },
                    "replace": {},
                },
                "response": { "set": { "X-Long": "x".repeat(5_000), "Content-Length": "0" } },
            }),
        );
        at.sort();
        assert_eq!(
            at,
            [
                "request.append.Transfer-Encoding",
                "request.append.bad name",
                "request.remove[0]",
                "request.replace",
                "request.set.X-Forwarded-For",
                "request.set.X-Line",
                "request.set.X-Var",
                "request.set.x-twice",
                "response.set.Content-Length",
                "response.set.X-Long",
            ]
        );
    }

    #[test]
    fn a_plugin_that_changes_nothing_is_a_mistake() {
        assert_eq!(problems_of("headers", json!({})), [""]);
    }
}
