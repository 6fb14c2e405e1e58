//! `[[route]]`.

use super::place::{At, shorten};
use super::scope::Scope;
use super::words::{self, Names};
use super::{path, tenancy, websocket};
use crate::runtime::{self, Cors, HostPattern, Limit, LimitBy, PathPattern, Segment};
use crate::{PluginInstance, file};
use hub_core::{HeaderName, HeaderValue, Method};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

/// What routes refer to.
pub(crate) struct Known<'k> {
    pub(crate) clusters: &'k Names<'k>,
    pub(crate) limit_names: &'k Names<'k>,
    pub(crate) limits: &'k [Option<Limit>],
    pub(crate) plugin_names: &'k Names<'k>,
    pub(crate) plugins: &'k [Option<Arc<PluginInstance>>],
}

pub(crate) fn routes(
    scope: &mut Scope<'_>,
    files: &[file::Route],
    known: &Known<'_>,
) -> Vec<runtime::Route> {
    let section = At::ROOT.key("route");
    if files.is_empty() {
        scope.problem(
            &section,
            "there is no route; add [[route]] with name, path and cluster",
        );
    }
    let mut routes = Vec::with_capacity(files.len());
    let mut taken = Taken::default();
    for (i, file) in files.iter().enumerate() {
        let at = section.index(i);
        let route = route(scope, &at, file, known);
        if let Some(route) = route.filter(|_| !scope.is_repaired(&at)) {
            taken.claim(scope, &at, i, &route, files);
            routes.push(route);
        }
    }
    routes
}

fn route(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    file: &file::Route,
    known: &Known<'_>,
) -> Option<runtime::Route> {
    let hosts = hosts(scope, &at.key("hosts"), &file.hosts);
    let path = path::pattern(&file.path).map_err(|message| {
        let path_at = at.key("path");
        let kind = match &file.path {
            file::PathMatch::Prefix(_) => "prefix",
            file::PathMatch::Exact(_) => "exact",
            file::PathMatch::Template(_) => "template",
        };
        scope.problem(&path_at.key(kind), message);
    });
    let path = path.ok();
    let methods = methods(scope, &at.key("methods"), &file.methods);
    let headers = headers(scope, &at.key("headers"), &file.headers);
    let cluster = words::refer(
        scope,
        &at.key("cluster"),
        "cluster",
        known.clusters,
        &file.cluster,
    );

    let plugins = references(
        scope,
        &at.key("plugins"),
        "plugin",
        known.plugin_names,
        &file.plugins,
    );
    let instances: Option<Vec<Arc<PluginInstance>>> = plugins.as_ref().and_then(|indexes| {
        let one = |i: &usize| known.plugins.get(*i).cloned().flatten();
        indexes.iter().map(one).collect()
    });
    // `None`: a plugin is broken, and whether it would identify is not known.
    let identifies = instances
        .as_ref()
        .map(|all| all.iter().any(|plugin| plugin.built.identifies));

    let limits = references(
        scope,
        &at.key("limits"),
        "limit",
        known.limit_names,
        &file.limits,
    );
    limits_apply(scope, at, file, known, limits.as_deref(), identifies);
    let tenant = match &file.tenant {
        None => Some(None),
        Some(rule) => {
            tenancy::rule(scope, &at.key("tenant"), rule, path.as_ref(), identifies).map(Some)
        }
    };
    let websocket = match &file.websocket {
        None => Some(None),
        Some(file) => {
            let at = at.key("websocket");
            websocket::websocket(scope, &at, file, methods.as_deref()).map(Some)
        }
    };
    let cors = cors(scope, &at.key("cors_origins"), &file.cors_origins);
    Some(runtime::Route {
        name: file.name.clone(),
        hosts: hosts?,
        path: path?,
        methods: methods?,
        headers: headers?,
        cluster: cluster?,
        tenant: tenant?,
        plugins: instances?,
        limits: limits?,
        body_bytes_max: file.body_bytes_max,
        websocket: websocket?.map(Arc::new),
        retry_other_colour: file.retry_other_colour,
        cors: cors?,
    })
}

/// A limit by something that the route never knows would never apply.
fn limits_apply(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    file: &file::Route,
    known: &Known<'_>,
    limits: Option<&[usize]>,
    identifies: Option<bool>,
) {
    let list_at = at.key("limits");
    for (i, index) in limits.into_iter().flatten().enumerate() {
        let Some(limit) = known.limits.get(*index).and_then(Option::as_ref) else {
            continue;
        };
        let message = match limit.by {
            LimitBy::Tenant if file.tenant.is_none() => {
                "is by tenant, but the route has no tenant; add [route.tenant] or remove the limit"
            }
            LimitBy::Identity if identifies == Some(false) => {
                "is by identity, but the route has no plugin that identifies (jwt, api_key); add one or \
                 remove the limit"
            }
            LimitBy::Address
            | LimitBy::Tenant
            | LimitBy::Route
            | LimitBy::Identity
            | LimitBy::Header(_) => continue,
        };
        scope.problem(&list_at.index(i), format!("{:?} {message}", limit.name));
    }
}

fn references(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    what: &str,
    names: &Names<'_>,
    list: &[String],
) -> Option<Vec<usize>> {
    let mut indexes = Vec::with_capacity(list.len());
    let mut all = true;
    for (i, name) in list.iter().enumerate() {
        let at = at.index(i);
        match words::refer(scope, &at, what, names, name) {
            Some(index) if indexes.contains(&index) => {
                scope.problem(
                    &at,
                    format!("{:?} is listed twice; remove one", shorten(name)),
                );
            }
            Some(index) => indexes.push(index),
            None => all = false,
        }
    }
    all.then_some(indexes)
}

