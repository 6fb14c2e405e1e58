//! `[[listener]]`.

use super::place::At;
use super::process::{certificate, millis};
use super::scope::Scope;
use super::words;
use crate::file::{self, ProxyProtocol};
use crate::runtime::{self, AdminAddress};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub(crate) fn listeners(
    scope: &mut Scope<'_>,
    files: &[file::Listener],
    admin: Option<&runtime::Admin>,
) -> Vec<Arc<runtime::Listener>> {
    let section = At::ROOT.key("listener");
    if files.is_empty() {
        scope.problem(
            &section,
            "there is no listener; add [[listener]] with name and address",
        );
    }
    words::names(
        scope,
        "listener",
        files.iter().map(|file| file.name.as_str()),
    );
    let mut bound: Vec<(SocketAddr, String)> = Vec::new();
    if let Some(AdminAddress::Tcp(address)) = admin.map(|admin| &admin.address) {
        bound.push((*address, "the admin API".into()));
    }
    let mut listeners = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let at = section.index(i);
        let Some(listener) = listener(scope, &at, file) else {
            continue;
        };
        let address = listener.address;
        if let Some((other, owner)) = bound
            .iter()
            .find(|(other, _)| words::clash(*other, address))
        {
            let message = format!("{address} is in use by {owner} ({other}); choose another port");
            scope.problem(&at.key("address"), message);
        }
        bound.push((address, format!("listener {:?}", file.name)));
        listeners.push(Arc::new(listener));
    }
    listeners
}

fn listener(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    file: &file::Listener,
) -> Option<runtime::Listener> {
    let address = words::literal_address(&file.address)
        .map_err(|message| scope.problem(&at.key("address"), message))
        .ok();
    let tls = match &file.tls {
        None => Some(None),
        Some(file) => tls(scope, &at.key("tls"), file).map(Some),
    };
    let from_at = at.key("proxy_protocol_from");
    let proxy_protocol_from = networks(scope, &from_at, &file.proxy_protocol_from);
    let hops_at = at.key("trusted_from");
    let trusted_from = networks(scope, &hops_at, &file.trusted_from);
    match (file.trusted_hops, file.trusted_from.is_empty()) {
        (1.., true) => {
            let message = "is empty; list the networks (CIDR) of the proxies that append to \
                           X-Forwarded-For, such as \"10.0.0.0/8\"";
            scope.problem(&hops_at, message);
        }
        (0, false) => {
            let message = "has no effect while trusted_hops is 0; remove it, or set trusted_hops";
            scope.problem(&hops_at, message);
        }
        (0, true) | (1.., false) => {}
    }
    match (file.proxy_protocol, file.proxy_protocol_from.is_empty()) {
        (ProxyProtocol::Optional | ProxyProtocol::Required, true) => {
            let message = "is empty; list the networks (CIDR) of the proxies that send PROXY headers, \
                           such as \"10.0.0.0/8\"";
            scope.problem(&from_at, message);
        }
        (ProxyProtocol::Off, false) => {
            let message = "has no effect while proxy_protocol is \"off\"; remove it, or set proxy_protocol \
                           to \"optional\" or \"required\"";
            scope.problem(&from_at, message);
        }
        (ProxyProtocol::Off, true) | (ProxyProtocol::Optional | ProxyProtocol::Required, false) => {
        }
    }
    if file.uri_bytes_max > file.head_bytes_max {
        let message = format!(
            "{} is more than head_bytes_max ({}), which the request line is part of; lower it",
            file.uri_bytes_max, file.head_bytes_max
        );
        scope.problem(&at.key("uri_bytes_max"), message);
    }
    Some(runtime::Listener {
        name: file.name.clone(),
        address: address?,
        tls: tls?,
        proxy_protocol: file.proxy_protocol,
        proxy_protocol_from,
        trusted_hops: usize::from(file.trusted_hops),
        trusted_from,
        connections_max: file.connections_max as usize,
        connections_per_address_max: file.connections_per_address_max as usize,
        head_timeout: millis(file.head_timeout_ms),
        idle_timeout: millis(file.idle_timeout_ms),
        body_timeout: millis(file.body_timeout_ms),
        write_timeout: millis(file.write_timeout_ms),
        head_bytes_max: file.head_bytes_max as usize,
        uri_bytes_max: file.uri_bytes_max as usize,
        header_count_max: usize::from(file.header_count_max),
        requests_per_connection_max: file.requests_per_connection_max,
    })
}

fn tls(scope: &mut Scope<'_>, at: &At<'_>, file: &file::Tls) -> Option<runtime::Tls> {
    let list_at = at.key("certificates");
    if file.certificates.is_empty() {
        let message = "is empty; add at least one { certificate_file, key_file }";
        scope.problem(&list_at, message);
    }
    let mut certificates = Vec::new();
    for (i, file) in file.certificates.iter().enumerate() {
        let at = list_at.index(i);
        let Some(pair) = certificate(scope, &at, file) else {
            continue;
        };
        if certificates.contains(&pair) {
            scope.problem(&at, "is listed twice; remove one");
        }
        certificates.push(pair);
    }
    Some(runtime::Tls {
        certificates,
        handshake_timeout: millis(file.handshake_timeout_ms),
        http2: file.http2,
        version_min: file.version_min,
    })
}

fn networks(scope: &mut Scope<'_>, at: &At<'_>, texts: &[String]) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        match network(text) {
            Ok(network) => networks.push(network),
            Err(message) => scope.problem(&at.index(i), message),
        }
    }
    networks
}

/// A network in CIDR form, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let network: Result<IpNet, _> = text.parse();
    let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| {
        let shown = super::place::shorten(text);
        format!("{shown:?} is no network; write CIDR such as \"10.0.0.0/8\" or \"fd00::/8\"")
    })?;
    if network.trunc() != network {
        return Err(format!(
            "{network} has bits beyond its prefix; write {}",
            network.trunc()
        ));
    }
    Ok(network)
}
