//! explain: what would happen to a request, and why a past one was refused.
//!
//! The stages themselves answer, on a request made up from the question, against the snapshot in
//! force; only the limits are read instead of charged. So the answer cannot drift from the code.

use crate::front::{head, host, path};
use crate::hub::Hub;
use crate::snapshot::{Snapshot, colour_name};
use crate::stages::{self, pick};
use hub_config::runtime::LimitBy;
use hub_core::{
    Client, Edits, HeaderField, Headers, Method, Reason, Refusal, RequestId, RequestView, Scheme,
    Version,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

/// A made-up request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// Default `GET`.
    #[serde(default = "get")]
    method: String,
    /// Host as a client would send it.
    #[serde(default)]
    host: String,
    /// Path, with query if any.
    path: String,
    /// Name and value pairs, duplicates allowed.
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// Client address. Default 127.0.0.1.
    #[serde(default)]
    client: Option<IpAddr>,
}

/// Headers that the front reads before any stage, and that a question says otherwise.
const SPOKEN_FOR: &[&str] = &["host", "content-length", "transfer-encoding", "connection"];

fn get() -> String {
    "GET".into()
}

/// Answers a question with the snapshot in force. An error is a sentence on what to correct.
pub(crate) fn explain(hub: &Hub, question: &Question) -> Result<Value, String> {
    let snapshot = hub.snapshot();
    let method = Method::from_bytes(question.method.as_bytes())
        .map_err(|_| format!("`method`: {:?} is not an HTTP method", question.method))?;
    let (path_raw, query) = match question.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (question.path.as_str(), None),
    };
    if !path_raw.starts_with('/') {
        return Err("`path`: it must start with /".into());
    }
    if let Some((name, _)) = question
        .headers
        .iter()
        .find(|(name, _)| SPOKEN_FOR.iter().any(|one| name.eq_ignore_ascii_case(one)))
    {
        return Err(format!(
            "`headers`: {name} is not asked about here; give the host as `host` (hubctl: --host), and leave the body's framing out"
        ));
    }
    let fields: Vec<HeaderField<'_>> = question
        .headers
        .iter()
        .map(|(name, value)| HeaderField {
            name: name.as_bytes(),
            value: value.as_bytes(),
        })
        .collect();
    let refused = |refusal: &Refusal| {
        json!({
            "snapshot": {"epoch": snapshot.epoch, "hash": snapshot.config.hash},
            "verdict": "refused",
            "stage": "accept",
            "refusal": show(refusal),
        })
    };
    if head::is_never_forwarded(&method) {
        return Ok(refused(&Refusal::new(Reason::BadMethod)));
    }
    if fields.iter().any(|field| head::is_look_alike(field.name)) {
        return Ok(refused(&Refusal::new(Reason::BadHeader)));
    }
    let normal = match path::normalise(path_raw) {
        Ok(normal) => normal,
        Err(refusal) => return Ok(refused(&refusal)),
    };
    let host = if question.host.is_empty() {
        String::new()
    } else {
        match host::parse(question.host.as_bytes()) {
            Ok(host) => host.host.into_owned(),
            Err(refusal) => return Ok(refused(&refusal)),
        }
    };
    let client = Client {
        address: question.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        peer: SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    let request_id = RequestId::new(0, [0; 10]);
    let view = RequestView {
        method: &method,
        version: Version::Http11,
        scheme: Scheme::Https,
        host: &host,
        path: &normal,
        path_raw,
        query,
        headers: Headers::new(&fields),
        client: &client,
        request_id: &request_id,
    };
    Ok(walk(hub, &snapshot, &view))
}

