//! `[[cluster]]`.

mod schema;

use super::names::Name;
use super::place::{At, shorten};
use super::process::{millis, millis_unless_zero};
use super::scope::Scope;
use super::{files, gate};
use super::{path, words};
use crate::file::{self, Colour, HealthKind};
use crate::runtime::{self, Endpoint, EndpointAddress, HealthProbe};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// `store` says whether there is a place for ledgers.
pub(crate) fn clusters(
    scope: &mut Scope<'_>,
    files: &[file::Cluster],
    store: bool,
) -> Vec<runtime::Cluster> {
    let section = At::ROOT.key("cluster");
    if files.is_empty() {
        scope.problem(
            &section,
            "there is no cluster; add [[cluster]] with name and endpoints",
        );
    }
    scope.look_up(names(files));
    let mut clusters = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let at = section.index(i);
        if file.schema.is_some() && !store {
            let message = "needs the ledger of migrations; set store.directory";
            scope.problem(&at.key("schema"), message);
        }
        clusters.extend(cluster(scope, &at, file));
    }
    clusters
}

fn cluster(scope: &mut Scope<'_>, at: &At<'_>, file: &file::Cluster) -> Option<runtime::Cluster> {
    let endpoints_at = at.key("endpoints");
    let blue_at = endpoints_at.key("blue");
    let green_at = endpoints_at.key("green");
    let blue = endpoints(scope, &blue_at, &file.endpoints.blue, file.allow_link_local);
    let green = endpoints(
        scope,
        &green_at,
        &file.endpoints.green,
        file.allow_link_local,
    );
    let (active_at, active) = match file.active {
        Colour::Blue => (&blue_at, &file.endpoints.blue),
        Colour::Green => (&green_at, &file.endpoints.green),
    };
    if active.is_empty() {
        let message =
            "is the active colour and has no endpoint; add one, or set active to the other colour";
        scope.problem(active_at, message);
    }
    let tls = match &file.tls {
        None => Some(None),
        Some(file) => tls(scope, &at.key("tls"), file).map(Some),
    };
    let health = match &file.health {
        None => Some(None),
        Some(file) => health(scope, &at.key("health"), file).map(Some),
    };
    let gate = gate::gate(scope, &at.key("gate"), &file.gate);
    let schema = match &file.schema {
        None => Some(None),
        Some(schema) => schema::schema(scope, &at.key("schema"), schema, file).map(Some),
    };
    if file.first_byte_timeout_ms > file.idle_timeout_ms {
        let message = format!(
            "{} is more than idle_timeout_ms ({}), which ends every wait for the upstream; lower it, or \
             raise idle_timeout_ms",
            file.first_byte_timeout_ms, file.idle_timeout_ms
        );
        scope.problem(&at.key("first_byte_timeout_ms"), message);
    }
    Some(runtime::Cluster {
        name: file.name.clone(),
        active: file.active,
        blue,
        green,
        balance: file.balance,
        tls: tls?,
        health: health?,
        gate: gate?,
        connect_timeout: millis(file.connect_timeout_ms),
        first_byte_timeout: millis(file.first_byte_timeout_ms),
        idle_timeout: millis(file.idle_timeout_ms),
        total_timeout: millis_unless_zero(file.total_timeout_ms),
        keepalive_timeout: millis_unless_zero(file.keepalive_timeout_ms),
        connect_retries: file.connect_retries,
        schema: schema?,
    })
}

fn endpoints(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    texts: &[String],
    allow_link_local: bool,
) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let at = at.index(i);
        match endpoint(scope, &at, text, allow_link_local) {
            Ok(address) => {
                if let Some(other) = endpoints.iter().find(|other| other.address == address) {
                    let message = format!(
                        "{text:?} is the same address as {:?}; remove one",
                        other.name
                    );
                    scope.problem(&at, message);
                }
                endpoints.push(Endpoint {
                    name: text.clone(),
                    address,
                });
            }
            Err(message) => scope.problem(&at, message),
        }
    }
    endpoints
}

/// An endpoint's address as it is written.
enum Written<'t> {
    Unix(&'t str),
    Literal(SocketAddr),
    Name(Name),
}

fn written(text: &str) -> Result<Written<'_>, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Written::Unix(path));
    }
    let shown = shorten(text);
    if text.contains("://") {
        return Err(format!(
            "{shown:?} is a URL; write host:port, and [cluster.tls] for TLS"
        ));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| {
        format!("{shown:?} has no port; write \"host:port\", \"[IPv6]:port\" or \"unix:/path\"")
    })?;
    let port = port.parse().ok().filter(|port| *port > 0);
    let port: u16 =
        port.ok_or_else(|| format!("{shown:?} needs a port from 1 to 65535 after the last colon"))?;
    if let Ok(literal) = text.parse() {
        return Ok(Written::Literal(literal));
    }
    if host.contains(':') {
        return Err(format!(
            "{shown:?} is no address; write IPv6 as \"[::1]:port\""
        ));
    }
    Ok(Written::Name((words::domain(host)?, port)))
}