fn hosts(scope: &mut Scope<'_>, at: &At<'_>, list: &[String]) -> Option<Vec<HostPattern>> {
    let host = |text: &String| {
        if text == "*" {
            return Err("\"*\" is no host; leave hosts out to match any".to_owned());
        }
        match text.strip_prefix("*.") {
            Some(suffix) => {
                words::domain(suffix).map(|name| HostPattern::Wildcard(format!(".{name}")))
            }
            None => words::host(text).map(HostPattern::Exact),
        }
    };
    words::each(scope, at, list, host)
}

fn methods(scope: &mut Scope<'_>, at: &At<'_>, list: &[String]) -> Option<Vec<Method>> {
    words::each(scope, at, list, |text| words::method(text))
}

fn headers(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    list: &[file::HeaderMatch],
) -> Option<Vec<(HeaderName, Option<HeaderValue>)>> {
    let mut headers: Vec<(HeaderName, Option<HeaderValue>)> = Vec::new();
    let mut all = true;
    for (i, file) in list.iter().enumerate() {
        let at = at.index(i);
        let name = words::header_name(&file.name).and_then(|name| match name.as_str() {
            "host" => Err("is the host; write it in hosts".to_owned()),
            _ if headers.iter().any(|(other, _)| *other == name) => Err(format!(
                "{:?} has a condition already; remove one",
                name.as_str()
            )),
            _ => Ok(name),
        });
        let name = name
            .map_err(|message| scope.problem(&at.key("name"), message))
            .ok();
        let value = match &file.value {
            None => Some(None),
            Some(text) => words::header_value(text)
                .map_err(|message| scope.problem(&at.key("value"), message))
                .ok()
                .map(Some),
        };
        match (name, value) {
            (Some(name), Some(value)) => headers.push((name, value)),
            (None, _) | (_, None) => all = false,
        }
    }
    all.then_some(headers)
}

fn cors(scope: &mut Scope<'_>, at: &At<'_>, list: &[String]) -> Option<Cors> {
    if list.is_empty() {
        return Some(Cors::Off);
    }
    if list.iter().any(|origin| origin == "*") {
        if list.len() > 1 {
            scope.problem(at, "has \"*\" beside other origins; keep one or the other");
        }
        return Some(Cors::Any);
    }
    words::each(scope, at, list, |text| words::origin(text)).map(Cors::Origins)
}

/// What routes match already: a key for each host and method, so that ten thousand routes are compared
/// in linear time.
#[derive(Default)]
struct Taken {
    by_match: HashMap<String, usize>,
    told: HashSet<(usize, usize)>,
}

impl Taken {
    fn claim(
        &mut self,
        scope: &mut Scope<'_>,
        at: &At<'_>,
        index: usize,
        route: &runtime::Route,
        files: &[file::Route],
    ) {
        let rest = match_key(route);
        let mut hosts: Vec<&str> = Vec::new();
        for host in &route.hosts {
            hosts.push(match host {
                HostPattern::Exact(host) => host,
                // A wildcard's suffix starts with a dot, which no exact host does.
                HostPattern::Wildcard(suffix) => suffix,
            });
        }
        if hosts.is_empty() {
            hosts.push("");
        }
        let any = [String::new()];
        let methods: Vec<&str> = match route.methods.is_empty() {
            true => any.iter().map(String::as_str).collect(),
            false => route.methods.iter().map(Method::as_str).collect(),
        };
        for host in hosts {
            for method in &methods {
                let key = format!("{host}\n{method}\n{rest}");
                let first = *self.by_match.entry(key).or_insert(index);
                if first != index && self.told.insert((first, index)) {
                    let section = At::ROOT.key("route");
                    let line = scope.line(&section.index(first)).unwrap_or_default();
                    let (host, method) = (
                        if host.is_empty() {
                            "any host".to_owned()
                        } else {
                            format!("host {host:?}")
                        },
                        if method.is_empty() {
                            "any method".to_owned()
                        } else {
                            format!("method {method}")
                        },
                    );
                    let message = format!(
                        "matches exactly what route {:?} on line {line} matches ({host}, {method}); \
                         change or remove one of the two",
                        files[first].name
                    );
                    scope.problem(at, message);
                }
            }
        }
    }
}

/// Path and header conditions, such that two routes with the same key match the same.
fn match_key(route: &runtime::Route) -> String {
    let mut key = String::new();
    match &route.path {
        PathPattern::Exact(path) => key.push_str(path),
        PathPattern::Prefix(path) => {
            key.push_str("prefix ");
            key.push_str(path);
        }
        PathPattern::Template(segments) => {
            key.push_str("template ");
            for segment in segments {
                // Names do not matter, and no literal holds a brace.
                let text = match segment {
                    Segment::Literal(text) => text,
                    Segment::One(_) => "{}",
                    Segment::Rest(_) => "{*}",
                };
                key.push('/');
                key.push_str(text);
            }
        }
    }
    let mut headers: Vec<_> = route.headers.iter().collect();
    headers.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in headers {
        // Debug forms, since they escape line breaks and quotes. Writing to a string cannot fail.
        let value = value.as_ref().map(HeaderValue::as_bytes);
        write!(key, "\n{} {value:?}", name.as_str()).expect("a string takes all that is written");
    }
    key
}