/// Takes the request through the stages and tells what each one found.
fn walk(hub: &Hub, snapshot: &Arc<Snapshot>, view: &RequestView<'_>) -> Value {
    let mut story = json!({
        "snapshot": {"epoch": snapshot.epoch, "hash": snapshot.config.hash},
        "path": {"raw": view.path_raw, "matched_on": view.path},
    });
    let mut edits = Edits::default();
    let found = match stages::route::route(&snapshot.router, view, &mut edits) {
        Ok(found) => found,
        Err(refusal) => return refuse(story, "route", &refusal),
    };
    let route = &snapshot.config.routes[found.route];
    story["route"] = json!(route.name);
    let state = &snapshot.routes[found.route];
    let now = SystemTime::now();
    let identity = match stages::identify::identify(state, view, now, &mut edits) {
        Ok(identity) => identity,
        Err(refusal) => return refuse(story, "identify", &refusal),
    };
    story["identity"] = identity.as_ref().map_or(Value::Null, |identity| {
        json!({
            "subject": identity.subject,
            "tenant": identity.tenant.as_ref().map(hub_core::LocationId::as_str),
            "method": identity.method.as_str(),
        })
    });
    let tenant = match &route.tenant {
        None => None,
        Some(rule) => match stages::tenant::tenant(
            &snapshot.config.tenants,
            rule,
            &found,
            view,
            identity.as_ref(),
            state.identifies(),
        ) {
            Ok(tenant) => tenant,
            Err(refusal) => return refuse(story, "tenant", &refusal),
        },
    };
    story["tenant"] = tenant.map_or(Value::Null, |index| {
        json!(snapshot.config.tenants[index].id.as_str())
    });
    story["limits"] = limits(snapshot, found.route, tenant);
    if let Err(refusal) = stages::plugins::run(state, view, now, identity.as_ref(), &mut edits) {
        return refuse(story, "plugins", &refusal);
    }
    let target = pick::target(snapshot, found.route, tenant, view.client.address);
    story["cluster"] = json!(snapshot.config.clusters[target.cluster].name);
    story["colour"] = json!(colour_name(target.colour));
    story["endpoints"] = super::admin::endpoints(snapshot, target.cluster, Some(target.colour));
    story["phase"] = json!(format!("{:?}", hub.lifecycle().phase()).to_lowercase());
    story["verdict"] = json!("forward");
    story
}

/// The gateway's limits that a request meets, as configured.
fn limits(
    snapshot: &Snapshot,
    route: usize,
    tenant: Option<hub_config::runtime::TenantIndex>,
) -> Value {
    let config = &snapshot.config;
    let rule = |index: &usize| {
        let limit = &config.limits[*index];
        json!({
            "name": limit.name,
            "by": match &limit.by {
                LimitBy::Address => "address".to_owned(),
                LimitBy::Tenant => "tenant".to_owned(),
                LimitBy::Route => "route".to_owned(),
                LimitBy::Identity => "identity".to_owned(),
                LimitBy::Header(name) => format!("header:{name}"),
            },
            "requests": limit.quota.requests,
            "per_ms": limit.quota.period.as_millis() as u64,
            "burst": limit.quota.burst,
        })
    };
    let address: Vec<_> = config.address_limits.iter().map(rule).collect();
    let by_route: Vec<_> = config.routes[route].limits.iter().map(rule).collect();
    let own = tenant.map(|index| {
        let tenant = &config.tenants[index];
        json!({
            "requests_per_second": tenant.quota.as_ref().map(|quota| quota.requests),
            "burst": tenant.quota.as_ref().map(|quota| quota.burst),
            "in_flight_max": tenant.in_flight_max,
            "in_flight": snapshot.tenant(index).in_flight(),
        })
    });
    json!({
        "address": address,
        "tenant": own,
        "route": by_route,
        "body_bytes_max": config.routes[route].body_bytes_max,
    })
}

fn refuse(mut story: Value, stage: &str, refusal: &Refusal) -> Value {
    story["verdict"] = json!("refused");
    story["stage"] = json!(stage);
    story["refusal"] = show(refusal);
    story
}

fn show(refusal: &Refusal) -> Value {
    json!({
        "code": refusal.reason.code(),
        "status": refusal.reason.status().as_u16(),
        "meaning": refusal.reason.meaning(),
        "detail": refusal.detail,
    })
}

/// Why a past request was refused, if it is still remembered.
pub(crate) fn past(hub: &Hub, id: RequestId) -> Option<Value> {
    let refused = hub.refusals.find(id)?;
    Some(json!({
        "request_id": id.to_string(),
        "at_unix_seconds": super::reload::unix_seconds(refused.at),
        "refusal": {
            "code": refused.reason.code(),
            "status": refused.reason.status().as_u16(),
            "meaning": refused.reason.meaning(),
            "detail": refused.detail,
        },
        "route": refused.route,
        "tenant": refused.tenant,
        "client": refused.client.to_string(),
    }))
}