/// Every name that the clusters' endpoints hold.
fn names(files: &[file::Cluster]) -> BTreeSet<Name> {
    let endpoints = files.iter().map(|file| &file.endpoints);
    endpoints
        .flat_map(|endpoints| endpoints.blue.iter().chain(&endpoints.green))
        .filter_map(|text| match written(text) {
            Ok(Written::Name(name)) => Some(name),
            Ok(Written::Unix(_) | Written::Literal(_)) | Err(_) => None,
        })
        .collect()
}

fn endpoint(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    text: &str,
    allow_link_local: bool,
) -> Result<EndpointAddress, String> {
    let shown = shorten(text);
    let all = match written(text)? {
        Written::Unix(path) => return words::unix_path(scope, path).map(EndpointAddress::Unix),
        Written::Literal(literal) => vec![literal],
        Written::Name(name) => match scope.addresses(&name) {
            Ok(found) => found,
            Err(why) => {
                let why = format!("{:?} cannot be looked up ({why})", name.0);
                let Some(kept) = in_force(scope, text) else {
                    return Err(format!("{why}; check the name, or write an address"));
                };
                scope.warn(at, format!("{why}; it keeps its address {kept}"));
                vec![kept]
            }
        },
    };
    // Every address of a name counts: which one is taken may change with the next look-up.
    let refused = all
        .iter()
        .find(|one| runtime::is_link_local_or_unspecified(one.ip()));
    if let (Some(refused), false) = (refused, allow_link_local) {
        let ip = refused.ip();
        return Err(format!(
            "{shown:?} leads to {ip}, a link-local, metadata, multicast or unspecified address; \
             if you mean it, set allow_link_local = true"
        ));
    }
    // IPv4 first and then the least, so that a reload does not move with the order of DNS answers.
    let first = all.iter().min().expect("an empty answer was refused above");
    Ok(EndpointAddress::Tcp(*first))
}

/// The address that an endpoint of this name has in the running configuration.
fn in_force(scope: &Scope<'_>, text: &str) -> Option<SocketAddr> {
    let clusters = &scope.running?.clusters;
    let mut endpoints = clusters
        .iter()
        .flat_map(|one| one.blue.iter().chain(&one.green));
    match endpoints.find(|one| one.name == text)?.address {
        EndpointAddress::Tcp(address) => Some(address),
        EndpointAddress::Unix(_) => None,
    }
}

fn tls(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    file: &file::UpstreamTls,
) -> Option<runtime::UpstreamTls> {
    let name = server_name(&file.server_name)
        .map_err(|message| scope.problem(&at.key("server_name"), message))
        .ok();
    let authorities = match &file.ca_file {
        None => Some(None),
        Some(written) => authorities(scope, &at.key("ca_file"), written).map(Some),
    };
    Some(runtime::UpstreamTls {
        server_name: name?,
        authorities: authorities?,
    })
}

/// SNI, or an address that the certificate must carry.
fn server_name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(
            "is empty, which would turn verification off; write the certificate's name".into(),
        );
    }
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(address.to_string());
    }
    words::domain(text)
}

fn authorities(scope: &mut Scope<'_>, at: &At<'_>, written: &str) -> Option<Arc<Vec<Vec<u8>>>> {
    let (path, pem) = scope.read(at, written)?;
    match files::certificates(&pem) {
        Ok(authorities) => {
            scope.digest(&pem);
            scope.watch(path);
            Some(Arc::new(authorities))
        }
        Err(message) => {
            scope.problem(at, format!("{}: {message}", path.display()));
            None
        }
    }
}

fn health(scope: &mut Scope<'_>, at: &At<'_>, file: &file::Health) -> Option<runtime::Health> {
    if file.timeout_ms > file.interval_ms {
        let message = format!(
            "{} is more than interval_ms ({}); a check must end before the next begins",
            file.timeout_ms, file.interval_ms
        );
        scope.problem(&at.key("timeout_ms"), message);
    }
    let probe = match file.kind {
        HealthKind::Tcp => HealthProbe::Tcp,
        HealthKind::Http => {
            let path_at = at.key("path");
            let path_fine =
                path::target(&file.path).map_err(|message| scope.problem(&path_at, message));
            let host = match &file.host {
                None => Ok(None),
                Some(host) => host_and_port(host)
                    .map(Some)
                    .map_err(|message| scope.problem(&at.key("host"), message)),
            };
            let body_contains = match &file.body_contains {
                None => Ok(None),
                Some(text) => gate::body_text(text)
                    .map(Some)
                    .map_err(|message| scope.problem(&at.key("body_contains"), message)),
            };
            path_fine.ok()?;
            HealthProbe::Http {
                path: file.path.clone(),
                host: host.ok()?,
                status: file.status,
                body_contains: body_contains.ok()?,
            }
        }
    };
    Some(runtime::Health {
        probe,
        interval: millis(file.interval_ms),
        timeout: millis(file.timeout_ms),
        healthy_after: file.healthy_after,
        unhealthy_after: file.unhealthy_after,
    })
}

/// A `Host` header: host, with a port if need be.
pub(super) fn host_and_port(text: &str) -> Result<String, String> {
    let port =
        |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    match text.rsplit_once(':') {
        Some((host, digits)) if port(digits) => Ok(format!("{}:{digits}", words::host(host)?)),
        Some(_) | None => words::host(text),
    }
}
